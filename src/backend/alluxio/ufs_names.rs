//! The files of the under file system that workers write for this mount, by their names in Alluxio. A worker removes by its
//! name what was given up, some time after that, and would remove what another stream has written there or what was moved there
//! meanwhile: these wait for it.
//!
//! Lock order: alone, for memory only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turns;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::fs::FsPath;

/// How long a name is waited for. Longer than a worker takes to remove what was given up; who has the name beyond that is most
/// likely somewhere else by now, moved by another client.
const LIMIT: Duration = Duration::from_secs(5);

/// Of one mount.
#[derive(Default)]
pub(super) struct UfsNames {
    taken: Mutex<HashMap<FsPath, Weak<Turns<()>>>>,
}

/// Nobody else of this mount writes a file of this name until this is dropped.
pub(super) struct Taken {
    names: Arc<UfsNames>,
    place: FsPath,
    /// None if the wait for it was too long.
    turn: Option<OwnedMutexGuard<()>>,
}

impl UfsNames {
    /// Waits until nobody has the name of the file at `place`, at most for [`LIMIT`].
    pub(super) async fn take(self: &Arc<Self>, place: &FsPath) -> Taken {
        let turns = {
            let mut taken = self.taken.lock();
            let known = taken.entry(place.clone()).or_default();
            known.upgrade().unwrap_or_else(|| {
                let turns = Arc::default();
                *known = Arc::downgrade(&turns);
                turns
            })
        };
        // From here on, so that who is interrupted in the wait leaves nothing.
        let mut mine = Taken { names: Arc::clone(self), place: place.clone(), turn: None };
        mine.turn = timeout(LIMIT, turns.lock_owned()).await.ok();
        if mine.turn.is_none() {
            log::warn!("a worker may still have the file open that was given up at {place}");
        }
        mine
    }

    /// Waits until nobody has a name at or below `place`, at most for [`LIMIT`] each.
    pub(super) async fn free(self: &Arc<Self>, place: &FsPath) {
        let taken: Vec<FsPath> =
            self.taken.lock().keys().filter(|name| name.starts_with(place)).cloned().collect();
        for name in &taken {
            drop(self.take(name).await);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        drop(self.turn.take());
        let mut taken = self.names.taken.lock();
        if taken.get(&self.place).is_some_and(|turns| turns.strong_count() == 0) {
            taken.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FsPath {
        FsPath::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_name_waits_for_who_has_it() {
        let names = Arc::new(UfsNames::default());
        let first = names.take(&path("/d/a")).await;
        let other = names.take(&path("/d/b")).await;
        let (own, wait) = (Arc::clone(&names), Duration::from_secs(1));
        let mut second = tokio::spawn(async move { own.take(&path("/d/a")).await });
        assert!(timeout(wait, &mut second).await.is_err());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.turn.is_some());
        let third = names.take(&path("/d/a")).await;
        assert!(third.turn.is_none(), "the wait has an end");
        drop((second, third, other));
        assert!(names.taken.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_free_when_nobody_has_one_below_it() {
        let names = Arc::new(UfsNames::default());
        let first = names.take(&path("/d/a")).await;
        names.free(&path("/d/a1")).await;
        names.free(&path("/e")).await;
        let (own, wait) = (Arc::clone(&names), Duration::from_secs(1));
        let mut free = tokio::spawn(async move { own.free(&path("/d")).await });
        assert!(timeout(wait, &mut free).await.is_err());
        drop(first);
        free.await.unwrap();
        assert!(names.taken.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_the_wait_leaves_nothing() {
        let names = Arc::new(UfsNames::default());
        let first = names.take(&path("/a")).await;
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, names.take(&path("/a"))).await.is_err());
        drop(first);
        assert!(names.taken.lock().is_empty());
    }
}
