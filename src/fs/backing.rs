//! A local file in the place of an open one, for whoever can read it without asking a backend.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

/// A local file that has just the bytes of an open one, each at its place.
pub struct Backing {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// What keeps the bytes as they are: to be dropped when nobody reads them any more.
    pub keeper: Box<dyn Send + Sync>,
    /// It is a copy of the one version that was opened, and stays so when the file changes.
    pub is_copy: bool,
}

/// Why there is no such file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBacking {
    /// The bytes are in several files, or in none.
    Pieces,
    /// They are not on this machine, or not in files that can be opened.
    Remote,
    /// As many are lent as may be at a time.
    Limit,
    /// It was tried in vain.
    Failed,
}

impl fmt::Debug for Backing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Backing").field("file", &self.file).finish_non_exhaustive()
    }
}
