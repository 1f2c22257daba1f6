//! How long things took: a histogram that many threads write and anybody reads, and what was read of it. Knows nothing
//! of what took so long.
//!
//! A time falls into one of the buckets, eight for each power of two of nanoseconds, so that a bucket's middle is at most
//! six parts in a hundred from any time in it. All is atomic; nothing is locked or allocated.

use std::array;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Buckets for each power of two, as a power of two.
const SUB_BITS: u32 = 3;

/// Longer times, from 73 minutes on, are counted as if they were as long.
const BITS_MAX: u32 = 42;

/// All buckets.
const BUCKETS: usize = ((BITS_MAX - SUB_BITS + 1) << SUB_BITS) as usize;

/// The borders of the buckets that are shown to Prometheus, as powers of two of nanoseconds: from a microsecond to a
/// minute.
const SHOWN_BITS: std::ops::RangeInclusive<u32> = 10..=36;

/// Parts of a [`Timer`], on memory of their own: threads that run at a time mostly write to different ones.
const SHARDS: usize = 4;

/// A histogram of times.
#[derive(Debug)]
#[repr(align(128))]
pub struct Histogram {
    sum: AtomicU64,
    max: AtomicU64,
    /// The complement of the least, so that zero means none.
    min: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without any times.
    pub const fn new() -> Self {
        Self {
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
            min: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Counts something that took `time`.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
        // New extremes are rare: mostly these two cost a look.
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanos, Ordering::Relaxed);
        }
        if !nanos > self.min.load(Ordering::Relaxed) {
            self.min.fetch_max(!nanos, Ordering::Relaxed);
        }
    }

    /// Adds what is in it to `all`.
    pub fn add_to(&self, all: &mut Distribution) {
        for (sum, bucket) in all.buckets.iter_mut().zip(&self.buckets) {
            let count = bucket.load(Ordering::Relaxed);
            *sum += count;
            all.count += count;
        }
        all.sum_ns = all.sum_ns.wrapping_add(self.sum.load(Ordering::Relaxed));
        all.max_ns = all.max_ns.max(self.max.load(Ordering::Relaxed));
        all.min_ns = all.min_ns.min(!self.min.load(Ordering::Relaxed));
    }

    /// What is in it.
    pub fn read(&self) -> Distribution {
        let mut all = Distribution::default();
        self.add_to(&mut all);
        all
    }
}

/// A histogram for what happens on many threads at a time.
#[derive(Debug)]
pub struct Timer([Histogram; SHARDS]);

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// Without any times.
    pub const fn new() -> Self {
        Self([const { Histogram::new() }; SHARDS])
    }

    /// Counts something that took `time`.
    pub fn record(&self, time: Duration) {
        self.0[shard()].record(time);
    }

    /// What is in it.
    pub fn read(&self) -> Distribution {
        let mut all = Distribution::default();
        self.0.iter().for_each(|part| part.add_to(&mut all));
        all
    }
}

/// This thread's part of each timer.
fn shard() -> usize {
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let known = SHARD.get();
    if known < SHARDS {
        return known;
    }
    let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    SHARD.set(shard);
    shard
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((1 << BITS_MAX) - 1);
    let bits = u64::BITS - nanos.leading_zeros();
    // Below eight nanoseconds each has its own bucket.
    let shift = bits.saturating_sub(SUB_BITS + 1);
    ((u64::from(shift) << SUB_BITS) + (nanos >> shift)) as usize
}

/// The least time in a bucket, in nanoseconds; of the bucket after it, its end.
fn start_of(bucket: usize) -> u64 {
    let whole = bucket as u64;
    let shift = (whole >> SUB_BITS).saturating_sub(1);
    (whole - (shift << SUB_BITS)) << shift
}

/// The times in a histogram, as plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All together, in nanoseconds.
    pub sum_ns: u64,
    /// The longest, in nanoseconds; 0 if there is none.
    pub max_ns: u64,
    min_ns: u64,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { count: 0, sum_ns: 0, max_ns: 0, min_ns: u64::MAX, buckets: Box::new([0; BUCKETS]) }
    }
}

impl Distribution {
    /// The shortest time, in nanoseconds; 0 if there is none.
    pub fn min_ns(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min_ns }
    }

    /// The mean in nanoseconds; 0 if there is none.
    pub fn mean_ns(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_ns as f64 / self.count as f64 }
    }

    /// The time that the part `quantile` (0 to 1) of all do not exceed, in nanoseconds, within six parts in a hundred; 0 if
    /// there is none.
    pub fn quantile_ns(&self, quantile: f64) -> f64 {
        let wanted = (quantile * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return middle(bucket).clamp(self.min_ns() as f64, self.max_ns as f64);
            }
        }
        0.0
    }

    /// The standard deviation in nanoseconds, as near as the buckets tell.
    pub fn deviation_ns(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let mean = self.mean_ns();
        let squares: f64 = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| {
                let time = middle(bucket).clamp(self.min_ns() as f64, self.max_ns as f64);
                (time - mean).powi(2) * *count as f64
            })
            .sum();
        (squares / (self.count - 1) as f64).sqrt()
    }

    /// For each of a fixed row of borders, from 1.024 µs on and each twice the one before: the border in seconds, and how
    /// many were shorter.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sums = array::from_fn::<u64, { BUCKETS + 1 }, _>(|_| 0);
        for (bucket, count) in self.buckets.iter().enumerate() {
            sums[bucket + 1] = sums[bucket] + count;
        }
        SHOWN_BITS.map(move |bits| (seconds((1_u64 << bits) as f64), sums[bucket(1 << bits)]))
    }

    /// The times of `other` as well.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *sum += count;
        }
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: f64) -> f64 {
    nanos / 1e9
}

fn middle(bucket: usize) -> f64 {
    (start_of(bucket) as f64 + start_of(bucket + 1) as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_time_falls_into_the_bucket_around_it() {
        for nanos in (0..5000).chain((3..42).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1])) {
            let at = bucket(nanos);
            let last = nanos >= (1 << BITS_MAX) - 1;
            assert!(start_of(at) <= nanos && (last || nanos < start_of(at + 1)), "{nanos} in bucket {at}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_extremes_are_those_of_the_times() {
        let histogram = Histogram::new();
        assert_eq!(histogram.read().quantile_ns(0.5), 0.0);
        assert_eq!((histogram.read().min_ns(), histogram.read().mean_ns()), (0, 0.0));
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.count, read.min_ns(), read.max_ns), (1000, 1000, 1_000_000));
        assert_eq!(read.mean_ns(), 500_500.0);
        for (quantile, wanted) in [(0.5, 500_000.0), (0.75, 750_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)]
        {
            let found = read.quantile_ns(quantile);
            assert!((found / wanted - 1.0).abs() < 0.065, "{quantile}: {found}");
        }
        assert!((read.deviation_ns() / 288_819.0 - 1.0).abs() < 0.02, "{}", read.deviation_ns());
    }

    #[test]
    fn the_shown_borders_hold_what_is_below_them() {
        let histogram = Histogram::new();
        for nanos in [500, 1023, 1024, 5000, 1 << 38] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let read = histogram.read();
        let shown: Vec<(f64, u64)> = read.cumulative().collect();
        assert_eq!(&shown[..4], [(1.024e-6, 2), (2.048e-6, 3), (4.096e-6, 3), (8.192e-6, 4)]);
        assert_eq!((shown.last().unwrap().1, read.count), (4, 5), "the longest is beyond all borders");
    }

    #[test]
    fn threads_lose_nothing() {
        static TIMER: Timer = Timer::new();
        std::thread::scope(|scope| {
            for thread in 1..=8 {
                scope.spawn(move || (0..1000).for_each(|_| TIMER.record(Duration::from_micros(thread))));
            }
        });
        let read = TIMER.read();
        assert_eq!((read.count, read.sum_ns), (8000, 36_000_000));
        assert_eq!((read.min_ns(), read.max_ns), (1000, 8000));
        let mut twice = read.clone();
        twice.merge(&read);
        assert_eq!(
            (twice.count, twice.min_ns(), twice.quantile_ns(0.5)),
            (16_000, 1000, read.quantile_ns(0.5))
        );
    }

    /// `cargo test --release --lib what_a_record_costs -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn what_a_record_costs() {
        const ROUNDS: u32 = 10_000_000;
        static SHARDED: Timer = Timer::new();
        static SINGLE: Histogram = Histogram::new();
        let measure = |name: &str, threads: usize, record: fn(Duration)| {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        (0..ROUNDS).for_each(|round| {
                            record(black_box(Duration::from_nanos(u64::from(round) & 0xffff)));
                        });
                    });
                }
            });
            println!(
                "{name}, {threads} threads: {:.1} ns each",
                begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
            );
        };
        for threads in [1, 2, 4] {
            measure("sharded", threads, |time| SHARDED.record(time));
            measure("single", threads, |time| SINGLE.record(time));
        }
    }
}
