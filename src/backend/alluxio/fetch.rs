//! A range of a file on its way: filled by one task, awaited by any number of readers. Knows neither
//! workers nor what the range is for.
//!
//! The bytes are kept as they arrive, part by part; a read hands out slices of them. They go, as their memory does, with the
//! last holder of the fetch: if it is not complete, its task is ended, and with it the stream that holds the block's
//! lock at the worker. The task of a complete one may go on, without the bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::budget::Permit;
use super::window::Fetching;
use super::window::Order;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics::Source;
use crate::waiting;

/// What a reader of a range waits for: the bytes that the call of this name brings.
const WAIT: &str = "ReadBlock";

/// One range being fetched, or fetched already.
pub(super) struct Fetch {
    range: Range<u64>,
    sequential: bool,
    arrived: Arc<Arrived>,
    task: OnceLock<AbortHandle>,
    _memory: [Option<Permit>; 2],
}

/// Where the task puts the bytes. Dropped before the end of the range, it fails the fetch.
pub(super) struct Sink {
    arrived: Weak<Arrived>,
    /// Where the next byte belongs.
    offset: AtomicU64,
    end: u64,
}

struct Arrived {
    state: Mutex<State>,
    /// Told when what is wanted is here, and of every other change of `state`.
    changed: Notify,
}

struct State {
    /// In order, without gaps; each with the offset in the file of its first byte, and where it comes from.
    parts: Vec<(u64, Bytes, Source)>,
    /// End of what has arrived.
    end: u64,
    /// The least end that somebody waits for.
    wanted: u64,
    failure: Option<FsError>,
    /// Who was asked for it last.
    server: Option<Arc<str>>,
}

impl Fetch {
    /// A fetch of what was ordered, and the place for its bytes. It does nothing by itself.
    pub(super) fn new(order: Order) -> Self {
        let (parts, end) = (Vec::new(), order.range.start);
        let state = State { parts, end, wanted: u64::MAX, failure: None, server: None };
        Self {
            range: order.range,
            sequential: order.sequential,
            arrived: Arc::new(Arrived { state: Mutex::new(state), changed: Notify::new() }),
            task: OnceLock::new(),
            _memory: order.memory,
        }
    }

    /// The bytes of the file that it brings.
    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether it is part of a sequential read.
    pub(super) fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Where the task is to put the bytes. Asked for once.
    pub(super) fn sink(&self) -> Sink {
        let offset = AtomicU64::new(self.range.start);
        Sink { arrived: Arc::downgrade(&self.arrived), offset, end: self.range.end }
    }

    /// Ties the task to the life of this fetch.
    pub(super) fn started(&self, task: AbortHandle) {
        self.task.set(task).expect("a fetch is started by whoever planned it, once");
    }

    /// The bytes of `range` if all of them are here.
    pub(super) fn ready(&self, range: &Range<u64>) -> Result<Option<Slices>> {
        let state = self.arrived.state.lock();
        if state.end >= range.end {
            return Ok(Some(state.slices(range)));
        }
        state.failure.clone().map_or(Ok(None), Err)
    }

    /// Has whoever waits told once the bytes up to `end` are here; tells who was asked for them. None if there is no need
    /// to wait.
    fn wants(&self, end: u64) -> Option<Option<Arc<str>>> {
        let mut state = self.arrived.state.lock();
        if state.end >= end || state.failure.is_some() {
            return None;
        }
        state.wanted = state.wanted.min(end);
        Some(state.server.clone())
    }

    /// Waits for the bytes of `range`, which lies within that of the fetch.
    pub(super) async fn read(&self, range: &Range<u64>) -> Result<Slices> {
        loop {
            let mut changed = std::pin::pin!(self.arrived.changed.notified());
            // Before the state is looked at, so that no change falls in between.
            changed.as_mut().enable();
            if let Some(slices) = self.ready(range)? {
                return Ok(slices);
            }
            let Some(server) = self.wants(range.end) else { continue };
            let _wait = waiting::wait(&server.unwrap_or_default(), WAIT);
            changed.await;
        }
    }
}

impl Fetching for Fetch {
    fn failed(&self) -> bool {
        self.arrived.state.lock().failure.is_some()
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(task) = self.task.get()
            && self.arrived.state.lock().end < self.range.end
        {
            task.abort();
        }
    }
}

impl State {
    fn slices(&self, range: &Range<u64>) -> Slices {
        let mut slices = Slices::new();
        let first = self.parts.partition_point(|(start, part, _)| start + part.len() as u64 <= range.start);
        for (start, part, source) in self.parts[first..].iter().take_while(|(start, ..)| *start < range.end) {
            let from = range.start.saturating_sub(*start) as usize;
            let to = part.len().min((range.end - start) as usize);
            slices.push_from(part.slice(from..to), *source);
        }
        slices
    }
}

impl Sink {
    /// The worker `server` was asked for what is missing.
    pub(super) fn comes_from(&self, server: Arc<str>) {
        let Some(arrived) = self.arrived.upgrade() else { return };
        arrived.state.lock().server = Some(server);
        arrived.changed.notify_waiters();
    }

    /// Where the next byte belongs.
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// How many bytes are missing.
    pub(super) fn missing(&self) -> u64 {
        self.end - self.offset()
    }

    /// Takes the bytes that follow, from `source`; what lies beyond the end of the range is cut off.
    pub(super) fn push(&self, mut part: Bytes, source: Source) {
        let start = self.offset();
        part.truncate(usize::try_from(self.end - start).unwrap_or(usize::MAX));
        if part.is_empty() {
            return;
        }
        self.offset.store(start + part.len() as u64, Ordering::Relaxed);
        let Some(arrived) = self.arrived.upgrade() else { return };
        let mut state = arrived.state.lock();
        state.end += part.len() as u64;
        state.parts.push((start, part, source));
        // Bytes come in many small parts, and to wake a thread costs more than to take one.
        if state.end >= state.wanted {
            state.wanted = u64::MAX;
            drop(state);
            arrived.changed.notify_waiters();
        }
    }

    /// The rest will not come.
    pub(super) fn fail(&self, failure: FsError) {
        let Some(arrived) = self.arrived.upgrade() else { return };
        let mut state = arrived.state.lock();
        if state.end < self.end && state.failure.is_none() {
            state.failure = Some(failure);
            drop(state);
            arrived.changed.notify_waiters();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.fail(FsError::because(Fault::Io, "the fetch was broken off"));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    use super::*;

    fn fetch(range: Range<u64>) -> Fetch {
        Fetch::new(Order { range, memory: [None, None], sequential: false })
    }

    #[test]
    fn reads_get_slices_of_what_arrived() {
        let fetch = fetch(100..110);
        let sink = fetch.sink();
        sink.push(Bytes::from_static(b"0123"), Source::Remote);
        sink.push(Bytes::from_static(b"456"), Source::Remote);
        assert_eq!((sink.offset(), sink.missing()), (107, 3));
        assert_eq!(fetch.ready(&(102..106)).unwrap().unwrap().copied().unwrap(), b"2345");
        assert_eq!(fetch.ready(&(104..107)).unwrap().unwrap().parts().len(), 1);
        assert!(fetch.ready(&(106..108)).unwrap().is_none());
        sink.push(Bytes::from_static(b"789 and more than was asked for"), Source::Remote);
        assert_eq!(fetch.ready(&(100..110)).unwrap().unwrap().copied().unwrap(), b"0123456789");
        assert_eq!(sink.missing(), 0);
    }

    #[test]
    fn a_waiting_reader_is_woken_by_the_bytes_it_waits_for() {
        let fetch = fetch(0..4);
        let sink = fetch.sink();
        let wanted = 0..4;
        let mut read = pin!(fetch.read(&wanted));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(read.as_mut().poll(&mut cx).is_pending());
        sink.push(Bytes::from_static(b"ab"), Source::Remote);
        assert!(read.as_mut().poll(&mut cx).is_pending());
        sink.push(Bytes::from_static(b"cd"), Source::Remote);
        assert!(
            matches!(read.as_mut().poll(&mut cx), Poll::Ready(Ok(slices)) if slices.copied().unwrap() == b"abcd")
        );
    }

    #[test]
    fn who_waits_is_woken_once_for_all_of_his_bytes() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let woken = |count: &Count| count.0.load(Ordering::Relaxed);
        let [near, far] = [0, 0].map(|n| Arc::new(Count(n.into())));
        let fetch = fetch(0..8);
        let sink = fetch.sink();
        let (to_near, to_far) = (0..4, 2..8);
        let (near_waker, far_waker) = (Arc::clone(&near).into(), Arc::clone(&far).into());
        let mut near_cx = Context::from_waker(&near_waker);
        let mut far_cx = Context::from_waker(&far_waker);
        let (mut near_read, mut far_read) = (pin!(fetch.read(&to_near)), pin!(fetch.read(&to_far)));
        assert!(far_read.as_mut().poll(&mut far_cx).is_pending());
        assert!(near_read.as_mut().poll(&mut near_cx).is_pending());
        sink.push(Bytes::from_static(b"abc"), Source::Remote);
        assert_eq!((woken(&near), woken(&far)), (0, 0));
        sink.push(Bytes::from_static(b"d"), Source::Remote);
        assert_eq!(woken(&near), 1);
        assert!(near_read.as_mut().poll(&mut near_cx).is_ready());
        // Who was told as well says again what he waits for.
        assert!(far_read.as_mut().poll(&mut far_cx).is_pending());
        let before = woken(&far);
        sink.push(Bytes::from_static(b"efg"), Source::Remote);
        assert_eq!(woken(&far), before);
        sink.push(Bytes::from_static(b"h"), Source::Remote);
        assert_eq!(woken(&far), before + 1);
        assert!(far_read.as_mut().poll(&mut far_cx).is_ready());
    }

    #[test]
    fn a_task_that_ends_early_fails_the_rest_but_not_what_is_here() {
        let fetch = fetch(0..4);
        let sink = fetch.sink();
        sink.push(Bytes::from_static(b"ab"), Source::Remote);
        drop(sink);
        assert!(fetch.failed());
        assert_eq!(fetch.ready(&(0..2)).unwrap().unwrap().copied().unwrap(), b"ab");
        assert_eq!(fetch.ready(&(0..3)).unwrap_err().fault(), Fault::Io);
    }

    #[test]
    fn a_complete_fetch_does_not_fail_afterwards() {
        let fetch = fetch(0..2);
        let sink = fetch.sink();
        sink.push(Bytes::from_static(b"ab"), Source::Remote);
        sink.fail(Fault::TimedOut.into());
        drop(sink);
        assert!(!fetch.failed());
    }

    #[tokio::test]
    async fn the_last_holder_ends_the_task() {
        let fetch = Arc::new(fetch(0..2));
        let sink = fetch.sink();
        let task = tokio::spawn(async move {
            let _sink = sink;
            std::future::pending::<()>().await;
        });
        fetch.started(task.abort_handle());
        drop(fetch);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_complete_fetch_leaves_its_task_alone() {
        let fetch = fetch(0..2);
        let sink = fetch.sink();
        let (closing, close) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            sink.push(Bytes::from_static(b"ab"), Source::Remote);
            close.await
        });
        fetch.started(task.abort_handle());
        fetch.read(&(0..2)).await.unwrap();
        drop(fetch);
        closing.send(()).unwrap();
        assert!(task.await.unwrap().is_ok());
    }

    #[test]
    fn the_bytes_go_with_the_last_holder_and_not_with_the_task() {
        let fetch = fetch(0..4);
        let sink = fetch.sink();
        let bytes = Bytes::from(b"abcd".to_vec());
        sink.push(bytes.slice(..2), Source::Remote);
        assert!(!bytes.is_unique());
        drop(fetch);
        sink.push(bytes.slice(2..3), Source::Remote);
        assert!(bytes.is_unique());
        assert_eq!((sink.offset(), sink.missing()), (3, 1), "what was asked for is counted all the same");
    }
}
