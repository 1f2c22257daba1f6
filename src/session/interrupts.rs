//! Which interrupts end a request. The kernel interrupts a request for any signal of its caller, also for one
//! that the program handles and expects to go unnoticed (a profiler's SIGPROF, Go's SIGURG, SIGCHLD): a read
//! of a regular file does not fail with EINTR for those. So the caller's pending signals decide.
//!
//! The kernel sends one interrupt for a request and no second, so a request that goes on after a harmless
//! signal is looked at again from time to time, until it is answered. So is one whose caller cannot be looked
//! at, as it lives in another pid namespace: it ends when it has gone on for a while.

use std::fs;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::fs::Cancel;
use crate::threads;

/// How often a request that went on is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// After how many looks an interrupt counts whose reason cannot be told: one second.
const UNKNOWN_LOOKS: u32 = 10;

/// Signals by which somebody wants the program to stop, also where it handles them.
const STOPPING: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGKILL];

/// Signals that do nothing, or stop the program only for a while, where it does not handle them.
const HARMLESS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// What interrupts the request that a worker serves. Used by one request after the other, until it is cancelled.
#[derive(Default)]
pub(super) struct Interrupt {
    cancel: Cancel,
    /// The thread that waits for the answer, as the kernel numbers it.
    tid: AtomicU32,
    /// Whether `WATCHED` may hold it.
    watched: AtomicBool,
    /// How often in vain its caller's signals were looked for.
    looks: AtomicU32,
}

impl Deref for Interrupt {
    type Target = Cancel;

    fn deref(&self) -> &Cancel {
        &self.cancel
    }
}

/// Requests that were interrupted by a harmless signal and go on.
static WATCHED: Mutex<Watched> = Mutex::new(Watched { requests: Vec::new(), watcher: false });

struct Watched {
    requests: Vec<Arc<Interrupt>>,
    /// Whether the thread that looks at them again is there.
    watcher: bool,
}

impl Interrupt {
    /// A request of thread `tid` begins.
    pub(super) fn begin(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
        self.looks.store(0, Ordering::Relaxed);
    }

    /// The request is about to be answered; it can no more be interrupted.
    pub(super) fn end(&self) {
        if self.watched.swap(false, Ordering::Relaxed) {
            WATCHED.lock().requests.retain(|other| !std::ptr::eq(&raw const **other, self));
        }
    }

    /// The kernel interrupted the request: cancels it if that is what its caller wants.
    pub(super) fn arrived(self: Arc<Self>) {
        if self.is_meant() {
            self.cancel.cancel();
            return;
        }
        let mut watched = WATCHED.lock();
        if !watched.watcher {
            let started = thread::Builder::new().name("fuse-interrupts".to_owned()).spawn(watch);
            if let Err(error) = started {
                log::warn!("no thread to watch an interrupted request with, ending it: {error}");
                drop(watched);
                self.cancel.cancel();
                return;
            }
            watched.watcher = true;
        }
        self.watched.store(true, Ordering::Relaxed);
        watched.requests.push(self);
    }

    fn is_meant(&self) -> bool {
        match wants_to_stop(self.tid.load(Ordering::Relaxed)) {
            Some(meant) => meant,
            None => self.looks.fetch_add(1, Ordering::Relaxed) >= UNKNOWN_LOOKS,
        }
    }
}

/// Looks at the watched requests until there are none.
fn watch() {
    threads::unbind();
    loop {
        thread::sleep(AGAIN);
        let mut watched = WATCHED.lock();
        // Cancelled under the lock, which `end` takes: a later request never gets what this one is meant to.
        watched.requests.retain(|request| {
            let meant = request.is_meant();
            if meant {
                request.cancel.cancel();
            }
            !meant
        });
        if watched.requests.is_empty() {
            watched.watcher = false;
            return;
        }
    }
}

/// Whether a pending signal of the thread is to end what it does; none if that cannot be told.
fn wants_to_stop(tid: u32) -> Option<bool> {
    stops(&fs::read_to_string(format!("/proc/{tid}/status")).ok()?)
}

/// The same for the text of `/proc/<tid>/status`, see proc_pid_status(5).
fn stops(status: &str) -> Option<bool> {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let pending = (mask("SigPnd")? | mask("ShdPnd")?) & !mask("SigBlk")? & !mask("SigIgn")?;
    let default_action = pending & !mask("SigCgt")?;
    Some(pending & set(&STOPPING) != 0 || default_action & !set(&HARMLESS) != 0)
}

fn set(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: &[i32], caught: &[i32], ignored: &[i32], blocked: &[i32]) -> String {
        format!(
            "Name:\tcat\nSigPnd:\t{:016x}\nShdPnd:\t0000000000000000\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
            set(pending),
            set(blocked),
            set(ignored),
            set(caught)
        )
    }

    #[test]
    fn signals_that_end_the_program_end_the_request() {
        for signal in
            [libc::SIGKILL, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, libc::SIGSEGV]
        {
            assert!(stops(&status(&[signal], &[], &[], &[])).unwrap(), "{signal}");
        }
        assert!(stops(&status(&[libc::SIGINT], &[libc::SIGINT], &[], &[])).unwrap());
    }

    #[test]
    fn signals_that_the_program_handles_by_the_way_do_not() {
        for signal in [libc::SIGURG, libc::SIGPROF, libc::SIGALRM, libc::SIGUSR1, libc::SIGCHLD] {
            assert!(!stops(&status(&[signal], &[signal], &[], &[])).unwrap(), "{signal}");
        }
        assert!(!stops(&status(&[libc::SIGCHLD, libc::SIGWINCH], &[], &[], &[])).unwrap());
        assert!(!stops(&status(&[libc::SIGINT], &[], &[libc::SIGINT], &[])).unwrap());
        assert!(!stops(&status(&[libc::SIGUSR1], &[], &[], &[libc::SIGUSR1])).unwrap());
    }

    #[test]
    fn what_cannot_be_told_counts_after_a_while() {
        assert_eq!(stops("Name:\tcat\n"), None);
        assert_eq!(wants_to_stop(u32::MAX), None);
        let interrupt = Interrupt::default();
        interrupt.begin(u32::MAX);
        assert_eq!((0..UNKNOWN_LOOKS).filter(|_| interrupt.is_meant()).count(), 0);
        assert!(interrupt.is_meant());
        interrupt.begin(u32::MAX);
        assert!(!interrupt.is_meant());
    }
}
