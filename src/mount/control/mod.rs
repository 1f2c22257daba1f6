//! The control socket of a mount: a private door by which `stats`, `top`, `trace`, `threads`, `profile` and `loglevel`
//! look into the process that serves it.
//!
//! One thread takes callers in and one serves each of them, up to a few at a time. None of them is ever waited for by
//! the mount, and none of them waits long for a caller: who does not read is cut off. Callers are this user and root.
//!
//! Lock order: the list of callers is taken alone.

mod client;
mod inspect;
mod line;
mod profile;
mod protocol;
mod serve;
mod top;
mod trace;
mod waits;

pub use client::Control;
pub use protocol::*;

pub(super) use inspect::Inspected;

use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use parking_lot::Mutex;

use line::Line;

/// Callers at a time. One more is told so.
const CALLERS_MAX: usize = 8;

/// The open door. Dropped, it is closed, and whoever is inside is sent away.
pub(super) struct Door {
    path: PathBuf,
    inside: Arc<Inside>,
    /// Its end wakes the thread that takes callers in.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Inside {
    inspected: Inspected,
    ending: Arc<AtomicBool>,
    callers: Mutex<Vec<Caller>>,
}

struct Caller {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

/// The name of the socket of process `pid` in the directory of the registry.
pub(super) fn name(pid: i32) -> String {
    format!("{pid}.sock")
}

/// A path for `file` in `dir` that is short enough for the address of a socket, as long as the descriptor lives.
fn address(dir: &Path, file: &str) -> io::Result<(File, PathBuf)> {
    let dir = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{file}", dir.as_raw_fd()));
    Ok((dir, path))
}

impl Door {
    /// Opens the door of this process in `dir`, which belongs to this user alone.
    pub(super) fn open(dir: &Path, inspected: Inspected) -> io::Result<Self> {
        let name = name(std::process::id().cast_signed());
        let path = dir.join(&name);
        // A process of the same number has left it behind.
        drop(std::fs::remove_file(&path));
        let (kept, short) = address(dir, &name)?;
        let listener = UnixListener::bind(&short)?;
        std::fs::set_permissions(&short, Permissions::from_mode(0o600))?;
        drop(kept);
        let (wake, woken) = UnixStream::pair()?;
        let inside = Inside { inspected, ending: Arc::default(), callers: Mutex::default() };
        let inside = Arc::new(inside);
        let own = Arc::clone(&inside);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || take_in(&listener, &woken, &own))?;
        Ok(Self { path, inside, wake: Some(wake), thread: Some(thread) })
    }

    /// Whether callers still find it.
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.inside.ending.store(true, Ordering::Relaxed);
        drop(std::fs::remove_file(&self.path));
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
        let callers = std::mem::take(&mut *self.inside.callers.lock());
        for caller in &callers {
            // Whatever it waits for ends.
            drop(caller.stream.shutdown(Shutdown::Both));
        }
        callers.into_iter().for_each(|caller| join(caller.thread));
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("a thread of the control socket panicked");
    }
}

/// Takes callers in until the other end of `woken` is gone.
fn take_in(listener: &UnixListener, woken: &UnixStream, inside: &Arc<Inside>) {
    loop {
        let mut polled =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        let outcome = poll(&mut polled, PollTimeout::NONE);
        if inside.ending.load(Ordering::Relaxed) {
            return;
        }
        if outcome.is_err() {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => receive(stream, inside),
            Err(err) => {
                log::warn!("nobody can be taken in at the control socket: {err}");
                // Out of descriptors, most likely: others may close some.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

fn receive(stream: UnixStream, inside: &Arc<Inside>) {
    if let Err(reason) = welcome(stream, inside) {
        log::warn!("a caller at the control socket was sent away: {reason}");
    }
}

/// Gives the caller a thread, if there is room.
fn welcome(stream: UnixStream, inside: &Arc<Inside>) -> Result<(), String> {
    let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| errno.to_string())?;
    if !may_enter(peer.uid()) {
        return Err(format!("user {} is not the one who mounts, and not root", peer.uid()));
    }
    let copy = stream.try_clone().map_err(|err| err.to_string())?;
    let mut line = Line::new(stream, Arc::clone(&inside.ending)).map_err(|err| err.to_string())?;
    let mut callers = inside.callers.lock();
    let (gone, staying) = std::mem::take(&mut *callers).into_iter().partition(|c| c.thread.is_finished());
    *callers = staying;
    let gone: Vec<Caller> = gone;
    gone.into_iter().for_each(|caller| join(caller.thread));
    if callers.len() >= CALLERS_MAX {
        let problem = format!("{CALLERS_MAX} others look into this mount already, end one of them");
        drop(line.say(&Answer::Error(problem.clone())));
        return Err(problem);
    }
    let own = Arc::clone(inside);
    let thread = std::thread::Builder::new()
        .name("control-caller".to_owned())
        .spawn(move || serve::serve(&mut line, &own.inspected));
    callers.push(Caller { stream: copy, thread: thread.map_err(|err| err.to_string())? });
    Ok(())
}

fn may_enter(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_of_the_mount_and_root_may_enter() {
        let own = nix::unistd::geteuid().as_raw();
        assert!(may_enter(own) && may_enter(0));
        assert!(!may_enter(own + 1));
    }
}
