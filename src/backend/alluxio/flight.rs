//! One attempt at a time: whoever wants the same thing waits for it and shares its failure. Without this, a
//! hundred threads that find a server gone would each wait for the connect timeout, one after the other.

use std::future::Future;
use std::time::Instant;

use tokio::sync::Mutex;

use super::error::Failure;

/// Guards the making of one thing that many want.
#[derive(Default)]
pub(super) struct Flight {
    /// Held during an attempt: when the last failed one ended, and how.
    last: Mutex<Option<(Instant, Failure)>>,
}

impl Flight {
    /// What `ready` has, or else what `make` makes. If an attempt that ended while we waited has failed, its failure.
    pub(super) async fn run<T, F>(&self, ready: impl Fn() -> Option<T>, make: F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        if let Some(thing) = ready() {
            return Ok(thing);
        }
        let came = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(thing) = ready() {
            return Ok(thing);
        }
        if let Some((ended, failure)) = &*last
            && *ended >= came
        {
            return Err(failure.clone());
        }
        let result = make.await;
        *last = result.as_ref().err().map(|failure| (Instant::now(), failure.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use tokio::join;
    use tokio::task::yield_now;

    use super::*;
    use crate::fs::Fault;

    #[tokio::test]
    async fn those_who_waited_share_the_failure_and_later_ones_try_again() {
        let flight = Flight::default();
        let attempts = AtomicU32::new(0);
        let attempt = || {
            flight.run(|| None::<u32>, async {
                yield_now().await;
                attempts.fetch_add(1, Ordering::Relaxed);
                Err(Failure::connection(Fault::Unavailable, "down"))
            })
        };
        let (first, second) = join!(attempt(), attempt());
        assert!(first.is_err() && second.is_err());
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        assert!(attempt().await.is_err());
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_ready_is_not_made() {
        let made: Result<u32, Failure> = Flight::default().run(|| Some(7), async { panic!("made") }).await;
        assert_eq!(made.unwrap(), 7);
    }
}
