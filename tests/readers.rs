//! Many readers at once see every byte as it was written, and nobody fetches much more than is read.
//!
//! The tests count bytes at the workers, so one runs at a time.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::content;
use common::content::Random;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

const BLOCK: u64 = 16 << 20;
const READERS: u64 = 16;
const LARGE: u64 = 300_000_000;
const LIMIT: Duration = Duration::from_secs(300);
/// What part of the bytes that it has sent a worker counts at least: it leaves out some of what a stream had sent when it was
/// closed, up to 3 MiB of a block.
const COUNTED: f64 = 0.75;

/// What a reader process is told in its environment: path, seed and size of its file, and its own number.
const TASK: &str = "ALLUXIO_FUSE_TEST_READER";

#[test]
fn sixteen_processes_reading_one_file_at_random_see_its_bytes() {
    let _one = one_at_a_time();
    for short_circuit in [true, false] {
        let (mount, _dir) = mounted(short_circuit, Some("auto_cache"));
        let file = mount.path().join("large");
        content::write_file(&file, 1, LARGE).unwrap();
        let readers = (0..READERS).map(|n| start_reader(&file, 1, LARGE, n)).collect();
        wait_for(readers, &mount);
        mount.unmount();
    }
}

#[test]
fn sixteen_processes_reading_different_files_see_their_bytes() {
    let _one = one_at_a_time();
    for short_circuit in [true, false] {
        let (mount, _dir) = mounted(short_circuit, Some("direct_io"));
        let size = |n: u64| BLOCK + n * 100_003;
        let path = |n: u64| mount.path().join(format!("file{n}"));
        for n in 0..READERS {
            content::write_file(&path(n), n, size(n)).unwrap();
        }
        let readers = (0..READERS).map(|n| start_reader(&path(n), n, size(n), n)).collect();
        wait_for(readers, &mount);
        mount.unmount();
    }
}

#[test]
fn a_sequential_read_fetches_hardly_more_than_the_file() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    // By the page cache, too: its read-ahead asks out of order and from several threads.
    for cache_mode in [None, Some("kernel_cache")] {
        let (mount, dir) = mounted(false, cache_mode);
        let size = LARGE;
        content::write_file(&mount.path().join("large"), 2, size).unwrap();
        mount.unmount();

        // A new mount: nothing of the file is in the kernel or in the program.
        let mount = spec(&cluster, &dir, false, cache_mode).start();
        let before = cluster.bytes_sent();
        content::check_file(&mount.path().join("large"), 2, size).unwrap();
        let fetched = cluster.bytes_sent() - before;
        // The counter lags a little behind the last chunks.
        assert!(
            fetched as f64 >= COUNTED * size as f64,
            "{fetched} bytes fetched of {size}: the count cannot be right"
        );
        assert!(fetched as f64 <= 1.05 * size as f64, "{fetched} bytes fetched for {size}, {cache_mode:?}");
        mount.unmount();
    }
}

#[test]
fn readers_of_one_file_fetch_it_once() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let size = LARGE / 3;
    let (mount, dir) = mounted(false, None);
    content::write_file(&mount.path().join("large"), 4, size).unwrap();
    mount.unmount();
    for cache_mode in ["direct_io", "kernel_cache", "auto_cache"] {
        for readers in [1, 4, 16] {
            let mount = spec(&cluster, &dir, false, Some(cache_mode)).start();
            let path = mount.path().join("large");
            let together = Barrier::new(readers);
            let before = cluster.bytes_sent_at_rest();
            thread::scope(|scope| {
                for _ in 0..readers {
                    scope.spawn(|| {
                        let file = File::open(&path).unwrap();
                        together.wait();
                        for offset in (0..size).step_by(1 << 20) {
                            let len = (1 << 20).min(size - offset) as usize;
                            content::check_range(&file, 4, offset, len).unwrap();
                        }
                    });
                }
            });
            let fetched = cluster.bytes_sent_at_rest() - before;
            let times = fetched as f64 / size as f64;
            println!("{readers} readers, {cache_mode}: {times:.3} times the file");
            assert!(
                (COUNTED..=1.05).contains(&times),
                "{times} times the file, {readers} readers, {cache_mode}"
            );
            mount.unmount();
        }
    }
}

#[test]
fn random_small_reads_fetch_only_their_ranges() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let (mount, _dir) = mounted(false, Some("direct_io"));
    let path = mount.path().join("file");
    let size = 4 * BLOCK + 1;
    content::write_file(&path, 3, size).unwrap();

    let file = File::open(&path).unwrap();
    let mut random = Random::new(33);
    let before = cluster.bytes_sent();
    let mut wanted = 0;
    for _ in 0..500 {
        content::check_range(&file, 3, random.below(size - 4096), 4096).unwrap();
        wanted += 4096;
    }
    let fetched = cluster.bytes_sent() - before;
    assert!(fetched > 0, "nothing was fetched: the count cannot be right");
    assert!(fetched as f64 <= 1.05 * f64::from(wanted), "{fetched} bytes fetched for {wanted}");
    drop(file);
    mount.unmount();
}

#[test]
fn a_reader_in_order_is_sent_the_next_block_by_its_worker_before_it_gets_there() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("two-workers");
    let mount = spec(&cluster, &dir, false, Some("direct_io"))
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .property(
            "alluxio.user.block.write.location.policy.class",
            "alluxio.client.block.policy.RoundRobinPolicy",
        )
        .start();
    content::write_file(&mount.path().join("file"), 5, 2 * BLOCK).unwrap();
    mount.unmount();

    // With direct I/O the kernel asks for nothing that the reader does not.
    let mount = spec(&cluster, &dir, false, Some("direct_io")).start();
    let file = File::open(mount.path().join("file")).unwrap();
    cluster.bytes_sent_at_rest();
    let before = cluster.bytes_sent_by_each();
    let sent = || -> Vec<u64> {
        cluster.bytes_sent_by_each().iter().zip(&before).map(|(now, before)| now - before).collect()
    };
    let read = |start: u64, end: u64| {
        for offset in (start..end).step_by(1 << 17) {
            content::check_range(&file, 5, offset, 1 << 17).unwrap();
        }
    };
    read(0, BLOCK);
    assert!(holds_within(LIMIT, || sent().iter().all(|sent| *sent > 0)), "of one worker only: {:?}", sent());
    read(BLOCK, 2 * BLOCK);
    cluster.bytes_sent_at_rest();
    let times: Vec<f64> = sent().iter().map(|&sent| sent as f64 / BLOCK as f64).collect();
    assert!(times.iter().all(|times| (COUNTED..=1.05).contains(times)), "{times:?} times their blocks");
    drop(file);
    mount.unmount();
}

#[test]
#[ignore = "not a test: the other tests start it, as the processes that read"]
fn reader_process() {
    let task = std::env::var(TASK).expect("the tests of this file start it, with a task");
    let [path, seed, size, number]: [&str; 4] =
        task.split('|').collect::<Vec<_>>().try_into().expect("a task has four parts");
    let path = PathBuf::from(path);
    let [seed, size, number] = [seed, size, number].map(|text| text.parse::<u64>().unwrap());
    let mut random = Random::new(number << 32);
    let file = File::open(&path).unwrap();
    for _ in 0..300 {
        let offset = random.below(size);
        let len = (1 + random.below(1 << 18)).min(size - offset) as usize;
        content::check_range(&file, seed, offset, len).unwrap();
    }
    // A stretch in order, too: a fresh place, across a block's border.
    let start = random.below(size - size / 8);
    for offset in (start..start + size / 8).step_by(1 << 17) {
        content::check_range(&file, seed, offset, (1 << 17).min((size - offset) as usize)).unwrap();
    }
}

fn start_reader(path: &Path, seed: u64, size: u64, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reader_process", "--ignored", "--nocapture"])
        .env(TASK, format!("{}|{seed}|{size}|{number}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for(mut readers: Vec<Child>, mount: &Mount) {
    let ends: Vec<_> = readers.iter_mut().map(|child| process::status_within(child, LIMIT)).collect();
    for child in &mut readers {
        // No effect on one that has ended.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let good = ends.iter().filter(|end| end.is_some_and(|status| status.success())).count();
    assert_eq!(good, ends.len(), "{ends:?}\n{}", mount.said());
}

fn mounted(short_circuit: bool, cache_mode: Option<&str>) -> (Mount, RemoteDir) {
    let cluster = Cluster::get();
    let dir = cluster.directory("readers");
    (spec(&cluster, &dir, short_circuit, cache_mode).start(), dir)
}

fn spec(cluster: &Cluster, dir: &RemoteDir, short_circuit: bool, cache_mode: Option<&str>) -> Spec {
    let spec = Spec::alluxio(cluster, &dir.path)
        .property("alluxio.user.short.circuit.enabled", &short_circuit.to_string())
        .property("alluxio.user.block.size.bytes.default", &BLOCK.to_string())
        // A copy from worker to worker would be counted as well.
        .property("alluxio.user.file.passive.cache.enabled", "false");
    match cache_mode {
        Some(mode) => spec.option(mode),
        None => spec,
    }
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
