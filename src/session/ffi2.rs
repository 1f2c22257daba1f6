//! A session of libfuse 2: it mounts first and makes the session after; replies leave through a channel.

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::ptr::null_mut;
use std::sync::Arc;

use fuse_sys::Opened;
use fuse_sys::fuse2;
use fuse_sys::fuse2::Fuse2;
use nix::errno::Errno;

use super::ffi;
use super::ffi::Args;
use super::ffi::Refused;
use super::ffi::Shared;
use super::older;
use super::shims;

/// What the largest request needs.
const CHANNEL_LEN: usize = (1 << 20) + 4096;

/// A mounted session.
pub(super) struct Mounted {
    functions: &'static Fuse2,
    session: NonNull<fuse2::fuse_session>,
    /// What `fuse_mount` made: it owns the descriptor. No reply goes through it, as it knows only that one, and
    /// prints an error for each reply that the kernel does not take.
    channel: NonNull<fuse2::fuse_chan>,
    /// Where replies go instead: to [`send`].
    replies: NonNull<fuse2::fuse_chan>,
    mount_point: CString,
    /// libfuse's user data.
    _shared: Arc<Shared>,
}

// SAFETY: libfuse guards what it shares between threads with its own locks; the pointers are not changed.
unsafe impl Send for Mounted {}
// SAFETY: as above.
unsafe impl Sync for Mounted {}

impl Mounted {
    pub(super) fn mount(
        opened: &'static Opened<Fuse2>,
        mount_point: &Path,
        words: &[String],
        shared: Arc<Shared>,
    ) -> Result<Self, Refused> {
        let functions = &opened.functions;
        let mount_point = CString::new(mount_point.as_os_str().as_bytes()).map_err(|_| Refused)?;
        let mut words = Args::new(words);
        let (argc, argv) = words.parts();
        let mut args = fuse2::fuse_args { argc, argv, allocated: 0 };
        // SAFETY: both strings outlive the call, and `args` is as fuse_opt wants it.
        let channel = unsafe { functions.fuse_mount(mount_point.as_ptr(), &raw mut args) };
        let Some(channel) = NonNull::new(channel) else {
            // SAFETY: fuse_mount left valid arguments.
            unsafe { functions.fuse_opt_free_args(&raw mut args) };
            return Err(Refused);
        };
        let ops = shims::v2::operations(opened);
        let data = Arc::as_ptr(&shared).cast_mut().cast();
        // SAFETY: what fuse_mount left of `args` are the session's own options; the operations are copied; the
        // user data lives in `_shared` until the session is destroyed.
        let session =
            unsafe { functions.fuse_lowlevel_new(&raw mut args, &raw const ops, size_of_val(&ops), data) };
        // SAFETY: as above.
        unsafe { functions.fuse_opt_free_args(&raw mut args) };
        let Some(session) = NonNull::new(session) else {
            // SAFETY: nobody else has the channel, which is given up here.
            unsafe { functions.fuse_unmount(mount_point.as_ptr(), channel.as_ptr()) };
            return Err(Refused);
        };
        let mut ops = fuse2::fuse_chan_ops { receive: Some(receive), send: Some(send), destroy: None };
        // SAFETY: the operations are copied, and do not need the descriptor. The size only limits the `max_write`
        // that libfuse writes into its reply to INIT.
        let replies = unsafe { functions.fuse_chan_new(&raw mut ops, -1, CHANNEL_LEN, null_mut()) };
        let replies = NonNull::new(replies).expect("malloc of a few bytes does not fail on Linux");
        Ok(Self { functions, session, channel, replies, mount_point, _shared: shared })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel keeps the descriptor open until it is unmounted, which is when `self` is dropped.
        unsafe { BorrowedFd::borrow_raw(self.functions.fuse_chan_fd(self.channel.as_ptr())) }
    }

    pub(super) fn process(&self, request: &mut [u8]) {
        let request = older::translated(request);
        let buf =
            fuse2::fuse_buf { size: request.len(), mem: request.as_mut_ptr().cast(), ..Default::default() };
        let replies = self.replies.as_ptr();
        // SAFETY: session and channel live, and the request is complete, as the kernel delivered it.
        unsafe { self.functions.fuse_session_process_buf(self.session.as_ptr(), &raw const buf, replies) };
    }

    pub(super) fn exit(&self) {
        // SAFETY: sets a flag of a live session.
        unsafe { self.functions.fuse_session_exit(self.session.as_ptr()) };
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: no worker is left, so nobody uses session or channels. They were never added to the session, so
        // destroying it leaves them to us; `fuse_unmount` closes the descriptor, then frees its channel.
        unsafe {
            self.functions.fuse_session_destroy(self.session.as_ptr());
            self.functions.fuse_chan_destroy(self.replies.as_ptr());
            self.functions.fuse_unmount(self.mount_point.as_ptr(), self.channel.as_ptr());
        }
    }
}

/// The channel's receive operation. The session reads requests itself.
unsafe extern "C" fn receive(_chan: *mut *mut fuse2::fuse_chan, _buf: *mut c_char, _size: usize) -> c_int {
    -libc::ENOSYS
}

/// The channel's send operation: 0 or a negative errno. Without parts it only says that a request without
/// reply has ended.
unsafe extern "C" fn send(_chan: *mut fuse2::fuse_chan, parts: *const libc::iovec, count: usize) -> c_int {
    if parts.is_null() {
        return 0;
    }
    // SAFETY: libfuse passes the parts of one reply.
    let sent = unsafe { ffi::send(parts, count, None) };
    if sent >= 0 { 0 } else { -Errno::last_raw() }
}
