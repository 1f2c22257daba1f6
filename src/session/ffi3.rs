//! A session of libfuse 3: it makes the session first and mounts after. Replies leave by the session's own
//! descriptor, or from 3.13 on by one of ours.

use std::ffi::CString;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use fuse_sys::Opened;
use fuse_sys::fuse3;
use fuse_sys::fuse3::Fuse3;
use nix::errno::Errno;

use super::ffi;
use super::ffi::Args;
use super::ffi::Refused;
use super::ffi::Shared;
use super::shims;

/// A mounted session.
pub(super) struct Mounted {
    functions: &'static Fuse3,
    session: NonNull<fuse3::fuse_session>,
    /// libfuse's user data.
    _shared: Arc<Shared>,
}

// SAFETY: libfuse guards what it shares between threads with its own locks; the pointers are not changed.
unsafe impl Send for Mounted {}
// SAFETY: as above.
unsafe impl Sync for Mounted {}

/// `fuse_buf` grew at its end in 3.17: whatever the headers said, a newer library finds zeros there.
#[repr(C)]
struct PaddedBuf {
    buf: fuse3::fuse_buf,
    later_members: [usize; 4],
}

impl Mounted {
    pub(super) fn mount(
        opened: &'static Opened<Fuse3>,
        mount_point: &Path,
        words: &[String],
        shared: Arc<Shared>,
    ) -> Result<Self, Refused> {
        let functions = &opened.functions;
        let mount_point = CString::new(mount_point.as_os_str().as_bytes()).map_err(|_| Refused)?;
        let mut words = Args::new(words);
        let (argc, argv) = words.parts();
        let mut args = fuse3::fuse_args { argc, argv, allocated: 0 };
        let ops = shims::v3::operations(opened);
        let data = Arc::as_ptr(&shared).cast_mut().cast();
        // SAFETY: `args` is as fuse_opt wants it; the operations are copied, as far as every version has them; the
        // user data lives in `_shared` until the session is destroyed.
        let session = unsafe {
            functions.fuse_session_new(&raw mut args, &raw const ops, shims::v3::OPERATIONS_LEN, data)
        };
        // SAFETY: the arguments are valid, or empty, whatever fuse_session_new made of them.
        unsafe { functions.fuse_opt_free_args(&raw mut args) };
        let session = NonNull::new(session).ok_or(Refused)?;
        if functions.fuse_session_set_sync_init.is_ok() {
            // SAFETY: sets a flag of a session that is not mounted yet.
            unsafe { functions.fuse_session_set_sync_init(session.as_ptr(), false) };
        }
        // SAFETY: the string outlives the call, which copies it.
        let code = unsafe { functions.fuse_session_mount(session.as_ptr(), mount_point.as_ptr()) };
        if code != 0 {
            // SAFETY: nobody else has the session, which is given up here.
            unsafe { functions.fuse_session_destroy(session.as_ptr()) };
            return Err(Refused);
        }
        Ok(Self { functions, session, _shared: shared })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the session keeps the descriptor open until it is unmounted, which is when `self` is dropped.
        unsafe { BorrowedFd::borrow_raw(self.functions.fuse_session_fd(self.session.as_ptr())) }
    }

    /// Puts [`writev`] in the place of libfuse's own, which may be done once the session is mounted.
    pub(super) fn allow_other_ways_of_reply(&mut self) -> bool {
        use std::os::fd::AsRawFd;
        let fd = self.fd().as_raw_fd();
        let session = self.session.as_ptr();
        let table = fuse3::fuse_custom_io_base {
            writev: Some(writev),
            read: Some(read),
            splice_receive: None,
            splice_send: None,
        };
        let io = &raw const table;
        // From 3.17 on the plain name takes one argument more. The other name exists just from then on.
        let code = if self.functions.fuse_session_custom_io_317.is_ok() {
            // SAFETY: the table is copied, as many bytes of it as it has; the descriptor is the session's own.
            unsafe { self.functions.fuse_session_custom_io_317(session, io, size_of_val(&table), fd) }
        } else if self.functions.fuse_session_custom_io.is_ok() {
            // SAFETY: as above; before 3.17 the table has just these members.
            unsafe { self.functions.fuse_session_custom_io(session, io, fd) }
        } else {
            return false;
        };
        code == 0
    }

    pub(super) fn process(&self, request: &mut [u8]) {
        let buf =
            fuse3::fuse_buf { size: request.len(), mem: request.as_mut_ptr().cast(), ..Default::default() };
        let padded = PaddedBuf { buf, later_members: [0; 4] };
        // SAFETY: the session lives, and the request is complete, as the kernel delivered it.
        unsafe { self.functions.fuse_session_process_buf(self.session.as_ptr(), (&raw const padded).cast()) };
    }

    /// Serves by libfuse's own loop until the session ends. None if this libfuse is too old for it.
    pub(super) fn loop_of_libfuse(&self, max_threads: c_uint, max_idle: c_uint) -> Option<c_int> {
        self.functions.fuse_loop_cfg_create.as_ref().ok()?;
        // SAFETY: the settings are made by this library and live until the loop has ended; so does the session. The loop
        // is the one that takes such settings, as both came with 3.12.
        unsafe {
            let settings = self.functions.fuse_loop_cfg_create();
            self.functions.fuse_loop_cfg_set_max_threads(settings, max_threads);
            self.functions.fuse_loop_cfg_set_idle_threads(settings, max_idle);
            let code = self.functions.fuse_session_loop_mt(self.session.as_ptr(), settings);
            self.functions.fuse_loop_cfg_destroy(settings);
            Some(code)
        }
    }

    pub(super) fn exit(&self) {
        // SAFETY: sets a flag of a live session.
        unsafe { self.functions.fuse_session_exit(self.session.as_ptr()) };
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: no worker is left, so nobody uses the session. Unmounting closes its descriptor.
        unsafe {
            self.functions.fuse_session_unmount(self.session.as_ptr());
            self.functions.fuse_session_destroy(self.session.as_ptr());
        }
    }
}

/// Writes a reply by this thread's descriptor.
unsafe extern "C" fn writev(
    fd: c_int,
    parts: *mut libc::iovec,
    count: c_int,
    _data: *mut c_void,
) -> libc::ssize_t {
    // SAFETY: libfuse passes the parts of one reply, and the session's own descriptor.
    unsafe { ffi::send(parts, usize::try_from(count).unwrap_or(0), Some(fd)) }
}

/// libfuse insists on this one. The session reads requests itself.
unsafe extern "C" fn read(_fd: c_int, _buf: *mut c_void, _len: usize, _data: *mut c_void) -> libc::ssize_t {
    Errno::ENOSYS.set();
    -1
}
