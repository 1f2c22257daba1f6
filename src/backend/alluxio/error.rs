//! From a gRPC status to a failure of a file system: by code and call, in this one place.
//!
//! Alluxio sends no class of its exception, only a code and a text. The few cases that nothing but the text
//! tells apart are in `by_text`.

use std::error::Error;
use std::fmt::Display;
use std::fmt::Write;
use std::iter::successors;

use tonic::Code;
use tonic::ConnectError;
use tonic::Status;

use crate::fs::Fault;
use crate::fs::FsError;
use crate::metrics;

/// The calls that this backend makes. A code can mean different things in different calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rpc {
    Authenticate,
    GetServiceVersion,
    GetConfiguration,
    GetConfigHash,
    GetMasterInfo,
    CheckAccess,
    CompleteFile,
    CreateDirectory,
    CreateFile,
    GetFilePath,
    GetNewBlockIdForFile,
    GetStatus,
    ListStatus,
    Remove,
    Rename,
    SetAttribute,
    /// `SetAttribute` with nothing but extended attributes.
    SetXattr,
    GetBlockInfo,
    GetBlockMasterInfo,
    GetWorkerInfoList,
    ReadBlock,
    WriteBlock,
    OpenLocalBlock,
    CreateLocalBlock,
    Cache,
    MetricsHeartbeat,
}

impl Rpc {
    /// What Alluxio calls them, by [`Rpc::place`].
    pub(super) const NAMES: &[&str] = &[
        "Authenticate",
        "GetServiceVersion",
        "GetConfiguration",
        "GetConfigHash",
        "GetMasterInfo",
        "CheckAccess",
        "CompleteFile",
        "CreateDirectory",
        "CreateFile",
        "GetFilePath",
        "GetNewBlockIdForFile",
        "GetStatus",
        "ListStatus",
        "Delete",
        "Rename",
        "SetAttribute",
        "GetBlockInfo",
        "GetBlockMasterInfo",
        "GetWorkerInfoList",
        "ReadBlock",
        "WriteBlock",
        "OpenLocalBlock",
        "CreateLocalBlock",
        "Cache",
        "MetricsHeartbeat",
    ];

    /// Whether it changes names or attributes that others see.
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::CompleteFile
            | Self::CreateDirectory
            | Self::CreateFile
            | Self::Remove
            | Self::Rename
            | Self::SetAttribute
            | Self::SetXattr => true,
            Self::Authenticate
            | Self::GetServiceVersion
            | Self::GetConfiguration
            | Self::GetConfigHash
            | Self::GetMasterInfo
            | Self::CheckAccess
            | Self::GetFilePath
            | Self::GetNewBlockIdForFile
            | Self::GetStatus
            | Self::ListStatus
            | Self::GetBlockInfo
            | Self::GetBlockMasterInfo
            | Self::GetWorkerInfoList
            | Self::ReadBlock
            | Self::WriteBlock
            | Self::OpenLocalBlock
            | Self::CreateLocalBlock
            | Self::Cache
            | Self::MetricsHeartbeat => false,
        }
    }

    /// Its place in [`Rpc::NAMES`].
    pub(super) fn place(self) -> usize {
        match self {
            Self::Authenticate => 0,
            Self::GetServiceVersion => 1,
            Self::GetConfiguration => 2,
            Self::GetConfigHash => 3,
            Self::GetMasterInfo => 4,
            Self::CheckAccess => 5,
            Self::CompleteFile => 6,
            Self::CreateDirectory => 7,
            Self::CreateFile => 8,
            Self::GetFilePath => 9,
            Self::GetNewBlockIdForFile => 10,
            Self::GetStatus => 11,
            Self::ListStatus => 12,
            Self::Remove => 13,
            Self::Rename => 14,
            // The same method.
            Self::SetAttribute | Self::SetXattr => 15,
            Self::GetBlockInfo => 16,
            Self::GetBlockMasterInfo => 17,
            Self::GetWorkerInfoList => 18,
            Self::ReadBlock => 19,
            Self::WriteBlock => 20,
            Self::OpenLocalBlock => 21,
            Self::CreateLocalBlock => 22,
            Self::Cache => 23,
            Self::MetricsHeartbeat => 24,
        }
    }

    /// As it is called in what people read.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self.place()]
    }
}

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The server was not reached, broke off, or is not the one that serves (any more): look for the primary or
    /// another worker, and try again.
    Connection,
    /// The server does not know our channel id: authenticate and try again.
    Unauthenticated,
    /// The master failed at what was changed at the same time: ask again, a few times.
    Raced,
    /// The worker, or every one, has not told the master yet that it is there, as after a restart of either: ask another one, or
    /// later.
    Unregistered,
    /// An answer; asking again will not change it.
    Final,
}

/// A failed call.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) error: FsError,
    /// The server was not reached, and so got nothing.
    pub(super) unsent: bool,
}

impl Failure {
    /// A failure of the connection, said in our own words.
    pub(super) fn connection(fault: Fault, detail: impl Into<String>) -> Self {
        Self { class: Class::Connection, error: FsError::because(fault, detail), unsent: false }
    }

    /// Whether the server may have done all the same what it was asked, in one of several attempts.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.class == Class::Connection || self.error.fault() == Fault::TimedOut
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        Self { class: Class::Final, error, unsent: false }
    }
}

impl From<Failure> for FsError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Whether the server did not answer, as far as that can be told of a call with all its attempts.
pub(super) fn is_away(err: &FsError) -> bool {
    matches!(err.fault(), Fault::Unavailable | Fault::TimedOut)
}

/// What `status` means as the answer of `server` to `rpc` about `subject`: a path, a block, a service.
pub(super) fn failure(rpc: Rpc, subject: &dyn Display, server: &str, status: &Status) -> Failure {
    if status.code() == Code::ResourceExhausted {
        metrics::BUSY_EXCEPTIONS.count();
    }
    let class = class(rpc, status);
    let fault = match class {
        Class::Connection if status.code() == Code::DeadlineExceeded || fell_silent(status) => {
            Fault::TimedOut
        }
        Class::Connection => Fault::Unavailable,
        Class::Unauthenticated => Fault::PermissionDenied,
        Class::Unregistered => Fault::Unavailable,
        Class::Raced | Class::Final => fault(rpc, status),
    };
    // An absent name is an everyday answer, and who asked knows the name.
    let error = match (rpc, fault) {
        (Rpc::GetStatus, Fault::NotFound) => FsError::new(fault),
        _ => FsError::because(fault, format!("{rpc:?} {subject} at {server}: {}", text(status))),
    };
    Failure { class, error, unsent: cause::<ConnectError>(status).is_some() }
}

/// Whether the server was reached and then left a ping unanswered. tonic makes it UNAVAILABLE, as it does a failed connect.
fn fell_silent(status: &Status) -> bool {
    cause::<hyper::Error>(status).is_some_and(hyper::Error::is_timeout)
}

/// The first error of this type below `status`.
fn cause<E: Error + 'static>(status: &Status) -> Option<&E> {
    successors(status.source(), |err| (*err).source()).find_map(|err| err.downcast_ref())
}

/// Whether trying again can help. tonic reports a connection that breaks in mid-call as UNKNOWN, and one that cannot be made,
/// or whose server answers no ping, as UNAVAILABLE; all have a source, which no status that a server sent has.
fn class(rpc: Rpc, status: &Status) -> Class {
    if status.source().is_some() {
        return Class::Connection;
    }
    // A master that has just started knows none, and a worker tells it of a block before of itself.
    if matches!(rpc, Rpc::WriteBlock | Rpc::CreateLocalBlock) && status.message().contains(UNREGISTERED) {
        return Class::Unregistered;
    }
    match status.code() {
        // A master of 2.9.4 writes the attributes of a file into its answer after it has given up the lock, and meets a
        // java.util.ConcurrentModificationException, which has no text, if another call adds one meanwhile.
        Code::Internal if matches!(rpc, Rpc::GetStatus | Rpc::ListStatus) && status.message().is_empty() => {
            Class::Raced
        }
        // The under store had no such file to remove, and then it had one: a worker was creating it. Also said if it never can be
        // removed.
        Code::FailedPrecondition
            if matches!(rpc, Rpc::Remove | Rpc::CreateFile) && status.message().contains(NOT_REMOVED) =>
        {
            Class::Raced
        }
        // UNIMPLEMENTED is the answer of a master that is not, or not yet, the primary.
        Code::Unavailable | Code::Cancelled | Code::Unimplemented => Class::Connection,
        Code::Unauthenticated => Class::Unauthenticated,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => Class::Final,
    }
}

/// The meaning of a code that is an answer.
fn fault(rpc: Rpc, status: &Status) -> Fault {
    match status.code() {
        // The number of a file that was there.
        Code::NotFound if rpc == Rpc::GetFilePath => Fault::Stale,
        Code::NotFound | Code::Internal if rpc == Rpc::WriteBlock => by_text(rpc, status),
        Code::NotFound => Fault::NotFound,
        Code::AlreadyExists => Fault::Exists,
        Code::PermissionDenied if rpc == Rpc::SetAttribute => Fault::NotPermitted,
        Code::PermissionDenied | Code::Unauthenticated => Fault::PermissionDenied,
        Code::ResourceExhausted => match rpc {
            Rpc::WriteBlock | Rpc::CreateLocalBlock => Fault::NoSpace,
            _ => Fault::Unavailable,
        },
        Code::DeadlineExceeded => Fault::TimedOut,
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unknown => by_text(rpc, status),
        Code::Unavailable | Code::Cancelled | Code::Unimplemented => Fault::Unavailable,
        Code::Ok | Code::Aborted | Code::OutOfRange | Code::Internal | Code::DataLoss => Fault::Io,
    }
}

/// The master's words for a file of the under store that is there after it was removed.
const NOT_REMOVED: &str = "UFS delete file failed";

/// The master's words, by way of a worker, for one that it does not know.
const UNREGISTERED: &str = "No worker with workerId";

const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// The cases where one code of one call has several meanings, and only the text says which.
fn by_text(rpc: Rpc, status: &Status) -> Fault {
    let text = status.message();
    match (status.code(), rpc) {
        // Where the path is kept, in the journal or in the under store.
        _ if text.contains("File name too long") => Fault::NameTooLong,
        // The words of the worker's host for a full disk or quota below the under file system.
        (_, Rpc::WriteBlock) if FULL.iter().any(|words| text.contains(words)) => Fault::NoSpace,
        (Code::FailedPrecondition, Rpc::Remove) => {
            // "Failed to delete ..." is a disk or store that failed, unless it holds what Alluxio does not know.
            if text.starts_with("Failed to delete") && !text.contains("not in sync") {
                Fault::Io
            } else {
                Fault::NotEmpty
            }
        }
        (Code::NotFound, _) => Fault::NotFound,
        // A block goes with its file.
        (Code::InvalidArgument, Rpc::GetBlockInfo) => Fault::Stale,
        (Code::InvalidArgument, Rpc::CompleteFile | Rpc::GetNewBlockIdForFile) => Fault::Io,
        (Code::InvalidArgument, _) if text.contains("is a file, not a directory") => Fault::NotDirectory,
        (Code::InvalidArgument, Rpc::Rename) if text.contains("cross mount operation") => Fault::CrossDevice,
        (Code::InvalidArgument, Rpc::Rename) if text.contains("is a mount point") => Fault::Busy,
        (Code::InvalidArgument, _) => Fault::InvalidArgument,
        (Code::Unknown, Rpc::SetAttribute) if text.contains("does not belong to the group") => {
            Fault::NotPermitted
        }
        _ => Fault::Io,
    }
}

/// The text of a status with the errors below it, each said once.
fn text(status: &Status) -> String {
    let mut text = match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    };
    let mut source = status.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            write!(text, ": {cause_text}").expect("writing to a string cannot fail");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use http_body_util::Empty;
    use tokio::net::TcpListener;
    use tonic::Request;
    use tonic::transport::Endpoint;

    use super::super::grpc;
    use super::*;

    fn mapped(rpc: Rpc, code: Code, text: &str) -> Failure {
        failure(rpc, &"/a", "master:19998", &Status::new(code, text))
    }

    #[test]
    fn an_answer_is_translated_by_its_code_and_call() {
        for (rpc, code, text, fault) in [
            (Rpc::GetStatus, Code::NotFound, "Path \"/a\" does not exist.", Fault::NotFound),
            (Rpc::CreateFile, Code::AlreadyExists, "", Fault::Exists),
            (Rpc::CreateFile, Code::PermissionDenied, "", Fault::PermissionDenied),
            (Rpc::SetAttribute, Code::PermissionDenied, "", Fault::NotPermitted),
            (Rpc::SetXattr, Code::PermissionDenied, "", Fault::PermissionDenied),
            (
                Rpc::SetAttribute,
                Code::Unknown,
                "Could not update owner:group for /a: Owner bob does not belong to the group x",
                Fault::NotPermitted,
            ),
            (
                Rpc::Remove,
                Code::FailedPrecondition,
                "Cannot delete non-empty directory d because recursive is set to false",
                Fault::NotEmpty,
            ),
            (
                Rpc::Remove,
                Code::FailedPrecondition,
                "Failed to delete 1 paths from the under file system: /a (UFS dir not in sync. Sync UFS, or delete with unchecked flag.)",
                Fault::NotEmpty,
            ),
            (
                Rpc::Remove,
                Code::FailedPrecondition,
                "Failed to delete 1 paths from the under file system: /a (disk error)",
                Fault::Io,
            ),
            (
                Rpc::GetStatus,
                Code::InvalidArgument,
                "Traversal failed for path /f/x. Component 2(f) is a file, not a directory.",
                Fault::NotDirectory,
            ),
            (
                Rpc::CreateDirectory,
                Code::FailedPrecondition,
                "Cannot create or load UFS directory /d: java.io.FileNotFoundException: /d: File name too long.",
                Fault::NameTooLong,
            ),
            (
                Rpc::Rename,
                Code::InvalidArgument,
                "Cannot rename because /a is a prefix of /a/b",
                Fault::InvalidArgument,
            ),
            (
                Rpc::Rename,
                Code::InvalidArgument,
                "Renaming /a to /b is a cross mount operation",
                Fault::CrossDevice,
            ),
            (Rpc::GetBlockInfo, Code::InvalidArgument, "BlockMeta not found for blockId 7", Fault::Stale),
            (Rpc::GetFilePath, Code::NotFound, "inode id 7 does not exist", Fault::Stale),
            (Rpc::CompleteFile, Code::InvalidArgument, "", Fault::Io),
            (
                Rpc::WriteBlock,
                Code::ResourceExhausted,
                "Not enough space left on worker w to store blockId 7",
                Fault::NoSpace,
            ),
            (Rpc::WriteBlock, Code::Internal, "No space left on device", Fault::NoSpace),
            (Rpc::WriteBlock, Code::Unknown, "Disk quota exceeded", Fault::NoSpace),
            (Rpc::WriteBlock, Code::Internal, "Temp blockId 7 is not available", Fault::Io),
            (Rpc::GetStatus, Code::Internal, "NullPointerException", Fault::Io),
        ] {
            let failure = mapped(rpc, code, text);
            assert_eq!(failure.error.fault(), fault, "{rpc:?} {code:?} {text}");
            assert_eq!(failure.class, Class::Final, "{rpc:?} {code:?} {text}");
        }
    }

    #[test]
    fn what_can_pass_is_worth_another_attempt() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Unimplemented] {
            let failure = mapped(Rpc::GetStatus, code, "");
            assert_eq!((failure.class, failure.error.fault()), (Class::Connection, Fault::Unavailable));
        }
        let unknown = mapped(Rpc::WriteBlock, Code::NotFound, "No worker with workerId 7 is found");
        assert_eq!((unknown.class, unknown.error.fault()), (Class::Unregistered, Fault::Unavailable));
        let stale = mapped(Rpc::GetStatus, Code::Unauthenticated, "Channel: 1 is not authenticated");
        assert_eq!((stale.class, stale.error.fault()), (Class::Unauthenticated, Fault::PermissionDenied));
    }

    #[test]
    fn what_a_change_got_in_the_way_of_is_told_from_other_failures_of_the_master() {
        let there = "Failed to delete 1 paths from the under file system: /f (UFS delete file failed)";
        let locked = "Failed to delete 1 paths from the under file system: /f (UFS timed out)";
        for (rpc, code, text, class) in [
            (Rpc::GetStatus, Code::Internal, "", Class::Raced),
            (Rpc::ListStatus, Code::Internal, "", Class::Raced),
            (Rpc::GetStatus, Code::Internal, "NullPointerException", Class::Final),
            (Rpc::Rename, Code::Internal, "", Class::Final),
            (Rpc::Remove, Code::FailedPrecondition, there, Class::Raced),
            (Rpc::Remove, Code::FailedPrecondition, locked, Class::Final),
        ] {
            let failure = mapped(rpc, code, text);
            assert_eq!((failure.class, failure.error.fault()), (class, Fault::Io), "{rpc:?} {text}");
        }
    }

    #[test]
    fn a_broken_connection_is_told_from_an_unknown_error_of_the_server() {
        let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert_eq!(broken.code(), Code::Unknown);
        let failure = failure(Rpc::Rename, &"/a", "master:19998", &broken);
        assert_eq!((failure.class, failure.error.fault()), (Class::Connection, Fault::Unavailable));
        assert_eq!(mapped(Rpc::Rename, Code::Unknown, "java.io.IOException").class, Class::Final);
    }

    /// What comes of a call to a server that takes connections and says nothing, or to none.
    async fn call_in_vain(listens: bool) -> Failure {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let listener = listens.then_some(listener);
        let soon = Duration::from_millis(10);
        let endpoint = Endpoint::from_shared(uri).unwrap().http2_keep_alive_interval(soon);
        let channel = endpoint.keep_alive_timeout(soon).connect_lazy();
        let status = grpc::call(channel, "/worker/write", Request::new(Empty::new())).await.err().unwrap();
        drop(listener);
        assert_eq!(status.code(), Code::Unavailable);
        failure(Rpc::WriteBlock, &7, "worker:29999", &status)
    }

    #[tokio::test]
    async fn only_a_server_that_was_not_reached_has_got_nothing() {
        let unreached = call_in_vain(false).await;
        assert_eq!((unreached.class, unreached.error.fault()), (Class::Connection, Fault::Unavailable));
        assert!(unreached.unsent);
        let silent = call_in_vain(true).await;
        assert_eq!((silent.class, silent.error.fault()), (Class::Connection, Fault::TimedOut));
        assert!(!silent.unsent);
    }

    #[test]
    fn the_text_names_call_path_and_server() {
        let text = mapped(Rpc::Rename, Code::Internal, "boom").error.to_string();
        assert_eq!(text, "Rename /a at master:19998: boom");
        assert_eq!(mapped(Rpc::GetStatus, Code::NotFound, "no").error.detail(), None);
    }
}
