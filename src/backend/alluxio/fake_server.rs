//! A master and worker in one for tests, over a real connection: it answers each call as the test says, by the name of the call
//! and its first message.

use std::net;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::Response;
use http::header::CONTENT_TYPE;
use http::response::Builder;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::Status;

use super::grpc::PREFIX;
use super::grpc::framed;
use super::options::AlluxioOptions;
use super::options::Authentication;
use super::options::HostPort;
use super::options::RetryTimes;
use super::proto::grpc::WorkerNetAddress;
use super::proto::grpc::block::GetWorkerInfoListPResponse;
use super::proto::grpc::block::WorkerInfo;
use super::proto::grpc::version::GetServiceVersionPResponse;

/// What comes of a call.
#[derive(Clone)]
pub(super) enum Reply {
    /// This message, and success.
    Message(Bytes),
    /// This failure.
    Failure(Code),
    /// The same, and why.
    Because(Code, &'static str),
    /// The stream breaks off.
    Lost,
    /// Nothing, and nothing more is read of it.
    Hang,
}

impl Reply {
    pub(super) fn message(message: &impl Message) -> Self {
        Self::Message(framed(message))
    }
}

type Answer = dyn Fn(&str, &[u8]) -> Reply + Send + Sync;

/// Serves until it is dropped.
pub(super) struct FakeServer {
    address: HostPort,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// `answer` gets the calls of masters and workers, but for the questions who they are.
    pub(super) fn start(answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = HostPort::new("127.0.0.1", listener.local_addr().unwrap().port());
        let port = address.port;
        let answer: Arc<Answer> = Arc::new(move |call, message| match call {
            "getServiceVersion" => Reply::message(&GetServiceVersionPResponse { version: Some(2) }),
            "GetWorkerInfoList" => Reply::message(&worker_list(port)),
            _ => answer(call, message),
        });
        let (end, ended) = oneshot::channel();
        let serve = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), answer) => {}
                    // The test is over, or has failed.
                    _ = ended => {}
                }
            });
        };
        Self { address, end: Some(end), thread: Some(thread::spawn(serve)) }
    }

    /// Options of a client of this server, which gives up soon.
    pub(super) fn options(&self) -> AlluxioOptions {
        let ms = Duration::from_millis;
        let times = RetryTimes { base: ms(1), max: ms(10), total: ms(100) };
        AlluxioOptions {
            masters: vec![self.address.clone()],
            authentication: Authentication::NoSasl,
            short_circuit: false,
            rpc_retry: times,
            write_init_retry: times,
            ..AlluxioOptions::default()
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        drop(self.end.take());
        // A panic of its thread is one of the test's answers, and has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn worker_list(port: u16) -> GetWorkerInfoListPResponse {
    let address = WorkerNetAddress {
        host: Some("127.0.0.1".to_owned()),
        data_port: Some(i32::from(port)),
        ..WorkerNetAddress::default()
    };
    let worker =
        WorkerInfo { address: Some(address), capacity_bytes: Some(i64::MAX), ..WorkerInfo::default() };
    GetWorkerInfoListPResponse { worker_infos: vec![worker] }
}

async fn accept(listener: TcpListener, answer: Arc<Answer>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut calls = JoinSet::new();
            while let Some(Ok((request, response))) = connection.accept().await {
                let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
                calls.spawn(serve(call, request.into_body(), response, Arc::clone(&answer)));
            }
        });
    }
}

async fn serve(call: String, body: RecvStream, mut response: SendResponse<Bytes>, answer: Arc<Answer>) {
    let (message, body) = first_message(body).await;
    let head = Response::builder().header(CONTENT_TYPE, "application/grpc");
    // A client that has gone meanwhile is none of the server's concern.
    match answer(&call, &message) {
        Reply::Message(reply) => {
            let Ok(mut stream) = response.send_response(head.body(()).unwrap(), false) else { return };
            let _ = stream.send_data(reply, false);
            let _ = stream.send_trailers(trailers(Code::Ok, ""));
        }
        Reply::Failure(code) => fail(response, head, code, "as the test says"),
        Reply::Because(code, why) => fail(response, head, code, why),
        Reply::Lost => response.send_reset(h2::Reason::INTERNAL_ERROR),
        Reply::Hang => std::future::pending().await,
    }
    drop(body);
}

fn fail(mut response: SendResponse<Bytes>, head: Builder, code: Code, why: &str) {
    let mut head = head.body(()).unwrap();
    head.headers_mut().extend(trailers(code, why));
    let _ = response.send_response(head, true);
}

fn trailers(code: Code, why: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    Status::new(code, why).add_header(&mut trailers).unwrap();
    trailers
}

/// The first message of `body`, and what follows it.
async fn first_message(mut body: RecvStream) -> (Vec<u8>, RecvStream) {
    let mut read = Vec::new();
    while read.len() < PREFIX
        || read.len() - PREFIX < u32::from_be_bytes(read[1..PREFIX].try_into().unwrap()) as usize
    {
        match body.data().await {
            Some(Ok(data)) => read.extend_from_slice(&data),
            Some(Err(_)) | None => break,
        }
    }
    (read.split_off(PREFIX.min(read.len())), body)
}
