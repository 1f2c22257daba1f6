//! Keeps apart who goes by the path of a file that is being written, which is its job, and who changes what the path stands for:
//! a rename or a removal through this mount. Knows no path.
//!
//! Lock order: alone, for memory only. Who has a hold may wait for another file's use to end, and never for a hold: so the names
//! of several files are held in any order.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Of one file.
#[derive(Default)]
pub(super) struct PathUse {
    state: Mutex<State>,
    /// Told when a use or a hold ends.
    changed: Notify,
}

#[derive(Default)]
struct State {
    in_use: bool,
    holds: usize,
    /// There was a hold since the last use.
    doubtful: bool,
}

/// The path stands for what it did, as far as this mount is concerned, until this is dropped.
pub(super) struct InUse {
    path: Arc<PathUse>,
    /// Since the last use it may have changed.
    pub(super) doubtful: bool,
}

/// Nobody goes by the path until this is dropped.
pub(super) struct Held(Arc<PathUse>);

impl PathUse {
    /// For the one who goes by the path: waits until nobody holds it.
    pub(super) async fn begin(self: &Arc<Self>) -> InUse {
        self.until(|state| {
            state.in_use = state.holds == 0;
            state.in_use
        })
        .await;
        let doubtful = std::mem::take(&mut self.state.lock().doubtful);
        InUse { path: Arc::clone(self), doubtful }
    }

    /// For who changes what it stands for: waits until nobody goes by it, and lets nobody begin.
    pub(super) async fn hold(self: &Arc<Self>) -> Held {
        self.state.lock().holds += 1;
        // Who is interrupted in the wait drops it.
        let held = Held(Arc::clone(self));
        self.until(|state| !state.in_use).await;
        held
    }

    async fn until(&self, mut is_so: impl FnMut(&mut State) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look, so that nothing changes in between.
            changed.as_mut().enable();
            if is_so(&mut self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.path.state.lock().in_use = false;
        self.path.changed.notify_waiters();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut state = self.0.state.lock();
            state.holds -= 1;
            state.doubtful = true;
        }
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_changes_the_path_and_who_goes_by_it_wait_for_each_other() {
        let path = Arc::new(PathUse::default());
        let in_use = poll(path.begin()).unwrap();
        assert!(!in_use.doubtful);
        let mut first = Box::pin(path.hold());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        drop(in_use);
        let Poll::Ready(held) = first.as_mut().poll(&mut cx) else { panic!("nobody goes by it") };
        let second = poll(path.hold()).expect("holds do not exclude each other");
        drop(held);
        assert!(poll(path.begin()).is_none(), "the second is left");
        drop(second);
        assert!(poll(path.begin()).unwrap().doubtful);
        assert!(!poll(path.begin()).unwrap().doubtful, "it was looked at");
    }

    #[test]
    fn who_is_interrupted_while_he_waits_holds_nothing() {
        let path = Arc::new(PathUse::default());
        let in_use = poll(path.begin()).unwrap();
        assert!(poll(path.hold()).is_none());
        drop(in_use);
        assert!(poll(path.begin()).is_some());
    }
}
