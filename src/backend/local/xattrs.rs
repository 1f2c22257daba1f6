//! Extended attributes of the embedded store: those of the files themselves, `user.*` only.

use std::ffi::CString;
use std::fmt::Write;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use libc::ssize_t;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::stat::fstat;

use super::Store;
use super::translate;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::XattrMode;

/// The kernel has no longer values, and no longer lists of names.
const LEN_MAX: usize = 64 << 10;

/// A file whose attributes are looked at.
struct Target {
    /// Opened without any right to the content, so that the kernel checks for each call what that call needs.
    _file: OwnedFd,
    /// Leads to the file, whatever is at its path by now.
    link: CString,
}

impl Target {
    fn open(store: &Store, path: &FsPath) -> Result<Self> {
        let file = store.open(path, OFlag::O_PATH, Mode::empty())?;
        // Not found, if it is neither a file nor a directory.
        store.attr(&fstat(&file).map_err(translate)?)?;
        let mut link = String::from("/proc/self/fd/");
        write!(link, "{}", file.as_raw_fd()).expect("writing to a string cannot fail");
        Ok(Self { _file: file, link: CString::new(link).expect("digits") })
    }
}

pub(super) fn get(store: &Store, path: &FsPath, name: &str) -> Result<Bytes> {
    let (target, name) = (Target::open(store, path)?, c_name(name)?);
    filled(|room| {
        // SAFETY: both names end with a zero, and the kernel writes no more than there is room for.
        unsafe { libc::getxattr(target.link.as_ptr(), name.as_ptr(), room.as_mut_ptr().cast(), room.len()) }
    })
    .map(Bytes::from)
}

pub(super) fn list(store: &Store, path: &FsPath) -> Result<Vec<String>> {
    let target = Target::open(store, path)?;
    let names = filled(|room| {
        // SAFETY: the name ends with a zero, and the kernel writes no more than there is room for.
        unsafe { libc::listxattr(target.link.as_ptr(), room.as_mut_ptr().cast(), room.len()) }
    })?;
    let names = names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    // A name that is not UTF-8 cannot be asked for either.
    Ok(names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
}

pub(super) fn set(store: &Store, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
    let (target, name) = (Target::open(store, path)?, c_name(name)?);
    let flags = match mode {
        XattrMode::Set => 0,
        XattrMode::Create => libc::XATTR_CREATE,
        XattrMode::Replace => libc::XATTR_REPLACE,
    };
    let (link, data) = (target.link.as_ptr(), value.as_ptr().cast());
    // SAFETY: both names end with a zero, and the value is as long as said.
    let code = unsafe { libc::setxattr(link, name.as_ptr(), data, value.len(), flags) };
    Errno::result(code).map_err(translate).map(drop)
}

pub(super) fn remove(store: &Store, path: &FsPath, name: &str) -> Result<()> {
    let (target, name) = (Target::open(store, path)?, c_name(name)?);
    // SAFETY: both names end with a zero.
    let code = unsafe { libc::removexattr(target.link.as_ptr(), name.as_ptr()) };
    Errno::result(code).map_err(translate).map(drop)
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Fault::InvalidArgument.into())
}

/// What `call` fills in, which returns its length or -1 with errno.
fn filled(call: impl Fn(&mut [u8]) -> ssize_t) -> Result<Vec<u8>> {
    let mut room = vec![0; LEN_MAX];
    let len = Errno::result(call(&mut room)).map_err(translate)?;
    room.truncate(usize::try_from(len).expect("not negative, as it is no error"));
    Ok(room)
}
