//! Signals to a mount, as calls on a thread of their own, where anything may be done.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::SIGUSR2;
use signal_hook::iterator::Handle;
use signal_hook::iterator::Signals as SignalsInfo;

use super::logging;

/// One signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    Term,
    Int,
    Hup,
    Quit,
    Usr1,
    Usr2,
}

/// Exit code of a process that was ended before there was a mount.
const ENDED: i32 = 1;

type Received = Box<dyn FnMut(Caught) + Send>;

/// The thread that waits for signals, which do not end this process by themselves, nor are ignored where it is the first one
/// of a container. Dropped, the thread ends and is joined.
pub(super) struct Signals {
    /// Whether a mount may be there, which a signal must not leave behind.
    mounting: Arc<Mutex<bool>>,
    /// Gives the thread who is called.
    receiver: Option<SyncSender<Received>>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Catches all signals that people send to a server. Those that end one end this process at once.
    pub(super) fn catch() -> io::Result<Self> {
        let caught = SignalsInfo::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])?;
        let handle = caught.handle();
        let mounting = Arc::new(Mutex::new(false));
        let (receiver, received) = sync_channel(1);
        let shared = Arc::clone(&mounting);
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || wait(caught, &shared, &received))?;
        Ok(Self { mounting, receiver: Some(receiver), handle, thread: Some(thread) })
    }

    /// From now on signals wait until [`Self::call`] says who is called.
    pub(super) fn mounting(&self) {
        *self.mounting.lock() = true;
    }

    /// Calls `received` for each signal, also for those that have waited.
    pub(super) fn call(&mut self, received: impl FnMut(Caught) + Send + 'static) {
        if let Some(receiver) = self.receiver.take() {
            // Its thread waits for it, or will.
            drop(receiver.send(Box::new(received)));
        }
    }
}

fn wait(mut signals: SignalsInfo, mounting: &Mutex<bool>, receiver: &Receiver<Received>) {
    let mut received: Option<Received> = None;
    for signal in signals.forever() {
        let caught = match signal {
            SIGTERM => Caught::Term,
            SIGINT => Caught::Int,
            SIGQUIT => Caught::Quit,
            SIGUSR1 => Caught::Usr1,
            SIGUSR2 => Caught::Usr2,
            _ => Caught::Hup,
        };
        // Held to the end of this process, so that no mount is begun meanwhile.
        let mounting = mounting.lock();
        if !*mounting {
            if matches!(caught, Caught::Term | Caught::Int | Caught::Hup) {
                log::info!("Receive signal number {signal} before there is a mount, system exiting");
                logging::flush();
                std::process::exit(ENDED);
            }
            continue;
        }
        drop(mounting);
        if received.is_none() {
            received = receiver.recv().ok();
        }
        match &mut received {
            Some(received) => received(caught),
            // There is no mount, and this process is about to end.
            None => return,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that waits for signals panicked");
        }
    }
}
