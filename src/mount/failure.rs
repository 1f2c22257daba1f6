//! Why a mount cannot be made, kept or ended: a sentence for the person at the terminal.

use std::fmt;

use crate::config::ConfigError;
use crate::fs::FsError;

/// What went wrong. Lower case, no full stop, the thing concerned and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// From the whole sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// `what`, and the system's reason for it.
    pub(super) fn because(what: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self(format!("{what}: {reason}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(problem: ConfigError) -> Self {
        Self(problem.to_string())
    }
}

impl From<FsError> for Failure {
    fn from(problem: FsError) -> Self {
        Self(problem.to_string())
    }
}
