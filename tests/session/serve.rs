//! Requests and their answers.

use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use alluxio_fuse::session::MountError;
use alluxio_fuse::session::Session;
use alluxio_fuse::session::SessionOptions;
use alluxio_fuse::vfs::PageCache;
use alluxio_fuse::vfs::VfsOptions;
use bytes::Bytes;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::harness::Mount;
use crate::harness::cat;
use crate::harness::eventually;
use crate::harness::mount_line;
use crate::harness::pattern;
use crate::harness::succeed;
use crate::harness::wait;
use crate::harness::with_each_library;
use crate::harness::with_each_transport;
use crate::kernel;

fn errno<T>(outcome: io::Result<T>) -> i32 {
    outcome.map(|_| 0).unwrap_or_else(|err| err.raw_os_error().unwrap())
}

#[test]
fn a_tree_copied_in_and_out_is_the_same() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let original = tempfile::tempdir().unwrap();
        fs::create_dir(original.path().join("sub")).unwrap();
        for (name, len) in [("empty", 0), ("one", 1), ("sub/odd", 1_234_567), ("sub/even", 4 << 20)] {
            fs::write(original.path().join(name), pattern(len)).unwrap();
        }
        let (inside, back) = (mount.path("tree"), original.path().join("back"));
        succeed(Command::new("cp").arg("-r").arg(original.path()).arg(&inside));
        succeed(Command::new("cp").arg("-r").arg(&inside).arg(&back));
        for name in ["empty", "one", "sub/odd", "sub/even"] {
            assert_eq!(
                fs::read(back.join(name)).unwrap(),
                fs::read(original.path().join(name)).unwrap(),
                "{name}"
            );
        }
        succeed(Command::new("rm").arg("-r").arg(&inside));
        assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 0);
    });
}

#[test]
fn the_table_of_mounts_shows_source_and_type() {
    with_each_library(|library| {
        let mount = Mount::with(library, |options| options.kernel_options = vec!["ro".to_owned()]);
        let line = mount_line(mount.root()).unwrap();
        let point = mount.root().display();
        assert!(line.starts_with(&format!("alluxio-fuse on {point} type fuse.alluxio-fuse (ro,")), "{line}");
        assert_eq!(errno(File::create(mount.path("new"))), libc::EROFS);
    });
}

#[test]
fn attributes_are_those_of_the_store() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("file", &pattern(5000));
        let path = mount.path("file");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let touched = File::open(mount.store.path().join("file")).unwrap();
        let (shown, stored) = (fs::metadata(&path).unwrap(), touched.metadata().unwrap());
        assert_eq!((shown.mode(), shown.size(), shown.ino()), (0o100_640, 5000, stored.ino()));
        assert_eq!((shown.mtime(), shown.mtime_nsec()), (stored.mtime(), stored.mtime_nsec()));
        assert_eq!((shown.blocks(), shown.blksize()), (10, 4096));
        assert_eq!(shown.uid(), stored.uid());
    });
}

#[test]
fn long_directories_are_listed_whole_with_and_without_attributes() {
    with_each_library(|library| {
        let hour = Duration::from_secs(3600);
        let options = VfsOptions { attr_timeout: hour, entry_timeout: hour, ..VfsOptions::default() };
        let mount = Mount::with_vfs(library, options, |_| {});
        let mut expected: Vec<String> = (0..3000).map(|number| format!("file-{number:04}")).collect();
        expected.iter().for_each(|name| mount.put(name, b"x"));
        expected.sort();
        let listed = succeed(Command::new("ls").arg(mount.root()));
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
        let long = succeed(Command::new("ls").arg("-l").arg(mount.root()));
        assert_eq!(long.lines().filter(|line| line.starts_with("-rw")).count(), 3000);
        assert!(mount.gate.stats() < 100, "{} look-ups in spite of readdirplus", mount.gate.stats());
        let all = succeed(Command::new("ls").args(["-a", "-f"]).arg(mount.root()));
        assert_eq!(all.lines().filter(|name| *name == "." || *name == "..").count(), 2);
    });
}

#[test]
fn names_that_were_forgotten_are_not_kept() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let script = "for n in $(seq 50); do echo x > file-$n; done; ls -l; rm file-*";
        let listed = succeed(Command::new("sh").args(["-c", script]).current_dir(mount.root()));
        assert_eq!(listed.lines().count(), 51);
        eventually("only the root is known", || mount.vfs.known_inodes() == 1);
        eventually("no handle is open", || mount.vfs.open_handles() == 0);
    });
}

#[test]
fn what_cannot_be_done_says_so() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("file", b"x");
        let (path, other) = (mount.path("file"), mount.path("other"));
        assert_eq!(errno(std::os::unix::fs::symlink("file", &other)), libc::EPERM);
        assert_eq!(errno(fs::hard_link(&path, &other)), libc::EPERM);
        assert_eq!(errno(fs::read_link(&path)), libc::EINVAL);
        assert_eq!(errno(fs::metadata(&other)), libc::ENOENT);
        let long = mount.path(&"n".repeat(256));
        assert_eq!(errno(fs::metadata(long)), libc::ENAMETOOLONG);
        let file = File::open(&path).unwrap();
        // SAFETY: passes names, buffers of the sizes given, and a descriptor that is open.
        let failed = |call: &dyn Fn(i32) -> i64| (call(file.as_raw_fd()), nix::errno::Errno::last_raw());
        // SAFETY: as above.
        let ioctl = failed(&|fd| unsafe { libc::ioctl(fd, 0x1234) }.into());
        assert_eq!(ioctl, (-1, libc::ENOTTY));
    });
}

#[test]
fn renames_replace_or_not_as_asked() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("a", b"a");
        mount.put("b", b"b");
        fs::rename(mount.path("a"), mount.path("b")).unwrap();
        assert_eq!(fs::read(mount.path("b")).unwrap(), b"a");
        mount.put("c", b"c");
        let (from, to) = (mount.path("b"), mount.path("c"));
        let none = nix::fcntl::AT_FDCWD;
        let outcome =
            nix::fcntl::renameat2(none, &from, none, &to, nix::fcntl::RenameFlags::RENAME_NOREPLACE);
        assert_eq!(outcome, Err(nix::errno::Errno::EEXIST));
    });
}

#[test]
fn sixteen_readers_get_their_own_bytes() {
    with_each_transport(|library, way| {
        let mount = Mount::with(library, way);
        let data = pattern(8 << 20);
        mount.put("data", &data);
        thread::scope(|scope| {
            for reader in 0..16u64 {
                let (mount, data) = (&mount, &data);
                scope.spawn(move || {
                    let file = File::open(mount.path("data")).unwrap();
                    let mut offset = reader * 7919;
                    for round in 0..100 {
                        offset = (offset * 6364136223 + 1442695041) % (data.len() as u64 - 70_000);
                        let mut buf = vec![0; 1 + (round * 701) % 70_000];
                        file.read_exact_at(&mut buf, offset).unwrap();
                        assert!(buf == data[offset as usize..][..buf.len()], "{offset} {}", buf.len());
                    }
                });
            }
        });
    });
}

#[test]
fn requests_are_as_large_as_was_agreed() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let data = pattern(3 << 20);
        // Of a megabyte each, which travel whole with `max_pages` 256. libfuse 2 knows nothing of that.
        let original = tempfile::NamedTempFile::new().unwrap();
        fs::write(original.path(), &data).unwrap();
        let (from, to) = (original.path().display(), mount.path("data"));
        succeed(
            Command::new("dd").arg(format!("if={from}")).arg(format!("of={}", to.display())).arg("bs=1M"),
        );
        assert!(fs::read(mount.store.path().join("data")).unwrap() == data);
        assert!(fs::read(mount.path("data")).unwrap() == data);
    });
}

#[test]
fn a_smaller_max_read_is_accepted_by_both() {
    with_each_library(|library| {
        let cached = VfsOptions { page_cache: PageCache::AutoCache, ..VfsOptions::default() };
        let mount = Mount::with_vfs(library, cached, |options| {
            options.max_read = Some(65536);
            options.max_write = 8192;
        });
        let original = tempfile::NamedTempFile::new().unwrap();
        fs::write(original.path(), pattern(1 << 20)).unwrap();
        succeed(Command::new("cp").arg(original.path()).arg(mount.path("data")));
        assert!(fs::read(mount.path("data")).unwrap() == pattern(1 << 20));
        assert!(mount_line(mount.root()).unwrap().contains("max_read=65536"));
    });
}

#[test]
fn absent_names_are_believed_for_as_long_as_it_was_said() {
    with_each_library(|library| {
        let negative = VfsOptions { negative_timeout: Duration::from_secs(3600), ..VfsOptions::default() };
        let mount = Mount::with_vfs(library, negative, |_| {});
        assert_eq!(errno(fs::metadata(mount.path("later"))), libc::ENOENT);
        mount.put("later", b"x");
        assert_eq!(errno(fs::metadata(mount.path("later"))), libc::ENOENT);
        let forgetful = Mount::new(library);
        assert_eq!(errno(fs::metadata(forgetful.path("later"))), libc::ENOENT);
        forgetful.put("later", b"x");
        assert_eq!(errno(fs::metadata(forgetful.path("later"))), 0);
    });
}

#[test]
fn ctrl_c_ends_a_read_that_waits() {
    with_each_transport(|library, way| {
        let mount = Mount::with(library, way);
        mount.put("wait", b"x");
        mount.put("file", b"y");
        let mut reader = cat(&mount.path("wait"));
        eventually("the read waits", || mount.gate.waiting() == 1);
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"y", "others are served meanwhile");
        kill(Pid::from_raw(reader.id().cast_signed()), Signal::SIGINT).unwrap();
        wait(&mut reader);
        assert_eq!(mount.gate.interrupted(), 1);
        mount.gate.open();
        assert_eq!(fs::read(mount.path("wait")).unwrap(), b"x", "the next read is not interrupted");
    });
}

#[test]
fn descriptors_are_shared_as_shells_do_it() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let shell = |script: &str| {
            let mut command = Command::new("bash");
            succeed(command.args(["-c", script]).current_dir(mount.root()));
        };
        shell("/bin/echo one > f; (/bin/echo two; echo three; /bin/echo four) > g");
        shell("exec 3> h; echo a >&3; /bin/echo b >&3; sleep 0 & wait; echo c >&3; exec 3>&-");
        shell("exec 3> i; echo a >&3; exec 4>&3; exec 3>&-; echo b >&4; exec 4>&-");
        assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(mount.path("g")).unwrap(), "two\nthree\nfour\n");
        assert_eq!(fs::read_to_string(mount.path("h")).unwrap(), "a\nb\nc\n");
        assert_eq!(fs::read_to_string(mount.path("i")).unwrap(), "a\nb\n");
        let mut names: Vec<_> = fs::read_dir(mount.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["f", "g", "h", "i"]);
    });
}

/// A program that handles SIGUSR1, reads the file once and prints what it got, or fails if it got an error.
fn reader_that_handles_a_signal(path: &Path) -> Child {
    let script = r#"$SIG{USR1} = sub {}; open(my $file, "<", $ARGV[0]) or die $!;
                    defined(sysread($file, my $text, 100)) or die $!; print $text"#;
    Command::new("perl").args(["-e", script]).arg(path).stdout(Stdio::piped()).spawn().unwrap()
}

/// One of the tests that interrupt a read by a signal that is handled: they see it by a thread that all mounts of this process
/// share.
fn watched_alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an interrupt of this process's mounts was found harmless and its request is being watched.
fn is_watched() -> bool {
    fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "fuse-interrupts")
    })
}

#[test]
fn a_signal_that_a_program_handles_by_the_way_ends_no_read() {
    let _alone = watched_alone();
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("wait", b"x");
        let reader = reader_that_handles_a_signal(&mount.path("wait"));
        eventually("the read waits, and no other one is watched", || {
            mount.gate.waiting() == 1 && !is_watched()
        });
        kill(Pid::from_raw(reader.id().cast_signed()), Signal::SIGUSR1).unwrap();
        eventually("the interrupt has come", is_watched);
        mount.gate.open();
        let output = reader.wait_with_output().unwrap();
        assert_eq!((output.status.success(), &output.stdout[..]), (true, &b"x"[..]));
        assert_eq!(mount.gate.interrupted(), 0);
    });
}

#[test]
fn a_signal_that_means_it_ends_a_read_that_went_on_after_another() {
    let _alone = watched_alone();
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("wait", b"x");
        let mut reader = reader_that_handles_a_signal(&mount.path("wait"));
        let pid = Pid::from_raw(reader.id().cast_signed());
        eventually("the read waits, and no other one is watched", || {
            mount.gate.waiting() == 1 && !is_watched()
        });
        kill(pid, Signal::SIGUSR1).unwrap();
        eventually("the interrupt has come", is_watched);
        // The kernel sends no second interrupt for the request.
        kill(pid, Signal::SIGTERM).unwrap();
        wait(&mut reader);
        assert_eq!(mount.gate.interrupted(), 1);
    });
}

#[test]
fn a_slow_look_up_does_not_hold_up_others_in_its_directory() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("slow", b"x");
        mount.put("file", b"y");
        let mut reader = cat(&mount.path("slow"));
        eventually("the look-up waits", || mount.gate.waiting() == 1);
        let mut other = cat(&mount.path("file"));
        assert!(wait(&mut other).success(), "served in parallel");
        assert_eq!(mount.gate.waiting(), 1);
        mount.gate.open();
        assert!(wait(&mut reader).success());
    });
}

#[test]
fn files_can_be_mapped_though_the_kernel_keeps_no_pages() {
    if !kernel::is_since(6, 6) {
        return;
    }
    with_each_library(|library| {
        let direct = VfsOptions { page_cache: PageCache::DirectIo, ..VfsOptions::default() };
        let mount = Mount::with_vfs(library, direct, |_| {});
        let data = pattern(300_000);
        mount.put("data", &data);
        let file = File::open(mount.path("data")).unwrap();
        // SAFETY: nobody changes the file. The mapping is shared, which needs that INIT asked for it.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        assert!(map[..] == data);
    });
}

#[test]
fn a_panic_fails_one_request_only() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        mount.put("panic", b"x");
        mount.put("file", b"y");
        for _ in 0..3 {
            assert_eq!(errno(fs::read(mount.path("panic"))), libc::EIO);
            assert_eq!(fs::read(mount.path("file")).unwrap(), b"y");
        }
    });
}

#[test]
fn many_waiting_reads_do_not_keep_others_from_being_served() {
    with_each_transport(|library, way| {
        let mount = Mount::with(library, way);
        mount.put("file", b"y");
        let mut readers: Vec<_> = (0..40)
            .map(|number| {
                let name = format!("wait-{number}");
                mount.put(&name, b"x");
                cat(&mount.path(&name))
            })
            .collect();
        eventually("all wait", || mount.gate.waiting() == 40);
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"y");
        mount.gate.open();
        assert!(readers.iter_mut().all(|reader| wait(reader).success()));
    });
}

#[test]
fn a_mount_that_is_refused_says_why_and_leaves_nothing() {
    with_each_library(|library| {
        let mount = Mount::new(library);
        let point = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut SessionOptions)| {
            let mut options = SessionOptions { library, ..SessionOptions::new(point.path()) };
            change(&mut options);
            let outcome = Session::mount(&options, std::sync::Arc::clone(&mount.vfs));
            outcome.map(|_| ()).unwrap_err()
        };
        let unknown = refused(&|options| options.kernel_options = vec!["no_such_option".to_owned()]);
        assert!(unknown.to_string().contains("no_such_option"), "{unknown}");
        assert!(matches!(unknown, MountError::Refused(_)));
        let missing = refused(&|options| options.mount_point = "/no/such/directory".into());
        assert!(missing.to_string().contains("/no/such/directory"), "{missing}");
        assert_eq!(mount_line(point.path()), None);
    });
}

/// As with blocks on a disk that is slow, of a worker on this machine.
#[test]
fn replies_that_wait_for_a_disk_hold_up_nobody_else() {
    const READERS: usize = 8;
    const APART: usize = 1 << 20;
    with_each_library(|library| {
        let kept = VfsOptions { page_cache: PageCache::KernelCache, ..VfsOptions::default() };
        let disk = Mount::with_vfs(library, kept, |_| {});
        let content = pattern(READERS * APART);
        disk.put("wait", &content);
        let file = File::open(disk.path("wait")).unwrap();
        // SAFETY: nobody changes the file.
        let mapped = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        let mount = Mount::new(library);
        mount.put("mapped", &content);
        mount.gate.show(Bytes::from_owner(mapped));
        let file = File::open(mount.path("mapped")).unwrap();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|number| {
                    let file = &file;
                    scope.spawn(move || {
                        let mut bytes = [0; 4096];
                        file.read_exact_at(&mut bytes, (number * APART) as u64).map(|()| bytes)
                    })
                })
                .collect();
            eventually("all wait for the disk", || disk.gate.waiting() >= READERS);
            // The kernel has not been told of it.
            assert_eq!(errno(fs::metadata(mount.path("absent"))), libc::ENOENT);
            disk.gate.open();
            for (number, reader) in readers.into_iter().enumerate() {
                assert_eq!(reader.join().unwrap().unwrap(), content[number * APART..][..4096]);
            }
        });
    });
}
