//! What the worker on this thread is about. libfuse calls back into the session on the thread that handed
//! it the request, and passes nothing of the worker along: this is how both ends meet.

use std::cell::Cell;
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nix::errno::Errno;

use super::buffer::Memory;
use super::interrupts::Interrupt;
use super::ring_entry::RingEntry;

thread_local! {
    static IDLE: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static UNIQUE: Cell<u64> = const { Cell::new(0) };
    static REPLY_FD: Cell<Option<RawFd>> = const { Cell::new(None) };
    static RING_ENTRY: RefCell<Option<Arc<RingEntry>>> = const { RefCell::new(None) };
    static MAPPED: Cell<bool> = const { Cell::new(false) };
    static MEMORY: RefCell<Option<Arc<Memory>>> = const { RefCell::new(None) };
    static INTERRUPT: RefCell<Option<Arc<Interrupt>>> = const { RefCell::new(None) };
}

/// Says by which descriptor this thread's replies leave, if not by the session's own.
pub(super) fn set_reply_fd(fd: Option<RawFd>) {
    REPLY_FD.set(fd);
}

/// The descriptor by which this thread's replies leave, if not by the session's own.
pub(super) fn reply_fd() -> Option<RawFd> {
    REPLY_FD.get()
}

/// Says where this thread's replies are put, if not written to a descriptor.
pub(super) fn set_ring_entry(entry: Option<Arc<RingEntry>>) {
    RING_ENTRY.set(entry);
}

/// Puts the reply of the parts `parts` where this thread's replies are put. None if that is no place, or not the one for this reply.
///
/// # Safety
/// The parts are readable, but for those of a mapped file while [`set_mapped`] says that there may be some.
pub(super) unsafe fn put(parts: &[libc::iovec]) -> Option<Result<usize, Errno>> {
    // SAFETY: as promised.
    RING_ENTRY.with_borrow(|entry| unsafe { entry.as_ref()?.put(parts, MAPPED.get()) })
}

/// Says whether data of this thread's reply may be of a mapped file, which can become shorter at any time.
pub(super) fn set_mapped(mapped: bool) {
    MAPPED.set(mapped);
}

/// Says what memory this thread's request lies in, as long as it is served.
pub(super) fn set_memory(memory: Option<Arc<Memory>>) {
    MEMORY.set(memory);
}

/// `data` of this thread's request for longer than it is served, without a copy, if that is worth it.
pub(super) fn keep(data: &[u8]) -> Option<Bytes> {
    MEMORY.with_borrow(Clone::clone)?.keep(data)
}

/// Says which request this thread has received, by the kernel's number.
pub(super) fn set_unique(unique: u64) {
    UNIQUE.set(unique);
}

/// The kernel's number of this thread's request; 0 if libfuse received it.
pub(super) fn unique() -> u64 {
    UNIQUE.get()
}

/// Says what interrupts the request that this thread is about to serve.
pub(super) fn set_interrupt(interrupt: Arc<Interrupt>) {
    INTERRUPT.set(Some(interrupt));
}

/// What interrupts this thread's request; nobody's interrupt outside of a worker.
pub(super) fn interrupt() -> Arc<Interrupt> {
    INTERRUPT.with_borrow(|interrupt| interrupt.clone()).unwrap_or_default()
}

/// Says where workers that wait for a request are counted; this one is.
pub(super) fn set_idle_count(idle: Arc<AtomicUsize>) {
    IDLE.set(Some(idle));
}

/// This worker has received a request. Returns how many still wait for one.
pub(super) fn begin() -> usize {
    BUSY.set(true);
    IDLE.with_borrow(|idle| idle.as_ref().map_or(0, |idle| idle.fetch_sub(1, Ordering::AcqRel) - 1))
}

/// This worker is as good as waiting for the next request: it has only to send a reply. To be called before
/// that, as its caller may ask again before this thread runs on; counted as busy till then, workers would
/// be started that nobody needs. Only the first call after [`begin`] counts.
pub(super) fn end() {
    if BUSY.replace(false) {
        IDLE.with_borrow(|idle| idle.as_ref().map(|idle| idle.fetch_add(1, Ordering::AcqRel)));
    }
}
