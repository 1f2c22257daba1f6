//! Operations on names: look-up, making, removing, renaming, attributes.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::Entry;
use super::Fh;
use super::Ino;
use super::Vfs;
use super::commands::Command;
use super::stream::WriteStream;
use super::system_call::SystemCall;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::Finding;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::RenameMode;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::StatFs;

/// The right to write, as access(2) has it.
pub(super) const WRITE: u32 = libc::W_OK.cast_unsigned();

/// How often a name is looked at that changes all the time.
const LOOKS_MAX: u32 = 4;

/// Permission bits, as a mode carries them beside the file's type.
pub(super) const PERMISSIONS: u32 = 0o7777;

impl Vfs {
    /// The inode of `name` in `parent`, counted once more.
    pub fn lookup(&self, ctx: &Ctx, parent: Ino, name: &OsStr) -> Result<Entry> {
        let name = text(name)?;
        if let Some(answer) = self.command(parent, name) {
            return answer;
        }
        let path = self.path(parent)?.join(name)?;
        let mut looks = 0;
        loop {
            let changes = self.inodes.changes();
            let finding = Finding::default();
            let attr = self.fs.stat(&ctx.with_finding(&finding), &path)?;
            looks += 1;
            // A version that was replaced by this mount just after it was looked at must not get an inode of its own.
            if looks == LOOKS_MAX || !self.inodes.is_outdated(parent, name, &attr, changes) {
                let entry = self.counted(parent, name, attr)?;
                return Ok(self.with_time(ctx, entry, finding));
            }
        }
    }

    /// `entry` with the time for which its name may be believed: none if `ctx` is about to open it, for whom what was found
    /// out is kept.
    fn with_time(&self, ctx: &Ctx, entry: Entry, finding: Finding) -> Entry {
        let is_readable = entry.attr.kind == FileKind::Regular && entry.attr.complete;
        if is_readable
            && !finding.is_empty()
            && !self.is_believed(entry.ino)
            && let Some(call) = SystemCall::of_thread(ctx.pid).filter(SystemCall::opens_to_read)
        {
            self.openings.keep(ctx, entry.ino, call, finding);
            return Entry { entry_ttl: Duration::ZERO, ..entry };
        }
        self.note_believed(&entry);
        entry
    }

    /// The kernel forgets `count` look-ups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// The attributes of `ino` and how long they hold.
    pub fn getattr(&self, ctx: &Ctx, ino: Ino, fh: Option<Fh>) -> Result<(Attr, Duration)> {
        if let Some(command) = Command::of(ino) {
            return Ok((self.command_attr(command)?, Duration::ZERO));
        }
        let attr = self.attr(ctx, ino, fh)?;
        Ok(self.shown_attr(ino, attr))
    }

    /// What the kernel is told of the attributes of `ino`.
    fn shown_attr(&self, ino: Ino, attr: Attr) -> (Attr, Duration) {
        self.inodes.note_shown(ino, &attr);
        let ttl = self.attr_ttl(ino, &attr);
        (attr, ttl)
    }

    fn attr(&self, ctx: &Ctx, ino: Ino, fh: Option<Fh>) -> Result<Attr> {
        if let Some(stream) = self.stream(ino).filter(|stream| stream.is_open()) {
            return Ok(stream.attr());
        }
        let Some(path) = self.inodes.path(ino) else {
            if self.is_lost(ino) {
                return Err(Fault::Stale.into());
            }
            // Removed, but open: what was known when it was opened still holds.
            return self.removed_attr(ino, fh).ok_or_else(|| FsError::new(Fault::Stale));
        };
        let here = |attr: &Attr| match attr.kind {
            FileKind::Directory => ino == Ino::ROOT || self.inodes.adopt(ino, attr),
            FileKind::Regular => self.inodes.is(ino, attr),
        };
        match self.fs.stat(ctx, &path) {
            Ok(attr) if here(&attr) => Ok(attr),
            // Replaced or removed behind our back: the same holds.
            Ok(_) => self.removed_attr(ino, fh).ok_or_else(|| FsError::new(Fault::Stale)),
            Err(error) if error.fault() == Fault::NotFound => self.removed_attr(ino, fh).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Whether `ino` is a file that failed and went. It is not to be found by its name, which the kernel may still believe:
    /// on [`Fault::Stale`] it looks again.
    fn is_lost(&self, ino: Ino) -> bool {
        self.inodes.path(ino).is_none() && self.stream(ino).is_some_and(|stream| stream.has_failed())
    }

    /// What is known of a file whose name is gone, from who has it open.
    fn removed_attr(&self, ino: Ino, fh: Option<Fh>) -> Option<Attr> {
        Some(Attr { nlink: 0, ..self.open_attr(ino, fh)? })
    }

    /// Changes attributes, and the length if `size` is given.
    pub fn setattr(
        &self,
        ctx: &Ctx,
        ino: Ino,
        fh: Option<Fh>,
        change: &SetAttr,
        size: Option<u64>,
    ) -> Result<(Attr, Duration)> {
        if let Some(size) = size {
            self.truncate(ctx, ino, fh, size)?;
        }
        if *change == SetAttr::default() {
            return self.getattr(ctx, ino, fh);
        }
        let result = match self.stream(ino) {
            Some(stream) => stream.set_attr(ctx, change),
            None => self.fs.set_attr(ctx, &self.path(ino)?, change),
        };
        // A part of it may be done even if it failed.
        self.inodes.touch(ino);
        let attr = result?;
        Ok(self.shown_attr(ino, attr))
    }

    /// Makes an empty regular file; other kinds of node are not supported.
    pub fn mknod(&self, ctx: &Ctx, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry> {
        let kind = mode & libc::S_IFMT;
        if kind != libc::S_IFREG && kind != 0 {
            return Err(FsError::because(
                Fault::NotPermitted,
                "only regular files and directories can be made",
            ));
        }
        let name = text(name)?;
        let path = self.path(parent)?.join(name)?;
        let options = CreateOptions { mode: mode & PERMISSIONS, replace: false, beside: false };
        let (_, mut writer) = self.fs.create(ctx, &path, &options)?;
        let attr = writer.commit(ctx)?;
        self.made(parent, name, attr)
    }

    /// The answer for a file that was just made and completed: the kernel is to ask again for its times, which the
    /// writer knows only nearly.
    pub(super) fn made(&self, parent: Ino, name: &str, attr: Attr) -> Result<Entry> {
        self.displace(parent, name, &attr)?;
        self.inodes.touch_in(parent);
        Ok(Entry { attr_ttl: Duration::ZERO, ..self.entry(parent, name, attr)? })
    }

    /// What is of `attr` was just made as `name`, so another client has taken that name from what had it before: a new version
    /// of that must not take the place of this.
    fn displace(&self, parent: Ino, name: &str, attr: &Attr) -> Result<()> {
        let Some(before) = self.inodes.child(parent, name) else { return Ok(()) };
        // Nobody writes the new one yet. A file system gives the number of a file that is gone to the next one.
        if self.stream(before).is_none() && self.inodes.is(before, attr) {
            return Ok(());
        }
        let path = self.path(parent)?.join(name)?;
        self.inodes.remove(parent, name);
        self.replacing(&path).for_each(|stream| stream.removed());
        Ok(())
    }

    /// Makes a directory.
    pub fn mkdir(&self, ctx: &Ctx, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry> {
        let name = text(name)?;
        let path = self.path(parent)?.join(name)?;
        let attr = self.fs.make_dir(ctx, &path, mode & PERMISSIONS)?;
        self.displace(parent, name, &attr)?;
        self.inodes.touch_in(parent);
        self.entry(parent, name, attr)
    }

    /// Removes a file. Who has it open for writing goes on without effect.
    pub fn unlink(&self, ctx: &Ctx, parent: Ino, name: &OsStr) -> Result<()> {
        let name = text(name)?;
        let path = self.path(parent)?.join(name)?;
        let streams = self.streams_at(parent, name, &path);
        let _kept = streams.iter().map(|stream| stream.keep_from_place(ctx)).collect::<Result<Vec<_>>>()?;
        let result = match self.inodes.child_file(parent, name) {
            Some(_) => self.fs.remove_seen_file(ctx, &path),
            None => self.fs.remove_file(ctx, &path),
        };
        self.inodes.touch_in(parent);
        result?;
        self.inodes.remove(parent, name);
        streams.iter().for_each(|stream| stream.removed());
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, ctx: &Ctx, parent: Ino, name: &OsStr) -> Result<()> {
        let name = text(name)?;
        let result = self.fs.remove_dir(ctx, &self.path(parent)?.join(name)?);
        self.inodes.touch_in(parent);
        result?;
        self.inodes.remove(parent, name);
        Ok(())
    }

    /// What writes the file `name` of `parent`, at `path`: by the inode that has the name, or, to take its place, by one
    /// beside it.
    fn streams_at(&self, parent: Ino, name: &str, path: &FsPath) -> Vec<Arc<WriteStream>> {
        let own = self.inodes.child(parent, name).and_then(|ino| self.stream(ino));
        own.into_iter().chain(self.replacing(path)).collect()
    }

    /// What is to take the place of the file at `path`.
    fn replacing(&self, path: &FsPath) -> impl Iterator<Item = Arc<WriteStream>> {
        self.writers.streams().into_iter().filter(move |stream| stream.replaces() && stream.path() == *path)
    }

    /// Moves `name` of `parent`; `flags` are those of renameat2(2).
    pub fn rename(
        &self,
        ctx: &Ctx,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: u32,
    ) -> Result<()> {
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            _ => {
                return Err(FsError::because(
                    Fault::InvalidArgument,
                    format!("rename with flags {flags:#x}: only RENAME_NOREPLACE is supported"),
                ));
            }
        };
        let (name, new_name) = (text(name)?, text(new_name)?);
        let from = self.path(parent)?.join(name)?;
        let to = self.path(new_parent)?.join(new_name)?;
        if from == to {
            return self.fs.stat(ctx, &from).map(drop);
        }
        for stream in self.writers.streams() {
            stream.settle(ctx, &from)?;
        }
        let over = self.streams_at(new_parent, new_name, &to);
        for stream in &over {
            match stream.settle(ctx, &to) {
                Err(error) if error.fault() == Fault::Interrupted => return Err(error),
                // What becomes of a file that is about to be replaced nobody minds.
                Ok(()) | Err(_) => {}
            }
        }
        let moved = self.writers.streams().into_iter().filter(|stream| stream.is_below(&from));
        let _kept = moved
            .chain(over.iter().cloned())
            .map(|stream| stream.keep_from_place(ctx))
            .collect::<Result<Vec<_>>>()?;
        let result = self.fs.rename(ctx, &from, &to, mode);
        self.inodes.touch_in(parent);
        self.inodes.touch_in(new_parent);
        result?;
        over.iter().for_each(|stream| stream.removed());
        self.inodes.rename(parent, name, new_parent, new_name);
        for stream in self.writers.streams() {
            stream.renamed(&from, &to);
        }
        Ok(())
    }

    /// Capacity and use.
    pub fn statfs(&self, ctx: &Ctx) -> Result<StatFs> {
        self.fs.stat_fs(ctx)
    }

    /// Checks that `ino` may be used in the ways of `mask`, the bits of access(2).
    pub fn access(&self, ctx: &Ctx, ino: Ino, mask: u32) -> Result<()> {
        self.fs.access(ctx, &self.path(ino)?, mask)
    }

    /// truncate(2), or ftruncate(2) of `fh`.
    pub(super) fn truncate(&self, ctx: &Ctx, ino: Ino, fh: Option<Fh>, size: u64) -> Result<()> {
        if fh.is_none() && self.is_lost(ino) {
            return Err(Fault::Stale.into());
        }
        if fh.is_none() {
            self.wait_left(ctx, ino)?;
        }
        if let Some(stream) = self.stream(ino) {
            let at_rest = fh.is_none() && !stream.is_open();
            let result = stream.truncate(ctx, size).and_then(|()| {
                // Who has it open need not be there to complete it, or has closed it meanwhile.
                let is_left = at_rest || (fh.is_none() && !self.writers.has_open(ino, &stream));
                if is_left { stream.commit(ctx) } else { Ok(()) }
            });
            if result.is_ok() {
                self.changed(ino, &stream);
            }
            // Its last handle may have gone meanwhile.
            self.writers.ended(ino, &stream);
            return result;
        }
        let path = self.path(ino)?;
        let finding = Finding::default();
        let asking = ctx.with_finding(&finding);
        let attr = self.fs.fresh_stat(&asking, &path)?;
        if attr.kind == FileKind::Directory {
            return Err(Fault::IsDirectory.into());
        }
        self.fs.access(&asking, &path, WRITE)?;
        let stream = self.resting_stream(path, attr);
        stream.truncate(ctx, size)?;
        stream.commit(ctx)?;
        self.changed(ino, &stream);
        Ok(())
    }
}

/// The name as text. Alluxio's names are UTF-8; others cannot be stored and are refused rather than mangled.
pub(super) fn text(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or_else(|| FsError::new(Fault::BadName))
}
