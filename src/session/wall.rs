//! The panic wall: nothing unwinds from a request into libfuse. A panic is logged with its backtrace, the
//! request is answered by its guard, and the worker goes on.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::set_hook;
use std::panic::take_hook;
use std::sync::Once;

use log::error;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; none if it panicked.
///
/// What the work shares with others must stand a panic: locks here are those of parking_lot, which know no
/// poison, so invariants are restored by guards or not broken before what can panic.
pub(super) fn wall<T>(work: impl FnOnce() -> T) -> Option<T> {
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(false);
    outcome.ok()
}

/// Sends panics inside the wall to the log; others go where they went before.
pub(super) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if INSIDE.get() {
                error!(
                    "Panic in a request, which is answered with EIO: {info}\n{}",
                    Backtrace::force_capture()
                );
            } else {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_wall() {
        install_hook();
        assert_eq!(wall(|| 1), Some(1));
        assert_eq!(wall(|| -> u32 { panic!("on purpose") }), None);
        assert!(!INSIDE.get());
    }
}
