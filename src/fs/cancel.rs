//! On whose behalf an operation runs, and how it is told to stop waiting. Knows neither libfuse nor
//! futures: whoever waits hands in a waker.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Waker;

use parking_lot::Mutex;

use super::Fault;
use super::Finding;
use super::FsError;
use super::Result;

/// One request's interrupt: set once, by whoever received the interrupt, and seen by the thread that waits.
#[derive(Default)]
pub struct Cancel {
    set: AtomicBool,
    /// Whom to wake. Taken by `cancel`, so that a waker runs at most once for each registration.
    waker: Mutex<Option<Waker>>,
}

impl Cancel {
    /// Not cancelled yet.
    pub const fn new() -> Self {
        Self { set: AtomicBool::new(false), waker: Mutex::new(None) }
    }

    /// Asks the operation to stop waiting.
    pub fn cancel(&self) {
        self.set.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Registers the waker of the thread that is about to wait; returns true if it need not wait any more.
    /// The latest registration counts.
    pub fn register(&self, waker: &Waker) -> bool {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        // Read under the lock: a `cancel` that came before finds its waker here or is seen now.
        self.is_cancelled()
    }
}

/// The caller of one operation.
pub struct Ctx<'a> {
    /// Effective user of the calling process.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// The calling thread as the kernel numbers it; 0 if it is not a process, such as writeback.
    pub pid: u32,
    cancel: &'a Cancel,
    finding: Option<&'a Finding>,
}

impl<'a> Ctx<'a> {
    /// A caller whose interrupt sets `cancel`.
    pub fn new(uid: u32, gid: u32, pid: u32, cancel: &'a Cancel) -> Self {
        Self { uid, gid, pid, cancel, finding: None }
    }

    /// The same caller. What a backend learns may be kept in `finding`, and what is there may be gone by: see [`Finding`].
    pub fn with_finding<'b>(&'b self, finding: &'b Finding) -> Ctx<'b> {
        Ctx { finding: Some(finding), ..*self }
    }

    /// Where to keep what is learned, if anybody wants it.
    pub fn finding(&self) -> Option<&'a Finding> {
        self.finding
    }

    /// Whether an answer that was just given for this caller is one that was learned before it was asked for.
    pub fn is_by_finding(&self) -> bool {
        self.finding.is_some_and(Finding::is_used)
    }

    /// The caller's interrupt.
    pub fn cancel(&self) -> &'a Cancel {
        self.cancel
    }

    /// Fails with [`Fault::Interrupted`] once the caller was interrupted.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(FsError::new(Fault::Interrupted)) } else { Ok(()) }
    }
}

impl Ctx<'static> {
    /// The mount itself, which nobody interrupts: for start-up, release and background work.
    pub fn daemon() -> Self {
        static NEVER: Cancel = Cancel::new();
        Self {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            pid: 0,
            cancel: &NEVER,
            finding: None,
        }
    }
}
