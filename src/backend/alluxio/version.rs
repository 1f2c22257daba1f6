//! One version of a file as all its open handles share it: its mapped blocks, and one window of fetches, so that
//! many readers of a remote file fetch each byte about once.
//!
//! Handles share only what is the same for all of them: the same file by number, length and place, opened by the same
//! options, and known to the master in the same way. A file that was persisted meanwhile is another version: who opened
//! it before does not know where in the under file system it is.
//!
//! Lock order: none is held while another is taken, and none across a wait.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;
use tokio::time::sleep;

use super::Shared;
use super::backing::backing;
use super::block_read::Blocks;
use super::error::Class;
use super::fetch::Fetch;
use super::layout::Layout;
use super::local_block;
use super::mapped_blocks::FileBlocks;
use super::proto::grpc::file::FileInfo;
use super::window::Plan;
use super::window::Reach;
use super::window::Window;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::FsPath;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics;
use crate::metrics::Source;
use crate::waiting;

/// How often a read begins anew because a fetch failed that others had started before it came. What one handle's fetch
/// met, after however long, is not the verdict on another's.
const REJOINS_MAX: u32 = 2;

/// What handles must have in common to share.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    path: FsPath,
    file_id: i64,
    length: i64,
    block_size: i64,
    modified_ms: i64,
    persistence: String,
    ufs_path: String,
    mount_id: i64,
    /// Where the options of its path are: those in use stay where they are.
    options: usize,
}

/// All versions that are open.
#[derive(Default)]
pub(super) struct Versions {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    versions: HashMap<Key, Weak<Version>>,
    /// Whether a task looks after them.
    tended: bool,
}

/// How often it is looked for windows that nobody uses.
const TEND_EVERY: Duration = Duration::from_secs(5);

impl Versions {
    fn all(&self) -> Vec<Arc<Version>> {
        self.open.lock().versions.values().filter_map(Weak::upgrade).collect()
    }

    /// Gives up what is held for readers who are behind, as somebody else needs memory.
    pub(super) fn make_room(&self) {
        for version in self.all() {
            version.window.lock().keep_nothing();
        }
    }

    /// Gives up what files hold that were not read since the last time. Tells whether any file is open.
    fn tend(&self) -> bool {
        let all = self.all();
        for version in &all {
            if !version.in_use.swap(false, Ordering::Relaxed) {
                version.window.lock().rest();
            }
        }
        let mut open = self.open.lock();
        open.tended = !open.versions.is_empty();
        open.tended
    }
}

/// Runs while there are open files.
async fn tend(shared: Weak<Shared>) {
    loop {
        sleep(TEND_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.data.versions.tend() {
            return;
        }
    }
}

/// One version of a file, while some handle has it open.
pub(super) struct Version {
    shared: Arc<Shared>,
    key: Key,
    path: FsPath,
    layout: Layout,
    blocks: Arc<Blocks>,
    window: Mutex<Window<Fetch>>,
    local: FileBlocks,
    /// Whether blocks of this file may be read from a local worker's files. Ends with the first file that is
    /// not where its worker says: the worker then lives in a container with another view of the disk.
    short_circuit: AtomicBool,
    /// Whether some block was mapped, so that the next one probably will be, too.
    has_mapped: AtomicBool,
    /// Whether some block was mapped that is not in memory.
    on_disk: AtomicBool,
    /// Whether it was read by way of the window since somebody last looked.
    in_use: AtomicBool,
}

/// One handle's part in a version.
pub(super) struct Member(Arc<Version>);

impl std::ops::Deref for Member {
    type Target = Arc<Version>;

    fn deref(&self) -> &Arc<Version> {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.window.lock().left();
    }
}

/// The version of the complete file `info` at `path`, for one handle more.
pub(super) fn join(shared: &Arc<Shared>, path: &FsPath, info: &FileInfo) -> Result<Member> {
    let fresh = Arc::new(Blocks::new(Arc::clone(shared), path.clone(), info)?);
    let key = Key {
        path: path.clone(),
        file_id: info.file_id(),
        length: info.length(),
        block_size: info.block_size_bytes(),
        modified_ms: info.last_modification_time_ms(),
        persistence: info.persistence_state().to_owned(),
        ufs_path: info.ufs_path().to_owned(),
        mount_id: info.mount_id(),
        options: fresh.options_place(),
    };
    let version = {
        let mut open = shared.data.versions.open.lock();
        match open.versions.get(&key).and_then(Weak::upgrade) {
            Some(version) => version,
            None => {
                let version = Arc::new(Version::new(Arc::clone(shared), key.clone(), Arc::clone(&fresh)));
                open.versions.insert(key, Arc::downgrade(&version));
                if !std::mem::replace(&mut open.tended, true) {
                    shared.bridge.spawn(tend(Arc::downgrade(shared)));
                }
                version
            }
        }
    };
    if !Arc::ptr_eq(&version.blocks, &fresh) {
        version.blocks.take_over(&fresh);
        version.local.look_again();
    }
    version.window.lock().joined();
    Ok(Member(version))
}

impl Drop for Version {
    fn drop(&mut self) {
        let mut open = self.shared.data.versions.open.lock();
        // Another of the same kind may have been opened since the last handle of this one went.
        if open.versions.get(&self.key).is_some_and(|weak| weak.strong_count() == 0) {
            open.versions.remove(&self.key);
        }
    }
}

impl Version {
    fn new(shared: Arc<Shared>, key: Key, blocks: Arc<Blocks>) -> Self {
        let layout = blocks.layout();
        let reach = Reach { ahead: shared.options.read_ahead_max, fetch: shared.options.fetch_max };
        let window = Mutex::new(Window::new(layout, reach, Arc::clone(&shared.data.memory)));
        let short_circuit = AtomicBool::new(shared.options.short_circuit);
        let (has_mapped, on_disk) = (AtomicBool::new(false), AtomicBool::new(false));
        let in_use = AtomicBool::new(false);
        let path = key.path.clone();
        Self {
            shared,
            key,
            path,
            layout,
            blocks,
            window,
            local: FileBlocks::default(),
            short_circuit,
            has_mapped,
            on_disk,
            in_use,
        }
    }

    /// How the file is cut into blocks.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The local file that has just the bytes of this version.
    pub(super) fn backing(&self, ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        if self.layout.blocks() != 1 {
            return Ok(Err(NoBacking::Pieces));
        }
        let opened = backing(&self.shared, &self.path, &self.blocks, &self.short_circuit);
        self.shared.bridge.run(ctx, None, async { Ok(opened.await) })
    }

    /// The whole of block `block` if a local worker's file has it.
    pub(super) fn mapped(&self, ctx: &Ctx, block: usize) -> Result<Option<Bytes>> {
        if !self.short_circuit.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let slot = self.local.slot(block);
        let mappings = &self.shared.data.mappings;
        match mappings.known(&slot) {
            Some(known) => Ok(known),
            None => self.shared.bridge.run(ctx, None, mappings.get(&slot, self.map(block))),
        }
    }

    /// Whether reading what is mapped may take the time of a disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.on_disk.load(Ordering::Relaxed)
    }

    async fn map(&self, block: usize) -> Result<Option<Bytes>> {
        let info = self.blocks.info(block).await?;
        let holders = self.shared.workers.holders(&info).await;
        let Some(worker) = self.shared.workers.near(&holders) else { return Ok(None) };
        let len = self.layout.block_len(block);
        match local_block::map(&self.shared, worker, info.block_id(), len, self.blocks.promotes()).await {
            Ok(local_block::Found::Mapped { bytes, on_disk }) => {
                self.has_mapped.store(true, Ordering::Relaxed);
                self.on_disk.fetch_or(on_disk, Ordering::Relaxed);
                Ok(Some(bytes))
            }
            Ok(local_block::Found::Elsewhere(why)) => {
                metrics::FALLBACK_READ.count();
                log::info!("no short circuit for {}: {why}", self.path);
                self.short_circuit.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(failure) => {
                if failure.class == Class::Connection {
                    self.shared.workers.failed(&worker.address, &failure);
                }
                log::debug!("block {block} of {} is read through its worker: {}", self.path, failure.error);
                Ok(None)
            }
        }
    }

    /// Waits for memory if there is none for `bytes`.
    fn admitted(&self, ctx: &Ctx, bytes: u64) -> Result<Option<SemaphorePermit<'_>>> {
        let memory = &self.shared.data.memory;
        if memory.has_room(bytes) {
            return Ok(None);
        }
        self.shared.data.versions.make_room();
        let _wait = waiting::wait(&Arc::default(), "memory (alluxio.fuse.memory.limit)");
        self.shared.bridge.run(ctx, None, async { Ok(memory.admit(bytes).await) })
    }

    /// The bytes of `range`, which lies in one block, by way of workers.
    pub(super) fn fetched(&self, ctx: &Ctx, range: Range<u64>) -> Result<Slices> {
        let bound = if self.has_mapped.load(Ordering::Relaxed) {
            self.layout.border_after(range.start)
        } else {
            self.layout.len()
        };
        self.in_use.store(true, Ordering::Relaxed);
        let _place = self.admitted(ctx, range.end - range.start)?;
        let mut rejoins = 0;
        loop {
            let plan = self.window.lock().plan(range.clone(), bound, Fetch::new);
            for fetch in &plan.start {
                self.blocks.start(fetch);
            }
            let result = match ready(&plan) {
                Ok(None) => self.shared.bridge.run(ctx, None, arrival(&plan)),
                // Nobody had to be asked for it.
                Ok(Some(slices)) => Ok(slices.from_source(Source::Memory)),
                Err(error) => Err(error),
            };
            match result {
                Ok(slices) => {
                    self.window.lock().consumed(&range);
                    return Ok(slices);
                }
                Err(_) if rejoins < REJOINS_MAX && plan.failed_by_others() => rejoins += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// What `plan` is for, if all of it is here.
fn ready(plan: &Plan<Fetch>) -> Result<Option<Slices>> {
    let mut slices = Slices::new();
    for (part, fetch) in &plan.parts {
        match fetch.ready(part)? {
            Some(bytes) => slices.append(bytes),
            None => return Ok(None),
        }
    }
    Ok(Some(slices))
}

async fn arrival(plan: &Plan<Fetch>) -> Result<Slices> {
    let mut slices = Slices::new();
    for (part, fetch) in &plan.parts {
        slices.append(fetch.read(part).await?);
    }
    Ok(slices)
}
