//! Taking a mount away: gently, by force, and the check that it is gone. Touches only the mount that it was
//! made for, never another one on the same directory.

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_long;
use std::ffi::c_uint;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::ptr::null;

use log::debug;
use log::warn;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::mount::MntFlags;
use nix::mount::umount2;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

/// Where the kernel's control files of all connections are, one directory for each.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// One mount, which is not mistaken for a later one on the same directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The directory, absolute and without links.
    path: PathBuf,
    /// The minor number of the mount's device, which is also the connection's name in `/sys/fs/fuse/connections`.
    /// A later mount may get it again.
    device: u32,
    /// The mount's number, never used again; none before Linux 6.8.
    id: Option<u64>,
}

impl Place {
    /// The mount that is on top at `path`, if it is one of FUSE.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        let table = fs::read("/proc/self/mountinfo")?;
        Ok(top_mount(&table, path).map(|device| Self { path: path.to_owned(), device, id: mount_id(path) }))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many requests the kernel has not got an answer to, served or not, if it tells this user.
    pub(super) fn waiting(&self) -> Option<u64> {
        fs::read_to_string(format!("{CONNECTIONS}/{}/waiting", self.device)).ok()?.trim().parse().ok()
    }

    /// Has the kernel read up to so many bytes ahead, which may be more than it offers by itself (128 KiB). Only root may.
    pub(super) fn set_read_ahead(&self, bytes: u32) -> io::Result<()> {
        fs::write(format!("/sys/class/bdi/0:{}/read_ahead_kb", self.device), (bytes >> 10).to_string())
    }

    /// Whether this mount is still there, on top.
    pub(super) fn is_mounted(&self) -> bool {
        Self::find(&self.path).ok().flatten().as_ref() == Some(self)
    }

    /// Unmounts if nobody uses it; `EBUSY` if somebody does. Nothing to do if it is gone.
    pub(super) fn unmount(&self) -> io::Result<()> {
        self.with(MntFlags::empty(), &["-u"])
    }

    /// Takes the mount out of the tree at once. Who still uses it goes on doing so.
    pub(super) fn detach(&self) -> io::Result<()> {
        self.with(MntFlags::MNT_DETACH, &["-u", "-z"])
    }

    /// Ends the connection: everyone who waits for an answer gets an error, and so does everyone who asks. Must
    /// only be called while the connection is alive, as its number may be another's after.
    pub(super) fn abort(&self) -> io::Result<()> {
        let file = format!("{}/abort", self.device);
        match fs::write(Path::new(CONNECTIONS).join(&file), "1") {
            // In many containers that file system is not mounted.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let by_own_mount = mounted_nowhere(c"fusectl").and_then(|dir| {
            let file = openat(&dir, file.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            nix::unistd::write(file, b"1")?;
            Ok(())
        });
        if by_own_mount.is_err() && self.is_mounted() {
            // Ends the connection before it tries to unmount, and whether it can do that.
            let _ = umount2(&self.path, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
            return Ok(());
        }
        by_own_mount
    }

    fn with(&self, flags: MntFlags, fusermount: &[&str]) -> io::Result<()> {
        if !self.is_mounted() {
            return Ok(());
        }
        match umount2(&self.path, flags | MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EPERM) if !geteuid().is_root() => by_fusermount(&self.path, fusermount),
            // It went away meanwhile.
            Err(Errno::EINVAL | Errno::ENOENT) if !self.is_mounted() => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

/// Makes sure that nothing stays behind of a session that has ended.
pub(super) fn leave_nothing(place: &Place) {
    if !place.is_mounted() {
        return;
    }
    debug!("{} is still mounted after the end of its session", place.path.display());
    if let Err(err) = place.detach() {
        warn!("Failed to unmount {}: {err}, try `fusermount -uz {0}`", place.path.display());
    }
}

/// Unmounts as an ordinary user may: by the set-uid program of either libfuse.
fn by_fusermount(path: &Path, options: &[&str]) -> io::Result<()> {
    for program in ["fusermount3", "fusermount"] {
        let ran = Command::new(program).args(options).arg("--").arg(path).stdin(Stdio::null()).output();
        match ran {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                // Its only way to tell: "failed to unmount PATH: Device or resource busy".
                let busy = said.contains("busy");
                return Err(if busy { Errno::EBUSY.into() } else { io::Error::other(said) });
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::Error::other("fusermount not found, try `apt-get install fuse3`"))
}

/// The root of a file system of this type that is mounted at no directory and gone when it is closed.
fn mounted_nowhere(kind: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    let owned = |number: c_long| -> io::Result<OwnedFd> {
        let number = c_int::try_from(Errno::result(number)?).expect("a descriptor");
        // SAFETY: the calls below that this is used for return new descriptors, which are nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    // SAFETY: the name is a C string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let none = null::<c_char>();
    // SAFETY: this command takes neither key nor value.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    })?;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// The number of the mount at `path` that is never used again, if the kernel knows it.
fn mount_id(path: &Path) -> Option<u64> {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    // Of what it has at hand: a file system that does not answer must not be asked.
    const FLAGS: c_int = libc::AT_STATX_DONT_SYNC | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string; the structure is filled by the call, and zeros are values of it anyway.
    let stat = unsafe {
        let code = libc::statx(libc::AT_FDCWD, path.as_ptr(), FLAGS, STATX_MNT_ID_UNIQUE, stat.as_mut_ptr());
        Errno::result(code).ok()?;
        stat.assume_init()
    };
    (stat.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(stat.stx_mnt_id)
}

/// The device number of the last mount at `path` in a table such as `/proc/self/mountinfo`, if it is of FUSE.
fn top_mount(table: &[u8], path: &Path) -> Option<u32> {
    let mut top = None;
    for line in table.split(|byte| *byte == b'\n') {
        // 36 35 0:52 /root /mount/point options [optional ..] - type source options
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let (Some(device), Some(mount_point)) = (fields.get(2), fields.get(4)) else { continue };
        if unescaped(mount_point) != path.as_os_str().as_bytes() {
            continue;
        }
        let kind = fields.iter().position(|field| *field == b"-").and_then(|dash| fields.get(dash + 1));
        let is_fuse = kind.is_some_and(|kind| *kind == b"fuse" || kind.starts_with(b"fuse."));
        top = if is_fuse { minor(device) } else { None };
    }
    top
}

fn minor(device: &[u8]) -> Option<u32> {
    std::str::from_utf8(device).ok()?.split_once(':')?.1.parse().ok()
}

/// Space, tab, newline and backslash stand in the table as `\040` and the like.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match octal(tail).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The byte of three octal digits at the start of `digits`.
fn octal(digits: &[u8]) -> Option<u8> {
    let text = OsStr::from_bytes(digits.get(..3)?).to_str()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 0:21 / / rw,relatime - overlay overlay rw\n\
40 22 0:52 / /mnt/a rw,nosuid shared:1 - fuse.alluxio-fuse alluxio-fuse rw,user_id=0\n\
41 22 0:53 / /mnt/with\\040space rw - fuse x rw\n\
42 40 0:54 / /mnt/a rw - tmpfs tmpfs rw\n\
43 22 0:55 / /mnt/b rw - tmpfs tmpfs rw\n\
44 43 0:56 / /mnt/b rw - fuse y rw\n";

    #[test]
    fn only_the_top_mount_counts_and_only_fuse() {
        assert_eq!(top_mount(TABLE, Path::new("/mnt/a")), None, "hidden by tmpfs");
        assert_eq!(top_mount(TABLE, Path::new("/mnt/b")), Some(56));
        assert_eq!(top_mount(TABLE, Path::new("/mnt/with space")), Some(53));
        assert_eq!(top_mount(TABLE, Path::new("/mnt")), None);
        assert_eq!(top_mount(b"", Path::new("/mnt")), None);
    }

    #[test]
    fn a_place_that_is_not_mounted_needs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { path: dir.path().to_owned(), device: 1, id: None };
        assert!(!place.is_mounted());
        place.unmount().unwrap();
        place.detach().unwrap();
    }
}
