//! The one table from what went wrong to the number that applications see.

use libc::c_int;
use log::Level;

use crate::fs::Fault;

/// What the caller's system call fails with. Never ENOSYS: to that the kernel would stop asking at all.
pub(super) fn errno(fault: Fault) -> c_int {
    match fault {
        Fault::NotFound => libc::ENOENT,
        Fault::Exists => libc::EEXIST,
        Fault::NotDirectory => libc::ENOTDIR,
        Fault::IsDirectory => libc::EISDIR,
        Fault::NotEmpty => libc::ENOTEMPTY,
        Fault::PermissionDenied => libc::EACCES,
        Fault::NotPermitted => libc::EPERM,
        Fault::InvalidArgument => libc::EINVAL,
        Fault::NameTooLong => libc::ENAMETOOLONG,
        Fault::BadName => libc::EILSEQ,
        Fault::NotSupported => libc::EOPNOTSUPP,
        Fault::NoSpace => libc::ENOSPC,
        Fault::TooLarge => libc::EFBIG,
        Fault::NoData => libc::ENODATA,
        Fault::ValueTooLarge => libc::E2BIG,
        Fault::Busy => libc::EBUSY,
        Fault::CrossDevice => libc::EXDEV,
        Fault::ReadOnly => libc::EROFS,
        Fault::Stale | Fault::Reopen => libc::ESTALE,
        Fault::BadHandle => libc::EBADF,
        Fault::Interrupted => libc::EINTR,
        Fault::TimedOut => libc::ETIMEDOUT,
        Fault::Unavailable | Fault::Io => libc::EIO,
    }
}

/// How loudly the log tells of it: an error where the store failed, a warning where the application asked for
/// what cannot be had, debug where that is everyday life.
pub(super) fn level(fault: Fault) -> Level {
    match fault {
        Fault::NotFound | Fault::NoData | Fault::Interrupted | Fault::Reopen => Level::Debug,
        Fault::NoSpace | Fault::TimedOut | Fault::Unavailable | Fault::Stale | Fault::Io => Level::Error,
        Fault::Exists
        | Fault::NotDirectory
        | Fault::IsDirectory
        | Fault::NotEmpty
        | Fault::PermissionDenied
        | Fault::NotPermitted
        | Fault::InvalidArgument
        | Fault::NameTooLong
        | Fault::BadName
        | Fault::NotSupported
        | Fault::TooLarge
        | Fault::ValueTooLarge
        | Fault::Busy
        | Fault::CrossDevice
        | Fault::ReadOnly
        | Fault::BadHandle => Level::Warn,
    }
}
