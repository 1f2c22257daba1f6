//! Random sequences of operations by several open files, against a model that says in a few lines what SEMANTICS.md
//! says in words: in process over the embedded store, and over a mount of it.
//!
//! What once failed is in `model.proptest-regressions` and is tried first. `ALLUXIO_TEST_MODEL_CASES=20000` tries more.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::fs::FsError;
use alluxio_fuse::fs::SetAttr;
use alluxio_fuse::vfs::Fh;
use alluxio_fuse::vfs::Ino;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest::test_runner::RngSeed;

use common::mount::Spec;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SLOTS: usize = 4;

/// Of the cases that are usually tried.
const SEED: u64 = 294;

/// One system call. `slot` is a place for an open file; `name` a number of [`NAMES`].
#[derive(Clone, Debug)]
enum Op {
    Open {
        slot: usize,
        name: usize,
        flags: i32,
    },
    /// At a distance from the end of what was written.
    Write {
        slot: usize,
        distance: i64,
        len: usize,
    },
    Read {
        slot: usize,
        offset: u64,
        len: usize,
    },
    Ftruncate {
        slot: usize,
        size: u64,
    },
    Close {
        slot: usize,
    },
    /// A close of a duplicate.
    Flush {
        slot: usize,
    },
    Truncate {
        name: usize,
        size: u64,
    },
    Unlink {
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Size {
        name: usize,
    },
    Content {
        name: usize,
    },
}

/// What a call gives: a number, bytes, or an errno.
type Answer = Result<Vec<u8>, Errno>;

fn number(n: u64) -> Answer {
    Ok(n.to_le_bytes().to_vec())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let slot = 0..SLOTS;
    let name = 0..NAMES.len();
    let size = prop_oneof![Just(0), Just(3), Just(4), 0..12_u64];
    let flags = (
        prop_oneof![Just(libc::O_RDONLY), Just(libc::O_WRONLY), Just(libc::O_RDWR)],
        prop_oneof![4 => Just(0), 4 => Just(libc::O_CREAT), 1 => Just(libc::O_CREAT | libc::O_EXCL)],
        prop_oneof![3 => Just(0), 1 => Just(libc::O_TRUNC)],
        prop_oneof![5 => Just(0), 1 => Just(libc::O_APPEND)],
    );
    let flags = flags.prop_map(|(access, make, trunc, append)| access | make | trunc | append);
    let distance = prop_oneof![12 => Just(0), 2 => -3..0_i64];
    let op = prop_oneof![
        6 => (slot.clone(), name.clone(), flags).prop_map(|(slot, name, flags)| Op::Open { slot, name, flags }),
        6 => (slot.clone(), distance, 1..5_usize)
            .prop_map(|(slot, distance, len)| Op::Write { slot, distance, len }),
        3 => (slot.clone(), 0..8_u64, 1..8_usize).prop_map(|(slot, offset, len)| Op::Read { slot, offset, len }),
        1 => (slot.clone(), size.clone()).prop_map(|(slot, size)| Op::Ftruncate { slot, size }),
        4 => slot.clone().prop_map(|slot| Op::Close { slot }),
        1 => slot.prop_map(|slot| Op::Flush { slot }),
        1 => (name.clone(), size).prop_map(|(name, size)| Op::Truncate { name, size }),
        2 => name.clone().prop_map(|name| Op::Unlink { name }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Rename { from, to }),
        2 => name.clone().prop_map(|name| Op::Size { name }),
        2 => name.prop_map(|name| Op::Content { name }),
    ];
    prop::collection::vec(op, 1..30)
}

// --- The model.

/// A file, whether it has a name or not.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// What was written, in order.
    bytes: Vec<u8>,
    /// Length that ftruncate asked for beyond that; zeros in the end.
    length: usize,
    state: State,
    /// The file as it was complete before the bytes that are being written: what stays if that fails.
    kept: Option<Vec<u8>>,
    /// All bytes came through handles that are still open, which so can add more.
    own: bool,
    /// Made by a handle that is still open, and never complete with any bytes: nothing is lost if it fails.
    fresh: bool,
    writers: usize,
    named: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Being written: it has a size, and nobody can read it.
    #[default]
    Writing,
    /// Every reader sees all bytes.
    Complete,
    /// A rewrite was refused: the file is as it was before or gone, and who has it open can do no more with it.
    Failed,
}

impl Inode {
    fn size(&self) -> usize {
        self.bytes.len().max(self.length)
    }

    fn is_writing(&self) -> bool {
        self.named && self.state == State::Writing
    }

    fn complete(&mut self) {
        if self.state == State::Writing {
            let size = self.size();
            self.bytes.resize(size, 0);
            (self.length, self.state, self.kept) = (0, State::Complete, None);
            self.fresh &= self.bytes.is_empty();
        }
    }

    /// Another version is begun: the one that is complete stays until that is, too.
    fn begin(&mut self) {
        if self.state == State::Complete && !self.fresh {
            self.kept = Some(self.bytes.clone());
        }
        self.state = State::Writing;
    }

    fn fail(&mut self) {
        (self.length, self.state) = (0, State::Failed);
        match self.kept.take() {
            Some(kept) => self.bytes = kept,
            None => self.named = false,
        }
    }

    /// To nothing, to the present length, or to more while bytes can follow: nothing else, as files are written once.
    fn truncate(&mut self, size: usize) -> Result<(), Errno> {
        if self.state == State::Failed {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.named || size == self.size() {
            return Ok(());
        }
        if size == 0 {
            self.begin();
            self.bytes.clear();
            (self.length, self.own) = (0, true);
            return Ok(());
        }
        if size >= self.bytes.len() && (self.state == State::Writing || self.bytes.is_empty()) {
            self.begin();
            self.length = size;
            self.own |= self.bytes.is_empty();
            return Ok(());
        }
        Err(Errno::EOPNOTSUPP)
    }

    fn write(&mut self, late: bool, offset: usize, data: &[u8]) -> Result<(), Errno> {
        if self.state == State::Failed {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.named {
            return Ok(());
        }
        let finished = self.state == State::Complete && !self.bytes.is_empty();
        if finished && (late || !self.own) {
            return Err(Errno::EOPNOTSUPP);
        }
        if offset < self.bytes.len() {
            if self.state == State::Writing {
                self.fail();
            }
            return Err(Errno::EOPNOTSUPP);
        }
        self.begin();
        self.own |= self.bytes.is_empty();
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// An open file.
#[derive(Clone, Debug)]
struct Handle {
    inode: usize,
    access: i32,
    append: bool,
    late: bool,
    /// What a reader opened: it keeps that, whatever becomes of the file.
    snapshot: Option<Vec<u8>>,
}

#[derive(Default)]
struct Model {
    inodes: Vec<Inode>,
    names: BTreeMap<usize, usize>,
    slots: BTreeMap<usize, Handle>,
}

impl Model {
    fn apply(&mut self, op: &Op, data: &[u8]) -> Answer {
        match *op {
            Op::Open { slot, name, flags } => self.open(slot, name, flags).map(|()| Vec::new()),
            Op::Write { slot, .. } => {
                let offset = self.offset(op);
                let handle = self.writer(slot)?;
                let result = self.inodes[handle.inode].write(handle.late, offset as usize, data);
                self.drop_failed();
                result.and_then(|()| number(data.len() as u64))
            }
            Op::Read { slot, offset, len } => self.read(slot, offset as usize, len),
            Op::Ftruncate { slot, size } => {
                let handle = self.writer(slot)?;
                self.inodes[handle.inode].truncate(size as usize).map(|()| Vec::new())
            }
            Op::Close { slot } => self.close(slot, true),
            Op::Flush { slot } => self.close(slot, false),
            Op::Truncate { name, size } => {
                let inode = self.inode(name)?;
                let inode = &mut self.inodes[inode];
                let at_rest = inode.state == State::Complete;
                inode.truncate(size as usize)?;
                if at_rest {
                    inode.complete();
                }
                Ok(Vec::new())
            }
            Op::Unlink { name } => {
                let inode = self.names.remove(&name).ok_or(Errno::ENOENT)?;
                self.inodes[inode].named = false;
                Ok(Vec::new())
            }
            Op::Rename { from, to } => {
                let inode = self.inode(from)?;
                if from != to {
                    self.names.remove(&from);
                    if let Some(replaced) = self.names.insert(to, inode) {
                        self.inodes[replaced].named = false;
                    }
                }
                Ok(Vec::new())
            }
            Op::Size { name } => number(self.inodes[self.inode(name)?].size() as u64),
            Op::Content { name } => {
                let inode = &self.inodes[self.inode(name)?];
                if inode.state == State::Writing { Err(Errno::EBUSY) } else { Ok(inode.bytes.clone()) }
            }
        }
    }

    /// Where the write of `op` goes.
    fn offset(&self, op: &Op) -> u64 {
        let Op::Write { slot, distance, .. } = *op else { return 0 };
        let Some(handle) = self.slots.get(&slot) else { return 0 };
        let end = self.inodes[handle.inode].size();
        end.saturating_add_signed(if handle.append { 0 } else { distance as isize }) as u64
    }

    /// Whether it is said what `op` does: not for a slot that is in use, nor what a writer reads of a file that was removed or has
    /// failed.
    fn promises(&self, op: &Op) -> bool {
        match *op {
            Op::Open { slot, .. } => !self.slots.contains_key(&slot),
            Op::Ftruncate { slot, .. } => self.writer(slot).is_ok(),
            Op::Read { slot, .. } => self.slots.get(&slot).is_none_or(|handle| {
                let inode = &self.inodes[handle.inode];
                handle.access != libc::O_RDWR || inode.named && inode.state != State::Failed
            }),
            _ => true,
        }
    }

    fn inode(&self, name: usize) -> Result<usize, Errno> {
        self.names.get(&name).copied().ok_or(Errno::ENOENT)
    }

    fn writer(&self, slot: usize) -> Result<Handle, Errno> {
        let handle = self.slots.get(&slot).ok_or(Errno::EBADF)?;
        if handle.access == libc::O_RDONLY { Err(Errno::EBADF) } else { Ok(handle.clone()) }
    }

    /// What failed and was nothing before has no name any more.
    fn drop_failed(&mut self) {
        let inodes = &self.inodes;
        self.names.retain(|_, inode| inodes[*inode].named);
    }

    fn open(&mut self, slot: usize, name: usize, flags: i32) -> Result<(), Errno> {
        let access = flags & libc::O_ACCMODE;
        let writing = access != libc::O_RDONLY;
        let inode = match self.inode(name) {
            Ok(_) if flags & libc::O_EXCL != 0 => return Err(Errno::EEXIST),
            Ok(inode) => inode,
            Err(_) if flags & libc::O_CREAT == 0 => return Err(Errno::ENOENT),
            Err(_) => {
                self.inodes.push(Inode { own: true, fresh: writing, named: true, ..Inode::default() });
                self.names.insert(name, self.inodes.len() - 1);
                if !writing {
                    self.inodes[self.names[&name]].complete();
                }
                self.names[&name]
            }
        };
        let file = &mut self.inodes[inode];
        if !writing && file.is_writing() {
            return Err(Errno::EBUSY);
        }
        if flags & libc::O_TRUNC != 0 {
            let at_rest = file.state == State::Complete;
            file.truncate(0)?;
            if at_rest && !writing {
                file.complete();
            }
        }
        let late = file.state == State::Complete && !file.bytes.is_empty();
        if writing && late && flags & libc::O_APPEND != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let snapshot = (file.state == State::Complete && (late || !writing)).then(|| file.bytes.clone());
        file.writers += usize::from(writing);
        let append = flags & libc::O_APPEND != 0;
        self.slots.insert(slot, Handle { inode, access, append, late, snapshot });
        Ok(())
    }

    fn read(&self, slot: usize, offset: usize, len: usize) -> Answer {
        let handle = self.slots.get(&slot).ok_or(Errno::EBADF)?;
        let inode = &self.inodes[handle.inode];
        let part = |bytes: &[u8]| {
            let from = offset.min(bytes.len());
            bytes[from..(offset + len).min(bytes.len()).max(from)].to_vec()
        };
        match (handle.access, &handle.snapshot) {
            (libc::O_WRONLY, _) => Err(Errno::EBADF),
            (libc::O_RDONLY, Some(snapshot)) => Ok(part(snapshot)),
            _ if inode.is_writing() && offset >= inode.size() => Ok(Vec::new()),
            _ if inode.is_writing() => Err(Errno::EBUSY),
            _ => Ok(part(&inode.bytes)),
        }
    }

    fn close(&mut self, slot: usize, last: bool) -> Answer {
        let handle = self.slots.get(&slot).cloned().ok_or(Errno::EBADF)?;
        if last {
            self.slots.remove(&slot);
        }
        if handle.access == libc::O_RDONLY {
            return Ok(Vec::new());
        }
        let inode = &mut self.inodes[handle.inode];
        let result = if inode.state == State::Failed { Err(Errno::EOPNOTSUPP) } else { Ok(Vec::new()) };
        if inode.named {
            inode.complete();
        }
        inode.writers -= usize::from(last);
        inode.own &= inode.writers > 0;
        inode.fresh &= inode.writers > 0;
        if inode.writers == 0 && inode.state == State::Failed {
            inode.state = State::Complete;
        }
        result
    }
}

// --- What is tested.

trait Door {
    /// `offset` is that of a write.
    fn apply(&mut self, op: &Op, offset: u64, data: &[u8]) -> Answer;
}

struct InProcess {
    vfs: Vfs,
    slots: BTreeMap<usize, (Ino, Fh)>,
    _dir: tempfile::TempDir,
}

impl InProcess {
    fn new() -> InProcess {
        let dir = tempfile::tempdir().unwrap();
        let vfs = Vfs::new(Arc::new(LocalFs::open(dir.path()).unwrap()), VfsOptions::default());
        InProcess { vfs, slots: BTreeMap::new(), _dir: dir }
    }

    fn slot(&self, slot: usize) -> Result<(Ino, Fh), Errno> {
        self.slots.get(&slot).copied().ok_or(Errno::EBADF)
    }

    fn find(&self, name: usize) -> Result<(Ino, u64), FsError> {
        let entry = self.vfs.lookup(&Ctx::daemon(), Ino::ROOT, OsStr::new(NAMES[name]))?;
        Ok((entry.ino, entry.attr.size))
    }

    /// As the kernel does it, which begins anew when it is told so.
    fn open(&self, name: usize, flags: i32) -> Result<(Ino, Fh), FsError> {
        match self.open_once(name, flags) {
            Err(error) if error.fault() == Fault::Reopen => self.open_once(name, flags),
            outcome => outcome,
        }
    }

    /// A look-up, then OPEN or CREATE.
    fn open_once(&self, name: usize, flags: i32) -> Result<(Ino, Fh), FsError> {
        let ctx = Ctx::daemon();
        match self.find(name) {
            Ok(_) if flags & libc::O_EXCL != 0 => Err(Fault::Exists.into()),
            Ok((ino, _)) => Ok((ino, self.vfs.open(&ctx, ino, flags & !(libc::O_CREAT))?.fh)),
            Err(error) if error.fault() == Fault::NotFound && flags & libc::O_CREAT != 0 => {
                let name = OsStr::new(NAMES[name]);
                let (entry, opened) = self.vfs.create(&ctx, Ino::ROOT, name, 0o644, flags)?;
                Ok((entry.ino, opened.fh))
            }
            Err(error) => Err(error),
        }
    }

    fn truncate(&self, ino: Ino, fh: Option<Fh>, size: u64) -> Answer {
        let result = self.vfs.setattr(&Ctx::daemon(), ino, fh, &SetAttr::default(), Some(size));
        result.map(|_| Vec::new()).map_err(|error| errno(&error))
    }
}

fn errno(error: &FsError) -> Errno {
    match error.fault() {
        Fault::NotFound => Errno::ENOENT,
        Fault::Exists => Errno::EEXIST,
        Fault::NotSupported => Errno::EOPNOTSUPP,
        Fault::Busy => Errno::EBUSY,
        Fault::BadHandle => Errno::EBADF,
        other => panic!("{other:?} is not expected here: {error}"),
    }
}

impl Door for InProcess {
    fn apply(&mut self, op: &Op, offset: u64, data: &[u8]) -> Answer {
        let ctx = Ctx::daemon();
        let done = |result: Result<(), FsError>| result.map(|()| Vec::new()).map_err(|error| errno(&error));
        match *op {
            Op::Open { slot, name, flags } => {
                let opened = self.open(name, flags).map_err(|error| errno(&error))?;
                self.slots.insert(slot, opened);
                Ok(Vec::new())
            }
            Op::Write { slot, .. } => {
                let written = self.vfs.write(&ctx, self.slot(slot)?.1, offset, data.into());
                written.map_err(|error| errno(&error)).and_then(|len| number(len as u64))
            }
            Op::Read { slot, offset, len } => {
                let read = self.vfs.read(&ctx, self.slot(slot)?.1, offset, len);
                read.map(|slices| slices.copied().unwrap()).map_err(|error| errno(&error))
            }
            Op::Ftruncate { slot, size } => {
                let (ino, fh) = self.slot(slot)?;
                self.truncate(ino, Some(fh), size)
            }
            Op::Flush { slot } => done(self.vfs.flush(&ctx, self.slot(slot)?.1)),
            Op::Close { slot } => {
                let (_, fh) = self.slot(slot)?;
                self.slots.remove(&slot);
                let result = self.vfs.flush(&ctx, fh);
                self.vfs.release(fh).unwrap();
                done(result)
            }
            Op::Truncate { name, size } => {
                let (ino, _) = self.find(name).map_err(|error| errno(&error))?;
                self.truncate(ino, None, size)
            }
            Op::Unlink { name } => done(self.vfs.unlink(&ctx, Ino::ROOT, OsStr::new(NAMES[name]))),
            Op::Rename { from, to } => {
                let (from, to) = (OsStr::new(NAMES[from]), OsStr::new(NAMES[to]));
                done(self.vfs.rename(&ctx, Ino::ROOT, from, Ino::ROOT, to, 0))
            }
            Op::Size { name } => {
                self.find(name).map_err(|error| errno(&error)).and_then(|(_, size)| number(size))
            }
            Op::Content { name } => {
                let (_, fh) = self.open(name, libc::O_RDONLY).map_err(|error| errno(&error))?;
                let bytes = self.vfs.read(&ctx, fh, 0, 1 << 20);
                self.vfs.release(fh).unwrap();
                bytes.map(|slices| slices.copied().unwrap()).map_err(|error| errno(&error))
            }
        }
    }
}

struct Mounted {
    dir: PathBuf,
    slots: BTreeMap<usize, File>,
}

impl Mounted {
    fn path(&self, name: usize) -> PathBuf {
        self.dir.join(NAMES[name])
    }

    fn slot(&self, slot: usize) -> Result<&File, Errno> {
        self.slots.get(&slot).ok_or(Errno::EBADF)
    }
}

fn done(result: std::io::Result<()>) -> Answer {
    result.map(|()| Vec::new()).map_err(system_errno)
}

fn system_errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl Door for Mounted {
    fn apply(&mut self, op: &Op, offset: u64, data: &[u8]) -> Answer {
        match *op {
            Op::Open { slot, name, flags } => {
                let flags = OFlag::from_bits_retain(flags | libc::O_CLOEXEC);
                let opened = nix::fcntl::open(&self.path(name), flags, Mode::from_bits_retain(0o644))?;
                self.slots.insert(slot, opened.into());
                Ok(Vec::new())
            }
            Op::Write { slot, .. } => {
                let written = self.slot(slot)?.write_at(data, offset);
                written.map_err(system_errno).and_then(|len| number(len as u64))
            }
            Op::Read { slot, offset, len } => {
                let mut bytes = vec![0; len];
                let read = self.slot(slot)?.read_at(&mut bytes, offset).map_err(system_errno)?;
                bytes.truncate(read);
                Ok(bytes)
            }
            Op::Ftruncate { slot, size } => done(self.slot(slot)?.set_len(size)),
            Op::Close { slot } => {
                let file = self.slots.remove(&slot).ok_or(Errno::EBADF)?;
                nix::unistd::close(file).map(|()| Vec::new())
            }
            Op::Flush { slot } => {
                let copy = nix::unistd::dup(self.slot(slot)?)?;
                nix::unistd::close(copy).map(|()| Vec::new())
            }
            Op::Truncate { name, size } => {
                nix::unistd::truncate(&self.path(name), size as i64).map(|()| Vec::new())
            }
            Op::Unlink { name } => done(std::fs::remove_file(self.path(name))),
            Op::Rename { from, to } => done(std::fs::rename(self.path(from), self.path(to))),
            Op::Size { name } => {
                std::fs::metadata(self.path(name)).map_err(system_errno).and_then(|m| number(m.len()))
            }
            Op::Content { name } => std::fs::read(self.path(name)).map_err(system_errno),
        }
    }
}

/// Carries out `ops` on both, closes all, and compares what is there then.
fn compare(ops: &[Op], door: &mut dyn Door) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut said = Vec::new();
    let last = (0..SLOTS).map(|slot| Op::Close { slot });
    let last = last.chain((0..NAMES.len()).map(|name| Op::Content { name }));
    for (number, op) in ops.iter().cloned().chain(last).enumerate() {
        if !model.promises(&op) {
            continue;
        }
        let data: Vec<u8> = match op {
            Op::Write { len, .. } => (0..len).map(|at| b'a' + ((number * 3 + at) % 26) as u8).collect(),
            _ => Vec::new(),
        };
        let offset = model.offset(&op);
        let expected = model.apply(&op, &data);
        let answer = door.apply(&op, offset, &data);
        said.push(format!("{op:?}: {expected:?}"));
        prop_assert_eq!(answer, expected, "after\n{}", said.join("\n"));
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("ALLUXIO_TEST_MODEL_CASES").ok().map(|text| text.parse().unwrap());
    let file = FileFailurePersistence::Direct("tests/model.proptest-regressions");
    ProptestConfig {
        cases: wanted.unwrap_or(cases),
        // The same cases each time, unless somebody looks for new ones.
        rng_seed: if wanted.is_none() { RngSeed::Fixed(SEED) } else { RngSeed::Random },
        failure_persistence: Some(Box::new(file)),
        max_shrink_iters: 5_000,
        ..ProptestConfig::default()
    }
}

#[test]
fn files_behave_as_the_model_says() {
    proptest!(config(2_000), |(ops in ops())| compare(&ops, &mut InProcess::new())?);
}

#[test]
fn files_of_a_mount_behave_as_the_model_says() {
    let store = tempfile::tempdir().unwrap();
    let mount = Spec::local(store.path()).option("direct_io").start();
    let number = std::cell::Cell::new(0);
    proptest!(config(300), |(ops in ops())| {
        number.set(number.get() + 1);
        let dir = mount.path().join(format!("case{}", number.get()));
        std::fs::create_dir(&dir).unwrap();
        compare(&ops, &mut Mounted { dir, slots: BTreeMap::new() })?;
    });
    mount.unmount();
}
