//! The entries of a directory of the embedded store.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use libc::dev_t;
use nix::dir::Dir;
use nix::dir::OwningIter;
use nix::fcntl::AtFlags;

use nix::sys::stat::fstat;
use nix::sys::stat::fstatat;

use super::Store;
use super::translate;
use crate::fs::Attr;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::Result;

/// Entries that are looked at before they are handed on.
const BATCH: usize = 256;

pub(super) struct LocalListing {
    store: Arc<Store>,
    dir: OwnedFd,
    /// That it is on.
    device: dev_t,
    entries: OwningIter,
}

impl LocalListing {
    pub(super) fn new(store: Arc<Store>, dir: OwnedFd) -> Result<Self> {
        let own = dir.try_clone().map_err(|_| Fault::Io)?;
        let entries = Dir::from_fd(own).map_err(translate)?.into_iter();
        let device = fstat(&dir).map_err(translate)?.st_dev;
        Ok(Self { store, dir, device, entries })
    }

    /// The attributes of `name`. The look-up that stops at mounts takes three calls, which is too slow for every entry: so
    /// what is mounted from the same file system is listed, though it cannot be looked up.
    fn attr(&self, name: &str) -> Result<Attr> {
        let stat = fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(translate)?;
        if stat.st_dev == self.device { self.store.attr(&stat) } else { self.store.stat_at(&self.dir, name) }
    }
}

impl Listing for LocalListing {
    fn next_batch(&mut self, _ctx: &Ctx) -> Result<Vec<DirEntry>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(entry) = self.entries.next() else { break };
            let entry = entry.map_err(translate)?;
            // A name that is not UTF-8 cannot be looked up either.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            match self.attr(name) {
                Ok(attr) => batch.push(DirEntry { name: name.to_owned(), attr }),
                // Gone since, or something that is not shown.
                Err(error) if error.fault() == Fault::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
    }
    fn renamed(&mut self, _to: &FsPath) {
        // The descriptor stays the directory's.
    }
}
