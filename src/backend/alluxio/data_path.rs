//! What all open files of one backend share on the way of their data.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

use super::backing::LEASES_MAX;
use super::budget::Budget;
use super::mapped_blocks::Mappings;
use super::options::AlluxioOptions;
use super::traffic::Counters;
use super::ufs_names::UfsNames;
use super::version::Versions;
use crate::metrics::Counter;

/// The shared part of all readers and writers.
pub(super) struct DataPath {
    /// For all data on its way.
    pub(super) memory: Arc<Budget>,
    /// Names that were moved or replaced through this mount, counted as it begins.
    pub(super) moves: Counter,
    /// What went over the wire.
    pub(super) traffic: Counters,
    /// One permit for each lease of a file that the kernel reads by itself.
    pub(super) passed: Arc<Semaphore>,
    /// The files that are open for reading.
    pub(super) versions: Versions,
    /// The bound of what they have mapped.
    pub(super) mappings: Mappings,
    /// What workers write in the under file system.
    pub(super) ufs_names: Arc<UfsNames>,
    writes_locally: AtomicBool,
}

impl DataPath {
    /// Before the first file is opened.
    pub(super) fn new(options: &AlluxioOptions) -> Self {
        Self {
            memory: Budget::new(options.memory_limit),
            moves: Counter::default(),
            traffic: Counters::default(),
            passed: Arc::new(Semaphore::new(LEASES_MAX)),
            versions: Versions::default(),
            mappings: Mappings::default(),
            ufs_names: Arc::default(),
            writes_locally: AtomicBool::new(options.short_circuit),
        }
    }

    /// Whether to write into the block files of a local worker.
    pub(super) fn writes_locally(&self) -> bool {
        self.writes_locally.load(Ordering::Relaxed)
    }

    /// A local worker's block file was not to be had from here, so no other will.
    pub(super) fn write_remotely(&self) {
        self.writes_locally.store(false, Ordering::Relaxed);
    }
}
