//! The values that cross the traits of this module: plain, owned, without behaviour of their own.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use std::ops::Deref;

use bytes::Bytes;
use nix::errno::Errno;
use smallvec::SmallVec;

use super::Fault;
use super::FsError;
use super::Result;
use super::mapped::copy_mapped;
use super::mapped::cut_off;
use super::mapped::iovec;
use crate::metrics::Source;
use crate::metrics::Sources;

/// What an entry is. Alluxio has no links, devices or pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
}

/// A point in time as stat(2) shows it: seconds since 1970 and 0 to 999,999,999 nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before it.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Timestamp {
    /// The time now.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From Alluxio's milliseconds since 1970.
    pub fn from_millis(millis: i64) -> Self {
        let nanos = u32::try_from(millis.rem_euclid(1000)).expect("0 to 999") * 1_000_000;
        Self { secs: millis.div_euclid(1000), nanos }
    }

    /// Whole milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.secs.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
            Err(before) => {
                let before: Duration = before.duration();
                let whole = before.as_secs() as i64;
                match before.subsec_nanos() {
                    0 => Self { secs: -whole, nanos: 0 },
                    nanos => Self { secs: -whole - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

/// The attributes of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The backend's number for this file, never 0. A path that was removed and made again has another one;
    /// a renamed file keeps it.
    pub id: u64,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a file; for a directory what the backend shows (Alluxio: the number of children).
    pub size: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Number of names; 1 where the backend does not count.
    pub nlink: u32,
    /// Owner as shown by this mount.
    pub uid: u32,
    /// Group as shown by this mount.
    pub gid: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the attributes.
    pub ctime: Timestamp,
    /// False while somebody is writing the file; `size` is then not its final one.
    pub complete: bool,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The last component: not empty, without `/`.
    pub name: String,
    /// Its attributes, as far as the listing knows them.
    pub attr: Attr,
}

/// How a new file is made.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    /// Permission bits, umask applied already.
    pub mode: u32,
    /// Put the new file in the place of one that exists, which is gone then with all that was set on it.
    pub replace: bool,
    /// It is to take the place of another, by `FileSystem::replace`: until then it may be removed once its writer is gone.
    pub beside: bool,
}

/// What rename(2) does when the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// A file replaces a file, a directory an empty directory.
    Replace,
    /// `RENAME_NOREPLACE`: the target must not exist.
    NoReplace,
}

/// Attributes to change; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New time of last access.
    pub atime: Option<Timestamp>,
    /// New time of last change.
    pub mtime: Option<Timestamp>,
    /// The times are those of now, which everybody may set who may write; others are for the owner.
    pub now: bool,
}

impl SetAttr {
    /// Whether a time is to be changed.
    pub fn has_times(&self) -> bool {
        self.atime.is_some() || self.mtime.is_some()
    }
}

/// What setxattr(2) does when the attribute is there already, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// It is made or replaced.
    Set,
    /// `XATTR_CREATE`: it must not be there.
    Create,
    /// `XATTR_REPLACE`: it must be there.
    Replace,
}

/// Capacity and use, in blocks of `block_size` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of one block.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}

/// The bytes of one write.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// They go when the call returns.
    Lent(&'a [u8]),
    /// They can be kept as they lie, which spares a copy, and costs as much memory.
    Given(Bytes),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Lent(bytes)
    }
}

/// The bytes of one read, in order, as they lie: parts of mapped blocks or of received frames.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    // A request of 128 KiB for what a worker has sent in frames of 32 KiB has five.
    parts: SmallVec<[Bytes; 8]>,
    len: usize,
    sources: Sources,
    mapped: bool,
    on_disk: bool,
}

impl Slices {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `part` at the end.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    /// Adds `part`, which comes from `source`, at the end.
    pub fn push_from(&mut self, part: Bytes, source: Source) {
        self.sources.add(Sources::only(source, part.len()));
        self.push(part);
    }

    /// Adds `part` of the mapping of a local file at the end. It cannot be read where the file became shorter or its disk fails: the
    /// kernel says so, a thread that reads there is ended by SIGBUS, and the process with it. If the file is `on_disk`, who
    /// reads there may have to wait for that.
    pub fn push_mapped(&mut self, part: Bytes, on_disk: bool) {
        (self.mapped, self.on_disk) = (true, self.on_disk || on_disk);
        self.push_from(part, Source::Local);
    }

    /// Whether some of it may be of a mapping, see [`Self::push_mapped`].
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Whether to read it may take the time of a disk.
    pub fn may_wait(&self) -> bool {
        self.on_disk
    }

    /// The bytes `from..to` of it, as many as there are, from nowhere in particular.
    #[must_use]
    pub fn part(&self, from: usize, to: usize) -> Self {
        let (mut slices, mut start) = (Self { mapped: self.mapped, on_disk: self.on_disk, ..Self::new() }, 0);
        for bytes in self.parts() {
            let end = start + bytes.len();
            if start < to && from < end {
                slices.push(bytes.slice(from.saturating_sub(start)..to.min(end) - start));
            }
            start = end;
        }
        slices
    }

    /// Adds all parts of `other` at the end.
    pub fn append(&mut self, other: Self) {
        self.mapped |= other.mapped;
        self.on_disk |= other.on_disk;
        self.len += other.len;
        self.parts.extend(other.parts);
        self.sources.add(other.sources);
    }

    /// The same bytes, all of them from `source`, whatever was said before.
    #[must_use]
    pub fn from_source(self, source: Source) -> Self {
        Self { sources: Sources::only(source, self.len), ..self }
    }

    /// Where the bytes come from, as far as somebody has said so.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts, none of them empty.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Where the parts are, for a system call, as long as this is.
    pub fn iovecs(&self) -> SmallVec<[libc::iovec; 8]> {
        self.parts.iter().map(|part| iovec(part)).collect()
    }

    /// All bytes in one piece: a copy. [`Fault::Io`] if some of a mapping cannot be read.
    pub fn copied(&self) -> Result<Vec<u8>> {
        if !self.mapped {
            return Ok(self.parts.concat());
        }
        let mut bytes = vec![0; self.len];
        copy_mapped(&self.iovecs(), &mut bytes).map_err(|err| match err {
            Errno::EFAULT => cut_off(),
            err => FsError::because(Fault::Io, format!("a mapped block file cannot be copied: {err}")),
        })?;
        Ok(bytes)
    }
}

impl From<Bytes> for Slices {
    fn from(part: Bytes) -> Self {
        let mut slices = Self::new();
        slices.push(part);
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_bytes_are_mapped_is_known_wherever_they_go() {
        let mut page = Slices::from(Bytes::from_static(b"abc"));
        assert!(!page.is_mapped());
        page.push_mapped(Bytes::from_static(b"defg"), false);
        assert!(!page.may_wait());
        page.push_mapped(Bytes::from_static(b"h"), true);
        let part = page.part(1, 5);
        assert_eq!(part.copied().unwrap(), b"bcde");
        let mut whole = Slices::from(Bytes::from_static(b"x"));
        whole.append(part.from_source(Source::Memory));
        assert!(whole.is_mapped() && whole.may_wait() && whole.sources().bytes(Source::Memory) > 0);
        assert_eq!(page.part(6, 99).copied().unwrap(), b"gh");
        assert!(page.part(9, 99).is_empty());
    }
}
