//! The log on the terminal of a mount in the foreground. Who does not read there must not stop the mount, so the lines go
//! by a bounded queue to a thread of their own; what does not fit is counted, and the number told when there is room.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

/// Lines on their way at most.
const LINES_MAX: usize = 4096;

/// A terminal that takes no line for so long at the end is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the terminal.
pub(super) struct Terminal {
    lines: Sender<String>,
    /// The other end of it, to see what is still on its way.
    queued: Receiver<String>,
    left_out: u64,
    /// Its other end goes with the thread.
    thread: Receiver<()>,
}

impl Terminal {
    /// To stderr as it is now: libfuse's words are caught by diverting it for a while.
    pub(super) fn start() -> io::Result<Self> {
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queued) = bounded::<String>(LINES_MAX);
        let (alive, thread) = bounded(0);
        let taken = queued.clone();
        // Nobody joins it, as it may be stuck in a write for ever.
        std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            for line in taken {
                // A terminal that is gone is no reason to stop logging.
                drop(out.write_all(line.as_bytes()));
            }
        })?;
        Ok(Self { lines, queued, left_out: 0, thread })
    }

    /// Sends `line` on its way. Never waits.
    pub(super) fn write(&mut self, line: &str) {
        if self.left_out > 0 {
            let note = format!("({} lines are in the log only, as nobody read here)\n", self.left_out);
            if self.lines.try_send(note).is_ok() {
                self.left_out = 0;
            }
        }
        if self.left_out > 0 || self.lines.try_send(line.to_owned()).is_err() {
            self.left_out += 1;
        }
    }

    /// Waits until all is written, as long as somebody reads.
    pub(super) fn finish(self) {
        let Self { lines, queued, thread, .. } = self;
        drop(lines);
        let mut left = usize::MAX;
        while queued.len() < left {
            left = queued.len();
            if thread.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::io::BufReader;

    use super::*;

    #[test]
    fn who_does_not_read_stops_nobody_and_is_told_what_was_left_out() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut terminal = Terminal::to(ours).unwrap();
        let line = format!("{}\n", "x".repeat(999));
        let mut sent = 0;
        while terminal.left_out == 0 {
            terminal.write(&line);
            sent += 1;
        }
        let reader =
            std::thread::spawn(move || BufReader::new(theirs).lines().map_while(Result::ok).collect());
        while terminal.left_out > 0 {
            std::thread::yield_now();
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
        let reader = std::thread::spawn(move || BufReader::new(theirs).lines().count());
        let mut terminal = Terminal::to(ours).unwrap();
        (0..LINES_MAX).for_each(|number| terminal.write(&format!("{number}\n")));
        terminal.finish();
        assert_eq!(reader.join().unwrap(), LINES_MAX);
    }
}
