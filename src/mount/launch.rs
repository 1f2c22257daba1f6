//! How a mount is started: at the terminal, or in the background by a command that waits for it.

use super::Failure;
use super::background::Handshake;

/// Who is told how the start went.
pub enum Launch {
    /// Somebody at the terminal, by this call once the mount is made.
    Terminal(Box<dyn Fn()>),
    /// The command that started this process.
    Command(Handshake),
}

impl Launch {
    /// Whether the process ends with the terminal that it was started from. One in the foreground of a container or of
    /// a service has none.
    pub(super) fn is_at_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_)) && std::fs::File::open("/dev/tty").is_ok()
    }

    /// Tells that it gets serious.
    pub(super) fn mounting(&self) {
        match self {
            Self::Terminal(_) => {}
            Self::Command(handshake) => handshake.mounting(),
        }
    }

    /// Tells that the mount is made. `abandoned` is called if nobody wants it any more.
    pub(super) fn mounted(&self, abandoned: impl FnOnce() + Send + 'static) {
        match self {
            Self::Terminal(tell) => tell(),
            Self::Command(handshake) => handshake.mounted(Box::new(abandoned)),
        }
    }

    /// Tells the command that there is no mount. At the terminal, whoever called tells it.
    pub fn failed(&self, failure: &Failure) {
        match self {
            Self::Terminal(_) => {}
            Self::Command(handshake) => handshake.failed(failure),
        }
    }
}
