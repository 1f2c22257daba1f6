//! Which interrupts end a request. The kernel interrupts a request for any signal of its caller, also for one
//! that the program handles and expects to go unnoticed (a profiler's SIGPROF, Go's SIGURG, SIGCHLD): a read
//! of a regular file does not fail with EINTR for those. So the caller's pending signals decide.
//!
//! The kernel sends one interrupt for a request and no second, so a request that goes on after a harmless
//! signal is looked at again from time to time, until it is answered.

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

/// How often a request that went on is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

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
        wants_to_stop(self.tid.load(Ordering::Relaxed))
    }
}

/// Looks at the watched requests until there are none.
fn watch() {
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

/// Whether a pending signal of the thread is to end what it does. Also when that cannot be told, as for a
/// caller in another pid namespace: then every interrupt counts.
fn wants_to_stop(tid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => stops(&status),
        Err(_) => true,
    }
}

/// The same for the text of `/proc/<tid>/status`, see proc_pid_status(5).
fn stops(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let Some((own, shared, blocked, ignored, caught)) =
        (|| Some((mask("SigPnd")?, mask("ShdPnd")?, mask("SigBlk")?, mask("SigIgn")?, mask("SigCgt")?)))()
    else {
        return true;
    };
    let pending = (own | shared) & !blocked;
    let default_action = pending & !caught & !ignored;
    pending & set(&STOPPING) & !ignored != 0 || default_action & !set(&HARMLESS) != 0
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
            assert!(stops(&status(&[signal], &[], &[], &[])), "{signal}");
        }
        assert!(stops(&status(&[libc::SIGINT], &[libc::SIGINT], &[], &[])));
    }

    #[test]
    fn signals_that_the_program_handles_by_the_way_do_not() {
        for signal in [libc::SIGURG, libc::SIGPROF, libc::SIGALRM, libc::SIGUSR1, libc::SIGCHLD] {
            assert!(!stops(&status(&[signal], &[signal], &[], &[])), "{signal}");
        }
        assert!(!stops(&status(&[libc::SIGCHLD, libc::SIGWINCH], &[], &[], &[])));
        assert!(!stops(&status(&[libc::SIGINT], &[], &[libc::SIGINT], &[])));
        assert!(!stops(&status(&[libc::SIGUSR1], &[], &[], &[libc::SIGUSR1])));
    }

    #[test]
    fn what_cannot_be_told_counts() {
        assert!(stops("Name:\tcat\n"));
        assert!(wants_to_stop(u32::MAX));
    }
}
