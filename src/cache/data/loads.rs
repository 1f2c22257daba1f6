//! Pages that are on their way from the backend, or from there to the disk: who wants one that somebody else is loading
//! waits for it, and who wants one that was loaded just now gets it from here.
//!
//! Lock order: the table is the only lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::Wake;
use std::task::Waker;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::order::PageId;
use crate::fs::Ctx;
use crate::fs::FsError;
use crate::fs::Result;
use crate::fs::Slices;

/// All that is on its way.
#[derive(Default)]
pub(super) struct Loads {
    table: Mutex<HashMap<PageId, Way>>,
    /// Told of every change, and of the interrupts of those who wait.
    changed: Condvar,
}

/// A page on its way.
struct Way {
    /// The page, once it is here.
    bytes: Option<Slices>,
    /// Why it will not come, for those who wait for it by now: whoever comes later tries anew.
    failure: Arc<OnceLock<FsError>>,
}

/// What to do about a page.
#[expect(clippy::large_enum_variant, reason = "in a box, the bytes of each read would cost an allocation")]
pub(super) enum Turn {
    /// Nothing: these are its bytes.
    Loaded(Slices),
    /// Load it.
    Mine(Load),
    /// Somebody else has tried: look again.
    Again,
}

/// The right and duty to load a page. Dropped without [`Self::loaded`], it is somebody else's turn.
pub(super) struct Load {
    loads: Arc<Loads>,
    page: PageId,
    failure: Arc<OnceLock<FsError>>,
}

/// Wakes those who wait, so that the one who was interrupted looks.
struct Bell(Arc<Loads>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Under the lock: whoever has looked at his interrupt before is waiting by now.
        drop(self.0.table.lock());
        self.0.changed.notify_all();
    }
}

impl Loads {
    /// The turn of `ctx` at `page`, after waiting for whoever is loading it. If he fails, so does this, rather than that all who
    /// wait try it as long as he did, one after the other.
    pub(super) fn join(self: &Arc<Self>, ctx: &Ctx, page: PageId) -> Result<Turn> {
        let mut table = self.table.lock();
        let failure = match table.get(&page) {
            None => {
                let failure = Arc::default();
                table.insert(page, Way { bytes: None, failure: Arc::clone(&failure) });
                drop(table);
                return Ok(Turn::Mine(Load { loads: Arc::clone(self), page, failure }));
            }
            Some(Way { bytes: Some(bytes), .. }) => return Ok(Turn::Loaded(bytes.clone())),
            Some(Way { failure, .. }) => Arc::clone(failure),
        };
        drop(table);
        let waker = Waker::from(Arc::new(Bell(Arc::clone(self))));
        ctx.cancel().register(&waker);
        let mut table = self.table.lock();
        loop {
            ctx.check()?;
            if let Some(err) = failure.get() {
                return Err(err.clone());
            }
            match table.get(&page) {
                None => return Ok(Turn::Again),
                Some(Way { bytes: Some(bytes), .. }) => return Ok(Turn::Loaded(bytes.clone())),
                Some(_) => self.changed.wait(&mut table),
            }
        }
    }

    /// Whether nothing is on its way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.lock().is_empty()
    }

    fn end(&self, page: PageId) {
        self.table.lock().remove(&page);
        self.changed.notify_all();
    }
}

impl Load {
    /// The page is here; others get it until what is returned is called.
    pub(super) fn loaded(self, bytes: Slices) -> impl FnOnce() + Send + use<> {
        let mut table = self.loads.table.lock();
        table.get_mut(&self.page).expect("there until the load is dropped").bytes = Some(bytes);
        drop(table);
        self.loads.changed.notify_all();
        move || drop(self)
    }

    /// The page cannot be had, which is no fault of who has asked for it.
    pub(super) fn failed(self, err: FsError) {
        self.failure.set(err).expect("a load fails once");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.loads.end(self.page);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::eventually;
    use super::*;
    use crate::fs::Fault;

    #[test]
    fn those_who_wait_fail_with_who_loads_and_nobody_else() {
        const PAGE: PageId = (1, 2);
        let (loads, ctx) = (Arc::new(Loads::default()), Ctx::daemon());
        let Ok(Turn::Mine(load)) = loads.join(&ctx, PAGE) else { panic!("nobody else is there") };
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..3).map(|_| scope.spawn(|| loads.join(&Ctx::daemon(), PAGE).err())).collect();
            // Each of them has one, beside the table and the load.
            eventually(|| Arc::strong_count(&load.failure) == 5);
            load.failed(FsError::new(Fault::Unavailable));
            for thread in waiting {
                assert_eq!(thread.join().unwrap().map(|err| err.fault()), Some(Fault::Unavailable));
            }
        });
        let Ok(Turn::Mine(load)) = loads.join(&ctx, PAGE) else { panic!("it is tried anew") };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| loads.join(&ctx, PAGE));
            eventually(|| Arc::strong_count(&load.failure) == 3);
            // Interrupted, say.
            drop(load);
            assert!(matches!(waiting.join().unwrap(), Ok(Turn::Again | Turn::Mine(_))));
        });
        assert!(loads.is_empty());
    }
}
