//! What a backend is: the traits that the embedded store, Alluxio and the caches implement, and the
//! types that cross them. Knows nothing of inodes, handles or the kernel.
//!
//! The model is Alluxio's: a file is written once, from its first byte to its last, by one writer, and
//! can be read when it is complete.

mod allowance;
mod backing;
mod cancel;
mod error;
mod finding;
mod layer;
mod mapped;
mod memory;
mod path;
mod types;

pub use allowance::Allowance;
pub use backing::Backing;
pub use backing::NoBacking;
pub use cancel::Cancel;
pub use cancel::Ctx;
pub use error::Fault;
pub use error::FsError;
pub use error::Result;
pub use finding::Finding;
pub use layer::Layer;
pub use mapped::copy_mapped;
pub use mapped::cut_off;
pub use mapped::iovec;
pub use memory::Memory;
pub use path::FsPath;
pub use types::Attr;
pub use types::CreateOptions;
pub use types::DirEntry;
pub use types::FileKind;
pub use types::Payload;
pub use types::RenameMode;
pub use types::SetAttr;
pub use types::Slices;
pub use types::StatFs;
pub use types::Timestamp;
pub use types::XattrMode;

use std::sync::Arc;

use bytes::Bytes;

/// A tree of files and directories. Every call may block until it is done, its context is cancelled or
/// the backend's own deadline has passed.
pub trait FileSystem: Send + Sync {
    /// The attributes of `path`. [`Fault::NotFound`] if there is nothing.
    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr>;

    /// The same, as of now, whatever a layer remembers: for who goes on to change what is there.
    fn fresh_stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        self.stat(ctx, path)
    }

    /// The entries of the directory `path`, without `.` and `..`, in the backend's order.
    fn list(&self, ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>>;

    /// Makes an empty directory with the permission bits `mode` (0 to 0o7777, umask applied already).
    fn make_dir(&self, ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr>;

    /// Makes a new file, incomplete until [`FileWriter::commit`]. Fails with [`Fault::Exists`] if there
    /// is one, unless the options say that it is to be replaced.
    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)>;

    /// Opens a complete file for reading. [`Fault::Busy`] if somebody is still writing it.
    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>>;

    /// Removes the file `path`; [`Fault::IsDirectory`] if it is none.
    fn remove_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()>;

    /// The same for who has seen a file there, so that nobody need look again. If a directory has taken its place since, it is
    /// [`Fault::IsDirectory`], or an empty one may be removed.
    fn remove_seen_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.remove_file(ctx, path)
    }

    /// Removes the empty directory `path`; [`Fault::NotDirectory`] or [`Fault::NotEmpty`] if it is not.
    fn remove_dir(&self, ctx: &Ctx, path: &FsPath) -> Result<()>;

    /// Puts the complete file `new` in the place of the file `old`, in one step for every reader, with what was set
    /// on that one: owner, group, mode, extended attributes and whatever else the backend keeps with a file, but
    /// for times. What this user may not set is left out. Where there is no `old`, this is a rename. Returns the
    /// attributes that `old` has then. [`Fault::IsDirectory`] if `old` is one.
    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr>;

    /// Moves `from` to `to` with the meaning of rename(2).
    fn rename(&self, ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()>;

    /// Changes the attributes that are present in `change` and returns all of them. Bits of a mode that the backend
    /// has no place for are left out, the rest is done, and then it fails with [`Fault::NotPermitted`].
    fn set_attr(&self, ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr>;

    /// The value of the extended attribute `name` of `path`; [`Fault::NoData`] if there is none. Names of extended
    /// attributes begin with `user.`, here and below.
    fn xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<Bytes>;

    /// The names of the extended attributes of `path`, in any order.
    fn xattrs(&self, ctx: &Ctx, path: &FsPath) -> Result<Vec<String>>;

    /// Sets an extended attribute of `path`. [`Fault::Exists`] or [`Fault::NoData`] if `mode` says so.
    fn set_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()>;

    /// Removes an extended attribute of `path`; [`Fault::NoData`] if there is none.
    fn remove_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<()>;

    /// Capacity and use.
    fn stat_fs(&self, ctx: &Ctx) -> Result<StatFs>;

    /// Checks that the mounting user may use `path` in the ways of `mask`, the `R_OK`, `W_OK`, `X_OK` bits of
    /// access(2) (0 asks only for existence). [`Fault::PermissionDenied`] if not.
    fn access(&self, ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()>;
}

/// A directory's entries as they come from the backend, batch by batch, so that a large directory is
/// neither waited for nor held as a whole.
pub trait Listing: Send {
    /// The next entries, at least one, or an empty vector at the end. An entry that is there from the first call to
    /// the last is given once, whatever else is added and removed meanwhile.
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>>;

    /// The directory was renamed through this mount while it is being listed.
    fn renamed(&mut self, to: &FsPath);

    /// Whether all parts are as old as the listing. Else each is as new as the call that gives it.
    fn is_snapshot(&self) -> bool {
        false
    }
}

/// A complete file, open for reading. Shared by threads; reads may overlap and come in any order.
pub trait FileReader: Send + Sync {
    /// The attributes when it was opened. `size` is the end for reading.
    fn attr(&self) -> &Attr;

    /// The bytes at `offset`, up to `len` of them: fewer only at the end of the file, none past it.
    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices>;

    /// The one local file that has just the bytes of this one, each at its place, or why there is none. The file is
    /// then read without this reader. An error is no reason not to read on by [`Self::read_at`].
    fn backing(&self, _ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        Ok(Err(NoBacking::Pieces))
    }
}

/// A file that is being written, by one thread at a time, in offset order. Dropped without a commit, it
/// is given up: the backend removes what it can, and never shows the file as complete.
pub trait FileWriter: Send {
    /// Takes `data` as the bytes that follow what was written before: all of it or nothing. After
    /// [`Fault::Interrupted`] the same bytes can be offered again; any other failure is final.
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()>;

    /// The same for bytes that may be kept as they lie.
    fn append_given(&mut self, ctx: &Ctx, data: Bytes) -> Result<()> {
        self.append(ctx, &data)
    }

    /// Makes what was written so far durable at the server, if that can be done; [`Fault::NotSupported`]
    /// if not.
    fn sync(&mut self, ctx: &Ctx) -> Result<()>;

    /// Completes the file: on success every client sees it with all its bytes. Called at most once;
    /// after a failure the writer can only be dropped.
    fn commit(&mut self, ctx: &Ctx) -> Result<Attr>;

    /// The name of the file, for who changes it while another thread has the writer; none if the backend does not go by it.
    fn naming(&self) -> Option<Arc<dyn Naming>>;

    /// Whether the file can be renamed while it is being written.
    fn can_move(&self) -> bool;

    /// The file was renamed through this mount while it is being written.
    fn renamed(&mut self, to: &FsPath);
}

/// The name of a file that is being written.
pub trait Naming: Send + Sync {
    /// For who is about to change the name or to take it away, or what it stands for: waits for what is done by it. Nothing more
    /// is until the result is dropped, and then only after a look at what is there.
    fn hold(&self, ctx: &Ctx) -> Result<Box<dyn Send>>;
}
