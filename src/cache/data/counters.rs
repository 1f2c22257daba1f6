//! What the data cache has done, in numbers.

use crate::metrics::Counter;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes read from pages.
    pub(super) hit: Counter,
    /// Reads of a page that was there.
    pub(super) hits: Counter,
    /// Reads of a page that was not.
    pub(super) misses: Counter,
    /// Bytes that readers wanted and that were not there.
    pub(super) missed: Counter,
    /// Bytes read from the backend, whole pages.
    pub(super) loaded: Counter,
    /// Bytes put on disk.
    pub(super) written: Counter,
    /// Pages that were not kept: no room, too many waiting, a directory that cannot be written.
    pub(super) refused: Counter,
    /// Pages that could not be written.
    pub(super) failed: Counter,
    /// Pages given up for others.
    pub(super) evicted: Counter,
    /// The bytes of these.
    pub(super) evicted_bytes: Counter,
    /// Pages whose time was over.
    pub(super) expired: Counter,
    /// Pages that were found damaged.
    pub(super) damaged: Counter,
}

impl Counters {
    /// `bytes` of a page are read from it.
    pub(super) fn hit(&self, bytes: usize) {
        self.hits.add(1);
        self.hit.add(bytes as u64);
    }

    /// `bytes` of a page that is not there are wanted.
    pub(super) fn miss(&self, bytes: usize) {
        self.misses.add(1);
        self.missed.add(bytes as u64);
    }

    /// All of it as plain numbers, with what is in the cache.
    pub(super) fn figures(&self, pages: usize, used: u64, limit: u64) -> DataFigures {
        DataFigures {
            hits: self.hits.value(),
            hit_bytes: self.hit.value(),
            misses: self.misses.value(),
            missed_bytes: self.missed.value(),
            loaded_bytes: self.loaded.value(),
            written_bytes: self.written.value(),
            refused: self.refused.value(),
            failed: self.failed.value(),
            evicted: self.evicted.value(),
            evicted_bytes: self.evicted_bytes.value(),
            expired: self.expired.value(),
            damaged: self.damaged.value(),
            pages: pages as u64,
            used_bytes: used,
            limit_bytes: limit,
        }
    }
}

/// What the data cache has done since it was opened, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFigures {
    /// Reads of a page that was there.
    pub hits: u64,
    /// Bytes read from pages.
    pub hit_bytes: u64,
    /// Reads of a page that was not there.
    pub misses: u64,
    /// Bytes that readers wanted and that were not there.
    pub missed_bytes: u64,
    /// Bytes read from the backend, whole pages.
    pub loaded_bytes: u64,
    /// Bytes put on disk.
    pub written_bytes: u64,
    /// Pages that were not kept.
    pub refused: u64,
    /// Pages that could not be written.
    pub failed: u64,
    /// Pages given up for others.
    pub evicted: u64,
    /// The bytes of these.
    pub evicted_bytes: u64,
    /// Pages whose time was over.
    pub expired: u64,
    /// Pages that were found damaged.
    pub damaged: u64,
    /// Pages in it.
    pub pages: u64,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Bytes that they may take.
    pub limit_bytes: u64,
}
