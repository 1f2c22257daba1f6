//! A new version of a file in the place of the old one: what was set on the old one is set on the new one first, so
//! that no reader ever sees the new bytes with other rights.
//!
//! Carried over are owner, group, mode, extended attributes, pinning, replication and the time to live, which starts
//! anew. Access control lists that say more than the mode are not.

use bytes::Bytes;

use super::Shared;
use super::master::Change;
use super::master::Destination;
use super::master::Xattrs;
use super::proto::grpc::TtlAction;
use super::proto::grpc::file::FileInfo;
use super::times;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Result;

/// What the master keeps with a file beside owner and group, as far as a new version lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Permission bits. Always sent: with them the master asks only whether the file is ours.
    pub(super) mode: u32,
    /// Extended attributes.
    pub(super) xattrs: Xattrs,
    /// Whether and where it is pinned.
    pub(super) pinned: Option<(bool, Vec<String>)>,
    /// Least and largest number of copies.
    pub(super) replication: Option<(i32, i32)>,
    /// Time to live in milliseconds, -1 for ever, and what comes then.
    pub(super) ttl: Option<(i64, TtlAction)>,
}

impl Settings {
    /// What has to be set on `new`; none if it has all that `old` has.
    fn missing(old: &FileInfo, new: &FileInfo) -> Option<Self> {
        // Times of the old content mean nothing for the new.
        let lacks =
            |(key, value): &(&String, &Bytes)| !times::is_own(key) && new.xattr.get(*key) != Some(*value);
        let xattrs: Xattrs =
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

impl Shared {
    /// Puts the complete file `new` in the place of `old` and returns what the master has of it then.
    pub(super) async fn replace(&self, new: &FsPath, old: &FsPath) -> Result<FileInfo> {
        let before = match self.master.get_status(old).await {
            Err(err) if err.fault() == Fault::NotFound => {
                self.master.rename(new, old, Destination::Keep).await?;
                return self.master.known_status(old).await;
            }
            result => result?,
        };
        // The master would remove it with all that is in it.
        if before.folder() {
            return Err(Fault::IsDirectory.into());
        }
        let info = self.master.known_status(new).await?;
        let info = self.carry_over(new, &before, info).await;
        self.master.rename(new, old, Destination::ReplaceFile).await?;
        Ok(info)
    }

    /// Sets on `new` what `old` has. That some of it cannot be set is no reason to lose what was written: a user who
    /// may write a file of somebody else cannot give the new one away.
    async fn carry_over(&self, place: &FsPath, old: &FileInfo, mut new: FileInfo) -> FileInfo {
        if let Some(settings) = Settings::missing(old, &new) {
            let (mode, xattrs) = (settings.mode, settings.xattrs.clone());
            match self.master.set_all(place, settings).await {
                Ok(()) => {
                    new.mode = Some(mode.cast_signed());
                    new.xattr.extend(xattrs);
                }
                Err(err) => log::warn!("a file that is written again loses what was set on it: {err}"),
            }
        }
        let differs = |old: &str, new: &str| (old != new).then(|| old.to_owned());
        let owner = differs(old.owner(), new.owner()).map(Change::Owner);
        let group = differs(old.group(), new.group()).filter(|group| !group.is_empty()).map(Change::Group);
        if let Err(err) = self.take_steps(place, &mut new, [group, owner, None], Xattrs::new()).await {
            log::warn!(
                "a file of {}:{} that is written again belongs to {}:{}: {err}",
                old.owner(),
                old.group(),
                new.owner(),
                new.group()
            );
        }
        new
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

    fn xattr(key: &str) -> Xattrs {
        Xattrs::from([(key.to_owned(), Bytes::from_static(b"v"))])
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
