//! What the master keeps with a file, and what of it a new version of the file lacks. Knows nothing of calls.

use std::collections::HashMap;

use bytes::Bytes;

use super::proto::grpc::TtlAction;
use super::proto::grpc::file::FileInfo;
use super::times;

/// What the master keeps with a file beside owner and group, as far as a new version lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Permission bits. Always sent: with them the master asks only whether the file is ours.
    pub(super) mode: u32,
    /// Extended attributes.
    pub(super) xattrs: HashMap<String, Bytes>,
    /// Whether and where it is pinned.
    pub(super) pinned: Option<(bool, Vec<String>)>,
    /// Least and largest number of copies.
    pub(super) replication: Option<(i32, i32)>,
    /// Time to live in milliseconds, -1 for ever, and what comes then.
    pub(super) ttl: Option<(i64, TtlAction)>,
}

impl Settings {
    /// What has to be set on `new`; none if it has all that `old` has.
    pub(super) fn missing(old: &FileInfo, new: &FileInfo) -> Option<Self> {
        // Times of the old content mean nothing for the new.
        let lacks =
            |(key, value): &(&String, &Bytes)| !times::is_own(key) && new.xattr.get(*key) != Some(*value);
        let xattrs: HashMap<_, _> =
            old.xattr.iter().filter(lacks).map(|(key, value)| (key.clone(), value.clone())).collect();
        let pins = |info: &FileInfo| (info.pinned(), info.medium_type.clone());
        let copies = |info: &FileInfo| (info.replication_min(), info.replication_max());
        let life = |info: &FileInfo| (info.ttl.unwrap_or(-1), info.ttl_action());
        let settings = Self {
            mode: old.mode().cast_unsigned(),
            pinned: (pins(old) != pins(new)).then(|| pins(old)),
            replication: (copies(old) != copies(new)).then(|| copies(old)),
            ttl: (life(old) != life(new)).then(|| life(old)),
            xattrs,
        };
        let none = old.mode() == new.mode()
            && settings.xattrs.is_empty()
            && settings.pinned.is_none()
            && settings.replication.is_none()
            && settings.ttl.is_none();
        (!none).then_some(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> FileInfo {
        FileInfo {
            mode: Some(0o640),
            pinned: Some(false),
            replication_min: Some(0),
            replication_max: Some(-1),
            ttl: Some(-1),
            ttl_action: Some(TtlAction::Free.into()),
            ..FileInfo::default()
        }
    }

    fn xattr(key: &str) -> HashMap<String, Bytes> {
        HashMap::from([(key.to_owned(), Bytes::from_static(b"v"))])
    }

    #[test]
    fn a_file_that_has_everything_needs_no_call() {
        assert_eq!(Settings::missing(&info(), &info()), None);
        let old = FileInfo { xattr: xattr(times::SET), ..info() };
        assert_eq!(Settings::missing(&old, &info()), None, "times are those of the old content");
    }

    #[test]
    fn only_what_is_missing_is_set() {
        let old = FileInfo { pinned: Some(true), xattr: xattr("user.a"), mode: Some(0o600), ..info() };
        let settings = Settings::missing(&old, &info()).unwrap();
        assert_eq!(settings.mode, 0o600);
        assert_eq!(settings.xattrs, xattr("user.a"));
        assert_eq!(settings.pinned, Some((true, Vec::new())));
        assert_eq!((settings.replication, settings.ttl), (None, None));
    }

    #[test]
    fn a_time_to_live_and_the_number_of_copies_come_along() {
        let old = FileInfo { ttl: Some(5000), replication_max: Some(3), ..info() };
        let settings = Settings::missing(&old, &info()).unwrap();
        assert_eq!(settings.ttl, Some((5000, TtlAction::Free)));
        assert_eq!(settings.replication, Some((0, 3)));
    }
}
