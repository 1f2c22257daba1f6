//! Which pages of one directory are given up first, and how many bytes they take. Pure decisions: it touches no file and
//! looks at no clock.
//!
//! Invariants: a page that is pinned has a weight and no rank; every other page has one rank, its own. `used` is the sum
//! of all weights and of what was promised or is still to be removed; it never passes the limit by a promise.

use std::collections::BTreeMap;
use std::collections::HashMap;

/// A page: the number of its file, and its place in it.
pub(super) type PageId = (u64, u32);

/// By what pages are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Those that were not used for longest, and first of all those that were used in one go only: a scan does not drive
    /// out what is read again and again.
    Lru,
    /// Those that were used least often.
    Lfu,
    /// Those that came first.
    Fifo,
    /// None: what does not fit is not kept.
    Unevictable,
}

/// The share of the limit, in percent, up to which pages that were used again are kept before all others.
const KEPT_PERCENT: u64 = 80;

/// Smaller is given up earlier: the class, then when it was used.
type Rank = (u32, u64);

struct Entry {
    weight: u64,
    uses: u32,
    /// None while pinned.
    rank: Option<Rank>,
}

/// The pages of a directory.
pub(super) struct Order {
    policy: Policy,
    limit: u64,
    used: u64,
    /// Bytes of pages in the upper class of [`Policy::Lru`].
    kept: u64,
    ranks: BTreeMap<Rank, PageId>,
    pages: HashMap<PageId, Entry>,
    /// Of the next use.
    turn: u64,
}

/// What comes of the wish for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The bytes are promised: [`Order::insert`] or [`Order::release`] has to follow.
    Promised,
    /// These pages have to be removed first, each followed by [`Order::release`] of its weight, and then to be asked again.
    After(Vec<(PageId, u64)>),
    /// There is none to be had.
    Never,
}

impl Order {
    /// Without pages; `limit` in bytes.
    pub(super) fn new(policy: Policy, limit: u64) -> Self {
        Self { policy, limit, used: 0, kept: 0, ranks: BTreeMap::new(), pages: HashMap::new(), turn: 0 }
    }

    /// Bytes that are taken or promised.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The pages, first those that go first.
    #[cfg(test)]
    pub(super) fn in_order(&self) -> Vec<PageId> {
        self.ranks.values().copied().collect()
    }

    /// Whether `page` is there, and nobody is about to give it up.
    pub(super) fn has(&self, page: PageId) -> bool {
        self.pages.contains_key(&page)
    }

    /// How many pages there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Asks for room for `weight` bytes.
    pub(super) fn make_room(&mut self, weight: u64) -> Room {
        if self.used + weight <= self.limit {
            self.used += weight;
            return Room::Promised;
        }
        if weight > self.limit || self.policy == Policy::Unevictable {
            return Room::Never;
        }
        let victims = self.take(self.used + weight - self.limit);
        if victims.is_empty() { Room::Never } else { Room::After(victims) }
    }

    /// Pages to be removed for `weight` bytes, as the disk has less room than the limit says.
    pub(super) fn give_up(&mut self, weight: u64) -> Vec<(PageId, u64)> {
        if self.policy == Policy::Unevictable { Vec::new() } else { self.take(weight) }
    }

    /// Pages to be removed until no more is used than may be.
    pub(super) fn excess(&mut self) -> Vec<(PageId, u64)> {
        self.take(self.used.saturating_sub(self.limit))
    }

    /// Takes the first pages out, `bytes` together if there are as many. They count until they are released.
    fn take(&mut self, bytes: u64) -> Vec<(PageId, u64)> {
        let (mut victims, mut found) = (Vec::new(), 0);
        while found < bytes
            && let Some((rank, page)) = self.ranks.pop_first()
        {
            let entry = self.pages.remove(&page).expect("a rank has a page");
            self.kept -= self.kept_weight(rank, entry.weight);
            found += entry.weight;
            victims.push((page, entry.weight));
        }
        victims
    }

    /// Gives back `weight` bytes that were promised, or those of a page that was removed.
    pub(super) fn release(&mut self, weight: u64) {
        self.used -= weight;
    }

    /// `page` is there, in the room that was promised for it.
    pub(super) fn insert(&mut self, page: PageId, weight: u64) {
        let rank = self.rank(1);
        let before = self.pages.insert(page, Entry { weight, uses: 1, rank: Some(rank) });
        debug_assert!(before.is_none(), "{page:?} is there already");
        self.ranks.insert(rank, page);
    }

    /// `page` is there from an earlier time, however little room there is.
    pub(super) fn restore(&mut self, page: PageId, weight: u64) {
        self.used += weight;
        self.insert(page, weight);
    }

    /// `page`, which was to be given up, stays, as it is pinned by now.
    pub(super) fn keep(&mut self, page: PageId, weight: u64) {
        let before = self.pages.insert(page, Entry { weight, uses: 1, rank: None });
        debug_assert!(before.is_none(), "{page:?} is there already");
    }

    /// `page` was used again, after something else.
    pub(super) fn touch(&mut self, page: PageId) {
        let Some(entry) = self.pages.get_mut(&page) else { return };
        entry.uses = entry.uses.saturating_add(1);
        let (uses, weight) = (entry.uses, entry.weight);
        let Some(old) = entry.rank else { return };
        if self.policy == Policy::Fifo || self.policy == Policy::Unevictable {
            return;
        }
        let new = self.rank(uses);
        self.move_to(page, old, new);
        self.kept += self.kept_weight(new, weight);
        self.kept -= self.kept_weight(old, weight);
        self.limit_kept();
    }

    /// `page` was removed by itself: its weight, if it was there.
    pub(super) fn remove(&mut self, page: PageId) -> Option<u64> {
        let entry = self.pages.remove(&page)?;
        if let Some(rank) = entry.rank {
            self.ranks.remove(&rank);
            self.kept -= self.kept_weight(rank, entry.weight);
        }
        self.used -= entry.weight;
        Some(entry.weight)
    }

    /// `page` must stay until it is unpinned.
    pub(super) fn pin(&mut self, page: PageId) {
        let Some(entry) = self.pages.get_mut(&page) else { return };
        let weight = entry.weight;
        if let Some(rank) = entry.rank.take() {
            self.ranks.remove(&rank);
            self.kept -= self.kept_weight(rank, weight);
        }
    }

    /// `page` may go again; this counts as a use.
    pub(super) fn unpin(&mut self, page: PageId) {
        let Some(entry) = self.pages.get_mut(&page) else { return };
        if entry.rank.is_some() {
            return;
        }
        entry.uses = entry.uses.saturating_add(1);
        let (uses, weight) = (entry.uses, entry.weight);
        let rank = self.rank(uses);
        self.ranks.insert(rank, page);
        self.pages.get_mut(&page).expect("it was there just now").rank = Some(rank);
        self.kept += self.kept_weight(rank, weight);
        self.limit_kept();
    }

    /// The rank of a page that is used now, for the `uses`-th time.
    fn rank(&mut self, uses: u32) -> Rank {
        self.turn += 1;
        let class = match self.policy {
            Policy::Lru => u32::from(uses > 1),
            // Steps that double: one more use of many says little.
            Policy::Lfu => uses.ilog2(),
            Policy::Fifo | Policy::Unevictable => 0,
        };
        (class, self.turn)
    }

    fn kept_weight(&self, rank: Rank, weight: u64) -> u64 {
        if self.policy == Policy::Lru && rank.0 > 0 { weight } else { 0 }
    }

    fn move_to(&mut self, page: PageId, old: Rank, new: Rank) {
        self.ranks.remove(&old);
        self.ranks.insert(new, page);
        self.pages.get_mut(&page).expect("it has a rank").rank = Some(new);
    }

    /// The upper class gives its oldest pages to the lower one when it has grown too large.
    fn limit_kept(&mut self) {
        while self.kept > self.limit / 100 * KEPT_PERCENT {
            let Some((&old, &page)) = self.ranks.range((1, 0)..).next() else { return };
            let entry = self.pages.get_mut(&page).expect("a rank has a page");
            entry.uses = 1;
            let weight = entry.weight;
            let new = self.rank(1);
            self.move_to(page, old, new);
            self.kept -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 10;

    fn order(policy: Policy, pages: u64) -> Order {
        Order::new(policy, pages * PAGE)
    }

    /// Puts `page` in, with whatever has to go before; what that was.
    fn put(order: &mut Order, page: u32) -> Vec<u32> {
        let mut gone = Vec::new();
        loop {
            match order.make_room(PAGE) {
                Room::Promised => break,
                Room::After(victims) => {
                    for ((_, page), weight) in victims {
                        order.release(weight);
                        gone.push(page);
                    }
                }
                Room::Never => return vec![u32::MAX],
            }
        }
        order.insert((0, page), PAGE);
        assert!(order.used() <= order.limit);
        gone
    }

    fn fill(order: &mut Order, pages: std::ops::Range<u32>) -> Vec<u32> {
        pages.flat_map(|page| put(order, page)).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut order = order(Policy::Lru, 3);
        assert!(fill(&mut order, 0..3).is_empty());
        order.touch((0, 0));
        assert_eq!(put(&mut order, 3), [1]);
        assert_eq!(put(&mut order, 4), [2]);
    }

    #[test]
    fn a_scan_leaves_what_is_used_again() {
        let mut order = order(Policy::Lru, 10);
        fill(&mut order, 0..5);
        (0..5).for_each(|page| order.touch((0, page)));
        let gone = fill(&mut order, 100..200);
        assert!(gone.iter().all(|page| *page >= 100), "{gone:?}");
        // But nothing stays for ever: others that are used again take its place.
        for page in 200..220 {
            put(&mut order, page);
            order.touch((0, page));
        }
        assert!((0..5).all(|page| !order.pages.contains_key(&(0, page))));
    }

    #[test]
    fn the_least_often_used_goes_first() {
        let mut order = order(Policy::Lfu, 3);
        fill(&mut order, 0..3);
        for (page, uses) in [(0, 8), (1, 3), (2, 1)] {
            (0..uses).for_each(|_| order.touch((0, page)));
        }
        // A page that is new is the least often used of all.
        assert_eq!(put(&mut order, 3), [2]);
        assert_eq!(put(&mut order, 4), [3]);
    }

    #[test]
    fn the_first_goes_first_whatever_is_used() {
        let mut order = order(Policy::Fifo, 3);
        fill(&mut order, 0..3);
        order.touch((0, 0));
        assert_eq!(fill(&mut order, 3..5), [0, 1]);
    }

    #[test]
    fn without_eviction_what_does_not_fit_is_not_kept() {
        let mut order = order(Policy::Unevictable, 2);
        fill(&mut order, 0..2);
        assert_eq!(put(&mut order, 2), [u32::MAX]);
        assert_eq!(order.remove((0, 0)), Some(PAGE));
        assert!(put(&mut order, 2).is_empty());
    }

    #[test]
    fn a_pinned_page_stays() {
        let mut order = order(Policy::Lru, 2);
        fill(&mut order, 0..2);
        order.pin((0, 0));
        assert_eq!(fill(&mut order, 2..4), [1, 2]);
        order.pin((0, 3));
        assert_eq!(order.make_room(PAGE), Room::Never, "nothing may go");
        order.unpin((0, 0));
        order.unpin((0, 0));
        // It is pinned after it was chosen, and so another has to go.
        assert_eq!(order.make_room(PAGE), Room::After(vec![((0, 0), PAGE)]));
        order.keep((0, 0), PAGE);
        assert_eq!(order.make_room(PAGE), Room::Never);
        order.unpin((0, 0));
        assert_eq!(put(&mut order, 4), [0]);
        assert_eq!(order.remove((0, 3)), Some(PAGE));
        assert_eq!(order.remove((0, 3)), None);
        assert_eq!((order.used(), order.len()), (PAGE, 1));
    }

    #[test]
    fn what_came_back_beyond_the_limit_goes() {
        let mut order = order(Policy::Lru, 2);
        (0..5).for_each(|page| order.restore((0, page), PAGE));
        let excess = order.excess();
        assert_eq!(excess.len(), 3);
        excess.iter().for_each(|(_, weight)| order.release(*weight));
        assert_eq!((order.used(), order.len()), (2 * PAGE, 2));
        assert!(order.excess().is_empty());
    }

    #[test]
    fn what_is_larger_than_the_limit_drives_nothing_out() {
        let mut order = order(Policy::Lru, 2);
        fill(&mut order, 0..2);
        assert_eq!(order.make_room(3 * PAGE), Room::Never);
        assert_eq!(order.len(), 2);
    }

    /// The same against a plain list of what was used when, with random steps.
    #[test]
    fn used_and_ranks_agree_with_the_pages_whatever_happens() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for policy in [Policy::Lru, Policy::Lfu, Policy::Fifo] {
            let mut order = order(policy, 8);
            for _ in 0..20_000 {
                let page = random(20) as u32;
                match random(6) {
                    0..3 if !order.pages.contains_key(&(0, page)) => drop(put(&mut order, page)),
                    0..4 => order.touch((0, page)),
                    4 => drop(order.remove((0, page))),
                    _ => {
                        order.pin((0, page));
                        order.touch((0, page));
                        order.unpin((0, page));
                    }
                }
                let weights: u64 = order.pages.values().map(|entry| entry.weight).sum();
                assert_eq!(order.used(), weights);
                assert_eq!(order.ranks.len(), order.pages.len());
                let kept: u64 = order.ranks.keys().map(|rank| order.kept_weight(*rank, PAGE)).sum();
                assert_eq!(order.kept, kept);
                assert!(order.used() <= order.limit);
            }
        }
    }
}
