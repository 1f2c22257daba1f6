//! How a mount is started: at the terminal, or in the background by a command that waits for it.

use std::io;

use super::Failure;
use super::background::Confirmation;
use super::background::Handshake;

/// Who is told how the start went.
pub enum Launch {
    /// Somebody at the terminal, by this call once the mount is made.
    Terminal(Box<dyn FnOnce()>),
    /// The command that started this process.
    Command(Handshake),
    /// Everybody was told.
    Told,
}

impl Launch {
    /// Tells that the mount is made. `abandoned` is called if nobody wants it any more.
    pub(super) fn mounted(
        &mut self,
        abandoned: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Confirmation>> {
        match std::mem::replace(self, Self::Told) {
            Self::Terminal(tell) => {
                tell();
                Ok(None)
            }
            Self::Command(handshake) => handshake.mounted(abandoned).map(Some),
            Self::Told => Ok(None),
        }
    }

    /// Tells the command that there is no mount, if it waits for one. At the terminal, whoever called tells it.
    pub fn failed(self, failure: &Failure) {
        match self {
            Self::Command(handshake) => handshake.failed(failure),
            Self::Terminal(_) | Self::Told => {}
        }
    }
}
