//! Calls on a server's connection whose messages the caller frames by himself: what he hands over goes to the connection
//! as it is, and what comes is handed on as it lies in the connection's buffers. Knows no messages.
//!
//! tonic's own client copies each message twice more, into a buffer when it is sent and out of the frames when it
//! comes. Everything else is left to it: the connection, the meaning of the headers and trailers, and the errors.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header::CONTENT_TYPE;
use http::header::TE;
use http_body::Body as _;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Empty;
use prost::Message;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::Request;
use tonic::Status;
use tonic::Streaming;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Channel;
use tonic_prost::ProstDecoder;

/// Bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// What a body's error may be.
type Foreign = Box<dyn std::error::Error + Send + Sync>;

/// What a server answers.
pub(super) struct Answer {
    body: Body,
    http: StatusCode,
    /// The headers have told the end already.
    told: bool,
}

/// Makes the call `path` with the messages of the body in `request`. An answer that is nothing but a failure is an error.
pub(super) async fn call<B>(
    mut channel: Channel,
    path: &'static str,
    request: Request<B>,
) -> Result<Answer, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Foreign>,
{
    let (metadata, extensions, body) = request.into_parts();
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = metadata.into_headers();
    *request.extensions_mut() = extensions;
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let broken = |err| Status::from_error(Box::new(err));
    poll_fn(|cx| GrpcService::poll_ready(&mut channel, cx)).await.map_err(broken)?;
    let (parts, body) = GrpcService::call(&mut channel, request).await.map_err(broken)?.into_parts();
    let told = match Status::from_header_map(&parts.headers) {
        Some(status) if status.code() != Code::Ok => return Err(status),
        told => told.is_some(),
    };
    Ok(Answer { body, http: parts.status, told })
}

impl Answer {
    /// The next bytes, which begin and end wherever the connection has cut them; none after the regular end.
    pub(super) async fn frame(&mut self) -> Result<Option<Bytes>, Status> {
        let trailers = match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
            Some(frame) => match frame?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(other) => other.into_trailers().ok(),
            },
            None => None,
        };
        if !self.told {
            verdict(self.http, trailers).await?;
            self.told = true;
        }
        Ok(None)
    }

    /// The same as messages, for those that are few and small.
    pub(super) fn messages<T>(self) -> Streaming<T>
    where
        T: Message + Default + Send + 'static,
    {
        let decoder = ProstDecoder::default();
        if self.told {
            Streaming::new_empty(decoder, self.body)
        } else {
            Streaming::new_response(decoder, self.body, self.http, None, None)
        }
    }
}

/// What the end of a stream says. tonic reads it, out of a stream that is nothing but the end.
async fn verdict(http: StatusCode, trailers: Option<HeaderMap>) -> Result<(), Status> {
    let end = Empty::<Bytes>::new().with_trailers(async { trailers.map(Ok) });
    let mut stream = Streaming::<()>::new_response(ProstDecoder::default(), end, http, None, None);
    stream.message().await.map(drop)
}

/// `message` as it goes over the wire.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    put_prefix(&mut framed, length);
    message.encode(&mut framed).expect("a buffer grows");
    framed.freeze()
}

/// Begins a message of `length` bytes, which is not compressed.
pub(super) fn put_prefix(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("no message is as large as 4 GiB"));
}

/// A body of the one message `framed`. It ends with the sender.
pub(super) fn held(framed: Bytes) -> (oneshot::Sender<()>, Held) {
    let (sender, open) = oneshot::channel();
    (sender, Held { first: Some(framed), open })
}

/// One message, and then a wait for the end.
pub(super) struct Held {
    first: Option<Bytes>,
    open: oneshot::Receiver<()>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // That the sender went is all there is to hear.
        let _ = ready!(Pin::new(&mut self.open).poll(cx));
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn trailers(status: &'static str, text: &'static str) -> Option<HeaderMap> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        trailers.insert("grpc-message", HeaderValue::from_static(text));
        Some(trailers)
    }

    #[tokio::test]
    async fn an_answer_ends_as_its_trailers_say() {
        let answer = |trailers: Option<HeaderMap>, http: StatusCode, told: bool| {
            let body = http_body_util::Full::new(Bytes::from_static(b"abc"));
            Answer { body: Body::new(body.with_trailers(async { trailers.map(Ok) })), http, told }
        };
        let mut good = answer(trailers("0", ""), StatusCode::OK, false);
        assert_eq!(good.frame().await.unwrap().unwrap(), "abc");
        assert!(good.frame().await.unwrap().is_none());
        let mut refused = answer(trailers("5", "no%20such block"), StatusCode::OK, false);
        assert!(refused.frame().await.is_ok());
        let status = refused.frame().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such block"));
        let mut cut = answer(None, StatusCode::OK, false);
        assert!(cut.frame().await.is_ok());
        assert_eq!(cut.frame().await.unwrap_err().code(), Code::Unknown);
        let mut proxy = answer(None, StatusCode::BAD_GATEWAY, false);
        assert!(proxy.frame().await.is_ok());
        assert_eq!(proxy.frame().await.unwrap_err().code(), Code::Unavailable);
        let mut told = answer(None, StatusCode::OK, true);
        assert!(told.frame().await.is_ok());
        assert!(told.frame().await.unwrap().is_none());
    }

    #[test]
    fn a_held_body_ends_with_its_sender() {
        let (sender, mut body) = held(Bytes::from_static(b"request"));
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Ok(frame))) if frame.is_data()));
        assert!(next().is_pending());
        drop(sender);
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
