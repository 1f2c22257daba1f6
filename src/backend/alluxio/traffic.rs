//! How many bytes went to and came from workers. Counts what crossed the network, not what was asked for:
//! the two together show how much is read in vain.

use std::fmt;
use std::fmt::Display;
use std::fmt::Formatter;

use crate::metrics::Counter;

/// Counters of one backend.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) streams: Counter,
    pub(super) mapped: Counter,
    /// Streams and calls to workers of every kind.
    pub(super) worker_calls: Counter,
}

/// What went over the wire since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of blocks that workers sent.
    pub received: u64,
    /// Bytes of blocks sent to workers.
    pub sent: u64,
    /// Streams opened to read ranges of blocks.
    pub streams: u64,
    /// Blocks mapped from a local worker's files.
    pub mapped: u64,
    /// Calls to masters, repeated ones each time.
    pub master_calls: u64,
    /// Calls to workers of every kind, a stream counted once.
    pub worker_calls: u64,
}

impl Display for Traffic {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { received, sent, streams, mapped, master_calls, worker_calls } = self;
        write!(
            out,
            "calls: {master_calls} to masters, {worker_calls} to workers; {received} bytes received in "
        )?;
        write!(out, "{streams} streams, {sent} bytes sent, {mapped} blocks mapped")
    }
}

impl Counters {
    /// The values now, and that many calls to masters.
    pub(super) fn traffic(&self, master_calls: u64) -> Traffic {
        Traffic {
            received: self.received.value(),
            sent: self.sent.value(),
            streams: self.streams.value(),
            mapped: self.mapped.value(),
            master_calls,
            worker_calls: self.worker_calls.value(),
        }
    }
}
