//! The terminal of a mount in the foreground: the log, and what libfuse and others print to stderr. Who does not read there must
//! not stop the mount, so lines go by a bounded queue to a thread of their own; what does not fit is counted, and the number
//! told when there is room.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use nix::fcntl::OFlag;
use nix::unistd::dup2_stderr;
use nix::unistd::pipe2;

/// Lines on their way at most.
const LINES_MAX: usize = 4096;

/// A terminal that takes no line for so long at the end is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the terminal.
pub(super) struct Terminal {
    queue: Arc<Queue>,
    /// The other end of it, to see what is still on its way.
    queued: Receiver<String>,
    /// Its other end goes with the thread that writes.
    writer: Receiver<()>,
    printed: Option<Printed>,
}

/// Lines for the terminal.
struct Queue {
    lines: Sender<String>,
    left_out: AtomicU64,
}

impl Queue {
    /// Sends `line` on its way. Never waits.
    fn write(&self, line: &str) {
        let left_out = self.left_out.load(Ordering::Relaxed);
        if left_out > 0 {
            let note = format!("({left_out} lines are left out here, as nobody read)\n");
            if self.lines.try_send(note).is_ok() {
                self.left_out.fetch_sub(left_out, Ordering::Relaxed);
            }
        }
        if self.left_out.load(Ordering::Relaxed) > 0 || self.lines.try_send(line.to_owned()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What others print: stderr is a pipe to a thread that has it written with the rest.
struct Printed {
    stderr: OwnedFd,
    /// Its other end goes with the thread that reads.
    reader: Receiver<()>,
}

impl Printed {
    fn divert(stderr: OwnedFd, queue: Arc<Queue>) -> io::Result<Self> {
        let (out, printed) = pipe2(OFlag::O_CLOEXEC)?;
        let (alive, reader) = bounded(0);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            for line in BufReader::new(File::from(out)).split(b'\n').map_while(Result::ok) {
                queue.write(&format!("{}\n", String::from_utf8_lossy(&line)));
            }
        })?;
        dup2_stderr(printed)?;
        Ok(Self { stderr, reader })
    }

    /// Has stderr as it was, once what was printed until now is on its way.
    fn end(self) {
        if dup2_stderr(&self.stderr).is_ok() {
            // It ends when nobody has the pipe any more, such as a program that was started.
            let _ = self.reader.recv_timeout(PATIENCE);
        }
    }
}

impl Terminal {
    /// Takes stderr over.
    pub(super) fn start() -> io::Result<Self> {
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let mut terminal = Self::to(File::from(stderr.try_clone()?))?;
        terminal.printed = Some(Printed::divert(stderr, Arc::clone(&terminal.queue))?);
        Ok(terminal)
    }

    fn to(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queued) = bounded::<String>(LINES_MAX);
        let (alive, writer) = bounded(0);
        let taken = queued.clone();
        // Nobody joins it, as it may be stuck in a write for ever.
        thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            for line in taken {
                // A terminal that is gone is no reason to stop logging.
                drop(out.write_all(line.as_bytes()));
            }
        })?;
        let queue = Arc::new(Queue { lines, left_out: AtomicU64::new(0) });
        Ok(Self { queue, queued, writer, printed: None })
    }

    /// Sends `line` on its way. Never waits.
    pub(super) fn write(&self, line: &str) {
        self.queue.write(line);
    }

    /// Waits until all is written, as long as somebody reads.
    pub(super) fn finish(self) {
        let Self { queue, queued, writer, printed } = self;
        if let Some(printed) = printed {
            printed.end();
        }
        drop(queue);
        let mut left = usize::MAX;
        while queued.len() < left {
            left = queued.len();
            if writer.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_stops_nobody_and_is_told_what_was_left_out() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let terminal = Terminal::to(ours).unwrap();
        let line = format!("{}\n", "x".repeat(999));
        let mut sent = 0;
        let left_out = || terminal.queue.left_out.load(Ordering::Relaxed);
        while left_out() == 0 {
            terminal.write(&line);
            sent += 1;
        }
        let reader = thread::spawn(move || BufReader::new(theirs).lines().map_while(Result::ok).collect());
        while left_out() > 0 {
            thread::yield_now();
            terminal.write(&line);
            sent += 1;
        }
        terminal.finish();
        let read: Vec<String> = reader.join().unwrap();
        let (notes, whole): (Vec<_>, Vec<_>) = read.iter().partition(|line| line.starts_with('('));
        assert!(!notes.is_empty());
        let number = |note: &&String| note[1..].split(' ').next().unwrap().parse::<usize>().unwrap();
        assert_eq!(whole.len() + notes.iter().map(number).sum::<usize>(), sent);
    }

    #[test]
    fn a_reader_gets_every_line_before_the_end() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let reader = thread::spawn(move || BufReader::new(theirs).lines().count());
        let terminal = Terminal::to(ours).unwrap();
        (0..LINES_MAX).for_each(|number| terminal.write(&format!("{number}\n")));
        terminal.finish();
        assert_eq!(reader.join().unwrap(), LINES_MAX);
    }
}
