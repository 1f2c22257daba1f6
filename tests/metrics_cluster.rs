//! What is counted of a cluster: where bytes and calls went, what the master is told, and whether the names are those of a
//! Java client that runs beside. Health, when the master hangs.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use common::cluster::Cluster;
use common::cluster::JavaMount;
use common::content;
use common::mount::Mount;
use common::mount::Spec;
use common::wait_until;
use common::web::CLIENT;
use common::web::Figures;
use common::web::SOURCE;
use common::web::Web;
use common::web::added;
use common::web::with_web;

const LIMIT: Duration = Duration::from_secs(60);

/// The tests that use the cluster run one by one, as one of them suspends its master.
fn cluster() -> (Cluster, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    (Cluster::get(), ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn a_hung_master_is_told_from_a_hung_mount() {
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("health");
    let mount = with_web(Spec::alluxio(&cluster, &dir.path)).option("max_threads=2").start();
    let web = Web::of(&mount);
    let health = || {
        let answer = web.request("GET", "/healthz");
        (answer.status, serde_json::from_str::<serde_json::Value>(&answer.body).unwrap())
    };
    let (status, found) = health();
    assert_eq!(
        (status, &found["mount"]["answered"], &found["backend"]["answered"]),
        (200, &true.into(), &true.into())
    );

    let hung = cluster.suspend("master");
    let (status, found) = health();
    assert_eq!(
        (status, &found["mount"]["answered"], &found["backend"]["answered"]),
        (503, &true.into(), &false.into()),
        "{found}"
    );
    // Both threads of the mount wait for the master.
    let point = mount.path().to_owned();
    let mut stuck: Vec<_> = (0..2)
        .map(|n| {
            Command::new("stat")
                .arg(point.join(format!("it{n}")))
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    wait_until("both threads wait", LIMIT, || {
        web.figures().sample("alluxio_fuse_worker_threads{state=busy}") == 2.0
    });
    let (status, found) = health();
    assert_eq!((status, &found["mount"]["answered"]), (503, &false.into()), "{found}");
    drop(hung);
    for child in &mut stuck {
        child.wait().unwrap();
    }
    wait_until("all is well again", LIMIT, || health().0 == 200);
    mount.unmount();
}

/// The same for each client: files that are written, read, changed and removed, and what fails.
fn load(dir: &Path) {
    const SIZE: u64 = 5 << 20;
    let (file, small, sub) = (dir.join("file"), dir.join("small"), dir.join("sub"));
    content::write_file(&file, 5, SIZE).unwrap();
    content::check_file(&file, 5, SIZE).unwrap();
    fs::write(&small, b"few bytes").unwrap();
    assert_eq!(fs::read(&small).unwrap(), b"few bytes");
    fs::set_permissions(&small, Permissions::from_mode(0o600)).unwrap();
    chown(&small, Some(nix::unistd::getuid().as_raw()), None).unwrap();
    fs::rename(&small, dir.join("moved")).unwrap();
    fs::create_dir(&sub).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().count(), 3);
    assert!(fs::metadata(dir.join("absent")).is_err());
    statvfs(dir).unwrap();
    fs::remove_dir(&sub).unwrap();
    fs::remove_file(dir.join("moved")).unwrap();
    fs::remove_file(&file).unwrap();
}

/// The names of kind `kind` that Alluxio's client gives to what a client has done; those of its JVM are no part of that.
fn client_keys(json: &serde_json::Value, kind: &str) -> BTreeSet<String> {
    let keys = json[kind].as_object().unwrap().keys();
    let wanted = keys.filter(|key| key.starts_with("Client.") && !key.starts_with("Client.Process."));
    wanted.cloned().collect()
}

/// The Java client, with its web server at the port that is returned. It cannot be asked to choose one, so this tries some that are
/// free, below those that the kernel gives to outgoing connections.
fn java_with_web(cluster: &Cluster, path: &str, settings: &[&str]) -> (JavaMount, u16) {
    let free = (20_000..32_000)
        .cycle()
        .skip(std::process::id() as usize % 12_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut said = String::new();
    for port in free.take(3) {
        let web = [
            "alluxio.fuse.web.enabled=true".to_owned(),
            "alluxio.fuse.web.bind.host=127.0.0.1".to_owned(),
            format!("alluxio.fuse.web.port={port}"),
        ];
        let all = settings.iter().map(|setting| (*setting).to_owned()).chain(web);
        let jvm: Vec<String> = all.map(|setting| format!("-D{setting}")).collect();
        let jvm: Vec<&str> = jvm.iter().map(String::as_str).collect();
        match cluster.try_mount_java(path, "direct_io", &jvm) {
            Ok(mount) => return (mount, port),
            Err(why) => said = why,
        }
    }
    panic!("the Java client: {said}")
}

#[test]
fn the_names_are_those_of_a_java_client_with_the_same_load() {
    let (cluster, _alone) = cluster();
    let (theirs, ours) = (cluster.directory("java"), cluster.directory("rust"));
    let settings = [
        "alluxio.user.app.id=a.test",
        "alluxio.user.metadata.cache.enabled=true",
        "alluxio.user.block.read.metrics.enabled=true",
        "alluxio.user.file.writetype.default=CACHE_THROUGH",
    ];
    let (java, port) = java_with_web(&cluster, &theirs.path, &settings);
    load(java.path());
    let page = Web { address: ([127, 0, 0, 1], port).into() }.get("/metrics/json/");
    let java_json: serde_json::Value = serde_json::from_str(&page).unwrap();
    drop(java);

    let spec = settings.iter().fold(with_web(Spec::alluxio(&cluster, &ours.path)), |spec, setting| {
        let (key, value) = setting.split_once('=').unwrap();
        spec.property(key, value)
    });
    let mount = spec.option("direct_io").start();
    let web = Web::of(&mount);
    load(mount.path());
    let figures = web.figures();
    for kind in ["gauges", "counters", "meters", "timers"] {
        let (theirs, ours) = (client_keys(&java_json, kind), client_keys(&figures.json, kind));
        let missing: Vec<&String> = theirs.difference(&ours).collect();
        assert!(missing.is_empty(), "{kind} that only the Java client has: {missing:?}");
    }
    // The same fields in each.
    for (kind, name) in
        [("timers", "Fuse.Read"), ("meters", "BytesWrittenLocalThroughput"), ("counters", "BytesWrittenUfs")]
    {
        let fields = |json: &serde_json::Value| -> BTreeSet<String> {
            let entry = json[kind][format!("Client.{name}.{CLIENT}")].as_object();
            entry.unwrap_or_else(|| panic!("no {name}")).keys().cloned().collect()
        };
        assert_eq!(fields(&figures.json), fields(&java_json), "{name}");
    }
    mount.unmount();
}

#[test]
fn bytes_and_calls_are_counted_by_where_they_went() {
    const SIZE: usize = 5 << 20;
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("sources");
    let spec = with_web(Spec::alluxio(&cluster, &dir.path))
        .option("direct_io")
        .property("alluxio.fuse.passthrough.enabled", "false")
        .property("alluxio.user.block.read.metrics.enabled", "true")
        .property("alluxio.user.file.writetype.default", "CACHE_THROUGH");
    let near = spec.start();
    let web = Web::of(&near);
    let written = added(&web, || content::write_file(&near.path().join("it0"), 5, SIZE as u64).unwrap());
    let count = |figures: &Figures, name: &str| figures.java("counters", name) as usize;
    assert_eq!(count(&written.after, "BytesWrittenLocal"), SIZE);
    assert_eq!(count(&written.after, "BytesWrittenUfs"), SIZE);
    let read = added(&web, || content::check_file(&near.path().join("it0"), 5, SIZE as u64).unwrap());
    assert_eq!((read.bytes("local"), read.all_bytes()), (SIZE, SIZE));
    assert_eq!(count(&read.after, "BytesReadLocal"), SIZE);
    near.unmount();

    let far = spec.property("alluxio.user.short.circuit.enabled", "false").start();
    let web = Web::of(&far);
    let read = added(&web, || content::check_file(&far.path().join("it0"), 5, SIZE as u64).unwrap());
    assert_eq!((read.bytes("remote") + read.bytes("memory"), read.all_bytes()), (SIZE, SIZE));
    assert!(read.bytes("remote") > 0);
    assert_eq!(count(&read.after, "BytesReadLocal"), 0);
    assert!(read.sample("alluxio_fuse_received_bytes_total") >= SIZE);
    assert!(read.after.java("timers", "BlockReadChunkRemote") > 0);
    assert!(read.after.sum("alluxio_fuse_rpc_seconds_count{method=ReadBlock,") > 0.0);

    let missed = added(&web, || assert!(fs::metadata(far.path().join("absent")).is_err()));
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let name = |what: &str| format!("Client_GetStatus{what}_User:{user}_{SOURCE}");
    assert!(missed.sample(&format!("{}_count", name(""))) >= 1);
    assert!(missed.sample(&name("Failures")) >= 1);
    assert!(far.logged("Exit").is_empty());

    // All that the workers have goes: the bytes come from the under file system.
    cluster.shell(&["free", &dir.join("it0")]);
    wait_until("no worker has it", LIMIT, || {
        cluster.shell(&["stat", &dir.join("it0")]).contains("inAlluxioPercentage=0")
    });
    let web_dir = spec_of_ufs(&cluster, &dir.path);
    let web = Web::of(&web_dir);
    let read = added(&web, || content::check_file(&web_dir.path().join("it0"), 5, SIZE as u64).unwrap());
    assert_eq!((read.bytes("ufs") + read.bytes("memory"), read.all_bytes()), (SIZE, SIZE));
    assert!(read.bytes("ufs") > 0);
    web_dir.unmount();
    far.unmount();
}

/// A mount that leaves nothing at the workers.
fn spec_of_ufs(cluster: &Cluster, path: &str) -> Mount {
    with_web(Spec::alluxio(cluster, path))
        .option("direct_io")
        .property("alluxio.fuse.passthrough.enabled", "false")
        .property("alluxio.user.file.readtype.default", "NO_CACHE")
        .start()
}

#[test]
fn the_master_adds_up_what_clients_report() {
    const SIZE: u64 = 3 << 20;
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("report");
    let site = fs::read_to_string(cluster.conf.join("alluxio-site.properties")).unwrap();
    let port = site.lines().find_map(|line| line.strip_prefix("alluxio.master.web.port=")).unwrap();
    let master = Web { address: ([127, 0, 0, 1], port.trim().parse().unwrap()).into() };
    let known = || {
        let json: serde_json::Value = serde_json::from_str(&master.get("/metrics/json/")).unwrap();
        json["counters"]["Cluster.BytesReadLocal"]["count"].as_u64().unwrap_or(0)
    };
    let spec = Spec::alluxio(&cluster, &dir.path)
        .option("direct_io")
        .property("alluxio.fuse.passthrough.enabled", "false")
        .property("alluxio.user.file.writetype.default", "MUST_CACHE");
    let silent = spec.clone().property("alluxio.user.metrics.collection.enabled", "false").start();
    content::write_file(&silent.path().join("it0"), 5, SIZE).unwrap();
    content::check_file(&silent.path().join("it0"), 5, SIZE).unwrap();
    assert!(silent.logged("Created metrics heartbeat").is_empty());
    silent.unmount();

    let before = known();
    let mount = spec
        .clone()
        .property("alluxio.user.metrics.heartbeat.interval", "200ms")
        .property("alluxio.user.app.id", "reporting")
        .start();
    assert_eq!(mount.logged("Created metrics heartbeat with ID reporting.").len(), 1);
    content::check_file(&mount.path().join("it0"), 5, SIZE).unwrap();
    wait_until("the master knows", LIMIT, || known() >= before + SIZE);
    mount.unmount();
    assert_eq!(known(), before + SIZE, "it was told once");

    // Long before the first report is due.
    let mount = spec.property("alluxio.user.metrics.heartbeat.interval", "1h").start();
    content::check_file(&mount.path().join("it0"), 5, SIZE).unwrap();
    mount.unmount();
    wait_until("the end of a mount tells the rest", LIMIT, || known() == before + 2 * SIZE);
}
