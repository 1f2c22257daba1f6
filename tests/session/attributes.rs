//! Extended attributes, times and modes through the kernel, by both versions of libfuse.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;

use crate::harness::Mount;
use crate::harness::with_each_library;
use crate::scenarios;
use crate::scenarios::xattr;

fn in_an_empty_store(scenario: fn(&Path)) {
    with_each_library(|library| {
        let mount = Mount::new(library);
        scenario(mount.root());
    });
}

#[test]
fn extended_attributes_are_kept() {
    in_an_empty_store(scenarios::extended_attributes_are_kept);
}

#[test]
fn other_extended_attributes_are_refused() {
    in_an_empty_store(scenarios::other_extended_attributes_are_refused);
}

#[test]
fn attributes_set_before_close_are_there_after_it() {
    in_an_empty_store(scenarios::attributes_set_before_close_are_there_after_it);
}

#[test]
fn attributes_stay_when_a_write_follows_a_close() {
    in_an_empty_store(scenarios::attributes_stay_when_a_write_follows_a_close);
}

#[test]
fn a_write_moves_the_time_that_was_set_before_it() {
    in_an_empty_store(scenarios::a_write_moves_the_time_that_was_set_before_it);
}

#[test]
fn times_are_kept() {
    in_an_empty_store(scenarios::times_are_kept);
}

#[test]
fn every_change_of_attributes_moves_ctime() {
    in_an_empty_store(scenarios::every_change_of_attributes_moves_ctime);
}

#[test]
fn extended_attributes_are_those_of_the_files_below() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("file", b"x");
        let (shown, stored) = (mount.path("file"), mount.store.path().join("file"));
        xattr::set(&stored, "user.below", b"1", 0).unwrap();
        // What the host keeps for itself is not shown.
        xattr::set(&stored, "trusted.below", b"1", 0).unwrap();
        assert_eq!(xattr::list(&shown).unwrap().into_iter().collect::<Vec<_>>(), ["user.below"]);
        assert_eq!(xattr::get(&shown, "user.below").unwrap(), b"1");
        xattr::set(&shown, "user.above", b"2", 0).unwrap();
        assert_eq!(xattr::get(&stored, "user.above").unwrap(), b"2");
        xattr::remove(&shown, "user.below").unwrap();
        assert_eq!(xattr::get(&stored, "user.below"), Err(Errno::ENODATA));
    });
}

#[test]
fn a_removed_file_takes_attributes_while_it_is_open() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let path = mount.path("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"x").unwrap();
        fs::remove_file(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        scenarios::set_times(&file, None, Some((5, 6)));
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn special_bits_are_kept_where_the_store_can() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let (dir, file) = (mount.path("dir"), mount.path("dir/file"));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o3775)).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o3775);
        fs::create_dir(dir.join("sub")).unwrap();
        assert_eq!(fs::metadata(dir.join("sub")).unwrap().mode() & 0o7000, 0o2000, "inherited");
        fs::write(&file, b"x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4755);
        // Root may write another content and keep them. Another owner is not what was trusted with them.
        fs::write(&file, b"y").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4755);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o755);
    });
}
