//! What is the same for libfuse 2 and 3: a request that takes one reply, and the parts of mounting. What differs
//! between the versions is in `ffi2` and `ffi3`, and `mounted` puts both under one type.

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use fuse_sys::Library;
use fuse_sys::fuse2;
use fuse_sys::fuse3;
use nix::errno::Errno;

use super::activity::Activity;
use super::arguments::Caller;
use super::current;
use super::interrupts::Interrupt;
use crate::vfs::Vfs;

/// What libfuse hands back with each request.
pub(super) struct Shared {
    /// Who answers.
    pub(super) vfs: Arc<Vfs>,
    /// Where those who answer write down what they do.
    pub(super) activity: Arc<Activity>,
    /// The mount option of this name, which libfuse 3 wants to be told twice; 0 for none.
    pub(super) max_read: u32,
    /// A request that takes as long is logged as a warning.
    pub(super) slow: Duration,
}

/// libfuse refused to mount. It says why on stderr.
pub(super) struct Refused;

/// A request inside libfuse, which must be replied to exactly once: each reply consumes it.
pub(super) struct RawRequest {
    library: Library,
    req: *mut c_void,
}

/// Calls a function of the library that the request belongs to.
macro_rules! call {
    ($request:expr, $function:ident $(, $arg:expr)*) => {
        match $request.library {
            // SAFETY: `req` came from this library and has not been replied to, as replies consume it. The
            // other arguments are the callers'.
            Library::V2(opened) => unsafe { opened.functions.$function($request.req.cast() $(, $arg)*) },
            // SAFETY: as above.
            Library::V3(opened) => unsafe { opened.functions.$function($request.req.cast() $(, $arg)*) },
        }
    };
}

impl RawRequest {
    /// Takes over a request from libfuse.
    ///
    /// # Safety
    /// `req` is a `fuse_req_t` of `library`, not replied to yet, and nobody else will reply to it.
    pub(super) unsafe fn new(library: Library, req: *mut c_void) -> Self {
        Self { library, req }
    }

    /// Who asks.
    pub(super) fn caller(&self) -> Caller {
        match self.library {
            Library::V2(opened) => {
                // SAFETY: the context is a part of the request, which is still there.
                let ctx = unsafe { &*opened.functions.fuse_req_ctx(self.req.cast()) };
                Caller { uid: ctx.uid, gid: ctx.gid, pid: ctx.pid.cast_unsigned() }
            }
            Library::V3(opened) => {
                // SAFETY: as above.
                let ctx = unsafe { &*opened.functions.fuse_req_ctx(self.req.cast()) };
                Caller { uid: ctx.uid, gid: ctx.gid, pid: ctx.pid.cast_unsigned() }
            }
        }
    }

    /// What the session was mounted with.
    pub(super) fn shared(&self) -> Arc<Shared> {
        let data: *const Shared = call!(self, fuse_req_userdata).cast();
        // SAFETY: the pointer is the one that `mount` took from an `Arc` which the session keeps until libfuse
        // is done with it.
        unsafe {
            Arc::increment_strong_count(data);
            Arc::from_raw(data)
        }
    }

    /// Has `interrupt` told when the caller is interrupted, at once if it was already.
    ///
    /// # Safety
    /// The caller keeps its `Arc` until [`Self::ignore_interrupts`] has returned.
    pub(super) unsafe fn heed_interrupts(&self, interrupt: &Arc<Interrupt>) {
        let data = Arc::as_ptr(interrupt).cast_mut().cast::<c_void>();
        match self.library {
            // SAFETY: the request is not replied to; libfuse passes `data` to the function only, which takes it
            // for what it is.
            Library::V2(opened) => unsafe {
                opened.functions.fuse_req_interrupt_func(self.req.cast(), Some(interrupted_2), data);
            },
            // SAFETY: as above.
            Library::V3(opened) => unsafe {
                opened.functions.fuse_req_interrupt_func(self.req.cast(), Some(interrupted_3), data);
            },
        }
    }

    /// No interrupt is reported any more when this has returned: libfuse waits for one that is under way, as
    /// it calls back with the request's lock held.
    pub(super) fn ignore_interrupts(&self) {
        call!(self, fuse_req_interrupt_func, None, std::ptr::null_mut());
    }

    /// Replies with an errno, or with bare success for 0.
    pub(super) fn reply_errno(self, errno: c_int) -> Result<(), Errno> {
        result(call!(self, fuse_reply_err, errno))
    }

    /// Ends a request that has no reply.
    pub(super) fn reply_none(self) {
        call!(self, fuse_reply_none);
    }

    /// Replies with success and `bytes`.
    pub(super) fn reply_bytes(self, bytes: &[u8]) -> Result<(), Errno> {
        result(call!(self, fuse_reply_buf, bytes.as_ptr().cast(), bytes.len()))
    }

    /// Replies with success and the parts one after the other, in one write.
    pub(super) fn reply_parts(self, parts: &[libc::iovec]) -> Result<(), Errno> {
        let count = c_int::try_from(parts.len()).expect("writev takes far fewer");
        result(call!(self, fuse_reply_iov, parts.as_ptr(), count))
    }
}

/// libfuse returns 0 or a negative errno.
fn result(code: c_int) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) }
}

unsafe extern "C" fn interrupted_2(_req: fuse2::fuse_req_t, data: *mut c_void) {
    // SAFETY: libfuse passes what `heed_interrupts` gave it.
    unsafe { interrupted(data) };
}

unsafe extern "C" fn interrupted_3(_req: fuse3::fuse_req_t, data: *mut c_void) {
    // SAFETY: as above.
    unsafe { interrupted(data) };
}

/// # Safety
/// `data` points to the `Interrupt` of a request that still heeds interrupts, and so keeps its `Arc`.
unsafe fn interrupted(data: *mut c_void) {
    let data = data.cast_const().cast::<Interrupt>();
    // SAFETY: as promised.
    let interrupt = unsafe {
        Arc::increment_strong_count(data);
        Arc::from_raw(data)
    };
    // A waker is somebody else's code; a panic of it must not unwind into libfuse. The hook has logged it.
    drop(catch_unwind(AssertUnwindSafe(|| interrupt.arrived())));
}

/// The arguments `alluxio-fuse -oWORD -oWORD ..` in the form of C.
pub(super) struct Args {
    /// Owns what `pointers` point to.
    _words: Vec<CString>,
    pointers: Vec<*mut c_char>,
}

impl Args {
    /// From option words; a comma in one does not end it.
    pub(super) fn new(words: &[String]) -> Self {
        let escaped =
            words.iter().map(|word| format!("-o{}", word.replace('\\', "\\\\").replace(',', "\\,")));
        let words: Vec<CString> = std::iter::once("alluxio-fuse".to_owned())
            .chain(escaped)
            .map(|word| CString::new(word.replace('\0', "")).expect("zeros were taken out"))
            .collect();
        let pointers = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
        Self { _words: words, pointers }
    }

    /// `argc` and `argv`. libfuse only reads them: it makes a copy when it takes options out.
    pub(super) fn parts(&mut self) -> (c_int, *mut *mut c_char) {
        (c_int::try_from(self.pointers.len()).expect("a handful"), self.pointers.as_mut_ptr())
    }
}

/// Sends one reply by this thread's way: what both versions call in the place of their own write.
/// Returns what writev(2) returns, with errno set.
///
/// # Safety
/// `parts` points to `count` parts in readable memory, or in that of a mapped file where `current` knows of it.
pub(super) unsafe fn send(parts: *const libc::iovec, count: usize, own_fd: Option<RawFd>) -> libc::ssize_t {
    // SAFETY: as promised.
    let put = unsafe { current::put(std::slice::from_raw_parts(parts, count)) };
    match put {
        Some(Ok(len)) => return len.cast_signed(),
        Some(Err(err)) => {
            err.set();
            return -1;
        }
        None => {}
    }
    let Some(fd) = current::reply_fd().or(own_fd) else {
        Errno::EBADF.set();
        return -1;
    };
    // SAFETY: as promised; the descriptor is open, as the worker holds it while it processes the request.
    unsafe { libc::writev(fd, parts, c_int::try_from(count).unwrap_or(c_int::MAX)) }
}
