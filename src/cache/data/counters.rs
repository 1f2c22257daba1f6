//! What the data cache has done, in numbers.

use crate::metrics::Counter;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes read from pages.
    pub(super) hit: Counter,
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
    /// Pages whose time was over.
    pub(super) expired: Counter,
    /// Pages that were found damaged.
    pub(super) damaged: Counter,
}
