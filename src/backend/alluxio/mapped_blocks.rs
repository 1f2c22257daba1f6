//! The mapped blocks of all open files: one lease and one mapping a block for all handles of a file, bounded in number
//! and in address space for the whole mount. Knows neither workers nor how a block is mapped.
//!
//! Giving a block up only forgets it: a slice of it that a reply still uses keeps mapping and lease until it goes.
//!
//! Lock order: the list of [`Mappings`], then the state of a slot. The table of a file is taken alone. Nothing is unmapped
//! under a lock, as that is a system call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::fs::Result;

/// Blocks that one mount keeps mapped. A mapped block is locked at its worker, which cannot evict it, so there must not
/// be too many; a reader at random places of a large file should find most of its blocks.
const BLOCKS_MAX: usize = 256;

/// Address space that the mapped blocks may take together.
const BYTES_MAX: u64 = 64 << 30;

/// The bound of one mount.
pub(super) struct Mappings {
    blocks_max: usize,
    bytes_max: u64,
    list: Mutex<Vec<Weak<Slot>>>,
    /// Counts uses, so that they can be compared.
    clock: AtomicU64,
}

impl Default for Mappings {
    fn default() -> Self {
        Self::bounded(BLOCKS_MAX, BYTES_MAX)
    }
}

/// One block of one file.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// Held while the block is being mapped, by whoever came first.
    mapping: tokio::sync::Mutex<()>,
    /// The clock at the last use.
    used: AtomicU64,
}

#[derive(Clone, Default)]
enum State {
    /// To be mapped at the next use.
    #[default]
    Unknown,
    Mapped(Bytes),
    /// It is not to be had this way.
    Elsewhere,
}

impl State {
    fn len(&self) -> Option<u64> {
        match self {
            Self::Mapped(bytes) => Some(bytes.len() as u64),
            Self::Unknown | Self::Elsewhere => None,
        }
    }
}

impl Mappings {
    fn bounded(blocks_max: usize, bytes_max: u64) -> Self {
        Self { blocks_max, bytes_max, list: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// The block of `slot` if that is known: its bytes, or that it is not to be had this way. Costs no allocation.
    pub(super) fn known(&self, slot: &Slot) -> Option<Option<Bytes>> {
        match &*slot.state.lock() {
            State::Unknown => None,
            State::Mapped(bytes) => {
                slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                Some(Some(bytes.clone()))
            }
            State::Elsewhere => Some(None),
        }
    }

    /// The block of `slot`, mapped by `map` unless it is known. Whoever comes meanwhile waits for that; when `map`
    /// fails, the next one tries again.
    pub(super) async fn get(
        &self,
        slot: &Arc<Slot>,
        map: impl Future<Output = Result<Option<Bytes>>>,
    ) -> Result<Option<Bytes>> {
        let _first = slot.mapping.lock().await;
        if let Some(known) = self.known(slot) {
            return Ok(known);
        }
        let found = map.await?;
        *slot.state.lock() = match &found {
            Some(bytes) => State::Mapped(bytes.clone()),
            None => State::Elsewhere,
        };
        if found.is_some() {
            slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            self.note(slot);
        }
        Ok(found)
    }

    /// Bytes of address space that are mapped and not given up.
    pub(super) fn bytes(&self) -> u64 {
        self.list.lock().iter().filter_map(Weak::upgrade).filter_map(|slot| slot.mapped_len()).sum()
    }

    /// Counts `slot`, which is mapped, and gives up those that were not used for longest if there are too many.
    fn note(&self, slot: &Arc<Slot>) {
        let mut given_up = Vec::new();
        let mut list = self.list.lock();
        list.push(Arc::downgrade(slot));
        let mut live: Vec<(Arc<Slot>, u64)> = list
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|slot| slot.mapped_len().map(|len| (slot, len)))
            .collect();
        live.sort_unstable_by_key(|(slot, _)| std::cmp::Reverse(slot.used.load(Ordering::Relaxed)));
        let mut bytes = 0_u64;
        let mut kept = 0;
        for (_, len) in &live {
            bytes = bytes.saturating_add(*len);
            // One at least, however large it is.
            if kept > 0 && (kept == self.blocks_max || bytes > self.bytes_max) {
                break;
            }
            kept += 1;
        }
        for (slot, _) in live.split_off(kept) {
            given_up.push(std::mem::take(&mut *slot.state.lock()));
        }
        *list = live.iter().map(|(slot, _)| Arc::downgrade(slot)).collect();
        drop(list);
        drop(live);
        drop(given_up);
    }
}

impl Slot {
    fn mapped_len(&self) -> Option<u64> {
        self.state.lock().len()
    }
}

/// The blocks of one file, by their index.
#[derive(Default)]
pub(super) struct FileBlocks {
    slots: Mutex<HashMap<usize, Arc<Slot>>>,
}

impl FileBlocks {
    /// The slot of block `block`.
    pub(super) fn slot(&self, block: usize) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(block).or_default())
    }

    /// Forgets which blocks are not to be had: who opens the file anew knows better where they are.
    pub(super) fn look_again(&self) {
        self.slots.lock().retain(|_, slot| {
            // One that is being mapped by somebody is left alone, mapped or not.
            Arc::strong_count(slot) > 1 || slot.mapped_len().is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fault;

    async fn map(mappings: &Mappings, slot: &Arc<Slot>, len: usize) -> Bytes {
        mappings.get(slot, async { Ok(Some(Bytes::from(vec![7; len]))) }).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_block_is_mapped_once_for_all() {
        let (mappings, file) = (Mappings::default(), FileBlocks::default());
        let first = map(&mappings, &file.slot(3), 10).await;
        let again = mappings.get(&file.slot(3), async { panic!("mapped again") }).await.unwrap().unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        assert_eq!(mappings.bytes(), 10);
        drop(file);
        assert_eq!(mappings.bytes(), 0);
    }

    #[tokio::test]
    async fn the_block_used_longest_ago_is_given_up_but_not_taken_from_who_has_it() {
        let (mappings, file) = (Mappings::bounded(3, 100), FileBlocks::default());
        let held = map(&mappings, &file.slot(0), 10).await;
        for block in 1..3 {
            map(&mappings, &file.slot(block), 10).await;
        }
        mappings.known(&file.slot(1)).unwrap();
        map(&mappings, &file.slot(3), 10).await;
        assert!(mappings.known(&file.slot(0)).is_none(), "it was the oldest");
        assert_eq!(&held[..], [7; 10]);
        map(&mappings, &file.slot(4), 90).await;
        let known = [1, 2, 3, 4].map(|block| mappings.known(&file.slot(block)).is_some());
        assert_eq!(known, [false, false, true, true], "too many bytes");
        assert_eq!(mappings.bytes(), 100);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept_and_an_absence_until_the_next_open() {
        let (mappings, file) = (Mappings::default(), FileBlocks::default());
        assert!(mappings.get(&file.slot(0), async { Err(Fault::Io.into()) }).await.is_err());
        assert_eq!(mappings.get(&file.slot(0), async { Ok(None) }).await.unwrap(), None);
        assert_eq!(mappings.get(&file.slot(0), async { panic!("tried again") }).await.unwrap(), None);
        file.look_again();
        assert_eq!(map(&mappings, &file.slot(0), 5).await.len(), 5);
    }
}
