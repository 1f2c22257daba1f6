//! Bytes written to a real Alluxio come back the same, by every way in and out, and cost what they should.
//!
//! Needs a cluster with its workers on this host: `ALLUXIO_TEST_MASTER=host:port`.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code of its own")]

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::ReadType;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::fs::Cancel;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::fs::FileReader;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::fs::RenameMode;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const NEW: CreateOptions = CreateOptions { mode: 0o644, replace: false, beside: false };

/// A directory of its own in the cluster, removed at the end.
struct Place {
    dir: FsPath,
}

impl Place {
    fn new(name: &str) -> Self {
        let root = connect(AlluxioOptions::default());
        let dir = FsPath::parse(&format!("/data-test-{name}-{}", std::process::id())).unwrap();
        root.make_dir(&Ctx::daemon(), &dir, 0o755).expect("the test directory can be made");
        Self { dir }
    }

    /// The directory as a file system.
    fn fs(&self, options: AlluxioOptions) -> AlluxioFs {
        connect(AlluxioOptions { root: self.dir.clone(), ..options })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (root, ctx) = (connect(AlluxioOptions::default()), Ctx::daemon());
        let mut names = Vec::new();
        if let Ok(mut listing) = root.list(&ctx, &self.dir) {
            while let Ok(batch) = listing.next_batch(&ctx)
                && !batch.is_empty()
            {
                names.extend(batch.into_iter().map(|entry| entry.name));
            }
        }
        for name in names {
            let _ = root.remove_file(&ctx, &self.dir.join(&name).expect("it came from a listing"));
        }
        let _ = root.remove_dir(&ctx, &self.dir);
    }
}

fn connect(options: AlluxioOptions) -> AlluxioFs {
    let master = std::env::var("ALLUXIO_TEST_MASTER")
        .expect("ALLUXIO_TEST_MASTER=host:port must name the master of a test cluster");
    let masters = vec![master.parse().expect("ALLUXIO_TEST_MASTER is host:port")];
    AlluxioFs::connect(AlluxioOptions { masters, ..options }).expect("the test cluster answers")
}

fn small_blocks(write_type: WriteType, short_circuit: bool) -> AlluxioOptions {
    in_blocks(MIB, write_type, ReadType::Cache, AlluxioOptions { short_circuit, ..AlluxioOptions::default() })
}

/// `options` for files in blocks of `block_size` bytes.
fn in_blocks(
    block_size: u64,
    write_type: WriteType,
    read_type: ReadType,
    options: AlluxioOptions,
) -> AlluxioOptions {
    let paths = PathOptions { block_size, write_type, read_type, ..PathOptions::default() };
    AlluxioOptions { writer_chunk: 256 * KIB, paths: paths.into(), ..options }
}

fn path(name: &str) -> FsPath {
    FsPath::root().join(name).unwrap()
}

/// Bytes that differ from one offset to the next, and from one seed to another.
fn content(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len as usize + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len as usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

fn write(fs: &AlluxioFs, path: &FsPath, bytes: &[u8], piece: usize) {
    let ctx = Ctx::daemon();
    let (attr, mut writer) = fs.create(&ctx, path, &NEW).unwrap();
    assert!(!attr.complete);
    for piece in bytes.chunks(piece.max(1)) {
        writer.append(&ctx, piece).unwrap();
    }
    let attr = writer.commit(&ctx).unwrap();
    assert!(attr.complete);
    assert_eq!(attr.size, bytes.len() as u64);
}

fn read(reader: &dyn FileReader, piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let slices = reader.read_at(&Ctx::daemon(), bytes.len() as u64, piece).unwrap();
        if slices.is_empty() {
            return bytes;
        }
        bytes.extend_from_slice(&slices.copied().unwrap());
    }
}

#[track_caller]
fn assert_same(got: &[u8], wanted: &[u8], what: &str) {
    assert_eq!(got.len(), wanted.len(), "length of {what}");
    let differs = got.iter().zip(wanted).position(|(one, other)| one != other);
    assert_eq!(differs, None, "first difference in {what}");
}

/// Sizes around the borders of chunks and blocks.
fn sizes() -> Vec<u64> {
    let chunk = 256 * KIB;
    vec![0, 1, 4095, chunk - 1, chunk, chunk + 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 12_345]
}

#[test]
fn what_is_written_comes_back_for_every_write_type_and_way() {
    let place = Place::new("types");
    for write_type in
        [WriteType::MustCache, WriteType::CacheThrough, WriteType::Through, WriteType::AsyncThrough]
    {
        for (index, local_write) in [true, false].into_iter().enumerate() {
            let writing = place.fs(small_blocks(write_type, local_write));
            let by_map = place.fs(small_blocks(write_type, true));
            let by_stream = place.fs(small_blocks(write_type, false));
            for size in sizes() {
                let name = path(&format!("{write_type:?}-{local_write}-{size}"));
                let bytes = content(size + index as u64, size);
                write(&writing, &name, &bytes, 100_000);
                assert_eq!(writing.stat(&Ctx::daemon(), &name).unwrap().size, size);
                for (fs, way) in [(&by_map, "map"), (&by_stream, "stream")] {
                    let reader = fs.open(&Ctx::daemon(), &name).unwrap();
                    assert_eq!(reader.attr().size, size);
                    assert_same(&read(&*reader, 77_777), &bytes, &format!("{name} by {way}"));
                }
            }
            assert_eq!(by_stream.traffic().mapped, 0);
            assert_eq!(by_map.traffic().mapped > 0, write_type != WriteType::Through);
            let sent = writing.traffic().sent;
            assert_eq!(
                sent == 0,
                local_write && matches!(write_type, WriteType::MustCache | WriteType::AsyncThrough)
            );
        }
    }
}

#[test]
fn other_clients_see_a_file_only_when_it_is_complete() {
    let place = Place::new("busy");
    let (one, other) = (place.fs(AlluxioOptions::default()), place.fs(AlluxioOptions::default()));
    let ctx = Ctx::daemon();
    let name = path("f");
    let (_, mut writer) = one.create(&ctx, &name, &NEW).unwrap();
    writer.append(&ctx, b"abc").unwrap();
    assert_eq!(other.open(&ctx, &name).err().unwrap().fault(), Fault::Busy);
    writer.commit(&ctx).unwrap();
    assert_eq!(other.open(&ctx, &name).unwrap().read_at(&ctx, 1, 10).unwrap().copied().unwrap(), b"bc");
    assert_eq!(one.create(&ctx, &name, &NEW).err().unwrap().fault(), Fault::Exists);
    assert_eq!(one.open(&ctx, &FsPath::root()).err().unwrap().fault(), Fault::IsDirectory);
}

#[test]
fn a_file_is_replaced_by_a_new_one() {
    let place = Place::new("replace");
    let fs = place.fs(small_blocks(WriteType::MustCache, true));
    let ctx = Ctx::daemon();
    let name = path("f");
    write(&fs, &name, &content(1, 2 * MIB), 4096);
    let before = fs.stat(&ctx, &name).unwrap().id;
    let (_, mut writer) =
        fs.create(&ctx, &name, &CreateOptions { mode: 0o600, replace: true, beside: false }).unwrap();
    writer.append(&ctx, b"new").unwrap();
    writer.commit(&ctx).unwrap();
    let after = fs.stat(&ctx, &name).unwrap();
    assert_ne!(after.id, before);
    assert_eq!(after.mode, 0o600);
    assert_eq!(read(&*fs.open(&ctx, &name).unwrap(), 4096), b"new");
}

/// Waits until `path` is gone.
#[track_caller]
fn assert_goes(fs: &AlluxioFs, path: &FsPath) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs.stat(&Ctx::daemon(), path).is_ok() {
        assert!(Instant::now() < deadline, "{path} is still there");
        thread::yield_now();
    }
}

#[test]
fn a_file_given_up_is_never_complete_and_goes() {
    let place = Place::new("abandon");
    let ctx = Ctx::daemon();
    for write_type in
        [WriteType::MustCache, WriteType::CacheThrough, WriteType::Through, WriteType::AsyncThrough]
    {
        for short_circuit in [true, false] {
            let fs = place.fs(small_blocks(write_type, short_circuit));
            for size in [0, 1000, 300 * KIB, 2 * MIB + 5] {
                let name = path(&format!("{write_type:?}-{short_circuit}-{size}"));
                let (_, mut writer) = fs.create(&ctx, &name, &NEW).unwrap();
                writer.append(&ctx, &content(3, size)).unwrap();
                if size > MIB {
                    writer.sync(&ctx).unwrap();
                }
                assert!(!fs.stat(&ctx, &name).unwrap().complete);
                drop(writer);
                assert_goes(&fs, &name);
            }
        }
    }
}

#[test]
fn a_panicking_writer_leaves_nothing() {
    let place = Place::new("panic");
    let fs = place.fs(small_blocks(WriteType::MustCache, false));
    let name = path("f");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (_, mut writer) = fs.create(&Ctx::daemon(), &name, &NEW).unwrap();
        writer.append(&Ctx::daemon(), &content(3, 2 * MIB)).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(caught.is_err());
    assert_goes(&fs, &name);
}

#[test]
fn a_file_given_up_does_not_take_its_successor_along() {
    let place = Place::new("successor");
    let fs = place.fs(small_blocks(WriteType::MustCache, false));
    let ctx = Ctx::daemon();
    let name = path("f");
    let (_, mut first) = fs.create(&ctx, &name, &NEW).unwrap();
    first.append(&ctx, b"lost").unwrap();
    fs.remove_file(&ctx, &name).unwrap();
    write(&fs, &name, b"kept", 10);
    drop(first);
    // The job of the first one asks the master before it removes anything; give it every chance to be wrong.
    let witness = path("witness");
    let (_, second) = fs.create(&ctx, &witness, &NEW).unwrap();
    drop(second);
    assert_goes(&fs, &witness);
    assert_eq!(read(&*fs.open(&ctx, &name).unwrap(), 10), b"kept");
}

#[test]
fn a_file_is_written_on_under_its_new_name() {
    let place = Place::new("rename");
    for write_type in [WriteType::MustCache, WriteType::CacheThrough] {
        let fs = place.fs(small_blocks(write_type, false));
        let ctx = Ctx::daemon();
        let (old, new) = (path("old"), path(&format!("new-{write_type:?}")));
        let bytes = content(5, 3 * MIB + 1);
        let (_, mut writer) = fs.create(&ctx, &old, &NEW).unwrap();
        writer.append(&ctx, &bytes[..500_000]).unwrap();
        writer.sync(&ctx).unwrap();
        fs.rename(&ctx, &old, &new, RenameMode::Replace).unwrap();
        // The data overtakes the word of the rename.
        writer.append(&ctx, &bytes[500_000..2_500_000]).unwrap();
        writer.renamed(&new);
        writer.append(&ctx, &bytes[2_500_000..]).unwrap();
        writer.commit(&ctx).unwrap();
        assert_same(&read(&*fs.open(&ctx, &new).unwrap(), 100_000), &bytes, "the renamed file");
        assert_eq!(fs.stat(&ctx, &old).unwrap_err().fault(), Fault::NotFound);
    }
}

#[test]
fn synced_data_is_at_the_worker() {
    let place = Place::new("sync");
    for write_type in [WriteType::MustCache, WriteType::Through] {
        for short_circuit in [true, false] {
            let fs = place.fs(small_blocks(write_type, short_circuit));
            let ctx = Ctx::daemon();
            let name = path(&format!("{write_type:?}-{short_circuit}"));
            let bytes = content(6, 2 * MIB + 700);
            let (_, mut writer) = fs.create(&ctx, &name, &NEW).unwrap();
            writer.sync(&ctx).unwrap();
            for piece in bytes.chunks(300_000) {
                writer.append(&ctx, piece).unwrap();
                writer.sync(&ctx).unwrap();
            }
            writer.commit(&ctx).unwrap();
            assert_same(&read(&*fs.open(&ctx, &name).unwrap(), 100_000), &bytes, "the synced file");
        }
    }
}

#[test]
fn a_long_file_is_whole_whichever_way_its_pieces_go() {
    let place = Place::new("long");
    for (write_type, short_circuit) in [(WriteType::MustCache, true), (WriteType::CacheThrough, false)] {
        let options = AlluxioOptions { short_circuit, ..AlluxioOptions::default() };
        let fs = place.fs(in_blocks(10 * MIB, write_type, ReadType::Cache, options));
        let ctx = Ctx::daemon();
        let bytes = Bytes::from(content(8, 33 * MIB + 77));
        let name = path(&format!("{write_type:?}"));
        let (_, mut writer) = fs.create(&ctx, &name, &NEW).unwrap();
        let (mut at, mut pieces) = (0, 0_usize);
        while at < bytes.len() {
            // From a byte to more than the 256 KiB of a chunk, some of them just up to the end of a block.
            let wanted = [1, 4096, 65_537, 131_072, 700_001][pieces % 5];
            let to_border = 10 * MIB as usize - at % (10 * MIB as usize);
            let piece =
                wanted.min(bytes.len() - at).min(if pieces % 2 == 0 { to_border } else { usize::MAX });
            // Large pieces go as they lie, small ones are gathered before.
            match bytes.slice(at..at + piece) {
                large if piece > 100_000 => writer.append_given(&ctx, large).unwrap(),
                small => writer.append(&ctx, &small).unwrap(),
            }
            at += piece;
            pieces += 1;
            if pieces % 50 == 0 {
                writer.sync(&ctx).unwrap();
            }
        }
        assert_eq!(writer.commit(&ctx).unwrap().size, bytes.len() as u64);
        let other = place.fs(small_blocks(write_type, false));
        assert_same(&read(&*other.open(&ctx, &name).unwrap(), MIB as usize), &bytes, "the long file");
    }
}

/// A file of `len` bytes in blocks of 4 MiB, and a file system that reads it through the worker.
fn by_stream(place: &Place, len: u64) -> (AlluxioFs, FsPath, Vec<u8>) {
    let options = AlluxioOptions { short_circuit: false, ..AlluxioOptions::default() };
    let options = in_blocks(4 * MIB, WriteType::MustCache, ReadType::Cache, options);
    let fs = place.fs(options);
    let (name, bytes) = (path("big"), content(9, len));
    write(&fs, &name, &bytes, MIB as usize);
    (fs, name, bytes)
}

#[test]
fn a_sequential_read_fetches_each_byte_once() {
    let place = Place::new("sequential");
    let len = 50 * MIB + 4321;
    let (fs, name, bytes) = by_stream(&place, len);
    for piece in [4 * KIB, 128 * KIB, MIB] {
        let before = fs.traffic();
        let reader = fs.open(&Ctx::daemon(), &name).unwrap();
        assert_same(&read(&*reader, piece as usize), &bytes, "the file");
        let fetched = fs.traffic().received - before.received;
        assert!(fetched <= len * 105 / 100, "{fetched} bytes for {len} in pieces of {piece}");
    }
}

#[test]
fn read_ahead_out_of_order_fetches_each_byte_once() {
    // As the kernel does it: requests of 128 KiB, several at a time, answered by several threads.
    let place = Place::new("reordered");
    let len = 48 * MIB;
    let (fs, name, bytes) = by_stream(&place, len);
    let before = fs.traffic().received;
    let reader = fs.open(&Ctx::daemon(), &name).unwrap();
    let (next, piece) = (AtomicU64::new(0), 128 * KIB);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let offset = next.fetch_add(1, Ordering::Relaxed) * piece;
                    if offset >= len {
                        return;
                    }
                    let got =
                        reader.read_at(&Ctx::daemon(), offset, piece as usize).unwrap().copied().unwrap();
                    let end = (offset + piece).min(len);
                    assert_same(&got, &bytes[offset as usize..end as usize], "a piece");
                }
            });
        }
    });
    let fetched = fs.traffic().received - before;
    assert!(fetched <= len * 105 / 100, "{fetched} bytes for {len}");
}

#[test]
fn readers_on_handles_of_their_own_share_what_is_fetched() {
    let place = Place::new("sixteen");
    let len = 40 * MIB + 99;
    let (fs, name, bytes) = by_stream(&place, len);
    let before = fs.traffic().received;
    let together = Barrier::new(16);
    thread::scope(|scope| {
        for piece in [30_000, 128 << 10, 500_000, 1 << 20].repeat(4) {
            let (fs, name, bytes, together) = (&fs, &name, &bytes, &together);
            scope.spawn(move || {
                let reader = fs.open(&Ctx::daemon(), name).unwrap();
                together.wait();
                assert_same(&read(&*reader, piece), bytes, "the file");
            });
        }
    });
    let fetched = fs.traffic().received - before;
    assert!(fetched <= len * 105 / 100, "{fetched} bytes for {len}");
}

#[test]
fn a_handle_that_is_closed_or_interrupted_takes_nothing_from_another() {
    let place = Place::new("closed");
    let len = 24 * MIB;
    let (fs, name, bytes) = by_stream(&place, len);
    let (one, other) = (fs.open(&Ctx::daemon(), &name).unwrap(), fs.open(&Ctx::daemon(), &name).unwrap());
    let cancel = Cancel::new();
    let interrupted = Ctx::new(0, 0, 0, &cancel);
    let before = fs.traffic().received;
    for offset in (0..8 * MIB).step_by(128 << 10) {
        one.read_at(&interrupted, offset, 128 << 10).unwrap();
    }
    cancel.cancel();
    assert_eq!(one.read_at(&interrupted, 8 * MIB, 1).unwrap_err().fault(), Fault::Interrupted);
    drop(one);
    assert_same(&read(&*other, 128 << 10), &bytes, "the file");
    let fetched = fs.traffic().received - before;
    assert!(fetched <= len * 105 / 100, "{fetched} bytes for {len}");
}

#[test]
fn handles_of_one_file_map_each_block_once_and_those_of_another_version_their_own() {
    let place = Place::new("mapped");
    let len = 5 * MIB + 5;
    let fs = place.fs(small_blocks(WriteType::MustCache, true));
    let (old, new) = (content(1, len), content(2, len));
    write(&fs, &path("file"), &old, 100_000);
    let first: Vec<_> = (0..8).map(|_| fs.open(&Ctx::daemon(), &path("file")).unwrap()).collect();
    for reader in &first {
        assert_same(&read(&**reader, 300_000), &old, "the first version");
    }
    assert_eq!(fs.traffic().mapped, 6);
    fs.remove_file(&Ctx::daemon(), &path("file")).unwrap();
    write(&fs, &path("file"), &new, 100_000);
    let second = fs.open(&Ctx::daemon(), &path("file")).unwrap();
    assert_same(&read(&*second, 300_000), &new, "the second version");
    assert_eq!(fs.traffic().mapped, 12);
    assert_same(&read(&*first[7], 300_000), &old, "the first version");
}

#[test]
fn a_random_read_fetches_only_its_range() {
    let place = Place::new("random");
    let len = 40 * MIB;
    let (fs, name, bytes) = by_stream(&place, len);
    let before = fs.traffic();
    let reader = fs.open(&Ctx::daemon(), &name).unwrap();
    let count = 200;
    for turn in 0..count {
        // Every second page, so that no two of them touch.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(turn);
        let offset = hasher.finish() % (len / (8 * KIB)) * 8 * KIB;
        let got = reader.read_at(&Ctx::daemon(), offset, 4096).unwrap().copied().unwrap();
        assert_same(&got, &bytes[offset as usize..offset as usize + 4096], "a page");
    }
    let after = fs.traffic();
    assert_eq!(after.received - before.received, count * 4096);
    assert_eq!(after.streams - before.streams, count);
}

#[test]
fn sixteen_threads_read_the_right_bytes_at_random() {
    let place = Place::new("threads");
    let len = 17 * MIB + 17;
    let (fs, name, bytes) = by_stream(&place, len);
    let mapping = place.fs(AlluxioOptions::default());
    for fs in [&fs, &mapping] {
        let reader = fs.open(&Ctx::daemon(), &name).unwrap();
        thread::scope(|scope| {
            for thread in 0..16_u64 {
                let (reader, bytes) = (Arc::clone(&reader), &bytes);
                scope.spawn(move || {
                    for turn in 0..30_u64 {
                        let mut hasher = DefaultHasher::new();
                        hasher.write_u64(thread * 1000 + turn);
                        let random = hasher.finish();
                        let (offset, want) = (random % (len + 1000), (random >> 40) as usize % 300_000);
                        let got = reader.read_at(&Ctx::daemon(), offset, want).unwrap().copied().unwrap();
                        let start = offset.min(len) as usize;
                        let end = (start + want).min(len as usize);
                        assert_same(&got, &bytes[start..end], &format!("{want} bytes at {offset}"));
                    }
                });
            }
        });
    }
}

#[test]
fn what_only_the_under_file_system_has_is_read_and_cached() {
    let place = Place::new("ufs");
    let len = 2 * MIB + 100;
    let bytes = content(11, len);
    for (read_type, cached) in [(ReadType::Cache, true), (ReadType::NoCache, false)] {
        let options = in_blocks(MIB, WriteType::Through, read_type, AlluxioOptions::default());
        let fs = place.fs(options);
        let name = path(&format!("{read_type:?}"));
        write(&fs, &name, &bytes, 100_000);
        let reader = fs.open(&Ctx::daemon(), &name).unwrap();
        // A little of each block.
        for block in 0..3 {
            let offset = block * MIB + 10;
            let got = reader.read_at(&Ctx::daemon(), offset, 50).unwrap().copied().unwrap();
            assert_same(&got, &bytes[offset as usize..offset as usize + 50], "a part of a block");
        }
        assert_eq!(fs.traffic().received, 150);
        if cached {
            // What is mapped is shared with whoever has the file open.
            drop(reader);
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                // A new handle asks the master anew; a cached block is mapped.
                let before = fs.traffic().mapped;
                let reader = fs.open(&Ctx::daemon(), &name).unwrap();
                assert_same(&read(&*reader, 100_000), &bytes, "the file");
                if fs.traffic().mapped - before == 3 {
                    break;
                }
                assert!(Instant::now() < deadline, "the blocks were not cached");
            }
        } else {
            assert_same(&read(&*reader, 100_000), &bytes, "the file");
            let before = fs.traffic().mapped;
            assert_same(&read(&*fs.open(&Ctx::daemon(), &name).unwrap(), 100_000), &bytes, "the file");
            assert_eq!(fs.traffic().mapped, before);
        }
    }
}

#[test]
fn a_small_file_costs_one_call_to_a_worker_and_as_few_to_the_master_as_can_be() {
    let place = Place::new("calls");
    let bytes = content(12, 100 * KIB);
    // Cached, the master is asked at the open; from the under file system once more, whether the bytes were this file's.
    for (write_type, masters) in [(WriteType::MustCache, 1), (WriteType::Through, 2)] {
        let fs = place.fs(in_blocks(MIB, write_type, ReadType::NoCache, {
            AlluxioOptions { short_circuit: false, ..AlluxioOptions::default() }
        }));
        let name = |n: u32| path(&format!("{write_type:?}{n}"));
        for n in 0..20 {
            write(&fs, &name(n), &bytes, 1 << 20);
        }
        // Who the workers are is asked once.
        let calls = |n| {
            let before = fs.traffic();
            let got = fs.open(&Ctx::daemon(), &name(n)).unwrap().read_at(&Ctx::daemon(), 0, 1 << 20).unwrap();
            assert_same(&got.copied().unwrap(), &bytes, "the file");
            let after = fs.traffic();
            (after.master_calls - before.master_calls, after.worker_calls - before.worker_calls)
        };
        calls(0);
        let counts: Vec<_> = (1..20).map(calls).collect();
        // On a busy machine the open may be too long ago to count as a look.
        assert!(counts.contains(&(masters, 1)), "{counts:?}, {write_type:?}");
        assert!(counts.iter().all(|(asked, streams)| *asked <= masters + 1 && *streams == 1), "{counts:?}");
        println!("{write_type:?}: {counts:?}");
    }
}

#[test]
fn an_interrupted_read_ends_with_it() {
    let place = Place::new("interrupt");
    let (fs, name, bytes) = by_stream(&place, MIB);
    let reader = fs.open(&Ctx::daemon(), &name).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let ctx = Ctx::new(0, 0, 0, &cancel);
    assert_eq!(reader.read_at(&ctx, 0, 100).unwrap_err().fault(), Fault::Interrupted);
    assert_same(&read(&*reader, 100_000), &bytes, "the file, read again");
}

#[test]
fn an_interrupt_does_not_lose_data_that_was_taken() {
    let place = Place::new("eintr");
    let fs = place.fs(small_blocks(WriteType::MustCache, false));
    let cancel = Cancel::new();
    let interrupted = Ctx::new(0, 0, 0, &cancel);
    let name = path("f");
    let bytes = content(12, 5 * MIB);
    let (_, mut writer) = fs.create(&interrupted, &name, &NEW).unwrap();
    cancel.cancel();
    for piece in bytes.chunks(130_000) {
        writer.append(&interrupted, piece).unwrap();
    }
    writer.commit(&interrupted).unwrap();
    assert_same(&read(&*fs.open(&Ctx::daemon(), &name).unwrap(), 100_000), &bytes, "the file");
}

#[test]
#[ignore = "fills the store, and evicts what others have there: only on a cluster of its own"]
fn a_file_larger_than_its_store_is_refused_and_goes() {
    let place = Place::new("full");
    for short_circuit in [false, true] {
        let options = AlluxioOptions { short_circuit, ..AlluxioOptions::default() };
        let options = in_blocks(64 * MIB, WriteType::MustCache, ReadType::Cache, options);
        let fs = place.fs(options);
        let ctx = Ctx::daemon();
        let capacity = fs.stat_fs(&ctx).unwrap();
        let capacity = capacity.blocks * u64::from(capacity.block_size);
        let name = path("f");
        let piece = content(13, 4 * MIB);
        let (_, mut writer) = fs.create(&ctx, &name, &NEW).unwrap();
        let mut written = 0;
        let err = loop {
            assert!(written <= capacity + 256 * MIB, "{written} bytes went into {capacity}");
            match writer.append(&ctx, &piece) {
                Ok(()) => written += piece.len() as u64,
                Err(err) => break err,
            }
        };
        assert_eq!(err.fault(), Fault::NoSpace, "{err}");
        assert_eq!(writer.commit(&ctx).unwrap_err().fault(), Fault::NoSpace);
        drop(writer);
        assert_goes(&fs, &name);
    }
}
