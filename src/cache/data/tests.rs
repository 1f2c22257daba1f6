use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use nix::errno::Errno;
use tempfile::TempDir;

use super::*;
use crate::backend::local::LocalFs;
use std::time::Duration;

const PAGE: u64 = 256 << 10;

/// A store, directories for the cache of it, and a clock that the test moves.
struct Place {
    store: TempDir,
    dirs: Vec<TempDir>,
    now: Arc<AtomicU64>,
    options: DataOptions,
}

impl Place {
    fn new(pages: u64, policy: Policy) -> Self {
        Self::with(&[pages], policy)
    }

    /// With a directory for each of `sizes`, each for so many pages.
    fn with(sizes: &[u64], policy: Policy) -> Self {
        let dirs: Vec<TempDir> = sizes.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let now = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now);
        // That of a file of one page, which has a list of its own.
        let weight = PAGE + 4096;
        let directories =
            dirs.iter().zip(sizes).map(|(dir, pages)| (dir.path().to_owned(), pages * weight)).collect();
        let options = DataOptions {
            directories,
            page_size: PAGE,
            policy,
            ttl: None,
            ttl_interval: Duration::from_secs(3600),
            origin: "a store".to_owned(),
            below_is_local: true,
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            memory: None,
            faults: None,
        };
        Self { store: tempfile::tempdir().unwrap(), dirs, now, options }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.store.path().join(name), bytes).unwrap();
    }

    fn cache(&self) -> DataCache {
        let below = Arc::new(LocalFs::open(self.store.path()).unwrap());
        let cache = DataCache::open(below, &self.options).unwrap();
        eventually(|| cache.shared.store.places_counted());
        cache
    }

    /// Has `access` to the disk fail with `errno` while what is returned is set.
    fn failing(&mut self, access: Access, errno: Errno) -> Arc<AtomicBool> {
        let failing = Arc::new(AtomicBool::new(false));
        let fails = Arc::clone(&failing);
        self.options.faults = Some(Arc::new(move |asked| {
            if asked == access && fails.load(Ordering::Relaxed) { Err(errno.into()) } else { Ok(()) }
        }));
        failing
    }

    /// Has the next page that is written wait, and fail if it waits for too long, until what is returned is sent to.
    fn holding(&mut self) -> Holding {
        let holding = Holding { armed: Arc::default(), waits: Arc::default(), release: bounded(0) };
        let (armed, waits, held) =
            (Arc::clone(&holding.armed), Arc::clone(&holding.waits), holding.release.1.clone());
        self.options.faults = Some(Arc::new(move |asked| {
            if asked == Access::WriteData && armed.swap(false, Ordering::Relaxed) {
                waits.store(true, Ordering::Relaxed);
                held.recv_timeout(Duration::from_secs(20)).map_err(|_| io::Error::from(Errno::ETIMEDOUT))?;
            }
            Ok(())
        }));
        holding
    }

    /// What the cache takes on disk.
    fn on_disk(&self) -> u64 {
        self.dirs.iter().map(|dir| blocks(dir.path())).sum()
    }

    fn data_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.dirs.iter().for_each(|dir| collect(dir.path(), &mut found));
        found.retain(|path| path.extension().is_some_and(|extension| extension == "data"));
        found
    }
}

/// A page that waits to be written.
struct Holding {
    armed: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
    release: (Sender<()>, Receiver<()>),
}

impl Holding {
    /// Has `put` put a page, which waits.
    fn hold(&self, put: impl FnOnce()) {
        self.armed.store(true, Ordering::Relaxed);
        put();
        eventually(|| self.waits.load(Ordering::Relaxed));
    }

    /// Lets it go on.
    fn release(self) {
        self.release.0.send(()).unwrap();
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

pub(super) fn blocks(dir: &Path) -> u64 {
    let mut found = Vec::new();
    collect(dir, &mut found);
    let data = found.iter().filter(|path| path.extension().is_some_and(|extension| extension == "data"));
    data.map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

pub(super) fn eventually(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}

fn bytes(seed: u64, len: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// A version of file `id`, which nobody has made.
fn version(id: u64, size: u64) -> Version {
    Version { origin: 1, id, size, mtime: crate::fs::Timestamp { secs: 1, nanos: 2 } }
}

fn path(name: &str) -> FsPath {
    FsPath::parse(&format!("/{name}")).unwrap()
}

fn read(cache: &DataCache, name: &str, offset: u64, len: usize) -> Vec<u8> {
    let ctx = Ctx::daemon();
    FileSystem::open(cache, &ctx, &path(name)).unwrap().read_at(&ctx, offset, len).unwrap().copied().unwrap()
}

/// Reads all of it, and waits until what was loaded is on disk or given up.
fn read_all(cache: &DataCache, name: &str, expected: &[u8]) {
    assert!(read(cache, name, 0, expected.len() + 10) == expected, "{name}");
    settle(cache);
}

pub(super) fn settle(cache: &DataCache) {
    eventually(|| cache.shared.loads.is_empty());
}

fn loaded(cache: &DataCache) -> u64 {
    cache.shared.store.counters.loaded.value()
}

#[test]
fn what_was_read_once_is_not_read_from_below_again() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(1, 3 * PAGE + 1000);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    assert_eq!(loaded(&cache), content.len() as u64);
    for (offset, len) in
        [(0, 1), (PAGE - 1, 2), (70_000, 200_000), (3 * PAGE + 999, 10), (3 * PAGE + 1000, 1)]
    {
        let end = (offset as usize + len).min(content.len());
        assert!(read(&cache, "file", offset, len) == content[offset as usize..end], "{offset} {len}");
    }
    read_all(&cache, "file", &content);
    assert_eq!(loaded(&cache), content.len() as u64);
    assert_eq!(cache.usage().pages, 4);
}

#[test]
fn a_small_read_loads_its_page_and_no_other() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(2, 5 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    assert!(read(&cache, "file", 2 * PAGE + 5, 10) == content[2 * PAGE as usize + 5..][..10]);
    assert_eq!(loaded(&cache), PAGE);
    settle(&cache);
    assert_eq!(cache.usage().pages, 1);
}

#[test]
fn a_file_that_was_written_anew_shows_its_new_bytes() {
    let place = Place::new(20, Policy::Lru);
    let cache = place.cache();
    for n in 0..5 {
        let content = bytes(n, 2 * PAGE);
        place.write("file", &content);
        // The same length, and on a coarse clock perhaps the same time: what a writer does who means it.
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 + n);
        fs::File::open(place.store.path().join("file")).unwrap().set_modified(time).unwrap();
        read_all(&cache, "file", &content);
    }
}

#[test]
fn pages_survive_a_restart() {
    // Whichever of them the files come to, there is room.
    let place = Place::with(&[20, 60], Policy::Lru);
    let files: Vec<(String, Vec<u8>)> =
        (0..8).map(|n| (format!("file{n}"), bytes(n, (n + 1) * PAGE / 2))).collect();
    files.iter().for_each(|(name, content)| place.write(name, content));
    let cache = place.cache();
    files.iter().for_each(|(name, content)| read_all(&cache, name, content));
    let before = cache.usage();
    drop(cache);
    let cache = place.cache();
    assert_eq!(cache.usage(), before);
    files.iter().for_each(|(name, content)| read_all(&cache, name, content));
    assert_eq!(loaded(&cache), 0);
    // Before the directories have been looked through, a file is found by its name.
    drop(cache);
    let store = Store::open(&place.options).unwrap();
    let attr = LocalFs::open(place.store.path()).unwrap().stat(&Ctx::daemon(), &path("file7")).unwrap();
    let file = store.file(Version::of(record::origin("a store"), &attr));
    assert_eq!(file.pages().len(), 4);
}

#[test]
fn bytes_that_were_changed_on_disk_are_never_shown() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(3, 2 * PAGE);
    place.write("file", &content);
    let mut cache = place.cache();
    for restart in [false, true] {
        read_all(&cache, "file", &content);
        let [data] = &place.data_files()[..] else { panic!("one file") };
        let file = fs::OpenOptions::new().write(true).open(data).unwrap();
        file.write_all_at(b"damage", 100_000).unwrap();
        if restart {
            drop(cache);
            cache = place.cache();
        }
        let damaged = cache.shared.store.counters.damaged.value();
        read_all(&cache, "file", &content);
        assert_eq!(cache.shared.store.counters.damaged.value(), damaged + 1);
        // A file that is cut off, too.
        settle(&cache);
        file.set_len(PAGE + 7).unwrap();
        read_all(&cache, "file", &content);
        assert_eq!(cache.usage().pages, 2);
    }
}

#[test]
fn a_directory_that_is_removed_costs_its_pages_and_no_read() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(4, 3 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    fs::remove_dir_all(place.dirs[0].path()).unwrap();
    read_all(&cache, "file", &content);
    read_all(&cache, "file", &content);
    assert_eq!(cache.usage().pages, 3);
    let before = loaded(&cache);
    read_all(&cache, "file", &content);
    assert_eq!(loaded(&cache), before, "it is kept again");
}

/// The pages whose bytes went with it must not be holes in a new one, which the kernel would read.
#[test]
fn a_data_file_that_is_removed_takes_its_pages_along() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(5, 3 * PAGE + 1000);
    place.write("file", &content);
    let cache = place.cache();
    assert!(read(&cache, "file", 0, 2 * PAGE as usize) == content[..2 * PAGE as usize]);
    settle(&cache);
    let [data] = &place.data_files()[..] else { panic!("one file") };
    fs::remove_file(data).unwrap();
    read(&cache, "file", 2 * PAGE, 2 * PAGE as usize);
    settle(&cache);
    eventually(|| {
        read_all(&cache, "file", &content);
        is_passed(&cache, "file")
    });
    let [data] = &place.data_files()[..] else { panic!("one file") };
    assert!(fs::read(data).unwrap() == content);
}

/// A page may be put into a new directory while what was there before is looked for.
#[test]
fn what_is_half_made_in_a_new_directory_is_not_taken_for_a_leftover() {
    let place = Place::new(20, Policy::Lru);
    let store = Store::open(&place.options).unwrap();
    let paths = store.paths(&version(2, 3));
    fs::create_dir_all(paths.data.parent().unwrap()).unwrap();
    fs::write(&paths.data, b"").unwrap();
    store.restore();
    assert!(paths.data.exists());
    // An earlier process cannot be half way.
    drop(store);
    Store::open(&place.options).unwrap().restore();
    assert!(!paths.data.exists());
}

#[test]
fn whoever_comes_first_to_a_file_takes_no_page_from_others() {
    const READERS: u32 = 8;
    let place = Place::new(100_000, Policy::Lru);
    let store = Store::open(&place.options).unwrap();
    let content = bytes(8, PAGE);
    for id in 0..200 {
        let version = version(id, u64::from(READERS) * PAGE);
        let barrier = std::sync::Barrier::new(READERS as usize);
        std::thread::scope(|scope| {
            for index in 0..READERS {
                let (store, barrier, content) = (&store, &barrier, &content);
                scope.spawn(move || {
                    barrier.wait();
                    store.put(&store.file(version), index, &Bytes::copy_from_slice(content).into());
                });
            }
        });
        let file = store.file(version);
        for index in 0..READERS {
            let found = store.read(&file, index, 0, PAGE as usize);
            assert!(found.is_some_and(|found| found == content), "page {index} of file {id}");
        }
        store.drop_file(version);
    }
}

#[test]
fn the_limit_is_never_passed() {
    for policy in [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Unevictable] {
        let place = Place::new(5, policy);
        let cache = place.cache();
        for n in 0..12 {
            let (name, content) = (format!("file{n}"), bytes(n, 2 * PAGE));
            place.write(&name, &content);
            read_all(&cache, &name, &content);
            place.now.fetch_add(store::FULL, Ordering::Relaxed);
            assert!(place.on_disk() <= 5 * PAGE, "{policy:?}: {}", place.on_disk());
            assert!(cache.usage().pages <= 5);
        }
        assert!(cache.usage().pages >= 4, "{policy:?}");
        let evicted = cache.shared.store.counters.evicted.value();
        assert_eq!(evicted > 0, policy != Policy::Unevictable, "{policy:?}");
    }
}

#[test]
fn small_files_take_no_more_than_the_limit_with_their_lists() {
    let mut place = Place::new(1, Policy::Lru);
    place.options.directories[0].1 = 10 * 8192;
    let cache = place.cache();
    for n in 0..20 {
        let (name, content) = (format!("file{n}"), bytes(n, 4096));
        place.write(&name, &content);
        read_all(&cache, &name, &content);
    }
    let mut all = Vec::new();
    collect(place.dirs[0].path(), &mut all);
    all.retain(|path| path.extension().is_some());
    let taken: u64 = all.iter().map(|path| fs::metadata(path).unwrap().blocks() * 512).sum();
    assert!(cache.usage().pages == 10 && taken <= 10 * 8192, "{} {taken}", cache.usage().pages);
}

#[test]
fn a_disk_that_is_full_before_the_limit_is_reached_turns_over() {
    let mut place = Place::new(20, Policy::Lru);
    let full = place.failing(Access::WriteData, Errno::ENOSPC);
    let cache = place.cache();
    for n in 0..4 {
        let (name, content) = (format!("file{n}"), bytes(n, PAGE));
        place.write(&name, &content);
        full.store(n == 3, Ordering::Relaxed);
        read_all(&cache, &name, &content);
    }
    let counters = &cache.shared.store.counters;
    assert_eq!((cache.usage().pages, counters.failed.value(), counters.evicted.value()), (2, 1, 1));
    full.store(false, Ordering::Relaxed);
    place.now.fetch_add(store::FULL, Ordering::Relaxed);
    read(&cache, "file3", 0, 10);
    settle(&cache);
    assert_eq!(cache.usage().pages, 3);
}

#[test]
fn a_cache_that_is_made_smaller_gives_up_what_is_too_much() {
    let mut place = Place::new(10, Policy::Lru);
    let content = bytes(5, 8 * PAGE);
    place.write("file", &content);
    read_all(&place.cache(), "file", &content);
    place.options.directories[0].1 /= 3;
    let cache = place.cache();
    assert!(
        cache.usage().pages <= 3 && place.on_disk() <= 4 * PAGE,
        "{:?} {}",
        cache.usage(),
        place.on_disk()
    );
    read_all(&cache, "file", &content);
}

#[test]
fn what_a_kill_leaves_half_written_is_given_back() {
    let place = Place::new(10, Policy::Lru);
    let content = bytes(6, 4 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read(&cache, "file", 0, 10);
    settle(&cache);
    drop(cache);
    // A page without an entry, and half an entry at the end of the list.
    let data = &place.data_files()[0];
    fs::OpenOptions::new()
        .write(true)
        .open(data)
        .unwrap()
        .write_all_at(&content[..PAGE as usize], 2 * PAGE)
        .unwrap();
    let list = data.with_extension("pages");
    let mut bytes = fs::read(&list).unwrap();
    bytes.extend(&bytes.clone()[record::HEADER..record::HEADER + 20]);
    fs::write(&list, bytes).unwrap();
    let cache = place.cache();
    assert_eq!(cache.usage().pages, 1);
    assert!(place.on_disk() <= PAGE, "{}", place.on_disk());
    read_all(&cache, "file", &content);
    drop(cache);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    assert_eq!(loaded(&cache), 0);
}

#[test]
fn a_page_goes_when_its_time_is_over() {
    let mut place = Place::new(10, Policy::Lru);
    place.options.ttl = Some(100);
    let content = bytes(7, 2 * PAGE);
    place.write("old", &content);
    place.write("new", &content);
    let cache = place.cache();
    read_all(&cache, "old", &content);
    place.now.fetch_add(60, Ordering::Relaxed);
    read_all(&cache, "new", &content);
    place.now.fetch_add(40, Ordering::Relaxed);
    cache.shared.store.expire();
    assert_eq!(cache.usage().pages, 2);
    read_all(&cache, "new", &content);
    assert_eq!(loaded(&cache), 4 * PAGE);
    // Its age counts from when it came, also in the next process.
    drop(cache);
    place.now.fetch_add(60, Ordering::Relaxed);
    let cache = place.cache();
    cache.shared.store.expire();
    assert_eq!(cache.usage().pages, 0);
    assert_eq!(place.data_files(), Vec::<PathBuf>::new());
}

#[test]
fn readers_of_one_page_load_it_once() {
    let place = Place::new(10, Policy::Lru);
    let content = bytes(8, 4 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(read(&cache, "file", 0, content.len()) == content));
        }
    });
    assert_eq!(loaded(&cache), content.len() as u64);
}

#[test]
fn nobody_who_reads_a_file_waits_for_a_page_of_it_that_is_being_written() {
    let mut place = Place::new(20, Policy::Lru);
    let holding = place.holding();
    let content = bytes(21, 2 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read(&cache, "file", 0, 10);
    settle(&cache);
    holding.hold(|| drop(read(&cache, "file", PAGE, 10)));
    assert!(read(&cache, "file", 100, 1000) == content[100..1100]);
    assert!(!is_passed(&cache, "file"));
    holding.release();
    settle(&cache);
    assert_eq!((cache.usage().pages, cache.shared.store.counters.failed.value()), (2, 0));
    read_all(&cache, "file", &content);
    assert_eq!(loaded(&cache), 2 * PAGE);
    assert!(is_passed(&cache, "file"));
}

#[test]
fn a_page_whose_file_goes_while_it_is_written_goes_with_it() {
    let mut place = Place::new(20, Policy::Lru);
    let holding = place.holding();
    let content = bytes(22, 2 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read(&cache, "file", 0, 10);
    settle(&cache);
    holding.hold(|| drop(read(&cache, "file", PAGE, 10)));
    assert_eq!(cache.drop_all(), 1);
    holding.release();
    settle(&cache);
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
    eventually(|| cache.shared.store.is_empty());
    read_all(&cache, "file", &content);
    assert_eq!((cache.usage().pages, place.on_disk()), (2, 2 * PAGE));
}

#[test]
fn files_and_directories_are_dropped_when_asked_for() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(9, 2 * PAGE);
    fs::create_dir_all(place.store.path().join("dir/below")).unwrap();
    let names = ["one", "two", "dir/three", "dir/below/four"];
    names.iter().for_each(|name| place.write(name, &content));
    let cache = place.cache();
    names.iter().for_each(|name| read_all(&cache, name, &content));
    let ctx = Ctx::daemon();
    assert_eq!(cache.drop_below(&ctx, &path("one")).unwrap(), 2);
    assert_eq!(cache.drop_below(&ctx, &path("dir")).unwrap(), 4);
    assert_eq!(cache.usage().pages, 2);
    assert_eq!(cache.drop_all(), 2);
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
    names.iter().for_each(|name| read_all(&cache, name, &content));
}

/// Whether the kernel could read `name` by itself.
fn is_passed(cache: &DataCache, name: &str) -> bool {
    let ctx = Ctx::daemon();
    FileSystem::open(cache, &ctx, &path(name)).unwrap().backing(&ctx).unwrap().is_ok()
}

#[test]
fn a_large_file_of_an_earlier_process_is_checked_in_the_background() {
    let place = Place::new(100, Policy::Lru);
    let content = bytes(10, store::VERIFY_MAX + PAGE);
    let pages = content.len() / PAGE as usize;
    place.write("file", &content);
    let fill = |cache: &DataCache| {
        // What comes faster than the disk takes it is not kept.
        while cache.usage().pages < pages {
            read_all(cache, "file", &content);
        }
    };
    let cache = place.cache();
    fill(&cache);
    eventually(|| is_passed(&cache, "file"));
    drop(cache);
    let cache = place.cache();
    eventually(|| is_passed(&cache, "file"));
    assert_eq!(loaded(&cache), 0);
    drop(cache);

    let [data] = &place.data_files()[..] else { panic!("one file") };
    let file = fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(b"damage", 3 * PAGE + 99).unwrap();
    drop(file);
    let cache = place.cache();
    eventually(|| !is_passed(&cache, "file") && cache.usage().pages < pages);
    assert_eq!(cache.shared.store.counters.damaged.value(), 1);
    fill(&cache);
    eventually(|| is_passed(&cache, "file"));
    assert_eq!(loaded(&cache), PAGE);
}

#[test]
fn what_the_disk_has_not_taken_is_not_for_the_kernel() {
    let mut place = Place::new(20, Policy::Lru);
    let failing = place.failing(Access::Sync, Errno::EIO);
    let content = bytes(24, 2 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    failing.store(true, Ordering::Relaxed);
    assert!(!is_passed(&cache, "file"));
    assert_eq!((cache.usage().pages, cache.shared.store.counters.failed.value()), (0, 2));
    failing.store(false, Ordering::Relaxed);
    read_all(&cache, "file", &content);
    assert!(is_passed(&cache, "file"));
    // What was taken is not asked for again, but for a page that comes anew.
    failing.store(true, Ordering::Relaxed);
    assert!(is_passed(&cache, "file"));
    let attr = cache.below.stat(&Ctx::daemon(), &path("file")).unwrap();
    let file = cache.shared.store.file(Version::of(cache.origin, &attr));
    cache.shared.store.drop_page(&file, 1);
    read_all(&cache, "file", &content);
    assert!(!is_passed(&cache, "file"));
    // Nor is what an earlier process has left.
    failing.store(false, Ordering::Relaxed);
    read_all(&cache, "file", &content);
    drop((cache, file));
    failing.store(true, Ordering::Relaxed);
    assert!(!is_passed(&place.cache(), "file"));
}

#[test]
fn what_is_dropped_while_the_kernel_reads_it_gives_its_room_back_afterwards() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(11, 4 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    let ctx = Ctx::daemon();
    let reader = FileSystem::open(&cache, &ctx, &path("file")).unwrap();
    let backing = reader.backing(&ctx).unwrap().unwrap();
    let file = cache.shared.store.file(Version::of(record::origin("a store"), reader.attr()));
    assert_eq!(cache.shared.store.drop_page(&file, 1), 1);
    let mut kept = vec![0; content.len()];
    backing.file.read_exact_at(&mut kept, 0).unwrap();
    assert!(kept == content);
    drop(backing);
    assert_eq!((cache.usage().pages, place.on_disk()), (3, 3 * PAGE));
}

/// What a program has mapped, by an open of its own as the kernel makes one.
fn mapped(data: &Path) -> memmap2::Mmap {
    // SAFETY: nobody truncates it.
    unsafe { memmap2::Mmap::map(&fs::File::open(data).unwrap()).unwrap() }
}

/// A cache with the whole of "file" and the time over of what is in it, and a mapping of that from when it was pinned.
fn with_a_mapping(place: &mut Place, content: &[u8]) -> (DataCache, memmap2::Mmap) {
    place.options.ttl = Some(100);
    place.write("file", content);
    let cache = place.cache();
    read_all(&cache, "file", content);
    let ctx = Ctx::daemon();
    let backing = FileSystem::open(&cache, &ctx, &path("file")).unwrap().backing(&ctx).unwrap().unwrap();
    let map = mapped(&place.data_files()[0]);
    drop(backing);
    (cache, map)
}

/// A mapping lives longer than the open that it was made by.
#[test]
fn what_is_mapped_keeps_its_bytes_when_its_pages_go() {
    let ctx = Ctx::daemon();
    let content = bytes(13, 4 * PAGE);
    let file = |cache: &DataCache| {
        let attr = cache.below.stat(&ctx, &path("file")).unwrap();
        cache.shared.store.file(Version::of(cache.origin, &attr))
    };
    type Way<'a> = &'a dyn Fn(&Place, &DataCache);
    let ways: [Way<'_>; 4] = [
        &|_, cache| assert_eq!(cache.shared.store.drop_page(&file(cache), 1), 4),
        &|_, cache| assert_eq!(cache.drop_below(&ctx, &path("file")).unwrap(), 4),
        &|place, cache| {
            place.now.fetch_add(100, Ordering::Relaxed);
            cache.shared.store.expire();
            assert_eq!(cache.shared.store.counters.expired.value(), 4);
        },
        &|place, cache| {
            let other = bytes(14, PAGE);
            (0..2).for_each(|n| place.write(&format!("other{n}"), &other));
            (0..2).for_each(|n| read_all(cache, &format!("other{n}"), &other));
            assert_eq!((cache.shared.store.counters.evicted.value(), cache.usage().pages), (4, 2));
            cache.drop_all();
        },
    ];
    for (number, way) in ways.iter().enumerate() {
        let mut place = Place::new(5, Policy::Fifo);
        let (cache, map) = with_a_mapping(&mut place, &content);
        way(&place, &cache);
        assert!(map[..] == content, "{number}");
        assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0), "{number}");
        read_all(&cache, "file", &content);
        assert!(is_passed(&cache, "file"), "{number}");
    }
}

#[test]
fn a_page_that_goes_while_its_file_is_pinned_takes_the_others_along_if_it_is_mapped() {
    let mut place = Place::new(20, Policy::Lru);
    let content = bytes(15, 4 * PAGE);
    let (cache, map) = with_a_mapping(&mut place, &content);
    let ctx = Ctx::daemon();
    let reader = FileSystem::open(&cache, &ctx, &path("file")).unwrap();
    let backing = reader.backing(&ctx).unwrap().unwrap();
    let file = cache.shared.store.file(Version::of(cache.origin, reader.attr()));
    assert_eq!(cache.shared.store.drop_page(&file, 1), 1);
    assert_eq!(cache.usage().pages, 3);
    drop(backing);
    assert!(map[..] == content);
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
    read_all(&cache, "file", &content);
}

#[test]
fn a_page_that_cannot_be_put_back_leaves_its_bytes_to_the_kernel() {
    let mut place = Place::new(20, Policy::Lru);
    let failing = place.failing(Access::WriteList, Errno::EIO);
    let content = bytes(18, 4 * PAGE);
    let (cache, map) = with_a_mapping(&mut place, &content);
    let ctx = Ctx::daemon();
    let reader = FileSystem::open(&cache, &ctx, &path("file")).unwrap();
    let backing = reader.backing(&ctx).unwrap().unwrap();
    let file = cache.shared.store.file(Version::of(cache.origin, reader.attr()));
    cache.shared.store.drop_page(&file, 1);
    failing.store(true, Ordering::Relaxed);
    read_all(&cache, "file", &content);
    assert_eq!((cache.shared.store.counters.failed.value(), cache.usage().pages), (1, 3));
    assert!(map[..] == content);
    drop(backing);
    assert!(map[..] == content);
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
}

#[test]
fn what_goes_while_somebody_has_it_open_gives_its_room_back_at_once() {
    let place = Place::new(20, Policy::Lru);
    let content = bytes(23, 3 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    let ctx = Ctx::daemon();
    let reader = FileSystem::open(&cache, &ctx, &path("file")).unwrap();
    let data = fs::File::open(&place.data_files()[0]).unwrap();
    assert_eq!(cache.drop_all(), 3);
    let found = data.metadata().unwrap();
    assert_eq!((found.nlink(), found.blocks()), (0, 0));
    drop(data);
    let deleted = || {
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten().flat_map(|fd| fs::read_link(fd.path()));
        all.filter(|at| at.starts_with(place.dirs[0].path()) && at.to_string_lossy().ends_with("(deleted)"))
            .count()
    };
    assert_eq!(deleted(), 2, "its own");
    assert!(reader.read_at(&ctx, PAGE, 10).unwrap().copied().unwrap() == content[PAGE as usize..][..10]);
    assert_eq!(deleted(), 0);
    settle(&cache);
    assert!(reader.read_at(&ctx, PAGE, 10).unwrap().copied().unwrap() == content[PAGE as usize..][..10]);
    assert_eq!(loaded(&cache), 4 * PAGE);
}

#[test]
fn of_those_who_leave_an_empty_file_at_once_the_last_has_it_forgotten() {
    let place = Place::new(20, Policy::Lru);
    let store = Store::open(&place.options).unwrap();
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for id in 0..5000 {
                    let file = store.file(version(id, PAGE));
                    barrier.wait();
                    store.let_go(file);
                }
            });
        }
    });
    assert!(store.is_empty());
}

#[test]
fn without_descriptors_no_page_is_lost_but_by_its_removal() {
    let mut place = Place::new(20, Policy::Lru);
    let failing = place.failing(Access::Open, Errno::EMFILE);
    let content = bytes(20, 4 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    read_all(&cache, "file", &content);
    failing.store(true, Ordering::Relaxed);
    read_all(&cache, "file", &content);
    assert!(!is_passed(&cache, "file"));
    failing.store(false, Ordering::Relaxed);
    read_all(&cache, "file", &content);
    let counters = &cache.shared.store.counters;
    assert_eq!((counters.damaged.value(), loaded(&cache)), (0, 4 * PAGE));
    // What cannot be given back alone is not left uncounted.
    failing.store(true, Ordering::Relaxed);
    let attr = cache.below.stat(&Ctx::daemon(), &path("file")).unwrap();
    let file = cache.shared.store.file(Version::of(cache.origin, &attr));
    assert_eq!(cache.shared.store.drop_page(&file, 1), 4);
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
}

#[test]
fn a_page_that_comes_back_before_it_is_given_up_stays() {
    let place = Place::new(3, Policy::Lru);
    let store = Store::open(&place.options).unwrap();
    let version = version(2, 8 * PAGE);
    let file = store.file(version);
    let content = bytes(19, PAGE);
    let put = |index| store.put(&file, index, &Bytes::copy_from_slice(&content).into());
    let pages = || store.in_order(0).into_iter().map(|(_, index)| index).collect::<Vec<u32>>();
    (0..3).for_each(put);
    store.evict_after(0, PAGE, || {
        assert_eq!(store.drop_page(&file, 0), 1);
        // In the room of the next one, as its own is not free yet.
        put(0);
    });
    let there: Vec<u32> = file.pages().into_iter().map(|(index, _)| index).collect();
    assert_eq!((there, pages()), (vec![0, 2], vec![2, 0]));
    assert_eq!(store.used(), file.weight(0) + file.weight(2));
    // Whoever needs room afterwards finds it.
    (3..8).for_each(put);
    assert_eq!(pages(), [5, 6, 7]);
}

#[test]
fn what_nobody_has_mapped_any_more_goes_page_by_page() {
    let mut place = Place::new(20, Policy::Lru);
    let content = bytes(16, 4 * PAGE);
    let (cache, map) = with_a_mapping(&mut place, &content);
    drop(map);
    let attr = cache.below.stat(&Ctx::daemon(), &path("file")).unwrap();
    let file = cache.shared.store.file(Version::of(cache.origin, &attr));
    assert_eq!(cache.shared.store.drop_page(&file, 1), 1);
    assert_eq!((cache.usage().pages, place.on_disk()), (3, 3 * PAGE));
}

#[test]
fn what_is_mapped_from_an_earlier_process_keeps_its_bytes() {
    for whole in [true, false] {
        let mut place = Place::new(20, Policy::Lru);
        let content = bytes(17, 4 * PAGE);
        let (cache, map) = with_a_mapping(&mut place, &content);
        let list = place.data_files()[0].with_extension("pages");
        drop(cache);
        if !whole {
            // It was killed before the last page was noted; nothing is punched for that.
            let known = fs::metadata(&list).unwrap().len() - record::record_len(PAGE) as u64;
            fs::OpenOptions::new().write(true).open(&list).unwrap().set_len(known).unwrap();
        }
        let cache = place.cache();
        assert_eq!(cache.usage().pages, if whole { 4 } else { 0 });
        assert!(map[..] == content);
        let attr = cache.below.stat(&Ctx::daemon(), &path("file")).unwrap();
        let file = cache.shared.store.file(Version::of(cache.origin, &attr));
        cache.shared.store.drop_page(&file, 2);
        assert!(map[..] == content);
        assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
    }
}

/// Readers, readers by the kernel, evictions, drops and expiry at once.
#[test]
fn what_is_counted_is_what_is_there_whatever_goes_on_at_once() {
    let mut place = Place::with(&[5, 8], Policy::Lru);
    place.options.ttl = Some(50);
    let files: Vec<(String, Vec<u8>)> =
        (0..10).map(|n| (format!("file{n}"), bytes(n, (n % 3 + 1) * PAGE - 5))).collect();
    files.iter().for_each(|(name, content)| place.write(name, content));
    let cache = place.cache();
    let store = &cache.shared.store;
    let steps = |seed: u64, step: &(dyn Fn(&str, &[u8]) + Sync)| {
        for n in 0..150_u64 {
            let (name, content) = &files[(seed + n * n * 7) as usize % files.len()];
            step(name, content);
        }
    };
    let ctx = Ctx::daemon();
    let look =
        |name: &str, content: &[u8]| assert!(read(&cache, name, 0, content.len()) == content, "{name}");
    let pass = |name: &str, content: &[u8]| {
        let reader = FileSystem::open(&cache, &ctx, &path(name)).unwrap();
        let Ok(backing) = reader.backing(&ctx).unwrap() else { return look(name, content) };
        let mut got = vec![0; content.len()];
        backing.file.read_exact_at(&mut got, 0).unwrap();
        assert!(got == content, "{name} by the kernel");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| steps(1, &look));
        scope.spawn(|| steps(2, &pass));
        scope.spawn(|| steps(3, &pass));
        scope.spawn(|| {
            steps(4, &|name, _| {
                cache.drop_below(&ctx, &path(name)).unwrap();
                place.now.fetch_add(store::FULL, Ordering::Relaxed);
                store.expire();
            });
        });
    });
    settle(&cache);
    let limit: u64 = place.options.directories.iter().map(|(_, limit)| limit).sum();
    assert!(place.on_disk() <= store.used() && store.used() <= limit, "{} of {limit}", place.on_disk());
    let versions = files.iter().map(|(name, _)| cache.below.stat(&ctx, &path(name)).unwrap());
    let there: usize = versions
        .map(|attr| store.file(Version::of(cache.origin, &attr)))
        .map(|file| {
            let pages = file.pages().len();
            store.let_go(file);
            pages
        })
        .sum();
    assert_eq!(there, store.pages());
    cache.drop_all();
    assert_eq!((cache.usage(), place.on_disk()), (DataUse { pages: 0, bytes: 0 }, 0));
    eventually(|| store.is_empty());
}

#[test]
fn without_memory_what_was_asked_for_is_read_and_no_page() {
    struct Room(AtomicU64);
    impl Allowance for Arc<Room> {
        fn take(&self, bytes: u64) -> Option<Box<dyn Send>> {
            struct Back(Arc<Room>, u64);
            impl Drop for Back {
                fn drop(&mut self) {
                    self.0.0.fetch_add(self.1, Ordering::Relaxed);
                }
            }
            let left = |left: u64| left.checked_sub(bytes);
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).ok()?;
            Some(Box::new(Back(Arc::clone(self), bytes)))
        }
    }
    let mut place = Place::new(20, Policy::Lru);
    let room = Arc::new(Room(AtomicU64::new(PAGE)));
    place.options.memory = Some(Arc::new(Arc::clone(&room)));
    let content = bytes(12, 3 * PAGE);
    place.write("file", &content);
    let cache = place.cache();
    assert!(read(&cache, "file", 0, 10) == content[..10]);
    settle(&cache);
    assert_eq!((loaded(&cache), cache.usage().pages), (PAGE, 1));
    eventually(|| room.0.load(Ordering::Relaxed) == PAGE);
    let others = room.take(1).unwrap();
    assert!(read(&cache, "file", PAGE, 10) == content[PAGE as usize..][..10]);
    assert_eq!((loaded(&cache), cache.usage().pages), (PAGE, 1));
    drop(others);
    assert!(read(&cache, "file", PAGE, 10) == content[PAGE as usize..][..10]);
    settle(&cache);
    eventually(|| room.0.load(Ordering::Relaxed) == PAGE);
    assert_eq!(cache.usage().pages, 2);
}

#[test]
fn readers_that_stay_open_keep_few_pages_at_hand() {
    let mut place = Place::new(200, Policy::Lru);
    let blocked = Arc::new(AtomicBool::new(true));
    let is_blocked = Arc::clone(&blocked);
    place.options.faults = Some(Arc::new(move |asked| {
        if asked == Access::WriteData {
            eventually(|| !is_blocked.load(Ordering::Relaxed));
        }
        Ok(())
    }));
    (0..120).for_each(|n| place.write(&n.to_string(), &bytes(n, PAGE)));
    let cache = place.cache();
    let ctx = Ctx::daemon();
    let open_and_read = |name: u64, offset: u64| {
        let reader = FileSystem::open(&cache, &ctx, &path(&name.to_string())).unwrap();
        reader.read_at(&ctx, offset, 10).unwrap();
        reader
    };
    // More than the queue takes. Who begins in the middle of a page does not read it in order.
    let mut readers: Vec<_> = (0..60).map(|n| open_and_read(n, PAGE / 2)).collect();
    assert_eq!(cache.shared.at_hand.load(Ordering::Relaxed), 0);
    readers.extend((60..120).map(|n| open_and_read(n, 0)));
    assert_eq!(cache.shared.at_hand.load(Ordering::Relaxed), AT_HAND_MAX);
    let last = FileSystem::open(&cache, &ctx, &path("119")).unwrap();
    assert!(last.read_at(&ctx, 0, PAGE as usize).unwrap().copied().unwrap() == bytes(119, PAGE));
    drop(readers);
    assert_eq!(cache.shared.at_hand.load(Ordering::Relaxed), 0);
    blocked.store(false, Ordering::Relaxed);
    settle(&cache);
}

/// A simulated day of a machine: files come, are read at random by a few favourites and many others, are written anew and
/// removed; the cache is damaged, restarted, and its clock goes on. Every byte is right, and no limit is passed.
#[test]
fn a_day_of_everything() {
    let mut place = Place::with(&[6, 9], Policy::Lru);
    place.options.ttl = Some(4 * 3600);
    let mut seed = 11_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let mut cache = place.cache();
    let (mut restarts, mut hits) = (0, 0);
    while place.now.load(Ordering::Relaxed) < 1_000_000 + 24 * 3600 {
        place.now.fetch_add(random(120), Ordering::Relaxed);
        let name = format!("file{}", if random(3) > 0 { random(4) } else { random(40) });
        match random(40) {
            0..8 => {
                let content = bytes(random(1 << 30), 1 + random(5 * PAGE));
                place.write(&name, &content);
                let time = std::time::UNIX_EPOCH + Duration::from_nanos(1 + random(1 << 62));
                fs::File::open(place.store.path().join(&name)).unwrap().set_modified(time).unwrap();
                files.insert(name, content);
            }
            8 => {
                if files.remove(&name).is_some() {
                    fs::remove_file(place.store.path().join(&name)).unwrap();
                }
            }
            9 => {
                settle(&cache);
                let found = place.data_files();
                if let Some(victim) = found.get(random(1 + found.len() as u64) as usize) {
                    match random(3) {
                        0 => fs::remove_file(victim).unwrap(),
                        1 => fs::write(victim, b"nothing").unwrap(),
                        _ => fs::write(victim.with_extension("pages"), b"nothing").unwrap(),
                    }
                }
            }
            10 => {
                hits += cache.shared.store.counters.hit.value();
                drop(cache);
                cache = place.cache();
                restarts += 1;
            }
            11 => cache.shared.store.expire(),
            _ => {
                let Some(content) = files.get(&name) else { continue };
                let offset = random(content.len() as u64);
                let len = (1 + random(2 * PAGE)).min(content.len() as u64 - offset);
                let wanted = &content[offset as usize..(offset + len) as usize];
                assert!(read(&cache, &name, offset, len as usize) == wanted, "{name} {offset} {len}");
            }
        }
        if random(10) == 0 {
            settle(&cache);
            let limit: u64 = place.options.directories.iter().map(|(_, limit)| limit).sum();
            let (used, disk) = (cache.usage().bytes, place.on_disk());
            assert!(used <= limit && disk <= limit, "{used} and {disk} of {limit}");
        }
    }
    assert!(restarts > 10 && hits > 10 * PAGE, "{restarts} {hits}");
    // What is on its way when all is dropped may come after it.
    settle(&cache);
    cache.drop_all();
    assert_eq!(cache.usage(), DataUse { pages: 0, bytes: 0 });
    eventually(|| cache.shared.store.is_empty());
}
