//! What calls to the master say beside what they are about, by the options of the path. The server takes the defaults
//! of its protocol literally, so everything is said.

use uuid::Uuid;

use super::options::EndOfLife;
use super::options::Lifetime;
use super::options::MetadataLoad;
use super::options::PathOptions;
use super::options::SyncInterval;
use super::options::WriteType;
use super::proto::grpc::TtlAction;
use super::proto::grpc::file::FileSystemMasterCommonPOptions;
use super::proto::grpc::file::FsOpPId;
use super::proto::grpc::file::GetStatusPOptions;
use super::proto::grpc::file::ListStatusPOptions;
use super::proto::grpc::file::LoadMetadataPType;
use super::proto::grpc::file::ScheduleAsyncPersistencePOptions;
use super::proto::grpc::file::WritePType;

/// Files are not deleted by the clock. Left out, this is 0: deletion at the next check.
const NO_TTL: i64 = -1;

impl PathOptions {
    /// Of a call that may make the master load what it finds in the under file system. The time to live is for what it
    /// loads.
    pub(super) fn loading(&self) -> FileSystemMasterCommonPOptions {
        let Lifetime { limit, end } = self.lifetime;
        let action = match end {
            EndOfLife::Free => TtlAction::Free,
            EndOfLife::DeleteAlluxio => TtlAction::DeleteAlluxio,
            EndOfLife::Delete => TtlAction::Delete,
        };
        FileSystemMasterCommonPOptions {
            ttl: Some(limit.map_or(NO_TTL, |limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))),
            ttl_action: Some(action.into()),
            ..self.asking()
        }
    }

    /// Of a call that makes something, with the id by which the master knows a repeat.
    pub(super) fn creating(&self, id: Option<FsOpPId>) -> FileSystemMasterCommonPOptions {
        FileSystemMasterCommonPOptions { operation_id: id, ..self.loading() }
    }

    /// Of a call that changes something: it must not name a time to live, which would be set.
    pub(super) fn changing(&self, id: Option<FsOpPId>) -> FileSystemMasterCommonPOptions {
        FileSystemMasterCommonPOptions { operation_id: id, ..self.asking() }
    }

    /// Of any other call.
    pub(super) fn asking(&self) -> FileSystemMasterCommonPOptions {
        FileSystemMasterCommonPOptions {
            sync_interval_ms: self.sync_interval.map(|interval| match interval {
                SyncInterval::Never => -1,
                SyncInterval::AtMost(age) => i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
            }),
            ..FileSystemMasterCommonPOptions::default()
        }
    }

    /// Of a look at one path, which counts as an access or not.
    pub(super) fn status(&self, access: bool) -> GetStatusPOptions {
        GetStatusPOptions {
            load_metadata_type: Some(self.load_type().into()),
            common_options: Some(self.loading()),
            // Absent, it is true.
            update_timestamps: Some(access),
            ..GetStatusPOptions::default()
        }
    }

    /// Of a listing.
    pub(super) fn listing(&self) -> ListStatusPOptions {
        ListStatusPOptions {
            load_metadata_type: Some(self.load_type().into()),
            common_options: Some(self.loading()),
            ..ListStatusPOptions::default()
        }
    }

    fn load_type(&self) -> LoadMetadataPType {
        match self.metadata_load {
            MetadataLoad::Never => LoadMetadataPType::Never,
            MetadataLoad::Once => LoadMetadataPType::Once,
            MetadataLoad::Always => LoadMetadataPType::Always,
        }
    }

    /// Where the bytes of a new file go, as it is said on the wire.
    pub(super) fn sent_write_type(&self) -> WritePType {
        match self.write_type {
            WriteType::MustCache => WritePType::MustCache,
            WriteType::CacheThrough => WritePType::CacheThrough,
            WriteType::Through => WritePType::Through,
            WriteType::AsyncThrough => WritePType::AsyncThrough,
        }
    }

    /// The wait before a file is persisted, -1 for ever.
    pub(super) fn persistence_wait_ms(&self) -> i64 {
        match self.persistence_wait {
            Some(wait) => i64::try_from(wait.as_millis()).unwrap_or(i64::MAX),
            None => -1,
        }
    }

    /// How a complete file is persisted later, if it is.
    pub(super) fn persist_later(&self) -> Option<ScheduleAsyncPersistencePOptions> {
        let wanted = self.write_type == WriteType::AsyncThrough && self.persistence_wait.is_some();
        wanted.then(|| ScheduleAsyncPersistencePOptions {
            common_options: Some(self.loading()),
            persistence_wait_time: Some(self.persistence_wait_ms()),
        })
    }
}

/// `id` as it is sent.
pub(super) fn operation_id(id: Uuid) -> FsOpPId {
    let (most, least) = id.as_u64_pair();
    FsOpPId {
        most_significant_bits: Some(most.cast_signed()),
        least_significant_bits: Some(least.cast_signed()),
    }
}

/// The reverse of [`operation_id`].
pub(super) fn uuid(id: &FsOpPId) -> Uuid {
    let bits = |half: i64| half.cast_unsigned();
    Uuid::from_u64_pair(bits(id.most_significant_bits()), bits(id.least_significant_bits()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_makes_or_loads_gives_no_time_to_live_by_default_and_what_changes_never_names_one() {
        let options = PathOptions::default();
        for sent in [options.creating(None), options.loading()] {
            assert_eq!((sent.ttl, sent.ttl_action()), (Some(-1), TtlAction::Free));
        }
        let sent = options.changing(None);
        assert_eq!((sent.ttl, sent.ttl_action), (None, None));
    }

    #[test]
    fn a_time_to_live_is_given_if_the_user_wants_one() {
        let lifetime = Lifetime { limit: Some(Duration::from_secs(5)), end: EndOfLife::Delete };
        let options = PathOptions { lifetime, ..PathOptions::default() };
        for sent in [options.creating(None), options.loading()] {
            assert_eq!((sent.ttl, sent.ttl_action()), (Some(5000), TtlAction::Delete));
        }
    }

    #[test]
    fn the_sync_interval_is_sent_only_if_the_user_set_it() {
        for (set, sent) in [
            (None, None),
            (Some(SyncInterval::Never), Some(-1)),
            (Some(SyncInterval::AtMost(Duration::ZERO)), Some(0)),
            (Some(SyncInterval::AtMost(Duration::from_secs(2))), Some(2000)),
        ] {
            let options = PathOptions { sync_interval: set, ..PathOptions::default() };
            assert_eq!(options.loading().sync_interval_ms, sent);
        }
    }

    #[test]
    fn files_are_persisted_later_only_if_they_were_written_for_that() {
        let later = PathOptions { write_type: WriteType::AsyncThrough, ..PathOptions::default() };
        assert_eq!(later.persist_later().unwrap().persistence_wait_time, Some(0));
        let cached = PathOptions { write_type: WriteType::MustCache, ..PathOptions::default() };
        assert_eq!(cached.persist_later(), None);
        assert_eq!(PathOptions { persistence_wait: None, ..later }.persist_later(), None);
    }

    #[test]
    fn an_operation_id_is_read_back() {
        let id = Uuid::new_v4();
        assert_eq!(uuid(&operation_id(id)), id);
    }
}
