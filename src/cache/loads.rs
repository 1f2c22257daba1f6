//! What is being asked for at the backend right now: who wants the same attributes waits for them, and what was asked for
//! before a change is not kept after it.
//!
//! Lock order: the table is locked by `metadata`, before its store. A flight's result is locked last, and alone.
//! Invariant: what a change concerns is marked while the table is locked, and not joined any more from then on. So an
//! answer is kept only if no change has come between the question and it, and who asks after a change gets no answer
//! from before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Wake;
use std::task::Waker;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::fs::Attr;
use crate::fs::Ctx;
use crate::fs::FsPath;
use crate::fs::Result;

/// The number of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LoadId(u64);

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A path.
    Path,
    /// A directory and all that is in it.
    Entries,
}

struct Load {
    path: FsPath,
    reach: Reach,
    /// Something has changed since.
    stale: bool,
}

impl Load {
    /// Whether a change of `path`, of what is below it, and of the directory that it is in makes the answer old.
    fn is_concerned_by(&self, path: &FsPath) -> bool {
        let parent = path.parent();
        let is = |place: Option<&FsPath>| place == Some(&self.path);
        self.path.starts_with(path)
            || is(parent.as_ref())
            || self.reach == Reach::Entries && is(parent.and_then(|parent| parent.parent()).as_ref())
    }
}

/// All questions.
#[derive(Default)]
pub(super) struct Loads {
    loads: HashMap<LoadId, Load>,
    /// Those for the attributes of a path that can be waited for.
    flights: HashMap<FsPath, (LoadId, Arc<Flight>)>,
    last: u64,
    /// What may still change, though nobody waits for it any more, and until when that is to be expected.
    doubts: Vec<(FsPath, Instant)>,
}

/// More doubts than this concern everything.
const DOUBTS_MAX: usize = 100;

impl Loads {
    /// A question is put.
    pub(super) fn begin(&mut self, path: FsPath, reach: Reach) -> LoadId {
        self.last += 1;
        let id = LoadId(self.last);
        self.loads.insert(id, Load { path, reach, stale: false });
        id
    }

    /// The same, for others to wait for.
    pub(super) fn begin_flight(&mut self, path: &FsPath) -> (LoadId, Arc<Flight>) {
        let id = self.begin(path.clone(), Reach::Path);
        let flight = Arc::new(Flight::default());
        self.flights.insert(path.clone(), (id, Arc::clone(&flight)));
        (id, flight)
    }

    /// Who is asking for `path` and can be waited for.
    pub(super) fn flight(&self, path: &FsPath) -> Option<Arc<Flight>> {
        self.flights.get(path).map(|(_, flight)| Arc::clone(flight))
    }

    /// The answer has come, at `now`. Whether it may be kept.
    pub(super) fn end(&mut self, id: LoadId, now: Instant) -> bool {
        let Some(load) = self.loads.remove(&id) else { return false };
        if self.flights.get(&load.path).is_some_and(|(flying, _)| *flying == id) {
            self.flights.remove(&load.path);
        }
        self.doubts.retain(|(_, until)| now < *until);
        !load.stale && !self.doubts.iter().any(|(path, _)| load.is_concerned_by(path))
    }

    /// `path` may change until `until`.
    pub(super) fn doubt(&mut self, path: FsPath, until: Instant) {
        if self.doubts.len() < DOUBTS_MAX {
            self.doubts.push((path, until));
        } else {
            self.doubts = vec![(FsPath::root(), until)];
        }
    }

    /// `path` has changed, or is about to be forgotten.
    pub(super) fn changed(&mut self, path: &FsPath) {
        let Self { loads, flights, .. } = self;
        for (id, load) in loads.iter_mut().filter(|(_, load)| load.is_concerned_by(path)) {
            load.stale = true;
            if flights.get(&load.path).is_some_and(|(flying, _)| flying == id) {
                flights.remove(&load.path);
            }
        }
    }
}

/// A question that others wait for.
#[derive(Default)]
pub(super) struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

enum Outcome {
    Answered(Result<Attr>),
    /// Its caller was interrupted: somebody else has to ask.
    GivenUp,
}

impl Wake for Flight {
    /// An interrupt of a waiting thread: it looks again, under the lock, so that the wake-up is not lost.
    fn wake(self: Arc<Self>) {
        drop(self.outcome.lock());
        self.landed.notify_all();
    }
}

impl Flight {
    /// The answer; none if there will not be one. Fails when `ctx` is interrupted.
    pub(super) fn wait(self: &Arc<Self>, ctx: &Ctx) -> Result<Option<Result<Attr>>> {
        ctx.cancel().register(&Waker::from(Arc::clone(self)));
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(Outcome::Answered(answer)) => return Ok(Some(answer.clone())),
                Some(Outcome::GivenUp) => return Ok(None),
                None => {
                    ctx.check()?;
                    self.landed.wait(&mut outcome);
                }
            }
        }
    }

    /// The answer, or none if there will not be one.
    pub(super) fn land(&self, answer: Option<Result<Attr>>) {
        let outcome = answer.map_or(Outcome::GivenUp, Outcome::Answered);
        *self.outcome.lock() = Some(outcome);
        self.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FsPath {
        FsPath::parse(text).unwrap()
    }

    #[test]
    fn a_change_concerns_what_is_there_below_and_just_above() {
        let mut loads = Loads::default();
        let cases = [
            ("/a/b", Reach::Path, false),
            ("/a/b/c/d", Reach::Path, false),
            ("/a", Reach::Path, false),
            ("/", Reach::Path, true),
            ("/a/bc", Reach::Path, true),
            ("/a/b/c", Reach::Entries, false),
            ("/a", Reach::Entries, false),
            // The entry `a` of the root has another time, and so the listing is old.
            ("/", Reach::Entries, false),
            ("/x", Reach::Entries, true),
        ];
        let ids = cases.map(|(at, reach, _)| loads.begin(path(at), reach));
        loads.changed(&path("/a/b"));
        for ((at, reach, kept), id) in cases.into_iter().zip(ids) {
            assert_eq!(loads.end(id, Instant::now()), kept, "{at} {reach:?}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_may_still_change() {
        let mut loads = Loads::default();
        let (now, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(30));
        loads.doubt(path("/a"), later);
        let ids = ["/a/b", "/c", "/a"].map(|at| loads.begin(path(at), Reach::Path));
        assert_eq!(
            [loads.end(ids[0], now), loads.end(ids[1], now), loads.end(ids[2], later)],
            [false, true, true]
        );
        for number in 0..=DOUBTS_MAX {
            loads.doubt(path(&format!("/{number}")), later);
        }
        let id = loads.begin(path("/other"), Reach::Path);
        assert!(!loads.end(id, now), "with so many doubts, of everything");
        assert!(loads.doubts.len() <= DOUBTS_MAX);
    }

    #[test]
    fn nobody_joins_a_question_from_before_a_change() {
        let mut loads = Loads::default();
        let (before, _) = loads.begin_flight(&path("/a"));
        loads.changed(&path("/a"));
        assert!(loads.flight(&path("/a")).is_none());
        let (after, flight) = loads.begin_flight(&path("/a"));
        assert!(!loads.end(before, Instant::now()));
        assert!(loads.flight(&path("/a")).is_some_and(|joined| Arc::ptr_eq(&joined, &flight)));
        assert!(loads.end(after, Instant::now()));
        assert!(loads.flight(&path("/a")).is_none());
    }
}
