//! What a build without the feature `otlp` has in place of spans: nothing.

use std::fmt::Display;
use std::future::Future;

use super::Settings;

/// The span of a request.
#[derive(Debug)]
pub struct RequestSpan;

/// The span of a step.
#[derive(Debug)]
pub struct StepSpan;

/// The span of a call to a server.
#[derive(Debug)]
pub struct CallSpan;

/// Which request a thread works for.
#[derive(Clone, Debug)]
pub struct Link;

/// This thread works for another's request.
#[derive(Debug)]
pub struct Entered;

/// Sends spans to the collector.
#[derive(Debug)]
pub struct Exporter;

/// Refuses: this build has no spans.
pub fn start(_settings: &Settings) -> Result<Exporter, String> {
    Err("this program was built without the feature otlp; build it by `cargo build --release --features otlp`".to_owned())
}

/// Nothing.
pub fn request(_name: &'static str) -> RequestSpan {
    RequestSpan
}

/// Nothing.
pub fn step(_name: &'static str) -> StepSpan {
    StepSpan
}

/// Nothing.
pub fn call(_name: &'static str, _server: &str) -> CallSpan {
    CallSpan
}

/// Nothing.
pub fn link() -> Link {
    Link
}

/// None.
pub fn traceparent() -> Option<String> {
    None
}

/// `future` as it is.
pub fn with_request<F: Future>(future: F) -> F {
    future
}

impl RequestSpan {
    /// False.
    pub fn is_on(&self) -> bool {
        false
    }

    /// Nothing.
    pub fn note(&self, _key: &'static str, _value: impl Display) {}

    /// Nothing.
    pub fn fail(&self, _reason: &dyn Display) {}
}

impl Link {
    /// Nothing.
    pub fn enter(self) -> Entered {
        Entered
    }
}
