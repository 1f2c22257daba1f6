//! A new version of a file in the place of the old one: what was set on the old one is set on the new one first, so
//! that no reader ever sees the new bytes with other rights.
//!
//! Carried over are owner, group, mode, extended attributes, pinning, replication and the time to live, which starts
//! anew. Access control lists that say more than the mode are not.

use super::Shared;
use super::master::Change;
use super::master::Destination;
use super::proto::grpc::file::FileInfo;
use super::settings::Settings;
use super::times::Xattrs;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Result;

impl Shared {
    /// Puts the complete file `new` in the place of `old` and returns what the master has of it then.
    pub(super) async fn replace(&self, new: &FsPath, old: &FsPath) -> Result<FileInfo> {
        self.data.ufs_names.settled(old).await;
        let before = match self.master.get_status(old).await {
            Err(err) if err.fault() == Fault::NotFound => {
                self.master.rename(new, old, Destination::Keep).await?;
                let info = self.master.known_status(old).await?;
                self.in_place(info.file_id());
                return Ok(info);
            }
            result => result?,
        };
        // The master would remove it with all that is in it.
        if before.folder() {
            return Err(Fault::IsDirectory.into());
        }
        let info = self.master.known_status(new).await?;
        let info = self.carry_over(new, &before, info).await;
        self.master.rename(new, old, Destination::ReplacedBy(info.file_id())).await?;
        self.in_place(info.file_id());
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
