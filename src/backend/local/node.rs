//! A file or directory of the embedded store, whatever is at its path by now: what is looked at, and what is changed then,
//! is one thing, and never what a link leads to that somebody puts there between.

use std::ffi::CString;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::Mode;
use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::fchmodat;
use nix::sys::stat::fstat;
use nix::sys::stat::utimensat;
use nix::sys::time::TimeSpec;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::fchownat;

use super::Store;
use super::translate;
use crate::fs::Attr;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::Timestamp;

pub(super) struct Node {
    /// Opened without any right to the content, so that the kernel checks for each call what that call needs.
    file: OwnedFd,
    /// Leads to it, for calls that take no such descriptor.
    link: CString,
    attr: Attr,
}

impl Node {
    /// What is at `path`: not found, if it is neither a file nor a directory.
    pub(super) fn open(store: &Store, path: &FsPath) -> Result<Self> {
        Self::new(store, store.open(path, OFlag::O_PATH, Mode::empty())?)
    }

    /// The same of `name` in `dir`.
    pub(super) fn open_at(store: &Store, dir: impl AsFd, name: &str) -> Result<Self> {
        Self::new(store, Store::resolve_at(dir, name, OFlag::O_PATH, Mode::empty()).map_err(translate)?)
    }

    fn new(store: &Store, file: OwnedFd) -> Result<Self> {
        let attr = store.attr(&fstat(&file).map_err(translate)?)?;
        let mut link = String::from("/proc/self/fd/");
        write!(link, "{}", file.as_raw_fd()).expect("writing to a string cannot fail");
        Ok(Self { file, link: CString::new(link).expect("digits"), attr })
    }

    /// The attributes when it was opened.
    pub(super) fn attr(&self) -> &Attr {
        &self.attr
    }

    /// A path that leads to it.
    pub(super) fn link(&self) -> &CString {
        &self.link
    }

    /// The attributes now.
    pub(super) fn fresh_attr(&self, store: &Store) -> Result<Attr> {
        store.attr(&fstat(&self.file).map_err(translate)?)
    }

    pub(super) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> nix::Result<()> {
        set_owner(&self.file, uid, gid)
    }

    pub(super) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        fchmodat(AT_FDCWD, self.link.as_c_str(), mode, FchmodatFlags::FollowSymlink)
    }

    /// Sets the times of `change`. Who does not own it may set those of now, if he may write, but only both.
    pub(super) fn set_times(&self, change: &SetAttr) -> nix::Result<()> {
        let set = |atime, mtime| {
            utimensat(AT_FDCWD, self.link.as_c_str(), &atime, &mtime, UtimensatFlags::FollowSymlink)
        };
        let spec = |time: Option<Timestamp>| match time {
            None => TimeSpec::UTIME_OMIT,
            Some(_) if change.now => TimeSpec::UTIME_NOW,
            Some(time) => TimeSpec::new(time.secs, i64::from(time.nanos)),
        };
        match set(spec(change.atime), spec(change.mtime)) {
            Err(Errno::EPERM) if change.now => set(TimeSpec::UTIME_NOW, TimeSpec::UTIME_NOW),
            outcome => outcome,
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Gives `file` to `uid` and `gid`, as far as they are there.
pub(super) fn set_owner(file: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> nix::Result<()> {
    fchownat(file, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH)
}
