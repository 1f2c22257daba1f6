//! What the window promises: each byte about once, exact ranges for random readers, nothing left behind.

use std::cell::Cell;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BUDGET: u64 = 1 << 30;
const AHEAD_MAX: u64 = 8 * MIB;
const FETCH_MAX: u64 = 4 * MIB;

struct Fake {
    range: Range<u64>,
    sequential: bool,
    failed: Cell<bool>,
    _memory: [Option<Permit>; 2],
}

impl Fetching for Fake {
    fn failed(&self) -> bool {
        self.failed.get()
    }
}

/// A window and a count of the bytes it fetched.
struct Bench {
    window: Window<Fake>,
    budget: Arc<Budget>,
    layout: Layout,
    fetched: u64,
    fetches: u64,
}

impl Bench {
    fn new(len: u64, block_size: u64) -> Self {
        Self::with_budget(len, block_size, BUDGET)
    }

    fn with_budget(len: u64, block_size: u64, bytes: u64) -> Self {
        let (layout, budget) = (Layout::new(len, block_size), Budget::new(bytes));
        let mut window =
            Window::new(layout, Reach { ahead: AHEAD_MAX, fetch: FETCH_MAX }, Arc::clone(&budget));
        window.joined();
        Self { window, budget, layout, fetched: 0, fetches: 0 }
    }

    /// Plans a request and checks that the plan is sound.
    fn plan(&mut self, offset: u64, len: u64) -> Plan<Fake> {
        let wanted = self.layout.clip(offset, len as usize);
        let plan = self.window.plan(wanted.clone(), u64::MAX, |order| Fake {
            range: order.range,
            sequential: order.sequential,
            failed: Cell::new(false),
            _memory: order.memory,
        });
        let mut next = wanted.start;
        for (part, fetch) in &plan.parts {
            assert_eq!(part.start, next, "a hole in the plan of {wanted:?}");
            assert!(fetch.range.start <= part.start && part.end <= fetch.range.end);
            next = part.end;
        }
        assert_eq!(next, wanted.end);
        for fetch in &plan.start {
            assert!(fetch.range.end <= self.layout.border_after(fetch.range.start), "crosses a block border");
            self.fetched += fetch.range.end - fetch.range.start;
            self.fetches += 1;
        }
        plan
    }

    fn read(&mut self, offset: u64, len: u64) {
        drop(self.plan(offset, len));
        self.window.consumed(&self.layout.clip(offset, len as usize));
    }

    fn held(&self) -> u64 {
        self.window.entries.iter().map(|(start, entry)| entry.end - start).sum()
    }
}

#[test]
fn a_sequential_reader_fetches_each_byte_once_and_leaves_nothing_behind() {
    for request in [4 * KIB, 100_000, 128 * KIB, MIB, 5 * MIB] {
        let len = 100 * MIB + 12_345;
        let mut bench = Bench::new(len, 16 * MIB);
        let mut offset = 0;
        while offset < len {
            bench.read(offset, request);
            offset += request;
            assert!(bench.held() <= AHEAD_MAX + FETCH_MAX, "{} bytes held", bench.held());
        }
        assert_eq!(bench.fetched, len, "requests of {request}");
        assert_eq!(bench.held(), 0);
        assert_eq!(bench.budget.left(), BUDGET);
        assert!(bench.fetches < 60 || request == 5 * MIB, "{} fetches for {request}", bench.fetches);
    }
}

#[test]
fn order_within_a_window_does_not_matter() {
    // The kernel's read-ahead, delivered by several threads: batches of eight are turned around.
    let len = 64 * MIB;
    let mut bench = Bench::new(len, 16 * MIB);
    let pieces: Vec<u64> = (0..len / (128 * KIB)).collect();
    for batch in pieces.chunks(8) {
        for piece in [5, 4, 7, 0, 6, 2, 1, 3].map(|at| batch[at]) {
            bench.read(piece * 128 * KIB, 128 * KIB);
        }
    }
    assert!(bench.fetched <= len * 101 / 100, "{} bytes for {len}", bench.fetched);
    assert_eq!(bench.held(), 0);
}

#[test]
fn overlapping_requests_join_what_is_under_way() {
    let mut bench = Bench::new(64 * MIB, 64 * MIB);
    let first = bench.plan(0, 128 * KIB);
    let second = bench.plan(128 * KIB, 128 * KIB);
    let again = bench.plan(128 * KIB, 128 * KIB);
    assert!(again.start.is_empty());
    assert!(Arc::ptr_eq(&second.parts[0].1, &again.parts[0].1));
    assert!(!Arc::ptr_eq(&first.parts[0].1, &second.parts[0].1));
}

#[test]
fn random_reads_fetch_exactly_what_they_ask() {
    let mut bench = Bench::new(1 << 30, 64 * MIB);
    let mut state = 1_u64;
    for _ in 0..500 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every second page only, so that no two of them touch.
        bench.read((state >> 33) % ((1 << 30) / (8 * KIB)) * 8 * KIB, 4 * KIB);
    }
    assert!(bench.fetched <= 500 * 4 * KIB);
    assert_eq!(bench.held(), 0);
    assert!(bench.window.runs.len() <= RUNS_MAX);
}

#[test]
fn a_chance_neighbour_costs_little() {
    let mut bench = Bench::new(1 << 30, 64 * MIB);
    bench.read(40 * MIB, 4 * KIB);
    bench.read(40 * MIB + 4 * KIB, 4 * KIB);
    assert!(bench.fetched <= 32 * KIB, "{} bytes", bench.fetched);
}

#[test]
fn a_backward_reader_gets_exact_ranges() {
    let mut bench = Bench::new(8 * MIB, 64 * MIB);
    for piece in (0..64).rev() {
        bench.read(piece * 128 * KIB, 128 * KIB);
    }
    assert_eq!(bench.fetched, 8 * MIB);
}

#[test]
fn a_small_file_comes_with_its_first_read() {
    let mut bench = Bench::new(40_000, 64 * MIB);
    bench.read(0, 4096);
    bench.read(4096, 100_000);
    assert_eq!((bench.fetched, bench.fetches), (40_000, 1));
    assert_eq!(bench.held(), 0);
    let mut bench = Bench::new(10 * MIB, 64 * MIB);
    bench.read(0, 4096);
    assert_eq!(bench.fetched, 4096);
}

#[test]
fn two_sequential_readers_of_one_handle_do_not_disturb_each_other() {
    let len = 64 * MIB;
    let mut bench = Bench::new(len, 16 * MIB);
    for piece in 0..len / 2 / (128 * KIB) {
        bench.read(piece * 128 * KIB, 128 * KIB);
        bench.read(len / 2 + piece * 128 * KIB, 128 * KIB);
    }
    // The first reads ahead into the second's half at the end, which that one has consumed by then.
    assert!(bench.fetched <= len + AHEAD_MAX + FETCH_MAX, "{} bytes", bench.fetched);
}

#[test]
fn without_budget_only_the_request_is_fetched() {
    let mut bench = Bench::with_budget(64 * MIB, 64 * MIB, 0);
    for piece in 0..16 {
        let plan = bench.plan(piece * MIB, MIB);
        assert_eq!(plan.parts[0].1.range, piece * MIB..(piece + 1) * MIB);
        drop(plan);
        bench.window.consumed(&(piece * MIB..(piece + 1) * MIB));
    }
    assert_eq!(bench.fetched, 16 * MIB);
}

#[test]
fn readers_behind_find_what_the_first_was_given() {
    let len = 200 * MIB;
    let mut bench = Bench::new(len, 16 * MIB);
    let lags = [0, 128 * KIB, 3 * MIB, 100 * MIB];
    for _ in 1..lags.len() {
        bench.window.joined();
    }
    let mut offset = 0;
    while offset < len + 100 * MIB {
        for lag in lags.into_iter().filter(|lag| *lag <= offset && offset - *lag < len) {
            bench.read(offset - lag, 128 * KIB);
        }
        offset += 128 * KIB;
    }
    assert_eq!(bench.fetched, len);
    assert!(bench.held() <= KEPT_MAX, "{} bytes kept", bench.held());
    for _ in 1..lags.len() {
        bench.window.left();
    }
    for offset in (0..len).step_by(MIB as usize) {
        bench.read(offset, MIB);
    }
    assert!(bench.fetched <= 2 * len - KEPT_MAX + FETCH_MAX, "the last one did not find what was kept");
    assert_eq!(bench.held(), 0, "something is kept for nobody");
}

#[test]
fn a_reader_far_behind_fetches_once_more_and_then_joins() {
    let len = 600 * MIB;
    let mut bench = Bench::new(len, 16 * MIB);
    bench.window.joined();
    let mut read_both = |fast: u64, slow: u64| {
        let (mut one, mut other) = (0, 0);
        while other < len {
            // The second begins when the first has read 200 MiB, and is twice as fast.
            for _ in 0..fast {
                if one < len {
                    bench.read(one, 128 * KIB);
                    one += 128 * KIB;
                }
            }
            for _ in 0..slow {
                if one >= 200 * MIB && other < len {
                    bench.read(other, 128 * KIB);
                    other += 128 * KIB;
                }
            }
        }
        (bench.fetched, bench.fetches)
    };
    let (fetched, fetches) = read_both(1, 2);
    // It would draw level at 400 MiB. What is kept of both is as much as they read, so it joins a third of KEPT_MAX
    // before that, and finds all the rest.
    assert!(fetched <= len + (400 - 43) * MIB, "{fetched} bytes");
    assert!(fetches < 300, "{fetches} fetches: the second was not taken for sequential");
}

#[test]
fn one_sequence_by_many_handles_is_one_run() {
    // Behind the kernel's page cache each page is asked for once, by whichever handle.
    let len = 64 * MIB;
    let mut bench = Bench::new(len, 16 * MIB);
    for _ in 1..16 {
        bench.window.joined();
    }
    for piece in 0..len / (128 * KIB) {
        bench.read(piece * 128 * KIB, 128 * KIB);
    }
    assert_eq!(bench.fetched, len);
    assert!(bench.fetches < 40, "{} fetches", bench.fetches);
}

#[test]
fn random_readers_of_one_file_leave_nothing_behind() {
    let mut bench = Bench::new(1 << 30, 64 * MIB);
    bench.window.joined();
    for piece in 1..500 {
        bench.read((piece * 7919) % 65536 * 16 * KIB, 4 * KIB);
    }
    assert_eq!((bench.fetched, bench.held()), (499 * 4 * KIB, 0));
}

#[test]
fn only_who_did_not_start_the_fetch_that_failed_tries_again() {
    let mut bench = Bench::new(MIB, MIB);
    let first = bench.plan(4 * KIB, 4 * KIB);
    let second = bench.plan(4 * KIB, 4 * KIB);
    first.parts[0].1.failed.set(true);
    assert!(!first.failed_by_others());
    assert!(second.failed_by_others());
    assert_eq!(bench.plan(4 * KIB, 4 * KIB).start.len(), 1);
}

#[test]
fn a_window_at_rest_holds_nothing_and_goes_on_where_it_was() {
    let mut bench = Bench::new(64 * MIB, 64 * MIB);
    for piece in 0..8 {
        bench.read(piece * MIB, MIB);
    }
    assert!(bench.held() > 0 && bench.budget.left() < BUDGET);
    let fetched = bench.fetched;
    bench.window.rest();
    assert_eq!((bench.held(), bench.budget.left()), (0, BUDGET));
    bench.read(8 * MIB, MIB);
    assert!(bench.fetched >= fetched + 5 * MIB, "it is not taken for sequential any more");
}

#[test]
fn a_failed_fetch_is_not_joined() {
    let mut bench = Bench::new(MIB, MIB);
    let plan = bench.plan(0, 4096);
    plan.parts[0].1.failed.set(true);
    let again = bench.plan(0, 4096);
    assert_eq!(again.start.len(), 1);
    assert!(!again.parts[0].1.sequential || again.parts[0].1.range.end <= MIB);
}

#[test]
fn an_abandoned_run_gives_its_memory_back() {
    let mut bench = Bench::new(1 << 30, 64 * MIB);
    for run in 0..10 {
        for piece in 0..8 {
            bench.read(run * 100 * MIB + piece * 128 * KIB, 128 * KIB);
        }
    }
    assert!(bench.held() <= (SEQUENTIAL_MAX as u64 + 1) * (AHEAD_MAX + FETCH_MAX));
    drop(bench.window);
    assert_eq!(bench.budget.left(), BUDGET);
}

#[test]
fn ranges_merge() {
    let mut ranges = Ranges::default();
    ranges.add(0..2);
    ranges.add(4..6);
    assert!(!ranges.covers(&(0..6)));
    ranges.add(2..4);
    assert_eq!(ranges.0.len(), 1);
    assert!(ranges.covers(&(0..6)));
}
