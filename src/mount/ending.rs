//! How a mount ends when it is asked to: at once or after the open files, politely or by force.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::logging;
use super::unmount;
use crate::session::Stop;
use crate::session::Stopper;
use crate::vfs::Vfs;

/// How often open files are counted while they are waited for.
const STEP: Duration = Duration::from_millis(50);

/// Exit code of a mount that was ended by force.
const FORCED: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Told to end, waiting until files are closed.
    Draining,
    Stopping,
    /// The mount is gone, and files are being completed.
    Finishing,
    /// Somebody was told so.
    Hurried,
}

/// The end of one mount. Each request to end that comes on top of another is more urgent.
pub(super) struct Ending {
    inner: Arc<Inner>,
    /// Waits for files to be closed.
    drain: Option<JoinHandle<()>>,
}

struct Inner {
    stopper: Stopper,
    vfs: Arc<Vfs>,
    point: PathBuf,
    /// How long open files are waited for.
    patience: Duration,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Ending {
    pub(super) fn new(stopper: Stopper, vfs: Arc<Vfs>, point: PathBuf, patience: Duration) -> Self {
        let phase = Mutex::new(Phase::Serving);
        let inner = Inner { stopper, vfs, point, patience, phase, changed: Condvar::new() };
        Self { inner: Arc::new(inner), drain: None }
    }

    /// Ends the mount: the first time as the settings say, the next time without waiting for open files, then by
    /// force.
    pub(super) fn request(&mut self) {
        let mut phase = self.inner.phase.lock();
        match *phase {
            Phase::Serving if self.inner.patience.is_zero() || self.inner.is_free() => {
                *phase = Phase::Stopping;
                drop(phase);
                self.inner.stop();
            }
            Phase::Serving => {
                *phase = Phase::Draining;
                drop(phase);
                self.start_drain();
            }
            Phase::Draining => {
                *phase = Phase::Stopping;
                self.inner.changed.notify_all();
                drop(phase);
                self.inner.cut();
            }
            Phase::Finishing => {
                *phase = Phase::Hurried;
                log::warn!("files are still being completed, another signal ends this process without them");
            }
            Phase::Stopping | Phase::Hurried => {
                drop(phase);
                self.inner.force();
            }
        }
    }

    /// What is to be called when the mount is gone.
    pub(super) fn finishing(&self) -> impl FnOnce() + use<> {
        let inner = Arc::clone(&self.inner);
        move || *inner.phase.lock() = Phase::Finishing
    }

    fn start_drain(&mut self) {
        self.join_drain();
        log::info!(
            "Unmounting {}. Waiting for all in progress file read/write to finish",
            self.inner.point.display()
        );
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new().name("drain".to_owned()).spawn(move || inner.drain());
        match thread {
            Ok(thread) => self.drain = Some(thread),
            Err(err) => {
                log::error!("cannot wait for open files: {err}");
                *self.inner.phase.lock() = Phase::Stopping;
                self.inner.stop();
            }
        }
    }

    fn join_drain(&mut self) {
        if let Some(thread) = self.drain.take()
            && thread.join().is_err()
        {
            log::error!("the thread that waits for open files panicked");
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        *self.inner.phase.lock() = Phase::Stopping;
        self.inner.changed.notify_all();
        self.join_drain();
    }
}

impl Inner {
    /// Whether nothing is open, and nothing will be.
    fn is_free(&self) -> bool {
        self.vfs.refuse_opens(true);
        self.vfs.in_use() == 0
    }

    /// Unmounts, whether or not somebody uses the mount: who comes here has waited as long as the settings say.
    fn stop(&self) {
        log::info!("Umounting {}", self.point.display());
        let still_used = match self.stopper.stop(Stop::Soft) {
            Ok(()) if self.stopper.is_connected() => {
                "it was detached, or is mounted elsewhere as well".to_owned()
            }
            Ok(()) => return,
            Err(err) => err.to_string(),
        };
        log::warn!("{} is cut off from those who use it: {still_used}", self.point.display());
        self.cut();
    }

    fn cut(&self) {
        if let Err(err) = self.stopper.stop(Stop::Force) {
            log::error!("Failed to umount {}: {err}", self.point.display());
        }
    }

    /// Waits until all files are closed. If they are not in time, the mount goes on as if nothing had been asked.
    fn drain(&self) {
        let start = std::time::Instant::now();
        let mut phase = self.phase.lock();
        while *phase == Phase::Draining {
            if self.vfs.in_use() == 0 {
                *phase = Phase::Stopping;
                drop(phase);
                self.stop();
                return;
            }
            if start.elapsed() >= self.patience {
                log::error!(
                    "Timeout when waiting all in progress file read/write to finish when unmounting {}. {} file \
                     streams remain unclosed.",
                    self.point.display(),
                    self.vfs.in_use()
                );
                self.vfs.refuse_opens(false);
                *phase = Phase::Serving;
                return;
            }
            self.changed.wait_for(&mut phase, STEP);
        }
    }

    /// Ends this process whatever it is doing.
    fn force(&self) -> ! {
        log::error!("ending {} by force, files that are being written are lost", self.point.display());
        if let Err(problem) = unmount::clean_up(&self.point) {
            log::error!("{problem}");
        }
        logging::flush();
        std::process::exit(FORCED)
    }
}
