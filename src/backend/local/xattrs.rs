//! Extended attributes of the embedded store: those of the files themselves, `user.*` only.

use std::ffi::CString;

use bytes::Bytes;
use libc::ssize_t;
use nix::errno::Errno;

use super::node::Node;
use super::translate;
use crate::fs::Fault;
use crate::fs::Result;
use crate::fs::XattrMode;

/// The kernel has no longer values, and no longer lists of names.
const LEN_MAX: usize = 64 << 10;

pub(super) fn get(node: &Node, name: &str) -> Result<Bytes> {
    let name = c_name(name)?;
    filled(|room| {
        // SAFETY: both names end with a zero, and the kernel writes no more than there is room for.
        unsafe { libc::getxattr(node.link().as_ptr(), name.as_ptr(), room.as_mut_ptr().cast(), room.len()) }
    })
    .map(Bytes::from)
}

pub(super) fn list(node: &Node) -> Result<Vec<String>> {
    let names = filled(|room| {
        // SAFETY: the name ends with a zero, and the kernel writes no more than there is room for.
        unsafe { libc::listxattr(node.link().as_ptr(), room.as_mut_ptr().cast(), room.len()) }
    })?;
    let names = names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    // A name that is not UTF-8 cannot be asked for either.
    Ok(names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
}

pub(super) fn set(node: &Node, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
    let name = c_name(name)?;
    let flags = match mode {
        XattrMode::Set => 0,
        XattrMode::Create => libc::XATTR_CREATE,
        XattrMode::Replace => libc::XATTR_REPLACE,
    };
    let (link, data) = (node.link().as_ptr(), value.as_ptr().cast());
    // SAFETY: both names end with a zero, and the value is as long as said.
    let code = unsafe { libc::setxattr(link, name.as_ptr(), data, value.len(), flags) };
    Errno::result(code).map_err(translate).map(drop)
}

pub(super) fn remove(node: &Node, name: &str) -> Result<()> {
    let name = c_name(name)?;
    // SAFETY: both names end with a zero.
    let code = unsafe { libc::removexattr(node.link().as_ptr(), name.as_ptr()) };
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
