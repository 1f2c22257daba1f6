//! What is told to the kernel without being asked.

use std::os::fd::BorrowedFd;

use super::abi::InvalInodeOut;
use super::abi::OutHeader;
use super::abi::Plain;
use super::current;

/// `FUSE_NOTIFY_INVAL_INODE`.
const INVAL_INODE: i32 = 2;

/// The attributes of `ino` are not what the kernel may believe. It keeps them when a change of them fails, while
/// a part of the change may be done. For a thread that serves a request.
pub(super) fn attributes_changed(ino: u64) {
    let Some(fd) = current::reply_fd() else { return };
    // Of the pages, from a negative offset on, none is meant.
    let body = InvalInodeOut { ino, off: -1, len: 0 };
    let len = size_of::<OutHeader>() + size_of::<InvalInodeOut>();
    let head = OutHeader { len: u32::try_from(len).expect("small"), error: INVAL_INODE, unique: 0 };
    // SAFETY: the descriptor is open, as the worker holds it while it processes the request.
    let device = unsafe { BorrowedFd::borrow_raw(fd) };
    if let Err(err) = nix::unistd::write(device, &[head.as_bytes(), body.as_bytes()].concat()) {
        // It does not know the inode, then, or is gone itself.
        log::debug!("Attributes of inode {ino} stay in the kernel: {err}");
    }
}
