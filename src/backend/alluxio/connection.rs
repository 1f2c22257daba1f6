//! One server with its connection and its authentication, and the connections to all workers.
//!
//! A server knows a client by a channel id, which lives as long as the stream on which it was authenticated. The
//! stream is kept by a task of its own; when it ends, the id is forgotten and the next call authenticates
//! afresh. An id is never used a second time: the server would take that for an attack on the first use.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::spawn;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::Request;
use tonic::Status;
use tonic::Streaming;
use tonic::metadata::Ascii;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::flight::Flight;
use super::options::AlluxioOptions;
use super::options::Authentication;
use super::options::HostPort;
use super::proto::grpc::sasl::ChannelAuthenticationScheme;
use super::proto::grpc::sasl::SaslMessage;
use super::proto::grpc::sasl::SaslMessageType;
use super::proto::grpc::sasl::sasl_authentication_service_client::SaslAuthenticationServiceClient;
use super::worker::Worker;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;
use crate::metrics;
use crate::metrics::Calls;
use crate::spans;
use crate::waiting;

/// The metadata that carries the channel id.
const CHANNEL_ID: &str = "channel-id";

/// A server that refuses this many fresh channel ids in a row will refuse the next.
pub(super) const UNAUTHENTICATED_MAX: u32 = 3;

/// Servers end a connection that pings more often than every 30 s.
const KEEPALIVE_MIN: Duration = Duration::from_secs(35);

/// Flow control is by stream only. A window of the connection that streams share could be used up by readers that
/// nobody asks for the moment, and everyone else on that connection would wait for them.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Bytes that a server may send in one frame, each of which is read into a buffer of its own. Of the 16 KiB that HTTP/2 begins
/// with, h2 reads 8 KiB by a call of their own and copies them. A worker sends up to 32 KiB in one
/// (`alluxio.worker.network.netty.watermark.high`), as far as it may.
const FRAME_MAX: u32 = 64 << 10;

/// Streams that were given up, as fetches are that nobody waits for any more, are remembered so many and so long: what a
/// worker still sends of them is passed over. What it sends of one that is forgotten is an error to h2, which ends a
/// connection after 1024 of those, and all that goes on there. It is not to count them.
const RESETS_REMEMBERED: usize = 16 << 10;
const RESET_REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// By TCP.
    Tcp(HostPort),
    /// A worker's domain socket on this host.
    Unix(PathBuf),
}

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Short calls to a master.
    Calls,
    /// Streams of data to and from a worker.
    Streams,
}

/// A server, connected when it is first needed and again whenever the connection breaks.
pub(super) struct Server {
    name: Arc<str>,
    channel: Channel,
    /// The user to authenticate as; none if servers want no authentication.
    user: Option<String>,
    auth_timeout: Duration,
    /// The live authentication. Cleared by the task that keeps its stream, and by `refresh`.
    session: Arc<ArcSwapOption<Session>>,
    authenticating: Flight,
    /// When it was last authenticated at, and whether that was not the first time.
    authenticated: Mutex<Option<(Instant, bool)>>,
    calls: Arc<Calls>,
}

/// One authentication: its id is valid as long as this is.
struct Session {
    id: MetadataValue<Ascii>,
    keeper: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Ends the stream, and with it the server's memory of the id.
        self.keeper.abort();
    }
}

/// What signs a request as ours. Kept by the caller to say which one a server refused.
#[derive(Clone)]
pub(super) struct ChannelId(Option<Arc<Session>>);

impl ChannelId {
    /// A request with `message`, or with a stream of messages, that the server takes for ours.
    pub(super) fn sign<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(session) = &self.0 {
            request.metadata_mut().insert(CHANNEL_ID, session.id.clone());
        }
        if let Some(parent) = spans::traceparent().and_then(|parent| parent.parse().ok()) {
            request.metadata_mut().insert(spans::TRACEPARENT, parent);
        }
        request
    }
}

impl Server {
    /// A server that nothing is sent to yet. Must be called inside the runtime.
    pub(super) fn new(target: &Target, purpose: Use, options: &AlluxioOptions) -> Result<Self> {
        let name = match target {
            Target::Tcp(address) => address.to_string(),
            Target::Unix(path) => path.display().to_string(),
        };
        let channel = endpoint(target, purpose, options)
            .map_err(|err| FsError::because(Fault::InvalidArgument, format!("server {name}: {err}")))?
            .connect_lazy();
        let user = match options.authentication {
            Authentication::Simple => Some(options.user.clone()),
            Authentication::NoSasl => None,
        };
        Ok(Self {
            calls: metrics::server(&name, Rpc::NAMES),
            name: name.into(),
            channel,
            user,
            auth_timeout: options.auth_timeout,
            session: Arc::default(),
            authenticating: Flight::default(),
            authenticated: Mutex::default(),
        })
    }

    /// `host:port`, or the path of the domain socket.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A call of `rpc` is under way as long as the result lives.
    pub(super) fn calls(&self, rpc: Rpc) -> waiting::Call {
        waiting::call(&self.name, rpc.name())
    }

    /// The name, to be kept.
    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The connection, shared by all who ask.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What is about to be sent, for the log of a mount that is to say so.
    pub(super) fn sends(&self, rpc: Rpc, message: &impl fmt::Debug) {
        log::debug!("{} is sent {rpc:?} {message:?}", self.name);
    }

    /// Counts a call of `rpc` that began at `begun` and ends now.
    pub(super) fn took(&self, rpc: Rpc, begun: Instant, failed: bool) {
        self.calls.record(rpc.place(), begun.elapsed(), failed);
    }

    /// The channel id to sign requests with. Authenticates if that has not been done since the last break.
    pub(super) async fn ready(&self) -> Result<ChannelId, Failure> {
        let Some(user) = &self.user else {
            return Ok(ChannelId(None));
        };
        let known = || self.session.load_full().map(|session| ChannelId(Some(session)));
        self.authenticating.run(known, self.authenticate(user)).await
    }

    /// The server refused `id`: the next [`ready`](Self::ready) makes another one, unless that was done already.
    pub(super) fn refresh(&self, id: &ChannelId) {
        if let Some(refused) = &id.0 {
            self.session.compare_and_swap(refused, None);
        }
    }

    /// When it last wanted another authentication, as it does when it has restarted.
    pub(super) fn authenticated_again(&self) -> Option<Instant> {
        self.authenticated.lock().and_then(|(when, again)| again.then_some(when))
    }

    /// Whether a refused id can be replaced. If not, an answer "unauthenticated" is final.
    pub(super) fn authenticates(&self) -> bool {
        self.user.is_some()
    }

    async fn authenticate(&self, user: &str) -> Result<ChannelId, Failure> {
        let _call = self.calls(Rpc::Authenticate);
        let id = Uuid::new_v4().to_string();
        let slot = Arc::downgrade(&self.session);
        let begun = Instant::now();
        let opened = timeout(self.auth_timeout, open_session(self.channel(), id, user, slot)).await;
        self.took(Rpc::Authenticate, begun, !matches!(opened, Ok(Ok(_))));
        let session = match opened {
            Ok(opened) => opened.map_err(|status| self.refusal(user, &status))?,
            Err(_) => {
                let detail =
                    format!("{} did not answer the authentication within {:?}", self.name, self.auth_timeout);
                return Err(Failure::connection(Fault::TimedOut, detail));
            }
        };
        let session = Arc::new(session);
        self.session.store(Some(Arc::clone(&session)));
        let mut last = self.authenticated.lock();
        *last = Some((Instant::now(), last.is_some()));
        log::debug!("authenticated at {} as {user}", self.name);
        Ok(ChannelId(Some(session)))
    }

    /// Why the server did not take us. Only a broken connection is worth another attempt.
    fn refusal(&self, user: &str, status: &Status) -> Failure {
        let failure = failure(Rpc::Authenticate, &user, &self.name, status);
        match (failure.class, status.code()) {
            (Class::Connection, Code::Unimplemented) => {
                let detail = format!(
                    "authentication is disabled at {}, set alluxio.security.authentication.type=NOSASL",
                    self.name
                );
                FsError::because(Fault::PermissionDenied, detail).into()
            }
            (Class::Unauthenticated, _) => failure.error.into(),
            (Class::Connection | Class::Raced | Class::Unregistered | Class::Final, _) => failure,
        }
    }
}

/// Authenticates by SASL PLAIN and leaves the stream to a task.
async fn open_session(
    channel: Channel,
    id: String,
    user: &str,
    slot: Weak<ArcSwapOption<Session>>,
) -> Result<Session, Status> {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(plain(&id, user)).expect("the queue is empty and its receiver is here");
    let mut client = SaslAuthenticationServiceClient::new(channel);
    let mut answers = client.authenticate(ReceiverStream::new(receiver)).await?.into_inner();
    match answers.message().await? {
        Some(answer) if answer.message_type() == SaslMessageType::Success => {}
        Some(_) => return Err(Status::internal("the server asks for another round of authentication")),
        None => return Err(Status::internal("the server ended the authentication without an answer")),
    }
    let id: MetadataValue<Ascii> = id.parse().expect("a uuid is ASCII");
    let keeper = spawn(keep(id.clone(), sender, answers, slot));
    Ok(Session { id, keeper })
}

/// The one message of SASL PLAIN: whom to act for (nobody else), who we are, and a password that servers want to be
/// there and do not look at.
fn plain(id: &str, user: &str) -> SaslMessage {
    SaslMessage {
        message_type: Some(SaslMessageType::Challenge.into()),
        message: Some(Bytes::from(format!("\0{user}\0noPassword"))),
        client_id: Some(id.to_owned()),
        authentication_scheme: Some(ChannelAuthenticationScheme::Simple.into()),
        channel_ref: Some(format!("alluxio-fuse pid {}", process::id())),
    }
}

/// Holds both halves of the stream until it ends, and then takes its session out of use.
async fn keep(
    id: MetadataValue<Ascii>,
    sender: mpsc::Sender<SaslMessage>,
    mut answers: Streaming<SaslMessage>,
    slot: Weak<ArcSwapOption<Session>>,
) {
    while let Ok(Some(_)) = answers.message().await {}
    drop(sender);
    let Some(slot) = slot.upgrade() else {
        return;
    };
    let current = slot.load();
    if current.as_ref().is_some_and(|session| session.id == id) {
        slot.compare_and_swap(&*current, None);
    }
}

fn endpoint(
    target: &Target,
    purpose: Use,
    options: &AlluxioOptions,
) -> Result<Endpoint, tonic::transport::Error> {
    let uri = match target {
        Target::Tcp(address) => format!("http://{address}"),
        Target::Unix(path) => format!("unix:{}", path.display()),
    };
    let window = match purpose {
        Use::Calls => options.rpc_window,
        Use::Streams => options.streaming_window,
    };
    let (keepalive, keepalive_timeout) = match purpose {
        Use::Calls => (Some(options.keepalive), options.keepalive_timeout),
        Use::Streams => (options.streaming_keepalive, options.streaming_keepalive_timeout),
    };
    let endpoint = Endpoint::from_shared(uri)?
        .user_agent(concat!("alluxio-fuse/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(u32::try_from(window).unwrap_or(CONNECTION_WINDOW).min(CONNECTION_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .http2_max_concurrent_reset_streams(RESETS_REMEMBERED)
        .http2_reset_stream_duration(RESET_REMEMBERED_FOR)
        .http2_max_local_error_reset_streams(None)
        .keep_alive_timeout(keepalive_timeout)
        .tcp_nodelay(true);
    Ok(match keepalive {
        Some(interval) => endpoint.http2_keep_alive_interval(interval.max(KEEPALIVE_MIN)),
        None => endpoint,
    })
}

/// The connections to workers, made when they are first needed.
pub(super) struct Connections {
    options: Arc<AlluxioOptions>,
    runtime: Handle,
    each: usize,
    pools: Mutex<HashMap<Target, Arc<Pool>>>,
}

/// The connections to one worker.
struct Pool {
    servers: Box<[Arc<Server>]>,
    next: AtomicUsize,
}

impl Connections {
    /// None yet.
    pub(super) fn new(runtime: Handle, options: Arc<AlluxioOptions>) -> Self {
        let each = options.streaming_connections_max.clamp(1, options.worker_connections.max(1));
        Self { options, runtime, each, pools: Mutex::default() }
    }

    /// A connection to `worker`, each in turn.
    pub(super) fn worker(&self, worker: &Worker) -> Result<Arc<Server>> {
        let target = match &worker.domain_socket {
            Some(path) => Target::Unix(path.clone()),
            None => Target::Tcp(worker.address.clone()),
        };
        let pool = self.pool(target)?;
        let turn = pool.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(&pool.servers[turn % pool.servers.len()]))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.pools.lock().len() * self.each
    }

    fn pool(&self, target: Target) -> Result<Arc<Pool>> {
        if let Some(pool) = self.pools.lock().get(&target) {
            return Ok(Arc::clone(pool));
        }
        let _inside = self.runtime.enter();
        let servers: Vec<Arc<Server>> = (0..self.each)
            .map(|_| Server::new(&target, Use::Streams, &self.options).map(Arc::new))
            .collect::<Result<_>>()?;
        let pool = Arc::new(Pool { servers: servers.into(), next: AtomicUsize::new(0) });
        // Another thread may have been faster; nothing was sent on ours yet.
        Ok(Arc::clone(self.pools.lock().entry(target).or_insert(pool)))
    }
}

/// Bounds one unary call.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}
