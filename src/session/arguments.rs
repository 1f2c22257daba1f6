//! Who asks, what a request is about and what it asks for, for logs and for whoever looks into the mount. The words are those of
//! Alluxio's client.

use std::ffi::OsStr;
use std::fmt;

use crate::metrics::Operation;
use crate::vfs::Ino;
use crate::vfs::Vfs;

/// The caller of a request, as the kernel knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
}

/// What it is about, for the log.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// An inode.
    Inode(u64),
    /// A name in a directory.
    Name(u64, &'a OsStr),
    /// A name in a directory, and what it is to become.
    Names(u64, &'a OsStr, u64, &'a OsStr),
}

/// The arguments of a request beside its subject.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arguments {
    /// None that are told.
    None,
    /// An open file.
    Handle(u64),
    /// Bytes of an open file.
    Bytes { fh: u64, size: u64, offset: u64 },
    /// The flags of open(2).
    Flags(i32),
    /// The mode of what is made.
    Mode(u32),
    /// The same, and the flags of open(2).
    ModeAndFlags(u32, i32),
    /// The owner and the group, of which one may stay as it is.
    Owner(Option<u32>, Option<u32>),
    /// The new size.
    Size(u64),
}

/// Both.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) arguments: Arguments,
}

impl<'a> From<Subject<'a>> for About<'a> {
    fn from(subject: Subject<'a>) -> Self {
        Self { subject, arguments: Arguments::None }
    }
}

impl<'a> Subject<'a> {
    /// With arguments.
    pub(super) fn with(self, arguments: Arguments) -> About<'a> {
        About { subject: self, arguments }
    }
}

impl Subject<'_> {
    /// Paths in the mount.
    pub(super) fn text(self, vfs: &Vfs) -> String {
        let below = |parent: u64, name: &OsStr| {
            let parent = vfs.path_text(Ino(parent));
            format!("{}/{}", parent.trim_end_matches('/'), name.display())
        };
        match self {
            Self::Inode(ino) => vfs.path_text(Ino(ino)),
            Self::Name(parent, name) => below(parent, name),
            Self::Names(parent, name, new_parent, new_name) => {
                format!("{} to {}", below(parent, name), below(new_parent, new_name))
            }
        }
    }
}

impl About<'_> {
    /// Where in the file, and how many bytes, if it is about bytes.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        match self.arguments {
            Arguments::Bytes { size, offset, .. } => Some((offset, size)),
            _ => None,
        }
    }

    /// `Fuse.Read(path=/x,fd=0,size=12,offset=0)`, as Alluxio's client has it, with the commas that it has at the end of
    /// some.
    pub(super) fn text(&self, op: Operation, vfs: &Vfs) -> String {
        let path = match self.subject {
            Subject::Names(parent, name, to, new_name) => {
                let (old, new) = (Subject::Name(parent, name), Subject::Name(to, new_name));
                return format!("Fuse.{op:?}(oldPath={},newPath={},)", old.text(vfs), new.text(vfs));
            }
            subject => subject.text(vfs),
        };
        let comma = if op == Operation::Mkdir { "," } else { "" };
        format!("Fuse.{op:?}(path={path}{}{comma})", self.arguments)
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |id: Option<u32>| id.map_or(-1, i64::from);
        match *self {
            Self::None => Ok(()),
            Self::Handle(fh) => write!(out, ",fd={fh}"),
            Self::Bytes { fh, size, offset } => write!(out, ",fd={fh},size={size},offset={offset}"),
            Self::Flags(flags) => write!(out, ",flags={flags:#x}"),
            Self::Mode(mode) => write!(out, ",mode={mode:o}"),
            Self::ModeAndFlags(mode, flags) => write!(out, ",mode={mode:o},flags={flags:#x}"),
            Self::Owner(uid, gid) => write!(out, ",uid={},gid={}", id(uid), id(gid)),
            Self::Size(size) => write!(out, ",size={size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_look_as_alluxios_client_writes_them() {
        let bytes = Arguments::Bytes { fh: 0, size: 12, offset: 5 };
        for (arguments, text) in [
            (Arguments::None, ""),
            (Arguments::Handle(7), ",fd=7"),
            (bytes, ",fd=0,size=12,offset=5"),
            (Arguments::Flags(0x8000), ",flags=0x8000"),
            (Arguments::Mode(0o755), ",mode=755"),
            (Arguments::ModeAndFlags(0o644, 1), ",mode=644,flags=0x1"),
            (Arguments::Owner(Some(3), None), ",uid=3,gid=-1"),
            (Arguments::Size(9), ",size=9"),
        ] {
            assert_eq!(arguments.to_string(), text);
        }
    }
}
