//! How many a second of late: the mean over one, five and fifteen minutes that Alluxio's clients show, where the past
//! fades away. Worked out from the counters by whoever ticks, so that counting costs nothing more.
//!
//! Lock order: the table is the only lock.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// How often it is to be ticked. Later ticks catch up.
pub const TICK: Duration = Duration::from_secs(5);

/// How many a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Over the last minute.
    pub m1: f64,
    /// Over the last five minutes.
    pub m5: f64,
    /// Over the last fifteen minutes.
    pub m15: f64,
    /// Since the beginning.
    pub mean: f64,
}

/// The rates of what is counted under one name each.
#[derive(Default)]
struct Table {
    begun: Option<Instant>,
    ticked: Option<Instant>,
    known: HashMap<String, Known>,
}

#[derive(Default)]
struct Known {
    count: u64,
    rates: Rates,
    started: bool,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// Brings the rates up to date with `counts`, by name, as of `now`. Nothing happens before a whole [`TICK`] has passed.
pub(super) fn tick<'a>(counts: impl Iterator<Item = (&'a str, u64)>, now: Instant) {
    TABLE.lock().get_or_insert_default().tick(counts, now);
}

/// The rates of what has come to `count` under `name`.
pub(super) fn rates(name: &str, count: u64, now: Instant) -> Rates {
    TABLE.lock().as_ref().map(|table| table.rates(name, count, now)).unwrap_or_default()
}

impl Table {
    fn tick<'a>(&mut self, counts: impl Iterator<Item = (&'a str, u64)>, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let last = *self.ticked.get_or_insert(begun);
        let ticks = now.saturating_duration_since(last).as_nanos() / TICK.as_nanos();
        let ticks = i32::try_from(ticks).unwrap_or(i32::MAX);
        if ticks == 0 {
            return;
        }
        self.ticked = Some(last + TICK * ticks.cast_unsigned());
        for (name, count) in counts {
            if !self.known.contains_key(name) {
                self.known.insert(name.to_owned(), Known::default());
            }
            let Some(known) = self.known.get_mut(name) else { continue };
            let rate = count.saturating_sub(known.count) as f64 / (TICK.as_secs_f64() * f64::from(ticks));
            known.count = count;
            let Rates { m1, m5, m15, .. } = &mut known.rates;
            for (mean, minutes) in [(m1, 1.0), (m5, 5.0), (m15, 15.0)] {
                if known.started {
                    // What the past weighs after so many ticks.
                    let past = (-TICK.as_secs_f64() / (60.0 * minutes) * f64::from(ticks)).exp();
                    *mean = rate + past * (*mean - rate);
                } else {
                    *mean = rate;
                }
            }
            // As Alluxio's clients have it, the first rate counts as if it had been so always.
            known.started = known.started || count > 0;
        }
    }

    fn rates(&self, name: &str, count: u64, now: Instant) -> Rates {
        let age = self.begun.map_or(0.0, |begun| now.saturating_duration_since(begun).as_secs_f64());
        let mean = if age > 0.0 { count as f64 / age } else { 0.0 };
        Rates { mean, ..self.known.get(name).map(|known| known.rates).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_is_counted_and_fade() {
        let (mut table, begun) = (Table::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        table.tick([("a", 0)].into_iter(), begun);
        table.tick([("a", 50)].into_iter(), at(4));
        assert_eq!(table.rates("a", 50, at(4)).m1, 0.0, "before the first tick");
        table.tick([("a", 50)].into_iter(), at(5));
        assert_eq!(table.rates("a", 50, at(5)), Rates { m1: 10.0, m5: 10.0, m15: 10.0, mean: 10.0 });
        table.tick([("a", 50)].into_iter(), at(65));
        let rates = table.rates("a", 50, at(65));
        assert!((rates.m1 - 10.0 / std::f64::consts::E).abs() < 1e-9, "{rates:?}");
        assert!(rates.m1 < rates.m5 && rates.m5 < rates.m15 && rates.m15 < 10.0);
        assert_eq!(table.rates("b", 65, at(65)), Rates { mean: 1.0, ..Rates::default() });
    }
}
