//! What a collector of OpenTelemetry gets of a mount: a span for each request, with the steps and calls below it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use common::cluster::Cluster;
use common::content;
use common::mount::Spec;
use common::wait_until;

/// What collectors get: taken by a thread until the test process ends.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let taken = Arc::clone(&spans);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let taken = Arc::clone(&taken);
                thread::spawn(move || take(connection.unwrap(), &taken));
            }
        });
        Self { url, spans }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

/// Takes the requests of one connection.
fn take(connection: TcpStream, spans: &Mutex<Vec<Span>>) {
    let mut answers = connection.try_clone().unwrap();
    let mut requests = BufReader::new(connection);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if requests.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body).unwrap();
        let sent = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let all = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.lock().unwrap().extend(all.flat_map(|scope| scope.spans));
        answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

fn is_call(span: &Span, part: &str) -> bool {
    attribute(span, "fuse.call").is_some_and(|call| call.contains(part))
}

#[test]
fn a_request_its_steps_and_its_calls_are_one_trace() {
    let cluster = Cluster::get();
    let dir = cluster.directory("traced");
    let collector = Collector::start();
    let spec = Spec::alluxio(&cluster, &dir.path)
        .option("direct_io")
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.fuse.tracing.endpoint", &collector.url);
    let mount = spec.start();
    let file = mount.path().join("file");
    content::write_file(&file, 1, 100_000).unwrap();
    content::check_file(&file, 1, 100_000).unwrap();
    assert!(std::fs::File::options().append(true).open(&file).is_err());
    // The rest is sent when the mount ends.
    mount.unmount();

    let is_read = |span: &&Span| is_call(span, "Fuse.Read(path=/file");
    wait_until("the read is there", Duration::from_secs(20), || {
        collector.spans().iter().any(|span| is_read(&span))
    });
    let spans = collector.spans();
    let read = spans.iter().find(is_read).unwrap();
    assert!(read.parent_span_id.is_empty() && read.kind() == SpanKind::Server);
    assert_eq!(attribute(read, "thread.id").unwrap(), nix::unistd::gettid().to_string());

    let calls = |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let within = |span: &Span| -> Option<String> {
        let mut at = span;
        while !at.parent_span_id.is_empty() {
            at = spans.iter().find(|above| above.span_id == at.parent_span_id)?;
            assert_eq!(at.trace_id, span.trace_id);
        }
        attribute(at, "fuse.call")
    };
    for (call, request) in [
        ("GetStatus", "path=/file"),
        ("CreateFile", "Fuse.Create(path=/file"),
        ("CompleteFile", "path=/file"),
        ("ReadBlock", "path=/file"),
    ] {
        let found = calls(call);
        assert!(found.iter().all(|span| span.kind() == SpanKind::Client), "{call}");
        assert!(found.iter().all(|span| attribute(span, "server.address").is_some()), "{call}");
        let requests: Vec<Option<String>> = found.iter().map(|span| within(span)).collect();
        assert!(requests.iter().flatten().any(|text| text.contains(request)), "{call}: {requests:?}");
    }
    assert!(!calls("bridge").is_empty());
    let failed = spans
        .iter()
        .find(|span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error));
    assert!(attribute(failed.unwrap(), "fuse.call").unwrap().contains("Fuse.Open"), "{failed:?}");
}

#[test]
fn a_collector_that_is_not_there_stops_nobody() {
    let source = tempfile::tempdir().unwrap();
    let spec = Spec::local(source.path()).property("alluxio.fuse.tracing.endpoint", "http://127.0.0.1:1");
    let mount = spec.start();
    for n in 0..200 {
        content::write_file(&mount.path().join(format!("file{n}")), n, 1000).unwrap();
    }
    content::check_file(&mount.path().join("file7"), 7, 1000).unwrap();
    mount.unmount();
}

#[test]
fn one_in_so_many_requests_is_traced() {
    let source = tempfile::tempdir().unwrap();
    let collector = Collector::start();
    let spec = Spec::local(source.path())
        .property("alluxio.fuse.tracing.endpoint", &collector.url)
        .property("alluxio.fuse.tracing.one.in", "3");
    let mount = spec.start();
    for n in 0..100 {
        content::write_file(&mount.path().join(format!("file{n}")), n, 10).unwrap();
    }
    mount.unmount();
    // Chosen at random, so that fewer or more are seen once in the age of the universe.
    let traced = || collector.spans().iter().filter(|span| is_call(span, "Fuse.Create(")).count();
    wait_until("some are traced", Duration::from_secs(20), || traced() >= 3);
    assert!(traced() < 80, "{} of 100 are traced", traced());
}
