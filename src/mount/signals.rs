//! Signals to a mount, as calls on a thread of their own, where anything may be done.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::SIGUSR2;
use signal_hook::iterator::Handle;
use signal_hook::iterator::Signals;

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

/// The signals, which from now on do not end this process. Those that come before there is a thread wait for it.
pub(super) struct CaughtSignals(Signals);

/// The thread that waits for signals. Dropped, it ends and is joined.
pub(super) struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl CaughtSignals {
    /// Catches all signals that people send to a server.
    pub(super) fn new() -> io::Result<Self> {
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]).map(Self)
    }

    /// Calls `received` for each signal.
    pub(super) fn call(self, mut received: impl FnMut(Caught) + Send + 'static) -> io::Result<SignalThread> {
        let Self(mut signals) = self;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                received(match signal {
                    SIGTERM => Caught::Term,
                    SIGINT => Caught::Int,
                    SIGQUIT => Caught::Quit,
                    SIGUSR1 => Caught::Usr1,
                    SIGUSR2 => Caught::Usr2,
                    _ => Caught::Hup,
                });
            }
        })?;
        Ok(SignalThread { handle, thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that waits for signals panicked");
        }
    }
}
