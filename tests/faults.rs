//! When a server dies, applications get an error in bounded time or can be interrupted, and the same mount
//! serves again when the server is back.
//!
//! The tests end servers of the one cluster, so one runs at a time.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::cluster::Cluster;
use common::cluster::Down;
use common::cluster::RemoteDir;
use common::content;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::wait_until;

/// How long the mounts of these tests may try again.
const RETRY: &str = "2sec";
/// What is bounded time, then: a few tries in a row, on a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// How soon a server that is back is found.
const RECOVERY: Duration = Duration::from_secs(30);
const SIZE: u64 = 3_000_001;

#[test]
fn reads_and_writes_fail_in_bounded_time_without_workers_and_work_again_with_them() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("no-workers");
    let mount = impatient(&cluster, &dir).start();
    let old = mount.path().join("old");
    content::write_file(&old, 1, SIZE).unwrap();
    content::check_file(&old, 1, SIZE).unwrap();

    let down = cluster.kill_all_workers();
    fail_in_bounded_time(Command::new("cat").arg(&old), &mount);
    let mut write = Command::new("dd");
    write
        .args(["if=/dev/zero", "bs=1M", "count=3"])
        .arg(format!("of={}", mount.path().join("new").display()));
    fail_in_bounded_time(&mut write, &mount);

    down.into_iter().for_each(Down::run);
    reads_again(&old, 1);
    writes_again(&mount.path().join("after"), 2);
    mount.unmount();
}

#[test]
fn a_dead_worker_is_left_for_the_other() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("one-worker");
    let mount = impatient(&cluster, &dir).start();
    let path = |n: u64| mount.path().join(format!("file{n}"));
    // Enough for both workers to have some; all are in the store, too.
    for n in 0..8 {
        content::write_file(&path(n), n, SIZE).unwrap();
    }

    let down = cluster.kill("worker1");
    for n in 0..8 {
        content::check_file(&path(n), n, SIZE).unwrap();
    }
    for n in 8..16 {
        content::write_file(&path(n), n, SIZE).unwrap();
    }
    for n in 8..16 {
        content::check_file(&path(n), n, SIZE).unwrap();
    }
    down.run();
    mount.unmount();
}

#[test]
fn calls_fail_in_bounded_time_without_a_master_and_work_again_with_it() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("no-master");
    let mount = impatient(&cluster, &dir).start();
    let old = mount.path().join("old");
    content::write_file(&old, 3, SIZE).unwrap();

    let down = cluster.kill("master");
    fail_in_bounded_time(Command::new("stat").arg(mount.path().join("never seen")), &mount);
    fail_in_bounded_time(Command::new("mkdir").arg(mount.path().join("directory")), &mount);
    fail_in_bounded_time(Command::new("touch").arg(mount.path().join("file")), &mount);

    down.run();
    reads_again(&old, 3);
    writes_again(&mount.path().join("after"), 4);
    assert!(!mount.path().join("directory").exists(), "the mkdir that failed was done");
    mount.unmount();
}

#[test]
fn an_interrupt_ends_a_cat_that_waits_for_a_worker() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("interrupt-worker");
    let mount = patient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 5, SIZE).unwrap();

    let down = cluster.kill_all_workers();
    interrupt_while_it_waits(start_interruptible("cat", &file), &mount);
    down.into_iter().for_each(Down::run);
    reads_again(&file, 5);
    mount.unmount();
}

#[test]
fn an_interrupt_ends_a_cat_that_waits_for_the_master() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("interrupt-master");
    let mount = patient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 6, SIZE).unwrap();

    let down = cluster.kill("master");
    interrupt_while_it_waits(start_interruptible("cat", &mount.path().join("never seen")), &mount);
    down.run();
    reads_again(&file, 6);
    mount.unmount();
}

/// Over the network and past the kernel's cache, so that every read wants its worker; retries for minutes.
fn patient(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    Spec::alluxio(cluster, &dir.path)
        .option("direct_io")
        .property("alluxio.user.short.circuit.enabled", "false")
}

fn impatient(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    patient(cluster, dir)
        .property("alluxio.user.rpc.retry.max.duration", RETRY)
        .property("alluxio.user.rpc.retry.max.sleep", "200ms")
        .property("alluxio.user.block.read.retry.max.duration", RETRY)
        .property("alluxio.user.file.write.init.max.duration", RETRY)
        .property("alluxio.user.block.read.retry.sleep.max", "200ms")
}

fn fail_in_bounded_time(command: &mut Command, mount: &Mount) {
    let output = process::output_within(command, BOUND);
    assert!(!output.status.success(), "{command:?} succeeded without its server\n{}", mount.said());
}

fn reads_again(path: &Path, seed: u64) {
    let mut last = Ok(());
    let back = holds_within(RECOVERY, || {
        last = content::check_file(path, seed, SIZE);
        last.is_ok()
    });
    assert!(back, "not readable after {RECOVERY:?}: {last:?}");
}

fn writes_again(path: &Path, seed: u64) {
    wait_until("a file can be written", RECOVERY, || {
        let written = content::write_file(path, seed, SIZE).is_ok();
        if !written {
            // What a failed attempt may have left; there may be nothing.
            let _ = std::fs::remove_file(path);
        }
        written
    });
    content::check_file(path, seed, SIZE).unwrap();
}

/// A program that an interrupt ends, also where the tests run with interrupts ignored.
fn start_interruptible(program: &str, path: &Path) -> Child {
    Command::new("env")
        .args(["--default-signal=INT", program])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn interrupt_while_it_waits(mut child: Child, mount: &Mount) {
    use std::os::unix::process::ExitStatusExt;
    process::wait_until_in_fuse(&child);
    process::signal(child.id(), Signal::SIGINT);
    let status = process::status_within(&mut child, Duration::from_secs(2));
    if status.is_none() {
        // Not even this ends it before the daemon answers, so nobody waits for it.
        child.kill().unwrap();
    }
    let status = status.unwrap_or_else(|| panic!("not ended by the interrupt\n{}", mount.said()));
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
