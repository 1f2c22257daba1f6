//! File data on local disks: what was read once is read from there, as long as the file is the same. Whole pages are
//! loaded from the backend and kept by the file's number, length and modification time, so a file that was written anew
//! never shows old bytes. The backend is asked at each open, and only then: its answer says which version that is.
//!
//! `order` decides what goes, `record` is the format on disk, `directory` where it lies, `file` the pages of one version,
//! `store` all of them, `loads` what is on its way.

mod counters;
mod directory;
mod file;
mod loads;
mod order;
mod record;
mod store;

#[cfg(test)]
mod day;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

pub use counters::DataFigures;
pub use directory::Access;
pub use directory::Faults;
pub use order::Policy;
pub use store::Clock;
pub use store::DataOptions;

use crate::fs::Allowance;
use crate::fs::Attr;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Layer;
use crate::fs::Memory;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::Slices;
use crate::fs::XattrMode;
use crate::metrics::Source;
use crate::spans;
use file::CachedFile;
use file::Files;
use loads::Loads;
use loads::Turn;
use record::Version;
use store::Put;
use store::Store;
use store::Taken;
use store::Threads;

/// The extended attribute by which the cache is asked through the mount: of a file, how many of its bytes are in the cache,
/// and how many it has; of a directory, how many bytes the cache takes, and how many it may take. It is not listed, and
/// removing it drops what is in the cache of the file, or of all files below the directory.
pub const ATTRIBUTE: &str = "user.alluxio-fuse.datacache";

/// Pages at hand of all readers together, as many as may wait to be written.
const AT_HAND_MAX: usize = store::QUEUE;

/// A file system whose files are kept on local disks once they are read.
pub struct DataCache {
    below: Arc<dyn FileSystem>,
    origin: u64,
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    threads: Threads,
    loads: Arc<Loads>,
    below_is_local: bool,
    memory: Option<Arc<dyn Allowance>>,
    /// How many readers have a page at hand.
    at_hand: AtomicUsize,
}

/// How much is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataUse {
    /// Pages.
    pub pages: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

impl DataCache {
    /// Over `below`. Takes the directories; fails, naming it, if one cannot be used or another process uses it.
    pub fn open(below: Arc<dyn FileSystem>, options: &DataOptions) -> io::Result<Self> {
        let store = Arc::new(Store::open(options)?);
        let threads = Threads::start(&store, options.ttl_interval)?;
        let (below_is_local, memory) = (options.below_is_local, options.memory.clone());
        let shared = Arc::new(Shared {
            store,
            threads,
            loads: Arc::default(),
            below_is_local,
            memory,
            at_hand: AtomicUsize::new(0),
        });
        Ok(Self { below, origin: record::origin(&options.origin), shared })
    }

    /// What is in it.
    pub fn usage(&self) -> DataUse {
        DataUse { pages: self.shared.store.pages(), bytes: self.shared.store.used() }
    }

    /// Drops everything: how many pages that were.
    pub fn drop_all(&self) -> usize {
        self.shared.store.drop_all()
    }

    /// Drops the file `path`, or all files below the directory `path`: how many pages that were.
    pub fn drop_below(&self, ctx: &Ctx, path: &FsPath) -> Result<usize> {
        let attr = self.below.stat(ctx, path)?;
        if attr.kind == FileKind::Regular {
            return Ok(self.shared.store.drop_file(Version::of(self.origin, &attr)));
        }
        let (mut dropped, mut listing) = (0, self.below.list(ctx, path)?);
        loop {
            let entries = listing.next_batch(ctx)?;
            if entries.is_empty() {
                return Ok(dropped);
            }
            for entry in entries {
                dropped += match entry.attr.kind {
                    FileKind::Regular => self.shared.store.drop_file(Version::of(self.origin, &entry.attr)),
                    FileKind::Directory => self.drop_below(ctx, &path.join(&entry.name)?)?,
                };
            }
        }
    }

    /// What it has done, and what is in it.
    pub fn figures(&self) -> DataFigures {
        let (usage, store) = (self.usage(), &self.shared.store);
        store.counters.figures(usage.pages, usage.bytes, store.limit())
    }

    /// The figures, for the log.
    pub fn report(&self) -> String {
        let (usage, counters) = (self.usage(), &self.shared.store.counters);
        let mut text = format!("data cache: {} pages, {} MiB", usage.pages, usage.bytes >> 20);
        for (name, value, unit) in [
            ("read from it", counters.hit.value() >> 20, " MiB"),
            ("not there", counters.missed.value() >> 20, " MiB"),
            ("loaded", counters.loaded.value() >> 20, " MiB"),
            ("written", counters.written.value() >> 20, " MiB"),
            ("not kept", counters.refused.value(), " pages"),
            ("failed", counters.failed.value(), " pages"),
            ("evicted", counters.evicted.value(), " pages"),
            ("expired", counters.expired.value(), " pages"),
            ("damaged", counters.damaged.value(), " pages"),
        ] {
            let _ = write!(text, ", {name} {value}{unit}");
        }
        text
    }
}

impl Memory for DataCache {
    fn forget_all(&self) {
        self.drop_all();
    }

    fn forget_around(&self, dir: &FsPath) {
        if let Err(err) = self.drop_below(&Ctx::daemon(), dir) {
            log::warn!("not all data of {dir} was dropped from the cache: {err}");
        }
    }

    fn len(&self) -> usize {
        self.usage().pages
    }

    fn bytes(&self) -> u64 {
        self.usage().bytes
    }
}

impl Layer for DataCache {
    fn below(&self) -> &dyn FileSystem {
        &*self.below
    }

    fn xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<Bytes> {
        if name != ATTRIBUTE {
            return self.below.xattr(ctx, path, name);
        }
        let (attr, store) = (self.below.stat(ctx, path)?, &self.shared.store);
        let text = match attr.kind {
            FileKind::Directory => format!("{} {}", store.used(), store.limit()),
            FileKind::Regular => format!("{} {}", store.cached(Version::of(self.origin, &attr)), attr.size),
        };
        Ok(text.into())
    }

    fn set_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        if name == ATTRIBUTE {
            return Err(FsError::because(
                Fault::NotPermitted,
                "what is in the cache is not for anybody to say",
            ));
        }
        self.below.set_xattr(ctx, path, name, value, mode)
    }

    fn remove_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<()> {
        if name != ATTRIBUTE {
            return self.below.remove_xattr(ctx, path, name);
        }
        let dropped = self.drop_below(ctx, path)?;
        log::info!("{dropped} pages of {path} are dropped from the data cache, as asked");
        Ok(())
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let inner = self.below.open(ctx, path)?;
        if inner.attr().size == 0 {
            return Ok(inner);
        }
        let file = self.shared.store.file(Version::of(self.origin, inner.attr()));
        let held = Mutex::new(file.hold());
        let shared = Arc::clone(&self.shared);
        let leave = Leave { shared: Arc::clone(&shared), number: file.number };
        Ok(Arc::new(Reader { inner, file, held, shared, last: Mutex::new(None), _leave: leave }))
    }
}

struct Reader {
    inner: Arc<dyn FileReader>,
    file: Arc<CachedFile>,
    /// Keeps the files of the cache open between two reads.
    held: Mutex<Option<Arc<Files>>>,
    shared: Arc<Shared>,
    last: Mutex<Option<Last>>,
    /// After `file`.
    _leave: Leave,
}

/// Has the store look after a file when its user has let go of it: to be dropped after that.
struct Leave {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.store.look_after(self.number);
    }
}

/// The page that was used last.
struct Last {
    index: u32,
    /// It was come to from its start or from the page before, so the rest of it will be wanted next.
    in_order: bool,
    /// Its bytes, if they could not be kept and there is more of it to come.
    at_hand: Option<AtHand>,
}

/// The bytes of a page, and their memory. One of a bounded number, as a reader may have it for as long as it is open.
struct AtHand {
    bytes: Slices,
    _taken: Taken,
    shared: Arc<Shared>,
}

impl AtHand {
    /// Nothing if there are too many.
    fn new(shared: &Arc<Shared>, bytes: Slices, taken: Taken) -> Option<Self> {
        let shared = Arc::clone(shared);
        let more = |count: usize| (count < AT_HAND_MAX).then_some(count + 1);
        shared.at_hand.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { bytes, _taken: taken, shared })
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        self.shared.at_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader {
    /// The bytes `from..to` of page `index`.
    fn piece(&self, ctx: &Ctx, index: u32, from: usize, to: usize) -> Result<Slices> {
        let store = &self.shared.store;
        if let Some(bytes) = self.at_hand(index, from, to) {
            return Ok(bytes);
        }
        if let Some(bytes) = store.read(&self.file, index, from, to) {
            store.counters.hit(bytes.len());
            self.note_use(index, from, false);
            return Ok(Slices::from(bytes).from_source(Source::DataCache));
        }
        self.note_use(index, from, true);
        let page_size = store.page_size();
        let start = u64::from(index) * page_size;
        if !store.accepts(&self.file) {
            store.counters.miss(to - from);
            return self.inner.read_at(ctx, start + from as u64, to - from);
        }
        let key = (self.file.number, index);
        loop {
            match self.shared.loads.join(ctx, key)? {
                Turn::Loaded(page) => {
                    store.counters.hit(to - from);
                    return Ok(page.part(from, to).from_source(Source::Memory));
                }
                Turn::Again => {}
                // Somebody may have put it there since it was looked for.
                Turn::Mine(load) if self.file.has(index) => {
                    if let Some(bytes) = store.read(&self.file, index, from, to) {
                        store.counters.hit(bytes.len());
                        return Ok(Slices::from(bytes).from_source(Source::DataCache));
                    }
                    // It stays there, but cannot be had.
                    if self.file.has(index) {
                        store.counters.miss(to - from);
                        drop(load);
                        return self.inner.read_at(ctx, start + from as u64, to - from);
                    }
                }
                Turn::Mine(load) => {
                    store.counters.miss(to - from);
                    let len = self.file.version.page_len(page_size, index) as usize;
                    let Some(taken) = self.shared.take_memory(len as u64) else {
                        // No memory for what nobody has asked for.
                        store.counters.refused.add(1);
                        drop(load);
                        return self.inner.read_at(ctx, start + from as u64, to - from);
                    };
                    let page = match self.inner.read_at(ctx, start, len) {
                        Ok(page) => page,
                        Err(err) => {
                            if ctx.check().is_ok() && err.fault() != Fault::Interrupted {
                                load.failed(err.clone());
                            }
                            return Err(err);
                        }
                    };
                    store.counters.loaded.add(page.len() as u64);
                    // Few pages come from several places; then it is the one with the most of it.
                    let source = page.sources().main().unwrap_or(Source::Memory);
                    if page.len() != len {
                        // Shorter than its version says: nothing to be kept.
                        return Ok(page.part(from, to).from_source(source));
                    }
                    let done = load.loaded(page.clone());
                    let put = Put {
                        file: Arc::clone(&self.file),
                        index,
                        bytes: page.clone(),
                        taken,
                        done: Box::new(done),
                    };
                    if let Err(taken) = self.shared.threads.put(put)
                        && to < len
                        && let Some(last) = self.last.lock().as_mut()
                        && last.index == index
                        && last.in_order
                    {
                        last.at_hand = AtHand::new(&self.shared, page.clone(), taken);
                    }
                    return Ok(page.part(from, to).from_source(source));
                }
            }
        }
    }

    /// A page that is not kept on disk, while it is being read in order.
    fn at_hand(&self, index: u32, from: usize, to: usize) -> Option<Slices> {
        let mut last = self.last.lock();
        let last = last.as_mut().filter(|last| last.index == index)?;
        let bytes = last.at_hand.as_ref()?.bytes.part(from, to);
        if to as u64 == self.file.version.page_len(self.shared.store.page_size(), index) {
            last.at_hand = None;
        }
        Some(bytes.from_source(Source::Memory))
    }

    /// Page `index` is used, at `from`, after another one: reads that follow each other in it are one use.
    fn note_use(&self, index: u32, from: usize, absent: bool) {
        let mut last = self.last.lock();
        let before = last.as_ref().map(|last| last.index);
        if before != Some(index) {
            let in_order = from == 0 || before.is_some_and(|before| before.checked_add(1) == Some(index));
            *last = Some(Last { index, in_order, at_hand: None });
            drop(last);
            if !absent {
                self.shared.store.touch(&self.file, index);
            }
        }
        let mut held = self.held.lock();
        if held.as_ref().is_none_or(|files| files.are_gone()) {
            *held = if absent { None } else { self.file.hold() };
        }
    }
}

impl Shared {
    /// Memory for a page of `bytes`, if there is.
    fn take_memory(&self, bytes: u64) -> Option<Taken> {
        self.memory.as_ref().map_or(Some(None), |memory| memory.take(bytes).map(Some))
    }
}

/// Keeps the pages of a file that the kernel reads.
struct Pin {
    shared: Arc<Shared>,
    file: Arc<CachedFile>,
    _files: Arc<Files>,
    /// After `file`.
    _leave: Leave,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.store.unpin(&self.file);
    }
}

impl FileReader for Reader {
    fn attr(&self) -> &Attr {
        self.inner.attr()
    }

    /// The file of the cache if all of it is there, else a file of a worker on this machine, which is as near. Where all
    /// files are of this machine somebody wants them nearer.
    fn backing(&self, ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        let store = &self.shared.store;
        let mut pinned = store.pin(&self.file);
        if matches!(pinned, file::Pin::Unchecked) {
            if self.file.version.size <= store::VERIFY_MAX {
                store.check(&self.file);
                pinned = store.pin(&self.file);
            } else {
                self.shared.threads.check(&self.file);
            }
        }
        if let file::Pin::Pinned(file, files) = pinned {
            let leave = Leave { shared: Arc::clone(&self.shared), number: self.file.number };
            let pin = Pin {
                shared: Arc::clone(&self.shared),
                file: Arc::clone(&self.file),
                _files: files,
                _leave: leave,
            };
            return Ok(Ok(Backing { file, keeper: Box::new(pin), is_copy: true }));
        }
        if self.shared.below_is_local { Ok(Err(NoBacking::Pieces)) } else { self.inner.backing(ctx) }
    }

    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        let _step = spans::step("data cache");
        let page_size = self.shared.store.page_size();
        let end = (offset.saturating_add(len as u64)).min(self.file.version.size);
        let (mut slices, mut at) = (Slices::new(), offset);
        while at < end {
            let index = u32::try_from(at / page_size).expect("as many pages as a u32 counts");
            let start = u64::from(index) * page_size;
            let (from, to) = (at - start, (end - start).min(page_size));
            let piece = self.piece(ctx, index, from as usize, to as usize)?;
            let got = piece.len() as u64;
            slices.append(piece);
            if got < to - from {
                break;
            }
            at = start + to;
        }
        Ok(slices)
    }
}
