//! Where requests come from. A transport only moves bytes: the worker that receives a request has it
//! processed, and its reply leaves by the same port.
//!
//! There are two: all workers read the session's own `/dev/fuse`, or each has a clone of it with a queue of
//! its own for replies. The third, FUSE over io_uring, comes beside one of these: see `uring`.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use log::error;
use log::info;
use log::warn;
use nix::errno::Errno;

use super::abi::InHeader;
use super::buffer::Buffer;
use crate::metrics;

/// The device of the kernel's FUSE.
pub(super) const DEVICE: &str = "/dev/fuse";

/// How long a worker waits that has no memory for a request.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// A way for requests, shared by the workers.
pub(super) trait Transport: Send + Sync {
    /// A new worker's end of it.
    fn port(&self) -> io::Result<Box<dyn Port>>;
}

/// One worker's end of a transport.
pub(super) trait Port: Send {
    /// Waits for a request.
    fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received>;

    /// By what the reply leaves.
    fn reply_fd(&self) -> BorrowedFd<'_>;
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A request of so many bytes.
    Request(usize),
    /// Nothing; try again.
    Again,
    /// The file system was unmounted, or its connection aborted: there will be no more.
    End,
    /// This worker is not needed: others receive what comes.
    Leave,
}

/// Chooses the transport, as `clone_fd` asks if that can be had. `device` is the session's; `by_other_ways` says whether
/// replies may leave by another.
pub(super) fn choose(device: &Arc<OwnedFd>, clone_fd: bool, by_other_ways: bool) -> Box<dyn Transport> {
    let shared = Shared { device: Arc::clone(device) };
    if !clone_fd {
        info!("Transport: {DEVICE} shared by all workers (clone_fd is not set)");
        return Box::new(shared);
    }
    if !by_other_ways {
        metrics::FALLBACK_CLONE.count();
        info!("Transport: {DEVICE} shared by all workers (clone_fd needs libfuse 2, or 3.13 or newer)");
        return Box::new(shared);
    }
    if let Err(err) = clone(device.as_fd()) {
        metrics::FALLBACK_CLONE.count();
        warn!("Transport: {DEVICE} shared by all workers (clone_fd failed: {err})");
        return Box::new(shared);
    }
    info!("Transport: a clone of {DEVICE} for each worker (clone_fd is set)");
    Box::new(Cloned { shared, complained: AtomicBool::new(false) })
}

/// The session's own device, for all.
struct Shared {
    device: Arc<OwnedFd>,
}

impl Transport for Shared {
    fn port(&self) -> io::Result<Box<dyn Port>> {
        Ok(Box::new(SharedPort { device: Arc::clone(&self.device) }))
    }
}

struct SharedPort {
    device: Arc<OwnedFd>,
}

impl Port for SharedPort {
    fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received> {
        receive(self.device.as_fd(), buffer)
    }

    fn reply_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// A clone of the device for each worker; the shared one where no more can be had.
struct Cloned {
    shared: Shared,
    complained: AtomicBool,
}

impl Transport for Cloned {
    fn port(&self) -> io::Result<Box<dyn Port>> {
        match clone(self.shared.device.as_fd()) {
            Ok(device) => Ok(Box::new(ClonedPort { device })),
            Err(err) => {
                metrics::FALLBACK_CLONE.count();
                if !self.complained.swap(true, Ordering::Relaxed) {
                    warn!("No more clones of {DEVICE}, further workers share one: {err}");
                }
                self.shared.port()
            }
        }
    }
}

struct ClonedPort {
    device: File,
}

impl Port for ClonedPort {
    fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received> {
        receive(self.device.as_fd(), buffer)
    }

    fn reply_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

nix::ioctl_read!(
    /// `FUSE_DEV_IOC_CLONE`: connects an open device to the session of another; takes that one's number.
    device_clone, 229, 0, u32
);

/// Opens the device once more for the session of `device`.
fn clone(device: BorrowedFd<'_>) -> io::Result<File> {
    let clone = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE)?;
    let mut number = device.as_raw_fd().cast_unsigned();
    // SAFETY: the kernel reads the number, of a descriptor that is open.
    unsafe { device_clone(clone.as_raw_fd(), &raw mut number) }?;
    Ok(clone)
}

/// Reads one request, whole, as the kernel gives them.
pub(super) fn receive(device: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<Received> {
    let room = match buffer.room() {
        Ok(room) => room,
        // Nothing was read, so nothing is lost: some of what is being sent will be given back.
        Err(err) => return Ok(wait_for_memory(&err)),
    };
    match nix::unistd::read(device, room) {
        Ok(len) if len >= size_of::<InHeader>() => Ok(Received::Request(len)),
        Ok(0) => Ok(Received::End),
        Ok(len) => Err(io::Error::other(format!("{len} bytes are no request"))),
        // ENOENT: the request was interrupted before it was read.
        Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => Ok(Received::Again),
        // ENODEV: unmounted or aborted. ECONNABORTED: aborted, where INIT asked to be told the difference.
        Err(Errno::ENODEV | Errno::ECONNABORTED) => Ok(Received::End),
        // The kernel has answered the request itself, with EIO.
        Err(Errno::ENOMEM) => Ok(wait_for_memory(&Errno::ENOMEM.into())),
        Err(err) => Err(err.into()),
    }
}

fn wait_for_memory(err: &io::Error) -> Received {
    error!("No memory for the next request: {err}");
    thread::sleep(NO_MEMORY_PAUSE);
    Received::Again
}
