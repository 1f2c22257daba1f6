//! Figures, health, threads and the level of the log over HTTP, at the addresses that Alluxio's client has for them. On a
//! thread of its own, so that it answers whatever the mount does.
//!
//! All is bounded: connections, their time, the length of what is asked. Nothing is read of what follows a request's
//! head. The level of the log is changed for callers of this machine only, as there are no passwords.

mod health;
mod json;
mod prometheus;
mod threads;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::header::CONTENT_TYPE;
use hyper::header::LOCATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio::time::timeout;

use self::health::Health;
use super::Failure;
use super::logging;
use crate::config::Config;
use crate::config::keys;
use crate::fs::FileSystem;
use crate::metrics;
use crate::metrics::JavaMetric;

/// Connections at a time. More wait in the kernel.
const CONNECTIONS_MAX: usize = 32;

/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 64;

/// How long the head of a request may take to come.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection is kept.
const LIFE: Duration = Duration::from_secs(60);

/// How long the end waits for questions under way.
const END_TIME: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain;charset=utf-8";
const JSON: &str = "application/json";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whose figures these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The client's name.
    pub(super) source: String,
    /// Who calls the master.
    pub(super) user: String,
}

impl Identity {
    /// The whole name that Alluxio has for `metric`.
    fn full_name(&self, metric: &JavaMetric) -> String {
        let JavaMetric { name, by_user, .. } = metric;
        match by_user {
            true => format!("Client.{name}.User:{}.{}", self.user, self.source),
            false => format!("Client.{name}.{}", self.source),
        }
    }
}

/// A port that is taken, so that a mount that cannot have it is not made.
pub(super) struct Port {
    listener: TcpListener,
    /// As users are to see it.
    shown: String,
}

impl Port {
    /// The port that the settings name, if they want it at all.
    pub(super) fn take(config: &Config) -> Result<Option<Self>, Failure> {
        if !config.flag(&keys::FUSE_WEB_ENABLED) {
            return Ok(None);
        }
        let (host, port) = (config.text(&keys::FUSE_WEB_BIND_HOST), config.int(&keys::FUSE_WEB_PORT));
        let port = u16::try_from(port).expect("checked to be a port");
        let listener = Self::listen(host, port).map_err(|err| {
            let what = format!(
                "cannot serve metrics at {host}:{port}, set {} or {} to what is free, or {} to false",
                keys::FUSE_WEB_PORT.name,
                keys::FUSE_WEB_BIND_HOST.name,
                keys::FUSE_WEB_ENABLED.name
            );
            Failure::because(what, err)
        })?;
        let address = listener.local_addr().map_err(|err| Failure::because("cannot serve metrics", err))?;
        let shown = match config.optional_text(&keys::FUSE_WEB_HOSTNAME) {
            Some(name) => format!("{name}:{}", address.port()),
            None => address.to_string(),
        };
        Ok(Some(Self { listener, shown }))
    }

    fn listen(host: &str, port: u16) -> std::io::Result<TcpListener> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(&addresses[..])?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves on a thread until what is returned is dropped. `fs` is asked for the health of what is behind the mount
    /// at `point`.
    pub(super) fn serve(
        self,
        identity: Identity,
        point: PathBuf,
        fs: Arc<dyn FileSystem>,
    ) -> Result<Web, Failure> {
        let (stop, stopped) = oneshot::channel();
        let state = Arc::new(State { identity, health: Health::new(point, fs) });
        let Self { listener, shown } = self;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("web-wait")
            .build()
            .map_err(|err| Failure::because("cannot serve metrics", err))?;
        let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || {
            runtime.block_on(serve(listener, &state, stopped));
            runtime.shutdown_timeout(END_TIME);
        });
        let thread = thread.map_err(|err| Failure::because("cannot start a thread", err))?;
        log::info!("Serving metrics at http://{shown}/metrics/json/");
        Ok(Web { stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread that serves. Dropped, it ends and is joined.
pub(super) struct Web {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that serves metrics panicked");
        }
    }
}

/// What answers are made from.
struct State {
    identity: Identity,
    health: Health,
}

async fn serve(listener: TcpListener, state: &Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(err) => {
            log::error!("metrics are not served: {err}");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            _ = &mut stopped => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let state = Arc::clone(state);
                tokio::spawn(async move {
                    let _ = timeout(LIFE, connection(stream, peer, &state)).await;
                    drop(place);
                });
            }
            // Too many open files, mostly.
            Err(err) => {
                log::debug!("a connection for metrics was not accepted: {err}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, state: &Arc<State>) {
    let service = service_fn(|request| {
        let state = Arc::clone(state);
        async move { Ok::<_, Infallible>(state.answer(&request, peer.ip()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(err) = served.await {
        log::debug!("a connection for metrics from {peer} broke: {err}");
    }
}

impl State {
    async fn answer(self: Arc<Self>, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        match (path, is_read) {
            ("/metrics/json/", true) => page(JSON, json::page(&metrics::snapshot(), &self.identity)),
            ("/metrics/prometheus/", true) => {
                page(EXPOSITION, prometheus::page(&metrics::snapshot(), &self.identity))
            }
            ("/metrics/json" | "/metrics/prometheus", true) => redirected(&format!("{path}/")),
            ("/api/v1/common/thread_dump", true) => page(TEXT, threads::dump()),
            ("/healthz", true) => match spawn_blocking(move || self.health.examine()).await {
                Ok((ok, found)) => {
                    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                    with_status(status, page(JSON, format!("{found:#}\n")))
                }
                Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR, page(TEXT, "no examination\n")),
            },
            ("/api/v1/fuse/logLevel", false) if *request.method() == Method::POST => {
                if !is_loopback(peer) {
                    let text = "the level of the log is changed from the same machine only\n";
                    return with_status(StatusCode::FORBIDDEN, page(TEXT, text));
                }
                set_level(&parameters(request.uri().query().unwrap_or_default()))
            }
            ("/api/v1/fuse/logLevel", _) => not_allowed("POST"),
            (
                "/metrics/json/"
                | "/metrics/json"
                | "/metrics/prometheus/"
                | "/metrics/prometheus"
                | "/healthz"
                | "/api/v1/common/thread_dump",
                false,
            ) => not_allowed("GET, HEAD"),
            _ => with_status(StatusCode::NOT_FOUND, page(TEXT, "404 Not Found\n")),
        }
    }
}

/// Also if the address comes in the form that it has on a socket for both versions of IP.
fn is_loopback(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// Changes the level, with the answers of Alluxio's client.
fn set_level(parameters: &HashMap<String, String>) -> Response<Full<Bytes>> {
    let name = parameters.get("logName").map(String::as_str).unwrap_or_default();
    let level = parameters.get("level").map(String::as_str).unwrap_or_default();
    let (message, level, name) = if name.is_empty() {
        ("Please specify a correct logName.".to_owned(), None, None)
    } else {
        match logging::set_level(name, level) {
            Ok(_) => (format!("Setting Level to {level}"), Some(level), Some(name)),
            Err(failure) => (format!("Bad level : {level} ({failure})"), None, Some(name)),
        }
    };
    page(JSON, json!({ "message": message, "level": level, "logName": name }).to_string())
}

/// The words of a query.
fn parameters(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// A word of a query without its escapes.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        rest = after;
        match (first, after.get(..2).and_then(digits)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn page(kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn with_status(status: StatusCode, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    *response.status_mut() = status;
    response
}

fn redirected(to: &str) -> Response<Full<Bytes>> {
    let mut response = with_status(StatusCode::FOUND, page(TEXT, ""));
    if let Ok(place) = to.parse() {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = with_status(StatusCode::METHOD_NOT_ALLOWED, page(TEXT, "405 Method Not Allowed\n"));
    response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart() {
        let found = parameters("logName=a.b%3Ac&level=DE+BUG&x&y=%zz%4");
        assert_eq!(found["logName"], "a.b:c");
        assert_eq!(found["level"], "DE BUG");
        assert_eq!((found["x"].as_str(), found["y"].as_str()), ("", "%zz%4"));
    }

    #[test]
    fn only_this_machine_is_the_same_machine() {
        for (peer, same) in [
            ("127.0.0.1", true),
            ("127.9.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.7", false),
            ("::ffff:192.0.2.7", false),
        ] {
            assert_eq!(is_loopback(peer.parse().unwrap()), same, "{peer}");
        }
    }
}
