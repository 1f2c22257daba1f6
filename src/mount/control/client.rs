//! The other side of the control socket: a command that asks a mount.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::ANSWER_MAX;
use super::Answer;
use super::Ask;
use super::address;
use super::name;
use crate::mount::Failure;
use crate::mount::Record;
use crate::mount::Registry;

/// How long a mount may take for one part of an answer, beyond what it is asked to take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open question.
pub struct Control {
    reader: BufReader<UnixStream>,
    point: PathBuf,
}

impl Control {
    /// Asks the mount of `record`. The parts of its answer are to come within `within` of each other, and a little more.
    pub fn ask(registry: &Registry, record: &Record, ask: &Ask, within: Duration) -> Result<Self, Failure> {
        let point = record.point.clone();
        let fail = |err: io::Error| match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(format!(
                "{} does not let anybody look into it: process {} has no control socket",
                point.display(),
                record.process.pid
            )),
            _ => Failure::because(format!("control socket of {}", point.display()), err),
        };
        let socket = name(record.process.pid);
        let (_kept, path) = address(registry.dir_of(&socket), &socket).map_err(fail)?;
        let mut stream = UnixStream::connect(path).map_err(fail)?;
        stream.set_read_timeout(Some(within + PATIENCE)).map_err(fail)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        let mut line = serde_json::to_vec(ask).map_err(|err| fail(err.into()))?;
        line.push(b'\n');
        match stream.write_all(&line) {
            // Who is sent away at the door has been told why.
            Err(err) if err.kind() != io::ErrorKind::BrokenPipe => return Err(fail(err)),
            _ => {}
        }
        Ok(Self { reader: BufReader::new(stream), point })
    }

    /// The next part of the answer; none when the mount has ended it. An error that the mount tells is one of ours.
    pub fn part(&mut self) -> Result<Option<Answer>, Failure> {
        let what = format!("control socket of {}", self.point.display());
        let mut line = Vec::new();
        let limit = u64::try_from(ANSWER_MAX).unwrap_or(u64::MAX);
        match (&mut self.reader).take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Failure::new(format!("{what}: no answer in time")));
            }
            Err(err) => return Err(Failure::because(what, err)),
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Error(problem)) => Err(Failure::new(problem)),
            Ok(answer) => Ok(Some(answer)),
            Err(err) => Err(Failure::because(what, err)),
        }
    }
}
