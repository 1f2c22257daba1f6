//! What a backend learns in one call that may spare it the next: who makes both says by a [`Ctx`](super::Ctx) that they
//! belong together. Knows nothing of what is learned, nor of when it may be used.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

/// A place for what a backend learns of one file. Whoever lends it to a call answers for it that a later call to which it
/// is lent may go by what was true in the first.
#[derive(Default)]
pub struct Finding(Mutex<Option<Kept>>);

struct Kept {
    learned: Arc<dyn Any + Send + Sync>,
    is_used: bool,
}

impl Finding {
    /// Keeps `learned`, in the place of what was kept before.
    pub fn keep(&self, learned: impl Any + Send + Sync) {
        *self.0.lock() = Some(Kept { learned: Arc::new(learned), is_used: false });
    }

    /// What was kept, if it is of that type.
    pub fn kept<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let kept = self.0.lock();
        Arc::clone(&kept.as_ref()?.learned).downcast().ok()
    }

    /// What is answered goes by what was kept.
    pub fn note_used(&self) {
        if let Some(kept) = &mut *self.0.lock() {
            kept.is_used = true;
        }
    }

    /// Whether an answer goes by what was kept: then it is as old as that, and tells no news to who remembers answers.
    pub fn is_used(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|kept| kept.is_used)
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_found_by_its_type() {
        let finding = Finding::default();
        assert!(finding.is_empty());
        assert_eq!(finding.kept::<u32>(), None);
        finding.keep(1_u32);
        finding.keep(2_u32);
        assert!(!finding.is_empty());
        assert_eq!(finding.kept::<u32>().as_deref(), Some(&2));
        assert_eq!(finding.kept::<u64>(), None);
    }

    #[test]
    fn what_is_kept_anew_has_not_been_used() {
        let finding = Finding::default();
        finding.note_used();
        assert!(!finding.is_used(), "there is nothing to be used");
        finding.keep(1_u32);
        assert!(!finding.is_used());
        finding.note_used();
        assert!(finding.is_used());
        finding.keep(2_u32);
        assert!(!finding.is_used());
    }
}
