//! A stream to a worker whose regular end is a commit. Whoever loses an [`Upload`] without committing it aborts
//! it; there is no other way to end one. Knows neither blocks nor files.
//!
//! Known limit: a worker that refuses data in the middle answers, but neither reads on nor resets the stream. If
//! hyper waits for room in the stream's window at that moment, it keeps that one chunk until the connection ends.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::Shared;
use super::chunk::Loans;
use super::connection::ChannelId;
use super::connection::Server;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::grpc;
use super::outbox::Ended;
use super::outbox::Outbox;
use super::outbox::Outgoing;
use super::outbox::Requests;
use super::outbox::outbox;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::waiting;

/// How long a connection gets to carry an abort. A stalled one cannot, and is given up: without its end the
/// worker does not commit either.
const ABORT_TIME: Duration = Duration::from_secs(10);

/// Which call, about what. For messages, and for the path of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) rpc: Rpc,
    /// The block; -1 for a file of the under file system.
    pub(super) block_id: i64,
}

/// One such stream, with answers of type `U`.
pub(super) struct Upload<U> {
    outbox: Outbox,
    /// Answers in order; closed at the end of the stream.
    answers: mpsc::UnboundedReceiver<U>,
    /// Drives the call. Ends with the status.
    call: JoinHandle<Result<(), Failure>>,
    /// Tells the call that the stream was lost.
    kept: oneshot::Sender<()>,
    /// The worker's, for messages.
    name: Arc<str>,
    /// What it is called in what people read.
    rpc: Rpc,
}

impl<U> Upload<U>
where
    U: Message + Default + 'static,
{
    /// Opens the stream with its first request. Up to `queue` requests wait for the network. What the server
    /// says to the first request shows later.
    pub(super) async fn open(
        shared: &Shared,
        server: &Arc<Server>,
        subject: Subject,
        first: Outgoing,
        queue: usize,
    ) -> Result<Self, Failure> {
        let id = server.ready().await?;
        shared.data.traffic.worker_calls.add(1);
        let loans = Arc::new(Loans::default());
        let (outbox, requests) = outbox(queue.max(1), Arc::clone(&loans));
        if outbox.send(first).await.is_err() {
            unreachable!("the queue is empty and its receiver is here");
        }
        let (sender, answers) = mpsc::unbounded_channel();
        let (kept, lost) = oneshot::channel();
        let name = server.shared_name();
        let server = Arc::clone(server);
        // In a task of its own: the headers of the answer come with the first answer, which may be the last.
        let begun = Instant::now();
        let call = shared.bridge.spawn(async move {
            let call = drive(server.channel(), &id, subject.rpc, requests, &sender);
            let status = tokio::select! {
                result = call => result,
                () = given_up(lost) => Err(Status::cancelled("given up")),
            };
            // Whatever it leaves behind in the connection, nobody needs it.
            loans.end();
            server.took(subject.rpc, begun, status.is_err());
            status.map_err(|status| {
                let failure = failure(subject.rpc, &subject.block_id, server.name(), &status);
                if failure.class == Class::Unauthenticated {
                    server.refresh(&id);
                }
                failure
            })
        });
        Ok(Self { outbox, answers, call, kept, name, rpc: subject.rpc })
    }

    /// Hands over a request; waits up to `limit` for room in the queue.
    pub(super) async fn send(&mut self, request: Outgoing, limit: Duration) -> Result<(), Failure> {
        let _wait = waiting::call(&self.name, self.rpc.name());
        let sent = tokio::select! {
            biased;
            // A worker that has refused the data reads no more of it, and the queue stays full.
            ended = &mut self.call => return Err(too_early(ended)),
            sent = timeout(limit, self.outbox.send(request)) => sent,
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Ended)) => Err(self.verdict().await),
            Err(_) => {
                Err(Failure::connection(Fault::TimedOut, format!("{} took no data for {limit:?}", self.name)))
            }
        }
    }

    /// Waits up to `limit` for the next answer.
    pub(super) async fn answer(&mut self, limit: Duration) -> Result<U, Failure> {
        let _wait = waiting::call(&self.name, self.rpc.name());
        match timeout(limit, self.answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.verdict().await),
            Err(_) => Err(Failure::connection(
                Fault::TimedOut,
                format!("{} did not answer for {limit:?}", self.name),
            )),
        }
    }

    /// Commits what was sent: ends the stream and waits up to `limit` for the server's OK. Returns the last answer,
    /// if there was one.
    pub(super) async fn commit(mut self, limit: Duration) -> Result<Option<U>, Failure> {
        let _wait = waiting::call(&self.name, self.rpc.name());
        self.outbox.commit();
        let late = |_| {
            let detail = format!("{} did not commit within {limit:?}", self.name);
            Failure::connection(Fault::TimedOut, detail)
        };
        let ended = timeout(limit, &mut self.call).await.map_err(late)?;
        // Until here, so that a commit that is not waited for to its end is given up, too.
        drop(self.kept);
        ended.unwrap_or_else(|err| Err(died(&err)))?;
        let mut last = None;
        while let Ok(answer) = self.answers.try_recv() {
            last = Some(answer);
        }
        Ok(last)
    }

    /// Why the stream has ended, though nobody ended it.
    async fn verdict(&mut self) -> Failure {
        match timeout(ABORT_TIME, &mut self.call).await {
            Ok(ended) => too_early(ended),
            Err(_) => {
                let detail = format!("{} broke off and did not say why", self.name);
                Failure::connection(Fault::TimedOut, detail)
            }
        }
    }
}

/// Why a call has ended that nobody has ended.
fn too_early(ended: Result<Result<(), Failure>, JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => FsError::because(Fault::Io, "the worker ended the stream before its time").into(),
        Err(err) => died(&err),
    }
}

fn died(err: &JoinError) -> Failure {
    FsError::because(Fault::Io, format!("the task of a stream ended: {err}")).into()
}

/// Ends some time after the other half of `kept` was dropped.
async fn given_up(kept: oneshot::Receiver<()>) {
    let _ = kept.await;
    sleep(ABORT_TIME).await;
}

async fn drive<U>(
    channel: Channel,
    id: &ChannelId,
    rpc: Rpc,
    requests: Requests,
    answers: &mpsc::UnboundedSender<U>,
) -> Result<(), Status>
where
    U: Message + Default + 'static,
{
    let path = match rpc {
        Rpc::CreateLocalBlock => "/alluxio.grpc.block.BlockWorker/CreateLocalBlock",
        _ => "/alluxio.grpc.block.BlockWorker/WriteBlock",
    };
    let mut stream = grpc::call(channel, path, id.sign(requests)).await?.messages();
    while let Some(answer) = stream.message().await? {
        // Nobody listens after a commit that timed out.
        let _ = answers.send(answer);
    }
    Ok(())
}
