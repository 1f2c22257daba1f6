//! What a server sees of a stream of requests, over a real connection: its end after a commit, and a reset in any other case.

use h2::RecvStream;
use h2::server::SendResponse;
use tokio::net::TcpListener;
use tokio::spawn;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::Endpoint;

use super::super::grpc;
use super::super::proto::grpc::block;
use super::super::proto::grpc::block::WriteRequest;
use super::super::proto::grpc::block::write_request::Value;
use super::*;

/// More than fits into the window of a stream, which is 64 KiB at this server.
const LARGE: usize = 200_000;

/// The end of the server.
struct Seen {
    body: RecvStream,
    /// The stream would be reset without it.
    _answer: SendResponse<Bytes>,
    /// Client and server, which end with the test.
    _tasks: JoinSet<()>,
}

impl Seen {
    /// Takes at least `length` bytes, or what comes until the end; tells how it ended if it did.
    async fn take(&mut self, length: usize) -> (Vec<u8>, Option<Result<(), h2::Error>>) {
        let mut taken = Vec::new();
        while taken.len() < length {
            match self.body.data().await {
                Some(Ok(data)) => {
                    taken.extend_from_slice(&data);
                    self.body.flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(err)) => return (taken, Some(Err(err))),
                None => return (taken, Some(Ok(()))),
            }
        }
        (taken, None)
    }

    async fn expect_reset(&mut self, what: &str) {
        let (_, end) = self.take(usize::MAX).await;
        assert!(matches!(&end, Some(Err(err)) if err.is_reset() && err.is_remote()), "{what}: {end:?}");
    }
}

/// A stream that was just opened, and the server's end of it.
async fn opened() -> (Outbox, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel =
        Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap().connect_lazy();
    let (outbox, requests) = outbox(4, Arc::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // It ends when the stream is reset, or with the test.
        let _ = grpc::call(channel, "/worker/write", Request::new(requests)).await;
    });
    let mut server = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
    let (request, answer) = server.accept().await.unwrap().unwrap();
    tasks.spawn(async move { while server.accept().await.is_some() {} });
    (outbox, Seen { body: request.into_body(), _answer: answer, _tasks: tasks })
}

/// Sends a message and two chunks; tells how they look on the wire.
async fn send_all(outbox: &Outbox) -> Vec<u8> {
    let message = block::WriteResponse { offset: Some(7), content_hash: None };
    outbox.send(Outgoing::message(&message)).await.unwrap();
    let mut expected = framed(&message).to_vec();
    for byte in [1, 2] {
        let data = Bytes::from(vec![byte; LARGE]);
        outbox.send(Outgoing::chunk(Chunk::new(data.clone(), None, &Arc::default()))).await.unwrap();
        let value = Some(Value::Chunk(block::Chunk { data: Some(data) }));
        expected.extend_from_slice(&framed(&WriteRequest { value }));
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_the_end_of_the_stream() {
    let (outbox, mut seen) = opened().await;
    let expected = send_all(&outbox).await;
    outbox.commit();
    let (taken, end) = seen.take(usize::MAX).await;
    assert!(matches!(end, Some(Ok(()))), "{end:?}");
    assert!(taken == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_has_arrived_of_it_a_lost_outbox_is_a_reset() {
    // Nothing, less than the message before the chunks, parts of either chunk, and all of it.
    for length in [0, 1, 10, 100, LARGE / 2, LARGE + 20, LARGE * 3 / 2, LARGE * 2 + 20] {
        for round in 0..20 {
            let (outbox, mut seen) = opened().await;
            send_all(&outbox).await;
            let (_, end) = seen.take(length).await;
            assert!(end.is_none(), "{end:?}");
            drop(outbox);
            seen.expect_reset(&format!("after {length} bytes, round {round}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_ends_is_a_reset() {
    for round in 0..20 {
        let (outbox, mut seen) = opened().await;
        let writer = spawn(async move {
            send_all(&outbox).await;
            std::future::pending::<()>().await;
            outbox.commit();
        });
        let (_, end) = seen.take(100).await;
        assert!(end.is_none(), "{end:?}");
        writer.abort();
        seen.expect_reset(&format!("cancelled, round {round}")).await;

        let (outbox, mut seen) = opened().await;
        let writer = spawn(async move {
            send_all(&outbox).await;
            std::panic::resume_unwind(Box::new("the writer fails"));
        });
        seen.expect_reset(&format!("panicked, round {round}")).await;
        assert!(writer.await.unwrap_err().is_panic());
    }
}
