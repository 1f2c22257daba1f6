//! What a mount promises whatever is behind it: requests are answered, interrupts heard, panics kept in,
//! and nothing stays when it ends. Through both libfuse versions, with real tools.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attributes;
mod end;
mod faulty;
mod harness;
#[path = "../common/kernel.rs"]
mod kernel;
#[path = "../common/attributes.rs"]
mod scenarios;
mod serve;
