//! The threads that serve. Each receives a request and runs it to its end; there are as many as ever were
//! requests at a time and one more that waits.
//!
//! The pool grows when no worker is left to receive, up to `max_threads`. A worker that has served leaves when
//! more than `max_idle` wait and that has been enough for a while: ending threads as soon as they are idle
//! halves the throughput of a mount that is used in bursts (measured: 46k against 93k reads a second).
//! FORGET does not count as work: it never waits for anything.
//!
//! INTERRUPT is received by workers like all else: with `max_threads` requests under way, all waiting, none is
//! left to hear it. That is why `max_threads` is large.
//!
//! Lock order: `Workers`, then a worker's `Interrupt`. Neither is held across a request.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use log::debug;
use log::error;
use log::warn;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::abi::InHeader;
use super::abi::Plain;
use super::abi::opcode;
use super::buffer::Buffer;
use super::current;
use super::interrupts::Interrupt;
use super::transport::Port;
use super::transport::Received;

/// What the workers work for.
pub(super) trait Service: Send + Sync + 'static {
    /// A new worker's end of the transport, and its buffer.
    fn join(&self) -> io::Result<(Box<dyn Port>, Buffer)>;

    /// Runs the request and replies by the port.
    fn process(&self, request: &mut [u8], port: &dyn Port);

    /// There will be no more requests. Called once, before the last worker ends.
    fn ended(&self);
}

/// How many workers there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// At once, at least 1.
    pub(super) first: usize,
    /// At a time, at least 2: one to wait in a request, one to hear of its interrupt.
    pub(super) max_threads: usize,
    /// That wait for a request, once there has been no shortage for `linger`; at least 1.
    pub(super) max_idle: usize,
    /// How long workers stay after the last time that none was idle.
    pub(super) linger: Duration,
}

/// Workers of a session that receive their requests on the same way.
pub(super) struct Pool {
    service: Arc<dyn Service>,
    limits: Limits,
    /// How many workers the session has had, in all its pools.
    counted: Arc<AtomicU64>,
    /// Workers that wait for a request or are about to. Who starts a worker counts it, so that one shortage
    /// starts one.
    idle: Arc<AtomicUsize>,
    /// When last no worker was idle, in milliseconds since `started`.
    shortage_ms: AtomicU64,
    started: Instant,
    complained: AtomicBool,
    workers: Mutex<Workers>,
    /// Notified when the last worker leaves.
    all_left: Condvar,
}

#[derive(Default)]
struct Workers {
    running: HashMap<u64, Worker>,
    /// Of a worker that has left: it ends now or has ended. The next that leaves, or the pool, joins it.
    left: Option<JoinHandle<()>>,
    /// All requests are to be interrupted, and no more workers started.
    ending: bool,
    /// The service was told that there will be no more requests.
    ended: bool,
    /// Why the first worker left, if not for the end of the session.
    failure: Option<io::Error>,
}

struct Worker {
    /// Absent for the moment between its start and the return of its starter.
    handle: Option<JoinHandle<()>>,
    /// What interrupts the request that it serves. Changed by the worker alone.
    cancel: Arc<Interrupt>,
}

impl Pool {
    /// With its first workers, which wait for requests; with fewer of them if there cannot be so many. `counted` is for all
    /// pools of the session.
    pub(super) fn start(
        service: Arc<dyn Service>,
        limits: Limits,
        counted: &Arc<AtomicU64>,
    ) -> io::Result<Arc<Self>> {
        let limits =
            Limits { max_threads: limits.max_threads.max(2), max_idle: limits.max_idle.max(1), ..limits };
        let pool = Arc::new(Self {
            service,
            limits,
            counted: Arc::clone(counted),
            idle: Arc::default(),
            shortage_ms: AtomicU64::new(0),
            started: Instant::now(),
            complained: AtomicBool::new(false),
            workers: Mutex::default(),
            all_left: Condvar::new(),
        });
        let mut workers = pool.workers.lock();
        for _ in 0..limits.first.max(1) {
            if let Err(err) = pool.add_worker(&mut workers) {
                if workers.running.is_empty() {
                    return Err(err);
                }
                pool.complain(&err);
                break;
            }
        }
        drop(workers);
        Ok(pool)
    }

    /// Waits until the session has ended and all workers with it.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut workers = self.workers.lock();
        while !workers.running.is_empty() {
            self.all_left.wait(&mut workers);
        }
        let (left, failure) = (workers.left.take(), workers.failure.take());
        drop(workers);
        if let Some(left) = left {
            join(left);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Interrupts all requests under way, and those to come: nobody waits for their answers.
    pub(super) fn cancel_all(&self) {
        let mut workers = self.workers.lock();
        workers.ending = true;
        workers.running.values().for_each(|worker| worker.cancel.cancel());
    }

    /// How many workers there are, how many of them wait for a request, and how many there may be.
    pub(super) fn figures(&self) -> (usize, usize, usize) {
        let threads = self.workers.lock().running.len();
        (threads, self.idle.load(Ordering::Relaxed).min(threads), self.limits.max_threads)
    }

    /// Workers that exist.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.workers.lock().running.len()
    }

    /// Starts a worker, unless there are enough. `workers` is locked by the caller, so that a worker that leaves
    /// at once finds itself in the table.
    fn add_worker(self: &Arc<Self>, workers: &mut Workers) -> io::Result<()> {
        if workers.ending || workers.running.len() >= self.limits.max_threads {
            return Ok(());
        }
        let (port, buffer) = self.service.join()?;
        let number = self.counted.fetch_add(1, Ordering::Relaxed);
        let pool = Arc::clone(self);
        let signals = BlockedSignals::new()?;
        let handle = thread::Builder::new()
            .name(format!("fuse-{number}"))
            .spawn(move || pool.work(number, port, buffer))?;
        drop(signals);
        workers.running.insert(number, Worker { handle: Some(handle), cancel: Arc::default() });
        self.idle.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// No worker is left to receive.
    fn shortage(self: &Arc<Self>) {
        self.shortage_ms.store(self.now_ms(), Ordering::Relaxed);
        if let Err(err) = self.add_worker(&mut self.workers.lock()) {
            self.complain(&err);
        }
    }

    fn complain(&self, err: &io::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            warn!("Cannot start another worker, going on with those there are: {err}");
        }
    }

    /// What a worker does, from its first to its last request.
    fn work(self: &Arc<Self>, number: u64, mut port: Box<dyn Port>, mut buffer: Buffer) {
        current::set_idle_count(Arc::clone(&self.idle));
        let mut cancel = self.fresh_cancel(number);
        let outcome = loop {
            let (memory, request) = match port.receive(&mut buffer) {
                Ok(Received::Request(len)) => (buffer.memory(), buffer.request(len)),
                Ok(Received::Again) => continue,
                Ok(Received::End) => break Some(Ok(())),
                Ok(Received::Leave) => break None,
                Err(err) => break Some(Err(err)),
            };
            let header = InHeader::read_from(request);
            if header.is_some_and(|header| is_forget(&header)) {
                self.service.process(request, &*port);
                continue;
            }
            current::set_unique(header.map_or(0, |header| header.unique));
            if current::begin() == 0 {
                self.shortage();
            }
            if cancel.is_cancelled() {
                cancel = self.fresh_cancel(number);
            }
            current::set_memory(Some(memory));
            self.service.process(request, &*port);
            current::set_memory(None);
            current::end();
            let idle = self.idle.load(Ordering::Acquire);
            if idle > self.limits.max_idle && self.is_quiet() && self.try_leave(number) {
                return;
            }
        };
        // The port goes first: an open clone of the device keeps the connection alive.
        drop(port);
        self.leave(number, outcome);
    }

    /// Something that nobody has cancelled yet, unless all is to be cancelled.
    fn fresh_cancel(&self, number: u64) -> Arc<Interrupt> {
        let cancel: Arc<Interrupt> = Arc::default();
        let mut workers = self.workers.lock();
        if workers.ending {
            cancel.cancel();
        }
        let worker = workers.running.get_mut(&number).expect("a worker is in the table until it leaves");
        worker.cancel = Arc::clone(&cancel);
        drop(workers);
        current::set_interrupt(Arc::clone(&cancel));
        cancel
    }

    fn is_quiet(&self) -> bool {
        let since = self.now_ms().saturating_sub(self.shortage_ms.load(Ordering::Relaxed));
        u128::from(since) >= self.limits.linger.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Leaves if there still are more idle workers than wanted; each of those who ask at a time sees the others'
    /// departure.
    fn try_leave(&self, number: u64) -> bool {
        let mut workers = self.workers.lock();
        if self.idle.load(Ordering::Acquire) <= self.limits.max_idle {
            return false;
        }
        self.idle.fetch_sub(1, Ordering::AcqRel);
        let before = workers.remove(number);
        debug!("Worker fuse-{number} leaves, {} remain", workers.running.len());
        drop(workers);
        before.into_iter().for_each(join);
        true
    }

    /// Leaves because the session has ended, or because nothing can be received any more by this worker's port:
    /// then the others go on, and the last one's failure ends the session. Or, without an outcome, because it is not needed.
    fn leave(&self, number: u64, outcome: Option<io::Result<()>>) {
        let mut workers = self.workers.lock();
        self.idle.fetch_sub(1, Ordering::AcqRel);
        match outcome {
            Some(Ok(())) => self.end(&mut workers),
            Some(Err(err)) => {
                error!("Worker fuse-{number} ends: {err}");
                workers.failure.get_or_insert(err);
            }
            None => {}
        }
        let before = workers.remove(number);
        if workers.running.is_empty() {
            self.all_left.notify_all();
        }
        drop(workers);
        before.into_iter().for_each(join);
    }

    fn end(&self, workers: &mut Workers) {
        if !workers.ended {
            self.service.ended();
        }
        (workers.ended, workers.ending) = (true, true);
        // Whoever still is in a request has nobody to answer to.
        workers.running.values().for_each(|worker| worker.cancel.cancel());
    }
}

impl Workers {
    /// Takes the worker out and returns one that left before, to be joined without the lock.
    fn remove(&mut self, number: u64) -> Option<JoinHandle<()>> {
        let worker = self.running.remove(&number).expect("a worker leaves once");
        std::mem::replace(&mut self.left, worker.handle)
    }
}

fn join(handle: JoinHandle<()>) {
    if handle.join().is_err() {
        // Requests panic inside the wall, so this is a fault of the pool; the hook has logged it.
        error!("A worker has panicked");
    }
}

/// Whether a request only lowers lookup counts.
fn is_forget(header: &InHeader) -> bool {
    matches!(header.opcode, opcode::FORGET | opcode::BATCH_FORGET)
}

/// Signals are for the thread that waits for them: as long as this lives, threads start with all blocked but
/// those that mean a fault of the thread itself, and the one by which a profile is made.
struct BlockedSignals {
    before: SigSet,
}

impl BlockedSignals {
    fn new() -> io::Result<Self> {
        let mut signals = SigSet::all();
        for fault in [
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGSEGV,
            Signal::SIGSYS,
            Signal::SIGTRAP,
            Signal::SIGPROF,
        ] {
            signals.remove(fault);
        }
        let before = SigSet::thread_get_mask()?;
        signals.thread_block()?;
        Ok(Self { before })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // Fails only for arguments that make no sense.
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::fd::BorrowedFd;
    use std::os::fd::OwnedFd;

    use crossbeam_channel::Receiver;
    use crossbeam_channel::Sender;
    use crossbeam_channel::unbounded;

    use super::super::buffer::Spares;
    use super::*;

    /// A service whose requests come from a channel and wait until they are let go or cancelled.
    struct Fake {
        requests: Receiver<InHeader>,
        started: Sender<Arc<Interrupt>>,
        go: Receiver<()>,
        device: Arc<OwnedFd>,
        ended: AtomicUsize,
    }

    struct FakePort {
        requests: Receiver<InHeader>,
        device: Arc<OwnedFd>,
    }

    impl Port for FakePort {
        fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received> {
            let Ok(header) = self.requests.recv() else { return Ok(Received::End) };
            if header.opcode == LEAVE {
                return Ok(Received::Leave);
            }
            buffer.room()?[..size_of::<InHeader>()].copy_from_slice(header.as_bytes());
            Ok(Received::Request(size_of::<InHeader>()))
        }

        fn reply_fd(&self) -> BorrowedFd<'_> {
            self.device.as_fd()
        }
    }

    impl Service for Fake {
        fn join(&self) -> io::Result<(Box<dyn Port>, Buffer)> {
            let port = FakePort { requests: self.requests.clone(), device: Arc::clone(&self.device) };
            Ok((Box::new(port), Buffer::new(&Spares::new(0))?))
        }

        fn process(&self, request: &mut [u8], _port: &dyn Port) {
            let header = InHeader::read_from(request).unwrap();
            if is_forget(&header) {
                self.started.send(Arc::default()).unwrap();
                return;
            }
            if header.opcode == REPLIED {
                current::end();
            }
            let cancel = current::interrupt();
            self.started.send(Arc::clone(&cancel)).unwrap();
            while !cancel.is_cancelled() {
                if self.go.recv_timeout(Duration::from_millis(1)).is_ok() {
                    return;
                }
            }
        }

        fn ended(&self) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The other ends of the service's channels.
    struct Driver {
        pool: Arc<Pool>,
        service: Arc<Fake>,
        requests: Option<Sender<InHeader>>,
        started: Receiver<Arc<Interrupt>>,
        go: Sender<()>,
    }

    impl Driver {
        fn new(limits: Limits) -> Self {
            let (requests, requests_out) = unbounded();
            let (started, started_out) = unbounded();
            let (go, go_out) = unbounded();
            let device = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
            let service = Arc::new(Fake {
                requests: requests_out,
                started,
                go: go_out,
                device,
                ended: AtomicUsize::new(0),
            });
            let pool =
                Pool::start(Arc::clone(&service) as Arc<dyn Service>, limits, &Arc::default()).unwrap();
            Self { pool, service, requests: Some(requests), started: started_out, go }
        }

        /// Sends a request and waits until a worker has it.
        fn request(&self, opcode: u32) -> Arc<Interrupt> {
            let header = InHeader { opcode, ..InHeader::default() };
            self.requests.as_ref().unwrap().send(header).unwrap();
            self.started.recv_timeout(Duration::from_secs(10)).expect("a worker takes it")
        }

        fn finish(mut self) -> (io::Result<()>, usize) {
            drop(self.requests.take());
            let outcome = self.pool.wait();
            (outcome, self.service.ended.load(Ordering::Relaxed))
        }
    }

    fn limits(max_threads: usize, max_idle: usize, linger: Duration) -> Limits {
        Limits { first: 1, max_threads, max_idle, linger }
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    const LOOKUP: u32 = 1;

    /// No request: who receives it is not needed.
    const LEAVE: u32 = 1001;

    /// A request that is replied to at once, though its worker goes on for a while.
    const REPLIED: u32 = 1000;

    #[test]
    fn there_is_always_one_more_than_are_busy_up_to_the_limit() {
        let driver = Driver::new(limits(4, 1, Duration::from_secs(3600)));
        for busy in 1..=3 {
            driver.request(LOOKUP);
            assert_eq!(driver.pool.threads(), busy + 1);
        }
        driver.request(LOOKUP);
        assert_eq!(driver.pool.threads(), 4);
        (0..4).for_each(|_| driver.go.send(()).unwrap());
        let (outcome, ended) = driver.finish();
        outcome.unwrap();
        assert_eq!(ended, 1);
    }

    #[test]
    fn forgets_start_no_worker() {
        let driver = Driver::new(limits(4, 1, Duration::from_secs(3600)));
        (0..20).for_each(|_| drop(driver.request(opcode::FORGET)));
        (0..20).for_each(|_| drop(driver.request(opcode::BATCH_FORGET)));
        assert_eq!(driver.pool.threads(), 1);
        driver.finish().0.unwrap();
    }

    #[test]
    fn a_worker_that_has_replied_counts_as_idle() {
        let driver = Driver::new(limits(8, 8, Duration::from_secs(3600)));
        driver.request(REPLIED);
        assert_eq!(driver.pool.threads(), 2, "for a moment it was busy, and the only one");
        driver.request(REPLIED);
        assert_eq!(driver.pool.threads(), 2, "the first one will receive again soon");
        (0..2).for_each(|_| driver.go.send(()).unwrap());
        driver.finish().0.unwrap();
    }

    #[test]
    fn surplus_workers_leave_only_when_there_was_no_shortage_for_a_while() {
        for (linger, expected) in [(Duration::from_secs(3600), 9), (Duration::ZERO, 2)] {
            let driver = Driver::new(limits(100, 2, linger));
            (0..8).for_each(|_| drop(driver.request(LOOKUP)));
            assert_eq!(driver.pool.threads(), 9);
            (0..8).for_each(|_| driver.go.send(()).unwrap());
            eventually("all are idle again or gone", || {
                driver.pool.idle.load(Ordering::Relaxed) == expected && driver.pool.threads() == expected
            });
            driver.finish().0.unwrap();
        }
    }

    #[test]
    fn a_forced_end_interrupts_what_is_under_way_and_what_comes_after() {
        let driver = Driver::new(limits(8, 2, Duration::ZERO));
        let cancels: Vec<_> = (0..3).map(|_| driver.request(LOOKUP)).collect();
        driver.pool.cancel_all();
        assert!(cancels.iter().all(|cancel| cancel.is_cancelled()));
        eventually("a later request is interrupted before it waits", || {
            driver.request(LOOKUP).is_cancelled()
        });
        driver.finish().0.unwrap();
    }

    #[test]
    fn a_pool_that_is_not_needed_ends_without_the_session() {
        let driver = Driver::new(Limits { first: 3, ..limits(3, 3, Duration::from_secs(3600)) });
        let header = InHeader { opcode: LEAVE, ..InHeader::default() };
        (0..3).for_each(|_| driver.requests.as_ref().unwrap().send(header).unwrap());
        driver.pool.wait().unwrap();
        assert_eq!((driver.pool.figures(), driver.service.ended.load(Ordering::Relaxed)), ((0, 0, 3), 0));
    }

    #[test]
    fn an_interrupt_hits_one_request_only() {
        let driver = Driver::new(limits(2, 1, Duration::from_secs(3600)));
        driver.request(LOOKUP).cancel();
        // Served by the same worker or the other: neither starts out interrupted.
        assert!(!driver.request(LOOKUP).is_cancelled());
        assert!(!driver.request(LOOKUP).is_cancelled());
        driver.go.send(()).unwrap();
        driver.go.send(()).unwrap();
        driver.finish().0.unwrap();
    }

    #[test]
    fn the_end_interrupts_a_request_that_nobody_waits_for() {
        let driver = Driver::new(limits(2, 1, Duration::ZERO));
        let cancel = driver.request(LOOKUP);
        driver.finish().0.unwrap();
        assert!(cancel.is_cancelled());
    }
}
