//! What the tests of a mounted file system share: mounts and clusters that end with the test, trees of files
//! with known bytes, processes with a deadline. Knows the program only by its command line.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

pub(crate) mod attributes;
pub(crate) mod cluster;
pub(crate) mod content;
pub(crate) mod dirstream;
pub(crate) mod disk;
pub(crate) mod kernel;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod tree;
pub(crate) mod users;
pub(crate) mod web;

use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Waits until `condition` holds; panics with `what` when it still does not after `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, &mut condition), "{what}: not within {limit:?}");
}

/// Whether `condition` comes to hold within `limit`.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of a text file, for messages; empty if there is none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
