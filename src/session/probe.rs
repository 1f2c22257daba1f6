//! Requests that are made up instead of received: for benchmarks and tests that count what a request costs on its way
//! from libfuse's decoding to the reply. Nothing else uses it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Weak;

use super::Live;
use super::abi::InHeader;
use super::abi::Plain;
use super::abi::ReadIn;
use super::abi::opcode;
use super::current;
use super::interrupts::Interrupt;

/// One more worker of a session, which is given its requests.
pub struct Probe {
    /// Gone when the session is.
    live: Weak<Live>,
    /// Nobody interrupts what it serves.
    interrupt: Arc<Interrupt>,
}

impl Probe {
    pub(super) fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::downgrade(live), interrupt: Arc::default() }
    }

    /// Serves READ requests on this thread as a worker does, one after the other; the replies leave by `reply_fd`. With
    /// libfuse 3 they do only if the session was mounted with `clone_fd`. Fails when the session has ended.
    pub fn serve(&self, requests: &mut [ReadRequest], reply_fd: BorrowedFd<'_>) -> io::Result<()> {
        let live = self.live.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        current::set_interrupt(Arc::clone(&self.interrupt));
        for ReadRequest(bytes) in requests {
            current::set_unique(InHeader::read_from(bytes).map_or(0, |header| header.unique));
            live.mounted.process(bytes, reply_fd);
        }
        Ok(())
    }
}

/// A READ as the kernel sends it.
pub struct ReadRequest([u8; READ_LEN]);

const READ_LEN: usize = size_of::<InHeader>() + size_of::<ReadIn>();

impl ReadRequest {
    /// For `size` bytes at `offset` of the inode `nodeid`, by its handle `fh`; `unique` is the number of the request.
    pub fn new(unique: u64, nodeid: u64, fh: u64, offset: u64, size: u32) -> Self {
        let header = InHeader {
            len: READ_LEN as u32,
            opcode: opcode::READ,
            unique,
            nodeid,
            pid: std::process::id(),
            ..InHeader::default()
        };
        let body = ReadIn { fh, offset, size, ..ReadIn::default() };
        let mut bytes = [0; READ_LEN];
        let (head, rest) = bytes.split_at_mut(size_of::<InHeader>());
        head.copy_from_slice(header.as_bytes());
        rest.copy_from_slice(body.as_bytes());
        Self(bytes)
    }
}
