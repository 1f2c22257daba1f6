//! Pages that are on their way from the backend, or from there to the disk: who wants one that somebody else is loading
//! waits for it, and who wants one that was loaded just now gets it from here.
//!
//! Lock order: the table is the only lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Wake;
use std::task::Waker;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::order::PageId;
use crate::fs::Ctx;
use crate::fs::Result;
use crate::fs::Slices;

/// All that is on its way.
#[derive(Default)]
pub(super) struct Loads {
    table: Mutex<HashMap<PageId, Option<Slices>>>,
    /// Told of every change, and of the interrupts of those who wait.
    changed: Condvar,
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
    /// The turn of `ctx` at `page`, after waiting for whoever is loading it.
    pub(super) fn join(self: &Arc<Self>, ctx: &Ctx, page: PageId) -> Result<Turn> {
        let mut table = self.table.lock();
        match table.get(&page) {
            None => {
                table.insert(page, None);
                drop(table);
                return Ok(Turn::Mine(Load { loads: Arc::clone(self), page }));
            }
            Some(Some(bytes)) => return Ok(Turn::Loaded(bytes.clone())),
            Some(None) => {}
        }
        drop(table);
        let waker = Waker::from(Arc::new(Bell(Arc::clone(self))));
        ctx.cancel().register(&waker);
        let mut table = self.table.lock();
        loop {
            ctx.check()?;
            match table.get(&page) {
                None => return Ok(Turn::Again),
                Some(Some(bytes)) => return Ok(Turn::Loaded(bytes.clone())),
                Some(None) => self.changed.wait(&mut table),
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
        self.loads.table.lock().insert(self.page, Some(bytes));
        self.loads.changed.notify_all();
        move || drop(self)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.loads.end(self.page);
    }
}
