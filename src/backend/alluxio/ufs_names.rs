//! The files of the under file system that workers write for this mount, by their names in Alluxio. A worker removes by its
//! name what was given up, some time after that, and would remove what another stream has written there or what was moved there
//! meanwhile: these wait for it.
//!
//! Lock order: alone, for memory only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turns;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::fs::FsPath;
use crate::waiting;

/// How long a name is waited for. Longer than a worker takes to remove what was given up; who has the name beyond that is most
/// likely somewhere else by now, moved by another client.
const LIMIT: Duration = Duration::from_secs(5);

/// Of one mount.
#[derive(Default)]
pub(super) struct UfsNames {
    taken: Mutex<HashMap<FsPath, Entry>>,
}

#[derive(Default)]
struct Entry {
    turns: Weak<Turns<()>>,
    /// Of who has it.
    given_up: Arc<AtomicBool>,
}

/// Nobody else of this mount writes a file of this name until this is dropped.
pub(super) struct Taken {
    names: Arc<UfsNames>,
    place: FsPath,
    /// None if the wait for it was too long.
    turn: Option<OwnedMutexGuard<()>>,
}

impl UfsNames {
    /// Waits until nobody has the name of the file at `place`, at most for [`LIMIT`]. Who takes it sets `given_up` when nobody
    /// writes the file any more.
    pub(super) async fn take(self: &Arc<Self>, place: &FsPath, given_up: &Arc<AtomicBool>) -> Taken {
        let turns = {
            let mut taken = self.taken.lock();
            let entry = taken.entry(place.clone()).or_default();
            entry.turns.upgrade().unwrap_or_else(|| {
                let turns = Arc::default();
                entry.turns = Arc::downgrade(&turns);
                turns
            })
        };
        // From here on, so that who is interrupted in the wait leaves nothing.
        let mut mine = Taken { names: Arc::clone(self), place: place.clone(), turn: None };
        mine.turn = timeout(LIMIT, turns.lock_owned()).await.ok();
        if mine.turn.is_none() {
            log::warn!("a worker may still have the file open that was given up at {place}");
        } else if let Some(entry) = self.taken.lock().get_mut(place) {
            entry.given_up = Arc::clone(given_up);
        }
        mine
    }

    /// Waits until nobody has a name at or below `place` that was given up, at most for [`LIMIT`].
    pub(super) async fn settled(self: &Arc<Self>, place: &FsPath) {
        let names = self.given_up(place);
        if names.is_empty() {
            return;
        }
        let _wait = waiting::wait(&Arc::default(), "a worker to be done with a file that was given up");
        let mine = Arc::default();
        let all = async {
            for name in &names {
                drop(self.take(name, &mine).await);
            }
        };
        // What takes longer is no longer waited for.
        let _ = timeout(LIMIT, all).await;
    }

    fn given_up(&self, place: &FsPath) -> Vec<FsPath> {
        let taken = self.taken.lock();
        let given_up = taken
            .iter()
            .filter(|(name, entry)| name.starts_with(place) && entry.given_up.load(Ordering::Relaxed));
        given_up.map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        drop(self.turn.take());
        let mut taken = self.names.taken.lock();
        if taken.get(&self.place).is_some_and(|entry| entry.turns.strong_count() == 0) {
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
        let first = names.take(&path("/d/a"), &Arc::default()).await;
        let other = names.take(&path("/d/b"), &Arc::default()).await;
        let (own, wait) = (Arc::clone(&names), Duration::from_secs(1));
        let mut second = tokio::spawn(async move { own.take(&path("/d/a"), &Arc::default()).await });
        assert!(timeout(wait, &mut second).await.is_err());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.turn.is_some());
        let third = names.take(&path("/d/a"), &Arc::default()).await;
        assert!(third.turn.is_none(), "the wait has an end");
        drop((second, third, other));
        assert!(names.taken.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_names_that_were_given_up_are_waited_for() {
        let (names, given_up) = (Arc::new(UfsNames::default()), Arc::new(AtomicBool::new(false)));
        let first = names.take(&path("/d/a"), &given_up).await;
        let other = names.take(&path("/d/b"), &Arc::default()).await;
        names.settled(&path("/d")).await;
        given_up.store(true, Ordering::Relaxed);
        names.settled(&path("/d/a1")).await;
        names.settled(&path("/d/b")).await;
        let (own, wait) = (Arc::clone(&names), Duration::from_secs(1));
        let mut settled = tokio::spawn(async move { own.settled(&path("/d")).await });
        assert!(timeout(wait, &mut settled).await.is_err());
        drop(first);
        settled.await.unwrap();
        drop(other);
        assert!(names.taken.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_the_wait_leaves_nothing() {
        let names = Arc::new(UfsNames::default());
        let (place, given_up) = (path("/a"), Arc::default());
        let first = names.take(&place, &given_up).await;
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, names.take(&place, &given_up)).await.is_err());
        drop(first);
        assert!(names.taken.lock().is_empty());
    }
}
