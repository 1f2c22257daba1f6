//! What is told to systemd, or whoever else started this process and waits at `$NOTIFY_SOCKET`. Without that, nothing.

use std::path::Path;

use sd_notify::NotifyState;

/// The mount answers.
pub(super) fn ready(path: &str, point: &Path) {
    let status = format!("{path} is mounted at {}", point.display());
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id()), NotifyState::Status(&status)]);
}

/// The mount has been asked to end, or was ended.
pub(super) fn stopping(point: &Path) {
    let status = format!("{} is being unmounted", point.display());
    tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        log::warn!("cannot tell the service manager: {err}");
    }
}
