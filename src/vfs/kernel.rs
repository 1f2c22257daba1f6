//! What the kernel holds of this file system, and how it is told to let go. Who mounts gives the way to the kernel:
//! `session` has it.
//!
//! Nothing here may wait for the kernel: it is called while a request is being served, whose caller may hold the lock of a
//! directory. So no single name is taken back, for which the kernel locks its directory; all names at once are not locked.

use std::sync::Arc;
use std::sync::OnceLock;

use super::Ino;

/// The way to the kernel.
pub trait KernelCache: Send + Sync {
    /// The kernel is to ask for the attributes of `ino` before it believes any. Does not wait.
    fn drop_attributes(&self, ino: Ino);

    /// The kernel is to look up each name anew, those that it knows to be absent as well. Does not wait. False if this
    /// kernel cannot do that.
    fn drop_names(&self) -> bool;
}

/// The way to the kernel, once there is one.
#[derive(Default)]
pub(super) struct Kernel(OnceLock<Arc<dyn KernelCache>>);

impl Kernel {
    pub(super) fn set(&self, way: Arc<dyn KernelCache>) {
        if self.0.set(way).is_err() {
            log::error!("mounted twice: only the kernel of the first mount is told of changes");
        }
    }

    pub(super) fn drop_attributes(&self, ino: Ino) {
        if let Some(way) = self.0.get() {
            way.drop_attributes(ino);
        }
    }

    pub(super) fn drop_names(&self) {
        if let Some(way) = self.0.get()
            && !way.drop_names()
        {
            log::debug!("this kernel, older than 6.16, goes on to believe in absent names for their time");
        }
    }
}
