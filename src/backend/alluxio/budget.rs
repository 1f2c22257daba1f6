//! The memory for data on its way: one limit for all open files of the mount, and a count of who uses how much.
//!
//! At the limit the mount slows down instead of growing: nothing is read ahead, writers wait until what they wrote has
//! arrived. A request that needs memory to finish always gets it, but at the limit only [`CROWD_MAX`] readers go on at a
//! time, and a writer only when nothing that it wrote before is still in memory. So nobody waits for memory that is held by
//! somebody who waits: what the few hold ends with their requests, which have time-outs of their own.

use std::fmt;
use std::fmt::Display;
use std::fmt::Formatter;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

use crate::fs::Allowance;

/// Below this a part of what was wanted is not worth a stream of its own.
const PART_MIN: u64 = 128 * 1024;

/// One who reads ahead gets at most this fraction of what is left, so that many open files share and the budget
/// runs out slowly instead of at the door of the last one. It also leaves something for writers.
const SHARE: u64 = 8;

/// Reads that go on at a time when there is no memory.
const CROWD_MAX: usize = 4;

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// What a read has asked for, until nobody wants it any more; and pages on their way to the data cache.
    Read,
    /// What is fetched before somebody asks.
    ReadAhead,
    /// What was written and is not known to have arrived.
    Write,
}

/// Who uses how much of the memory for data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that there is.
    pub limit: u64,
    /// What reads have asked for, as far as it is here or on its way, what is kept for other readers of the file, and
    /// pages on their way to the data cache.
    pub read: u64,
    /// What is fetched ahead of readers.
    pub read_ahead: u64,
    /// What was written and is not known to have arrived.
    pub write: u64,
    /// Address space of mapped blocks, which is not part of the limit: they are the worker's pages.
    pub mapped: u64,
}

impl Memory {
    /// What data takes of the limit just now.
    pub fn held(&self) -> u64 {
        self.read + self.read_ahead + self.write
    }
}

impl Display for Memory {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { limit, read, read_ahead, write, mapped } = self;
        write!(
            out,
            "memory for data: read {read}, read ahead {read_ahead}, written {write} of {limit} bytes; "
        )?;
        write!(out, "{mapped} bytes of blocks mapped")
    }
}

/// The memory of one mount.
pub(super) struct Budget {
    limit: u64,
    total: AtomicU64,
    /// By [`Use`].
    used: [AtomicU64; 3],
    /// Told when some comes back.
    back: Notify,
    crowd: Semaphore,
}

/// Bytes taken from a budget, given back on drop.
pub(super) struct Permit {
    budget: Arc<Budget>,
    purpose: Use,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            total: AtomicU64::new(0),
            used: Default::default(),
            back: Notify::new(),
            crowd: Semaphore::new(CROWD_MAX),
        })
    }

    /// Up to `wanted` bytes to read ahead, or nothing when so little is left that it does not pay.
    pub(super) fn take(self: &Arc<Self>, wanted: u64) -> Option<Permit> {
        let mut total = self.total.load(Ordering::Relaxed);
        loop {
            let bytes = wanted.min(self.limit.saturating_sub(total) / SHARE);
            if bytes == 0 || bytes < wanted.min(PART_MIN) {
                return None;
            }
            let grown = total + bytes;
            match self.total.compare_exchange_weak(total, grown, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.used[Use::ReadAhead as usize].fetch_add(bytes, Ordering::Relaxed);
                    return Some(Permit { budget: Arc::clone(self), purpose: Use::ReadAhead, bytes });
                }
                Err(now) => total = now,
            }
        }
    }

    /// `bytes` for somebody who goes another way without them.
    fn take_all(self: &Arc<Self>, purpose: Use, bytes: u64) -> Option<Permit> {
        let room = |total: u64| total.checked_add(bytes).filter(|grown| *grown <= self.limit);
        self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        self.used[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        Some(Permit { budget: Arc::clone(self), purpose, bytes })
    }

    /// `bytes` for somebody who must have them, whatever is left.
    pub(super) fn charge(self: &Arc<Self>, purpose: Use, bytes: u64) -> Permit {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.used[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        Permit { budget: Arc::clone(self), purpose, bytes }
    }

    /// Whether there is room for `bytes` more.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.total.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit
    }

    /// Whether so much is used that nothing should be held that could be had again.
    pub(super) fn is_tight(&self) -> bool {
        self.total.load(Ordering::Relaxed) > self.limit / 2
    }

    /// At most this much should one file keep for its readers.
    pub(super) fn share(&self) -> u64 {
        self.limit / SHARE
    }

    /// Waits until there is room for `bytes`, or one of the few places for those who go on without.
    pub(super) async fn admit(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            place = self.crowd.acquire() => Some(place.expect("it is never closed")),
            () = self.room(bytes) => None,
        }
    }

    /// Waits until there is room for `bytes`. For somebody who can go on without, too.
    pub(super) async fn room(&self, bytes: u64) {
        loop {
            let mut back = std::pin::pin!(self.back.notified());
            // Before the look, so that nothing comes back in between.
            back.as_mut().enable();
            if self.has_room(bytes) {
                return;
            }
            back.await;
        }
    }

    /// Who uses how much now.
    pub(super) fn memory(&self, mapped: u64) -> Memory {
        let used = |purpose: Use| self.used[purpose as usize].load(Ordering::Relaxed);
        Memory {
            limit: self.limit,
            read: used(Use::Read),
            read_ahead: used(Use::ReadAhead),
            write: used(Use::Write),
            mapped,
        }
    }

    /// Bytes that nobody has taken.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.total.load(Ordering::Relaxed))
    }
}

/// A budget, for layers above the backend.
pub(super) struct Shared(pub(super) Arc<Budget>);

impl Allowance for Shared {
    fn take(&self, bytes: u64) -> Option<Box<dyn Send>> {
        self.0.take_all(Use::Read, bytes).map(|permit| Box::new(permit) as Box<dyn Send>)
    }
}

impl Permit {
    /// How many bytes were granted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same for `more` bytes as well.
    pub(super) fn grow(&mut self, more: u64) {
        self.budget.total.fetch_add(more, Ordering::Relaxed);
        self.budget.used[self.purpose as usize].fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let budget = &self.budget;
        budget.used[self.purpose as usize].fetch_sub(self.bytes, Ordering::Relaxed);
        // Before the notice, so that who waits sees it.
        budget.total.fetch_sub(self.bytes, Ordering::SeqCst);
        budget.back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_taken_comes_back() {
        let budget = Budget::new(64 * MIB);
        let permit = budget.take(4 * MIB).unwrap();
        assert_eq!((permit.bytes(), budget.left()), (4 * MIB, 60 * MIB));
        let mut written = budget.charge(Use::Write, MIB);
        written.grow(2 * MIB);
        let memory = budget.memory(7);
        assert_eq!((memory.read, memory.read_ahead, memory.write), (0, 4 * MIB, 3 * MIB));
        assert_eq!((memory.limit, memory.mapped), (64 * MIB, 7));
        drop((permit, written));
        assert_eq!(budget.left(), 64 * MIB);
        assert_eq!(budget.memory(0), Memory { limit: 64 * MIB, read: 0, read_ahead: 0, write: 0, mapped: 0 });
    }

    #[test]
    fn grants_shrink_as_it_runs_out_and_then_stop() {
        let budget = Budget::new(64 * MIB);
        let mut held = Vec::new();
        while let Some(permit) = budget.take(4 * MIB) {
            assert!(permit.bytes() <= 4 * MIB && permit.bytes() >= PART_MIN);
            held.push(permit);
        }
        assert!(held.iter().any(|permit| permit.bytes() < 4 * MIB), "it never shrank");
        let taken: u64 = held.iter().map(Permit::bytes).sum();
        assert_eq!(taken + budget.left(), 64 * MIB);
        assert!(budget.take(4096).is_some(), "a small wish is still granted");
    }

    #[test]
    fn a_layer_above_gets_all_that_it_wants_or_nothing() {
        let budget = Budget::new(3 * MIB);
        let room = Shared(Arc::clone(&budget));
        let held = room.take(2 * MIB).unwrap();
        assert!(room.take(2 * MIB).is_none());
        assert_eq!((budget.memory(0).read, budget.left()), (2 * MIB, MIB));
        drop(held);
        assert!(room.take(3 * MIB).is_some());
    }

    #[test]
    fn an_empty_budget_grants_nothing_but_what_must_be() {
        let budget = Budget::new(0);
        assert!(budget.take(1).is_none());
        assert!(!budget.has_room(1));
        assert_eq!(budget.charge(Use::Read, 5).bytes(), 5);
    }

    #[tokio::test]
    async fn at_the_limit_a_few_go_on_and_the_others_wait_for_room() {
        let budget = Budget::new(MIB);
        let full = budget.charge(Use::Write, MIB);
        let mut few = Vec::new();
        for _ in 0..CROWD_MAX {
            few.push(budget.admit(4096).await);
        }
        assert!(few.iter().all(Option::is_some));
        let mut next = pin!(budget.admit(4096));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        few.pop();
        assert!(next.as_mut().poll(&mut cx).is_ready(), "a place is free");
        let mut last = pin!(budget.room(MIB));
        assert!(last.as_mut().poll(&mut cx).is_pending());
        drop(full);
        assert!(last.as_mut().poll(&mut cx).is_ready(), "there is room");
    }
}
