//! How many bytes all open files of the process may hold that nobody has asked for yet.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Below this a part of what was wanted is not worth a stream of its own.
const PART_MIN: u64 = 128 * 1024;

/// One taker gets at most this fraction of what is left, so that many open files share and the budget
/// runs out slowly instead of at the door of the last one.
const SHARE: u64 = 8;

/// Memory for reading ahead.
pub(super) struct Budget {
    left: AtomicU64,
}

/// Bytes taken from a budget, given back on drop.
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes`.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    /// Up to `wanted` bytes, or nothing when so little is left that it does not pay.
    pub(super) fn take(self: &Arc<Self>, wanted: u64) -> Option<Permit> {
        let mut left = self.left.load(Ordering::Relaxed);
        loop {
            let bytes = wanted.min(left / SHARE);
            if bytes == 0 || bytes < wanted.min(PART_MIN) {
                return None;
            }
            match self.left.compare_exchange_weak(left, left - bytes, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Permit { budget: Arc::clone(self), bytes }),
                Err(now) => left = now,
            }
        }
    }

    /// Bytes that nobody has taken.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// How many bytes were granted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_taken_comes_back() {
        let budget = Budget::new(64 * MIB);
        let permit = budget.take(4 * MIB).unwrap();
        assert_eq!((permit.bytes(), budget.left()), (4 * MIB, 60 * MIB));
        drop(permit);
        assert_eq!(budget.left(), 64 * MIB);
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
    fn an_empty_budget_grants_nothing() {
        assert!(Budget::new(0).take(1).is_none());
    }
}
