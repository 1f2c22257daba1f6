//! Each operation of the kernel as a call of the `Vfs`, from plain values. Knows nothing of libfuse.

use std::ffi::OsStr;

use libc::c_int;

use super::answer::Answer;
use super::answer::Op;
use super::answer::answer;
use super::answer::forget;
use super::arguments::Arguments;
use super::arguments::Subject;
use super::current;
use super::dirents::Dirents;
use super::ffi::RawRequest;
use crate::fs::Fault;
use crate::fs::Payload;
use crate::fs::SetAttr;
use crate::fs::Timestamp;
use crate::fs::XattrMode;
use crate::vfs::Fh;
use crate::vfs::Ino;

/// The bits of `fuse_setattr_in.valid` (`FATTR_*`) that libfuse passes on, the same in both versions.
mod valid {
    pub(super) const MODE: c_int = 1 << 0;
    pub(super) const UID: c_int = 1 << 1;
    pub(super) const GID: c_int = 1 << 2;
    pub(super) const SIZE: c_int = 1 << 3;
    pub(super) const ATIME: c_int = 1 << 4;
    pub(super) const MTIME: c_int = 1 << 5;
    pub(super) const ATIME_NOW: c_int = 1 << 7;
    pub(super) const MTIME_NOW: c_int = 1 << 8;

    use libc::c_int;
}

pub(super) fn lookup(raw: RawRequest, parent: u64, name: &OsStr) {
    answer(raw, Op::Lookup, Subject::Name(parent, name), |vfs, ctx| {
        match vfs.lookup(ctx, Ino(parent), name) {
            Err(err) if err.fault() == Fault::NotFound && !vfs.negative_ttl().is_zero() => {
                Ok(Answer::Absent(vfs.negative_ttl()))
            }
            outcome => Ok(Answer::Entry(Box::new(outcome?))),
        }
    });
}

pub(super) fn forget_one(raw: RawRequest, ino: u64, count: u64) {
    forget(raw, [(Ino(ino), count)]);
}

pub(super) fn forget_many(raw: RawRequest, inodes: impl Iterator<Item = (u64, u64)>) {
    forget(raw, inodes.map(|(ino, count)| (Ino(ino), count)));
}

pub(super) fn getattr(raw: RawRequest, ino: u64, fh: Option<u64>) {
    answer(raw, Op::Getattr, Subject::Inode(ino), |vfs, ctx| {
        let (attr, ttl) = vfs.getattr(ctx, Ino(ino), fh.map(Fh))?;
        Ok(Answer::Attr(Box::new(attr), ttl))
    });
}

pub(super) fn setattr(raw: RawRequest, ino: u64, stat: &libc::stat, to_set: c_int, fh: Option<u64>) {
    let (change, size) = changes(stat, to_set);
    // The kernel asks for one of these at a time, with what goes along: a new size has times, and drops bits of the mode.
    let op = match (size, change.mode, change.uid.or(change.gid)) {
        (Some(_), ..) => Op::Truncate,
        (None, Some(_), None) => Op::Chmod,
        (None, _, Some(_)) => Op::Chown,
        (None, None, None) => Op::Utimens,
    };
    let arguments = match op {
        Op::Truncate => Arguments::Size(size.unwrap_or_default()),
        Op::Chmod => Arguments::Mode(change.mode.unwrap_or_default()),
        Op::Chown => Arguments::Owner(change.uid, change.gid),
        _ => Arguments::None,
    };
    answer(raw, op, Subject::Inode(ino).with(arguments), |vfs, ctx| {
        let (attr, ttl) = vfs.setattr(ctx, Ino(ino), fh.map(Fh), &change, size)?;
        Ok(Answer::Attr(Box::new(attr), ttl))
    });
}

/// What a SETATTR changes: attributes, and the size.
fn changes(stat: &libc::stat, to_set: c_int) -> (SetAttr, Option<u64>) {
    let has = |bit: c_int| to_set & bit != 0;
    let time = |given: c_int, now: c_int, secs: i64, nanos: i64| {
        // The kernel sets both bits for "now".
        let given = has(given).then(|| Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) });
        if has(now) { Some(Timestamp::now()) } else { given }
    };
    let change = SetAttr {
        mode: has(valid::MODE).then_some(stat.st_mode & 0o7777),
        uid: has(valid::UID).then_some(stat.st_uid),
        gid: has(valid::GID).then_some(stat.st_gid),
        atime: time(valid::ATIME, valid::ATIME_NOW, stat.st_atime, stat.st_atime_nsec),
        mtime: time(valid::MTIME, valid::MTIME_NOW, stat.st_mtime, stat.st_mtime_nsec),
        now: has(valid::ATIME_NOW) && has(valid::MTIME_NOW),
    };
    (change, has(valid::SIZE).then_some(stat.st_size.cast_unsigned()))
}

pub(super) fn mknod(raw: RawRequest, parent: u64, name: &OsStr, mode: u32) {
    answer(raw, Op::Mknod, Subject::Name(parent, name).with(Arguments::Mode(mode)), |vfs, ctx| {
        Ok(Answer::Entry(Box::new(vfs.mknod(ctx, Ino(parent), name, mode)?)))
    });
}

pub(super) fn mkdir(raw: RawRequest, parent: u64, name: &OsStr, mode: u32) {
    answer(raw, Op::Mkdir, Subject::Name(parent, name).with(Arguments::Mode(mode)), |vfs, ctx| {
        Ok(Answer::Entry(Box::new(vfs.mkdir(ctx, Ino(parent), name, mode)?)))
    });
}

pub(super) fn unlink(raw: RawRequest, parent: u64, name: &OsStr) {
    answer(raw, Op::Unlink, Subject::Name(parent, name), |vfs, ctx| {
        vfs.unlink(ctx, Ino(parent), name)?;
        Ok(Answer::Done)
    });
}

pub(super) fn rmdir(raw: RawRequest, parent: u64, name: &OsStr) {
    answer(raw, Op::Rmdir, Subject::Name(parent, name), |vfs, ctx| {
        vfs.rmdir(ctx, Ino(parent), name)?;
        Ok(Answer::Done)
    });
}

pub(super) fn rename(raw: RawRequest, from: (u64, &OsStr), to: (u64, &OsStr), flags: u32) {
    answer(raw, Op::Rename, Subject::Names(from.0, from.1, to.0, to.1), |vfs, ctx| {
        vfs.rename(ctx, Ino(from.0), from.1, Ino(to.0), to.1, flags)?;
        Ok(Answer::Done)
    });
}

pub(super) fn create(raw: RawRequest, parent: u64, name: &OsStr, mode: u32, flags: c_int) {
    let arguments = Arguments::ModeAndFlags(mode, flags);
    answer(raw, Op::Create, Subject::Name(parent, name).with(arguments), |vfs, ctx| {
        let (entry, opened) = vfs.create(ctx, Ino(parent), name, mode, flags)?;
        Ok(Answer::Created(Box::new(entry), opened))
    });
}

pub(super) fn open(raw: RawRequest, ino: u64, flags: c_int) {
    answer(raw, Op::Open, Subject::Inode(ino).with(Arguments::Flags(flags)), |vfs, ctx| {
        Ok(Answer::Opened(vfs.open(ctx, Ino(ino), flags)?))
    });
}

pub(super) fn read(raw: RawRequest, ino: u64, fh: u64, offset: u64, len: usize) {
    let arguments = Arguments::Bytes { fh, size: len as u64, offset };
    answer(raw, Op::Read, Subject::Inode(ino).with(arguments), |vfs, ctx| {
        let data = vfs.read(ctx, Fh(fh), offset, len)?;
        assert!(data.len() <= len, "{} bytes read where {len} were asked for", data.len());
        Ok(Answer::Data(data))
    });
}

pub(super) fn write(raw: RawRequest, ino: u64, fh: u64, offset: u64, data: &[u8]) {
    let arguments = Arguments::Bytes { fh, size: data.len() as u64, offset };
    answer(raw, Op::Write, Subject::Inode(ino).with(arguments), |vfs, ctx| {
        let payload = current::keep(data).map_or(Payload::Lent(data), Payload::Given);
        Ok(Answer::Written(vfs.write(ctx, Fh(fh), offset, payload)?))
    });
}

pub(super) fn flush(raw: RawRequest, ino: u64, fh: u64) {
    answer(raw, Op::Flush, Subject::Inode(ino).with(Arguments::Handle(fh)), |vfs, ctx| {
        vfs.flush(ctx, Fh(fh))?;
        Ok(Answer::Done)
    });
}

pub(super) fn fsync(raw: RawRequest, ino: u64, fh: u64, data_only: bool) {
    answer(raw, Op::Fsync, Subject::Inode(ino).with(Arguments::Handle(fh)), |vfs, ctx| {
        vfs.fsync(ctx, Fh(fh), data_only)?;
        Ok(Answer::Done)
    });
}

pub(super) fn release(raw: RawRequest, ino: u64, fh: u64) {
    answer(raw, Op::Release, Subject::Inode(ino).with(Arguments::Handle(fh)), |vfs, _| {
        vfs.release(Fh(fh))?;
        Ok(Answer::Done)
    });
}

pub(super) fn opendir(raw: RawRequest, ino: u64) {
    answer(raw, Op::Opendir, Subject::Inode(ino), |vfs, ctx| {
        Ok(Answer::OpenedDir(vfs.opendir(ctx, Ino(ino))?))
    });
}

pub(super) fn readdir(raw: RawRequest, ino: u64, fh: u64, offset: u64, len: usize) {
    answer(raw, Op::Readdir, Subject::Inode(ino), |vfs, ctx| {
        let mut dirents = Dirents::new(len);
        vfs.readdir(ctx, Ino(ino), Fh(fh), offset, &mut |item| dirents.push(item))?;
        Ok(Answer::Listing(dirents))
    });
}

pub(super) fn readdirplus(raw: RawRequest, ino: u64, fh: u64, offset: u64, len: usize) {
    answer(raw, Op::Readdirplus, Subject::Inode(ino), |vfs, ctx| {
        let mut dirents = Dirents::new(len);
        let outcome = vfs.readdirplus(ctx, Ino(ino), Fh(fh), offset, &mut |plus| dirents.push_plus(plus));
        if let Err(err) = outcome {
            // The kernel gets none of the entries, so none of them counts.
            dirents.counted().iter().for_each(|counted| vfs.forget(*counted, 1));
            return Err(err);
        }
        Ok(Answer::Listing(dirents))
    });
}

pub(super) fn releasedir(raw: RawRequest, ino: u64, fh: u64) {
    answer(raw, Op::Releasedir, Subject::Inode(ino).with(Arguments::Handle(fh)), |vfs, _| {
        vfs.releasedir(Fh(fh));
        Ok(Answer::Done)
    });
}

pub(super) fn statfs(raw: RawRequest, ino: u64) {
    answer(raw, Op::Statfs, Subject::Inode(ino), |vfs, ctx| Ok(Answer::Statfs(vfs.statfs(ctx)?)));
}

pub(super) fn access(raw: RawRequest, ino: u64, mask: c_int) {
    answer(raw, Op::Access, Subject::Inode(ino), |vfs, ctx| {
        vfs.access(ctx, Ino(ino), mask.cast_unsigned())?;
        Ok(Answer::Done)
    });
}

pub(super) fn setxattr(raw: RawRequest, ino: u64, name: &OsStr, value: &[u8], flags: c_int) {
    answer(raw, Op::Setxattr, Subject::Inode(ino), |vfs, ctx| {
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Fault::InvalidArgument.into()),
        };
        vfs.setxattr(ctx, Ino(ino), name, value, mode)?;
        Ok(Answer::Done)
    });
}

pub(super) fn getxattr(raw: RawRequest, ino: u64, name: &OsStr, room: usize) {
    answer(raw, Op::Getxattr, Subject::Inode(ino), |vfs, ctx| {
        Ok(Answer::Xattr { data: vfs.getxattr(ctx, Ino(ino), name)?, room })
    });
}

pub(super) fn listxattr(raw: RawRequest, ino: u64, room: usize) {
    answer(raw, Op::Listxattr, Subject::Inode(ino), |vfs, ctx| {
        let mut names = Vec::new();
        for name in vfs.listxattr(ctx, Ino(ino))? {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(Answer::Xattr { data: names.into(), room })
    });
}

pub(super) fn removexattr(raw: RawRequest, ino: u64, name: &OsStr) {
    answer(raw, Op::Removexattr, Subject::Inode(ino), |vfs, ctx| {
        vfs.removexattr(ctx, Ino(ino), name)?;
        Ok(Answer::Done)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> libc::stat {
        // SAFETY: a structure of numbers, for which zeros are values.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size) = (0o100_644, 7, 8, 9);
        (stat.st_atime, stat.st_atime_nsec) = (-3, 4);
        stat
    }

    #[test]
    fn only_what_is_marked_is_changed() {
        assert_eq!(changes(&stat(), 0), (SetAttr::default(), None));
        let (change, size) = changes(&stat(), valid::MODE | valid::GID | valid::SIZE);
        assert_eq!(change, SetAttr { mode: Some(0o644), gid: Some(8), ..SetAttr::default() });
        assert_eq!(size, Some(9));
    }

    #[test]
    fn times_are_given_or_now() {
        let (change, _) = changes(&stat(), valid::ATIME);
        assert_eq!(change.atime, Some(Timestamp { secs: -3, nanos: 4 }));
        assert_eq!(change.mtime, None);
        let before = Timestamp::now();
        let (change, _) = changes(&stat(), valid::ATIME | valid::ATIME_NOW);
        assert!(change.atime.unwrap() >= before && !change.now, "for the owner, as mtime stays");
        let both = valid::ATIME | valid::ATIME_NOW | valid::MTIME | valid::MTIME_NOW;
        let (change, _) = changes(&stat(), both);
        assert!(change.mtime.unwrap() >= before && change.now);
    }
}
