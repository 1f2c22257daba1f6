//! What all open files of one backend share on the way of their data.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

use super::backing::LEASES_MAX;
use super::budget::Budget;
use super::options::AlluxioOptions;
use super::traffic::Counters;

/// Memory that all readers together may fill before anybody asks for it.
const READ_AHEAD_MAX: u64 = 256 << 20;

/// The shared part of all readers and writers.
pub(super) struct DataPath {
    /// For reading ahead.
    pub(super) read_ahead: Arc<Budget>,
    /// What went over the wire.
    pub(super) traffic: Counters,
    /// One permit for each lease of a file that the kernel reads by itself.
    pub(super) passed: Arc<Semaphore>,
    writes_locally: AtomicBool,
}

impl DataPath {
    /// Before the first file is opened.
    pub(super) fn new(options: &AlluxioOptions) -> Self {
        Self {
            read_ahead: Budget::new(READ_AHEAD_MAX),
            traffic: Counters::default(),
            passed: Arc::new(Semaphore::new(LEASES_MAX)),
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
