//! The memory for data has a limit: at it the program slows down, and neither grows nor dies; at rest it holds none.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::cluster::Cluster;
use common::content;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
const PATIENCE: Duration = Duration::from_secs(60);

fn spec(cluster: &Cluster, path: &str, limit: u64) -> Spec {
    Spec::alluxio(cluster, path)
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.user.file.passive.cache.enabled", "false")
        .property("alluxio.user.block.size.bytes.default", "16MB")
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .property("alluxio.fuse.memory.limit", &limit.to_string())
}

/// The users of memory as the state in the log has them: read, read ahead, written.
fn gauges(mount: &Mount) -> [u64; 3] {
    let lines = || mount.logged("memory for data: ");
    let before = lines().len();
    process::signal(mount.pid(), Signal::SIGQUIT);
    assert!(holds_within(PATIENCE, || lines().len() > before), "no state in the log:\n{}", mount.said());
    let line = lines().pop().unwrap();
    ["data: read ", "read ahead ", "written "].map(|name| {
        let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("{line}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    })
}

#[test]
fn a_file_larger_than_memory_is_read_within_the_limit_pass_after_pass() {
    let cluster = Cluster::get();
    let dir = cluster.directory("memory");
    let size = 640 * MIB;
    let mount = spec(&cluster, &dir.path, LIMIT).start();
    let path = mount.path().join("large");
    content::write_file(&path, 6, size).unwrap();
    mount.unmount();

    // A thread that is kept for more requests keeps the memory for one, too.
    let mount = spec(&cluster, &dir.path, LIMIT).option("max_idle_threads=1").start();
    let path = mount.path().join("large");
    let [before, _] = process::resident(mount.pid());
    let mut after = Vec::new();
    for _ in 0..5 {
        // Four readers, a little apart, with a descriptor each.
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let file = File::open(&path).unwrap();
                    let mut buf = vec![0; MIB as usize];
                    for offset in (0..size).step_by(buf.len()) {
                        file.read_exact_at(&mut buf, offset).unwrap();
                    }
                });
            }
        });
        let [now, most] = process::resident(mount.pid());
        println!("{} MiB resident, {} MiB at most", now / MIB, most / MIB);
        assert!(most <= LIMIT + 64 * MIB, "{most} bytes\n{}", mount.said());
        after.push(now);
    }
    // Now and then the allocator keeps more of what was in use at a time. What is lost is lost in each pass.
    assert!(after.windows(2).any(|pair| pair[1] <= pair[0] + MIB), "it grows: {after:?}");
    assert!(holds_within(PATIENCE, || gauges(&mount) == [0; 3]), "{:?} with nothing open", gauges(&mount));
    // Two threads receive, each with up to 8 MiB that the allocator keeps.
    let at_rest = || process::resident(mount.pid())[0];
    assert!(
        holds_within(PATIENCE, || at_rest() < before + 24 * MIB),
        "{before} bytes at first, {} at rest",
        at_rest()
    );
    println!("{} MiB at first, {} at rest", before / MIB, at_rest() / MIB);
    mount.unmount();
}

#[test]
fn at_the_limit_readers_and_writers_go_on_and_every_byte_is_right() {
    const WRITERS: u64 = 12;
    let cluster = Cluster::get();
    let dir = cluster.directory("memory");
    // Less than any one of them would take.
    let mount = spec(&cluster, &dir.path, 2 * MIB).start();
    let size = 9 * MIB + 77;
    thread::scope(|scope| {
        for n in 0..WRITERS {
            let path = mount.path().join(format!("file{n}"));
            scope.spawn(move || {
                content::write_file(&path, n, size).unwrap();
                content::check_file(&path, n, size).unwrap();
            });
        }
    });
    assert!(holds_within(PATIENCE, || gauges(&mount) == [0; 3]), "{:?} with nothing open", gauges(&mount));
    mount.unmount();
}

#[test]
fn files_that_are_open_and_not_used_hold_no_memory() {
    let cluster = Cluster::get();
    let dir = cluster.directory("memory");
    let mount = spec(&cluster, &dir.path, LIMIT).start();
    let path = mount.path().join("file");
    content::write_file(&path, 8, 40 * MIB).unwrap();
    let [one, other] = [File::open(&path).unwrap(), File::open(&path).unwrap()];
    let held = AtomicU64::new(0);
    for offset in (0..16 * MIB).step_by(128 << 10) {
        content::check_range(&one, 8, offset, 128 << 10).unwrap();
    }
    held.fetch_max(gauges(&mount).iter().sum(), Ordering::Relaxed);
    assert!(held.into_inner() > MIB, "nothing was read ahead, or the gauges do not show it");
    assert!(holds_within(PATIENCE, || gauges(&mount) == [0; 3]), "{:?} at rest", gauges(&mount));
    // And they go on.
    content::check_range(&one, 8, 16 * MIB, MIB as usize).unwrap();
    content::check_range(&other, 8, 0, MIB as usize).unwrap();
    let mut written = File::create(mount.path().join("other")).unwrap();
    written.write_all(&[1; 100_000]).unwrap();
    assert_eq!(gauges(&mount)[2], 100_000);
    nix::unistd::close(written).unwrap();
    drop((one, other));
    assert!(holds_within(PATIENCE, || gauges(&mount) == [0; 3]), "{:?} with nothing open", gauges(&mount));
    mount.unmount();
}
