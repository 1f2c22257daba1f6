//! What the master said of a place a moment ago, for a call that belongs to the one that asked: see
//! [`Finding`](crate::fs::Finding).
//!
//! It is gone by as long as this mount has changed nothing meanwhile. So whoever asks for the second time learns nothing
//! that is older than a change that he may know of.

use std::sync::Arc;

use super::Shared;
use super::proto::grpc::file::FileInfo;
use crate::fs::Ctx;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::Timestamp;
use crate::metrics::Counter;

/// The changes through this mount, counted when they begin and when they have ended.
#[derive(Default)]
pub(super) struct Changes(Counter);

impl Changes {
    /// A number that moves with each. What was asked for when it was the same as now does not come from before a change
    /// that has been made.
    pub(super) fn so_far(&self) -> u64 {
        self.0.value()
    }

    /// A change begins; dropped, it has ended.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.0.count();
        UnderWay(self)
    }
}

/// A change that is under way.
pub(super) struct UnderWay<'a>(&'a Changes);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.count();
    }
}

/// An answer of the master.
struct Known {
    place: FsPath,
    info: Arc<FileInfo>,
    /// The changes through this mount when it was asked for.
    changes: u64,
}

impl Shared {
    /// What is at `place`, noted for a call that goes with this one.
    pub(super) async fn learn(&self, ctx: &Ctx<'_>, place: &FsPath) -> Result<Arc<FileInfo>> {
        let changes = self.master.changes().so_far();
        let info = Arc::new(self.master.get_status(place).await?);
        if let Some(finding) = ctx.finding() {
            finding.keep(Known { place: place.clone(), info: Arc::clone(&info), changes });
        }
        Ok(info)
    }

    /// What a call that goes with this one has learned of `place`, if `is_enough` says so. This one is answered by it.
    pub(super) fn known(
        &self,
        ctx: &Ctx,
        place: &FsPath,
        is_enough: impl FnOnce(&FileInfo) -> bool,
    ) -> Option<Arc<FileInfo>> {
        let finding = ctx.finding()?;
        let known = finding.kept::<Known>()?;
        let is_valid = known.place == *place && known.changes == self.master.changes().so_far();
        if !is_valid || !is_enough(&known.info) {
            return None;
        }
        finding.note_used();
        Some(Arc::clone(&known.info))
    }

    /// Whether the master would note an access to the file `info` at `place`: it does so if the last is longer ago than its
    /// precision.
    pub(super) fn is_access_noted(&self, place: &FsPath, info: &FileInfo) -> bool {
        let at = self.master.at(place);
        !at.access_time_disabled && is_due(info, at.access_time_precision.as_millis(), Timestamp::now())
    }
}

fn is_due(info: &FileInfo, precision_ms: u128, now: Timestamp) -> bool {
    let now_ms = i128::from(now.secs) * 1000 + i128::from(now.nanos / 1_000_000);
    let age_ms = now_ms - i128::from(info.last_access_time_ms());
    // A clock of this machine that is behind the master's tells nothing.
    u128::try_from(age_ms).map_or(true, |age_ms| age_ms >= precision_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_moves_the_number_when_it_begins_and_when_it_ends() {
        let changes = Changes::default();
        let before = changes.so_far();
        let change = changes.begin();
        let meanwhile = changes.so_far();
        drop(change);
        assert!(before < meanwhile && meanwhile < changes.so_far());
    }

    #[test]
    fn an_access_is_noted_when_the_last_is_long_ago() {
        let info = FileInfo { last_access_time_ms: Some(10_000), ..FileInfo::default() };
        let due = |now_ms, precision_ms| is_due(&info, precision_ms, Timestamp::from_millis(now_ms));
        assert!(!due(10_999, 1000));
        assert!(due(11_000, 1000));
        assert!(due(10_000, 0), "each access, if the master is as precise as that");
        assert!(due(9_999, 1000), "the clocks differ");
    }
}
