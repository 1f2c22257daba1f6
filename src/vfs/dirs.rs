//! Operations on open directories.
//!
//! Entries come from the backend part by part, and go to the kernel with their attributes, unless these may be outdated
//! when it asks: then it looks up the names that it is asked for. What was given is kept in
//! the [`Trail`], without attributes, so that an offset stays good as long as the directory is open: seeking back shows
//! what was there. Reading at 0 again (rewinddir) lists anew.
//!
//! An open directory so takes bounded memory, however large it is: one part of the backend's (1,000 entries of Alluxio
//! take 200 KB) and the end of the trail (64 KB).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::DirItem;
use super::Entry;
use super::Fh;
use super::Ino;
use super::PlusItem;
use super::Vfs;
use super::trail::Trail;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::Result;

/// The offsets of `.` and `..` are 0 and 1; those of the entries are their positions in the trail after that.
const DOTS: u64 = 2;

/// How long attributes of a listing are handed out.
const FRESH: Duration = Duration::from_secs(1);

/// An open directory.
pub(super) struct OpenDir {
    ino: Ino,
    /// Held while the backend is asked for more: the kernel reads one open directory by one thread at a time.
    read: Mutex<ReadDir>,
}

#[derive(Default)]
struct ReadDir {
    /// What was given.
    trail: Trail,
    /// What the backend has listed and was not given yet.
    ahead: VecDeque<DirEntry>,
    /// When the backend was asked for these.
    asked: Option<Instant>,
    source: Source,
    /// [`Inodes::listed`](super::inodes::Inodes::listed) before the backend was asked for these, or for the first of all where
    /// the listing is a snapshot.
    listed: u64,
}

/// Where further entries come from.
#[derive(Default)]
enum Source {
    #[default]
    NotAsked,
    /// The listing, and the path that it knows.
    Open(Box<dyn Listing>, FsPath),
    AtEnd,
}

impl ReadDir {
    /// Whether something was given, or that there is nothing.
    fn was_read(&self) -> bool {
        self.trail.end() > 0 || matches!(self.source, Source::AtEnd)
    }

    /// The first entry ahead counts as given.
    fn pass(&mut self) {
        if let Some(entry) = self.ahead.pop_front() {
            self.trail.push(&entry.name, entry.attr.id, entry.attr.kind);
        }
    }
}

/// Takes an entry, and what the backend has listed of it, if that is still known and not outdated; false if there is no more room.
type Visit<'a> = dyn FnMut(&DirItem<'_>, Option<&DirEntry>) -> Result<bool> + 'a;

impl Vfs {
    /// Opens the directory `ino`.
    pub fn opendir(&self, ctx: &Ctx, ino: Ino) -> Result<Fh> {
        let _opening = self.drain.open()?;
        let path = self.path(ino)?;
        // The listing starts here, so that a directory that cannot be read fails to open, as POSIX has it.
        let (asked, listed) = (Some(Instant::now()), self.inodes.listed(ino));
        let source = Source::Open(self.fs.list(ctx, &path)?, path);
        let read = ReadDir { source, asked, listed, ..ReadDir::default() };
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

    /// None for a name that a look-up would refuse, such as one of more than 255 bytes, and for a file that is not complete
    /// or was not when it was listed.
    fn listed_entry(&self, dir: Ino, listed: &DirEntry) -> Result<Option<Entry>> {
        if !listed.attr.complete || self.path(dir)?.join(&listed.name).is_err() {
            return Ok(None);
        }
        // Its completion may not be counted yet.
        let stream = self.inodes.child(dir, &listed.name).and_then(|ino| self.stream(ino));
        if stream.is_some_and(|stream| !stream.is_open()) {
            return Ok(None);
        }
        self.entry(dir, &listed.name, listed.attr.clone()).map(Some)
    }

    fn each_entry(&self, ctx: &Ctx, ino: Ino, fh: Fh, offset: u64, visit: &mut Visit<'_>) -> Result<()> {
        let dir =
            self.dirs.find(fh).filter(|dir| dir.ino == ino).ok_or_else(|| FsError::new(Fault::BadHandle))?;
        let mut read = dir.read.lock();
        if offset == 0 && read.was_read() {
            *read = ReadDir::default();
        }
        let mut offset = offset;
        while let Some(next) = self.give(ctx, ino, &mut read, offset, visit)? {
            offset = next;
        }
        Ok(())
    }

    /// Gives the entry at `offset` to `visit`. Returns where the next one is; none at the end, or if there was no room.
    fn give(
        &self,
        ctx: &Ctx,
        ino: Ino,
        read: &mut ReadDir,
        offset: u64,
        visit: &mut Visit<'_>,
    ) -> Result<Option<u64>> {
        if offset < DOTS {
            let (name, next) = (if offset == 0 { "." } else { ".." }, offset + 1);
            let item = DirItem { name, ino: ino.0, kind: FileKind::Directory, next };
            return Ok(visit(&item, None)?.then_some(next));
        }
        let position = self.list_until(ctx, ino, read, offset - DOTS)?;
        if let Some(passed) = read.trail.at(position)? {
            let next = DOTS + passed.end;
            let item = DirItem { name: &passed.name, ino: passed.id, kind: passed.kind, next };
            return Ok(visit(&item, None)?.then_some(next));
        }
        let Some(listed) = read.ahead.front() else { return Ok(None) };
        let (name, attr) = (listed.name.as_str(), &listed.attr);
        let next = DOTS + read.trail.end_with(name);
        let is_fresh =
            read.asked.is_some_and(|asked| asked.elapsed() < FRESH) && self.inodes.listed(ino) == read.listed;
        let item = DirItem { name, ino: attr.id, kind: attr.kind, next };
        if !visit(&item, is_fresh.then_some(listed))? {
            return Ok(None);
        }
        read.pass();
        Ok(Some(next))
    }

    /// Asks the backend as far as needed for an entry at `position`. Returns where it really is: an offset from before
    /// a rewind can lie further than anything that was given since, and what is before it is passed over.
    fn list_until(&self, ctx: &Ctx, ino: Ino, read: &mut ReadDir, position: u64) -> Result<u64> {
        while position > read.trail.end() {
            if read.ahead.is_empty() && !self.list_more(ctx, ino, read)? {
                return Ok(read.trail.end());
            }
            read.pass();
            if position < read.trail.end() {
                return Ok(read.trail.end());
            }
        }
        if position == read.trail.end() && read.ahead.is_empty() {
            self.list_more(ctx, ino, read)?;
        }
        Ok(position)
    }

    /// Asks the backend for the next part; false at the end.
    fn list_more(&self, ctx: &Ctx, ino: Ino, read: &mut ReadDir) -> Result<bool> {
        ctx.check()?;
        // A directory that was removed has no more entries.
        let Some(path) = self.inodes.path(ino) else { return Ok(false) };
        if let Source::NotAsked = read.source {
            read.listed = self.inodes.listed(ino);
            read.source = Source::Open(self.fs.list(ctx, &path)?, path.clone());
        }
        let Source::Open(listing, known) = &mut read.source else { return Ok(false) };
        if path != *known {
            listing.renamed(&path);
            *known = path;
        }
        let now = Instant::now();
        let is_first = read.trail.end() == 0;
        if !is_first && !listing.is_snapshot() {
            read.listed = self.inodes.listed(ino);
        }
        read.ahead = listing.next_batch(ctx)?.into();
        // The first part may be there since the directory was opened.
        read.asked = read.asked.filter(|_| is_first).or(Some(now));
        if read.ahead.is_empty() {
            read.source = Source::AtEnd;
        }
        Ok(!read.ahead.is_empty())
    }

    /// Closes an open directory.
    pub fn releasedir(&self, fh: Fh) {
        self.dirs.remove(fh);
    }
}
