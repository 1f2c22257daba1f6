//! What properties of Alluxio change: seen in what is sent to the servers, as a mount with `alluxio.fuse.debug.enabled`
//! writes it down, or in what the mount does. Those of other promises are tested with them: the command line in `cli.rs`,
//! owners in `permissions.rs`, time-outs and retries of servers that are gone in `faults.rs`, the life time of files in
//! `overwrite.rs`, settings from the cluster in `settings.rs`.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::cluster::Cluster;
use common::cluster::OwnCluster;
use common::content;
use common::mount::Mount;
use common::mount::Spec;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A mount of a directory of its own that writes down what it sends.
fn verbose(cluster: &Cluster, path: &str) -> Spec {
    Spec::alluxio(cluster, path).property("alluxio.fuse.debug.enabled", "true")
}

fn with(spec: Spec, properties: &[(&str, &str)]) -> Spec {
    properties.iter().fold(spec, |spec, (key, value)| spec.property(key, value))
}

/// The requests for `rpc` about what has `subject` in it.
fn sent(mount: &Mount, rpc: &str, subject: &str) -> Vec<String> {
    let mut lines = mount.logged(&format!(" is sent {rpc} "));
    lines.retain(|line| line.contains(subject));
    lines
}

/// Every request for `rpc` about `subject`, of which there are some, says all of `parts`.
fn assert_sent(mount: &Mount, rpc: &str, subject: &str, parts: &[&str]) {
    let lines = sent(mount, rpc, subject);
    assert!(!lines.is_empty(), "no {rpc} about {subject}");
    for (line, part) in lines.iter().flat_map(|line| parts.iter().map(move |part| (line, part))) {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

/// The servers to which `rpc` was sent.
fn receivers(mount: &Mount, rpc: &str) -> HashSet<String> {
    let lines = sent(mount, rpc, "");
    lines
        .iter()
        .map(|line| line.split(" is sent ").next().unwrap().rsplit(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_file_is_made_with() {
    let cluster = Cluster::get();
    let dir = cluster.directory("made");
    let own = [
        ("alluxio.user.file.writetype.default", "MUST_CACHE", "write_type: Some(MustCache)"),
        ("alluxio.user.block.size.bytes.default", "2MB", "block_size_bytes: Some(2097152)"),
        ("alluxio.user.file.write.tier.default", "-1", "write_tier: Some(-1)"),
        ("alluxio.user.file.replication.min", "1", "replication_min: Some(1)"),
        ("alluxio.user.file.replication.max", "3", "replication_max: Some(3)"),
        ("alluxio.user.file.replication.durable", "2", "replication_durable: Some(2)"),
        ("alluxio.user.file.create.ttl", "1h", "ttl: Some(3600000)"),
        ("alluxio.user.file.create.ttl.action", "DELETE_ALLUXIO", "ttl_action: Some(DeleteAlluxio)"),
        ("alluxio.user.file.persistence.initial.wait.time", "5s", "persistence_wait_time: Some(5000)"),
        ("alluxio.user.file.include.operation.id", "false", "operation_id: None"),
    ];
    let set: Vec<_> = own.iter().map(|(key, value, _)| (*key, *value)).collect();
    let mount = with(verbose(&cluster, &dir.path), &set)
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.user.file.persist.on.rename", "true")
        .property("alluxio.user.file.delete.unchecked", "true")
        .start();
    let usual = verbose(&cluster, &dir.path).start();
    for (mount, name) in [(&mount, "own"), (&usual, "usual")] {
        let (file, other) = (mount.path().join(name), mount.path().join(format!("{name}-renamed")));
        content::write_file(&file, 1, 3 * MIB).unwrap();
        fs::rename(&file, &other).unwrap();
        content::check_file(&other, 1, 3 * MIB).unwrap();
        fs::remove_file(&other).unwrap();
    }
    let parts: Vec<_> = own.iter().map(|(_, _, part)| *part).collect();
    assert_sent(&mount, "CreateFile", "/own", &parts);
    for line in sent(&usual, "CreateFile", "/usual") {
        for part in &parts {
            assert!(!line.contains(part), "without the property, too: {part} in {line}");
        }
    }
    assert_sent(&mount, "WriteBlock", "AlluxioBlock", &["tier: Some(-1)"]);
    assert_eq!(sent(&mount, "WriteBlock", "AlluxioBlock").len(), 2, "two blocks");
    assert_sent(&mount, "Rename", "/own", &["persist: Some(true)"]);
    assert_sent(&usual, "Rename", "/usual", &["persist: Some(false)"]);
    assert_sent(&mount, "Remove", "/own", &["unchecked: Some(true)"]);
    assert_sent(&usual, "Remove", "/usual", &["unchecked: Some(false)"]);
    mount.unmount();
    usual.unmount();
}

#[test]
fn what_is_asked_about_metadata() {
    let cluster = Cluster::get();
    let dir = cluster.directory("asked");
    let mount = with(
        verbose(&cluster, &dir.path).option("entry_timeout=60"),
        &[
            ("alluxio.user.file.metadata.sync.interval", "0"),
            ("alluxio.user.file.metadata.load.type", "ALWAYS"),
            ("alluxio.user.update.file.accesstime.disabled", "true"),
        ],
    )
    .start();
    let usual = verbose(&cluster, &dir.path).option("entry_timeout=60").start();
    content::write_file(&usual.path().join("file"), 2, 100).unwrap();
    for mount in [&mount, &usual] {
        // Looked up before, so that the open asks for itself.
        fs::metadata(mount.path().join("file")).unwrap();
        content::check_file(&mount.path().join("file"), 2, 100).unwrap();
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    }
    let fresh = ["load_metadata_type: Some(Always)", "sync_interval_ms: Some(0)"];
    let opens = |mount: &Mount| sent(mount, "GetStatus", "access_mode: Some(Read)").join("\n");
    assert!(fresh.iter().all(|part| opens(&mount).contains(part)), "{}", opens(&mount));
    assert!(opens(&mount).contains("update_timestamps: Some(false)"), "{}", opens(&mount));
    assert!(opens(&usual).contains("update_timestamps: Some(true)"), "{}", opens(&usual));
    assert_sent(&mount, "ListStatus", &dir.path, &fresh);
    assert_sent(
        &usual,
        "ListStatus",
        &dir.path,
        &["load_metadata_type: Some(Once)", "sync_interval_ms: None"],
    );

    // What the properties are for: what comes to the store by another way is seen, and that it goes.
    let below = dir.below().join("came");
    fs::write(&below, "by another way").unwrap();
    assert_eq!(fs::read(mount.path().join("came")).unwrap(), b"by another way");
    fs::remove_file(&below).unwrap();
    wait_until("what went is gone", LIMIT, || !mount.path().join("came").exists());
    mount.unmount();
    usual.unmount();
}

#[test]
fn a_path_that_is_accessed_directly_is_as_the_store_has_it() {
    let cluster = Cluster::get();
    let dir = cluster.directory("direct");
    let mount = verbose(&cluster, &dir.path)
        .property("alluxio.user.file.direct.access", &format!("{}/direct.*", dir.path))
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .start();
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("direct")).unwrap();
    for name in ["direct/file", "other"] {
        content::write_file(&at(name), 3, MIB).unwrap();
        content::check_file(&at(name), 3, MIB).unwrap();
    }
    let below = |name: &str| dir.below().join(name);
    assert_eq!(fs::metadata(below("direct/file")).unwrap().len(), MIB);
    assert!(!below("other").exists(), "it is only in Alluxio");
    assert_sent(&mount, "CreateFile", "direct/file", &["Some(Through)", "sync_interval_ms: Some(0)"]);
    assert_sent(&mount, "ReadBlock", "", &["no_cache: Some(true)"]);
    assert!(
        cluster.shell(&["stat", &dir.join("direct/file")]).contains("inAlluxioPercentage=0"),
        "it was cached"
    );
    fs::remove_file(below("direct/file")).unwrap();
    wait_until("what went is gone", LIMIT, || !at("direct/file").exists());
    assert!(at("other").exists());
    mount.unmount();

    let refusal = verbose(&cluster, &dir.path).property("alluxio.user.file.direct.access", "/(a").refusal();
    assert!(
        refusal.contains("alluxio.user.file.direct.access=/(a (command line): not a regular"),
        "{refusal}"
    );
}

#[test]
fn a_worker_on_this_machine_is_found_by_its_domain_socket() {
    let sockets = tempfile::tempdir().unwrap();
    let address = format!("alluxio.worker.data.server.domain.socket.address={}", sockets.path().display());
    let as_uuid = "alluxio.worker.data.server.domain.socket.as.uuid=true";
    let own = OwnCluster::start(&["--workers", "1", "--ram", "64MB", "-D", &address, "-D", as_uuid]);
    for (preferred, rpcs) in
        [("false", ["WriteBlock", "ReadBlock"]), ("true", ["CreateLocalBlock", "OpenLocalBlock"])]
    {
        let mount = verbose(&own.cluster, "/")
            .property("alluxio.user.short.circuit.preferred", preferred)
            // As in a container: by the name of the machine nobody would take the worker for near.
            .property("alluxio.user.hostname", "some-container")
            .start();
        let file = mount.path().join(preferred);
        content::write_file(&file, 8, 3 * MIB).unwrap();
        content::check_file(&file, 8, 3 * MIB).unwrap();
        for rpc in rpcs {
            let servers = receivers(&mount, rpc);
            let by_socket = |server: &String| Path::new(server).starts_with(sockets.path());
            assert!(!servers.is_empty() && servers.iter().all(by_socket), "{rpc}: {servers:?}");
        }
        mount.unmount();
    }
}

#[test]
fn how_blocks_are_read() {
    let cluster = Cluster::get();
    let dir = cluster.directory("read");
    let writer = Spec::alluxio(&cluster, &dir.path)
        .property("alluxio.user.file.writetype.default", "CACHE_THROUGH")
        .property(
            "alluxio.user.block.write.location.policy.class",
            "alluxio.client.block.policy.RoundRobinPolicy",
        )
        .property("alluxio.user.short.circuit.enabled", "false")
        .start();
    content::write_file(&writer.path().join("file"), 4, 12 * MIB).unwrap();
    writer.unmount();

    let remote = ("alluxio.user.short.circuit.enabled", "false");
    let promoted = ("alluxio.user.file.readtype.default", "CACHE_PROMOTE");
    let mib = |n: u64| (n * MIB) as usize;
    // What is sent, and the longest message that is asked for.
    #[expect(clippy::type_complexity, reason = "a table that is read here only")]
    let cases: &[(&[(&str, &str)], &str, &str, std::ops::RangeInclusive<usize>)] = &[
        (&[], "OpenLocalBlock", "promote: Some(false)", 0..=0),
        (&[promoted], "OpenLocalBlock", "promote: Some(true)", 0..=0),
        (&[remote], "ReadBlock", "promote: Some(false)", mib(1)..=mib(1)),
        (
            &[remote, promoted, ("alluxio.user.streaming.reader.chunk.size.bytes", "64KB")],
            "ReadBlock",
            "promote: Some(true)",
            65_536..=65_536,
        ),
        // By the name of an earlier version, and larger than what a gRPC client takes by itself.
        (
            &[remote, ("alluxio.user.network.reader.chunk.size.bytes", "16MB")],
            "ReadBlock",
            "promote: Some(false)",
            mib(1) + 1..=mib(16),
        ),
    ];
    for (properties, rpc, part, chunks) in cases {
        let mount = with(verbose(&cluster, &dir.path), properties).start();
        content::check_file(&mount.path().join("file"), 4, 12 * MIB).unwrap();
        assert_sent(&mount, rpc, "", &[part]);
        let sizes = sent(&mount, "ReadBlock", "").into_iter().map(|line| {
            let size = line.split("chunk_size: Some(").nth(1).and_then(|rest| rest.split(')').next());
            size.unwrap_or_else(|| panic!("no size of chunks: {line}")).parse().unwrap()
        });
        let largest = sizes.max().unwrap_or(0);
        assert!(chunks.contains(&largest), "{properties:?}: chunks of {largest}");
        assert!(*rpc == "ReadBlock" || largest == 0, "{properties:?}: by a stream");
        mount.unmount();
    }
}

#[test]
fn a_message_that_is_too_large_is_an_error() {
    let cluster = Cluster::get();
    let dir = cluster.directory("large");
    let mount = with(
        verbose(&cluster, &dir.path),
        &[
            ("alluxio.user.short.circuit.enabled", "false"),
            ("alluxio.user.network.rpc.max.inbound.message.size", "4KB"),
            // By the name of an earlier version.
            ("alluxio.user.network.max.inbound.message.size", "64KB"),
            ("alluxio.user.rpc.retry.max.duration", "1sec"),
            ("alluxio.user.block.read.retry.max.duration", "1sec"),
            ("alluxio.user.conf.cluster.default.enabled", "false"),
        ],
    )
    .start();
    content::write_file(&mount.path().join("file"), 5, MIB).unwrap();
    fs::read(mount.path().join("file")).unwrap_err();
    for n in 0..30 {
        fs::create_dir(mount.path().join(n.to_string())).unwrap();
    }
    let listed: Result<Vec<_>, _> = fs::read_dir(mount.path()).and_then(Iterator::collect);
    assert!(listed.is_err(), "all of {} came", listed.unwrap().len());
    assert!(!mount.logged("message length too large").is_empty(), "{}", mount.said());
    mount.unmount();
    let mount = verbose(&cluster, &dir.path).property("alluxio.user.short.circuit.enabled", "false").start();
    content::check_file(&mount.path().join("file"), 5, MIB).unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 31);
    mount.unmount();
}

/// Of one policy for which worker does what the others do for both.
#[test]
fn which_worker_is_written_to_and_reads_from_the_store() {
    let cluster = Cluster::get();
    let dir = cluster.directory("policies");
    let policy = |name: &str| format!("alluxio.client.block.policy.{name}");
    let spec = || {
        verbose(&cluster, &dir.path)
            .property("alluxio.user.short.circuit.enabled", "false")
            .property("alluxio.user.file.readtype.default", "NO_CACHE")
            .property("alluxio.user.block.read.retry.max.duration", "1sec")
            .property("alluxio.user.file.write.init.max.duration", "1sec")
    };
    let write_policy = "alluxio.user.block.write.location.policy.class";
    let read_policy = "alluxio.user.ufs.block.read.location.policy";
    let shards = "alluxio.user.ufs.block.read.location.policy.deterministic.hash.shards";

    let mount = spec().property(write_policy, &policy("RoundRobinPolicy")).start();
    for n in 0..2 {
        content::write_file(&mount.path().join(format!("turn{n}")), n, 1000).unwrap();
    }
    let blocks: HashSet<_> = receivers(&mount, "WriteBlock");
    assert_eq!(blocks.len(), 2, "in turns");
    mount.unmount();

    let through = spec().property("alluxio.user.file.writetype.default", "THROUGH");
    let mount = through.start();
    content::write_file(&mount.path().join("stored"), 6, 1000).unwrap();
    mount.unmount();
    let read = |mount: &Mount| content::check_file(&mount.path().join("stored"), 6, 1000);
    for (name, share, expected) in [
        ("RoundRobinPolicy", "1", 2),
        ("DeterministicHashPolicy", "1", 1),
        ("DeterministicHashPolicy", "2", 2),
        ("CapacityBasedDeterministicHashPolicy", "1", 1),
    ] {
        let mount = spec().property(read_policy, &policy(name)).property(shards, share).start();
        for _ in 0..20 {
            read(&mount).unwrap();
        }
        assert_eq!(receivers(&mount, "ReadBlock").len(), expected, "{name}, {share}");
        mount.unmount();
    }

    let nowhere = |key: &str| {
        spec()
            .property(key, &policy("SpecificHostPolicy"))
            .property("alluxio.worker.hostname", "nowhere.invalid")
            .property("alluxio.user.block.read.retry.sleep.base", "10ms")
            .property("alluxio.user.block.read.retry.sleep.max", "20ms")
    };
    let mount = nowhere(write_policy).property("alluxio.user.file.writetype.default", "MUST_CACHE").start();
    let before = Instant::now();
    content::write_file(&mount.path().join("unwritten"), 7, 1000).unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    assert!(receivers(&mount, "WriteBlock").is_empty());
    mount.unmount();
    let mount = nowhere(read_policy).start();
    read(&mount).unwrap_err();
    let attempts = mount.logged(", attempt ").len();
    assert!(attempts >= 15, "{attempts} attempts in a second");
    mount.unmount();
}

#[test]
fn how_often_the_list_of_workers_is_asked_for() {
    let cluster = Cluster::get();
    let dir = cluster.directory("workers");
    let asked = |interval: &str, enough: &dyn Fn(usize) -> bool| {
        let mount = verbose(&cluster, &dir.path)
            .property("alluxio.user.worker.list.refresh.interval", interval)
            .start();
        let count = || sent(&mount, "GetWorkerInfoList", "").len();
        for n in 0..50 {
            content::write_file(&mount.path().join(format!("{interval}-{n}")), n, 10).unwrap();
            if enough(count()) {
                break;
            }
        }
        let asked = count();
        mount.unmount();
        asked
    };
    assert!(asked("1ms", &|count| count >= 5) >= 5);
    assert_eq!(asked("1h", &|_| false), 1);
}

#[test]
fn the_capacity_is_asked_for_as_often_as_the_property_says() {
    let cluster = Cluster::get();
    let asked = |interval: &str| {
        let mount =
            verbose(&cluster, "/").property("alluxio.fuse.stat.cache.refresh.interval", interval).start();
        let before = sent(&mount, "GetBlockMasterInfo", "").len();
        for _ in 0..5 {
            nix::sys::statvfs::statvfs(mount.path()).unwrap();
        }
        let asked = sent(&mount, "GetBlockMasterInfo", "").len() - before;
        mount.unmount();
        asked
    };
    assert_eq!(asked("0"), 5);
    assert!(asked("1h") <= 1);
}

#[test]
fn masters_are_found_by_the_addresses_of_their_journals() {
    let cluster = Cluster::get();
    let mount = verbose(&cluster, "/")
        .property("alluxio.master.embedded.journal.addresses", "127.0.0.1:1")
        .property("alluxio.user.hostname", "some-other-name")
        .start();
    assert!(fs::metadata(mount.path()).unwrap().is_dir());
    let masters = receivers(&mount, "GetStatus");
    assert!(masters.iter().all(|master| master.starts_with("127.0.0.1:")), "{masters:?}");
    mount.unmount();
}

/// Takes connections and never says anything.
fn mute() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_master_that_says_nothing_is_waited_for_as_long_as_the_property_says() {
    let cluster = Cluster::get();
    let (_listener, port) = mute();
    let master = std::env::var("ALLUXIO_TEST_MASTER").unwrap();
    let before = Instant::now();
    // A comma within a value is kept by a backslash.
    let mount = verbose(&cluster, "/")
        .property("alluxio.master.rpc.addresses", &format!("127.0.0.1:{port}\\,{master}"))
        .property("alluxio.user.master.polling.timeout", "500ms")
        .property("alluxio.network.connection.auth.timeout", "500ms")
        .start();
    // The default is 30 s.
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    mount.unmount();
}

#[test]
fn a_master_that_is_not_there_is_tried_as_often_as_the_properties_say() {
    let attempts = |base: &str, max: &str| {
        let (listener, port) = mute();
        drop(listener);
        let refusal = Spec::local(Path::new("/"))
            .source("/")
            .property("alluxio.master.rpc.addresses", &format!("127.0.0.1:{port}"))
            .property("alluxio.user.rpc.retry.max.duration", "1sec")
            .property("alluxio.user.rpc.retry.base.sleep", base)
            .property("alluxio.user.rpc.retry.max.sleep", max)
            .refusal();
        let said = refusal.split("gave up after ").nth(1).unwrap_or_else(|| panic!("{refusal}"));
        said.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let (many, few) = (attempts("10ms", "20ms"), attempts("450ms", "450ms"));
    assert!(many >= 15, "{many} attempts in a second");
    assert!((2..=4).contains(&few), "{few} attempts in a second");
    let capped = attempts("1ms", "450ms");
    assert!((few..many).contains(&capped), "{capped} attempts");
}

#[test]
fn the_window_of_a_connection_is_what_the_property_says() {
    let (listener, port) = mute();
    let settings = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        // RFC 9113: the preface, then a SETTINGS frame of entries of a 16-bit name and a 32-bit value.
        let mut start = [0; 24 + 9];
        connection.read_exact(&mut start).unwrap();
        assert_eq!(start[24 + 3], 4, "a SETTINGS frame");
        let mut entries = vec![0; usize::from(start[24 + 2])];
        connection.read_exact(&mut entries).unwrap();
        let window = entries.chunks(6).find(|entry| entry[..2] == [0, 4]);
        window.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    });
    let refusal = Spec::local(Path::new("/"))
        .source("/")
        .property("alluxio.master.rpc.addresses", &format!("127.0.0.1:{port}"))
        .property("alluxio.user.rpc.retry.max.duration", "100ms")
        .property("alluxio.user.master.polling.timeout", "500ms")
        .property("alluxio.network.connection.auth.timeout", "500ms")
        .property("alluxio.user.network.rpc.flowcontrol.window", "123KB")
        .refusal();
    assert_eq!(settings.join().unwrap(), Some(123 << 10), "{refusal}");
}

#[test]
fn the_defaults_of_the_cluster_are_left_alone_if_the_property_says_so() {
    let cluster = Cluster::get();
    for (taken, asked) in [("true", 1), ("false", 0)] {
        let mount =
            verbose(&cluster, "/").property("alluxio.user.conf.cluster.default.enabled", taken).start();
        assert_eq!(sent(&mount, "GetConfiguration", "").len(), asked, "{taken}");
        mount.unmount();
    }
}

#[test]
fn the_site_file_is_looked_for_where_the_property_says() {
    let cluster = Cluster::get();
    let dir = tempfile::tempdir().unwrap();
    let site = fs::read_to_string(cluster.conf.join("alluxio-site.properties")).unwrap();
    fs::write(
        dir.path().join("alluxio-site.properties"),
        format!("{site}\nalluxio.fuse.mount.alluxio.path=/\nalluxio.fuse.fs.name=by-that-file\n"),
    )
    .unwrap();
    let mount = Spec::alluxio(&cluster, "/")
        .environment("ALLUXIO_JAVA_OPTS", &format!("-Dalluxio.site.conf.dir={}", dir.path().display()))
        .start();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
    assert!(line.starts_with("by-that-file "), "{line}");
    mount.unmount();
}

#[test]
fn a_user_to_act_for_and_slow_calls_are_warned_of() {
    let cluster = Cluster::get();
    let mount = Spec::alluxio(&cluster, "/")
        .property("alluxio.security.login.impersonation.username", "alice")
        // Every call takes as long.
        .property("alluxio.user.logging.threshold", "0")
        .property("alluxio.fuse.logging.threshold", "0")
        .property("alluxio.fuse.debug.enabled", "true")
        .start();
    fs::metadata(mount.path().join("absent")).unwrap_err();
    for part in [
        "WARN  answer",
        "Fuse.Lookup(path=/absent) returned -2 in ",
        " (>=0 ms), ",
        " ms of it waiting for localhost:",
        "Exit (-2): Fuse.Lookup(path=/absent) in ",
    ] {
        assert!(!mount.logged(part).is_empty(), "{part}: {}", mount.said());
    }
    assert!(!mount.logged(" (>=0 ms)").is_empty(), "{}", mount.said());
    assert_eq!(
        mount.logged("Impersonation ignored. Invalid configuration: alice").len(),
        1,
        "{}",
        mount.said()
    );
    mount.unmount();
}
