//! Operations on files and on what is open of them.

use std::ffi::OsStr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Entry;
use super::Fh;
use super::Ino;
use super::Opened;
use super::PageCache;
use super::Vfs;
use super::inodes::Reader;
use super::inodes::Version;
use super::names::PERMISSIONS;
use super::names::WRITE;
use super::names::text;
use super::passthrough::Held;
use super::process::Process;
use super::stream::WriteStream;
use super::system_call::SystemCall;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FileReader;
use crate::fs::Finding;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Payload;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics;

/// An open file.
pub(super) enum OpenFile {
    /// Opened with `O_RDONLY`.
    Reading {
        ino: Ino,
        reader: Arc<dyn FileReader>,
        /// Held as long as the kernel has it open, as is the next.
        _held: Option<Held>,
        _entered: Option<Reader>,
    },
    /// Opened with `O_WRONLY` or `O_RDWR`. All such handles of an inode share one stream.
    Writing {
        ino: Ino,
        stream: Arc<WriteStream>,
        /// Whether it may be read, too.
        readable: bool,
        /// The file had bytes and was complete when this came: it does not go on with what others wrote.
        late: bool,
        /// Opened at the first read; of the version with the id that its attributes have.
        reader: Mutex<Option<Arc<dyn FileReader>>>,
        /// Held as long as the kernel has it open.
        _held: Option<Held>,
    },
}

impl OpenFile {
    fn ino(&self) -> Ino {
        match self {
            Self::Reading { ino, .. } | Self::Writing { ino, .. } => *ino,
        }
    }
}

impl Vfs {
    /// Makes the file `name` in `parent` and opens it with the flags of open(2).
    pub fn create(
        &self,
        ctx: &Ctx,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let _opening = self.drain.open()?;
        let name = text(name)?;
        let path = self.path(parent)?.join(name)?;
        let options = CreateOptions { mode: mode & PERMISSIONS, replace: false, beside: false };
        match self.fs.create(ctx, &path, &options) {
            Ok((_, mut writer)) if flags & libc::O_ACCMODE == libc::O_RDONLY => {
                // Nobody can write by this handle, so the file is complete as it is.
                let entry = self.made(parent, name, writer.commit(ctx)?)?;
                self.opened_entry(entry, |ino| self.open_for_reading(ctx, ino, &path, flags))
            }
            Ok((attr, writer)) => {
                let (fs, commits) = (Arc::clone(&self.fs), Arc::clone(&self.commits));
                let stream = WriteStream::started(fs, commits, path, attr.clone(), writer);
                let entry = self.made(parent, name, attr)?;
                self.opened_entry(entry, |ino| {
                    let held = self.hold_writer(ino)?;
                    self.add_writer(ctx, ino, stream, flags & !libc::O_TRUNC, held)
                })
            }
            // Somebody else was faster; without O_EXCL their file is as good.
            Err(error) if error.fault() == Fault::Exists && flags & libc::O_EXCL == 0 => {
                let entry = self.lookup(ctx, parent, OsStr::new(name))?;
                self.opened_entry(entry, |ino| self.open(ctx, ino, flags))
            }
            Err(error) => Err(error),
        }
    }

    /// `entry` with what `open` makes of it; not counted if that fails.
    fn opened_entry(
        &self,
        entry: Entry,
        open: impl FnOnce(Ino) -> Result<Opened>,
    ) -> Result<(Entry, Opened)> {
        match open(entry.ino) {
            Ok(opened) => Ok((entry, opened)),
            Err(error) => {
                self.forget(entry.ino, 1);
                Err(error)
            }
        }
    }

    /// Opens `ino` with the flags of open(2).
    pub fn open(&self, ctx: &Ctx, ino: Ino, flags: i32) -> Result<Opened> {
        let _opening = self.drain.open()?;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            self.wait_readable(ctx, ino)?;
            if flags & libc::O_TRUNC != 0 {
                self.truncate(ctx, ino, None, 0)?;
            }
            return self.open_for_reading(ctx, ino, &self.path(ino)?, flags);
        }
        self.wait_left(ctx, ino)?;
        self.open_for_writing(ctx, ino, self.path(ino)?, flags)
    }

    /// Fails while the file is being written; waits if that has ended but for its completion.
    fn wait_readable(&self, ctx: &Ctx, ino: Ino) -> Result<()> {
        let Some(stream) = self.stream(ino).filter(|stream| stream.is_open()) else { return Ok(()) };
        let is_left = self.writers.left(ino).is_some();
        if !stream.wait_closed(ctx, is_left)? {
            return Err(busy());
        }
        self.writers.ended(ino, &stream);
        self.check_readable(ino)
    }

    /// Waits for a file that nobody has open any more until it is complete, or has failed.
    pub(super) fn wait_left(&self, ctx: &Ctx, ino: Ino) -> Result<()> {
        if let Some(stream) = self.writers.left(ino) {
            stream.wait_closed(ctx, true)?;
            self.writers.ended(ino, &stream);
        }
        Ok(())
    }

    fn check_readable(&self, ino: Ino) -> Result<()> {
        if self.stream(ino).is_some_and(|stream| stream.is_open()) { Err(busy()) } else { Ok(()) }
    }

    fn open_for_reading(&self, ctx: &Ctx, ino: Ino, path: &FsPath, flags: i32) -> Result<Opened> {
        let finding = self.finding_for(ctx, ino);
        let reader = self.fs.open(&ctx.with_finding(&finding), path).inspect_err(|error| {
            if error.fault() == Fault::NotFound {
                // The kernel still believes in it.
                self.kernel.drop_attributes(ino);
            }
        })?;
        let attr = reader.attr();
        // Another client has replaced the file. At this answer the kernel looks its name up once more, and opens the
        // inode of the new one, which shares no pages with this.
        if !self.inodes.is(ino, attr) {
            // Or this mount, which is about to say so.
            self.check_readable(ino)?;
            return Err(Fault::Reopen.into());
        }
        let entered = self.enter_reader(ino, attr)?;
        let held = self.hold_reader(ctx, ino, &*reader, flags)?;
        let version = Version::of(attr);
        let spoiled = self.is_spoiled(ino);
        if spoiled || !self.inodes.was_shown(ino, version) {
            // Reads and fstat(2) of what is opened go by the length that it has, however long the kernel would believe
            // another.
            self.kernel.drop_attributes(ino);
        }
        let unchanged = self.inodes.note_open(ino, version);
        let backing = held.as_ref().and_then(Held::id);
        let fh =
            self.files.insert(Arc::new(OpenFile::Reading { ino, reader, _held: held, _entered: entered }));
        let opened = self.opened(fh, unchanged);
        Ok(Opened { no_flush: true, backing, keep_cache: opened.keep_cache && !spoiled, ..opened })
    }

    /// Whether the kernel may have pages of `ino` from a rewrite that has failed.
    fn is_spoiled(&self, ino: Ino) -> bool {
        // In this order, as the one goes over into the other.
        let failed = self.stream(ino).is_some_and(|stream| stream.has_failed());
        self.inodes.take_spoiled(ino) || failed
    }

    /// Enters who reads the file of `attr` by `ino`. Where others still read an older version by it, that this mount has
    /// written over, whoever comes now is to have another inode: a mapping has pages also with `direct_io`. In the other
    /// modes the older version cannot be read any more.
    fn enter_reader(&self, ino: Ino, attr: &Attr) -> Result<Option<Reader>> {
        if self.options.page_cache != PageCache::DirectIo {
            return Ok(None);
        }
        match self.inodes.enter_reader(ino, attr.id) {
            Some(entered) => Ok(Some(entered)),
            None => Err(self.parted(ino)),
        }
    }

    fn parted(&self, ino: Ino) -> FsError {
        self.inodes.part(ino, false);
        let detail = "an older version is open by this inode, the file is opened by another one";
        FsError::because(Fault::Reopen, detail)
    }

    /// What the look-up in the same system call has found out about `ino`, or nothing.
    fn finding_for(&self, ctx: &Ctx, ino: Ino) -> Finding {
        let found = self
            .openings
            .take(ctx, ino, || if self.is_believed(ino) { None } else { SystemCall::of_thread(ctx.pid) });
        found.unwrap_or_default()
    }

    fn open_for_writing(&self, ctx: &Ctx, ino: Ino, path: FsPath, flags: i32) -> Result<Opened> {
        // First of all, as the rest cannot be undone.
        let held = self.hold_writer(ino)?;
        let stream = match self.stream(ino) {
            // One that failed says so at the first write.
            Some(stream) if stream.is_open() || stream.has_failed() => stream,
            // Still there, as the kernel may say late that the file is closed: that makes no difference.
            Some(stream) => {
                check_writable(&stream.attr(), flags)?;
                stream
            }
            None => {
                // What is written goes by the length that there is, not by one that was remembered.
                let finding = Finding::default();
                let asking = ctx.with_finding(&finding);
                let attr = self.fs.fresh_stat(&asking, &path)?;
                check_writable(&attr, flags)?;
                // A file is replaced with the rights to its directory alone: its own count, too.
                self.fs.access(&asking, &path, WRITE)?;
                self.resting_stream(path, attr)
            }
        };
        self.add_writer(ctx, ino, stream, flags, held)
    }

    pub(super) fn resting_stream(&self, path: FsPath, attr: Attr) -> Arc<WriteStream> {
        WriteStream::resting(Arc::clone(&self.fs), Arc::clone(&self.commits), path, attr)
    }

    /// Adds a handle of the stream that writes `ino`; that of another thread, if it was faster.
    fn add_writer(
        &self,
        ctx: &Ctx,
        ino: Ino,
        stream: Arc<WriteStream>,
        flags: i32,
        held: Option<Held>,
    ) -> Result<Opened> {
        let stream = self.writers.join(ino, stream);
        let begin = || -> Result<OpenFile> {
            if flags & libc::O_TRUNC != 0 {
                stream.empty(ctx)?;
                self.changed(ino, &stream);
            }
            let late = stream.is_finished();
            let readable = flags & libc::O_ACCMODE == libc::O_RDWR;
            // Opened now, it stays readable whatever becomes of the name.
            let reader = if readable && late { Some(self.fs.open(ctx, &stream.path())?) } else { None };
            if let Some(reader) = &reader
                && self.inodes.has_reader_of_another(ino, reader.attr().id)
            {
                return Err(self.parted(ino));
            }
            stream.opened_by(Process::of_thread(ctx.pid));
            Ok(OpenFile::Writing { ino, stream, readable, late, reader: Mutex::new(reader), _held: held })
        };
        let file = begin().inspect_err(|_| self.writers.leave(ino))?;
        Ok(self.opened(self.files.insert(Arc::new(file)), false))
    }

    fn opened(&self, fh: Fh, unchanged: bool) -> Opened {
        let (direct_io, keep_cache) = match self.options.page_cache {
            PageCache::DirectIo => (true, false),
            PageCache::KernelCache => (false, true),
            PageCache::AutoCache => (false, unchanged),
            PageCache::DropOnOpen => (false, false),
        };
        Opened { fh, direct_io, keep_cache, no_flush: false, backing: None }
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub fn read(&self, ctx: &Ctx, fh: Fh, offset: u64, len: usize) -> Result<Slices> {
        metrics::READS.count();
        match &*self.file(fh)? {
            OpenFile::Reading { ino, reader, .. } => {
                self.check_version(*ino, reader.attr())?;
                reader.read_at(ctx, offset, len)
            }
            OpenFile::Writing { readable: false, .. } => Err(Fault::BadHandle.into()),
            // At the end of what was written there is nothing to read yet.
            OpenFile::Writing { stream, .. } if stream.is_open() && offset >= stream.attr().size => {
                Ok(Slices::new())
            }
            OpenFile::Writing { stream, reader, .. } => {
                self.reader_of(ctx, stream, reader)?.read_at(ctx, offset, len)
            }
        }
    }

    /// Refuses to read the version of `attr` once this mount has begun to write another: the kernel's pages belong to the
    /// inode, and a reader of the new version would be given what this one has put there.
    fn check_version(&self, ino: Ino, attr: &Attr) -> Result<()> {
        // Such readers have an inode of their own, see `enter_reader`.
        if self.options.page_cache == PageCache::DirectIo {
            return Ok(());
        }
        let written = self.stream(ino).is_some_and(|stream| stream.is_open());
        if written || !self.inodes.is(ino, attr) {
            let detail = "the file was written anew by this mount since it was opened, open it again";
            return Err(FsError::because(Fault::Stale, detail));
        }
        Ok(())
    }

    /// A reader of the complete file that `stream` stands for.
    fn reader_of(
        &self,
        ctx: &Ctx,
        stream: &WriteStream,
        slot: &Mutex<Option<Arc<dyn FileReader>>>,
    ) -> Result<Arc<dyn FileReader>> {
        if stream.is_open() {
            return Err(busy());
        }
        let id = stream.attr().id;
        if let Some(reader) = slot.lock().as_ref().filter(|reader| reader.attr().id == id) {
            return Ok(Arc::clone(reader));
        }
        if stream.is_gone() {
            // Another file may have its name now.
            return Err(Fault::Stale.into());
        }
        let reader = self.fs.open(ctx, &stream.path())?;
        if reader.attr().id != id {
            return Err(FsError::because(Fault::Stale, "another client has replaced the file"));
        }
        *slot.lock() = Some(Arc::clone(&reader));
        Ok(reader)
    }

    /// Takes `data` at `offset`, all of it or nothing.
    pub fn write(&self, ctx: &Ctx, fh: Fh, offset: u64, data: Payload<'_>) -> Result<usize> {
        let len = data.len();
        match &*self.file(fh)? {
            OpenFile::Reading { .. } => Err(Fault::BadHandle.into()),
            OpenFile::Writing { stream, late: true, .. } if stream.is_finished() => {
                Err(stream.rewrite_error(offset))
            }
            OpenFile::Writing { ino, stream, .. } => {
                self.still_there(*ino, stream, stream.write(ctx, offset, data))?;
                if offset == 0 {
                    // The first bytes of a file that was completed empty make it anew.
                    self.changed(*ino, stream);
                }
                Ok(len)
            }
        }
    }

    /// Passes on `result`. A file that has failed is removed: its name can stand for another one at once.
    fn still_there(&self, ino: Ino, stream: &WriteStream, result: Result<()>) -> Result<()> {
        if result.is_err() && stream.is_lost() {
            self.inodes.touch(ino);
            self.inodes.lose_name(ino);
        }
        result
    }

    /// A descriptor is closed: what was written is completed, and an error is what close(2) returns. Not so by a process
    /// that only inherited the descriptor, as each child of a writing process does, if the one that opened it is
    /// still there.
    pub fn flush(&self, ctx: &Ctx, fh: Fh) -> Result<()> {
        match &*self.file(fh)? {
            OpenFile::Writing { ino, stream, .. } if stream.is_closed_by(Process::of_thread(ctx.pid)) => {
                self.still_there(*ino, stream, stream.commit(ctx))?;
                self.writers.ended(*ino, stream);
                Ok(())
            }
            OpenFile::Reading { .. } | OpenFile::Writing { .. } => Ok(()),
        }
    }

    /// Makes what was written so far durable at the server.
    pub fn fsync(&self, ctx: &Ctx, fh: Fh, _data_only: bool) -> Result<()> {
        match &*self.file(fh)? {
            OpenFile::Reading { .. } => Ok(()),
            OpenFile::Writing { stream, .. } => stream.sync(ctx),
        }
    }

    /// The last descriptor is gone. What no close has completed is completed now, in the background; until then it is as
    /// if it was open.
    pub fn release(&self, fh: Fh) -> Result<()> {
        let file = self.files.remove(fh).ok_or_else(|| FsError::new(Fault::BadHandle))?;
        if let OpenFile::Writing { ino, .. } = &*file {
            self.writers.leave(*ino);
        }
        Ok(())
    }

    /// What is known of `ino` from a handle, preferably `fh`.
    pub(super) fn open_attr(&self, ino: Ino, fh: Option<Fh>) -> Option<Attr> {
        let named = fh.and_then(|fh| self.files.find(fh)).filter(|file| file.ino() == ino);
        let file = named.or_else(|| self.files.find_first(|file| file.ino() == ino))?;
        Some(match &*file {
            OpenFile::Reading { reader, .. } => reader.attr().clone(),
            OpenFile::Writing { stream, .. } => stream.attr(),
        })
    }

    /// Whether `fh` is that of an open file: just the look-up, for benchmarks that count what it costs.
    #[doc(hidden)]
    pub fn is_open(&self, fh: Fh) -> bool {
        self.file(fh).is_ok()
    }

    fn file(&self, fh: Fh) -> Result<Arc<OpenFile>> {
        self.files.find(fh).ok_or_else(|| FsError::new(Fault::BadHandle))
    }
}

fn busy() -> FsError {
    FsError::because(Fault::Busy, "the file is still being written: it can be read when it is closed")
}

fn check_writable(attr: &Attr, flags: i32) -> Result<()> {
    if attr.kind == FileKind::Directory {
        return Err(Fault::IsDirectory.into());
    }
    let truncated = flags & libc::O_TRUNC != 0;
    if !attr.complete && !truncated {
        return Err(FsError::because(Fault::Busy, "another client is still writing the file"));
    }
    if flags & libc::O_APPEND != 0 && attr.size > 0 && !truncated {
        return Err(FsError::because(
            Fault::NotSupported,
            format!("cannot append to a complete file of {} bytes: Alluxio has no append", attr.size),
        ));
    }
    Ok(())
}
