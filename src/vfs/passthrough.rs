//! Files that the kernel reads by itself, from a local file with the same bytes. Knows nothing of how the kernel is told
//! so, nor where such a file comes from.
//!
//! To the kernel an inode is, while it is open, either passed through to one local file or not at all: an open that says
//! otherwise fails with EIO. (A `direct_io` file counts as the latter, as mapping it makes it so.) So the first that
//! opens an inode decides for all who come until the last of them has gone. Who cannot have it so is given another
//! inode for the same file, see `Inodes::part`.
//!
//! Lock order: the table of modes is locked alone, and for memory only.
//! Invariant: the kernel has an inode in passthrough only while it is so in the table: an open is entered there before it
//! is answered, and taken out when the kernel has released it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::sys::statfs::TMPFS_MAGIC;
use nix::sys::statfs::fstatfs;
use parking_lot::Mutex;

use super::Ino;
use super::Vfs;
use super::inodes::Version;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FsError;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::metrics;
use crate::metrics::Counter;

/// The kernel's number of a local file that stands for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingId(pub i32);

/// How the kernel is told of local files.
pub trait BackingIds: Send + Sync {
    /// Lets the kernel read `file`, under a number. The kernel then keeps it open by itself.
    fn add(&self, file: BorrowedFd<'_>) -> io::Result<BackingId>;

    /// Takes the number back. Opens that were answered with it go on.
    fn remove(&self, id: BackingId);
}

/// Why nothing of a mount is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPassthrough {
    /// It is not wanted.
    SwitchedOff,
    /// This kernel does not offer it.
    NotOffered,
    /// This process is not allowed to.
    NotPermitted,
}

/// The kernel opens a program that it is about to run: `__FMODE_EXEC` of its `linux/fs.h`.
const FOR_EXECUTION: i32 = 0x20;

/// Which inodes are open, and how.
pub(super) struct Passthrough {
    ids: Box<dyn BackingIds>,
    open: Mutex<HashMap<Ino, Mode>>,
}

/// How an inode is open, by all who have it open.
enum Mode {
    /// Reads come here, or are answered from the kernel's pages. By so many.
    Plain(usize),
    Passed(Passed),
}

struct Passed {
    handles: usize,
    /// The backend's number of the file.
    file: u64,
    /// The version of which the local file is a copy. Else it has at any time the bytes of the file.
    copied: Option<Version>,
    id: BackingId,
    /// `O_DIRECT` means the same for the local file as it would for ours.
    takes_direct: bool,
    /// Keeps the local file as it is.
    _keeper: Box<dyn Send + Sync>,
}

impl Passed {
    /// Whether the local file has the bytes that are wanted.
    fn has(&self, wanted: &Wanted) -> bool {
        self.file == wanted.file && self.copied.is_none_or(|version| version == wanted.version)
    }
}

/// One open in the table, which is taken out when this is dropped.
pub(super) struct Held {
    passthrough: Arc<Passthrough>,
    ino: Ino,
    /// None for a plain one.
    id: Option<BackingId>,
}

impl Held {
    /// What the kernel is to read, if it is to read by itself.
    pub(super) fn id(&self) -> Option<BackingId> {
        self.id
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(passed) = self.passthrough.close(self.ino) {
            self.passthrough.ids.remove(passed.id);
        }
    }
}

/// What of an open matters here.
#[derive(Clone, Copy)]
struct Wanted {
    ino: Ino,
    file: u64,
    version: Version,
    direct: bool,
}

impl Passthrough {
    pub(super) fn new(ids: Box<dyn BackingIds>) -> Self {
        Self { ids, open: Mutex::default() }
    }

    /// Enters an open that is not passed through. None if the inode is.
    pub(super) fn plain(self: &Arc<Self>, ino: Ino) -> Option<Held> {
        match self.open.lock().entry(ino).or_insert(Mode::Plain(0)) {
            Mode::Plain(handles) => *handles += 1,
            Mode::Passed(_) => return None,
        }
        Some(self.held(ino, None))
    }

    /// Enters an open that is passed through, to the file that `reader` has unless the inode is so already. Otherwise
    /// says what to count.
    fn pass(
        self: &Arc<Self>,
        ctx: &Ctx,
        wanted: Wanted,
        reader: &dyn FileReader,
    ) -> Result<std::result::Result<Held, &'static Counter>> {
        if let Some(known) = self.join(wanted) {
            return Ok(known);
        }
        if reader.attr().size == 0 {
            return Ok(Err(&metrics::OPENS_EMPTY));
        }
        let backing = match reader.backing(ctx) {
            Ok(Ok(backing)) => backing,
            Ok(Err(reason)) => return Ok(Err(counter_of(reason))),
            Err(error) if error.fault() == Fault::Interrupted => return Err(error),
            Err(error) => {
                log::debug!("no passthrough: {error}");
                return Ok(Err(&metrics::OPENS_FAILED));
            }
        };
        let takes_direct = fstatfs(&backing.file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
        if wanted.direct && !takes_direct {
            return Ok(Err(&metrics::OPENS_DIRECT));
        }
        let id = match self.ids.add(backing.file.as_fd()) {
            Ok(id) => id,
            Err(error) => return Ok(Err(refused(&error))),
        };
        Ok(self.enter(wanted, id, takes_direct, backing))
    }

    /// What to do with one more open where that is decided by those before it.
    fn join(self: &Arc<Self>, wanted: Wanted) -> Option<std::result::Result<Held, &'static Counter>> {
        match self.open.lock().get_mut(&wanted.ino)? {
            Mode::Passed(passed) if !passed.has(&wanted) => Some(Err(&metrics::OPENS_BUSY)),
            Mode::Passed(passed) if wanted.direct && !passed.takes_direct => {
                Some(Err(&metrics::OPENS_DIRECT))
            }
            Mode::Passed(passed) => {
                passed.handles += 1;
                Some(Ok(self.held(wanted.ino, Some(passed.id))))
            }
            Mode::Plain(_) => Some(Err(&metrics::OPENS_BUSY)),
        }
    }

    /// Enters the first open of an inode, unless another was faster.
    fn enter(
        self: &Arc<Self>,
        wanted: Wanted,
        id: BackingId,
        takes_direct: bool,
        backing: Backing,
    ) -> std::result::Result<Held, &'static Counter> {
        {
            let mut open = self.open.lock();
            if let Entry::Vacant(vacant) = open.entry(wanted.ino) {
                let passed = Passed {
                    handles: 1,
                    file: wanted.file,
                    copied: backing.is_copy.then_some(wanted.version),
                    id,
                    takes_direct,
                    _keeper: backing.keeper,
                };
                vacant.insert(Mode::Passed(passed));
                return Ok(self.held(wanted.ino, Some(id)));
            }
        }
        self.ids.remove(id);
        // The other may have gone again meanwhile. That is too rare to try once more.
        self.join(wanted).unwrap_or(Err(&metrics::OPENS_BUSY))
    }

    fn held(self: &Arc<Self>, ino: Ino, id: Option<BackingId>) -> Held {
        Held { passthrough: Arc::clone(self), ino, id }
    }

    /// One open of `ino` less. Returns what was passed through and is not any more.
    fn close(&self, ino: Ino) -> Option<Passed> {
        let mut open = self.open.lock();
        let Entry::Occupied(mut entry) = open.entry(ino) else { return None };
        let handles = match entry.get_mut() {
            Mode::Plain(handles) => handles,
            Mode::Passed(passed) => &mut passed.handles,
        };
        *handles -= 1;
        if *handles > 0 {
            return None;
        }
        match entry.remove() {
            Mode::Passed(passed) => Some(passed),
            Mode::Plain(_) => None,
        }
    }
}

fn counter_of(reason: NoBacking) -> &'static Counter {
    match reason {
        NoBacking::Pieces => &metrics::OPENS_PIECES,
        NoBacking::Remote => &metrics::OPENS_REMOTE,
        NoBacking::Limit => &metrics::OPENS_LIMIT,
        NoBacking::Failed => &metrics::OPENS_FAILED,
    }
}

/// The kernel does not want a file.
fn refused(error: &io::Error) -> &'static Counter {
    match error.raw_os_error() {
        Some(libc::ELOOP) => &metrics::OPENS_STACKED,
        Some(libc::EPERM) => &metrics::OPENS_NOT_PERMITTED,
        _ => {
            log::debug!("the kernel does not pass a file through: {error}");
            &metrics::OPENS_FAILED
        }
    }
}

impl Vfs {
    /// Passes files through from now on, or says why not. Called by each session before its first request.
    pub fn set_passthrough(&self, ids: std::result::Result<Box<dyn BackingIds>, NoPassthrough>) {
        *self.passthrough.write() = Some(ids.map(|ids| Arc::new(Passthrough::new(ids))));
    }

    fn passthrough(&self) -> Option<std::result::Result<Arc<Passthrough>, NoPassthrough>> {
        self.passthrough.read().clone()
    }

    /// Enters that `reader` is opened for `ino`, and decides how the kernel is to read it. None if nothing is passed
    /// through.
    pub(super) fn hold_reader(
        &self,
        ctx: &Ctx,
        ino: Ino,
        reader: &dyn FileReader,
        flags: i32,
    ) -> Result<Option<Held>> {
        let passthrough = match self.passthrough() {
            None => return Ok(None),
            Some(Err(reason)) => {
                reason.counter().count();
                return Ok(None);
            }
            Some(Ok(passthrough)) => passthrough,
        };
        let direct = flags & libc::O_DIRECT != 0;
        let attr = reader.attr();
        let wanted = Wanted { ino, file: attr.id, version: Version::of(attr), direct };
        let outcome = if self.inodes.awaits_writer(ino) {
            Err(&metrics::OPENS_BUSY)
        } else if flags & FOR_EXECUTION != 0 {
            // Who opens it for writing must meet the same inode, so that the kernel says ETXTBSY.
            Err(&metrics::OPENS_EXECUTED)
        } else {
            passthrough.pass(ctx, wanted, reader)?
        };
        match outcome {
            Ok(held) => {
                metrics::OPENS_PASSED.count();
                Ok(Some(held))
            }
            Err(reason) => {
                let Some(held) = passthrough.plain(ino) else {
                    self.inodes.part(ino, false);
                    return Err(parted());
                };
                reason.count();
                Ok(Some(held))
            }
        }
    }

    /// Enters that `ino` is opened for writing. None if nothing is passed through.
    pub(super) fn hold_writer(&self, ino: Ino) -> Result<Option<Held>> {
        let Some(Ok(passthrough)) = self.passthrough() else { return Ok(None) };
        match passthrough.plain(ino) {
            Some(held) => {
                self.inodes.writer_came(ino);
                Ok(Some(held))
            }
            None => {
                self.inodes.part(ino, true);
                Err(parted())
            }
        }
    }
}

/// At this answer to an open the kernel looks the name up once more, and opens the inode that it is given then.
fn parted() -> FsError {
    FsError::because(
        Fault::Reopen,
        "the inode is passed through to a local file, it is opened by another one",
    )
}

impl NoPassthrough {
    fn counter(self) -> &'static Counter {
        match self {
            Self::SwitchedOff => &metrics::OPENS_SWITCHED_OFF,
            Self::NotOffered => &metrics::OPENS_NOT_OFFERED,
            Self::NotPermitted => &metrics::OPENS_NOT_PERMITTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::fs::Attr;
    use crate::fs::FileSystem;
    use crate::fs::FsPath;
    use crate::fs::Slices;

    struct Ids;

    impl BackingIds for Ids {
        fn add(&self, _file: BorrowedFd<'_>) -> io::Result<BackingId> {
            Ok(BackingId(1))
        }

        fn remove(&self, _id: BackingId) {}
    }

    struct Reader {
        attr: Attr,
        file: Arc<File>,
        is_copy: bool,
    }

    impl FileReader for Reader {
        fn attr(&self) -> &Attr {
            &self.attr
        }

        fn read_at(&self, _ctx: &Ctx, _offset: u64, _len: usize) -> Result<Slices> {
            unreachable!("the kernel reads")
        }

        fn backing(&self, _ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
            let (file, keeper) = (Arc::clone(&self.file), Box::new(()));
            Ok(Ok(Backing { file, keeper, is_copy: self.is_copy }))
        }
    }

    #[test]
    fn an_open_joins_a_copy_of_its_own_version_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "bytes").unwrap();
        let file = Arc::new(File::open(dir.path().join("file")).unwrap());
        let below = crate::backend::local::LocalFs::open(dir.path()).unwrap();
        let ctx = Ctx::daemon();
        let attr = below.stat(&ctx, &FsPath::parse("/file").unwrap()).unwrap();
        let (mut later, mut other) = (attr.clone(), attr.clone());
        later.mtime.secs += 5;
        other.id += 1;
        for is_copy in [true, false] {
            let passthrough = Arc::new(Passthrough::new(Box::new(Ids)));
            let open = |attr: &Attr| {
                let reader = Reader { attr: attr.clone(), file: Arc::clone(&file), is_copy };
                let version = Version::of(attr);
                let wanted = Wanted { ino: Ino(7), file: attr.id, version, direct: false };
                passthrough.pass(&ctx, wanted, &reader).unwrap().ok()
            };
            let first = open(&attr).expect("nobody else has it");
            assert!(open(&attr).is_some());
            assert_eq!(open(&later).is_some(), !is_copy);
            assert!(open(&other).is_none());
            drop(first);
            assert!(open(&later).is_some());
        }
    }
}
