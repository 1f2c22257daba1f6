//! What went wrong, in the words of a file system. Knows no errno: `session` has that table.

use std::fmt;

/// The result of an operation on a file system.
pub type Result<T, E = FsError> = std::result::Result<T, E>;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There is nothing of that name.
    NotFound,
    /// There is something of that name already.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// A directory cannot be used that way.
    IsDirectory,
    /// The directory still has entries.
    NotEmpty,
    /// The permission bits or the server forbid it.
    PermissionDenied,
    /// Only the owner or a superuser may.
    NotPermitted,
    /// An argument makes no sense here.
    InvalidArgument,
    /// A name of more than 255 bytes, or a path that is too long.
    NameTooLong,
    /// A name that cannot be stored, as it is not UTF-8.
    BadName,
    /// The backend cannot do this at all.
    NotSupported,
    /// No room left for the data.
    NoSpace,
    /// The file would become larger than the backend allows.
    TooLarge,
    /// There is no extended attribute of that name.
    NoData,
    /// The value of an extended attribute is longer than can be stored.
    ValueTooLarge,
    /// Somebody else is using it in a way that excludes this, such as a file that is still being written.
    Busy,
    /// Source and target lie on different file systems.
    CrossDevice,
    /// The file system is read-only.
    ReadOnly,
    /// What the handle or inode stood for is gone.
    Stale,
    /// The same file is to be looked up and opened once more, which the kernel does by itself.
    Reopen,
    /// The handle is unknown, or not open for this.
    BadHandle,
    /// The caller was interrupted while waiting.
    Interrupted,
    /// The deadline passed before the server answered.
    TimedOut,
    /// No server could be reached.
    Unavailable,
    /// Anything else: broken data, an unexpected answer, a disk error.
    Io,
}

/// A failure with what it concerns. Cheap to make without a detail, as an absent name is an everyday answer.
#[derive(Clone)]
pub struct FsError {
    fault: Fault,
    detail: Option<Box<str>>,
}

impl FsError {
    /// A failure that needs no explanation.
    pub const fn new(fault: Fault) -> Self {
        Self { fault, detail: None }
    }

    /// A failure and what it concerns: lower case, no full stop, the cure if there is one.
    pub fn because(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: Some(detail.into().into_boxed_str()) }
    }

    /// Puts `what` in front of the detail, as the error passes a place that knows more.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        let detail = match &self.detail {
            Some(detail) => format!("{what}: {detail}"),
            None => what.to_string(),
        };
        Self { fault: self.fault, detail: Some(detail.into_boxed_str()) }
    }

    /// The kind of failure.
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// What it concerns, if it was said.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl From<Fault> for FsError {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => out.write_str(detail),
            None => write!(out, "{}", self.fault),
        }
    }
}

impl fmt::Debug for FsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}({})", self.fault, self.detail.as_deref().unwrap_or(""))
    }
}

impl std::error::Error for FsError {}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotFound => "not found",
            Self::Exists => "exists already",
            Self::NotDirectory => "not a directory",
            Self::IsDirectory => "is a directory",
            Self::NotEmpty => "directory not empty",
            Self::PermissionDenied => "permission denied",
            Self::NotPermitted => "not permitted",
            Self::InvalidArgument => "invalid argument",
            Self::NameTooLong => "name too long",
            Self::BadName => "name is not valid UTF-8",
            Self::NotSupported => "not supported",
            Self::NoSpace => "no space left",
            Self::TooLarge => "file too large",
            Self::NoData => "no such attribute",
            Self::ValueTooLarge => "value of the attribute too large",
            Self::Busy => "in use",
            Self::CrossDevice => "on another file system",
            Self::ReadOnly => "read-only file system",
            Self::Stale => "no longer there",
            Self::Reopen => "look up and open it once more",
            Self::BadHandle => "bad file handle",
            Self::Interrupted => "interrupted",
            Self::TimedOut => "timed out",
            Self::Unavailable => "server not reachable",
            Self::Io => "input/output error",
        })
    }
}
