//! Spans by the `opentelemetry` crates, sent in batches by a thread of the SDK, which keeps a bounded number of them and drops
//! what is more: a collector that is slow or gone costs no request anything.

use std::fmt::Display;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::ContextGuard;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;
use opentelemetry::context::WithContext;
use opentelemetry::trace::Span;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::trace::Tracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::Protocol;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::Sampler;
use opentelemetry_sdk::trace::SdkTracer;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio_util::either::Either;

use super::Settings;

/// How long the end of the program waits for the last spans to be sent.
const LAST_SENT: Duration = Duration::from_secs(2);

/// Whether spans are made.
static ON: AtomicBool = AtomicBool::new(false);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The span of a request; that of its thread until this is dropped, which ends it.
#[derive(Debug)]
pub struct RequestSpan(Option<Current>);

/// The span of a step of a request, on the thread that serves it. Ends when this is dropped.
#[derive(Debug)]
pub struct StepSpan(#[expect(dead_code, reason = "is dropped")] Option<Current>);

/// The span of a call to a server. Ends when this is dropped.
#[derive(Debug)]
pub struct CallSpan(#[expect(dead_code, reason = "is dropped")] Option<opentelemetry_sdk::trace::Span>);

#[derive(Debug)]
struct Current {
    context: Context,
    _guard: ContextGuard,
}

/// Which request a thread works for.
#[derive(Clone, Debug)]
pub struct Link(Option<Context>);

/// This thread works for another's request until this is dropped.
#[derive(Debug)]
pub struct Entered(#[expect(dead_code, reason = "is dropped")] Option<ContextGuard>);

/// Sends spans to the collector. Dropped, it sends the last ones.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

/// Starts to make and send spans. To be called once, after the last fork of the process. Fails if the endpoint is no URL.
pub fn start(settings: &Settings) -> Result<Exporter, String> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&settings.endpoint)
        .build()
        .map_err(|err| err.to_string())?;
    let sampler = Sampler::TraceIdRatioBased(1.0 / f64::from(settings.one_in.max(1)));
    let instance = KeyValue::new("service.instance.id", settings.instance.clone());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("alluxio-fuse").with_attributes([instance, version]);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource.build())
        .build();
    let _ = TRACER.set(provider.tracer("alluxio-fuse"));
    ON.store(true, Ordering::Release);
    Ok(Exporter(provider))
}

impl Drop for Exporter {
    fn drop(&mut self) {
        ON.store(false, Ordering::Release);
        if let Err(err) = self.0.shutdown_with_timeout(LAST_SENT) {
            log::warn!("the last spans were not sent: {err}");
        }
    }
}

fn tracer() -> Option<&'static SdkTracer> {
    if ON.load(Ordering::Acquire) { TRACER.get() } else { None }
}

/// A request begins on this thread.
pub fn request(name: &'static str) -> RequestSpan {
    RequestSpan(tracer().map(|tracer| {
        let builder = tracer.span_builder(name).with_kind(SpanKind::Server);
        Current::new(Context::new().with_span(builder.start_with_context(tracer, &Context::new())))
    }))
}

/// A step of this thread's request begins.
pub fn step(name: &'static str) -> StepSpan {
    StepSpan(tracer().and_then(|tracer| {
        let request = traced()?;
        let span = tracer.span_builder(name).start_with_context(tracer, &request);
        Some(Current::new(request.with_span(span)))
    }))
}

/// A call to `server` begins, for the request of this thread or task.
pub fn call(name: &'static str, server: &str) -> CallSpan {
    CallSpan(tracer().and_then(|tracer| {
        let builder = tracer.span_builder(name).with_kind(SpanKind::Client);
        let mut span = builder.start_with_context(tracer, &traced()?);
        span.set_attribute(KeyValue::new("server.address", server.to_owned()));
        Some(span)
    }))
}

/// The request of this thread or task, if it is traced.
fn traced() -> Option<Context> {
    let context = Context::current();
    context.span().span_context().is_sampled().then_some(context)
}

/// The request that this thread works for, to be handed to one that helps it.
pub fn link() -> Link {
    Link(tracer().and_then(|_| traced()))
}

/// The value of [`super::TRACEPARENT`] for what this thread or task sends now.
pub fn traceparent() -> Option<String> {
    tracer()?;
    let context = traced()?;
    let span = context.span();
    let of = span.span_context();
    Some(format!("00-{}-{}-{:02x}", of.trace_id(), of.span_id(), of.trace_flags().to_u8()))
}

/// `future` working for the request of this thread, wherever it runs.
pub fn with_request<F: Future>(future: F) -> Either<F, WithContext<F>> {
    match link().0 {
        Some(context) => Either::Right(future.with_context(context)),
        None => Either::Left(future),
    }
}

impl Current {
    fn new(context: Context) -> Self {
        Self { _guard: context.clone().attach(), context }
    }
}

impl RequestSpan {
    /// Whether it is worth to note something.
    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|current| current.context.span().is_recording())
    }

    /// Adds what the collector is to show.
    pub fn note(&self, key: &'static str, value: impl Display) {
        if let Some(current) = &self.0 {
            current.context.span().set_attribute(KeyValue::new(key, value.to_string()));
        }
    }

    /// The request has failed.
    pub fn fail(&self, reason: &dyn Display) {
        if let Some(current) = &self.0 {
            current.context.span().set_status(Status::error(reason.to_string()));
        }
    }
}

impl Link {
    /// This thread works for it from now on, until the result is dropped.
    pub fn enter(self) -> Entered {
        Entered(self.0.map(Context::attach))
    }
}
