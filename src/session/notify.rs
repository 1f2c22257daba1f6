//! What is told to the kernel without being asked.
//!
//! Only what the kernel does without a lock of a directory, which the caller of the request may hold that is being
//! served: attributes of an inode, and all names at once.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use nix::errno::Errno;

use super::abi::InvalInodeOut;
use super::abi::OutHeader;
use super::abi::Plain;
use super::current;
use crate::vfs::Ino;
use crate::vfs::KernelCache;

/// `FUSE_NOTIFY_INVAL_INODE`.
const INVAL_INODE: i32 = 2;

/// `FUSE_NOTIFY_INC_EPOCH`, from Linux 6.16 on.
const INC_EPOCH: i32 = 8;

/// The way to the kernel of a session, as long as there is one.
pub(super) struct Notifier(pub(super) Weak<OwnedFd>);

impl KernelCache for Notifier {
    fn drop_attributes(&self, ino: Ino) {
        if let Some(device) = self.0.upgrade() {
            tell_attributes_changed(device.as_fd(), ino.0);
        }
    }

    fn drop_names(&self) -> bool {
        let Some(device) = self.0.upgrade() else { return true };
        match notify(device.as_fd(), INC_EPOCH, &[]) {
            Ok(()) => true,
            Err(err) => {
                log::debug!("Names stay in the kernel: {err}");
                false
            }
        }
    }
}

/// The attributes of `ino` are not what the kernel may believe. It keeps them when a change of them fails, while
/// a part of the change may be done. For a thread that serves a request.
pub(super) fn attributes_changed(ino: u64) {
    let Some(fd) = current::reply_fd() else { return };
    // SAFETY: the descriptor is open, as the worker holds it while it processes the request.
    tell_attributes_changed(unsafe { BorrowedFd::borrow_raw(fd) }, ino);
}

fn tell_attributes_changed(device: BorrowedFd<'_>, ino: u64) {
    // Of the pages, from a negative offset on, none is meant.
    if let Err(err) = notify(device, INVAL_INODE, InvalInodeOut { ino, off: -1, len: 0 }.as_bytes()) {
        // It does not know the inode, then, or is gone itself.
        log::debug!("Attributes of inode {ino} stay in the kernel: {err}");
    }
}

fn notify(device: BorrowedFd<'_>, code: i32, body: &[u8]) -> Result<(), Errno> {
    let len = u32::try_from(size_of::<OutHeader>() + body.len()).expect("small");
    let head = OutHeader { len, error: code, unique: 0 };
    nix::unistd::write(device, &[head.as_bytes(), body].concat()).map(drop)
}
