//! Requests of a stream on which the end means "commit": a body that can also break the stream off.
//!
//! To a worker the half-close of a write is its commit, whatever arrived until then, and hyper half-closes
//! as soon as a body ends. Dropping the call as well only wins that race sometimes. A body that fails makes hyper reset
//! the stream instead, reliably. So here the body ends only after [`Outbox::commit`]; losing the [`Outbox`] in any other
//! way, which includes every `?`, panic and cancelled task, is an error of the body.
//!
//! What is written goes to the connection as it is: a frame with what comes before it in its message, and a frame that is
//! the data itself.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http_body::Body;
use http_body::Frame;
use parking_lot::Mutex;
use prost::Message;
use prost::encoding::encode_varint;
use prost::encoding::encoded_len_varint;
use tokio::sync::Semaphore;
use tonic::Status;

use super::chunk::Chunk;
use super::chunk::Loans;
use super::grpc::PREFIX;
use super::grpc::framed;
use super::grpc::put_prefix;

/// The keys of `chunk` in a request to write, and of `data` in a chunk.
const KEYS: [u8; 2] = [2 << 3 | 2, 1 << 3 | 2];

/// One request.
pub(super) struct Outgoing {
    /// All of it, or what comes before the data.
    head: Bytes,
    data: Option<Chunk>,
}

impl Outgoing {
    /// The request `message`.
    pub(super) fn message(message: &impl Message) -> Self {
        Self { head: framed(message), data: None }
    }

    /// `WriteRequest { chunk = 2: Chunk { data = 1 } }` with `data`, of which there must be some.
    pub(super) fn chunk(data: Chunk) -> Self {
        let length = data.len();
        let inner = 1 + encoded_len_varint(length as u64) + length;
        let message = 1 + encoded_len_varint(inner as u64) + inner;
        let mut head = BytesMut::with_capacity(PREFIX + message - length);
        put_prefix(&mut head, message);
        for (key, length) in KEYS.into_iter().zip([inner, length]) {
            head.put_u8(key);
            encode_varint(length as u64, &mut head);
        }
        Self { head: head.freeze(), data: Some(data) }
    }
}

/// The sender of a stream's requests. Dropped without a commit, it aborts the stream.
pub(super) struct Outbox {
    queue: Arc<Queue>,
}

/// The requests as a body. Ends only after a commit.
pub(super) struct Requests {
    queue: Arc<Queue>,
    /// The data of the request that was begun.
    data: Option<Chunk>,
    /// What the connection has in hand.
    loans: Arc<Loans>,
    aborted: bool,
}

/// The stream has ended, so nothing can be sent; its status says why.
#[derive(Debug)]
pub(super) struct Ended;

struct Queue {
    state: Mutex<State>,
    /// Room for requests. Closed when nobody takes them any more.
    room: Semaphore,
}

struct State {
    waiting: VecDeque<Outgoing>,
    fate: Fate,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A stream of requests, of which up to `capacity` wait for the connection; what it then has of them is in `loans`.
pub(super) fn outbox(capacity: usize, loans: Arc<Loans>) -> (Outbox, Requests) {
    let state = State { waiting: VecDeque::new(), fate: Fate::Open, waker: None };
    let queue = Arc::new(Queue { state: Mutex::new(state), room: Semaphore::new(capacity) });
    let outbox = Outbox { queue: Arc::clone(&queue) };
    (outbox, Requests { queue, data: None, loans, aborted: false })
}

impl Queue {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Outbox {
    /// Queues a request; waits while the queue is full.
    pub(super) async fn send(&self, request: Outgoing) -> Result<(), Ended> {
        let room = self.queue.room.acquire().await.map_err(|_| Ended)?;
        room.forget();
        self.queue.change(|state| state.waiting.push_back(request));
        Ok(())
    }

    /// Ends the stream after what is queued, which the server takes as the commit.
    pub(super) fn commit(self) {
        self.queue.change(|state| state.fate = Fate::Committed);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.change(|state| {
            if state.fate == Fate::Open {
                state.fate = Fate::Aborted;
                // A connection that a worker reads no more from may never ask for these.
                state.waiting.clear();
            }
        });
    }
}

impl Body for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.aborted {
            return Poll::Pending;
        }
        let next = {
            let mut state = self.queue.state.lock();
            match (self.data.is_some(), state.fate) {
                (_, Fate::Aborted) => None,
                (true, Fate::Open | Fate::Committed) => Some(None),
                (false, fate) => match state.waiting.pop_front() {
                    Some(request) => Some(Some(request)),
                    None if fate == Fate::Committed => return Poll::Ready(None),
                    None => {
                        state.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
            }
        };
        match next {
            None => {
                self.aborted = true;
                self.data = None;
                Poll::Ready(Some(Err(Status::cancelled("given up by the writer"))))
            }
            Some(None) => {
                let data = self.data.take().expect("it was seen above");
                Poll::Ready(Some(Ok(Frame::data(self.loans.lend(data)))))
            }
            Some(Some(request)) => {
                self.queue.room.add_permits(1);
                self.data = request.data;
                Poll::Ready(Some(Ok(Frame::data(request.head))))
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.queue.room.close();
    }
}

#[cfg(test)]
mod wire;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::super::proto::grpc::block;
    use super::super::proto::grpc::block::WriteRequest;
    use super::super::proto::grpc::block::write_request::Value;
    use super::*;

    /// What a body may do next.
    #[derive(Debug, PartialEq)]
    enum Next {
        Data(Bytes),
        Abort,
        Nothing,
        End,
    }

    fn next(requests: &mut Requests) -> Next {
        match Pin::new(&mut *requests).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => Next::Data(frame.into_data().unwrap()),
            Poll::Ready(Some(Err(status))) => {
                assert!(!requests.is_end_stream());
                assert_eq!(status.code(), tonic::Code::Cancelled);
                Next::Abort
            }
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Nothing,
        }
    }

    fn message(number: i64) -> Outgoing {
        Outgoing::message(&block::WriteResponse { offset: Some(number), content_hash: None })
    }

    fn chunk(data: &'static [u8]) -> Chunk {
        Chunk::new(Bytes::from_static(data), None, &Arc::default())
    }

    fn send(outbox: &Outbox, request: Outgoing) -> Result<(), Ended> {
        match pin!(outbox.send(request)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the queue is full"),
        }
    }

    fn queued(messages: &[i64]) -> (Outbox, Requests) {
        let (outbox, requests) = outbox(messages.len(), Arc::default());
        for number in messages {
            send(&outbox, message(*number)).unwrap();
        }
        (outbox, requests)
    }

    #[test]
    fn a_commit_ends_the_stream_after_everything_queued() {
        let (outbox, mut requests) = queued(&[1, 2]);
        outbox.commit();
        assert_eq!(next(&mut requests), Next::Data(message(1).head));
        assert_eq!(next(&mut requests), Next::Data(message(2).head));
        assert_eq!(next(&mut requests), Next::End);
    }

    #[test]
    fn a_commit_ends_the_stream_after_the_data_of_what_was_begun() {
        let (outbox, mut requests) = outbox(1, Arc::default());
        send(&outbox, Outgoing::chunk(chunk(b"data"))).unwrap();
        assert!(matches!(next(&mut requests), Next::Data(_)));
        outbox.commit();
        assert_eq!(next(&mut requests), Next::Data(Bytes::from_static(b"data")));
        assert_eq!(next(&mut requests), Next::End);
    }

    #[test]
    fn a_lost_outbox_aborts_at_once_and_never_ends_the_stream() {
        let (outbox, mut requests) = queued(&[1, 2]);
        drop(outbox);
        assert_eq!(next(&mut requests), Next::Abort);
        for _ in 0..3 {
            assert_eq!(next(&mut requests), Next::Nothing);
            assert!(!requests.is_end_stream());
        }
    }

    #[test]
    fn an_outbox_that_is_lost_within_a_request_aborts_before_its_data() {
        let (outbox, mut requests) = outbox(1, Arc::default());
        send(&outbox, Outgoing::chunk(chunk(b"data"))).unwrap();
        assert!(matches!(next(&mut requests), Next::Data(_)));
        drop(outbox);
        assert_eq!(next(&mut requests), Next::Abort);
        assert_eq!(next(&mut requests), Next::Nothing);
    }

    #[test]
    fn a_lost_outbox_lets_go_of_what_nobody_takes() {
        let own = Arc::default();
        let (outbox, requests) = outbox(1, Arc::default());
        send(&outbox, Outgoing::chunk(Chunk::new(Bytes::from_static(b"data"), None, &own))).unwrap();
        assert!(!own.is_gone());
        drop(outbox);
        assert!(own.is_gone());
        drop(requests);
    }

    #[test]
    fn the_queue_is_bounded_and_ends_with_its_reader() {
        let (outbox, mut requests) = queued(&[1]);
        let mut cx = Context::from_waker(Waker::noop());
        let mut second = Box::pin(outbox.send(message(2)));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert_eq!(next(&mut requests), Next::Data(message(1).head));
        assert!(second.as_mut().poll(&mut cx).is_ready());
        drop(second);
        drop(requests);
        assert!(send(&outbox, message(3)).is_err());
    }

    #[test]
    fn a_panic_in_the_writer_aborts() {
        let (outbox, mut requests) = queued(&[1]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _outbox = outbox;
            std::panic::resume_unwind(Box::new("the writer fails"));
        }));
        assert!(caught.is_err());
        assert_eq!(next(&mut requests), Next::Abort);
    }

    #[test]
    fn a_chunk_goes_as_it_lies_and_reads_as_prost_would_write_it() {
        for length in [1, 2, 127, 128, 1000, 16_383, 16_384, 1 << 20, (4 << 20) - 64] {
            let data = Bytes::from(vec![7; length]);
            let (outbox, mut requests) = outbox(1, Arc::default());
            send(&outbox, Outgoing::chunk(Chunk::new(data.clone(), None, &Arc::default()))).unwrap();
            let (Next::Data(head), Next::Data(sent)) = (next(&mut requests), next(&mut requests)) else {
                panic!("two frames")
            };
            assert_eq!((sent.as_ptr(), sent.len()), (data.as_ptr(), length));
            let chunk = block::Chunk { data: Some(data) };
            let expected = framed(&WriteRequest { value: Some(Value::Chunk(chunk)) });
            assert_eq!([head, sent].concat(), expected, "{length}");
        }
    }
}
