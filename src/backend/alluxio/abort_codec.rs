//! Requests of a stream on which the end means "commit": sent by a codec that can also break the stream off.
//!
//! To a worker the half-close of a write is its commit, whatever arrived until then, and tonic half-closes
//! as soon as the stream of requests ends, which includes every `?`, panic and cancelled task. Dropping the
//! call as well only wins that race sometimes. An encoder that fails makes hyper reset the stream instead,
//! reliably. So here the stream of requests ends only after [`Outbox::commit`]; losing the [`Outbox`] in any
//! other way is an encoder's error.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use prost::Message;
use tokio::sync::mpsc;
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

const OPEN: u8 = 0;
const COMMITTED: u8 = 1;
const ABORTED: u8 = 2;

/// The sender of a stream's requests. Dropped without a commit, it aborts the stream.
pub(super) struct Outbox<T> {
    sender: Option<mpsc::Sender<T>>,
    fate: Arc<AtomicU8>,
}

/// The stream has ended, so nothing can be sent; its status says why.
#[derive(Debug)]
pub(super) struct Ended;

/// The requests as tonic takes them. Ends only after a commit.
pub(super) struct Requests<T> {
    receiver: mpsc::Receiver<T>,
    fate: Arc<AtomicU8>,
    abort_sent: bool,
}

/// A stream of requests, of which up to `capacity` wait to be encoded.
pub(super) fn outbox<T>(capacity: usize) -> (Outbox<T>, Requests<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let fate = Arc::new(AtomicU8::new(OPEN));
    let requests = Requests { receiver, fate: Arc::clone(&fate), abort_sent: false };
    (Outbox { sender: Some(sender), fate }, requests)
}

impl<T> Outbox<T> {
    /// Queues a request; waits while the queue is full.
    pub(super) async fn send(&self, message: T) -> Result<(), Ended> {
        let sender = self.sender.as_ref().expect("only commit takes the sender, and it takes self too");
        sender.send(message).await.map_err(|_| Ended)
    }

    /// Ends the stream after what is queued, which the server takes as the commit.
    pub(super) fn commit(mut self) {
        self.fate.store(COMMITTED, Ordering::Release);
        self.sender = None;
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        // Before the sender goes, which wakes the stream: it then finds its fate decided.
        let _ = self.fate.compare_exchange(OPEN, ABORTED, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl<T> Stream for Requests<T> {
    type Item = Outgoing<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.abort_sent {
            return Poll::Pending;
        }
        if this.fate.load(Ordering::Acquire) != ABORTED {
            match this.receiver.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(message)) => return Poll::Ready(Some(Outgoing::Message(message))),
                Poll::Ready(None) if this.fate.load(Ordering::Acquire) == COMMITTED => {
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {}
            }
        }
        this.abort_sent = true;
        Poll::Ready(Some(Outgoing::Abort))
    }
}

impl<T> Unpin for Requests<T> {}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn next<T>(requests: &mut Requests<T>) -> Poll<Option<Outgoing<T>>> {
        Pin::new(requests).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn queued(messages: &[u32]) -> (Outbox<u32>, Requests<u32>) {
        let (outbox, requests) = outbox(messages.len());
        for message in messages {
            outbox.sender.as_ref().unwrap().try_send(*message).unwrap();
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
        outbox.sender.as_ref().unwrap().try_send(7).unwrap();
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
