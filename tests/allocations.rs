//! A read that finds its bytes here allocates nothing on its way through handles, blocks and windows, and copies nothing;
//! nor does all that is ours of a READ, from libfuse's decoding to the reply.
//!
//! Counts what the reading thread allocates by Rust's allocator, which does not depend on the machine; libfuse has two
//! allocations of its own for a READ (`benches/pieces`). Needs a cluster.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

#[path = "common/probed.rs"]
mod probed;

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::ReadRequest;
use alluxio_fuse::vfs::Fh;
use alluxio_fuse::vfs::Ino;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;

use probed::Probed;

const MIB: u64 = 1 << 20;
const PIECE: u64 = 128 << 10;

/// The system's allocator, which counts.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on as it is; the count is a number of this thread that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The file goes with its guard.
struct Opened {
    vfs: Arc<Vfs>,
    ino: Ino,
    name: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new(&self.name));
    }
}

/// A file of `size` bytes in blocks of 4 MiB, behind a `Vfs`, with the handles of two that have it open.
fn opened(name: &str, size: u64, short_circuit: bool) -> (Opened, [Fh; 2]) {
    let master = std::env::var("ALLUXIO_TEST_MASTER").expect("ALLUXIO_TEST_MASTER=host:port names a cluster");
    let paths =
        PathOptions { block_size: 4 * MIB, write_type: WriteType::MustCache, ..PathOptions::default() };
    let masters = vec![master.parse().unwrap()];
    let options = AlluxioOptions { masters, paths: paths.into(), short_circuit, ..AlluxioOptions::default() };
    let fs = AlluxioFs::connect(options).unwrap();
    let name = format!("allocations-{name}-{}", std::process::id());
    let path = FsPath::parse(&format!("/{name}")).unwrap();
    let ctx = Ctx::daemon();
    let (_, mut writer) =
        fs.create(&ctx, &path, &CreateOptions { mode: 0o644, replace: false, beside: false }).unwrap();
    for _ in 0..size / MIB {
        writer.append(&ctx, &[7; MIB as usize]).unwrap();
    }
    writer.commit(&ctx).unwrap();
    let vfs = Arc::new(Vfs::new(Arc::new(fs), VfsOptions::default()));
    let entry = vfs.lookup(&ctx, Ino::ROOT, OsStr::new(&name)).unwrap();
    let handles = [0, 1].map(|_| vfs.open(&ctx, entry.ino, libc::O_RDONLY).unwrap().fh);
    (Opened { vfs, ino: entry.ino, name }, handles)
}

/// Reads all of the file in order, and returns how often that allocated.
fn allocations(vfs: &Vfs, fh: Fh, size: u64) -> u64 {
    let ctx = Ctx::daemon();
    let before = COUNT.get();
    for offset in (0..size).step_by(PIECE as usize) {
        // Some across a block's border.
        let offset = if offset > 0 { offset - 4096 } else { 0 };
        assert_eq!(vfs.read(&ctx, fh, offset, PIECE as usize).unwrap().len() as u64, PIECE);
    }
    COUNT.get() - before
}

#[test]
fn a_read_of_mapped_blocks_allocates_nothing() {
    let size = 16 * MIB;
    let (file, [one, other]) = opened("mapped", size, true);
    assert!(allocations(&file.vfs, one, size) > 0, "nothing is counted: the blocks had to be mapped");
    assert_eq!(allocations(&file.vfs, one, size), 0);
    assert_eq!(allocations(&file.vfs, other, size), 0, "by another handle");
}

#[test]
fn a_read_of_what_was_fetched_already_allocates_nothing() {
    let size = 16 * MIB;
    let (file, [one, other]) = opened("fetched", size, false);
    assert!(allocations(&file.vfs, one, size) > 0, "nothing is counted: the bytes had to be fetched");
    assert_eq!(allocations(&file.vfs, other, size), 0, "by who is behind");
}

#[test]
fn a_request_that_finds_its_bytes_allocates_nothing_of_ours_from_its_decoding_to_its_reply() {
    let size = 16 * MIB;
    for library in [LibraryChoice::Only2, LibraryChoice::Only3] {
        for (name, short_circuit) in [("mapped", true), ("fetched", false)] {
            let (file, [one, other]) = opened(&format!("request-{name}-{library:?}"), size, short_circuit);
            let mount = Probed::new(library, &file.vfs);
            assert!(
                allocations_served(&mount, &file, one, size) > 0,
                "nothing is counted: the bytes had to be brought"
            );
            assert_eq!(allocations_served(&mount, &file, other, size), 0, "{name}, {library:?}");
        }
    }
}

/// Has READs of all of the file served on this thread, and returns how often that allocated.
fn allocations_served(mount: &Probed, file: &Opened, fh: Fh, size: u64) -> u64 {
    let request = |offset| ReadRequest::new(1 << 40, file.ino.0, fh.0, offset, PIECE as u32);
    let mut requests: Vec<_> = (0..size).step_by(PIECE as usize).map(request).collect();
    let replies = tempfile::tempfile().unwrap();
    let before = COUNT.get();
    mount.probe.serve(&mut requests, replies.as_fd()).unwrap();
    let count = COUNT.get() - before;
    assert_answered(&replies, requests.len() as u64);
    count
}

/// That `replies` are as many, with the bytes of the file each.
fn assert_answered(replies: &File, count: u64) {
    const HEADER: u64 = 16;
    assert_eq!(replies.metadata().unwrap().len(), count * (HEADER + PIECE));
    let mut reply = vec![0; (HEADER + PIECE) as usize];
    for n in 0..count {
        replies.read_exact_at(&mut reply, n * (HEADER + PIECE)).unwrap();
        assert_eq!(reply[..4], (HEADER as u32 + PIECE as u32).to_ne_bytes(), "the length");
        assert_eq!(reply[4..8], [0; 4], "the error");
        assert!(reply[HEADER as usize..].iter().all(|byte| *byte == 7), "reply {n}");
    }
}
