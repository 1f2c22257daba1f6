//! A mounted session of libfuse, whichever the version.

use std::ffi::c_uint;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use fuse_sys::Library;

use super::current;
use super::ffi::Refused;
use super::ffi::Shared;
use super::ffi2;
use super::ffi3;

/// A mounted session of either version. Dropped, it unmounts.
pub(super) enum Mounted {
    V2(ffi2::Mounted),
    V3(ffi3::Mounted),
}

impl Mounted {
    /// Mounts at `mount_point` with the option words `words`.
    pub(super) fn mount(
        library: Library,
        mount_point: &Path,
        words: &[String],
        shared: Arc<Shared>,
    ) -> Result<Self, Refused> {
        match library {
            Library::V2(opened) => ffi2::Mounted::mount(opened, mount_point, words, shared).map(Self::V2),
            Library::V3(opened) => ffi3::Mounted::mount(opened, mount_point, words, shared).map(Self::V3),
        }
    }

    /// The descriptor that requests come from, as long as the session lives.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V2(mounted) => mounted.fd(),
            Self::V3(mounted) => mounted.fd(),
        }
    }

    /// Lets replies leave by the descriptor that is given with each request, or without one, not only by the session's own.
    /// False if this libfuse cannot do that. To be called once at most.
    pub(super) fn allow_other_ways_of_reply(&mut self) -> bool {
        match self {
            Self::V2(_) => true,
            Self::V3(mounted) => mounted.allow_other_ways_of_reply(),
        }
    }

    /// Decodes one request, runs it and replies by `reply_fd`, all on this thread.
    pub(super) fn process(&self, request: &mut [u8], reply_fd: BorrowedFd<'_>) {
        current::set_reply_fd(Some(reply_fd.as_raw_fd()));
        match self {
            Self::V2(mounted) => mounted.process(request),
            Self::V3(mounted) => mounted.process(request),
        }
        current::set_reply_fd(None);
    }

    /// Serves by the library's own loop, with so many threads, until the session ends. For comparison: its requests do not
    /// end when the mount is stopped by force.
    pub(super) fn loop_of_libfuse(&self, max_threads: usize, max_idle: usize) -> io::Result<()> {
        let Self::V3(mounted) = self else {
            return Err(io::Error::other("the loop of libfuse 2 is not to be had"));
        };
        let count = |threads: usize| c_uint::try_from(threads).unwrap_or(c_uint::MAX);
        match mounted.loop_of_libfuse(count(max_threads), count(max_idle)) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::other(format!("libfuse's loop ended with {code}"))),
            None => Err(io::Error::other("libfuse 3.12 or newer is needed for its own loop")),
        }
    }

    /// Tells libfuse that the connection is gone, so that it does not complain about replies that nobody takes.
    pub(super) fn exit(&self) {
        match self {
            Self::V2(mounted) => mounted.exit(),
            Self::V3(mounted) => mounted.exit(),
        }
    }
}
