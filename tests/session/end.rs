//! How a session ends: from inside, from outside, gently, by force, with requests under way.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::process::Command;

use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::Stop;

use crate::harness::Mount;
use crate::harness::cat;
use crate::harness::eventually;
use crate::harness::succeed;
use crate::harness::wait;
use crate::harness::with_each_library;
use crate::harness::with_each_transport;

#[test]
fn fusermount_ends_it_from_outside() {
    with_each_transport(|library, way| {
        let mut mount = Mount::with(library, way);
        mount.put("file", b"x");
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"x");
        // A process that another test is just starting may hold a copy of the file for a moment.
        eventually("fusermount3 finds nobody using it", || {
            Command::new("fusermount3").arg("-u").arg(mount.root()).output().unwrap().status.success()
        });
        mount.wait_for_end().unwrap();
        assert!(!mount.is_mounted());
        mount.stopper.stop(Stop::Soft).unwrap();
        mount.stopper.stop(Stop::Force).unwrap();
    });
}

#[test]
fn a_soft_stop_waits_for_nobody_and_takes_nothing_away() {
    with_each_transport(|library, way| {
        let mut mount = Mount::with(library, way);
        mount.put("file", b"x");
        let mut file = File::open(mount.path("file")).unwrap();
        let refused = mount.stopper.stop(Stop::Soft).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        drop(file);
        // A process that another test is just starting may hold a copy of the file for a moment.
        eventually("nobody uses it", || mount.stopper.stop(Stop::Soft).is_ok());
        mount.wait_for_end().unwrap();
        assert!(!mount.is_mounted());
    });
}

#[test]
fn a_forced_stop_frees_those_who_wait() {
    with_each_transport(|library, way| {
        let mut mount = Mount::with(library, way);
        mount.put("wait", b"x");
        let mut reader = cat(&mount.path("wait"));
        eventually("the read waits", || mount.gate.waiting() == 1);
        assert!(mount.stopper.stop(Stop::Soft).is_err());
        mount.stopper.stop(Stop::Force).unwrap();
        assert!(!wait(&mut reader).success());
        mount.wait_for_end().unwrap();
        assert_eq!(mount.gate.interrupted(), 1);
        assert!(!mount.is_mounted());
    });
}

#[test]
fn a_session_whose_mount_was_hidden_can_still_be_stopped() {
    with_each_transport(|library, way| {
        let mut mount = Mount::with(library, way);
        mount.put("file", b"x");
        let mut file = File::open(mount.path("file")).unwrap();
        succeed(Command::new("umount").arg("-l").arg(mount.root()));
        assert!(!mount.is_mounted());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x", "who has it open goes on");
        mount.stopper.stop(Stop::Force).unwrap();
        mount.wait_for_end().unwrap();
    });
}

#[test]
fn an_abort_by_the_administrator_ends_it_and_leaves_no_mount() {
    with_each_transport(|library, way| {
        let mut mount = Mount::with(library, way);
        mount.put("wait", b"x");
        let mut reader = cat(&mount.path("wait"));
        eventually("the read waits", || mount.gate.waiting() == 1);
        // The connection is named after the device's minor number, which the mount's own stat shows.
        let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(mount.root()).unwrap());
        let control = tempfile::tempdir().unwrap();
        succeed(Command::new("mount").args(["-t", "fusectl", "fusectl"]).arg(control.path()));
        let aborted = fs::write(control.path().join(libc::minor(device).to_string()).join("abort"), "1");
        succeed(Command::new("umount").arg(control.path()));
        aborted.unwrap();
        assert!(!wait(&mut reader).success());
        mount.wait_for_end().unwrap();
        assert!(!mount.is_mounted());
    });
}

#[test]
fn a_session_that_never_ran_is_unmounted() {
    with_each_library(|library| {
        let point = tempfile::tempdir().unwrap();
        let other = Mount::new(library);
        let options = alluxio_fuse::session::SessionOptions {
            library,
            ..alluxio_fuse::session::SessionOptions::new(point.path())
        };
        let session =
            alluxio_fuse::session::Session::mount(&options, std::sync::Arc::clone(&other.vfs)).unwrap();
        assert!(crate::harness::mount_line(point.path()).is_some());
        assert!(session.library().contains("libfuse"), "{}", session.library());
        drop(session);
        assert_eq!(crate::harness::mount_line(point.path()), None);
    });
}

#[test]
fn the_end_does_not_touch_a_later_mount_on_the_same_directory() {
    let mut mount = Mount::new(LibraryChoice::Only3);
    let below = mount.root().to_owned();
    let stopper = mount.stopper.clone();
    succeed(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below));
    stopper.stop(Stop::Soft).unwrap();
    assert!(mount.is_mounted(), "the one on top is another");
    succeed(Command::new("umount").arg(&below));
    stopper.stop(Stop::Soft).unwrap();
    mount.wait_for_end().unwrap();
    assert!(!mount.is_mounted());
}
