//! Alluxio's file information as the attributes of a file system, and owners as this mount shows them.

use super::names::Names;
use super::options::OwnerPolicy;
use super::proto::grpc::file::FileInfo;
use crate::fs::Attr;
use crate::fs::FileKind;
use crate::fs::Timestamp;

/// Shown for an owner whom this host does not know: "nobody", as the kernel does for a number that it cannot map.
const UNKNOWN_ID: u32 = 65534;

/// How owners are shown.
pub(super) struct Owners {
    pub(super) policy: OwnerPolicy,
    pub(super) names: Names,
}

impl Owners {
    /// The shown owner and group of a file.
    pub(super) fn shown(&self, info: &FileInfo) -> (u32, u32) {
        match self.policy {
            OwnerPolicy::LaunchUser { uid, gid } | OwnerPolicy::Custom { uid, gid } => (uid, gid),
            OwnerPolicy::SystemUser => (
                self.names.uid(info.owner()).unwrap_or(UNKNOWN_ID),
                self.names.gid(info.group()).unwrap_or(UNKNOWN_ID),
            ),
        }
    }
}

/// The attributes of what `info` describes.
pub(super) fn attr(info: &FileInfo, owners: &Owners) -> Attr {
    let (uid, gid) = owners.shown(info);
    let changed = Timestamp::from_millis(info.last_modification_time_ms());
    Attr {
        id: id(info),
        kind: if info.folder() { FileKind::Directory } else { FileKind::Regular },
        size: info.length().max(0).cast_unsigned(),
        mode: info.mode().cast_unsigned() & 0o7777,
        nlink: 1,
        uid,
        gid,
        atime: Timestamp::from_millis(info.last_access_time_ms()),
        mtime: changed,
        // The master keeps no time of the last change of attributes.
        ctime: changed,
        complete: info.completed(),
    }
}

/// The master's number, raised by one: the root's is 0, which means nothing to a kernel, and the first directory's
/// is 1, so that the root cannot just be given that.
fn id(info: &FileInfo) -> u64 {
    info.file_id().cast_unsigned().wrapping_add(1).max(1)
}

/// Whether everyone may do what `mask` (4 read, 2 write, 1 execute) says, whoever they are.
pub(super) fn all_may(info: &FileInfo, mask: u32) -> bool {
    let mode = info.mode().cast_unsigned();
    [mode >> 6, mode >> 3, mode].iter().all(|class| class & mask == mask)
        && info.acl.as_ref().is_none_or(|acl| acl.entries.is_empty() || is_plain(info))
}

/// Whether `user` owns it and its mode lets the owner do what `mask` says. False does not mean that they may not.
pub(super) fn owner_may(info: &FileInfo, user: &str, mask: u32) -> bool {
    info.owner() == user && (info.mode().cast_unsigned() >> 6) & mask == mask
}

/// Whether the access control list says no more than the mode: one entry each for owner, group and others.
fn is_plain(info: &FileInfo) -> bool {
    info.acl.as_ref().is_none_or(|acl| acl.entries.len() <= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(policy: OwnerPolicy) -> Owners {
        Owners { policy, names: Names::default() }
    }

    fn launch() -> Owners {
        owners(OwnerPolicy::LaunchUser { uid: 7, gid: 8 })
    }

    fn file() -> FileInfo {
        FileInfo {
            file_id: Some(0x1ff_ffff),
            length: Some(12345),
            mode: Some(0o640),
            completed: Some(true),
            owner: Some("root".to_owned()),
            group: Some("no such group".to_owned()),
            last_modification_time_ms: Some(1_700_000_000_123),
            last_access_time_ms: Some(1_700_000_001_000),
            ..FileInfo::default()
        }
    }

    #[test]
    fn a_file_is_shown_with_its_own_numbers() {
        let attr = attr(&file(), &launch());
        assert_eq!((attr.kind, attr.size, attr.mode, attr.nlink), (FileKind::Regular, 12345, 0o640, 1));
        assert_eq!((attr.uid, attr.gid, attr.complete), (7, 8, true));
        assert_eq!(attr.mtime, Timestamp { secs: 1_700_000_000, nanos: 123_000_000 });
        assert_eq!(attr.ctime, attr.mtime);
        assert_eq!(attr.atime.secs, 1_700_000_001);
    }

    #[test]
    fn every_number_is_different_and_none_is_zero() {
        let root = FileInfo { file_id: Some(0), folder: Some(true), ..FileInfo::default() };
        let first = FileInfo { file_id: Some(1), folder: Some(true), ..FileInfo::default() };
        let (root, first) = (attr(&root, &launch()), attr(&first, &launch()));
        assert_eq!((root.id, root.kind), (1, FileKind::Directory));
        assert_ne!(root.id, first.id);
    }

    #[test]
    fn an_incomplete_file_says_so() {
        let info = FileInfo { completed: Some(false), length: Some(0), ..file() };
        assert!(!attr(&info, &launch()).complete);
    }

    #[test]
    fn owners_are_looked_up_if_they_are_to_be_those_of_this_host() {
        assert_eq!(owners(OwnerPolicy::SystemUser).shown(&file()), (0, UNKNOWN_ID));
        assert_eq!(owners(OwnerPolicy::Custom { uid: 1, gid: 2 }).shown(&file()), (1, 2));
    }

    #[test]
    fn an_owner_may_what_the_mode_says() {
        let info = FileInfo { mode: Some(0o477), owner: Some("a".to_owned()), ..FileInfo::default() };
        assert!(owner_may(&info, "a", 4));
        assert!(!owner_may(&info, "a", 2));
        assert!(!owner_may(&info, "b", 4));
    }

    #[test]
    fn only_what_every_class_may_is_open_to_all() {
        let with = |mode| FileInfo { mode: Some(mode), ..FileInfo::default() };
        assert!(all_may(&with(0o644), 4));
        assert!(!all_may(&with(0o644), 2));
        assert!(!all_may(&with(0o044), 4), "the owner may less than others");
        assert!(!all_may(&with(0o604), 4), "a member of the group may less than others");
        assert!(all_may(&with(0o000), 0));
    }
}
