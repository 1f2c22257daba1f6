//! The requests of the kernel: how many of each kind, how long they took, and how many failed, by error. A request is
//! recorded by a few additions to numbers that its thread mostly has for itself.

use std::time::Duration;

use super::Counter;
use super::histogram::Distribution;
use super::histogram::Timer;

/// Errors are counted by number up to this one; any beyond under it. Linux has none so far.
const ERRNO_MAX: usize = 160;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident: $label:literal $(= $java:literal)?,)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the kernel or, where that has one name for several, the system call says it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What Alluxio's client calls the operation that it has in its place; none if it does not count it.
            pub fn java(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => java!($($java)?),)*
                }
            }
        }
    };
}

macro_rules! java {
    () => {
        None
    };
    ($name:literal) => {
        Some($name)
    };
}

operations! {
    /// A name is looked up.
    Lookup: "lookup" = "Getattr",
    /// stat(2) of what is known.
    Getattr: "getattr" = "Getattr",
    /// A request for new attributes that has a mode, and neither size nor owner.
    Chmod: "chmod" = "Chmod",
    /// One that has an owner or a group, and no size.
    Chown: "chown" = "Chown",
    /// One that has a size.
    Truncate: "truncate" = "Truncate",
    /// One that has nothing but times.
    Utimens: "utimens",
    /// mknod(2).
    Mknod: "mknod",
    /// mkdir(2).
    Mkdir: "mkdir" = "Mkdir",
    /// unlink(2).
    Unlink: "unlink" = "Unlink",
    /// rmdir(2).
    Rmdir: "rmdir" = "Rmdir",
    /// rename(2).
    Rename: "rename" = "Rename",
    /// open(2) of a new file.
    Create: "create" = "Create",
    /// open(2).
    Open: "open" = "Open",
    /// A read.
    Read: "read" = "Read",
    /// A write.
    Write: "write" = "Write",
    /// close(2).
    Flush: "flush" = "Flush",
    /// fsync(2).
    Fsync: "fsync",
    /// The last descriptor is closed.
    Release: "release" = "Release",
    /// opendir(3).
    Opendir: "opendir",
    /// A part of a listing of names.
    Readdir: "readdir" = "Readdir",
    /// A part of a listing with attributes.
    Readdirplus: "readdirplus" = "Readdir",
    /// closedir(3).
    Releasedir: "releasedir",
    /// statfs(2).
    Statfs: "statfs" = "Statfs",
    /// access(2).
    Access: "access",
    /// setxattr(2).
    Setxattr: "setxattr",
    /// getxattr(2).
    Getxattr: "getxattr",
    /// listxattr(2).
    Listxattr: "listxattr",
    /// removexattr(2).
    Removexattr: "removexattr",
}

const COUNT: usize = Operation::ALL.len();

static TIMES: [Timer; COUNT] = [const { Timer::new() }; COUNT];

static FAILURES: [[Counter; ERRNO_MAX + 1]; COUNT] =
    [const { [const { Counter::new() }; ERRNO_MAX + 1] }; COUNT];

/// Counts a request that took `time` and was answered by the error number `errno`, 0 for success.
pub fn record(operation: Operation, time: Duration, errno: i32) {
    TIMES[operation as usize].record(time);
    if errno != 0 {
        let errno = usize::try_from(errno).unwrap_or(ERRNO_MAX).min(ERRNO_MAX);
        FAILURES[operation as usize][errno].add(1);
    }
}

/// How long requests of a kind took, those that failed included.
pub(super) fn times(operation: Operation) -> Distribution {
    TIMES[operation as usize].read()
}

/// How many requests of a kind failed, by error number; only those of which there are any.
pub(super) fn failures(operation: Operation) -> impl Iterator<Item = (i32, u64)> {
    let counted = FAILURES[operation as usize].iter().zip(0..);
    counted.filter_map(|(counter, errno)| Some((errno, counter.value())).filter(|(_, count)| *count > 0))
}
