//! Whether files can be passed through, and the numbers under which the kernel knows them. What is passed through is
//! for the `Vfs` to decide.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Weak;

use log::debug;
use log::info;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;

use super::abi::BackingMap;
use super::init::Agreed;
use super::options::SessionOptions;
use crate::vfs::BackingId;
use crate::vfs::BackingIds;
use crate::vfs::NoPassthrough;
use crate::vfs::Vfs;

/// `CAP_SYS_ADMIN` as a bit of `CapEff`.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Whether to ask the kernel for it, before there is a mount.
pub(super) fn is_wished(options: &SessionOptions) -> Result<(), NoPassthrough> {
    match (options.passthrough, may_administrate()) {
        (false, _) => Err(NoPassthrough::SwitchedOff),
        (true, false) => Err(NoPassthrough::NotPermitted),
        (true, true) => Ok(()),
    }
}

/// Tells `vfs` what came of it, after one try.
pub(super) fn settle(wished: Result<(), NoPassthrough>, agreed: Agreed, device: &Arc<OwnedFd>, vfs: &Vfs) {
    let offered = if agreed.passthrough { Ok(()) } else { Err(NoPassthrough::NotOffered) };
    let outcome = wished.and(offered).and_then(|()| Ids::probed(device));
    match &outcome {
        Ok(_) => info!("Passthrough: in use, the kernel reads by itself what is one local file"),
        Err(NoPassthrough::SwitchedOff) => info!("Passthrough: not in use (switched off)"),
        Err(NoPassthrough::NotOffered) => {
            info!("Passthrough: not in use (this kernel does not offer it, 6.9 and newer can)");
        }
        Err(NoPassthrough::NotPermitted) => info!("Passthrough: not in use (it needs CAP_SYS_ADMIN)"),
    }
    vfs.set_passthrough(outcome.map(|ids| Box::new(ids) as Box<dyn BackingIds>));
}

/// Whether this process has the capability. In a user namespace of its own that is not enough, as the first try tells.
fn may_administrate() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_SYS_ADMIN != 0)
}

nix::ioctl_write_ptr!(
    /// `FUSE_DEV_IOC_BACKING_OPEN`: returns the number of an open file.
    backing_open, 229, 1, BackingMap
);

nix::ioctl_write_ptr!(
    /// `FUSE_DEV_IOC_BACKING_CLOSE`: takes it back.
    backing_close, 229, 2, u32
);

/// Numbers of one session.
struct Ids {
    /// Gone when the session is, and all numbers with it.
    device: Weak<OwnedFd>,
}

impl Ids {
    /// Those of the session of `device`, if the kernel gives any.
    fn probed(device: &Arc<OwnedFd>) -> Result<Self, NoPassthrough> {
        let ids = Self { device: Arc::downgrade(device) };
        let tried = memfd_create("alluxio-fuse-probe", MFdFlags::MFD_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|file| ids.add(file.as_fd()));
        match tried {
            Ok(id) => {
                ids.remove(id);
                Ok(ids)
            }
            Err(err) if err.raw_os_error() == Some(libc::EPERM) => Err(NoPassthrough::NotPermitted),
            Err(err) => {
                info!("The kernel passes no file through: {err}");
                Err(NoPassthrough::NotOffered)
            }
        }
    }
}

impl BackingIds for Ids {
    fn add(&self, file: BorrowedFd<'_>) -> io::Result<BackingId> {
        let device = self.device.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let map = BackingMap { fd: file.as_raw_fd(), ..BackingMap::default() };
        // SAFETY: the kernel reads the structure, with the number of a file that is open.
        let id = unsafe { backing_open(device.as_raw_fd(), &raw const map) }?;
        Ok(BackingId(id))
    }

    fn remove(&self, id: BackingId) {
        let Some(device) = self.device.upgrade() else { return };
        let number = id.0.cast_unsigned();
        // SAFETY: the kernel reads the number.
        if let Err(err) = unsafe { backing_close(device.as_raw_fd(), &raw const number) } {
            // The connection is aborted.
            debug!("Backing file {number} cannot be taken back: {err}");
        }
    }
}
