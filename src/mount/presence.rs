//! What commands find a mount by: its record and its control socket. Both are made anew if somebody has cleaned up the
//! directory that they are in, as the system does with `/tmp`, and with `/run/user/UID` when the user logs out.
//!
//! Lock order: the state is taken alone, by the ticker and at the end, and held while files are made.

use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::Failure;
use super::Registry;
use super::control::Door;
use super::control::Inspected;
use super::registry::Registration;

/// The record and the socket of this process's mount. Dropped, both are removed.
pub(super) struct Presence {
    dirs: Vec<PathBuf>,
    inspected: Inspected,
    state: Mutex<State>,
}

/// What there is of it.
enum State {
    Made(Made),
    /// The next look tries again.
    Failed,
    Ended,
}

/// The door is closed first: a socket without a record is taken for one that was left behind.
struct Made {
    door: Option<Door>,
    registration: Registration,
}

impl Presence {
    /// Opens the door beside `registration`, which is in `registry`, the one of `dirs`.
    pub(super) fn begin(
        dirs: Vec<PathBuf>,
        registry: &Registry,
        registration: Registration,
        inspected: Inspected,
    ) -> Self {
        let door = open(registry.dir(), &inspected);
        Self { dirs, inspected, state: Mutex::new(State::Made(Made { door, registration })) }
    }

    /// Makes record and socket anew if one of them is gone.
    pub(super) fn renew(&self) {
        let mut state = self.state.lock();
        match &*state {
            State::Ended => return,
            State::Made(made) if made.is_there() => return,
            State::Made(_) | State::Failed => {}
        }
        // What is left of the old ones has the names of the new ones, so it goes first.
        *state = State::Failed;
        match self.make() {
            Ok(made) => {
                log::warn!("somebody has removed the record of this mount, it is made anew");
                *state = State::Made(made);
            }
            Err(failure) => log::warn!("commands do not find this mount: {failure}"),
        }
    }

    fn make(&self) -> Result<Made, Failure> {
        let registry = Registry::open(&self.dirs)?;
        let Inspected { point, path, .. } = &self.inspected;
        let registration =
            registry.add(point, path).map_err(|err| Failure::because("cannot record the mount", err))?;
        Ok(Made { door: open(registry.dir(), &self.inspected), registration })
    }

    /// Lets nobody look into the mount any more. The record stays as long as what is returned.
    pub(super) fn close(&self) -> Option<Registration> {
        match std::mem::replace(&mut *self.state.lock(), State::Ended) {
            State::Made(Made { door, registration }) => {
                drop(door);
                Some(registration)
            }
            State::Failed | State::Ended => None,
        }
    }
}

impl Made {
    fn is_there(&self) -> bool {
        self.registration.is_there() && self.door.as_ref().is_none_or(Door::is_there)
    }
}

fn open(dir: &Path, inspected: &Inspected) -> Option<Door> {
    Door::open(dir, inspected.clone())
        .map_err(|err| log::warn!("nobody can look into this mount: {err}"))
        .ok()
}
