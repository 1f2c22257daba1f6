//! Files that are being completed: each on a thread of its own, so that a caller that is interrupted can go,
//! and the mount can wait for them before it ends.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::spans;
use crate::threads;
use crate::waiting;

/// Counts the files that are being completed.
#[derive(Default)]
pub(super) struct Commits {
    running: Mutex<usize>,
    ended: Condvar,
}

/// Counts one down, also when the work panics.
struct Running(Arc<Commits>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.ended.notify_all();
    }
}

impl Commits {
    /// Runs `work` on a new thread; on this one, if there can be no more threads.
    pub(super) fn run(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) {
        *self.running.lock() += 1;
        let running = Running(Arc::clone(self));
        let work = Arc::new(Mutex::new(Some(work)));
        let handed = Arc::clone(&work);
        let (request, traced) = (waiting::link(), spans::link());
        let started = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            threads::unbind();
            let _running = running;
            waiting::work_for(request);
            let _traced = traced.enter();
            let work = handed.lock().take();
            if let Some(work) = work {
                work();
            }
        });
        if let Err(error) = started {
            log::warn!("no thread to complete a file with, doing it here: {error}");
            let work = work.lock().take();
            if let Some(work) = work {
                work();
            }
        }
    }

    /// Waits until all files are completed, at most for `limit`; returns how many are not.
    pub(super) fn wait(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let mut running = self.running.lock();
        while *running > 0 && !self.ended.wait_until(&mut running, deadline).timed_out() {}
        *running
    }
}
