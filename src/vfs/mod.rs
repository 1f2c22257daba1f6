//! From the kernel's inodes and handles to a backend's paths and files: every operation of a mounted file
//! system, as a plain synchronous call. Knows nothing of libfuse, and of the backend only its trait.
//!
//! Lock order: a directory's listing, the map of writers, a write stream, the tables of handles and inodes.
//! No lock but a directory's own is held across a call to the backend.

mod commands;
mod commits;
mod dirs;
mod drain;
mod files;
mod handles;
mod inodes;
mod kernel;
mod names;
mod openings;
mod passthrough;
mod process;
mod stream;
mod system_call;
mod trail;
mod writers;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use self::commands::Command;
use self::commands::is_command;
use self::commits::Commits;
use self::dirs::OpenDir;
use self::drain::Drain;
use self::files::OpenFile;
use self::handles::Handles;
use self::inodes::Inodes;
use self::kernel::Kernel;
use self::openings::Openings;
use self::passthrough::Passthrough;
use self::stream::WriteStream;
use self::writers::Writers;
use crate::fs::Attr;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FileSystem;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Memory;
use crate::fs::Result;

pub use self::handles::Fh;
pub use self::inodes::Ino;
pub use self::kernel::KernelCache;
pub use self::passthrough::BackingId;
pub use self::passthrough::BackingIds;
pub use self::passthrough::NoPassthrough;

/// What the kernel may do with a file's pages between opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCache {
    /// `direct_io`: no pages, every read comes here.
    #[default]
    DirectIo,
    /// `kernel_cache`: pages are kept whatever happens to the file elsewhere.
    KernelCache,
    /// `auto_cache`: pages are kept while size and modification time stay the same.
    AutoCache,
    /// None of the words: pages are dropped at each open.
    DropOnOpen,
}

/// How late the kernel may take an answer, from when on its time counts.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// How long the kernel may believe what it was told, and what it may keep.
#[derive(Clone, Debug)]
pub struct VfsOptions {
    /// Pages of files.
    pub page_cache: PageCache,
    /// Attributes.
    pub attr_timeout: Duration,
    /// Names.
    pub entry_timeout: Duration,
    /// Absent names; zero for not at all.
    pub negative_timeout: Duration,
    /// Whether names that begin with `.alluxiocli` are commands.
    pub commands: bool,
}

impl Default for VfsOptions {
    fn default() -> Self {
        Self {
            page_cache: PageCache::DirectIo,
            attr_timeout: Duration::from_secs(1),
            entry_timeout: Duration::from_secs(1),
            negative_timeout: Duration::ZERO,
            commands: false,
        }
    }
}

/// The answer to a look-up: an inode that the kernel now counts once more.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub ino: Ino,
    /// Tells apart inodes of the same number; always 0, as numbers are not used again.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long they hold.
    pub attr_ttl: Duration,
    /// How long the name stands for this inode.
    pub entry_ttl: Duration,
}

/// The answer to an open.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The handle.
    pub fh: Fh,
    /// The kernel is to keep no pages and pass on each read.
    pub direct_io: bool,
    /// The kernel may keep the pages that it has.
    pub keep_cache: bool,
    /// The kernel need not say when a descriptor is closed.
    pub no_flush: bool,
    /// The kernel reads this file by itself; the rest then does not matter.
    pub backing: Option<BackingId>,
}

/// One entry for readdir.
#[derive(Clone, Copy, Debug)]
pub struct DirItem<'a> {
    /// The name.
    pub name: &'a str,
    /// Shown as `d_ino`.
    pub ino: u64,
    /// Shown as `d_type`.
    pub kind: FileKind,
    /// The offset at which the entry after this one is read.
    pub next: u64,
}

/// One entry for readdirplus.
#[derive(Clone, Debug)]
pub struct PlusItem<'a> {
    /// What readdir shows.
    pub item: DirItem<'a>,
    /// What a look-up would have answered; none for `.`, `..` and names that cannot be looked up.
    pub entry: Option<Entry>,
}

/// A mounted file system.
pub struct Vfs {
    fs: Arc<dyn FileSystem>,
    options: VfsOptions,
    inodes: Arc<Inodes>,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    openings: Openings,
    writers: Arc<Writers>,
    commits: Arc<Commits>,
    /// Set when the kernel has said what it can.
    passthrough: RwLock<Option<std::result::Result<Arc<Passthrough>, NoPassthrough>>>,
    /// What is remembered below, for the commands.
    memory: Option<Arc<dyn Memory>>,
    /// The same of data.
    data: Option<Arc<dyn Memory>>,
    kernel: Kernel,
    drain: Drain,
}

impl Vfs {
    /// The file system `fs`, from its root.
    pub fn new(fs: Arc<dyn FileSystem>, options: VfsOptions) -> Self {
        let inodes = Arc::new(Inodes::new());
        Self {
            fs,
            options,
            inodes: Arc::clone(&inodes),
            files: Handles::new(),
            dirs: Handles::new(),
            openings: Openings::default(),
            writers: Arc::new(Writers::new(inodes)),
            commits: Arc::default(),
            passthrough: RwLock::new(None),
            memory: None,
            data: None,
            kernel: Kernel::default(),
            drain: Drain::default(),
        }
    }

    /// Commands can look at `memory`, of metadata, and at `data`, and have them forget.
    #[must_use]
    pub fn with_memory(self, memory: Option<Arc<dyn Memory>>, data: Option<Arc<dyn Memory>>) -> Self {
        Self { memory, data, ..self }
    }

    /// What is remembered below, if anything is.
    pub fn memory(&self) -> Option<&dyn Memory> {
        self.memory.as_deref()
    }

    /// The file system is mounted, and this is the way to its kernel.
    pub fn set_kernel(&self, way: Arc<dyn KernelCache>) {
        self.kernel.set(way);
    }

    /// How long an absent name may be believed to be absent; zero for not at all.
    pub fn negative_ttl(&self) -> Duration {
        self.options.negative_timeout
    }

    /// The path of `ino`, for messages.
    pub fn path_text(&self, ino: Ino) -> String {
        // A file that failed has lost its name, and that is what the message is about.
        let path = self.inodes.path(ino).or_else(|| Some(self.stream(ino)?.path()));
        path.map_or_else(|| format!("(removed, inode {})", ino.0), |path| path.to_string())
    }

    /// Whether files and directories are refused from now on to be opened, with [`Fault::Busy`].
    pub fn refuse_opens(&self, refuse: bool) {
        self.drain.refuse(refuse);
    }

    /// The thread `tid` makes a request, but none that the kernel may send at any time, and no OPEN.
    pub fn asked_by(&self, tid: u32) {
        self.openings.forget(tid);
    }

    /// Open files and directories.
    pub fn open_handles(&self) -> usize {
        self.files.len() + self.dirs.len()
    }

    /// Open files and directories, and those that are being opened just now.
    pub fn in_use(&self) -> usize {
        // In this order, as one goes over into the other.
        self.drain.under_way() + self.open_handles()
    }

    /// Open files.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Inodes that the kernel knows, the root included.
    pub fn known_inodes(&self) -> usize {
        self.inodes.len()
    }

    /// The mount ends: files that a close is completing are waited for, at most for `limit`; those that nobody has
    /// closed are given up. Returns how many could not be completed in that time.
    pub fn finish(&self, limit: Duration) -> usize {
        for stream in self.writers.take_open() {
            if stream.give_up() {
                log::warn!("{} was still being written and is given up", stream.path());
            }
        }
        self.commits.wait(limit)
    }

    fn path(&self, ino: Ino) -> Result<FsPath> {
        self.inodes.path(ino).ok_or_else(|| match Command::of(ino) {
            Some(_) => is_command(),
            None => FsError::new(Fault::Stale),
        })
    }

    fn stream(&self, ino: Ino) -> Option<Arc<WriteStream>> {
        self.writers.stream(ino)
    }

    /// This mount has made `ino` what `stream` has.
    fn changed(&self, ino: Ino, stream: &WriteStream) {
        self.inodes.adopt(ino, &stream.attr());
        self.inodes.touch(ino);
    }

    /// The attributes as this mount shows them: a file that it is writing has the size so far.
    fn shown(&self, ino: Ino, attr: Attr) -> Attr {
        match self.stream(ino) {
            Some(stream) if stream.is_open() => stream.attr(),
            _ => attr,
        }
    }

    /// How long `attr` of `ino` holds: not at all while the file is being written, here or elsewhere, or can be changed by
    /// way of another inode.
    fn attr_ttl(&self, ino: Ino, attr: &Attr) -> Duration {
        if attr.complete && !self.inodes.has_twin(ino) { self.options.attr_timeout } else { Duration::ZERO }
    }

    /// `attr` of `name` in `parent`, as the backend shows them, for the inode that this mount writes it by: a new version is
    /// in its place a moment before its inode is told.
    fn as_written_here(&self, parent: Ino, name: &str, attr: Attr) -> Attr {
        let Some(ino) = self.inodes.child(parent, name) else { return attr };
        match self.stream(ino) {
            Some(stream) if stream.replaces() => stream.attr(),
            Some(stream) if stream.attr().id == attr.id => {
                self.inodes.adopt(ino, &attr);
                attr
            }
            Some(_) | None => attr,
        }
    }

    /// Counts a look-up of `name` in `parent` and makes the answer for it.
    fn entry(&self, parent: Ino, name: &str, attr: Attr) -> Result<Entry> {
        let entry = self.counted(parent, name, attr)?;
        self.note_believed(&entry);
        Ok(entry)
    }

    /// The same, for who sees to it whether the name may be believed.
    fn counted(&self, parent: Ino, name: &str, attr: Attr) -> Result<Entry> {
        let attr = self.as_written_here(parent, name, attr);
        let ino = self.inodes.look_up(parent, name, &attr).ok_or_else(|| FsError::new(Fault::Stale))?;
        let attr = self.shown(ino, attr);
        let attr_ttl = self.attr_ttl(ino, &attr);
        Ok(Entry { ino, generation: 0, attr, attr_ttl, entry_ttl: self.options.entry_timeout })
    }

    fn note_believed(&self, entry: &Entry) {
        if !entry.entry_ttl.is_zero() {
            self.inodes.note_believed(entry.ino);
        }
    }

    /// Whether the kernel may go by the name of `ino` without asking, or an answer that says so is still on its way.
    fn is_believed(&self, ino: Ino) -> bool {
        self.inodes.was_believed(ino, self.options.entry_timeout.saturating_add(ON_ITS_WAY))
    }
}
