//! What is counted is what was done: in the JSON of Alluxio's client, and on the page for Prometheus, which its own library
//! reads. The web server that shows it, and its bounds.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::Mode;
use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::utimensat;
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::AccessFlags;
use nix::unistd::access;
use nix::unistd::mkfifo;
use nix::unistd::truncate;

use common::attributes::xattr;
use common::content;
use common::mount::Mount;
use common::mount::Spec;
use common::wait_until;
use common::web::CLIENT;
use common::web::Figures;
use common::web::Web;
use common::web::added;
use common::web::read_answer;
use common::web::with_web;

const LIMIT: Duration = Duration::from_secs(60);

/// How often each thing is done.
const N: usize = 7;

/// The word of `-o` that has the kernel ask each time.
const ASKING: &str = "attr_timeout=0,entry_timeout=0";

/// A store with a mount of it, whose every request comes to the process that counts.
fn counted() -> (tempfile::TempDir, Mount, Web) {
    let store = tempfile::tempdir().unwrap();
    let spec = with_web(Spec::local(store.path()).option("direct_io").option(ASKING));
    let mount = spec.property("alluxio.fuse.passthrough.enabled", "false").start();
    let web = Web::of(&mount);
    (store, mount, web)
}

fn each(dir: &Path, mut work: impl FnMut(PathBuf)) {
    (0..N).for_each(|n| work(dir.join(format!("it{n}"))));
}

#[test]
fn names_that_are_made_and_removed_are_counted_each_once() {
    let (_store, mount, web) = counted();
    let dir = mount.path();
    let made = added(&web, || each(dir, |path| fs::create_dir(path).unwrap()));
    assert_eq!((made.op("mkdir"), made.java("Mkdir")), (N, N));
    let gone = added(&web, || each(dir, |path| fs::remove_dir(path).unwrap()));
    assert_eq!((gone.op("rmdir"), gone.java("Rmdir")), (N, N));
    let made = added(&web, || each(dir, |path| drop(File::create_new(path).unwrap())));
    assert_eq!((made.op("create"), made.java("Create")), (N, N));
    assert_eq!((made.op("flush"), made.java("Flush")), (N, N), "each was closed");
    // The kernel says so when it likes.
    wait_until("all are released", LIMIT, || web.figures().java("timers", "Fuse.Release") as usize == N);
    let moved = added(&web, || each(dir, |path| fs::rename(&path, path.with_extension("new")).unwrap()));
    assert_eq!((moved.op("rename"), moved.java("Rename")), (N, N));
    let gone = added(&web, || each(dir, |path| fs::remove_file(path.with_extension("new")).unwrap()));
    assert_eq!((gone.op("unlink"), gone.java("Unlink")), (N, N));
    let listed = added(&web, || (0..N).for_each(|_| assert_eq!(fs::read_dir(dir).unwrap().count(), 0)));
    assert_eq!((listed.op("opendir"), listed.op("releasedir") <= N), (N, true));
    let parts = listed.op("readdir") + listed.op("readdirplus");
    assert!(parts >= N && parts == listed.java("Readdir"), "{parts}");
    mount.unmount();
}

#[test]
fn attributes_that_are_read_and_set_are_counted_each_once() {
    let (store, mount, web) = counted();
    fs::write(store.path().join("file"), b"some bytes").unwrap();
    each(store.path(), |path| fs::write(path, b"bytes").unwrap());
    let (file, open) = (mount.path().join("file"), File::open(mount.path().join("file")).unwrap());
    let often = |work: &dyn Fn()| added(&web, || (0..N).for_each(|_| work()));

    let read = often(&|| assert!(open.metadata().unwrap().is_file()));
    assert_eq!((read.op("getattr"), read.op("lookup"), read.java("Getattr")), (N, 0, N));
    let set = often(&|| fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap());
    assert_eq!((set.op("chmod"), set.java("Chmod"), set.java("Chown")), (N, N, 0));
    let set = often(&|| chown(&file, Some(nix::unistd::getuid().as_raw()), None).unwrap());
    assert_eq!((set.op("chown"), set.java("Chown"), set.java("Truncate")), (N, N, 0));
    let times = [TimeSpec::new(1, 0), TimeSpec::new(2, 0)];
    let set = often(&|| {
        utimensat(AT_FDCWD, &file, &times[0], &times[1], UtimensatFlags::FollowSymlink).unwrap();
    });
    assert_eq!((set.op("utimens"), set.java("Chmod") + set.java("Chown")), (N, 0));
    let set = added(&web, || each(mount.path(), |path| truncate(&path, 0).unwrap()));
    assert_eq!((set.op("truncate"), set.java("Truncate")), (N, N));
    let asked = often(&|| assert!(statvfs(&file).unwrap().blocks() > 0));
    assert_eq!((asked.op("statfs"), asked.java("Statfs")), (N, N));
    let asked = often(&|| access(&file, AccessFlags::R_OK).unwrap());
    assert_eq!(asked.op("access"), N);
    let set = often(&|| xattr::set(&file, "user.a", b"1", 0).unwrap());
    assert_eq!(set.op("setxattr"), N);
    let asked = often(&|| assert_eq!(xattr::get(&file, "user.a").unwrap(), b"1"));
    assert_eq!(asked.op("getxattr"), 2 * N, "the length first");
    let asked = often(&|| assert_eq!(xattr::list(&file).unwrap().len(), 1));
    assert_eq!(asked.op("listxattr"), 2 * N, "the length first");
    let gone = added(&web, || xattr::remove(&file, "user.a").unwrap());
    assert_eq!(gone.op("removexattr"), 1);
    drop(open);
    mount.unmount();
}

#[test]
fn data_is_counted_by_requests_and_bytes_and_the_sources_add_up() {
    let (store, mount, web) = counted();
    content::write_file(&store.path().join("it0"), 5, 100_000).unwrap();
    let opened = added(&web, || (0..N).for_each(|_| drop(File::open(mount.path().join("it0")).unwrap())));
    assert_eq!((opened.op("open"), opened.java("Open"), opened.op("flush")), (N, N, 0));
    assert_eq!(opened.sample("alluxio_fuse_opens_total{passthrough=switched off}"), N);

    let file = File::open(mount.path().join("it0")).unwrap();
    let read = added(&web, || {
        (0..N).for_each(|n| file.read_exact_at(&mut [0; 1000], 1000 * n as u64).unwrap());
    });
    assert_eq!((read.op("read"), read.java("Read"), read.sample("alluxio_fuse_reads_total")), (N, N, N));
    assert_eq!((read.bytes("store"), read.all_bytes()), (1000 * N, 1000 * N));
    let whole = added(&web, || content::check_file(&mount.path().join("it0"), 5, 100_000).unwrap());
    assert_eq!((whole.bytes("store"), whole.all_bytes()), (100_000, 100_000));

    let mut new = File::create_new(mount.path().join("new")).unwrap();
    let written = added(&web, || (0..N).for_each(|_| new.write_all(&[7; 500]).unwrap()));
    assert_eq!((written.op("write"), written.java("Write")), (N, N));
    assert_eq!(written.sample("alluxio_fuse_written_bytes_total"), 500 * N);
    let synced = added(&web, || (0..N).for_each(|_| new.sync_all().unwrap()));
    assert_eq!(synced.op("fsync"), N);
    assert_eq!(web.figures().java("gauges", "Fuse.ReadWriteFileCount"), 2, "both are open");
    drop((new, file));
    wait_until("both are closed", LIMIT, || web.figures().java("gauges", "Fuse.ReadWriteFileCount") == 0);
    mount.unmount();
}

#[test]
fn failures_are_counted_by_error() {
    let (store, mount, web) = counted();
    fs::create_dir_all(store.path().join("full/below")).unwrap();
    let missed = added(&web, || each(mount.path(), |path| assert!(fs::metadata(path).is_err())));
    assert_eq!((missed.op("lookup"), missed.failures("lookup", "ENOENT")), (N, N));
    assert_eq!((missed.java("Getattr"), missed.java_failures("Getattr")), (N, N));
    let full = mount.path().join("full");
    let kept = added(&web, || (0..N).for_each(|_| assert!(fs::remove_dir(&full).is_err())));
    assert_eq!(
        (kept.op("rmdir"), kept.failures("rmdir", "ENOTEMPTY"), kept.java_failures("Rmdir")),
        (N, N, N)
    );
    let refused = added(&web, || {
        each(mount.path(), |path| assert!(mkfifo(&path, Mode::from_bits_truncate(0o600)).is_err()));
    });
    assert_eq!(refused.op("mknod"), N);
    let start = "alluxio_fuse_operation_failures_total{";
    let of_mknod = |figures: &Figures| {
        let failures = figures.samples().iter().filter(|(name, _)| name.starts_with(start));
        failures.filter(|(name, _)| name.ends_with(",op=mknod}")).map(|(_, count)| count).sum::<f64>()
    };
    assert_eq!((of_mknod(&refused.after) - of_mknod(&refused.before)) as usize, N);
    mount.unmount();
}

#[test]
fn all_calls_are_the_sum_of_each_kind_and_histograms_hold_them_all() {
    let (store, mount, web) = counted();
    content::write_file(&store.path().join("it0"), 5, 100_000).unwrap();
    content::check_file(&mount.path().join("it0"), 5, 100_000).unwrap();
    fs::read_dir(mount.path()).unwrap().count();
    wait_until("it is released", LIMIT, || web.figures().java("timers", "Fuse.Release") == 1);
    let figures = web.figures();
    let all: f64 = figures.sum("alluxio_fuse_operation_seconds_count{");
    assert!(all > 3.0);
    assert_eq!(figures.java("timers", "Fuse.TotalCalls") as f64, all);
    let read = "alluxio_fuse_operation_seconds";
    let reads = figures.sample(&format!("{read}_count{{op=read}}"));
    assert_eq!(figures.sample(&format!("{read}_bucket{{le=+Inf,op=read}}")), reads);
    let buckets: Vec<f64> = figures
        .samples()
        .iter()
        .filter(|(name, _)| name.starts_with(&format!("{read}_bucket{{")) && name.ends_with(",op=read}"))
        .map(|(_, count)| *count)
        .collect();
    assert!(buckets.len() > 20 && buckets.iter().all(|count| *count <= reads), "{buckets:?}");
    let timer = &figures.json["timers"][format!("Client.Fuse.Read.{CLIENT}")];
    let (min, max) = (timer["min"].as_f64().unwrap(), timer["max"].as_f64().unwrap());
    for key in ["mean", "p50", "p75", "p95", "p98", "p99", "p999"] {
        let value = timer[key].as_f64().unwrap();
        assert!(min <= value && value <= max, "{key} in {timer}");
    }
    mount.unmount();
}

#[test]
fn threads_memory_and_the_process_are_measured() {
    let (_store, mount, web) = counted();
    let figures = web.figures();
    let threads = figures.sum("alluxio_fuse_worker_threads{");
    assert!(threads >= 1.0 && threads <= figures.sample("alluxio_fuse_worker_threads_max"), "{threads}");
    assert!(figures.sample("alluxio_fuse_inodes") >= 1.0);
    assert!(figures.sample("process_resident_memory_bytes") > 1e6);
    assert!(figures.sample("process_open_fds") > 3.0);
    assert!(figures.sample("process_start_time_seconds") > 1e9);
    let dump = web.get("/api/v1/common/thread_dump");
    for name in ["\"fuse-0\"", "\"web\"", "\"signals\""] {
        assert!(dump.contains(name), "no {name} in\n{dump}");
    }
    mount.unmount();
}

#[test]
fn what_the_data_cache_gives_is_told_from_what_it_loads() {
    const SIZE: usize = 3 << 20;
    let (store, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    content::write_file(&store.path().join("it0"), 5, SIZE as u64).unwrap();
    let mount = with_web(Spec::local(store.path()).option("direct_io"))
        .property("alluxio.fuse.passthrough.enabled", "false")
        .option(&format!("data_cache={}", disk.path().display()))
        .option("data_cache_size=64MB")
        .start();
    let web = Web::of(&mount);
    let read = || content::check_file(&mount.path().join("it0"), 5, SIZE as u64).unwrap();
    let first = added(&web, read);
    assert_eq!(first.all_bytes(), SIZE);
    assert!(first.bytes("store") > 0 && first.bytes("data_cache") < SIZE);
    wait_until("all pages are on disk", LIMIT, || {
        web.figures().sample("alluxio_fuse_data_cache_pages") == 3.0
    });
    let again = added(&web, read);
    assert_eq!((again.bytes("data_cache"), again.all_bytes()), (SIZE, SIZE));
    let from_cache = again.after.java("meters", "CacheBytesReadCache")
        - again.before.java("meters", "CacheBytesReadCache");
    assert_eq!(from_cache as usize, SIZE);
    // Each page comes with what is known of it.
    assert!(again.after.java("counters", "CacheSpaceUsedCount") as usize >= SIZE);
    mount.unmount();
}

// --- the server

#[test]
fn the_addresses_are_those_of_alluxios_client() {
    let (_store, mount, web) = counted();
    for page in ["/metrics/json", "/metrics/prometheus"] {
        let answer = web.request("GET", page);
        assert_eq!(answer.status, 302);
        assert!(answer.head.to_lowercase().contains(&format!("location: {page}/")), "{}", answer.head);
        let answer = web.request("GET", &format!("{page}/"));
        let kind = if page.ends_with("json") { "application/json" } else { "text/plain; version=0.0.4" };
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{}", answer.head);
    }
    for absent in ["/", "/metrics", "/metrics/json/more", "/healthz/", "/api"] {
        assert_eq!(web.request("GET", absent).status, 404, "{absent}");
    }
    assert_eq!(web.request("POST", "/metrics/json/").status, 405);
    assert_eq!(web.request("GET", "/api/v1/fuse/logLevel?logName=a&level=DEBUG").status, 405);
    assert!(web.request("HEAD", "/metrics/json/").body.is_empty());
    let figures = web.figures();
    let keys: Vec<&String> = figures.json.as_object().unwrap().keys().collect();
    assert_eq!(
        BTreeSet::from_iter(keys.iter().map(|key| key.as_str())),
        BTreeSet::from(["version", "gauges", "counters", "histograms", "meters", "timers"])
    );
    assert_eq!(figures.json["version"], "4.0.0");
    mount.unmount();
}

#[test]
fn the_level_of_the_log_is_changed_while_the_mount_serves() {
    let (_store, mount, web) = counted();
    let entered = || mount.logged("Enter: Fuse.").len();
    fs::read_dir(mount.path()).unwrap().count();
    assert_eq!(entered(), 0);
    let set = |query: &str| {
        let answer = web.request("POST", &format!("/api/v1/fuse/logLevel{query}"));
        assert_eq!(answer.status, 200);
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()
    };
    let answer = set("?logName=alluxio.fuse.AlluxioJniFuseFileSystem&level=DEBUG");
    assert_eq!(answer["message"], "Setting Level to DEBUG");
    assert_eq!(answer["level"], "DEBUG");
    assert_eq!(answer["logName"], "alluxio.fuse.AlluxioJniFuseFileSystem");
    fs::read_dir(mount.path()).unwrap().count();
    assert!(entered() > 0);
    assert!(set("?logName=alluxio&level=loud")["message"].as_str().unwrap().starts_with("Bad level : loud"));
    assert_eq!(set("?level=INFO")["message"], "Please specify a correct logName.");
    set("?logName=alluxio&level=INFO");
    let before = entered();
    fs::read_dir(mount.path()).unwrap().count();
    assert_eq!(entered(), before);
    mount.unmount();
}

#[test]
fn too_long_a_head_is_refused_and_too_many_connections_wait() {
    let (_store, mount, web) = counted();
    let mut long = web.connect();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    // Perhaps it does not wait for the end.
    let _ = long.write_all(head.as_bytes());
    assert_eq!(read_answer(&mut long).status, 431);
    let mut many = web.connect();
    let lines: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let _ = many.write_all(format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
    assert_eq!(read_answer(&mut many).status, 431);

    // More than are served at a time. Those that say nothing make room when they go.
    let idle: Vec<_> = (0..40).map(|_| web.connect()).collect();
    let mut next = web.connect();
    next.write_all(b"GET /metrics/json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    drop(idle);
    assert_eq!(read_answer(&mut next).status, 302);
    mount.unmount();
}

#[test]
fn a_port_that_is_taken_is_refused_before_there_is_a_mount() {
    let (store, mount, web) = counted();
    let taken = web.address.port().to_string();
    let other = with_web(Spec::local(store.path())).property("alluxio.fuse.web.port", &taken);
    let said = other.refusal();
    for part in ["alluxio.fuse.web.port", "127.0.0.1", taken.as_str(), "in use"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    mount.unmount();
}

#[test]
fn without_the_property_nothing_listens() {
    let store = tempfile::tempdir().unwrap();
    let mount = Spec::local(store.path()).start();
    let sockets = |pid: u32| {
        let listening: BTreeSet<String> = fs::read_to_string(format!("/proc/{pid}/net/tcp"))
            .unwrap()
            .lines()
            .filter(|line| line.split_whitespace().nth(3) == Some("0A"))
            .filter_map(|line| line.split_whitespace().nth(9).map(str::to_owned))
            .collect();
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let open = open.filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned));
        open.filter(|link| listening.iter().any(|inode| *link == format!("socket:[{inode}]"))).count()
    };
    assert_eq!(sockets(mount.pid()), 0);
    mount.unmount();
    let mount = with_web(Spec::local(store.path())).start();
    Web::of(&mount);
    assert_eq!(sockets(mount.pid()), 1);
    mount.unmount();
}
