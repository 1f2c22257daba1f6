//! What the worker on this thread is about. libfuse calls back into the session on the thread that handed
//! it the request, and passes nothing of the worker along: this is how both ends meet.

use std::cell::Cell;
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::fs::Cancel;

thread_local! {
    static REPLY_FD: Cell<Option<RawFd>> = const { Cell::new(None) };
    static CANCEL: RefCell<Option<Arc<Cancel>>> = const { RefCell::new(None) };
}

/// Says by which descriptor this thread's replies leave, if not by the session's own.
pub(super) fn set_reply_fd(fd: Option<RawFd>) {
    REPLY_FD.set(fd);
}

/// The descriptor by which this thread's replies leave, if not by the session's own.
pub(super) fn reply_fd() -> Option<RawFd> {
    REPLY_FD.get()
}

/// Says what interrupts the request that this thread is about to serve.
pub(super) fn set_cancel(cancel: Arc<Cancel>) {
    CANCEL.set(Some(cancel));
}

/// What interrupts this thread's request; nobody's interrupt outside of a worker.
pub(super) fn cancel() -> Arc<Cancel> {
    CANCEL.with_borrow(|cancel| cancel.clone()).unwrap_or_default()
}
