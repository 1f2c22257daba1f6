//! Spans: what a request did and how long each step took, as traces for an OpenTelemetry collector. A leaf that every layer
//! may use; knows neither requests nor what the steps are.
//!
//! Only a build with the feature `otlp` can do it; in others all of this is empty and costs nothing. Where it is built in but no
//! collector is set, a request costs the look at one flag.
//!
//! The span of a request belongs to the thread that serves it ([`request`]); steps on that thread ([`step`]), calls to servers
//! ([`call`]) and futures that are let run on their own ([`with_request`]) find it there.

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
use otlp as built;

#[cfg(not(feature = "otlp"))]
mod nothing;
#[cfg(not(feature = "otlp"))]
use nothing as built;

pub use built::CallSpan;
pub use built::Entered;
pub use built::Exporter;
pub use built::Link;
pub use built::RequestSpan;
pub use built::StepSpan;
pub use built::call;
pub use built::link;
pub use built::request;
pub use built::start;
pub use built::step;
pub use built::traceparent;
pub use built::with_request;

/// The name of the request header that carries a trace on, by the W3C's Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector's URL for traces: OTLP over HTTP with protobuf, such as `http://localhost:4318/v1/traces`.
    pub endpoint: String,
    /// One in so many requests is traced, at least 1.
    pub one_in: u32,
    /// The mount, as the collector shows it.
    pub instance: String,
}
