//! The two ends of a mount in the background: the command that starts it and tells its user how that went, and the
//! process that stays.
//!
//! They talk over a socket pair, which is the process's standard input when it starts. The process says `M` when the
//! mount is made, or `F` and why not. The command looks through the mount, and says `K` to keep it. If either ends
//! first, the other sees the end of the stream: a mount that nobody confirmed goes away again.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::Failure;
use super::logging;
use super::process::wait_until;
use super::unmount;

const MOUNTED: u8 = b'M';
const FAILED: u8 = b'F';
const KEEP: u8 = b'K';

/// How long a process that was told to end may take before it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Starts this program again with `arguments`, as a process that stays, and returns when its mount at `point` answers.
/// If it does not within `limit`, nothing of it is left.
pub(super) fn start(
    arguments: &[OsString],
    point: &Path,
    logs: &Path,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let (mut socket, child_end) = UnixStream::pair().map_err(|err| Failure::because("socket pair", err))?;
    let output = logging::open(logs, logging::OUT_FILE)?;
    let mut child = spawn(arguments, child_end, output)?;
    let outcome = wait_for_mount(&mut socket, deadline, limit)
        .and_then(|()| look_through(point, deadline, limit))
        .and_then(|()| socket.write_all(&[KEEP]).map_err(|_| Failure::new("it ended right after mounting")));
    drop(socket);
    outcome.map_err(|failure| {
        end(&mut child);
        match unmount::clean_up_after(point) {
            Ok(()) => failure,
            Err(also) => Failure::new(format!("{failure}; {also}")),
        }
    })
}

fn spawn(arguments: &[OsString], socket: UnixStream, output: File) -> Result<Child, Failure> {
    let fail = |err| Failure::because("cannot start the process that serves the mount", err);
    let errors = output.try_clone().map_err(fail)?;
    Command::new("/proc/self/exe")
        .arg0("alluxio-fuse")
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(fail)
}

/// Waits until the process says that it has mounted.
fn wait_for_mount(socket: &mut UnixStream, deadline: Instant, limit: Duration) -> Result<(), Failure> {
    let mut first = [0];
    match receive(socket, &mut first, deadline) {
        Ok(1) if first[0] == MOUNTED => Ok(()),
        Ok(1) => {
            let mut reason = String::new();
            let text = socket.read_to_string(&mut reason).map(|_| reason);
            Err(Failure::new(text.unwrap_or_else(|err| format!("reason not known: {err}"))))
        }
        Ok(_) => Err(Failure::new("the process that serves the mount ended without a word")),
        Err(err) if is_timeout(&err) => Err(too_late(limit)),
        Err(err) => Err(Failure::because("the process that serves the mount", err)),
    }
}

fn receive(socket: &mut UnixStream, buf: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(buf) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn is_timeout(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn too_late(limit: Duration) -> Failure {
    Failure::new(format!("it did not answer within {} seconds, allow more with `-t`", limit.as_secs()))
}

/// Asks the mount for its root, from a thread that can be left behind: this process is about to end, and it is not
/// the one that has to answer.
fn look_through(point: &Path, deadline: Instant, limit: Duration) -> Result<(), Failure> {
    let (answer, answered) = mpsc::channel();
    let path = point.to_owned();
    std::thread::Builder::new()
        .name("look-through".to_owned())
        .spawn(move || drop(answer.send(std::fs::metadata(path))))
        .map_err(|err| Failure::because("cannot start a thread", err))?;
    match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(found)) if found.is_dir() => Ok(()),
        Ok(Ok(_)) => Err(Failure::new("what is mounted is no directory")),
        Ok(Err(err)) => Err(Failure::because("the mount does not work", err)),
        Err(_) => Err(too_late(limit)),
    }
}

/// Ends the process, which sees that its socket is closed, gets a signal, and is killed if it heeds neither.
fn end(child: &mut Child) {
    let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
    if has_ended(child) {
        return;
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number fits"));
    // It cannot have another owner: its status was not taken yet.
    if let Err(errno) = nix::sys::signal::kill(pid, Signal::SIGTERM) {
        log::debug!("process {pid}: {errno}");
    }
    let child = std::cell::RefCell::new(child);
    if !wait_until(END_LIMIT, || has_ended(&mut child.borrow_mut())) {
        let child = child.into_inner();
        drop(child.kill());
        drop(child.wait());
    }
}

/// The staying process's end of the socket. A thread waits for what the command says; dropped, it is joined.
pub struct Handshake {
    socket: UnixStream,
    phase: Arc<Mutex<Phase>>,
    thread: Option<JoinHandle<()>>,
}

/// What the end of the command would mean.
enum Phase {
    /// There is nothing to take back yet, so this process can just end.
    Starting,
    /// A mount is being made, which must not be interrupted.
    Mounting,
    /// There is a mount, which this call takes back.
    Mounted(Box<dyn FnOnce() + Send>),
    /// The command ended while the mount was being made.
    Abandoned,
    /// Nothing any more.
    Settled,
}

impl Handshake {
    /// Takes the socket from standard input, which is `/dev/null` from then on, and leaves the terminal's session.
    pub fn take() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr()?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        nix::unistd::setsid()?;
        let phase = Arc::new(Mutex::new(Phase::Starting));
        let (ear, shared) = (socket.try_clone()?, Arc::clone(&phase));
        let thread =
            std::thread::Builder::new().name("handshake".to_owned()).spawn(move || listen(ear, &shared))?;
        Ok(Self { socket, phase, thread: Some(thread) })
    }

    /// Tells the command why there is no mount.
    pub(super) fn failed(&self, failure: &Failure) {
        *self.phase.lock() = Phase::Settled;
        let text = failure.to_string();
        let mut socket = &self.socket;
        let sent = socket.write_all(&[FAILED]).and_then(|()| socket.write_all(text.as_bytes()));
        if let Err(err) = sent {
            log::warn!("nobody was told that {text}: {err}");
        }
    }

    /// From now on this process has to take its mount back if the command ends.
    pub(super) fn mounting(&self) {
        *self.phase.lock() = Phase::Mounting;
    }

    /// Tells the command that the mount is made; calls `abandoned` if it does not want it any more.
    pub(super) fn mounted(&self, abandoned: Box<dyn FnOnce() + Send>) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Abandoned) {
            drop(phase);
            abandoned();
            return;
        }
        *phase = Phase::Mounted(abandoned);
        drop(phase);
        // If nobody reads it, the listening thread has noticed or will.
        if let Err(err) = (&self.socket).write_all(&[MOUNTED]) {
            log::debug!("nobody was told of the mount: {err}");
        }
    }
}

/// Waits for the word to keep the mount, or for the end of who could say it.
fn listen(mut socket: UnixStream, shared: &Mutex<Phase>) {
    let mut word = [0];
    let kept = socket.read_exact(&mut word).is_ok() && word[0] == KEEP;
    let mut phase = shared.lock();
    let before = std::mem::replace(&mut *phase, if kept { Phase::Settled } else { Phase::Abandoned });
    drop(phase);
    if kept || matches!(before, Phase::Settled) {
        return;
    }
    log::warn!("the command that started this mount has given it up");
    match before {
        Phase::Starting => std::process::exit(1),
        Phase::Mounted(abandoned) => abandoned(),
        Phase::Mounting | Phase::Abandoned | Phase::Settled => {}
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        *self.phase.lock() = Phase::Settled;
        // Wakes the thread if it still waits.
        drop(self.socket.shutdown(Shutdown::Both));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that listens to the command panicked");
        }
    }
}
