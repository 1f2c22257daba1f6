//! A process that mounts and unmounts again and again is left as it was. A file of its own, as it counts what
//! the whole process has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::Session;
use alluxio_fuse::session::SessionOptions;
use alluxio_fuse::session::Stop;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn is_mounted(point: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!(" {} ", point.display()))
}

/// Threads end a little after they are joined, as the kernel sees it.
fn settled_threads(expected: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let threads = entries("/proc/self/task");
        if threads == expected || Instant::now() > deadline {
            return threads;
        }
        thread::yield_now();
    }
}

fn mount_once(round: usize) {
    let (store, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(store.path().join("file"), b"x").unwrap();
    let vfs = Arc::new(Vfs::new(Arc::new(LocalFs::open(store.path()).unwrap()), VfsOptions::default()));
    let library = if round.is_multiple_of(2) { LibraryChoice::Only2 } else { LibraryChoice::Only3 };
    let options = SessionOptions {
        library,
        clone_fd: round % 4 >= 2,
        io_uring: round % 8 >= 4,
        // Few, so that workers come and go.
        max_idle_threads: 1,
        max_threads: 32,
        linger: Duration::ZERO,
        ..SessionOptions::new(point.path())
    };
    let session = Session::mount(&options, Arc::clone(&vfs)).unwrap();
    assert!(is_mounted(point.path()));
    let stopper = session.stopper();
    let serving = thread::spawn(move || session.run());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(fs::read(point.path().join("file")).unwrap(), b"x"));
        }
    });
    stopper.stop(if round.is_multiple_of(3) { Stop::Force } else { Stop::Soft }).unwrap();
    serving.join().unwrap().unwrap();
    assert!(!is_mounted(point.path()));
    assert_eq!(Arc::strong_count(&vfs), 1, "the session lets go of the file system");
}

#[test]
fn two_hundred_mounts_leave_no_thread_descriptor_or_mount() {
    // Both libraries are opened once, and stay.
    (0..8).for_each(mount_once);
    let (descriptors, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    (0..200).for_each(mount_once);
    assert_eq!(entries("/proc/self/fd"), descriptors);
    assert_eq!(settled_threads(threads), threads);
}
