//! The rules of the virtual file system, in process over the embedded store: inodes, handles, and above all
//! how a file is written once, in order, by whoever has it open.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::fs::Attr;
use alluxio_fuse::fs::Cancel;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::fs::FileReader;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FileWriter;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::fs::Layer;
use alluxio_fuse::fs::Naming;
use alluxio_fuse::fs::Payload;
use alluxio_fuse::fs::RenameMode;
use alluxio_fuse::fs::Result;
use alluxio_fuse::fs::SetAttr;
use alluxio_fuse::fs::Slices;
use alluxio_fuse::fs::Timestamp;
use alluxio_fuse::fs::XattrMode;
use alluxio_fuse::vfs::DirItem;
use alluxio_fuse::vfs::Fh;
use alluxio_fuse::vfs::Ino;
use alluxio_fuse::vfs::Opened;
use alluxio_fuse::vfs::PageCache;
use alluxio_fuse::vfs::PlusItem;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;

const LIMIT: Duration = Duration::from_secs(20);

struct Fixture {
    vfs: Arc<Vfs>,
    faults: Arc<Faults>,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    fixture_with(VfsOptions::default())
}

fn fixture_with(options: VfsOptions) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::new(dir.path()));
    let vfs = Arc::new(Vfs::new(Arc::clone(&faults) as Arc<dyn FileSystem>, options));
    Fixture { vfs, faults, dir }
}

impl Fixture {
    fn create(&self, name: &str) -> (Ino, Fh) {
        let flags = libc::O_WRONLY | libc::O_CREAT;
        let (entry, opened) =
            self.vfs.create(&Ctx::daemon(), Ino::ROOT, OsStr::new(name), 0o644, flags).unwrap();
        (entry.ino, opened.fh)
    }

    fn write(&self, fh: Fh, offset: u64, data: &[u8]) -> Result<usize> {
        self.vfs.write(&Ctx::daemon(), fh, offset, data.into())
    }

    fn flush(&self, fh: Fh) -> Result<()> {
        self.vfs.flush(&Ctx::daemon(), fh)
    }

    fn close(&self, fh: Fh) -> Result<()> {
        let result = self.flush(fh);
        self.vfs.release(fh).unwrap();
        result
    }

    fn file(&self, name: &str, data: &[u8]) -> Ino {
        let (ino, fh) = self.create(name);
        self.write(fh, 0, data).unwrap();
        self.close(fh).unwrap();
        ino
    }

    fn find(&self, name: &str) -> Result<(Ino, Attr)> {
        let entry = self.vfs.lookup(&Ctx::daemon(), Ino::ROOT, OsStr::new(name))?;
        self.vfs.forget(entry.ino, 1);
        Ok((entry.ino, entry.attr))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Opens `name` as the kernel does, which looks up once more when it is told so. Each inode stays counted once more.
    fn open(&self, name: &str, flags: i32) -> Result<(Ino, Opened)> {
        let ctx = Ctx::daemon();
        let open = || -> Result<(Ino, Opened)> {
            let ino = self.vfs.lookup(&ctx, Ino::ROOT, OsStr::new(name))?.ino;
            Ok((ino, self.vfs.open(&ctx, ino, flags)?))
        };
        open().or_else(|error| if error.fault() == Fault::Reopen { open() } else { Err(error) })
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let attr = self.find(name).unwrap().1;
        let (ino, Opened { fh, .. }) = self.open(name, libc::O_RDONLY).unwrap();
        let data = self.vfs.read(&Ctx::daemon(), fh, 0, attr.size as usize + 1).unwrap().copied().unwrap();
        self.vfs.release(fh).unwrap();
        self.vfs.forget(ino, 1);
        data
    }
}

fn fault<T>(result: Result<T>) -> Fault {
    result.err().expect("a failure").fault()
}

#[test]
fn a_closed_file_has_its_bytes_and_an_open_one_its_size() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"hello ").unwrap();
    fixture.write(fh, 6, b"world").unwrap();
    let (attr, ttl) = fixture.vfs.getattr(&Ctx::daemon(), ino, None).unwrap();
    assert_eq!((attr.size, attr.complete, ttl), (11, false, Duration::ZERO));
    assert_eq!(fault(fixture.vfs.open(&Ctx::daemon(), ino, libc::O_RDONLY)), Fault::Busy);
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"hello world");
}

#[test]
fn pieces_of_one_large_write_may_arrive_in_any_order() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    let data: Vec<u8> = (0..64 * 1024u32).map(|at| (at % 251) as u8).collect();
    // The pieces come from several threads at once, the last ones first.
    thread::scope(|scope| {
        for index in (0..16).rev() {
            let (fixture, data) = (&fixture, &data);
            scope.spawn(move || {
                let at = index * 4096;
                fixture.write(fh, at as u64, &data[at..at + 4096]).unwrap();
            });
        }
    });
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), data);
}

#[test]
fn pieces_of_one_large_write_are_waited_for_as_long_as_some_come() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    // Together they take three times as long as a piece waits while none come.
    fixture.faults.slow_append.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        for index in (0..15).rev() {
            let fixture = &fixture;
            scope.spawn(move || fixture.write(fh, index, &[b'a' + index as u8]).unwrap());
        }
    });
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"abcdefghijklmno");
}

#[test]
fn a_hole_is_filled_with_zeros() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"a").unwrap();
    fixture.write(fh, 4, b"b").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"a\0\0\0b");
}

#[test]
fn a_rewrite_is_refused_and_the_file_never_appears_complete() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"abcdef").unwrap();
    assert_eq!(fault(fixture.write(fh, 2, b"X")), Fault::NotSupported);
    assert_eq!(fault(fixture.write(fh, 6, b"ghi")), Fault::NotSupported);
    assert_eq!(fault(fixture.close(fh)), Fault::NotSupported);
    assert_eq!(fault(fixture.find("f")), Fault::NotFound);
}

#[test]
fn a_file_closed_empty_can_still_be_written_by_who_has_it_open() {
    // What a shell does for `command > f`: open, dup2, close, and only then the command writes.
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.flush(fh).unwrap();
    assert_eq!(fixture.content("f"), b"");
    fixture.write(fh, 0, b"late").unwrap();
    assert_eq!(fixture.vfs.getattr(&Ctx::daemon(), ino, None).unwrap().0.size, 4);
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"late");
    assert_eq!(fixture.find("f").unwrap().0, ino);
}

#[test]
fn who_still_has_a_file_open_can_go_on_after_another_close() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    for piece in 0..3 {
        fixture.write(fh, piece, b"x").unwrap();
        fixture.flush(fh).unwrap();
        assert_eq!(fixture.content("f").len() as u64, piece + 1);
    }
    assert_eq!(fault(fixture.write(fh, 1, b"y")), Fault::NotSupported);
    fixture.write(fh, 3, b"end").unwrap();
    let moved = fixture.vfs.rename(&Ctx::daemon(), Ino::ROOT, OsStr::new("f"), Ino::ROOT, OsStr::new("g"), 0);
    moved.unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("g"), b"xxxend");
    assert_eq!(fixture.find("g").unwrap().0, ino);
    assert_eq!(fixture.names(), ["g"]);
}

#[test]
fn what_is_shortened_while_it_is_copied_cannot_go_on() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"kept").unwrap();
    fixture.flush(fh).unwrap();
    fixture.faults.reads_end.store(true, Ordering::Relaxed);
    assert_eq!(fault(fixture.write(fh, 4, b"lost")), Fault::Stale);
    fixture.faults.reads_end.store(false, Ordering::Relaxed);
    assert_eq!(fault(fixture.close(fh)), Fault::Stale);
    assert_eq!(std::fs::read(fixture.dir.path().join("f")).unwrap(), b"kept");
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn what_could_not_go_on_leaves_what_was_complete() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"kept").unwrap();
    fixture.flush(fh).unwrap();
    fixture.write(fh, 4, b"lost").unwrap();
    fixture.faults.fail_commit.store(true, Ordering::Relaxed);
    assert_eq!(fault(fixture.close(fh)), Fault::Io);
    assert_eq!(fixture.content("f"), b"kept");
    assert_eq!(fixture.names(), ["f"]);
}

/// Another process, until this is dropped.
struct Process(std::process::Child);

impl Process {
    fn start() -> Self {
        Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_child_that_closes_what_it_inherited_ends_nothing() {
    let fixture = fixture();
    let cancel = Cancel::new();
    let opener = Ctx::new(0, 0, std::process::id(), &cancel);
    let child = Process::start();
    let inherited = Ctx::new(0, 0, child.0.id(), &cancel);
    let flags = libc::O_WRONLY | libc::O_CREAT;
    let fh = fixture.vfs.create(&opener, Ino::ROOT, OsStr::new("f"), 0o644, flags).unwrap().1.fh;
    fixture.write(fh, 0, b"a").unwrap();
    fixture.vfs.flush(&inherited, fh).unwrap();
    assert!(!fixture.find("f").unwrap().1.complete);
    fixture.write(fh, 1, b"b").unwrap();
    fixture.vfs.flush(&opener, fh).unwrap();
    assert_eq!(fixture.content("f"), b"ab");
    fixture.vfs.release(fh).unwrap();
    // Its opener gone, a close by whoever has it completes it.
    let fh = fixture.vfs.create(&inherited, Ino::ROOT, OsStr::new("g"), 0o644, flags).unwrap().1.fh;
    fixture.write(fh, 0, b"a").unwrap();
    drop(child);
    fixture.vfs.flush(&opener, fh).unwrap();
    assert_eq!(fixture.content("g"), b"a");
    fixture.vfs.release(fh).unwrap();
}

#[test]
fn a_failed_write_makes_close_fail() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.faults.fail_append.store(true, Ordering::Relaxed);
    assert_eq!(fault(fixture.write(fh, 0, b"x")), Fault::NoSpace);
    fixture.faults.fail_append.store(false, Ordering::Relaxed);
    assert_eq!(fault(fixture.write(fh, 0, b"x")), Fault::NoSpace);
    assert_eq!(fault(fixture.close(fh)), Fault::NoSpace);
    assert_eq!(fault(fixture.find("f")), Fault::NotFound);
}

#[test]
fn a_write_that_waits_for_one_that_fails_fails_too() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.set(ino, &SetAttr { mode: Some(0o4755), ..SetAttr::default() });
    fixture.faults.fail_append.store(true, Ordering::Relaxed);
    let cancel = Cancel::new();
    // This one takes the set-user-id bit away first, which tells that it is on its way.
    let other = Ctx::new(1000, 1000, 1, &cancel);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fixture.vfs.write(&other, fh, 1, Payload::Lent(b"b")));
        while fixture.vfs.getattr(&Ctx::daemon(), ino, None).unwrap().0.mode != 0o755 {
            thread::yield_now();
        }
        assert_eq!(fault(fixture.write(fh, 0, b"a")), Fault::NoSpace);
        assert_eq!(fault(waiting.join().unwrap()), Fault::NoSpace);
    });
    assert_eq!(fault(fixture.close(fh)), Fault::NoSpace);
}

#[test]
fn an_interrupted_write_can_be_tried_again() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"a").unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let interrupted = fixture.vfs.write(&Ctx::new(0, 0, 1, &cancel), fh, 3, Payload::Lent(b"d"));
    assert_eq!(fault(interrupted), Fault::Interrupted);
    fixture.write(fh, 1, b"bcd").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"abcd");
}

#[test]
fn a_failed_commit_is_what_close_returns() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"x").unwrap();
    fixture.faults.fail_commit.store(true, Ordering::Relaxed);
    assert_eq!(fault(fixture.close(fh)), Fault::Io);
    assert_eq!(fault(fixture.find("f")), Fault::NotFound);
}

#[test]
fn a_panic_while_writing_fails_the_file_and_nobody_waits_for_ever() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.faults.panic_append.store(true, Ordering::Relaxed);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fixture.write(fh, 0, b"x")));
    assert!(caught.is_err());
    assert_eq!(fault(fixture.write(fh, 0, b"x")), Fault::Io);
    assert_eq!(fault(fixture.close(fh)), Fault::Io);
}

#[test]
fn an_interrupted_close_returns_and_the_file_is_completed_all_the_same() {
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.write(fh, 0, b"x").unwrap();
    let gate = fixture.faults.commit_gate.lock();
    let cancel = Cancel::new();
    thread::scope(|scope| {
        let closing = scope.spawn(|| fixture.vfs.flush(&Ctx::new(0, 0, 1, &cancel), fh));
        cancel.cancel();
        assert_eq!(fault(closing.join().unwrap()), Fault::Interrupted);
    });
    drop(gate);
    fixture.vfs.release(fh).unwrap();
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.content("f"), b"x");
}

#[test]
fn the_end_waits_for_what_was_closed_and_gives_up_what_was_not() {
    let fixture = fixture();
    let (_, open) = fixture.create("open");
    fixture.write(open, 0, b"x").unwrap();
    let (_, closed) = fixture.create("closed");
    fixture.write(closed, 0, b"x").unwrap();
    let gate = fixture.faults.commit_gate.lock();
    fixture.vfs.release(closed).unwrap();
    assert_eq!(fixture.vfs.finish(Duration::ZERO), 1);
    drop(gate);
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), ["closed"]);
    assert_eq!(fixture.content("closed"), b"x");
    assert_eq!(fault(fixture.close(open)), Fault::Io);
}

#[test]
fn a_file_that_nobody_has_open_any_more_is_there_until_it_is_complete() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"abc").unwrap();
    let gate = fixture.faults.commit_gate.lock();
    fixture.vfs.release(fh).unwrap();
    assert_eq!(fixture.vfs.open_handles(), 0);
    // Also once the kernel has forgotten it.
    fixture.vfs.forget(ino, 1);
    let found = fixture.vfs.lookup(&Ctx::daemon(), Ino::ROOT, OsStr::new("f")).unwrap();
    assert_eq!((found.ino, found.attr.size, found.attr.complete), (ino, 3, false));
    let cancel = Cancel::new();
    cancel.cancel();
    let interrupted = Ctx::new(0, 0, 1, &cancel);
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_WRONLY | libc::O_TRUNC] {
        assert_eq!(fault(fixture.vfs.open(&interrupted, ino, flags)), Fault::Interrupted);
    }
    let emptied = fixture.vfs.setattr(&interrupted, ino, None, &SetAttr::default(), Some(0));
    assert_eq!(fault(emptied), Fault::Interrupted);
    thread::scope(|scope| {
        let reading = scope.spawn(|| fixture.content("f"));
        drop(gate);
        assert_eq!(reading.join().unwrap(), b"abc");
    });
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    fixture.vfs.forget(ino, 1);
    assert_eq!(fixture.vfs.known_inodes(), 1);
}

#[test]
fn who_writes_a_file_that_is_being_completed_writes_what_comes_after_it() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"abc").unwrap();
    let gate = fixture.faults.commit_gate.lock();
    fixture.vfs.release(fh).unwrap();
    let fh = thread::scope(|scope| {
        let appending = scope.spawn(|| fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_APPEND));
        let writing = scope.spawn(|| fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_TRUNC));
        let trying = scope.spawn(|| fixture.vfs.open(&ctx, ino, libc::O_RDWR));
        drop(gate);
        let tried = trying.join().unwrap().unwrap().fh;
        fixture.vfs.release(tried).unwrap();
        let opened = writing.join().unwrap().unwrap();
        // Whichever came first: there is nothing to append to once the file is empty.
        match appending.join().unwrap() {
            Ok(appended) => fixture.vfs.release(appended.fh).unwrap(),
            Err(error) => assert_eq!(error.fault(), Fault::NotSupported),
        }
        opened.fh
    });
    fixture.write(fh, 0, b"other").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"other");
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn a_new_version_that_is_being_completed_goes_with_its_name() {
    let fixture = fixture();
    let overwritten = |name| {
        let ino = fixture.file(name, b"old");
        let fh = fixture.vfs.open(&Ctx::daemon(), ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
        fixture.write(fh, 0, b"new").unwrap();
        fh
    };
    let (removed, renamed) = (overwritten("removed"), overwritten("renamed"));
    let gate = fixture.faults.commit_gate.lock();
    fixture.vfs.release(removed).unwrap();
    fixture.vfs.release(renamed).unwrap();
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new("removed")).unwrap();
    let (from, to) = (OsStr::new("renamed"), OsStr::new("g"));
    fixture.vfs.rename(&Ctx::daemon(), Ino::ROOT, from, Ino::ROOT, to, 0).unwrap();
    drop(gate);
    assert_eq!(fixture.content("g"), b"new");
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), ["g"]);
}

#[test]
fn the_name_of_a_file_is_held_while_it_changes_also_if_a_thread_has_the_writer() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"abc").unwrap();
    fixture.vfs.setattr(&Ctx::daemon(), ino, Some(fh), &SetAttr::default(), Some(0)).unwrap();
    let gate = fixture.faults.commit_gate.lock();
    fixture.vfs.release(fh).unwrap();
    let (from, to) = (OsStr::new("f"), OsStr::new("g"));
    fixture.vfs.rename(&Ctx::daemon(), Ino::ROOT, from, Ino::ROOT, to, 0).unwrap();
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, to).unwrap();
    assert_eq!(*fixture.faults.changes.lock(), [("create", 0), ("create", 1), ("rename", 1), ("remove", 1)]);
    assert_eq!(fixture.faults.held.load(Ordering::SeqCst), 0);
    drop(gate);
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
}

#[test]
fn a_name_goes_before_a_new_version_takes_its_place_or_after() {
    let fixture = fixture();
    let ino = fixture.file("f", b"old");
    let fh = fixture.vfs.open(&Ctx::daemon(), ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    fixture.write(fh, 0, b"new").unwrap();
    let gate = fixture.faults.replace_gate.lock();
    fixture.vfs.release(fh).unwrap();
    while fixture.faults.replaces.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let cancel = Cancel::new();
    cancel.cancel();
    let interrupted = Ctx::new(0, 0, 1, &cancel);
    let (f, g) = (OsStr::new("f"), OsStr::new("g"));
    assert_eq!(fault(fixture.vfs.unlink(&interrupted, Ino::ROOT, f)), Fault::Interrupted);
    assert_eq!(fault(fixture.vfs.rename(&interrupted, Ino::ROOT, f, Ino::ROOT, g, 0)), Fault::Interrupted);
    drop(gate);
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, f).unwrap();
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), Vec::<String>::new());
}

#[test]
fn who_waits_for_a_file_that_cannot_be_completed_finds_what_is_there() {
    let fixture = fixture();
    let old = fixture.file("old", b"old");
    let over = fixture.vfs.open(&Ctx::daemon(), old, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    let (new, made) = fixture.create("new");
    for fh in [over, made] {
        fixture.write(fh, 0, b"new").unwrap();
    }
    let gate = fixture.faults.commit_gate.lock();
    fixture.faults.fail_commit.store(true, Ordering::Relaxed);
    for fh in [over, made] {
        fixture.vfs.release(fh).unwrap();
    }
    thread::scope(|scope| {
        let reading = scope.spawn(|| fixture.content("old"));
        let missing = scope.spawn(|| fixture.vfs.open(&Ctx::daemon(), new, libc::O_RDONLY));
        drop(gate);
        assert_eq!(reading.join().unwrap(), b"old");
        assert!(matches!(fault(missing.join().unwrap()), Fault::NotFound | Fault::Stale));
    });
    assert_eq!(fault(fixture.find("new")), Fault::NotFound);
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), ["old"]);
}

#[test]
fn a_reader_waits_for_the_kernel_to_let_go_of_what_a_child_has_closed() {
    let fixture = fixture();
    let cancel = Cancel::new();
    let opener = Ctx::new(0, 0, std::process::id(), &cancel);
    let child = Process::start();
    let inherited = Ctx::new(0, 0, child.0.id(), &cancel);
    let flags = libc::O_WRONLY | libc::O_CREAT;
    let (entry, opened) = fixture.vfs.create(&opener, Ino::ROOT, OsStr::new("f"), 0o644, flags).unwrap();
    fixture.vfs.flush(&opener, opened.fh).unwrap();
    fixture.write(opened.fh, 0, b"a").unwrap();
    fixture.vfs.flush(&inherited, opened.fh).unwrap();
    // Nobody lets go.
    assert_eq!(fault(fixture.vfs.open(&opener, entry.ino, libc::O_RDONLY)), Fault::Busy);
    thread::scope(|scope| {
        fixture.vfs.flush(&inherited, opened.fh).unwrap();
        let reading = scope.spawn(|| fixture.vfs.open(&opener, entry.ino, libc::O_RDONLY));
        fixture.vfs.release(opened.fh).unwrap();
        let fh = reading.join().unwrap().unwrap().fh;
        assert_eq!(fixture.vfs.read(&opener, fh, 0, 9).unwrap().copied().unwrap(), b"a");
        fixture.vfs.release(fh).unwrap();
    });
}

#[test]
fn truncation_does_what_a_write_once_store_can() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let ino = fixture.file("f", b"abc");
    let to = |size| fixture.vfs.setattr(&ctx, ino, None, &SetAttr::default(), Some(size));
    assert_eq!(to(3).unwrap().0.size, 3);
    assert_eq!(fault(to(2)), Fault::NotSupported);
    assert_eq!(fault(to(4)), Fault::NotSupported);
    assert_eq!(fixture.content("f"), b"abc");
    assert_eq!(to(0).unwrap().0.size, 0);
    assert_eq!(fixture.content("f"), b"");
    assert_eq!(to(3).unwrap().0.size, 3);
    assert_eq!(fixture.content("f"), b"\0\0\0");
}

#[test]
fn a_file_that_is_emptied_while_another_closes_it_is_empty() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    let mode = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    fixture.set(ino, &mode);
    fixture.write(fh, 0, b"abc").unwrap();
    let (commit, create) = (fixture.faults.commit_gate.lock(), fixture.faults.create_gate.lock());
    let cancel = Cancel::new();
    // This one takes the set-user-id bit away first, which tells that it is on its way.
    let other = Ctx::new(1000, 1000, 1, &cancel);
    // A close that is interrupted goes on, and waits at the gate.
    let ended = Cancel::new();
    ended.cancel();
    assert_eq!(fault(fixture.vfs.flush(&Ctx::new(0, 0, 1, &ended), fh)), Fault::Interrupted);
    thread::scope(|scope| {
        let emptying = scope.spawn(|| fixture.vfs.setattr(&other, ino, None, &SetAttr::default(), Some(0)));
        while fixture.faults.set_attrs.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        drop(commit);
        while fixture.faults.creates.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        fixture.vfs.release(fh).unwrap();
        drop(create);
        assert_eq!(emptying.join().unwrap().unwrap().0.size, 0);
    });
    assert_eq!(fixture.content("f"), b"");
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn a_file_being_written_can_be_emptied_or_given_a_length() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"wrong").unwrap();
    fixture.vfs.setattr(&ctx, ino, Some(fh), &SetAttr::default(), Some(0)).unwrap();
    fixture.vfs.setattr(&ctx, ino, Some(fh), &SetAttr::default(), Some(6)).unwrap();
    fixture.write(fh, 0, b"right").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"right\0");
}

#[test]
fn opening_with_o_trunc_replaces_the_content_and_keeps_the_mode() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let ino = fixture.file("f", b"old content");
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    fixture.vfs.setattr(&ctx, ino, None, &change, None).unwrap();
    let fh = fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    fixture.write(fh, 0, b"new").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"new");
    let (same, attr) = fixture.find("f").unwrap();
    assert_eq!((same, attr.mode), (ino, 0o600));
}

#[test]
fn what_is_written_over_a_file_takes_its_place_at_the_close() {
    let fixture = fixture();
    let ino = fixture.file("f", b"old");
    let fh = fixture.vfs.open(&Ctx::daemon(), ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    fixture.write(fh, 0, b"the new").unwrap();
    assert_eq!(fixture.find("f").unwrap().1.size, 7, "as this mount shows it");
    assert_eq!(std::fs::read(fixture.dir.path().join("f")).unwrap(), b"old", "as it is");
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"the new");
    assert_eq!(fixture.find("f").unwrap().0, ino);
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn who_reads_the_old_version_does_not_fill_the_pages_of_the_new_one() {
    let ctx = Ctx::daemon();
    for page_cache in
        [PageCache::DirectIo, PageCache::KernelCache, PageCache::AutoCache, PageCache::DropOnOpen]
    {
        let fixture = fixture_with(VfsOptions { page_cache, ..VfsOptions::default() });
        let ino = fixture.file("f", b"old");
        let reader = fixture.vfs.open(&ctx, ino, libc::O_RDONLY).unwrap().fh;
        let read = || fixture.vfs.read(&ctx, reader, 0, 9).map(|bytes| bytes.copied().unwrap());
        assert_eq!(read().unwrap(), b"old");
        let fh = fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
        for step in 0..2 {
            match page_cache {
                PageCache::DirectIo => assert_eq!(read().unwrap(), b"old"),
                _ => assert_eq!(fault(read()), Fault::Stale, "{page_cache:?} {step}"),
            }
            if step == 0 {
                fixture.write(fh, 0, b"new").unwrap();
                fixture.close(fh).unwrap();
            }
        }
        assert_eq!(fixture.content("f"), b"new");
        // A name that goes changes nothing for who has it open.
        let reader = fixture.open("f", libc::O_RDONLY).unwrap().1.fh;
        fixture.vfs.unlink(&ctx, Ino::ROOT, OsStr::new("f")).unwrap();
        assert_eq!(fixture.vfs.read(&ctx, reader, 0, 9).unwrap().copied().unwrap(), b"new");
    }
}

#[test]
fn each_version_that_is_open_has_an_inode_of_its_own_where_both_can_be_read() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let old = fixture.file("f", b"old");
    let reader = fixture.vfs.open(&ctx, old, libc::O_RDONLY).unwrap().fh;
    let writer = fixture.open("f", libc::O_WRONLY | libc::O_TRUNC).unwrap().1.fh;
    fixture.write(writer, 0, b"new").unwrap();
    fixture.flush(writer).unwrap();
    for flags in [libc::O_RDONLY, libc::O_RDWR] {
        assert_eq!(fault(fixture.vfs.open(&ctx, old, flags)), Fault::Reopen);
        let (new, Opened { fh, .. }) = fixture.open("f", flags).unwrap();
        assert_ne!(new, old);
        for (fh, bytes) in [(fh, b"new"), (reader, b"old")] {
            assert_eq!(fixture.vfs.read(&ctx, fh, 0, 9).unwrap().copied().unwrap(), bytes);
        }
        fixture.close(fh).unwrap();
    }
    // The writer goes on by the old inode. What it has goes with the name all the same.
    fixture.write(writer, 3, b"er").unwrap();
    fixture.vfs.unlink(&ctx, Ino::ROOT, OsStr::new("f")).unwrap();
    fixture.close(writer).unwrap();
    assert_eq!(fixture.names(), Vec::<String>::new());
    // When nobody reads an older version, one inode does for all.
    fixture.vfs.release(reader).unwrap();
    let ino = fixture.file("g", b"old");
    let fh = fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    fixture.close(fh).unwrap();
    assert_eq!(fixture.open("g", libc::O_RDONLY).unwrap().0, ino);
}

#[test]
fn what_fails_or_is_given_up_leaves_the_file_that_was_there() {
    let overwrite = |fixture: &Fixture, ino| {
        let fh = fixture.vfs.open(&Ctx::daemon(), ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
        fixture.write(fh, 0, b"new").unwrap();
        fh
    };
    let failed = fixture();
    let ino = failed.file("f", b"old");
    let fh = overwrite(&failed, ino);
    failed.faults.fail_commit.store(true, Ordering::Relaxed);
    assert_eq!(fault(failed.close(fh)), Fault::Io);
    assert_eq!(failed.content("f"), b"old");
    assert_eq!(failed.names(), ["f"]);

    let ended = fixture();
    let ino = ended.file("f", b"old");
    overwrite(&ended, ino);
    ended.vfs.finish(LIMIT);
    assert_eq!(std::fs::read(ended.dir.path().join("f")).unwrap(), b"old");
    assert_eq!(ended.names(), ["f"]);

    let rewritten = fixture();
    let ino = rewritten.file("f", b"old");
    let fh = overwrite(&rewritten, ino);
    assert_eq!(fault(rewritten.write(fh, 1, b"?")), Fault::NotSupported);
    assert_eq!(fault(rewritten.close(fh)), Fault::NotSupported);
    assert_eq!(rewritten.content("f"), b"old");
    assert_eq!(rewritten.names(), ["f"]);
}

#[test]
fn a_file_that_is_removed_or_renamed_while_it_is_written_over_leaves_nothing_behind() {
    let ctx = Ctx::daemon();
    let fixture = fixture();
    for name in ["removed", "renamed"] {
        let ino = fixture.file(name, b"old");
        let fh = fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
        fixture.write(fh, 0, b"new").unwrap();
        if name == "removed" {
            fixture.vfs.unlink(&ctx, Ino::ROOT, OsStr::new(name)).unwrap();
        } else {
            let (from, to) = (OsStr::new(name), OsStr::new("other"));
            fixture.vfs.rename(&ctx, Ino::ROOT, from, Ino::ROOT, to, 0).unwrap();
        }
        fixture.close(fh).unwrap();
    }
    assert_eq!(fixture.content("other"), b"new");
    assert_eq!(fixture.names(), ["other"]);
}

#[test]
fn a_file_removed_while_its_new_version_is_completed_stays_removed() {
    let fixture = fixture();
    let ino = fixture.file("f", b"old");
    let fh = fixture.vfs.open(&Ctx::daemon(), ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    fixture.write(fh, 0, b"new").unwrap();
    let gate = fixture.faults.commit_gate.lock();
    // A close that is interrupted goes on, and waits at the gate.
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(fault(fixture.vfs.flush(&Ctx::new(0, 0, 1, &cancel), fh)), Fault::Interrupted);
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new("f")).unwrap();
    drop(gate);
    fixture.vfs.release(fh).unwrap();
    assert_eq!(fixture.vfs.finish(LIMIT), 0);
    assert_eq!(fixture.names(), Vec::<String>::new());
}

#[test]
fn what_is_complete_cannot_be_appended_to() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let ino = fixture.file("f", b"abc");
    assert_eq!(fault(fixture.vfs.open(&ctx, ino, libc::O_WRONLY | libc::O_APPEND)), Fault::NotSupported);
    let fh = fixture.vfs.open(&ctx, ino, libc::O_RDWR).unwrap().fh;
    assert_eq!(fixture.vfs.read(&ctx, fh, 0, 9).unwrap().copied().unwrap(), b"abc");
    assert_eq!(fault(fixture.write(fh, 3, b"d")), Fault::NotSupported);
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"abc");
}

#[test]
fn who_reads_what_he_has_written_is_not_given_what_took_its_place() {
    let fixture = fixture();
    let flags = libc::O_RDWR | libc::O_CREAT;
    let fh = fixture.vfs.create(&Ctx::daemon(), Ino::ROOT, OsStr::new("f"), 0o644, flags).unwrap().1.fh;
    fixture.write(fh, 0, b"own").unwrap();
    fixture.flush(fh).unwrap();
    replace_by_others(&fixture, "f", b"other");
    assert_eq!(fault(fixture.vfs.read(&Ctx::daemon(), fh, 0, 9)), Fault::Stale);
    fixture.close(fh).unwrap();
}

/// Another client puts `data` in the place of `name`.
fn replace_by_others(fixture: &Fixture, name: &str, data: &[u8]) {
    let at = |name| fixture.dir.path().join(name);
    std::fs::write(at("other"), data).unwrap();
    std::fs::rename(at("other"), at(name)).unwrap();
}

#[test]
fn who_goes_on_with_what_another_client_has_replaced_leaves_that_alone() {
    for own in [&b""[..], b"own"] {
        let fixture = fixture();
        let (_, fh) = fixture.create("f");
        if !own.is_empty() {
            fixture.write(fh, 0, own).unwrap();
        }
        fixture.flush(fh).unwrap();
        // As long as what is there now.
        replace_by_others(&fixture, "f", &b"oth"[..own.len()]);
        assert_eq!(fault(fixture.write(fh, own.len() as u64, b"more")), Fault::Stale);
        assert_eq!(fault(fixture.close(fh)), Fault::Stale);
        assert_eq!(fixture.content("f"), b"oth"[..own.len()]);
        assert_eq!(fixture.names(), ["f"]);
    }
    let fixture = fixture();
    let (_, fh) = fixture.create("f");
    fixture.flush(fh).unwrap();
    std::fs::remove_file(fixture.dir.path().join("f")).unwrap();
    assert_eq!(fault(fixture.write(fh, 0, b"more")), Fault::Stale);
    assert_eq!(fault(fixture.close(fh)), Fault::Stale);
    assert_eq!(fixture.names(), Vec::<String>::new());
}

#[test]
fn who_makes_a_file_that_another_client_has_removed_does_not_share_it_with_its_writer() {
    let fixture = fixture();
    let old = fixture.file("f", b"old");
    let writer = fixture.open("f", libc::O_WRONLY | libc::O_TRUNC).unwrap().1.fh;
    fixture.write(writer, 0, b"new").unwrap();
    std::fs::remove_file(fixture.dir.path().join("f")).unwrap();
    let (ino, fh) = fixture.create("f");
    assert_ne!(ino, old);
    fixture.write(fh, 0, b"another").unwrap();
    fixture.write(writer, 3, b"er").unwrap();
    fixture.close(writer).unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.content("f"), b"another");
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn a_file_that_another_client_has_renamed_is_written_on_when_its_name_is_used_anew() {
    let fixture = fixture();
    let (old, writer) = fixture.create("f");
    fixture.write(writer, 0, b"re").unwrap();
    std::fs::rename(fixture.dir.path().join("f"), fixture.dir.path().join("g")).unwrap();
    assert_ne!(fixture.file("f", b"another"), old);
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new("f")).unwrap();
    fixture.write(writer, 2, b"named").unwrap();
    fixture.close(writer).unwrap();
    assert_eq!(fixture.content("g"), b"renamed");
    assert_eq!(fixture.names(), ["g"]);
}

#[test]
fn a_file_removed_while_it_is_written_stays_removed() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"abc").unwrap();
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new("f")).unwrap();
    fixture.write(fh, 3, b"def").unwrap();
    assert_eq!(fixture.vfs.getattr(&Ctx::daemon(), ino, Some(fh)).unwrap().0.nlink, 0);
    fixture.close(fh).unwrap();
    assert_eq!(fault(fixture.find("f")), Fault::NotFound);
}

#[test]
fn a_directory_renamed_while_a_file_in_it_is_written_takes_the_file_along() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let (a, b) = (OsStr::new("a"), OsStr::new("b"));
    let dir = fixture.vfs.mkdir(&ctx, Ino::ROOT, a, 0o755).unwrap().ino;
    let (entry, opened) = fixture.vfs.create(&ctx, dir, OsStr::new("f"), 0o644, libc::O_WRONLY).unwrap();
    fixture.write(opened.fh, 0, b"abc").unwrap();
    fixture.vfs.rename(&ctx, Ino::ROOT, a, Ino::ROOT, b, 0).unwrap();
    fixture.close(opened.fh).unwrap();
    assert_eq!(fixture.vfs.path_text(entry.ino), "/b/f");
    assert_eq!(fixture.vfs.getattr(&ctx, entry.ino, None).unwrap().0.size, 3);
}

#[test]
fn a_file_that_fails_is_removed_where_it_was_renamed_to_meanwhile() {
    for in_commit in [false, true] {
        let fixture = fixture();
        let (ctx, faults) = (Ctx::daemon(), &fixture.faults);
        let (_, fh) = fixture.create("f");
        fixture.write(fh, 0, b"a").unwrap();
        let gate = if in_commit { faults.commit_gate.lock() } else { faults.append_gate.lock() };
        let begun = faults.appends.load(Ordering::SeqCst) + faults.commits.load(Ordering::SeqCst);
        thread::scope(|scope| {
            let fixture = &fixture;
            let failing =
                scope.spawn(
                    move || if in_commit { fixture.flush(fh) } else { fixture.write(fh, 1, b"b").map(drop) },
                );
            while faults.appends.load(Ordering::SeqCst) + faults.commits.load(Ordering::SeqCst) == begun {
                thread::yield_now();
            }
            fixture.vfs.rename(&ctx, Ino::ROOT, OsStr::new("f"), Ino::ROOT, OsStr::new("g"), 0).unwrap();
            faults.fail_append.store(true, Ordering::Relaxed);
            faults.fail_commit.store(true, Ordering::Relaxed);
            drop(gate);
            fault(failing.join().unwrap());
        });
        assert_eq!(fixture.names(), Vec::<String>::new(), "in the commit: {in_commit}");
        fixture.vfs.release(fh).unwrap();
    }
}

#[test]
fn a_directory_renamed_while_a_file_in_it_is_copied_takes_the_copy_along() {
    for fails in [false, true] {
        let fixture = fixture();
        let (ctx, faults) = (Ctx::daemon(), &fixture.faults);
        let (a, b) = (OsStr::new("a"), OsStr::new("b"));
        let dir = fixture.vfs.mkdir(&ctx, Ino::ROOT, a, 0o755).unwrap().ino;
        let fh = fixture.vfs.create(&ctx, dir, OsStr::new("f"), 0o644, libc::O_WRONLY).unwrap().1.fh;
        fixture.write(fh, 0, b"kept").unwrap();
        fixture.flush(fh).unwrap();
        let gate = faults.append_gate.lock();
        let begun = faults.appends.load(Ordering::SeqCst);
        thread::scope(|scope| {
            let writing = scope.spawn(|| fixture.write(fh, 4, b" on"));
            while faults.appends.load(Ordering::SeqCst) == begun {
                thread::yield_now();
            }
            fixture.vfs.rename(&ctx, Ino::ROOT, a, Ino::ROOT, b, 0).unwrap();
            faults.fail_append.store(fails, Ordering::Relaxed);
            drop(gate);
            assert_eq!(writing.join().unwrap().is_err(), fails);
        });
        assert_eq!(fixture.close(fh).is_err(), fails);
        let at = fixture.dir.path().join("b");
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
        assert_eq!(std::fs::read(at.join("f")).unwrap(), if fails { &b"kept"[..] } else { b"kept on" });
    }
}

#[test]
fn rename_knows_its_flags() {
    let fixture = fixture();
    fixture.file("a", b"a");
    fixture.file("b", b"b");
    let rename = |flags| {
        fixture.vfs.rename(&Ctx::daemon(), Ino::ROOT, OsStr::new("a"), Ino::ROOT, OsStr::new("b"), flags)
    };
    assert_eq!(fault(rename(libc::RENAME_NOREPLACE)), Fault::Exists);
    assert_eq!(fault(rename(libc::RENAME_EXCHANGE)), Fault::InvalidArgument);
    assert_eq!(fault(rename(1 << 20)), Fault::InvalidArgument);
    rename(0).unwrap();
    assert_eq!(fixture.content("b"), b"a");
    assert_eq!(fault(fixture.find("a")), Fault::NotFound);
}

#[test]
fn names_that_cannot_be_stored_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = fixture();
    let make = |name: &OsStr| fixture.vfs.mkdir(&Ctx::daemon(), Ino::ROOT, name, 0o755);
    assert_eq!(fault(make(OsStr::from_bytes(b"\xff"))), Fault::BadName);
    assert_eq!(fault(make(OsStr::new(&"n".repeat(256)))), Fault::NameTooLong);
    let node = fixture.vfs.mknod(&Ctx::daemon(), Ino::ROOT, OsStr::new("p"), libc::S_IFIFO | 0o600);
    assert_eq!(fault(node), Fault::NotPermitted);
    let node = fixture.vfs.mknod(&Ctx::daemon(), Ino::ROOT, OsStr::new("f"), libc::S_IFREG | 0o600).unwrap();
    assert_eq!((node.attr.mode, node.attr.complete), (0o600, true));
}

#[test]
fn a_directory_is_read_in_pieces_from_any_offset() {
    let fixture = fixture();
    for at in 0..600 {
        fixture.vfs.mkdir(&Ctx::daemon(), Ino::ROOT, OsStr::new(&format!("d{at}")), 0o755).unwrap();
    }
    let fh = fixture.vfs.opendir(&Ctx::daemon(), Ino::ROOT).unwrap();
    let mut seen = Vec::new();
    loop {
        let from = seen.last().map_or(0, |(_, next)| *next);
        let before = seen.len();
        fixture
            .vfs
            .readdir(&Ctx::daemon(), Ino::ROOT, fh, from, &mut |item| {
                let room = seen.len() < before + 7;
                if room {
                    seen.push((item.name.to_owned(), item.next));
                }
                room
            })
            .unwrap();
        if seen.len() == before {
            break;
        }
    }
    assert_eq!((seen[0].0.as_str(), seen[1].0.as_str()), (".", ".."));
    assert_eq!(seen.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 602);
    // Once more from the middle: the same entries, which only the kernel knows the attributes of.
    let middle = seen[300].1;
    let mut again = 301;
    fixture
        .vfs
        .readdirplus(&Ctx::daemon(), Ino::ROOT, fh, middle, &mut |plus| {
            assert_eq!((plus.item.name, plus.item.next), (seen[again].0.as_str(), seen[again].1));
            assert!(plus.entry.is_none());
            again += 1;
            true
        })
        .unwrap();
    assert_eq!(again, 602);
    fixture.vfs.releasedir(fh);
    assert_eq!(fixture.vfs.open_handles(), 0);
}

#[test]
fn a_directory_that_was_empty_shows_what_came_when_it_is_read_again() {
    let fixture = fixture();
    let fh = fixture.vfs.opendir(&Ctx::daemon(), Ino::ROOT).unwrap();
    let names = || {
        let mut names = Vec::new();
        let mut take = |item: &DirItem<'_>| {
            names.push(item.name.to_owned());
            true
        };
        fixture.vfs.readdir(&Ctx::daemon(), Ino::ROOT, fh, 0, &mut take).unwrap();
        names
    };
    assert_eq!(names(), [".", ".."]);
    fixture.file("f", b"x");
    assert_eq!(names(), [".", "..", "f"]);
    fixture.vfs.releasedir(fh);
}

#[test]
fn attributes_that_were_listed_before_a_change_are_not_handed_out_after_it() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    fixture.file("f", b"abc");
    let dir = fixture.vfs.mkdir(&ctx, Ino::ROOT, OsStr::new("dir"), 0o755).unwrap().ino;
    let (entry, opened) = fixture.vfs.create(&ctx, dir, OsStr::new("g"), 0o644, libc::O_WRONLY).unwrap();
    fixture.close(opened.fh).unwrap();
    let (g, other) = (entry.ino, fixture.vfs.mkdir(&ctx, Ino::ROOT, OsStr::new("other"), 0o755).unwrap().ino);
    // How many names have attributes when the directory is read after `change`.
    let plus = |change: &dyn Fn()| {
        let fh = fixture.vfs.opendir(&ctx, dir).unwrap();
        change();
        let (mut names, mut with) = (0, 0);
        let mut take = |plus: &PlusItem<'_>| {
            names += 1;
            if let Some(entry) = &plus.entry {
                with += 1;
                fixture.vfs.forget(entry.ino, 1);
            }
            true
        };
        fixture.vfs.readdirplus(&ctx, dir, fh, 2, &mut take).unwrap();
        fixture.vfs.releasedir(fh);
        (names, with)
    };
    assert_eq!(plus(&|| {}), (1, 1));
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    let chmod = || {
        fixture.set(g, &mode(0o600));
    };
    assert_eq!(plus(&chmod), (1, 0));
    assert_eq!(
        plus(&|| fixture.vfs.setxattr(&ctx, g, OsStr::new("user.a"), b"1", XattrMode::Set).unwrap()),
        (1, 0)
    );
    let lengthen = || {
        fixture.vfs.setattr(&ctx, g, None, &SetAttr::default(), Some(5)).unwrap();
    };
    assert_eq!(plus(&lengthen), (1, 0));
    let overwrite = || {
        let fh = fixture.vfs.open(&ctx, g, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
        fixture.write(fh, 0, b"new").unwrap();
        fixture.close(fh).unwrap();
    };
    assert_eq!(plus(&overwrite), (1, 0));
    let (from, to) = (OsStr::new("g"), OsStr::new("h"));
    assert_eq!(plus(&|| fixture.vfs.rename(&ctx, dir, from, other, to, 0).unwrap()).1, 0);
    assert_eq!(plus(&|| fixture.vfs.rename(&ctx, other, to, dir, from, 0).unwrap()).1, 0);
    // What is done elsewhere is no reason to ask for each name.
    let elsewhere = || {
        fixture.file("f2", b"x");
        fixture.vfs.mkdir(&ctx, other, OsStr::new("sub"), 0o755).unwrap();
    };
    assert_eq!(plus(&elsewhere), (1, 1));
    assert_eq!(plus(&|| fixture.vfs.unlink(&ctx, dir, from).unwrap()).1, 0);
}

#[test]
fn an_entry_that_had_no_room_is_not_counted() {
    let fixture = fixture();
    for at in 0..600 {
        fixture.vfs.mkdir(&Ctx::daemon(), Ino::ROOT, OsStr::new(&format!("d{at}")), 0o755).unwrap();
    }
    let fh = fixture.vfs.opendir(&Ctx::daemon(), Ino::ROOT).unwrap();
    let mut counted = Vec::new();
    let mut offset = 2;
    for round in 1..=5 {
        fixture
            .vfs
            .readdirplus(&Ctx::daemon(), Ino::ROOT, fh, offset, &mut |plus| {
                let room = counted.len() < 3 * round;
                if room {
                    counted.push(plus.entry.as_ref().unwrap().ino);
                    offset = plus.item.next;
                }
                room
            })
            .unwrap();
    }
    assert_eq!(counted.len(), 15);
    fixture.vfs.releasedir(fh);
    counted.into_iter().for_each(|ino| fixture.vfs.forget(ino, 1));
    for at in 0..600 {
        let (ino, _) = fixture.find(&format!("d{at}")).unwrap();
        fixture.vfs.forget(ino, 1);
    }
    assert_eq!((fixture.vfs.known_inodes(), fixture.vfs.open_handles()), (1, 0));
}

#[test]
fn the_page_cache_follows_the_options() {
    for (page_cache, first, second, changed) in [
        (PageCache::DirectIo, (true, false), (true, false), (true, false)),
        (PageCache::KernelCache, (false, true), (false, true), (false, true)),
        (PageCache::AutoCache, (false, false), (false, true), (false, false)),
        (PageCache::DropOnOpen, (false, false), (false, false), (false, false)),
    ] {
        let fixture = fixture_with(VfsOptions { page_cache, ..VfsOptions::default() });
        fixture.file("f", b"one");
        let open = |flags| {
            let (_, opened) = fixture.open("f", flags).unwrap();
            (opened.fh, (opened.direct_io, opened.keep_cache))
        };
        assert_eq!(open(libc::O_RDONLY).1, first, "{page_cache:?}");
        assert_eq!(open(libc::O_RDONLY).1, second, "{page_cache:?}");
        let (fh, _) = open(libc::O_WRONLY | libc::O_TRUNC);
        fixture.write(fh, 0, b"longer").unwrap();
        fixture.close(fh).unwrap();
        assert_eq!(open(libc::O_RDONLY).1, changed, "{page_cache:?}");
    }
}

#[test]
fn pages_of_a_version_that_failed_are_not_kept() {
    for page_cache in [PageCache::KernelCache, PageCache::AutoCache] {
        let fixture = fixture_with(VfsOptions { page_cache, ..VfsOptions::default() });
        fixture.file("f", b"old");
        let keeps = || {
            let opened = fixture.open("f", libc::O_RDONLY).unwrap().1;
            fixture.vfs.release(opened.fh).unwrap();
            opened.keep_cache
        };
        keeps();
        assert!(keeps());
        let fh = fixture.open("f", libc::O_WRONLY | libc::O_TRUNC).unwrap().1.fh;
        fixture.write(fh, 0, b"new").unwrap();
        assert_eq!(fault(fixture.write(fh, 1, b"?")), Fault::NotSupported);
        assert!(!keeps(), "{page_cache:?}: while the writer has it open");
        assert_eq!(fault(fixture.close(fh)), Fault::NotSupported);
        assert!(!keeps(), "{page_cache:?}: when the writer has gone");
        assert!(keeps(), "{page_cache:?}: what was read since is right");
    }
}

fn times(atime: i64, mtime: i64) -> SetAttr {
    let time = |secs| Some(Timestamp { secs, nanos: 7 });
    SetAttr { atime: time(atime), mtime: time(mtime), ..SetAttr::default() }
}

impl Fixture {
    fn set(&self, ino: Ino, change: &SetAttr) -> Attr {
        self.vfs.setattr(&Ctx::daemon(), ino, None, change, None).unwrap().0
    }

    /// Seconds of access and of change, as a look-up shows them.
    fn times(&self, name: &str) -> (i64, i64) {
        let attr = self.find(name).unwrap().1;
        (attr.atime.secs, attr.mtime.secs)
    }
}

#[test]
fn times_that_are_set_while_a_file_is_written_are_those_of_the_complete_file() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"x").unwrap();
    let attr = fixture.set(ino, &times(5, 6));
    assert_eq!((attr.atime.secs, attr.mtime.secs, attr.complete), (5, 6, false));
    assert_eq!(fixture.times("f"), (5, 6));
    fixture.vfs.fsync(&Ctx::daemon(), fh, false).unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.times("f"), (5, 6));
    assert_eq!(fixture.find("f").unwrap().1.mtime.nanos, 7);
}

#[test]
fn a_time_of_change_that_is_set_before_a_write_is_void() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.set(ino, &times(5, 6));
    fixture.write(fh, 0, b"x").unwrap();
    let now = Timestamp::now().secs - 2;
    assert!(fixture.vfs.getattr(&Ctx::daemon(), ino, None).unwrap().0.mtime.secs >= now);
    fixture.close(fh).unwrap();
    let (atime, mtime) = fixture.times("f");
    assert!(atime == 5 && mtime >= now, "{atime} {mtime}");
}

#[test]
fn a_time_that_is_now_is_no_other_than_that_of_the_write() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.set(ino, &times(5, 6));
    let now = Timestamp::now();
    let touch = SetAttr { atime: Some(now), mtime: Some(now), now: true, ..SetAttr::default() };
    fixture.set(ino, &touch);
    fixture.close(fh).unwrap();
    assert!(fixture.times("f").1 >= now.secs);
}

#[test]
fn times_follow_a_file_that_is_renamed_while_it_is_completed() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.write(fh, 0, b"x").unwrap();
    fixture.set(ino, &times(5, 6));
    let gate = fixture.faults.commit_gate.lock();
    thread::scope(|scope| {
        let closing = scope.spawn(|| fixture.close(fh));
        let (from, to) = (OsStr::new("f"), OsStr::new("g"));
        fixture.vfs.rename(&Ctx::daemon(), Ino::ROOT, from, Ino::ROOT, to, 0).unwrap();
        // Also what is set at this late hour.
        fixture.set(ino, &times(8, 9));
        drop(gate);
        closing.join().unwrap().unwrap();
    });
    assert_eq!(fixture.times("g"), (8, 9));
}

#[test]
fn a_file_that_was_empty_is_changed_by_who_empties_it() {
    let fixture = fixture();
    let ino = fixture.file("f", b"");
    fixture.set(ino, &times(5, 6));
    let fh = fixture.open("f", libc::O_WRONLY).unwrap().1.fh;
    fixture.close(fh).unwrap();
    assert_eq!(fixture.times("f"), (5, 6), "just opened");
    let fh = fixture.open("f", libc::O_WRONLY | libc::O_TRUNC).unwrap().1.fh;
    let (atime, mtime) = fixture.times("f");
    assert!(atime == 5 && mtime > 6, "{atime} {mtime}");
    fixture.close(fh).unwrap();
    assert_eq!(fixture.times("f"), (atime, mtime));
}

#[test]
fn a_mode_that_is_set_while_a_file_is_written_stays() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    let mode = SetAttr { mode: Some(0o4750), ..SetAttr::default() };
    assert_eq!(fixture.set(ino, &mode).mode, 0o4750);
    fixture.write(fh, 0, b"x").unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.find("f").unwrap().1.mode, 0o4750);
    // Somebody else than the superuser empties it, and writes another content.
    let cancel = Cancel::new();
    let other = Ctx::new(1000, 1000, 1, &cancel);
    let fh = fixture.vfs.open(&other, ino, libc::O_WRONLY | libc::O_TRUNC).unwrap().fh;
    assert_eq!(fixture.find("f").unwrap().1.mode, 0o750);
    assert_eq!(fixture.set(ino, &mode).mode, 0o4750);
    fixture.vfs.write(&other, fh, 0, Payload::Lent(b"y")).unwrap();
    fixture.close(fh).unwrap();
    assert_eq!(fixture.find("f").unwrap().1.mode, 0o750);
}

#[test]
fn attributes_of_a_removed_file_are_for_those_who_have_it_open() {
    let fixture = fixture();
    let (ino, fh) = fixture.create("f");
    fixture.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new("f")).unwrap();
    let change = SetAttr { mode: Some(0o600), ..times(5, 6) };
    let attr = fixture.set(ino, &change);
    assert_eq!((attr.mode, attr.mtime.secs), (0o600, 6));
    assert_eq!(fault(fixture.vfs.getxattr(&Ctx::daemon(), ino, OsStr::new("user.a"))), Fault::Stale);
    // The kernel asks for this one at each write: the answer needs neither the file nor the backend.
    let capability = fixture.vfs.getxattr(&Ctx::daemon(), ino, OsStr::new("security.capability"));
    assert_eq!(fault(capability), Fault::NotSupported);
    fixture.close(fh).unwrap();
}

#[test]
fn extended_attributes_belong_to_the_inode_wherever_it_is() {
    let fixture = fixture();
    let ctx = Ctx::daemon();
    let ino = fixture.file("f", b"x");
    let name = OsStr::new("user.a");
    let set = |value, mode| fixture.vfs.setxattr(&ctx, ino, name, value, mode);
    assert_eq!(fault(set(b"1", XattrMode::Replace)), Fault::NoData);
    set(b"1", XattrMode::Create).unwrap();
    assert_eq!(fault(set(b"2", XattrMode::Create)), Fault::Exists);
    assert_eq!(fault(set(&[0; (64 << 10) + 1], XattrMode::Set)), Fault::ValueTooLarge);
    fixture.vfs.rename(&ctx, Ino::ROOT, OsStr::new("f"), Ino::ROOT, OsStr::new("g"), 0).unwrap();
    assert_eq!(&fixture.vfs.getxattr(&ctx, ino, name).unwrap()[..], b"1");
    assert_eq!(fixture.vfs.listxattr(&ctx, ino).unwrap(), ["user.a"]);
    fixture.vfs.removexattr(&ctx, ino, name).unwrap();
    assert_eq!(fault(fixture.vfs.getxattr(&ctx, ino, name)), Fault::NoData);
    assert_eq!(fault(fixture.vfs.removexattr(&ctx, ino, name)), Fault::NoData);
}

/// What a slow backend takes for one piece.
const SLOW_APPEND: Duration = Duration::from_millis(100);

/// The embedded store with failures at will.
struct Faults {
    inner: LocalFs,
    fail_append: Arc<AtomicBool>,
    slow_append: Arc<AtomicBool>,
    fail_commit: Arc<AtomicBool>,
    panic_append: Arc<AtomicBool>,
    append_gate: Arc<parking_lot::Mutex<()>>,
    commit_gate: Arc<parking_lot::Mutex<()>>,
    create_gate: parking_lot::Mutex<()>,
    replace_gate: parking_lot::Mutex<()>,
    /// What is opened now seems to have no bytes.
    reads_end: AtomicBool,
    /// How often each was begun.
    appends: Arc<AtomicUsize>,
    commits: Arc<AtomicUsize>,
    creates: AtomicUsize,
    replaces: AtomicUsize,
    set_attrs: AtomicUsize,
    /// How many hold the name of a file that is being written.
    held: Arc<AtomicUsize>,
    /// What was done to names, and how many held one meanwhile.
    changes: parking_lot::Mutex<Vec<(&'static str, usize)>>,
}

impl Faults {
    fn note(&self, change: &'static str) {
        self.changes.lock().push((change, self.held.load(Ordering::SeqCst)));
    }

    fn new(root: &std::path::Path) -> Self {
        Self {
            inner: LocalFs::open(root).unwrap(),
            fail_append: Arc::default(),
            slow_append: Arc::default(),
            fail_commit: Arc::default(),
            panic_append: Arc::default(),
            append_gate: Arc::default(),
            commit_gate: Arc::default(),
            appends: Arc::default(),
            commits: Arc::default(),
            create_gate: parking_lot::Mutex::default(),
            replace_gate: parking_lot::Mutex::default(),
            reads_end: AtomicBool::new(false),
            creates: AtomicUsize::new(0),
            replaces: AtomicUsize::new(0),
            set_attrs: AtomicUsize::new(0),
            held: Arc::default(),
            changes: parking_lot::Mutex::default(),
        }
    }
}

struct Name(Arc<AtomicUsize>);

impl Naming for Name {
    fn hold(&self, _ctx: &Ctx) -> Result<Box<dyn Send>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(HeldName(Arc::clone(&self.0))))
    }
}

struct HeldName(Arc<AtomicUsize>);

impl Drop for HeldName {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct FaultyWriter {
    inner: Box<dyn FileWriter>,
    fail_append: Arc<AtomicBool>,
    slow_append: Arc<AtomicBool>,
    fail_commit: Arc<AtomicBool>,
    panic_append: Arc<AtomicBool>,
    append_gate: Arc<parking_lot::Mutex<()>>,
    commit_gate: Arc<parking_lot::Mutex<()>>,
    appends: Arc<AtomicUsize>,
    commits: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
}

impl FileWriter for FaultyWriter {
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        drop(self.append_gate.lock());
        assert!(!self.panic_append.load(Ordering::Relaxed), "as asked for");
        if self.fail_append.load(Ordering::Relaxed) {
            return Err(Fault::NoSpace.into());
        }
        if self.slow_append.load(Ordering::Relaxed) {
            thread::sleep(SLOW_APPEND);
        }
        self.inner.append(ctx, data)
    }

    fn sync(&mut self, ctx: &Ctx) -> Result<()> {
        self.inner.sync(ctx)
    }

    fn commit(&mut self, ctx: &Ctx) -> Result<Attr> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        drop(self.commit_gate.lock());
        if self.fail_commit.load(Ordering::Relaxed) {
            return Err(Fault::Io.into());
        }
        self.inner.commit(ctx)
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        Some(Arc::new(Name(Arc::clone(&self.held))))
    }

    fn can_move(&self) -> bool {
        self.inner.can_move()
    }

    fn renamed(&mut self, to: &FsPath) {
        self.inner.renamed(to);
    }
}

struct AtEnd(Arc<dyn FileReader>);

impl FileReader for AtEnd {
    fn attr(&self) -> &Attr {
        self.0.attr()
    }

    fn read_at(&self, _ctx: &Ctx, _offset: u64, _len: usize) -> Result<Slices> {
        Ok(Slices::new())
    }
}

impl Layer for Faults {
    fn below(&self) -> &dyn FileSystem {
        &self.inner
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let reader = self.inner.open(ctx, path)?;
        Ok(if self.reads_end.load(Ordering::Relaxed) { Arc::new(AtEnd(reader)) } else { reader })
    }

    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        self.replaces.fetch_add(1, Ordering::SeqCst);
        drop(self.replace_gate.lock());
        self.inner.replace(ctx, new, old)
    }

    fn rename(&self, ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()> {
        self.note("rename");
        self.inner.rename(ctx, from, to, mode)
    }

    fn remove_seen_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.note("remove");
        self.inner.remove_seen_file(ctx, path)
    }

    fn set_attr(&self, ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        self.set_attrs.fetch_add(1, Ordering::SeqCst);
        self.inner.set_attr(ctx, path, change)
    }

    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        self.creates.fetch_add(1, Ordering::SeqCst);
        self.note("create");
        drop(self.create_gate.lock());
        let (attr, inner) = self.inner.create(ctx, path, options)?;
        let writer = FaultyWriter {
            inner,
            fail_append: Arc::clone(&self.fail_append),
            slow_append: Arc::clone(&self.slow_append),
            fail_commit: Arc::clone(&self.fail_commit),
            panic_append: Arc::clone(&self.panic_append),
            append_gate: Arc::clone(&self.append_gate),
            commit_gate: Arc::clone(&self.commit_gate),
            appends: Arc::clone(&self.appends),
            commits: Arc::clone(&self.commits),
            held: Arc::clone(&self.held),
        };
        Ok((attr, Box::new(writer)))
    }
}
