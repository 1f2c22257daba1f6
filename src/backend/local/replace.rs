//! A new version of a file in the place of the old one, with what was set on that.

use nix::errno::Errno;
use nix::fcntl::renameat;

use super::Store;
use super::node::Node;
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
    let made = Node::open_at(store, &new_dir, new_name)?;
    match Node::open_at(store, &old_dir, old_name) {
        Ok(node) if node.attr().kind == FileKind::Directory => return Err(Fault::IsDirectory.into()),
        Ok(node) => keep(&made, &node, old)?,
        Err(error) if error.fault() == Fault::NotFound => {}
        Err(error) => return Err(error),
    }
    renameat(&new_dir, new_name, &old_dir, old_name).map_err(translate)?;
    made.fresh_attr(store)
}

/// Sets on `new` what was set on `old`, which is at `path`, as far as this user may.
fn keep(new: &Node, old: &Node, path: &FsPath) -> Result<()> {
    // First, as the mode can take away the right to do so.
    for name in xattrs::list(old)? {
        xattrs::set(new, &name, &xattrs::get(old, &name)?, XattrMode::Set)?;
    }
    let attr = old.attr();
    // Before the mode, as a new owner takes away the bits to run as another user.
    match new.set_owner(Some(attr.uid), Some(attr.gid)) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            // Whoever is in the group may give the file to it.
            let lost = if new.set_owner(None, Some(attr.gid)).is_ok() { "user" } else { "user or group" };
            log::warn!("{path} was written again and belongs to another {lost} now");
        }
        Err(errno) => return Err(translate(errno)),
    }
    new.set_mode(attr.mode).map_err(translate)
}
