//! The embedded store: a directory of this machine behind the same traits and the same write-once model as
//! Alluxio, for demonstrations, tests and caches.
//!
//! Every path is resolved by the kernel beneath the root's descriptor, without following any symbolic link
//! and without crossing a mount (`openat2(2)`), so nothing outside the root can be reached, whoever changes
//! the tree meanwhile. What is neither a directory nor a regular file is not shown.

mod listing;
mod node;
mod reader;
mod replace;
mod writer;
mod xattrs;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::RenameFlags;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat2;
use nix::fcntl::renameat2;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;
use nix::sys::stat::mkdirat;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::AccessFlags;
use nix::unistd::UnlinkatFlags;
use nix::unistd::faccessat;
use nix::unistd::unlinkat;
use parking_lot::Mutex;

use self::listing::LocalListing;
use self::node::Node;
use self::reader::LocalReader;
use self::writer::LocalWriter;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::RenameMode;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::StatFs;
use crate::fs::Timestamp;
use crate::fs::XattrMode;

/// Whom new files and directories belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewOwner {
    /// The user of this process.
    #[default]
    Process,
    /// Who asked for them.
    Caller,
    /// This user and group.
    Fixed {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// A directory of this machine as a file system.
pub struct LocalFs {
    store: Arc<Store>,
}

/// What the file system shares with its open files.
struct Store {
    root: OwnedFd,
    new_owner: NewOwner,
    /// Inode numbers of the files that are being written: they are not complete.
    unfinished: Mutex<HashSet<u64>>,
}

impl LocalFs {
    /// The store in the directory `root`, which must exist.
    ///
    /// # Errors
    /// When it is not a directory or cannot be opened, or the kernel is older than 5.6, which has no `openat2(2)`.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::open_for(root, NewOwner::Process)
    }

    /// The same, where what is made belongs to `new_owner`, as far as this process may give it away.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(root: &Path, new_owner: NewOwner) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, flags, Mode::empty())?;
        let store = Store { root, new_owner, unfinished: Mutex::default() };
        match store.resolve(".", OFlag::O_PATH, Mode::empty()) {
            Ok(_) => Ok(Self { store: Arc::new(store) }),
            Err(Errno::ENOSYS) => {
                Err(io::Error::other("the kernel has no openat2(2), Linux 5.6 or newer is needed"))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Store {
    /// Opens `relative` beneath the root.
    fn resolve(&self, relative: &str, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        Self::resolve_at(&self.root, relative, flags, mode)
    }

    /// Opens `relative` beneath `dir`.
    fn resolve_at(dir: impl AsFd, relative: &str, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).mode(mode).resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
        openat2(dir, relative, how)
    }

    fn open(&self, path: &FsPath, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
        self.resolve(relative(path), flags, mode).map_err(translate)
    }

    /// The directory that `path` is in, and its name there.
    fn place<'a>(&self, path: &'a FsPath) -> Result<(OwnedFd, &'a str)> {
        let name = path.name().ok_or_else(|| FsError::because(Fault::Busy, "the root stays as it is"))?;
        let parent = path.parent().expect("a path with a name has a parent");
        let dir = self.open(&parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok((dir, name))
    }

    fn stat(&self, path: &FsPath) -> Result<Attr> {
        let file = self.open(path, OFlag::O_PATH, Mode::empty())?;
        self.attr(&fstat(&file).map_err(translate)?)
    }

    fn stat_at(&self, dir: impl AsFd, name: &str) -> Result<Attr> {
        let file = Self::resolve_at(dir, name, OFlag::O_PATH, Mode::empty()).map_err(translate)?;
        self.attr(&fstat(&file).map_err(translate)?)
    }

    /// Gives `made`, which `ctx` has just made in `dir`, to whom it is to belong. Left to this process's user, it can be
    /// used all the same.
    fn adopt(&self, ctx: &Ctx, dir: impl AsFd, made: impl AsFd) -> Result<()> {
        let (uid, gid) = match self.new_owner {
            NewOwner::Process => return Ok(()),
            NewOwner::Caller => (ctx.uid, ctx.gid),
            NewOwner::Fixed { uid, gid } => (uid, gid),
        };
        // What a directory with the set-group-id bit holds is of its group.
        let inherits = fstat(&dir).map_err(translate)?.st_mode & Mode::S_ISGID.bits() != 0;
        if let Err(errno) = node::set_owner(made, Some(uid), (!inherits).then_some(gid)) {
            log::debug!("what was made cannot be given to {uid}: {}", errno.desc());
        }
        Ok(())
    }

    fn attr(&self, stat: &FileStat) -> Result<Attr> {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFREG => FileKind::Regular,
            _ => return Err(Fault::NotFound.into()),
        };
        let time = |secs: i64, nanos: i64| Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Ok(Attr {
            id: stat.st_ino,
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(1),
            uid: stat.st_uid,
            gid: stat.st_gid,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            complete: !self.unfinished.lock().contains(&stat.st_ino),
        })
    }
}

impl FileSystem for LocalFs {
    fn stat(&self, _ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        self.store.stat(path)
    }

    fn list(&self, _ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>> {
        let dir = self.store.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Box::new(LocalListing::new(Arc::clone(&self.store), dir)?))
    }

    fn make_dir(&self, ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr> {
        let (dir, name) = self.store.place(path)?;
        mkdirat(&dir, name, Mode::from_bits_truncate(mode)).map_err(translate)?;
        let made = Node::open_at(&self.store, &dir, name)?;
        self.store.adopt(ctx, &dir, &made)?;
        // The umask of the caller is in `mode` already; that of this process must not count. The set-group-id bit
        // comes from the parent.
        made.set_mode(mode | made.attr().mode & Mode::S_ISGID.bits()).map_err(translate)?;
        made.fresh_attr(&self.store)
    }

    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        let (attr, writer) = LocalWriter::create(&self.store, ctx, path, options)?;
        Ok((attr, Box::new(writer)))
    }

    fn open(&self, _ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let file = self.store.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
        let attr = self.store.attr(&fstat(&file).map_err(translate)?)?;
        match attr.kind {
            FileKind::Directory => Err(Fault::IsDirectory.into()),
            FileKind::Regular if !attr.complete => Err(FsError::because(Fault::Busy, "still being written")),
            FileKind::Regular => Ok(Arc::new(LocalReader::new(file, attr))),
        }
    }

    fn remove_file(&self, _ctx: &Ctx, path: &FsPath) -> Result<()> {
        let (dir, name) = self.store.place(path)?;
        if self.store.stat_at(&dir, name)?.kind == FileKind::Directory {
            return Err(Fault::IsDirectory.into());
        }
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).map_err(translate)
    }

    fn remove_dir(&self, _ctx: &Ctx, path: &FsPath) -> Result<()> {
        let (dir, name) = self.store.place(path)?;
        unlinkat(&dir, name, UnlinkatFlags::RemoveDir).map_err(translate)
    }

    fn replace(&self, _ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        replace::replace(&self.store, new, old)
    }

    fn rename(&self, _ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()> {
        let (from_dir, from_name) = self.store.place(from)?;
        let (to_dir, to_name) = self.store.place(to)?;
        self.store.stat_at(&from_dir, from_name)?;
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => RenameFlags::RENAME_NOREPLACE,
        };
        renameat2(&from_dir, from_name, &to_dir, to_name, flags).map_err(translate)
    }

    fn set_attr(&self, _ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        if path.is_root() {
            return Err(FsError::because(
                Fault::NotPermitted,
                "the root of an embedded store stays as it is",
            ));
        }
        let node = Node::open(&self.store, path)?;
        if change.uid.is_some() || change.gid.is_some() {
            node.set_owner(change.uid, change.gid).map_err(translate)?;
        }
        if let Some(mode) = change.mode {
            node.set_mode(mode).map_err(translate)?;
        }
        if change.has_times() {
            node.set_times(change).map_err(translate)?;
        }
        node.fresh_attr(&self.store)
    }

    fn xattr(&self, _ctx: &Ctx, path: &FsPath, name: &str) -> Result<Bytes> {
        xattrs::get(&Node::open(&self.store, path)?, name)
    }

    fn xattrs(&self, _ctx: &Ctx, path: &FsPath) -> Result<Vec<String>> {
        xattrs::list(&Node::open(&self.store, path)?)
    }

    fn set_xattr(&self, _ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        xattrs::set(&Node::open(&self.store, path)?, name, value, mode)
    }

    fn remove_xattr(&self, _ctx: &Ctx, path: &FsPath, name: &str) -> Result<()> {
        xattrs::remove(&Node::open(&self.store, path)?, name)
    }

    fn stat_fs(&self, _ctx: &Ctx) -> Result<StatFs> {
        let stat = fstatvfs(&self.store.root).map_err(translate)?;
        Ok(StatFs {
            block_size: u32::try_from(stat.fragment_size()).unwrap_or(4096),
            blocks: stat.blocks(),
            blocks_free: stat.blocks_available(),
            name_max: 255,
        })
    }

    fn access(&self, _ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()> {
        let file = self.store.open(path, OFlag::O_PATH, Mode::empty())?;
        self.store.attr(&fstat(&file).map_err(translate)?)?;
        let mode = AccessFlags::from_bits_truncate(i32::try_from(mask & 0o7).expect("three bits"));
        faccessat(&file, "", mode, AtFlags::AT_EMPTY_PATH | AtFlags::AT_EACCESS).map_err(translate)
    }
}

/// `path` as openat(2) wants it: without the slash in front.
fn relative(path: &FsPath) -> &str {
    if path.is_root() { "." } else { &path.as_str()[1..] }
}

/// The kernel's errors in the words of a file system.
fn translate(errno: Errno) -> FsError {
    let fault = match errno {
        // A link on the way, or at its end, leads nowhere: what it points to is not part of the store.
        Errno::ENOENT | Errno::ELOOP | Errno::EXDEV => Fault::NotFound,
        Errno::EEXIST => Fault::Exists,
        Errno::ENOTDIR => Fault::NotDirectory,
        Errno::EISDIR => Fault::IsDirectory,
        Errno::ENOTEMPTY => Fault::NotEmpty,
        Errno::EACCES => Fault::PermissionDenied,
        Errno::EPERM => Fault::NotPermitted,
        Errno::EINVAL => Fault::InvalidArgument,
        Errno::ENAMETOOLONG => Fault::NameTooLong,
        Errno::EOPNOTSUPP => Fault::NotSupported,
        Errno::ENOSPC | Errno::EDQUOT => Fault::NoSpace,
        Errno::ENODATA => Fault::NoData,
        Errno::E2BIG => Fault::ValueTooLarge,
        Errno::EFBIG => Fault::TooLarge,
        Errno::EBUSY => Fault::Busy,
        Errno::EROFS => Fault::ReadOnly,
        Errno::EINTR => Fault::Interrupted,
        _ => return FsError::because(Fault::Io, errno.desc()),
    };
    FsError::new(fault)
}

#[cfg(test)]
mod tests;
