//! Between the threads that the kernel's requests run on and the futures of this backend: the only place
//! that blocks on a future. Knows nothing of Alluxio.
//!
//! Make it after the last fork of the process: its threads do not survive one.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;
use crate::spans;
use crate::threads;

/// Threads that drive the connections. They only move bytes; the work is done by the callers.
const THREADS_MAX: usize = 4;

/// Owns the runtimes.
pub(super) struct Bridge {
    /// Where all runs that moves data. Taken when the bridge goes; present all its life.
    runtime: Option<Runtime>,
    /// Where the connections to masters are served, each of which is one stream of small messages: by one thread, so that the
    /// tasks that take part in a call need not wake another one for each other. As long as the other.
    calls: Option<Runtime>,
    /// What is to be done before the process ends.
    jobs: TaskTracker,
}

impl Bridge {
    /// Starts the threads: `wanted`, or if that is 0 as many as there are processors, within bounds.
    pub(super) fn new(wanted: usize) -> Result<Self> {
        let cores = || thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, THREADS_MAX));
        let threads = if wanted == 0 { cores() } else { wanted };
        let runtime = |name: &str, threads| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                // Those for calls that block start where they are needed first.
                .on_thread_start(threads::unbind)
                .enable_all()
                .build()
                .map(Some)
                .map_err(|err| {
                    FsError::because(Fault::Io, format!("cannot start the network threads: {err}"))
                })
        };
        Ok(Self {
            runtime: runtime("alluxio-net", threads)?,
            calls: runtime("alluxio-call", 1)?,
            jobs: TaskTracker::new(),
        })
    }

    /// Polls `future` on this thread until it is done, `ctx` is cancelled or the deadline has passed; then it is
    /// dropped where it stands. Panics on a thread of the runtime, which must never wait.
    pub(super) fn run<T, F>(&self, ctx: &Ctx, deadline: Option<Instant>, future: F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        ctx.check()?;
        let _step = spans::step("bridge");
        self.handle().block_on(async {
            let mut future = pin!(future);
            let mut alarm = pin!(deadline.map(|at| sleep_until(at.into())));
            poll_fn(|task| {
                if let Poll::Ready(result) = future.as_mut().poll(task) {
                    return Poll::Ready(result);
                }
                if ctx.cancel().register(task.waker()) {
                    return Poll::Ready(Err(Fault::Interrupted.into()));
                }
                match alarm.as_mut().as_pin_mut().map(|alarm| alarm.poll(task)) {
                    Some(Poll::Ready(())) => Poll::Ready(Err(Fault::TimedOut.into())),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            })
            .await
        })
    }

    /// Lets `future` run on its own. It ends with the bridge at the latest.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle().spawn(spans::with_request(future))
    }

    /// The same for what others depend on, such as the end of a file that was given up: [`Self::finish`] waits for it.
    pub(super) fn spawn_job<F>(&self, job: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.jobs.spawn_on(spans::with_request(job), self.handle());
    }

    /// Waits until all jobs are done, at most for `limit`; returns how many are not.
    pub(super) fn finish(&self, limit: Duration) -> usize {
        self.jobs.close();
        // Whether in time or not, what is left tells.
        let _ = self.handle().block_on(async { timeout(limit, self.jobs.wait()).await });
        self.jobs.len()
    }

    /// For what must be made inside the runtime, such as a channel to a worker.
    pub(super) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("the runtime is there until drop").handle()
    }

    /// For what must be made inside the runtime of the calls: a channel to a master.
    pub(super) fn calls(&self) -> &Handle {
        self.calls.as_ref().expect("the runtime is there until drop").handle()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for runtime in [self.runtime.take(), self.calls.take()].into_iter().flatten() {
            // Does not wait: a task that hangs on a dead server must not keep the process alive.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::fs::Cancel;

    fn ctx(cancel: &Cancel) -> Ctx<'_> {
        Ctx::new(0, 0, 0, cancel)
    }

    #[test]
    fn a_future_runs_to_its_end_on_the_calling_thread() {
        let bridge = Bridge::new(0).unwrap();
        let me = thread::current().id();
        let (sender, receiver) = oneshot::channel();
        bridge.spawn(async { sender.send(thread::current().id()) });
        let (here, there) = bridge
            .run(&Ctx::daemon(), None, async { Ok((thread::current().id(), receiver.await.unwrap())) })
            .unwrap();
        assert_eq!(here, me);
        assert_ne!(there, me);
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let bridge = Bridge::new(0).unwrap();
        let cancel = Cancel::new();
        let (polled, waiting) = mpsc::channel();
        thread::scope(|scope| {
            let wait = scope.spawn(|| {
                let future = async {
                    polled.send(()).unwrap();
                    pending::<Result<()>>().await
                };
                bridge.run(&ctx(&cancel), None, future)
            });
            waiting.recv().unwrap();
            cancel.cancel();
            assert_eq!(wait.join().unwrap().unwrap_err().fault(), Fault::Interrupted);
        });
    }

    #[test]
    fn who_was_interrupted_before_does_not_begin() {
        let bridge = Bridge::new(0).unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let result: Result<()> = bridge.run(&ctx(&cancel), None, async { panic!("polled") });
        assert_eq!(result.unwrap_err().fault(), Fault::Interrupted);
    }

    #[test]
    fn the_deadline_ends_the_wait() {
        let bridge = Bridge::new(0).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let result: Result<()> = bridge.run(&Ctx::daemon(), Some(deadline), pending());
        assert_eq!(result.unwrap_err().fault(), Fault::TimedOut);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_task_that_never_ends_does_not_hold_up_the_end() {
        let bridge = Bridge::new(0).unwrap();
        let (alive, gone) = mpsc::channel::<()>();
        bridge.spawn(async move {
            let _alive = alive;
            pending::<()>().await;
        });
        drop(bridge);
        assert_eq!(gone.recv(), Err(mpsc::RecvError), "the task was dropped");
    }

    #[test]
    fn jobs_are_waited_for_but_not_for_ever() {
        let bridge = Bridge::new(0).unwrap();
        let (sender, receiver) = oneshot::channel::<()>();
        bridge.spawn_job(async { drop(receiver.await) });
        bridge.spawn_job(pending());
        assert_eq!(bridge.finish(Duration::ZERO), 2);
        sender.send(()).unwrap();
        assert_eq!(bridge.finish(Duration::from_secs(2)), 1);
    }
}
