//! What is being fetched of one version of a file, by all who have it open, and how far to read ahead. Pure decisions: it
//! neither fetches nor waits, and knows no workers.
//!
//! A reader is taken for sequential by what is asked, in whatever order the pieces arrive, and by whatever handle (behind
//! the kernel's page cache the pieces of one sequence come by the handles of all its readers): requests that touch each
//! other near their head grow a *run*, and the longer the run the further ahead is fetched. A request that touches nothing is
//! fetched as it is, so random reads cost what they ask for.
//!
//! Several readers of one file mostly do the same. So while there is more than one handle, what a sequential reader
//! has been given is *kept* for those behind it, the last [`KEPT_MAX`] bytes of it and as far as memory goes. Who is behind
//! and finds its bytes here begins no run; it waits for nothing and so draws level. Who is so far behind that they are gone
//! fetches them again, in a run of its own, and skips what is here: it costs the worker at most what lies between it and
//! the kept bytes, and in the worst case (always too far behind) its own sequence once more. A reader that waits for nobody
//! is never slowed down for the others.
//!
//! Invariants: entries do not overlap; each is kept or belongs to a run that is remembered; at most [`RUNS_MAX`] runs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::budget::Budget;
use super::budget::Permit;
use super::budget::Use;
use super::layout::Layout;

/// How far and in which pieces to fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// The furthest that is fetched ahead of one run.
    pub(super) ahead: u64,
    /// The usual length of a fetch.
    pub(super) fetch: u64,
}

/// A first read at the start of a file of up to this many bytes fetches all of it: whoever reads the head
/// of a small file mostly reads the rest, and a second stream would cost more than the bytes.
pub(super) const WHOLE_FILE_MAX: u64 = 128 << 10;

/// How far behind the head of a run a request may still arrive and find its bytes.
const REORDER_MAX: u64 = 2 << 20;

/// Runs remembered for one file.
const RUNS_MAX: usize = 64;

/// Runs that may hold bytes read ahead, besides one for each handle.
const SEQUENTIAL_MAX: usize = 4;

/// Handles that have a run of their own.
const SEQUENTIAL_HANDLES: usize = 28;

/// Bytes that are kept for readers who are behind. Sixteen that begin together on two cores, each with a descriptor of its
/// own, were found to be more than 32 MiB apart before 100 MB were read.
const KEPT_MAX: u64 = 128 << 20;

/// Something that fetches a range.
pub(super) trait Fetching {
    /// Whether it ended with an error, so that nobody else should join it.
    fn failed(&self) -> bool;
}

/// A fetch to be made.
pub(super) struct Order {
    /// The bytes of the file; within one block.
    pub(super) range: Range<u64>,
    /// The memory for what was asked for, and for what lies beyond.
    pub(super) memory: [Option<Permit>; 2],
    /// Whether it reads ahead of a sequential reader.
    pub(super) sequential: bool,
}

/// How one request is answered.
pub(super) struct Plan<F> {
    /// The parts of the request in order, and the fetch that brings each.
    pub(super) parts: SmallVec<[(Range<u64>, Arc<F>); 2]>,
    /// The new fetches, which the caller has to start.
    pub(super) start: SmallVec<[Arc<F>; 2]>,
}

impl<F: Fetching> Plan<F> {
    /// Whether no fetch of its own has failed, so that trying again is another try.
    pub(super) fn failed_by_others(&self) -> bool {
        let failed = |fetch: &Arc<F>| fetch.failed();
        !self.start.iter().any(failed) && self.parts.iter().any(|(_, fetch)| fetch.failed())
    }
}

/// The window of one version of a file.
pub(super) struct Window<F> {
    layout: Layout,
    most: Reach,
    budget: Arc<Budget>,
    /// By start.
    entries: BTreeMap<u64, Entry<F>>,
    /// The one used last at the end.
    runs: Vec<Run>,
    next_run: u64,
    /// Open handles.
    handles: usize,
    /// What was kept first goes first.
    next_kept: u64,
    /// The bytes of all that is kept.
    kept: u64,
}

struct Entry<F> {
    end: u64,
    run: u64,
    consumed: Ranges,
    /// Nobody needs it to go on; it is there for others who are behind. The number tells since when.
    kept: Option<u64>,
    /// Whether it was fetched for somebody who reads in order, or may begin to.
    in_order: bool,
    fetch: Arc<F>,
}

/// Requests that touch each other.
struct Run {
    id: u64,
    start: u64,
    /// The end of the furthest request.
    end: u64,
    /// The end of what was fetched for it; never before `end` once the request is planned.
    frontier: u64,
    requests: u32,
}

impl Run {
    fn is_sequential(&self) -> bool {
        self.requests >= 2
    }

    /// Whether `wanted` goes on at the head of the run, give or take what threads may have put out of order, or ends
    /// where it began.
    fn is_continued_by(&self, wanted: &Range<u64>) -> bool {
        let head = self.end.saturating_sub(REORDER_MAX).max(self.start)..=self.end.max(self.frontier);
        head.contains(&wanted.start) || wanted.end == self.start
    }

    /// Whether `other` is a part of this that came early: the heads are close together. A run that began behind and has
    /// not come near is that of another reader.
    fn touches(&self, other: &Self) -> bool {
        let touch = self.start <= other.end && other.start <= self.end;
        touch && self.end.abs_diff(other.end) <= REORDER_MAX
    }

    /// How much to hold ahead: up to twice what was read in one go, so that a chance neighbour of a random
    /// read costs little.
    fn ahead(&self, most: u64) -> u64 {
        if self.is_sequential() { (2 * (self.end - self.start)).min(most) } else { 0 }
    }
}

impl<F: Fetching> Window<F> {
    /// The window of a file that is cut as `layout` says. Fetches at most as far as `most`.
    pub(super) fn new(layout: Layout, most: Reach, budget: Arc<Budget>) -> Self {
        Self {
            layout,
            most,
            budget,
            entries: BTreeMap::new(),
            runs: Vec::new(),
            next_run: 0,
            handles: 0,
            next_kept: 0,
            kept: 0,
        }
    }

    /// One handle more.
    pub(super) fn joined(&mut self) {
        self.handles += 1;
    }

    /// One handle less. The last one may be the one that all was kept for.
    pub(super) fn left(&mut self) {
        self.handles -= 1;
    }

    /// Plans a request for `wanted`, which is not empty and within the file. Nothing is fetched ahead at or
    /// past `bound`. `make` turns an order into a fetch, not started yet.
    pub(super) fn plan(
        &mut self,
        wanted: Range<u64>,
        bound: u64,
        mut make: impl FnMut(Order) -> F,
    ) -> Plan<F> {
        assert!(
            wanted.start < wanted.end && wanted.end <= self.layout.len(),
            "{wanted:?} is not in the file"
        );
        self.drop_where(|entry| entry.fetch.failed());
        let bound = bound.clamp(wanted.end, self.layout.len());
        let mut plan = Plan { parts: SmallVec::new(), start: SmallVec::new() };
        let Some((run, advanced)) = self.note(&wanted) else {
            self.join(&wanted, &mut plan);
            return plan;
        };
        let reach = if advanced { self.reach(run).min(bound) } else { wanted.end };
        self.cover(run, &wanted, reach, &mut plan, &mut make);
        if reach > wanted.end {
            self.read_ahead(run, reach, &mut plan, &mut make);
        }
        plan
    }

    /// A request for `range` was answered: what nobody has yet to ask for is dropped, or kept for others.
    pub(super) fn consumed(&mut self, range: &Range<u64>) {
        let first = self.first_overlapping(range.start);
        let mut finished = SmallVec::<[u64; 4]>::new();
        let alone = self.handles <= 1;
        if alone && self.kept > 0 {
            let behind = range.start.saturating_sub(REORDER_MAX);
            self.drop_where(|entry| entry.kept.is_some() && entry.end <= behind);
        }
        for (&start, entry) in self.entries.range_mut(first..range.end) {
            if entry.kept.is_some() && !alone {
                continue;
            }
            entry.consumed.add(range.start.max(start)..range.end.min(entry.end));
            if entry.consumed.covers(&(start..entry.end)) {
                finished.push(start);
            }
        }
        for start in finished {
            self.done_with(start);
        }
    }

    /// Keeps the entry at `start` if there may be somebody behind, or drops it.
    fn done_with(&mut self, start: u64) {
        let Some(entry) = self.entries.get_mut(&start) else { return };
        if self.handles <= 1 || !entry.in_order {
            self.remove(start);
        } else if entry.kept.is_none() {
            entry.consumed = Ranges::default();
            entry.kept = Some(self.next_kept);
            self.next_kept += 1;
            self.kept += entry.end - start;
            let most = if self.budget.is_tight() { 0 } else { KEPT_MAX.min(self.budget.share()) };
            self.keep_at_most(most);
        }
    }

    /// Gives up what is kept for others.
    pub(super) fn keep_nothing(&mut self) {
        self.keep_at_most(0);
    }

    /// Gives up all that is here, and all that is on its way: the reads that wait for it have it all the same, and so has
    /// who reads on only later to fetch it once more.
    pub(super) fn rest(&mut self) {
        self.entries.clear();
        self.kept = 0;
        for run in &mut self.runs {
            run.frontier = run.end;
        }
    }

    /// Drops of what is kept the oldest beyond `most` bytes.
    fn keep_at_most(&mut self, most: u64) {
        while self.kept > most {
            let kept =
                self.entries.iter().filter_map(|(start, entry)| entry.kept.map(|since| (since, *start)));
            let (_, start) = kept.min().expect("the bytes that are counted are there");
            self.remove(start);
        }
    }

    fn remove(&mut self, start: u64) {
        if let Some(Entry { end, kept: Some(_), .. }) = self.entries.remove(&start) {
            self.kept -= end - start;
        }
    }

    fn drop_where(&mut self, goes: impl Fn(&Entry<F>) -> bool) {
        let kept = &mut self.kept;
        self.entries.retain(|start, entry| {
            let goes = goes(entry);
            if goes && entry.kept.is_some() {
                *kept -= entry.end - start;
            }
            !goes
        });
    }

    /// Puts `wanted` into the run it continues, or into a new one. Tells which, by index, and whether the
    /// request moved the run's end. None is made for a request that finds all of its bytes here.
    fn note(&mut self, wanted: &Range<u64>) -> Option<(usize, bool)> {
        let Some(at) = self.runs.iter().rposition(|run| run.is_continued_by(wanted)) else {
            if self.covers(wanted) {
                return None;
            }
            return Some((self.new_run(wanted), self.is_whole_small_file(wanted)));
        };
        let mut run = self.runs.remove(at);
        let advanced = wanted.end > run.end;
        run.requests = run.requests.saturating_add(1);
        run.start = run.start.min(wanted.start);
        run.end = run.end.max(wanted.end);
        self.swallow_neighbours(&mut run);
        let id = run.id;
        self.runs.push(run);
        self.leave_behind(id, wanted.start);
        self.limit_sequential();
        Some((self.runs.len() - 1, advanced))
    }

    /// The run `id` is at `offset` and will not come back for what lies further behind.
    fn leave_behind(&mut self, id: u64, offset: u64) {
        let is_behind =
            |entry: &Entry<F>| entry.run == id && entry.kept.is_none() && entry.end + REORDER_MAX < offset;
        while let Some(start) =
            self.entries.iter().find(|(_, entry)| is_behind(entry)).map(|(start, _)| *start)
        {
            self.done_with(start);
        }
    }

    /// Whether every byte of `wanted` is here or on its way.
    fn covers(&self, wanted: &Range<u64>) -> bool {
        let mut offset = wanted.start;
        while offset < wanted.end {
            match self.entries.range(..=offset).next_back() {
                Some((_, entry)) if entry.end > offset => offset = entry.end,
                _ => return false,
            }
        }
        true
    }

    /// Finds the fetches for every byte of `wanted`, which are here.
    fn join(&self, wanted: &Range<u64>, plan: &mut Plan<F>) {
        let first = self.first_overlapping(wanted.start);
        for (&start, entry) in self.entries.range(first..wanted.end) {
            let part = wanted.start.max(start)..wanted.end.min(entry.end);
            plan.parts.push((part, Arc::clone(&entry.fetch)));
        }
    }

    fn new_run(&mut self, wanted: &Range<u64>) -> usize {
        if self.runs.len() == RUNS_MAX {
            let at = self.runs.iter().position(|run| !run.is_sequential()).unwrap_or(0);
            self.forget(at);
        }
        let id = self.next_run;
        self.next_run += 1;
        let (start, end) = (wanted.start, wanted.end);
        self.runs.push(Run { id, start, end, frontier: end, requests: 1 });
        self.runs.len() - 1
    }

    fn is_whole_small_file(&self, wanted: &Range<u64>) -> bool {
        wanted.start == 0 && self.layout.len() <= WHOLE_FILE_MAX
    }

    /// Pieces that came in the wrong order began runs of their own; now that the gap is filled they are one.
    fn swallow_neighbours(&mut self, run: &mut Run) {
        while let Some(at) = self.runs.iter().position(|other| run.touches(other)) {
            let other = self.runs.remove(at);
            run.start = run.start.min(other.start);
            run.end = run.end.max(other.end);
            run.frontier = run.frontier.max(other.frontier);
            run.requests = run.requests.saturating_add(other.requests);
            for entry in self.entries.values_mut().filter(|entry| entry.run == other.id) {
                entry.run = run.id;
            }
        }
    }

    fn limit_sequential(&mut self) {
        let most = SEQUENTIAL_MAX + self.handles.min(SEQUENTIAL_HANDLES);
        while self.runs.iter().filter(|run| run.is_sequential()).count() > most {
            let at = self.runs.iter().position(Run::is_sequential).expect("there are several");
            self.forget(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let run = self.runs.remove(at);
        self.drop_where(|entry| entry.run == run.id && entry.kept.is_none());
    }

    /// How far the run should be fetched now.
    fn reach(&self, at: usize) -> u64 {
        let run = &self.runs[at];
        if run.requests == 1 {
            return if run.start == 0 { self.layout.len().min(WHOLE_FILE_MAX) } else { run.end };
        }
        let ahead = run.ahead(self.most.ahead);
        // Not until half of it is used up: a few long fetches rather than many short ones.
        if run.frontier.saturating_sub(run.end) >= ahead / 2 { run.end } else { run.end + ahead }
    }

    /// Finds or orders a fetch for every byte of `wanted`. The last new one goes on towards `reach`.
    fn cover(
        &mut self,
        run: usize,
        wanted: &Range<u64>,
        reach: u64,
        plan: &mut Plan<F>,
        make: &mut impl FnMut(Order) -> F,
    ) {
        let mut offset = wanted.start;
        while offset < wanted.end {
            let at = self.first_overlapping(offset);
            let next = self.entries.range(at..).next().map(|(start, entry)| (*start, entry));
            let end = match next {
                Some((start, entry)) if start <= offset => {
                    let end = entry.end.min(wanted.end);
                    plan.parts.push((offset..end, Arc::clone(&entry.fetch)));
                    end
                }
                next => {
                    let room = next.map_or(u64::MAX, |(start, _)| start);
                    let needed = wanted.end.min(room);
                    let limit = if needed == wanted.end { reach.max(needed).min(room) } else { needed };
                    let (end, fetch) = self.order(run, offset..needed, limit, make);
                    plan.start.push(Arc::clone(&fetch));
                    let end = end.min(needed);
                    plan.parts.push((offset..end, fetch));
                    end
                }
            };
            offset = end;
        }
    }

    /// Orders fetches from the run's frontier to `reach`, around what there is.
    fn read_ahead(&mut self, run: usize, reach: u64, plan: &mut Plan<F>, make: &mut impl FnMut(Order) -> F) {
        let mut offset = self.runs[run].frontier.max(self.runs[run].end);
        while offset < reach {
            let at = self.first_overlapping(offset);
            let next = self.entries.range(at..).next().map(|(start, entry)| (*start, entry.end));
            offset = match next {
                Some((start, end)) if start <= offset => end,
                next => {
                    let limit = next.map_or(reach, |(start, _)| start.min(reach));
                    let limit = self.cut(offset, limit);
                    let Some(permit) = self.budget.take(limit - offset) else { return };
                    let range = offset..offset + permit.bytes();
                    let order = Order { range, memory: [None, Some(permit)], sequential: true };
                    let (end, fetch) = self.insert(run, order, make);
                    plan.start.push(fetch);
                    end
                }
            };
            self.runs[run].frontier = self.runs[run].frontier.max(offset);
        }
    }

    /// Orders one fetch that begins with `needed` and goes on to `limit` as far as block, fetch size and
    /// budget allow. Returns its end.
    fn order(
        &mut self,
        run: usize,
        needed: Range<u64>,
        limit: u64,
        make: &mut impl FnMut(Order) -> F,
    ) -> (u64, Arc<F>) {
        let cut = self.cut(needed.start, limit);
        let end = needed.end.min(cut);
        let spare = cut - end;
        let asked = self.budget.charge(Use::Read, end - needed.start);
        let ahead = if spare > 0 { self.budget.take(spare) } else { None };
        let end = end + ahead.as_ref().map_or(0, Permit::bytes);
        let sequential = self.runs[run].is_sequential();
        let order = Order { range: needed.start..end, memory: [Some(asked), ahead], sequential };
        self.insert(run, order, make)
    }

    fn insert(&mut self, run: usize, order: Order, make: &mut impl FnMut(Order) -> F) -> (u64, Arc<F>) {
        let Range { start, end } = order.range;
        let fetch = Arc::new(make(order));
        let run = &mut self.runs[run];
        run.frontier = run.frontier.max(end);
        let in_order = run.is_sequential() || run.start == 0;
        let (consumed, kept) = (Ranges::default(), None);
        let entry = Entry { end, run: run.id, consumed, kept, in_order, fetch: Arc::clone(&fetch) };
        self.entries.insert(start, entry);
        (end, fetch)
    }

    /// The end of a fetch from `start` that would like to go to `limit`.
    fn cut(&self, start: u64, limit: u64) -> u64 {
        let limit = limit.min(self.layout.border_after(start));
        // A remainder that is not worth a stream goes along.
        let most = self.most.fetch;
        if limit - start <= most + most / 4 { limit } else { start + most }
    }

    /// The start of the entry that holds `offset`, else `offset`.
    fn first_overlapping(&self, offset: u64) -> u64 {
        match self.entries.range(..=offset).next_back() {
            Some((start, entry)) if entry.end > offset => *start,
            _ => offset,
        }
    }
}

/// A set of numbers as disjoint ranges, in order.
#[derive(Default)]
struct Ranges(SmallVec<[Range<u64>; 2]>);

impl Ranges {
    fn add(&mut self, mut new: Range<u64>) {
        self.0.retain(|old| {
            let apart = old.end < new.start || new.end < old.start;
            if !apart {
                new = new.start.min(old.start)..new.end.max(old.end);
            }
            apart
        });
        let at = self.0.partition_point(|old| old.start < new.start);
        self.0.insert(at, new);
    }

    fn covers(&self, all: &Range<u64>) -> bool {
        self.0.iter().any(|range| range.start <= all.start && all.end <= range.end)
    }
}

#[cfg(test)]
mod tests;
