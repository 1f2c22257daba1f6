//! An open file for reading: maps the blocks that a local worker holds, and fetches ranges of the others.
//!
//! Every step of a fetch has a time-out of its own, and so has the trying of other workers: a read has none beside
//! those, so that it does not end while there is still another worker to ask.
//!
//! Lock order: none is held while another is taken, and none across a wait.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use super::backing::backing;
use super::block_read::Blocks;
use super::error::Class;
use super::fetch::Fetch;
use super::layout::Layout;
use super::layout::Piece;
use super::local_block;
use super::local_block::LocalBlocks;
use super::window::Plan;
use super::window::Window;
use crate::fs::Attr;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::Slices;

/// Opens the complete file `path`, a path in Alluxio.
pub(super) fn open(shared: &Arc<Shared>, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
    let info = shared.bridge.run(ctx, None, async {
        let info = shared.master.open_status(path).await?;
        if info.folder() {
            return Err(Fault::IsDirectory.into());
        }
        shared.check_read(path, &info).await?;
        if !info.completed() {
            return Err(FsError::because(Fault::Busy, format!("{path} is still being written")));
        }
        Ok(info)
    })?;
    let attr = shared.attr(&info);
    let blocks = Arc::new(Blocks::new(Arc::clone(shared), path.clone(), &info)?);
    Ok(Arc::new(Reader::new(Arc::clone(shared), path.clone(), attr, blocks)))
}

struct Reader {
    shared: Arc<Shared>,
    path: FsPath,
    attr: Attr,
    layout: Layout,
    blocks: Arc<Blocks>,
    window: Mutex<Window<Fetch>>,
    local: LocalBlocks,
    /// Whether blocks of this file may be read from a local worker's files. Ends with the first file that is
    /// not where its worker says: the worker then lives in a container with another view of the disk.
    short_circuit: AtomicBool,
    /// Whether some block was mapped, so that the next one probably will be, too.
    has_mapped: AtomicBool,
}

impl Reader {
    fn new(shared: Arc<Shared>, path: FsPath, attr: Attr, blocks: Arc<Blocks>) -> Self {
        let layout = blocks.layout();
        let window = Mutex::new(Window::new(layout, Arc::clone(&shared.data.read_ahead)));
        let short_circuit = AtomicBool::new(shared.options.short_circuit);
        let has_mapped = AtomicBool::new(false);
        Self {
            shared,
            path,
            attr,
            layout,
            blocks,
            window,
            local: LocalBlocks::default(),
            short_circuit,
            has_mapped,
        }
    }

    /// The whole of block `block` if a local worker's file has it.
    fn mapped(&self, ctx: &Ctx, block: usize) -> Result<Option<Bytes>> {
        if !self.short_circuit.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let slot = self.local.slot(block);
        if let Some(known) = slot.get() {
            return Ok(known.clone());
        }
        let map = async { slot.get_or_try_init(|| self.map(block)).await.cloned() };
        self.shared.bridge.run(ctx, None, map)
    }

    async fn map(&self, block: usize) -> Result<Option<Bytes>> {
        let info = self.blocks.info(block).await?;
        let holders = self.shared.workers.holders(&info).await;
        let options = &self.shared.options;
        let Some(worker) = holders.iter().find(|worker| worker.local && worker.short_circuit(options)) else {
            return Ok(None);
        };
        let len = self.layout.block_len(block);
        match local_block::map(&self.shared, worker, info.block_id(), len, self.blocks.promotes()).await {
            Ok(local_block::Found::Mapped(bytes)) => {
                self.has_mapped.store(true, Ordering::Relaxed);
                Ok(Some(bytes))
            }
            Ok(local_block::Found::Elsewhere(why)) => {
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

    /// The bytes of `range`, which lies in one block, by way of workers.
    fn fetched(&self, ctx: &Ctx, range: Range<u64>) -> Result<Slices> {
        let bound = if self.has_mapped.load(Ordering::Relaxed) {
            self.layout.border_after(range.start)
        } else {
            self.layout.len()
        };
        let plan = self.window.lock().plan(range.clone(), bound, Fetch::new);
        for fetch in &plan.start {
            self.blocks.start(fetch);
        }
        let slices = match ready(&plan)? {
            Some(slices) => slices,
            None => self.shared.bridge.run(ctx, None, arrival(&plan))?,
        };
        self.window.lock().consumed(&range);
        Ok(slices)
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

impl FileReader for Reader {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        ctx.check()?;
        let wanted = self.layout.clip(offset, len);
        let mut slices = Slices::new();
        for Piece { block, range } in self.layout.pieces(wanted.clone()) {
            match self.mapped(ctx, block)? {
                Some(bytes) => slices.push(bytes.slice(range.start as usize..range.end as usize)),
                None => {
                    let start = self.layout.block_start(block);
                    slices.append(self.fetched(ctx, start + range.start..start + range.end)?);
                }
            }
        }
        assert_eq!(slices.len() as u64, wanted.end - wanted.start, "a read of {wanted:?} of {}", self.path);
        Ok(slices)
    }

    fn backing(&self, ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        if self.layout.blocks() != 1 {
            return Ok(Err(NoBacking::Pieces));
        }
        let opened = backing(&self.shared, &self.path, &self.blocks, &self.short_circuit);
        self.shared.bridge.run(ctx, None, async { Ok(opened.await) })
    }
}
