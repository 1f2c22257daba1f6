//! Requests of a stream on which the end means "commit": sent by a codec that can also break the stream off.
//!
//! To a worker the half-close of a write is its commit, whatever arrived until then, and tonic half-closes
//! as soon as the stream of requests ends, which includes every `?`, panic and cancelled task. Dropping the
//! call as well only wins that race sometimes. An encoder that fails makes hyper reset the stream instead,
//! reliably. So here the stream of requests ends only after [`Outbox::commit`]; losing the [`Outbox`] in any
//! other way is an encoder's error.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::Status;
use tonic::codec::BufferSettings;
use tonic::codec::Codec;
use tonic::codec::EncodeBuf;
use tonic::codec::Encoder;
use tonic_prost::ProstCodec;

/// What goes to the encoder.
#[derive(Debug, PartialEq)]
pub(super) enum Outgoing<T> {
    /// A request.
    Message(T),
    /// Reset the stream.
    Abort,
}

/// The codec of a stream that can be aborted: prost, and an error for [`Outgoing::Abort`].
pub(super) struct AbortCodec<T, U> {
    types: PhantomData<fn(T) -> U>,
}

/// Encodes messages; fails for [`Outgoing::Abort`].
pub(super) struct AbortEncoder<T: Message + Send + 'static> {
    inner: <ProstCodec<T, ()> as Codec>::Encoder,
}

impl<T, U> AbortCodec<T, U> {
    /// The codec.
    pub(super) fn new() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> Codec for AbortCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = Outgoing<T>;
    type Decode = U;
    type Encoder = AbortEncoder<T>;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        AbortEncoder { inner: ProstCodec::<T, ()>::raw_encoder(BufferSettings::default()) }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::default())
    }
}

impl<T: Message + Send + 'static> Encoder for AbortEncoder<T> {
    type Item = Outgoing<T>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outgoing::Message(message) => self.inner.encode(message, buf),
            Outgoing::Abort => Err(Status::cancelled("given up by the writer")),
        }
    }
}

/// The sender of a stream's requests. Dropped without a commit, it aborts the stream.
pub(super) struct Outbox<T> {
    queue: Arc<Queue<T>>,
}

/// The requests as tonic takes them. Ends only after a commit.
pub(super) struct Requests<T> {
    queue: Arc<Queue<T>>,
    abort_sent: bool,
}

/// The stream has ended, so nothing can be sent; its status says why.
#[derive(Debug)]
pub(super) struct Ended;

struct Queue<T> {
    state: Mutex<State<T>>,
    /// Room for requests. Closed when nobody takes them any more.
    room: Semaphore,
}

struct State<T> {
    waiting: VecDeque<T>,
    fate: Fate,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A stream of requests, of which up to `capacity` wait to be encoded.
pub(super) fn outbox<T>(capacity: usize) -> (Outbox<T>, Requests<T>) {
    let state = State { waiting: VecDeque::new(), fate: Fate::Open, waker: None };
    let queue = Arc::new(Queue { state: Mutex::new(state), room: Semaphore::new(capacity) });
    (Outbox { queue: Arc::clone(&queue) }, Requests { queue, abort_sent: false })
}

impl<T> Queue<T> {
    fn change(&self, change: impl FnOnce(&mut State<T>)) {
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

impl<T> Outbox<T> {
    /// Queues a request; waits while the queue is full.
    pub(super) async fn send(&self, message: T) -> Result<(), Ended> {
        let room = self.queue.room.acquire().await.map_err(|_| Ended)?;
        room.forget();
        self.queue.change(|state| state.waiting.push_back(message));
        Ok(())
    }

    /// Ends the stream after what is queued, which the server takes as the commit.
    pub(super) fn commit(self) {
        self.queue.change(|state| state.fate = Fate::Committed);
    }
}

impl<T> Drop for Outbox<T> {
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

impl<T> Stream for Requests<T> {
    type Item = Outgoing<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.abort_sent {
            return Poll::Pending;
        }
        let mut state = self.queue.state.lock();
        if let Some(message) = state.waiting.pop_front() {
            drop(state);
            self.queue.room.add_permits(1);
            return Poll::Ready(Some(Outgoing::Message(message)));
        }
        match state.fate {
            Fate::Committed => Poll::Ready(None),
            Fate::Open => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Fate::Aborted => {
                drop(state);
                self.abort_sent = true;
                Poll::Ready(Some(Outgoing::Abort))
            }
        }
    }
}

impl<T> Drop for Requests<T> {
    fn drop(&mut self) {
        self.queue.room.close();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn next<T>(requests: &mut Requests<T>) -> Poll<Option<Outgoing<T>>> {
        Pin::new(requests).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn send(outbox: &Outbox<u32>, message: u32) -> Result<(), Ended> {
        match pin!(outbox.send(message)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the queue is full"),
        }
    }

    fn queued(messages: &[u32]) -> (Outbox<u32>, Requests<u32>) {
        let (outbox, requests) = outbox(messages.len());
        for message in messages {
            send(&outbox, *message).unwrap();
        }
        (outbox, requests)
    }

    #[test]
    fn a_commit_ends_the_stream_after_everything_queued() {
        let (outbox, mut requests) = queued(&[1, 2]);
        outbox.commit();
        assert_eq!(next(&mut requests), Poll::Ready(Some(Outgoing::Message(1))));
        assert_eq!(next(&mut requests), Poll::Ready(Some(Outgoing::Message(2))));
        assert_eq!(next(&mut requests), Poll::Ready(None));
    }

    #[test]
    fn a_lost_outbox_aborts_at_once_and_never_ends_the_stream() {
        let (outbox, mut requests) = queued(&[1, 2]);
        drop(outbox);
        assert_eq!(next(&mut requests), Poll::Ready(Some(Outgoing::Abort)));
        for _ in 0..3 {
            assert_eq!(next(&mut requests), Poll::Pending);
        }
    }

    #[test]
    fn a_lost_outbox_lets_go_of_what_nobody_takes() {
        let message = Arc::new(());
        let (outbox, requests) = outbox(1);
        assert!(
            pin!(outbox.send(Arc::clone(&message))).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        );
        drop(outbox);
        assert_eq!(Arc::strong_count(&message), 1);
        drop(requests);
    }

    #[test]
    fn the_queue_is_bounded_and_ends_with_its_reader() {
        let (outbox, mut requests) = queued(&[1]);
        let mut cx = Context::from_waker(Waker::noop());
        let mut second = Box::pin(outbox.send(2));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert_eq!(next(&mut requests), Poll::Ready(Some(Outgoing::Message(1))));
        assert!(second.as_mut().poll(&mut cx).is_ready());
        drop(second);
        drop(requests);
        assert!(send(&outbox, 3).is_err());
    }

    #[test]
    fn a_panic_in_the_writer_aborts() {
        let (outbox, mut requests) = queued(&[1]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _outbox = outbox;
            std::panic::resume_unwind(Box::new("the writer fails"));
        }));
        assert!(caught.is_err());
        assert_eq!(next(&mut requests), Poll::Ready(Some(Outgoing::Abort)));
    }

    #[test]
    fn the_encoder_fails_for_an_abort() {
        use http_body::Body;
        use tonic::codec::EncodeBody;

        let (outbox, requests) = outbox::<u32>(1);
        send(&outbox, 7).unwrap();
        let source = tokio_stream::StreamExt::map(requests, Ok);
        let encoder = AbortCodec::<u32, u32>::new().encoder();
        let mut body = Box::pin(EncodeBody::new_client(encoder, source, None, None));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        drop(outbox);
        assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(Err(_)))));
        assert!(!body.is_end_stream());
    }
}
