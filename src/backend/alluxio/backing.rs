//! The block file of a local worker in the place of a file of one block, for the kernel to read by itself.
//!
//! It costs the same call as the first read by way of a mapping would, and no more: a file of several blocks, or of none
//! on this machine, costs nothing. The lease is held until nobody reads the file any more.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Shared;
use super::block_read::Blocks;
use super::error::Class;
use super::local_block;
use super::local_block::Opened;
use crate::fs::Backing;
use crate::fs::FsPath;
use crate::fs::NoBacking;
use crate::metrics;

/// Leases that a mount holds for files which the kernel reads by itself. A worker has 1,000 locks for its blocks
/// (`alluxio.worker.tieredstore.block.locks`), and who wants one more waits: files that are just open must not use
/// them up.
pub(super) const LEASES_MAX: usize = 256;

/// The file of the only block of `path`, which has just one. `short_circuit` says whether block files can be opened here, and is cleared
/// when it turns out that they cannot.
pub(super) async fn backing(
    shared: &Shared,
    path: &FsPath,
    blocks: &Blocks,
    short_circuit: &AtomicBool,
) -> Result<Backing, NoBacking> {
    if !short_circuit.load(Ordering::Relaxed) {
        return Err(NoBacking::Remote);
    }
    let Ok(permit) = Arc::clone(&shared.data.passed).try_acquire_owned() else {
        return Err(NoBacking::Limit);
    };
    let info = blocks.info(0).await.map_err(|_| NoBacking::Failed)?;
    let holders = shared.workers.holders(&info).await;
    let Some(worker) = shared.workers.near(&holders) else { return Err(NoBacking::Remote) };
    let len = blocks.layout().block_len(0);
    match local_block::open(shared, worker, info.block_id(), len, blocks.promotes()).await {
        Ok(Opened::Here(file, lease)) => {
            Ok(Backing { file: Arc::new(file), keeper: Box::new((lease, permit)), is_copy: false })
        }
        Ok(Opened::Elsewhere(why)) => {
            metrics::FALLBACK_READ.count();
            log::info!("no short circuit for {path}: {why}");
            short_circuit.store(false, Ordering::Relaxed);
            Err(NoBacking::Remote)
        }
        Err(failure) => {
            if failure.class == Class::Connection {
                shared.workers.failed(&worker.address, &failure);
            }
            log::debug!("{path} is not passed through: {}", failure.error);
            Err(NoBacking::Failed)
        }
    }
}
