//! What a page, and a file, of the data cache takes of memory: SEMANTICS.md has the figures. Counts what is allocated, which
//! does not depend on the machine. Without a cluster.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::cache::data::DataCache;
use alluxio_fuse::cache::data::DataOptions;
use alluxio_fuse::cache::data::Policy;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;

/// The system's allocator, which knows how much is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is; the count needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The smallest page there is, so that many fit.
const PAGE: u64 = 4096;
/// Of each kind.
const PAGES: usize = 2000;

fn cache(store: &Path, dir: &Path) -> DataCache {
    let options = DataOptions {
        directories: vec![(dir.to_owned(), 1 << 30)],
        page_size: PAGE,
        policy: Policy::Lru,
        ttl: None,
        ttl_interval: Duration::from_secs(3600),
        origin: "a store".to_owned(),
        below_is_local: true,
        clock: Arc::new(|| 1_000_000),
        memory: None,
        faults: None,
    };
    DataCache::open(Arc::new(LocalFs::open(store).unwrap()), &options).unwrap()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// Reads the first `len` bytes of `name`, until all the pages of them are there: those that come too fast are not kept.
fn fill(cache: &DataCache, name: &str, len: u64) {
    let ctx = Ctx::daemon();
    let path = FsPath::parse(&format!("/{name}")).unwrap();
    let reader = FileSystem::open(cache, &ctx, &path).unwrap();
    for offset in (0..len).step_by(8 * PAGE as usize) {
        let wanted = cache.usage().pages + (len - offset).min(8 * PAGE).div_ceil(PAGE) as usize;
        wait_for("all pages are there", || {
            drop(reader.read_at(&ctx, offset, 8 * PAGE as usize).unwrap());
            cache.usage().pages >= wanted
        });
    }
}

#[test]
fn a_page_and_a_file_take_as_much_memory_as_is_documented() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    File::create(store.path().join("large")).unwrap().set_len(PAGES as u64 * PAGE).unwrap();
    for n in 0..PAGES {
        File::create(store.path().join(n.to_string())).unwrap().set_len(PAGE).unwrap();
    }
    let cache = cache(store.path(), dir.path());
    let start = IN_USE.load(Ordering::Relaxed);
    fill(&cache, "large", PAGES as u64 * PAGE);
    wait_for("no page is on its way", || cache.usage().pages == PAGES);
    let large = IN_USE.load(Ordering::Relaxed);
    (0..PAGES).for_each(|n| fill(&cache, &n.to_string(), PAGE));
    let small = IN_USE.load(Ordering::Relaxed);
    let (page, file) = ((large - start) / PAGES, (small - large) / PAGES);
    // A page of 1 MB has sixteen checksums, this one has one of four bytes.
    println!("{page} bytes for a page of 4 KB, {} for one of 1 MB; {file} for a file of one page", page + 60);
    // SEMANTICS.md rounds.
    assert!(page.abs_diff(240) <= 24, "{page} bytes for a page");
    let more = file - page;
    assert!(more.abs_diff(700) <= 70, "{more} bytes for a file, beside its page");
}
