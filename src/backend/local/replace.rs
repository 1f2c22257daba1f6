//! A new version of a file in the place of the old one, with what was set on that.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::renameat;
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmodat;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::fchownat;

use super::Store;
use super::translate;
use super::xattrs;
use crate::fs::Attr;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::XattrMode;

/// Puts the file `new` in the place of `old`.
pub(super) fn replace(store: &Store, new: &FsPath, old: &FsPath) -> Result<Attr> {
    let (new_dir, new_name) = store.place(new)?;
    let (old_dir, old_name) = store.place(old)?;
    match store.stat_at(&old_dir, old_name) {
        Ok(attr) if attr.kind == FileKind::Directory => return Err(Fault::IsDirectory.into()),
        Ok(attr) => {
            // Owner first, as that takes away the bits to run as another user.
            let (uid, gid) = (Some(Uid::from_raw(attr.uid)), Some(Gid::from_raw(attr.gid)));
            match fchownat(&new_dir, new_name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EPERM) => log::warn!("{old} was written again and belongs to another user now"),
                Err(errno) => return Err(translate(errno)),
            }
            let mode = Mode::from_bits_truncate(attr.mode);
            fchmodat(&new_dir, new_name, mode, FchmodatFlags::FollowSymlink).map_err(translate)?;
            for name in xattrs::list(store, old)? {
                let value = xattrs::get(store, old, &name)?;
                xattrs::set(store, new, &name, &value, XattrMode::Set)?;
            }
        }
        Err(error) if error.fault() == Fault::NotFound => {}
        Err(error) => return Err(error),
    }
    renameat(&new_dir, new_name, &old_dir, old_name).map_err(translate)?;
    store.stat_at(&old_dir, old_name)
}
