//! Open files and directories by their number. Knows nothing of inodes or paths.
//!
//! Lock order: the table's lock is held for the look-up only; what is found is shared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

/// The number of an open file or directory. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// What is open, of one kind.
pub(super) struct Handles<T> {
    open: RwLock<HashMap<Fh, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Self { open: RwLock::new(HashMap::new()), next: AtomicU64::new(1) }
    }

    pub(super) fn insert(&self, value: Arc<T>) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(fh, value);
        fh
    }

    pub(super) fn find(&self, fh: Fh) -> Option<Arc<T>> {
        self.open.read().get(&fh).cloned()
    }

    /// Any open one that `wanted` accepts. Looks at all of them: for rare cases only.
    pub(super) fn find_first(&self, wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.open.read().values().find(|value| wanted(value)).cloned()
    }

    pub(super) fn remove(&self, fh: Fh) -> Option<Arc<T>> {
        self.open.write().remove(&fh)
    }

    pub(super) fn len(&self) -> usize {
        self.open.read().len()
    }
}
