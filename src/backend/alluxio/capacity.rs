//! Capacity and use of the cluster as statfs(2) shows them: what the master said last, asked again after a while. The
//! figures of before serve when the master is away, as a `df` that hangs helps nobody. Asks nobody itself.

use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::error::is_away;
use super::proto::grpc::block::BlockMasterInfo;
use crate::fs::Result;
use crate::fs::StatFs;

/// The unit in which capacity is shown, as Alluxio's own mount does.
const BLOCK: u32 = 16 << 10;

/// How long somebody who can have figures of before waits for newer ones.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How long the master is left alone when it did not answer.
const PAUSE: Duration = Duration::from_secs(10);

/// The last answer, and until when it does.
#[derive(Default)]
pub(super) struct Capacity {
    known: Mutex<Option<(StatFs, Instant)>>,
}

impl Capacity {
    /// The last answer, if it still does at `now`.
    pub(super) fn fresh(&self, now: Instant) -> Option<StatFs> {
        (*self.known.lock()).filter(|(_, until)| now < *until).map(|(stat, _)| stat)
    }

    /// Until when to wait for an answer: not for ever if there is one of before.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.known.lock().is_some().then_some(now + PATIENCE)
    }

    /// Takes what the master said; it does for `refresh`. Returns the figures to be shown.
    pub(super) fn learn(&self, answer: Result<StatFs>, now: Instant, refresh: Duration) -> Result<StatFs> {
        let mut known = self.known.lock();
        match (answer, *known) {
            (Ok(stat), _) => {
                *known = Some((stat, now + refresh));
                Ok(stat)
            }
            (Err(err), Some((stat, _))) if is_away(&err) => {
                log::warn!("the capacity of the cluster is shown as last known: {err}");
                *known = Some((stat, now + PAUSE));
                Ok(stat)
            }
            (Err(err), _) => Err(err),
        }
    }
}

/// The master's figures in the words of statfs(2).
pub(super) fn stat_fs(info: &BlockMasterInfo, name_max: usize) -> StatFs {
    let blocks = |bytes: i64| bytes.max(0).cast_unsigned() / u64::from(BLOCK);
    StatFs {
        block_size: BLOCK,
        blocks: blocks(info.capacity_bytes()),
        blocks_free: blocks(info.free_bytes()),
        name_max: u32::try_from(name_max).expect("names are short"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fault;

    const REFRESH: Duration = Duration::from_secs(300);

    fn figures(blocks: u64) -> StatFs {
        StatFs { block_size: BLOCK, blocks, blocks_free: 1, name_max: 255 }
    }

    fn away() -> Result<StatFs> {
        Err(Fault::Unavailable.into())
    }

    #[test]
    fn an_answer_does_for_a_while() {
        let (capacity, start) = (Capacity::default(), Instant::now());
        assert_eq!((capacity.fresh(start), capacity.deadline(start)), (None, None));
        capacity.learn(Ok(figures(7)), start, REFRESH).unwrap();
        assert_eq!(capacity.fresh(start + REFRESH / 2), Some(figures(7)));
        assert_eq!(capacity.fresh(start + REFRESH), None);
        capacity.learn(Ok(figures(8)), start + REFRESH, Duration::ZERO).unwrap();
        assert_eq!(capacity.fresh(start + REFRESH), None, "asked again each time");
    }

    #[test]
    fn the_last_figures_serve_while_the_master_is_away() {
        let (capacity, start) = (Capacity::default(), Instant::now());
        assert_eq!(capacity.learn(away(), start, REFRESH).unwrap_err().fault(), Fault::Unavailable);
        capacity.learn(Ok(figures(7)), start, REFRESH).unwrap();
        let later = start + REFRESH;
        assert_eq!(capacity.deadline(later), Some(later + PATIENCE));
        assert_eq!(capacity.learn(away(), later, REFRESH).unwrap(), figures(7));
        assert_eq!(capacity.fresh(later), Some(figures(7)), "the next one does not wait");
        assert_eq!(capacity.fresh(later + PAUSE), None);
        let denied = capacity.learn(Err(Fault::PermissionDenied.into()), later, REFRESH);
        assert_eq!(denied.unwrap_err().fault(), Fault::PermissionDenied);
    }

    #[test]
    fn figures_are_in_blocks() {
        let info = BlockMasterInfo {
            capacity_bytes: Some(5 << 20),
            free_bytes: Some(-1),
            ..BlockMasterInfo::default()
        };
        assert_eq!(
            stat_fs(&info, 255),
            StatFs { block_size: 16384, blocks: 320, blocks_free: 0, name_max: 255 }
        );
    }
}
