//! The entries of a directory of the embedded store.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::dir::Dir;
use nix::dir::OwningIter;

use super::Store;
use super::translate;
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
    entries: OwningIter,
}

impl LocalListing {
    pub(super) fn new(store: Arc<Store>, dir: OwnedFd) -> Result<Self> {
        let own = dir.try_clone().map_err(|_| Fault::Io)?;
        let entries = Dir::from_fd(own).map_err(translate)?.into_iter();
        Ok(Self { store, dir, entries })
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
            match self.store.stat_at(&self.dir, name) {
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
