//! Whether anything more is opened, and what is being opened just now: so that who waits for the end of all use misses
//! nothing between the two.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;

/// Whether opens are taken, and how many are under way.
#[derive(Debug, Default)]
pub(super) struct Drain {
    refuses: AtomicBool,
    under_way: AtomicUsize,
}

/// An open under way, until it has failed or there is a handle.
#[derive(Debug)]
pub(super) struct Opening<'a>(&'a Drain);

impl Drain {
    /// Whether opens are refused from now on.
    pub(super) fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, SeqCst);
    }

    /// An open begins; [`Fault::Busy`] if they are refused.
    pub(super) fn open(&self) -> Result<Opening<'_>> {
        // Counted first: who refuses and then counts sees each that was not refused.
        self.under_way.fetch_add(1, SeqCst);
        let opening = Opening(self);
        if self.refuses.load(SeqCst) {
            return Err(FsError::because(Fault::Busy, "the mount is about to end, nothing more is opened"));
        }
        Ok(opening)
    }

    /// Opens under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(SeqCst)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_counts_until_it_is_over_and_is_refused_in_a_drain() {
        let drain = Drain::default();
        let opening = drain.open().unwrap();
        assert_eq!(drain.under_way(), 1);
        drain.refuse(true);
        assert_eq!(drain.open().unwrap_err().fault(), Fault::Busy);
        assert_eq!(drain.under_way(), 1, "one that was refused is over");
        drop(opening);
        assert_eq!(drain.under_way(), 0);
        drain.refuse(false);
        assert!(drain.open().is_ok());
    }
}
