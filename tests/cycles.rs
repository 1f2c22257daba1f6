//! Mounts come and go, and a long life of a mount does not fill its process.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use common::content;
use common::mount::Mount;
use common::mount::Spec;
use common::mount::is_mounted;
use common::process;
use common::wait_until;

/// By this name in their environment the processes of a test are found again.
const MARK: &str = "ALLUXIO_FUSE_TEST_MARK";

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn two_hundred_mounts_leave_nothing_behind() {
    let _one = one_at_a_time();
    let store = tempfile::tempdir().unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let mark = format!("cycles-{}", std::process::id());
    for n in 0..200 {
        // Both libraries, and both ends.
        let spec = Spec::local(store.path())
            .libfuse(2 + n % 2)
            .environment(MARK, &mark)
            .environment("XDG_RUNTIME_DIR", runtime.path().to_str().unwrap());
        let mount = spec.start_in_background();
        content::write_file(&mount.path().join(format!("file{n}")), u64::from(n), 10_000).unwrap();
        assert_eq!(
            records_of(store.path(), runtime.path()).len(),
            1,
            "the mount is not where it is looked for"
        );
        let point = mount.path().to_owned();
        if n / 2 % 2 == 0 {
            mount.unmount();
        } else {
            unmount_from_outside(mount);
        }
        assert!(!is_mounted(&point), "still mounted after {n}");
    }
    let entry = format!("{MARK}={mark}");
    wait_until("every process ends", PATIENCE, || process::with_environment(&entry).is_empty());
    let records = records_of(store.path(), runtime.path());
    assert!(records.is_empty(), "the list of mounts still has {records:?}");
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 200);
}

#[test]
fn a_busy_mount_gives_its_descriptors_and_threads_back() {
    let _one = one_at_a_time();
    for libfuse in [2, 3] {
        let store = tempfile::tempdir().unwrap();
        let mount = Spec::local(store.path()).libfuse(libfuse).option("max_idle_threads=4").start();
        work(mount.path(), 0);
        let (descriptors, threads) = (process::descriptors(mount.pid()), process::threads(mount.pid()));

        thread::scope(|scope| {
            for n in 1..=32 {
                let mount = &mount;
                scope.spawn(move || work(mount.path(), n));
            }
        });
        wait_until("the descriptors are closed", PATIENCE, || {
            process::descriptors(mount.pid()) <= descriptors
        });
        // A worker leaves after a request, if there are more idle ones than `max_idle_threads`.
        wait_until("idle threads end", PATIENCE, || {
            assert!(fs::metadata(mount.path().join("nothing")).is_err());
            process::threads(mount.pid()) <= threads + 4
        });
        mount.unmount();
    }
}

#[test]
fn a_killed_daemon_leaves_a_mount_that_can_be_removed_and_made_again() {
    let _one = one_at_a_time();
    let store = tempfile::tempdir().unwrap();
    let spec = Spec::local(store.path());
    let mount = spec.start();
    content::write_file(&mount.path().join("file"), 1, 100_000).unwrap();
    process::signal(mount.pid(), nix::sys::signal::Signal::SIGKILL);
    wait_until("the daemon is dead", PATIENCE, || !process::is_alive(mount.pid()));
    assert!(is_mounted(mount.path()), "the kernel keeps a mount that lost its daemon");
    mount.unmount();

    let mount = spec.start();
    content::check_file(&mount.path().join("file"), 1, 100_000).unwrap();
    mount.unmount();
}

/// A bit of everything that takes a descriptor or a thread, in a directory of its own.
fn work(root: &Path, n: usize) {
    let dir = root.join(format!("work{n}"));
    fs::create_dir(&dir).unwrap();
    for round in 0..20 {
        let file = dir.join(format!("file{round}"));
        let renamed = dir.join(format!("renamed{round}"));
        content::write_file(&file, round, 20_000).unwrap();
        content::check_file(&file, round, 20_000).unwrap();
        fs::rename(&file, &renamed).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_file(&renamed).unwrap();
        assert!(fs::metadata(&renamed).is_err());
    }
    fs::remove_dir(&dir).unwrap();
}

/// The files that name `store` in the program's list of mounts: root's has a place of its own.
fn records_of(store: &Path, runtime: &Path) -> Vec<PathBuf> {
    let store = store.to_str().unwrap();
    let dirs = [runtime.join("alluxio-fuse"), PathBuf::from("/run/alluxio-fuse")];
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(store))).collect()
}

fn unmount_from_outside(mount: Mount) {
    process::succeed(Command::new("fusermount").arg("-u").arg(mount.path()), PATIENCE);
    let pid = mount.pid();
    wait_until("the daemon ends when its mount does", PATIENCE, || !process::is_alive(pid));
}

/// Threads and time are counted.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
