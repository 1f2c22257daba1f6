//! How often, and how long apart, a failed call is made again: sleeps that double, a little spread, an end.
//! Knows nothing of what is tried.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;
use uuid::Uuid;

use super::options::RetryTimes;

/// Sleeps are up to this part longer, so that the clients of a restarted master do not come all at once.
const JITTER: f64 = 0.1;

/// The attempts of one call. An interrupt drops the future that waits; there is nothing to undo.
pub(super) struct Backoff {
    times: RetryTimes,
    began: Instant,
    sleep: Duration,
    attempts: u32,
}

impl Backoff {
    /// Before the first attempt.
    pub(super) fn new(times: RetryTimes) -> Self {
        Self { times, began: Instant::now(), sleep: times.base, attempts: 1 }
    }

    /// Waits until the next attempt is due. False if the time is over: the last failure is the result.
    pub(super) async fn wait(&mut self) -> bool {
        match self.step(self.began.elapsed(), fraction()) {
            Some(time) => {
                sleep(time).await;
                true
            }
            None => false,
        }
    }

    /// Attempts made, the running one included.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Time since the first attempt.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The sleep before the next attempt, `elapsed` after the first one, with `random` of 0 to 1. The last one is cut
    /// so that the final attempt comes at the end of the time, not before it.
    fn step(&mut self, elapsed: Duration, random: f64) -> Option<Duration> {
        let left = self.times.total.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let time = self.sleep.mul_f64(1.0 + JITTER * random);
        self.sleep = self.sleep.saturating_mul(2).min(self.times.max);
        self.attempts += 1;
        Some(time.min(left))
    }
}

/// The bits of a version 4 UUID that are random, in its lower half.
const RANDOM_BITS: u64 = u64::MAX >> 2;

/// 62 random bits.
pub(super) fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1 & RANDOM_BITS
}

/// A random number of 0 to 1.
fn fraction() -> f64 {
    random() as f64 / RANDOM_BITS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: RetryTimes = RetryTimes {
        base: Duration::from_millis(50),
        max: Duration::from_millis(300),
        total: Duration::from_millis(1000),
    };

    #[test]
    fn sleeps_double_up_to_the_longest() {
        let mut backoff = Backoff::new(TIMES);
        let sleeps: Vec<u128> =
            (0..5).map(|_| backoff.step(Duration::ZERO, 0.0).unwrap().as_millis()).collect();
        assert_eq!(sleeps, [50, 100, 200, 300, 300]);
        assert_eq!(backoff.attempts(), 6);
    }

    #[test]
    fn the_spread_is_a_tenth() {
        let mut backoff = Backoff::new(TIMES);
        assert_eq!(backoff.step(Duration::ZERO, 1.0), Some(Duration::from_millis(55)));
    }

    #[test]
    fn the_last_attempt_comes_at_the_end_of_the_time_and_none_after_it() {
        let mut backoff = Backoff::new(TIMES);
        assert_eq!(backoff.step(Duration::from_millis(990), 0.0), Some(Duration::from_millis(10)));
        assert_eq!(backoff.step(Duration::from_millis(1000), 0.0), None);
        assert_eq!(backoff.step(Duration::from_millis(5000), 0.0), None);
    }

    #[test]
    fn no_time_means_one_attempt() {
        let mut backoff = Backoff::new(RetryTimes { total: Duration::ZERO, ..TIMES });
        assert_eq!(backoff.step(Duration::ZERO, 0.0), None);
        assert_eq!(backoff.attempts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_time() {
        let began = Instant::now();
        let mut backoff = Backoff::new(TIMES);
        while backoff.wait().await {}
        // The clock of tokio counts whole milliseconds, rounded up.
        assert!((1000..=1001).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert!((6..9).contains(&backoff.attempts()), "{}", backoff.attempts());
    }
}
