//! What a look-up has found out for the open that follows it in the same system call, so that open(2) asks the backend
//! once. Knows nothing of what was found, and of backends only [`Finding`].
//!
//! An open shows the file as it is when open(2) is called, or later. The kernel makes two requests of it, LOOKUP and OPEN,
//! and says in neither that they belong together. They do if the thread that sent the one had been waiting in open(2) for
//! reading then, and is in the same call when it sends the other. Three things make that sure:
//!
//! * The look-up is answered so that the kernel believes the name for no time at all. So whatever walks along the path in
//!   another call looks up anew, and that takes the place of what was kept here: the first call may fail
//!   after its look-up, for want of a right or as something is a file that should be a directory, and be made
//!   again with the same arguments.
//! * That does not help if the name was believed anyway, as somebody else has looked it up otherwise. Then nothing is
//!   kept or used, until the last answer of that kind is too old by far to be believed.
//! * Who reopens a descriptor (`/proc/self/fd/N`) walks along no path. Then the system call is another one: it is
//!   compared, with its arguments and the place in the program that made it.
//!
//! What is left: a thread whose open(2) fails after the look-up, and which within [`KEPT_FOR`] reopens such a descriptor of the same
//! file by the same instruction, with the same stack, the same address of the path and the same flags, and has asked
//! for nothing else between them, may see the file as it was at the first of the two.
//!
//! Lock order: nothing else is taken while the table is locked.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::Ino;
use super::system_call::SystemCall;
use crate::fs::Ctx;
use crate::fs::Finding;

/// How long what was found is of use. Between the requests of one call lie microseconds, or what the scheduler makes of them.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(1);

/// Threads between their look-up and their open, and those that did not come to it.
const KEPT_MAX: usize = 256;

struct Kept {
    ino: Ino,
    call: SystemCall,
    user: (u32, u32),
    since: Instant,
    finding: Finding,
}

/// What was found, by the thread for which it was.
#[derive(Default)]
pub(super) struct Openings {
    kept: Mutex<HashMap<u32, Kept>>,
    /// How many those are, to be read by everybody.
    len: AtomicUsize,
}

impl Openings {
    /// Keeps what was found about `ino` in a look-up by `ctx` in `call`.
    pub(super) fn keep(&self, ctx: &Ctx, ino: Ino, call: SystemCall, finding: Finding) {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, kept| now < kept.since + KEPT_FOR);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(ctx.pid, Kept { ino, call, user: (ctx.uid, ctx.gid), since: now, finding });
        }
        self.len.store(kept.len(), Ordering::Relaxed);
    }

    /// What was found about `ino` for the caller of `ctx`, if he is still in the call that it was found for, which `look`
    /// tells. It is given once.
    pub(super) fn take(
        &self,
        ctx: &Ctx,
        ino: Ino,
        look: impl FnOnce() -> Option<SystemCall>,
    ) -> Option<Finding> {
        let kept = self.remove(ctx.pid)?;
        let fits = kept.ino == ino && kept.user == (ctx.uid, ctx.gid) && kept.since.elapsed() < KEPT_FOR;
        (fits && look() == Some(kept.call)).then_some(kept.finding)
    }

    /// The thread `tid` asks for something else: it is past the look-up, or in another call.
    pub(super) fn forget(&self, tid: u32) {
        drop(self.remove(tid));
    }

    fn remove(&self, tid: u32) -> Option<Kept> {
        // What a thread has kept it sees here, as it has had an answer since.
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut kept = self.kept.lock();
        let removed = kept.remove(&tid);
        self.len.store(kept.len(), Ordering::Relaxed);
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Cancel;

    const FILE: Ino = Ino(7);

    static NEVER: Cancel = Cancel::new();

    fn caller(tid: u32) -> Ctx<'static> {
        Ctx::new(1, 2, tid, &NEVER)
    }

    fn call(place: u64) -> SystemCall {
        SystemCall::example(place)
    }

    fn found(number: u32) -> Finding {
        let finding = Finding::default();
        finding.keep(number);
        finding
    }

    fn taken(openings: &Openings, ctx: &Ctx, ino: Ino, place: u64) -> Option<u32> {
        openings.take(ctx, ino, || Some(call(place)))?.kept::<u32>().map(|number| *number)
    }

    #[test]
    fn what_was_found_is_for_its_call_and_given_once() {
        let openings = Openings::default();
        openings.keep(&caller(1), FILE, call(1), found(1));
        openings.keep(&caller(2), FILE, call(1), found(2));
        assert_eq!(taken(&openings, &caller(2), FILE, 1), Some(2));
        assert_eq!(taken(&openings, &caller(2), FILE, 1), None);
        assert_eq!(taken(&openings, &caller(1), FILE, 1), Some(1));
        assert_eq!(openings.len.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whatever_differs_it_is_gone() {
        let other_user = Ctx::new(9, 2, 1, &NEVER);
        let other_group = Ctx::new(1, 9, 1, &NEVER);
        for (ctx, ino, place) in
            [(&caller(1), Ino(8), 1), (&caller(1), FILE, 2), (&other_user, FILE, 1), (&other_group, FILE, 1)]
        {
            let openings = Openings::default();
            openings.keep(&caller(1), FILE, call(1), found(1));
            assert_eq!(taken(&openings, ctx, ino, place), None);
            assert_eq!(taken(&openings, &caller(1), FILE, 1), None, "it was given once");
        }
        let openings = Openings::default();
        openings.keep(&caller(1), FILE, call(1), found(1));
        assert!(openings.take(&caller(1), FILE, || None).is_none(), "the call cannot be seen any more");
    }

    #[test]
    fn another_request_of_the_thread_ends_it() {
        let openings = Openings::default();
        openings.forget(1);
        openings.keep(&caller(1), FILE, call(1), found(1));
        openings.forget(2);
        openings.forget(1);
        assert_eq!(taken(&openings, &caller(1), FILE, 1), None);
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let openings = Openings::default();
        for tid in 0..=KEPT_MAX as u32 {
            openings.keep(&caller(tid), FILE, call(1), found(tid));
        }
        assert_eq!(openings.len.load(Ordering::Relaxed), KEPT_MAX);
        assert_eq!(taken(&openings, &caller(KEPT_MAX as u32), FILE, 1), None);
        assert_eq!(taken(&openings, &caller(0), FILE, 1), Some(0));
    }
}
