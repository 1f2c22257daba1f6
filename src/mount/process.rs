//! Another process, told from a later one of the same number by when it started.

use std::io;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How often the end of something is looked for.
const STEP: Duration = Duration::from_millis(20);

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks from the start of the system to its own.
    pub started: u64,
}

impl Process {
    /// This one.
    pub fn current() -> io::Result<Self> {
        let pid = nix::unistd::getpid().as_raw();
        match Self::find(pid) {
            Some(process) => Ok(process),
            None => Err(io::Error::other(format!("/proc/{pid}/stat is not as it should be"))),
        }
    }

    /// The one that has the number `pid` now.
    pub(super) fn find(pid: i32) -> Option<Self> {
        let started = start_time(pid).ok()??;
        Some(Self { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        matches!(start_time(self.pid), Ok(Some(started)) if started == self.started)
    }

    /// Sends `signal`; a process that has ended already is no error.
    pub fn signal(self, signal: Signal) -> nix::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// When the process `pid` started; nothing if there is none or it has ended and only its status is left.
fn start_time(pid: i32) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) if err.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Field 22 of `pid (name) state ...`. The name can hold anything, so the count begins after the last bracket.
fn parse_stat(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

/// Looks until `done` or the time is over; returns whether it is done.
pub(super) fn wait_until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        let Some(left) = limit.checked_sub(start.elapsed()) else { return false };
        std::thread::sleep(STEP.min(left));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("12 (a) b (c) {fields}")), Some(4711));
        assert_eq!(parse_stat(&format!("12 (a) {}", fields.replace('S', "Z"))), None);
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn a_process_of_another_age_is_another_process() {
        let me = Process::current().unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
        assert!(!Process { pid: i32::MAX, started: 0 }.is_alive());
    }

    #[test]
    fn a_child_that_was_not_waited_for_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(wait_until(Duration::from_secs(10), || matches!(start_time(pid), Ok(None))));
        child.wait().unwrap();
    }
}
