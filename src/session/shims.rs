//! What libfuse calls: C functions that turn their arguments into plain values and hand them on. Written
//! once for both versions, whose types differ in name only. The panic wall is in `answer`, which
//! everything that can panic runs in.
//!
//! Of `fuse_file_info` only `flags` and `fh` are read: its bits move between versions with one SONAME.
//! Operations that are left out get ENOSYS from libfuse, upon which the kernel does without them for good:
//! fallocate, copy_file_range, lseek, poll, bmap, fsyncdir.
//! Locks of both kinds then stay inside the kernel.

use std::ffi::CStr;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;

// The versions name their integers differently (`unsigned long` and `uint64_t`).
const _: () = assert!(size_of::<usize>() == 8, "only 64-bit systems are supported");

/// The text of a name in a request.
///
/// # Safety
/// `name` is a C string that outlives the callback, as every name is that libfuse passes.
unsafe fn text<'a>(name: *const c_char) -> &'a OsStr {
    // SAFETY: as promised.
    OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())
}

/// The functions that are the same in both versions, and the table of them.
macro_rules! shims {
    ($(#[$doc:meta])* $module:ident, $sys:ident, $functions:ident, $variant:ident, $is_plus:path, { $($field:ident),* }, $($own:item)*) => {
        $(#[$doc])*
        #[expect(
            clippy::undocumented_unsafe_blocks,
            reason = "one reason for all: libfuse passes a request to reply to, and pointers that are valid during the call"
        )]
        pub(super) mod $module {
            use std::ffi::c_char;
            use std::ffi::c_int;
            use std::ffi::c_uint;
            use std::ffi::c_void;
            use std::slice;
            use std::sync::OnceLock;

            use fuse_sys::Library;
            use fuse_sys::Opened;
            use fuse_sys::$sys::*;
            use libc::dev_t;
            use libc::mode_t;
            use libc::off_t;
            use libc::stat;

            use super::super::answer::refuse;
            use super::super::ffi::RawRequest;
            use super::super::serve;
            use super::text;

            /// The library that calls: there is one of each version in a process.
            static LIBRARY: OnceLock<&'static Opened<$functions>> = OnceLock::new();

            /// The operations, for sessions of `library`.
            pub(in crate::session) fn operations(library: &'static Opened<$functions>) -> fuse_lowlevel_ops {
                LIBRARY.get_or_init(|| library);
                fuse_lowlevel_ops {
                    lookup: Some(lookup),
                    forget: Some(forget),
                    forget_multi: Some(forget_multi),
                    getattr: Some(getattr),
                    setattr: Some(setattr),
                    readlink: Some(readlink),
                    mknod: Some(mknod),
                    mkdir: Some(mkdir),
                    unlink: Some(unlink),
                    rmdir: Some(rmdir),
                    symlink: Some(symlink),
                    rename: Some(rename),
                    link: Some(link),
                    open: Some(open),
                    read: Some(read),
                    write: Some(write),
                    flush: Some(flush),
                    release: Some(release),
                    fsync: Some(fsync),
                    opendir: Some(opendir),
                    readdir: Some(readdir),
                    releasedir: Some(releasedir),
                    statfs: Some(statfs),
                    access: Some(access),
                    create: Some(create),
                    ioctl: Some(ioctl),
                    setxattr: Some(setxattr),
                    getxattr: Some(getxattr),
                    listxattr: Some(listxattr),
                    removexattr: Some(removexattr),
                    $($field: Some($field),)*
                    ..fuse_lowlevel_ops::default()
                }
            }

            fn raw(req: fuse_req_t) -> RawRequest {
                let library = LIBRARY.get().expect("set before the operations were handed out");
                unsafe { RawRequest::new(Library::$variant(library), req.cast()) }
            }

            unsafe fn fh(fi: *const fuse_file_info) -> u64 {
                unsafe { (*fi).fh }
            }

            unsafe fn fh_if_any(fi: *const fuse_file_info) -> Option<u64> {
                unsafe { fi.as_ref() }.map(|fi| fi.fh)
            }

            unsafe extern "C" fn lookup(req: fuse_req_t, parent: fuse_ino_t, name: *const c_char) {
                serve::lookup(raw(req), parent, unsafe { text(name) });
            }

            unsafe extern "C" fn forget(req: fuse_req_t, ino: fuse_ino_t, count: u64) {
                serve::forget_one(raw(req), ino, count);
            }

            unsafe extern "C" fn forget_multi(req: fuse_req_t, count: usize, forgets: *mut fuse_forget_data) {
                let forgets = unsafe { slice::from_raw_parts(forgets, count) };
                serve::forget_many(raw(req), forgets.iter().map(|forget| (forget.ino, forget.nlookup)));
            }

            unsafe extern "C" fn getattr(req: fuse_req_t, ino: fuse_ino_t, fi: *mut fuse_file_info) {
                serve::getattr(raw(req), ino, unsafe { fh_if_any(fi) });
            }

            unsafe extern "C" fn setattr(
                req: fuse_req_t,
                ino: fuse_ino_t,
                attr: *mut stat,
                to_set: c_int,
                fi: *mut fuse_file_info,
            ) {
                serve::setattr(raw(req), ino, unsafe { &*attr }, to_set, unsafe { fh_if_any(fi) });
            }

            unsafe extern "C" fn readlink(req: fuse_req_t, _ino: fuse_ino_t) {
                refuse(raw(req), libc::EINVAL);
            }

            unsafe extern "C" fn mknod(
                req: fuse_req_t,
                parent: fuse_ino_t,
                name: *const c_char,
                mode: mode_t,
                _device: dev_t,
            ) {
                serve::mknod(raw(req), parent, unsafe { text(name) }, mode);
            }

            unsafe extern "C" fn mkdir(req: fuse_req_t, parent: fuse_ino_t, name: *const c_char, mode: mode_t) {
                serve::mkdir(raw(req), parent, unsafe { text(name) }, mode);
            }

            unsafe extern "C" fn unlink(req: fuse_req_t, parent: fuse_ino_t, name: *const c_char) {
                serve::unlink(raw(req), parent, unsafe { text(name) });
            }

            unsafe extern "C" fn rmdir(req: fuse_req_t, parent: fuse_ino_t, name: *const c_char) {
                serve::rmdir(raw(req), parent, unsafe { text(name) });
            }

            unsafe extern "C" fn symlink(
                req: fuse_req_t,
                _target: *const c_char,
                _parent: fuse_ino_t,
                _name: *const c_char,
            ) {
                refuse(raw(req), libc::EPERM);
            }

            unsafe extern "C" fn link(
                req: fuse_req_t,
                _ino: fuse_ino_t,
                _new_parent: fuse_ino_t,
                _new_name: *const c_char,
            ) {
                refuse(raw(req), libc::EPERM);
            }

            unsafe extern "C" fn open(req: fuse_req_t, ino: fuse_ino_t, fi: *mut fuse_file_info) {
                serve::open(raw(req), ino, unsafe { (*fi).flags });
            }

            unsafe extern "C" fn read(
                req: fuse_req_t,
                ino: fuse_ino_t,
                len: usize,
                offset: off_t,
                fi: *mut fuse_file_info,
            ) {
                serve::read(raw(req), ino, unsafe { fh(fi) }, offset.cast_unsigned(), len);
            }

            unsafe extern "C" fn write(
                req: fuse_req_t,
                ino: fuse_ino_t,
                data: *const c_char,
                len: usize,
                offset: off_t,
                fi: *mut fuse_file_info,
            ) {
                let data = unsafe { slice::from_raw_parts(data.cast(), len) };
                serve::write(raw(req), ino, unsafe { fh(fi) }, offset.cast_unsigned(), data);
            }

            unsafe extern "C" fn flush(req: fuse_req_t, ino: fuse_ino_t, fi: *mut fuse_file_info) {
                serve::flush(raw(req), ino, unsafe { fh(fi) });
            }

            unsafe extern "C" fn release(req: fuse_req_t, ino: fuse_ino_t, fi: *mut fuse_file_info) {
                serve::release(raw(req), ino, unsafe { fh(fi) });
            }

            unsafe extern "C" fn fsync(
                req: fuse_req_t,
                ino: fuse_ino_t,
                data_only: c_int,
                fi: *mut fuse_file_info,
            ) {
                serve::fsync(raw(req), ino, unsafe { fh(fi) }, data_only != 0);
            }

            unsafe extern "C" fn opendir(req: fuse_req_t, ino: fuse_ino_t, _fi: *mut fuse_file_info) {
                serve::opendir(raw(req), ino);
            }

            unsafe extern "C" fn readdir(
                req: fuse_req_t,
                ino: fuse_ino_t,
                len: usize,
                offset: off_t,
                fi: *mut fuse_file_info,
            ) {
                let serve = if $is_plus() { serve::readdirplus } else { serve::readdir };
                serve(raw(req), ino, unsafe { fh(fi) }, offset.cast_unsigned(), len);
            }

            unsafe extern "C" fn releasedir(req: fuse_req_t, ino: fuse_ino_t, fi: *mut fuse_file_info) {
                serve::releasedir(raw(req), ino, unsafe { fh(fi) });
            }

            unsafe extern "C" fn statfs(req: fuse_req_t, ino: fuse_ino_t) {
                serve::statfs(raw(req), ino);
            }

            unsafe extern "C" fn access(req: fuse_req_t, ino: fuse_ino_t, mask: c_int) {
                serve::access(raw(req), ino, mask);
            }

            unsafe extern "C" fn create(
                req: fuse_req_t,
                parent: fuse_ino_t,
                name: *const c_char,
                mode: mode_t,
                fi: *mut fuse_file_info,
            ) {
                serve::create(raw(req), parent, unsafe { text(name) }, mode, unsafe { (*fi).flags });
            }

            unsafe extern "C" fn setxattr(
                req: fuse_req_t,
                ino: fuse_ino_t,
                name: *const c_char,
                value: *const c_char,
                len: usize,
                flags: c_int,
            ) {
                let (name, value) = unsafe { (text(name), slice::from_raw_parts(value.cast(), len)) };
                serve::setxattr(raw(req), ino, name, value, flags);
            }

            unsafe extern "C" fn getxattr(req: fuse_req_t, ino: fuse_ino_t, name: *const c_char, len: usize) {
                serve::getxattr(raw(req), ino, unsafe { text(name) }, len);
            }

            unsafe extern "C" fn listxattr(req: fuse_req_t, ino: fuse_ino_t, len: usize) {
                serve::listxattr(raw(req), ino, len);
            }

            unsafe extern "C" fn removexattr(req: fuse_req_t, ino: fuse_ino_t, name: *const c_char) {
                serve::removexattr(raw(req), ino, unsafe { text(name) });
            }

            $($own)*
        }
    };
}

shims! {
    /// For libfuse 2.
    v2, fuse2, Fuse2, V2, crate::session::older::is_plus, {},

    unsafe extern "C" fn rename(
        req: fuse_req_t,
        parent: fuse_ino_t,
        name: *const c_char,
        new_parent: fuse_ino_t,
        new_name: *const c_char,
    ) {
        let (from, to) = unsafe { ((parent, text(name)), (new_parent, text(new_name))) };
        serve::rename(raw(req), from, to, super::super::older::rename_flags());
    }

    unsafe extern "C" fn ioctl(
        req: fuse_req_t,
        _ino: fuse_ino_t,
        _command: c_int,
        _arg: *mut c_void,
        _fi: *mut fuse_file_info,
        _flags: c_uint,
        _in: *const c_void,
        _in_len: usize,
        _out_len: usize,
    ) {
        refuse(raw(req), libc::ENOTTY);
    }
}

shims! {
    /// For libfuse 3.
    v3, fuse3, Fuse3, V3, never, { readdirplus, init },

    /// READDIRPLUS has an operation of its own.
    fn never() -> bool {
        false
    }

    /// How much of the table every version has: up to its last operation that we serve. A longer one makes
    /// older libraries complain.
    pub(in crate::session) const OPERATIONS_LEN: usize =
        std::mem::offset_of!(fuse_lowlevel_ops, readdirplus) + size_of::<usize>();

    /// Requests a size of reads once more where the mount option did, as libfuse refuses when the two differ.
    /// All else of INIT is settled in its reply.
    unsafe extern "C" fn init(data: *mut c_void, conn: *mut fuse_conn_info) {
        unsafe { (*conn).max_read = (*data.cast::<super::super::ffi::Shared>()).max_read };
    }

    unsafe extern "C" fn rename(
        req: fuse_req_t,
        parent: fuse_ino_t,
        name: *const c_char,
        new_parent: fuse_ino_t,
        new_name: *const c_char,
        flags: c_uint,
    ) {
        let (from, to) = unsafe { ((parent, text(name)), (new_parent, text(new_name))) };
        serve::rename(raw(req), from, to, flags);
    }

    unsafe extern "C" fn readdirplus(
        req: fuse_req_t,
        ino: fuse_ino_t,
        len: usize,
        offset: off_t,
        fi: *mut fuse_file_info,
    ) {
        serve::readdirplus(raw(req), ino, unsafe { fh(fi) }, offset.cast_unsigned(), len);
    }

    unsafe extern "C" fn ioctl(
        req: fuse_req_t,
        _ino: fuse_ino_t,
        _command: c_uint,
        _arg: *mut c_void,
        _fi: *mut fuse_file_info,
        _flags: c_uint,
        _in: *const c_void,
        _in_len: usize,
        _out_len: usize,
    ) {
        refuse(raw(req), libc::ENOTTY);
    }
}
