//! What the words of `-o` change, seen on a mount, with libfuse 2 and with 3 alike. What belongs to another promise is
//! tested with that: other users (`allow_other` and its like) in `permissions.rs`, caches of the kernel in `caches.rs` and
//! `overwrite.rs`, requests' sizes and `clone_fd` in `session/`, `nonempty`, `uid`, `gid` and `umask` in `cli.rs`.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use common::attributes::xattr;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::mount::is_mounted;
use common::process;
use common::users;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(30);

/// Mounts of a store with one file, by both libraries, with the words `options`.
fn with_both(options: &[&str], check: impl Fn(&Mount, &TempDir)) {
    for version in [2, 3] {
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("file"), "some bytes").unwrap();
        let spec =
            options.iter().fold(Spec::local(store.path()).libfuse(version), |spec, word| spec.option(word));
        let mount = spec.start();
        // Once it answers, all is agreed with the kernel.
        fs::metadata(mount.path()).unwrap();
        assert!(mount.uses_libfuse(version));
        check(&mount, &store);
        mount.unmount();
    }
}

/// What the kernel says of the mount: its own options, its type, its source, and those of the file system.
fn shown(mount: &Mount) -> [String; 4] {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = mount.path().to_str().unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
    let (first, second) = line.split_once(" - ").unwrap();
    let second: Vec<_> = second.split(' ').collect();
    [first.split(' ').nth(5).unwrap(), second[0], second[1], second[2]].map(str::to_owned)
}

fn words(text: &str) -> Vec<&str> {
    text.split(',').collect()
}

/// The name of the mount's connection in the kernel, and of its device.
fn device(mount: &Mount) -> u64 {
    libc::minor(fs::metadata(mount.path()).unwrap().dev()).into()
}

#[test]
fn the_kernels_own_words_reach_it() {
    with_both(&["noexec", "nosuid", "nodev", "noatime", "sync", "dirsync"], |mount, _| {
        let [own, ..] = shown(mount);
        for word in ["rw", "noexec", "nosuid", "nodev", "noatime"] {
            assert!(words(&own).contains(&word), "{word}: {own}");
        }
        let [.., system] = shown(mount);
        for word in ["sync", "dirsync"] {
            assert!(words(&own).contains(&word) || words(&system).contains(&word), "{word}: {own} {system}");
        }
        let script = mount.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Command::new(&script).status().unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
    with_both(&["exec"], |mount, _| {
        let script = mount.path().join("script");
        fs::write(&script, "#!/bin/sh\nexit 7\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Command::new(&script).status().unwrap().code(), Some(7));
    });
}

#[test]
fn nothing_is_written_to_a_mount_that_is_read_only() {
    with_both(&["ro"], |mount, store| {
        let refused = |outcome: std::io::Result<()>| {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        };
        refused(fs::write(mount.path().join("new"), "x"));
        refused(fs::create_dir(mount.path().join("new")));
        refused(fs::remove_file(mount.path().join("file")));
        refused(fs::rename(mount.path().join("file"), mount.path().join("other")));
        refused(fs::set_permissions(mount.path().join("file"), fs::Permissions::from_mode(0o600)));
        assert_eq!(fs::read(mount.path().join("file")).unwrap(), b"some bytes");
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
    });
}

#[test]
fn source_and_type_are_shown_as_named() {
    with_both(&["fsname=my=source", "subtype=my-type"], |mount, _| {
        let [_, kind, source, _] = shown(mount);
        assert_eq!((kind.as_str(), source.as_str()), ("fuse.my-type", "my=source"));
    });
}

#[test]
fn the_kernel_is_told_how_much_may_be_under_way() {
    let options = ["max_background=23", "congestion_threshold=17", "max_readahead=65536", "max_read=8192"];
    with_both(&options, |mount, _| {
        assert_eq!(mount.logged("read-ahead 64 KiB, 23 in the background").len(), 1, "{}", mount.said());
        let [.., system] = shown(mount);
        assert!(words(&system).contains(&"max_read=8192"), "{system}");
        if users::are_available() {
            let control = tempfile::tempdir().unwrap();
            process::succeed(
                Command::new("mount").args(["-t", "fusectl", "fusectl"]).arg(control.path()),
                LIMIT,
            );
            let connection = control.path().join(device(mount).to_string());
            let number =
                |name: &str| fs::read_to_string(connection.join(name)).map(|text| text.trim().to_owned());
            let numbers = [number("max_background"), number("congestion_threshold")];
            process::succeed(Command::new("umount").arg(control.path()), LIMIT);
            assert_eq!(numbers.map(Result::unwrap), ["23", "17"]);
        }
        let bdi = format!("/sys/class/bdi/0:{}/read_ahead_kb", device(mount));
        assert_eq!(fs::read_to_string(bdi).unwrap().trim(), "64");
    });
}

#[test]
fn the_kernel_reads_further_ahead_than_it_offers_if_it_is_told_to() {
    with_both(&["max_readahead=1048576", "kernel_cache"], |mount, _| {
        fs::metadata(mount.path()).unwrap();
        let bdi = format!("/sys/class/bdi/0:{}/read_ahead_kb", device(mount));
        let told = fs::read_to_string(bdi).unwrap();
        let expected = if mount.logged("Read-ahead stays").is_empty() { "1024" } else { "128" };
        assert_eq!(told.trim(), expected, "{}", mount.said());
    });
}

/// The requests of one operation that the daemon of a mount with `debug` was given.
fn requests(mount: &Mount, name: &str) -> usize {
    let printed = |name: &str| {
        mount.printed().lines().filter(|line| line.contains(&format!("opcode: {name} ("))).count()
    };
    // What is printed comes in its order, but later than the answers. Nobody else asks for this.
    let before = printed("LISTXATTR");
    xattr::list_into(mount.path(), &mut [0; 1000]).unwrap();
    wait_until("a request is printed", LIMIT, || printed("LISTXATTR") > before);
    printed(name)
}

#[test]
fn a_write_comes_in_pieces_of_the_size_that_was_agreed() {
    for (word, expected) in [("big_writes", 1), ("max_write=131072", 8), ("max_write=8192", 128)] {
        with_both(&["debug", word], |mount, _| {
            File::create(mount.path().join("large")).unwrap().write_all_at(&vec![1; 1 << 20], 0).unwrap();
            assert_eq!(requests(mount, "WRITE"), expected, "{word}");
        });
    }
}

#[test]
fn attributes_and_names_are_believed_as_long_as_it_was_said() {
    let stat = |mount: &Mount| assert!(fs::metadata(mount.path().join("file")).unwrap().is_file());
    let absent = |mount: &Mount| assert!(fs::metadata(mount.path().join("absent")).is_err());
    let twice = |mount: &Mount, act: &dyn Fn(&Mount), name: &str| {
        act(mount);
        let before = requests(mount, name);
        act(mount);
        requests(mount, name) - before
    };
    let long = ["debug", "attr_timeout=3600", "entry_timeout=3600", "negative_timeout=3600"];
    with_both(&long, |mount, _| {
        assert_eq!(twice(mount, &stat, "LOOKUP") + twice(mount, &stat, "GETATTR"), 0);
        assert_eq!(twice(mount, &absent, "LOOKUP"), 0);
    });
    let short = ["debug", "attr_timeout=0", "entry_timeout=3600", "negative_timeout=0"];
    with_both(&short, |mount, _| {
        assert_eq!((twice(mount, &stat, "LOOKUP"), twice(mount, &stat, "GETATTR")), (0, 1));
        assert_eq!(twice(mount, &absent, "LOOKUP"), 1);
    });
    with_both(&["debug", "attr_timeout=3600", "entry_timeout=0.0"], |mount, _| {
        assert_eq!((twice(mount, &stat, "LOOKUP"), twice(mount, &stat, "GETATTR")), (1, 0));
    });
}

/// Threads that serve the mount.
fn workers(mount: &Mount) -> usize {
    let tasks = format!("/proc/{}/task", mount.pid());
    let name = |entry: std::io::Result<fs::DirEntry>| {
        // A thread may have ended meanwhile.
        fs::read_to_string(entry.unwrap().path().join("comm")).unwrap_or_default()
    };
    fs::read_dir(tasks).unwrap().map(name).filter(|name| name.starts_with("fuse-")).count()
}

#[test]
fn there_are_as_many_workers_as_the_words_allow() {
    with_both(&["max_threads=6", "max_idle_threads=1"], |mount, _| {
        let (path, most) = (mount.path().join("file"), 6);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|_| drop(fs::read(&path).unwrap())));
            }
            for _ in 0..50 {
                assert!((1..=most).contains(&workers(mount)), "{} workers", workers(mount));
            }
        });
        // Who is too many leaves after a request; one more comes as soon as the last one is busy.
        wait_until("most have left", LIMIT, || fs::metadata(&path).is_ok() && workers(mount) <= 2);
    });
}

/// How often the one worker that reads the device has waited, if the others have rings.
fn waits_for_the_device(mount: &Mount) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.pid())).unwrap();
    let mut texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    let text = texts.find(|text| text.starts_with("Name:\tfuse-0\n")).unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

#[test]
fn requests_come_over_io_uring_if_the_word_asks_for_it_and_the_kernel_offers_it() {
    // tests/setup/test switches it on where it may.
    let switch = fs::read_to_string("/sys/module/fuse/parameters/enable_uring");
    let offered = switch.is_ok_and(|text| text.trim() == "Y");
    with_both(&["io_uring", "direct_io", "alluxio.fuse.passthrough.enabled=false"], |mount, _| {
        let file = File::open(mount.path().join("file")).unwrap();
        if !offered {
            assert_eq!(mount.logged("not over io_uring: this kernel does not offer it").len(), 1);
            assert_eq!(mount.counted("fall-backs (no io_uring)"), 1);
            return;
        }
        assert_eq!(mount.logged("Transport: io_uring").len(), 1, "{}", mount.said());
        assert_eq!(mount.counted("fall-backs (no io_uring)"), 0);
        let before = waits_for_the_device(mount);
        for _ in 0..1000 {
            let mut bytes = [0; 10];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes, b"some bytes");
        }
        let waits = waits_for_the_device(mount) - before;
        assert!(waits < 100, "{waits} of 1000 reads came by the device");
    });
    with_both(&["io_uring", "max_write=65536"], |mount, _| {
        assert_eq!(fs::read(mount.path().join("file")).unwrap(), b"some bytes");
        assert_eq!(mount.logged("not over io_uring: max_write must be 128 KiB").len(), 1, "{}", mount.said());
        assert_eq!(mount.counted("fall-backs (no io_uring)"), 1);
    });
}

#[test]
fn a_mount_whose_daemon_is_killed_goes_with_it_if_the_word_says_so() {
    let goes = |version| {
        let store = tempfile::tempdir().unwrap();
        let mount = Spec::local(store.path()).libfuse(version).option("auto_unmount").start();
        let point = mount.path().to_owned();
        fs::metadata(&point).unwrap();
        process::signal(mount.pid(), Signal::SIGKILL);
        holds_within(Duration::from_secs(2), || !is_mounted(&point))
    };
    for version in [2, 3] {
        // fusermount looks just once whether the mount is dead, sometimes before the kernel has made it so.
        assert!((0..15).any(|_| goes(version)), "libfuse {version}");
    }
}

#[test]
fn words_without_effect_are_taken_and_named() {
    with_both(&["big_writes", "async_read", "intr", "defaults", "hard_remove"], |mount, _| {
        assert!(fs::metadata(mount.path().join("file")).is_ok());
        let said = mount.logged("mount options without effect: big_writes,async_read,intr,hard_remove");
        assert_eq!(said.len(), 1, "{}", mount.said());
    });
}

#[test]
fn a_word_that_is_not_known_is_refused_with_the_nearest() {
    let store = tempfile::tempdir().unwrap();
    for (word, said) in [
        ("direct-io", "unknown, did you mean direct_io?"),
        ("alow_other", "unknown, did you mean allow_other?"),
        ("max_read", "max_read needs a value"),
        ("ro=1", "ro takes no value"),
        ("attr_timeout=soon", "attr_timeout=soon"),
        ("max_write=1", "max_write=1"),
        ("xyzzy", "unknown"),
    ] {
        let refusal = Spec::local(store.path()).option(word).refusal();
        assert!(refusal.contains(word) && refusal.contains(said), "{word}: {refusal}");
    }
}

/// The limits of a name are those of the store.
#[test]
fn the_figures_of_statfs_are_the_stores() {
    with_both(&[], |mount, store| {
        let figures = |path: &Path| {
            let path = CString::new(path.to_str().unwrap()).unwrap();
            let found = nix::sys::statvfs::statvfs(path.as_c_str()).unwrap();
            (found.blocks() * found.fragment_size(), found.name_max())
        };
        assert_eq!(figures(mount.path()), figures(store.path()));
    });
}
