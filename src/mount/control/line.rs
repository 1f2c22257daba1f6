//! One connection of the control socket, by lines, with a bound on the length of each and on the time it may take.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
use serde::Serialize;

/// How long a line may take to come, and to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Line {
    stream: UnixStream,
    /// Set when the mount ends.
    ending: Arc<AtomicBool>,
}

impl Line {
    pub(super) fn new(stream: UnixStream, ending: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self { stream, ending })
    }

    /// The next line without its end; a longer one than `max` bytes is an error.
    pub(super) fn hear(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut line = Vec::new();
        let mut part = [0; 4096];
        loop {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            let count = match self.stream.read(&mut part) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            };
            if let Some(end) = part[..count].iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&part[..end]);
                return Ok(line);
            }
            line.extend_from_slice(&part[..count]);
            if line.len() > max {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a line of more than {max} bytes"),
                ));
            }
        }
    }

    /// Sends `message` as one line. Who has not taken all of it in time is not worth another attempt.
    pub(super) fn say(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(b'\n');
        let deadline = Instant::now() + PATIENCE;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Whether nobody wants to hear more: the caller has gone, or the mount ends.
    pub(super) fn is_over(&self) -> bool {
        use std::os::fd::AsRawFd;
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        self.ending.load(Ordering::Relaxed) || recv(self.stream.as_raw_fd(), &mut byte, flags) == Ok(0)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Whoever ends the mount has a copy of the stream.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Line, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line::new(one, Arc::default()).unwrap(), other)
    }

    #[test]
    fn a_line_may_come_in_pieces_but_not_without_end() {
        let (mut line, mut caller) = pair();
        caller.write_all(b"one").unwrap();
        caller.write_all(b" two\nthree").unwrap();
        assert_eq!(line.hear(100).unwrap(), b"one two");
        caller.write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(line.hear(100).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn it_is_over_when_the_caller_has_gone() {
        let (line, caller) = pair();
        assert!(!line.is_over());
        drop(caller);
        assert!(line.is_over());
    }
}
