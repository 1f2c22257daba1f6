//! Operations on open directories.
//!
//! Offsets are stable while a directory is open: 0 and 1 are `.` and `..`, then the entries in the order in
//! which the backend listed them. Reading at 0 again (rewinddir) lists anew.

use std::sync::Arc;

use parking_lot::Mutex;

use super::DirItem;
use super::Entry;
use super::Fh;
use super::Ino;
use super::PlusItem;
use super::Vfs;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FsError;
use crate::fs::Listing;
use crate::fs::Result;

/// `.` and `..`.
const DOTS: u64 = 2;

/// An open directory.
pub(super) struct OpenDir {
    ino: Ino,
    /// Held while the backend is asked for more: the kernel reads one open directory by one thread at a time.
    read: Mutex<ReadDir>,
}

#[derive(Default)]
struct ReadDir {
    /// What the backend has listed so far.
    entries: Vec<DirEntry>,
    state: Source,
}

/// Where further entries come from.
#[derive(Default)]
enum Source {
    #[default]
    NotAsked,
    Open(Box<dyn Listing>),
    AtEnd,
}

impl Vfs {
    /// Opens the directory `ino`.
    pub fn opendir(&self, ctx: &Ctx, ino: Ino) -> Result<Fh> {
        self.check_opens()?;
        // The listing starts here, so that a directory that cannot be read fails to open, as POSIX has it.
        let listing = self.fs.list(ctx, &self.path(ino)?)?;
        let read = ReadDir { entries: Vec::new(), state: Source::Open(listing) };
        Ok(self.dirs.insert(Arc::new(OpenDir { ino, read: Mutex::new(read) })))
    }

    /// Gives the entries from `offset` on to `fill`, until it returns false as it has no more room.
    pub fn readdir(
        &self,
        ctx: &Ctx,
        ino: Ino,
        fh: Fh,
        offset: u64,
        fill: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<()> {
        self.each_entry(ctx, ino, fh, offset, &mut |item, _| Ok(fill(item)))
    }

    /// As [`Vfs::readdir`], with a look-up of each entry. An item that `fill` refuses is not counted.
    pub fn readdirplus(
        &self,
        ctx: &Ctx,
        ino: Ino,
        fh: Fh,
        offset: u64,
        fill: &mut dyn FnMut(&PlusItem<'_>) -> bool,
    ) -> Result<()> {
        self.each_entry(ctx, ino, fh, offset, &mut |item, listed| {
            let entry = match listed {
                Some(listed) => self.listed_entry(ino, listed)?,
                None => None,
            };
            let counted = entry.as_ref().map(|entry| entry.ino);
            let taken = fill(&PlusItem { item: *item, entry });
            if let Some(ino) = counted.filter(|_| !taken) {
                self.forget(ino, 1);
            }
            Ok(taken)
        })
    }

    /// None for a name that a look-up would refuse, such as one of more than 255 bytes.
    fn listed_entry(&self, dir: Ino, listed: &DirEntry) -> Result<Option<Entry>> {
        if self.path(dir)?.join(&listed.name).is_err() {
            return Ok(None);
        }
        self.entry(dir, &listed.name, listed.attr.clone()).map(Some)
    }

    fn each_entry(
        &self,
        ctx: &Ctx,
        ino: Ino,
        fh: Fh,
        offset: u64,
        visit: &mut dyn FnMut(&DirItem<'_>, Option<&DirEntry>) -> Result<bool>,
    ) -> Result<()> {
        let dir =
            self.dirs.find(fh).filter(|dir| dir.ino == ino).ok_or_else(|| FsError::new(Fault::BadHandle))?;
        let mut read = dir.read.lock();
        if offset == 0 && !read.entries.is_empty() {
            *read = ReadDir::default();
        }
        for at in offset.. {
            let next = at + 1;
            let dots = |name| DirItem { name, ino: ino.0, kind: FileKind::Directory, next };
            let more = match at {
                0 => visit(&dots("."), None)?,
                1 => visit(&dots(".."), None)?,
                _ => match self.listed(ctx, ino, &mut read, at - DOTS)? {
                    Some(listed) => {
                        let (name, attr) = (listed.name.as_str(), &listed.attr);
                        visit(&DirItem { name, ino: attr.id, kind: attr.kind, next }, Some(listed))?
                    }
                    None => false,
                },
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// The entry number `index`, asking the backend as far as needed; none at the end.
    fn listed<'a>(
        &self,
        ctx: &Ctx,
        ino: Ino,
        read: &'a mut ReadDir,
        index: u64,
    ) -> Result<Option<&'a DirEntry>> {
        let Ok(index) = usize::try_from(index) else { return Ok(None) };
        while read.entries.len() <= index {
            ctx.check()?;
            match &mut read.state {
                Source::NotAsked => read.state = Source::Open(self.fs.list(ctx, &self.path(ino)?)?),
                Source::Open(listing) => match listing.next_batch(ctx)? {
                    batch if batch.is_empty() => read.state = Source::AtEnd,
                    batch => read.entries.extend(batch),
                },
                Source::AtEnd => return Ok(None),
            }
        }
        Ok(read.entries.get(index))
    }

    /// Closes an open directory.
    pub fn releasedir(&self, fh: Fh) {
        self.dirs.remove(fh);
    }
}
