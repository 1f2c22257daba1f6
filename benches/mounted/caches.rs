//! What is in the caches already: random reads of a file in the data cache, and stat from the metadata cache, side by side
//! with the Java client's caches and with files on the disk that the data caches are on. `BENCH_PART=caches` runs just this.
//!
//! Nothing is dropped before a measure, and the kernel keeps no attributes: what is compared is the way to what is
//! remembered. What was asked for elsewhere nevertheless is printed.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::Settings;
use crate::common::cluster::Cluster;
use crate::common::cluster::JavaMount;
use crate::common::cluster::RemoteDir;
use crate::common::content;
use crate::common::mount::Mount;
use crate::common::mount::Spec;
use crate::common::process;
use crate::common::users;
use crate::common::wait_until;
use crate::local::random_reads;
use crate::local::said;
use crate::report::Results;
use crate::work::in_threads;

const LARGE: &str = "large";
const SMALL: &str = "small";
const LIMIT: Duration = Duration::from_secs(120);
/// Mounts of ours by their names, and whether they pass through.
const OURS: [(&str, &str); 2] = [("passthrough", "true"), ("daemon", "false")];

struct Sides {
    ours: Vec<(&'static str, Mount)>,
    java: Option<JavaMount>,
    /// A directory on the disk that the caches are on, with the same files.
    native: TempDir,
    _caches: Vec<TempDir>,
    _remote: RemoteDir,
}

impl Sides {
    fn mount(settings: &Settings, cluster: &Cluster) -> Sides {
        let (remote, native) = (cluster.directory("bench-caches"), TempDir::new().unwrap());
        let writer = Spec::alluxio(cluster, &remote.path)
            .property("alluxio.user.file.writetype.default", "MUST_CACHE")
            .start();
        for dir in [writer.path(), native.path()] {
            content::write_file(&dir.join(LARGE), 1, settings.sizes.file_bytes).unwrap();
            fs::create_dir(dir.join(SMALL)).unwrap();
            for n in 0..settings.sizes.files {
                fs::write(dir.join(SMALL).join(n.to_string()), b"small").unwrap();
            }
        }
        writer.unmount();
        // One directory for each; the same words for all.
        let caches: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
        let words = |dir: &TempDir| format!("{},data_cache={}", words(settings), dir.path().display());
        let start = |passes: &str, dir: &TempDir| {
            let spec = Spec::alluxio(cluster, &remote.path).libfuse(3).option(&words(dir));
            spec.property("alluxio.fuse.passthrough.enabled", passes).start()
        };
        let ours =
            OURS.iter().zip(&caches).map(|((name, passes), dir)| (*name, start(passes, dir))).collect();
        let java = settings.java.then(|| cluster.mount_java(&remote.path, &words(&caches[2]), &[]));
        Sides { ours, java, native, _caches: caches, _remote: remote }
    }

    fn roots(&self) -> Vec<(&'static str, PathBuf)> {
        let mut roots: Vec<_> =
            self.ours.iter().map(|(name, mount)| (*name, mount.path().to_owned())).collect();
        roots.extend(self.java.as_ref().map(|java| ("Java", java.path().to_owned())));
        roots.push(("disk", self.native.path().to_owned()));
        roots
    }
}

/// Runs all rounds and prints the table.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) {
    let sides = Sides::mount(settings, cluster);
    let mut roots = sides.roots();
    for (_, root) in &roots {
        content::check_file(&root.join(LARGE), 1, settings.sizes.file_bytes).unwrap();
        look_at_all(root, settings, 1).unwrap();
    }
    for (name, mount) in &sides.ours {
        // Pages that came faster than the disk took them are not kept at first.
        wait_until("all of the file is in the cache", LIMIT, || {
            content::check_file(&mount.path().join(LARGE), 1, settings.sizes.file_bytes).unwrap();
            *name != "passthrough"
                || !users::are_available()
                || mount.counted("opens for reading (passed through)") > 0
        });
    }
    let calls_before: Vec<u64> = sides.ours.iter().map(|(_, mount)| calls(mount)).collect();
    let names: Vec<&str> = roots.iter().map(|(name, _)| *name).collect();
    let mut results = Results::new(&names);
    for round in 0..settings.rounds {
        let turn = round % roots.len();
        roots.rotate_left(turn);
        for threads in [1, 8] {
            let name = format!("stat, {threads} threads");
            for (side, root) in &roots {
                results.add(&name, "/s", side, said(&name, side, look_at_all(root, settings, threads)));
            }
        }
    }
    let calls_made: Vec<u64> =
        sides.ours.iter().zip(calls_before).map(|((_, mount), before)| calls(mount) - before).collect();
    for round in 0..settings.rounds {
        let turn = round % roots.len();
        roots.rotate_left(turn);
        for jobs in [1, 4, 16] {
            let name = format!("random 4 KiB, {jobs} jobs");
            for (side, root) in &roots {
                let fetched = cluster.bytes_sent();
                let rate = random_reads(&root.join(LARGE), jobs, settings);
                results.add(&name, "/s", side, said(&name, side, rate));
                let fetched = cluster.bytes_sent() - fetched;
                if fetched > 0 {
                    println!("{name} on {side}: {fetched} bytes came from workers");
                }
            }
        }
        eprintln!("caches: round {} of {}", round + 1, settings.rounds);
    }
    let (file, files) = (settings.sizes.file_bytes >> 20, settings.sizes.files);
    let said = format!(
        "{} rounds; a file of {file} MiB, {files} small files; `-o {}`",
        settings.rounds,
        words(settings)
    );
    results.print_with(&said, "all caches warm, those of the kernel for data too");
    for ((name, mount), calls) in sides.ours.into_iter().zip(calls_made) {
        let passed = mount.counted("opens for reading (passed through)");
        println!("{name}: {calls} calls to the master in all stats; {passed} opens passed through");
        mount.unmount();
    }
}

/// The words of `-o` for all mounts, but for the directory of the data cache.
fn words(settings: &Settings) -> String {
    format!(
        "{},alluxio.user.short.circuit.enabled=false,attr_timeout=0,entry_timeout=0,data_cache_size={},\
         metadata_cache_size=100000,metadata_cache_expire=1h",
        settings.options,
        2 * settings.sizes.file_bytes
    )
}

/// Stats per second of all threads together, over and over for the time of a measure and at least once.
fn look_at_all(root: &Path, settings: &Settings, threads: usize) -> io::Result<f64> {
    let count = AtomicU64::new(0);
    let took = in_threads(threads, |_| {
        let start = Instant::now();
        let mut seen = 0;
        loop {
            for n in 0..settings.sizes.files {
                fs::metadata(root.join(SMALL).join(n.to_string()))?;
            }
            seen += settings.sizes.files as u64;
            if start.elapsed() >= settings.sizes.time {
                break;
            }
        }
        count.fetch_add(seen, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(count.into_inner() as f64 / took)
}

/// The calls to masters that the daemon has made, as it logs them on SIGQUIT.
fn calls(mount: &Mount) -> u64 {
    let before = mount.logged("calls: ").len();
    process::signal(mount.pid(), Signal::SIGQUIT);
    wait_until("the daemon logs its state", LIMIT, || mount.logged("calls: ").len() > before);
    let line = mount.logged("calls: ").pop().unwrap();
    let digits = line.split("calls: ").nth(1).and_then(|rest| rest.split(' ').next());
    digits.unwrap_or_else(|| panic!("no calls in {line}")).parse().unwrap()
}
