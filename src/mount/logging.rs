//! The log: whole lines in the layout of Alluxio's log4j, appended to a private file that several mounts may share.
//! Lines that repeat are folded, and the level can be changed at any time.
//!
//! Lock order: `out` is last; nothing is logged while it is held.

use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use log::LevelFilter;
use log::Log;
use log::Metadata;
use log::Record;
use nix::unistd::AccessFlags;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::Failure;
use super::log_file;
use super::log_file::LogFile;
use super::log_file::open_file;
use super::log_fold::Fold;
use super::log_fold::Line;
use super::log_level;
use super::log_level::Levels;
use super::log_terminal::Terminal;

/// Name of the log in the directory of logs.
pub const LOG_FILE: &str = "fuse.log";
/// Name of the file with what a mount in the background prints.
pub const OUT_FILE: &str = "fuse.out";

/// Opens the file `name` in `dir` for appending. Both are made, for this user only, if they are missing.
pub(super) fn open(dir: &Path, name: &str) -> Result<File, Failure> {
    make_dir(dir).and_then(|()| open_file(&dir.join(name))).map_err(|err| cannot_write(dir, name, &err))
}

/// Opens the log in `dir` in the same way.
pub(super) fn open_log(dir: &Path) -> Result<LogFile, Failure> {
    make_dir(dir)
        .and_then(|()| LogFile::open(&dir.join(LOG_FILE), log_file::LIMITS))
        .map_err(|err| cannot_write(dir, LOG_FILE, &err))
}

/// Whether logs can be written to `dir`, which need not be there yet. Makes nothing.
pub(super) fn check(dir: &Path) -> io::Result<()> {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    Ok(nix::unistd::access(there, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn cannot_write(dir: &Path, name: &str, err: &io::Error) -> Failure {
    Failure::new(format!(
        "cannot write {}: {err}; set ALLUXIO_LOGS_DIR or alluxio.logs.dir to a directory that you can write",
        dir.join(name).display()
    ))
}

/// Where the lines of this process go, once there is something that serves.
static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    levels: Levels,
    /// What is written, and what is held back as a repetition.
    out: Mutex<Out>,
    /// Told when lines are held back, and at the end.
    held: Condvar,
}

struct Out {
    file: LogFile,
    /// In the foreground, until the end.
    terminal: Option<Terminal>,
    fold: Fold,
    /// Nobody tells any more of what is held back.
    ended: bool,
}

/// The log of this process. Dropped, it has told of everything.
#[derive(Debug)]
pub(super) struct Logging {
    teller: Option<JoinHandle<()>>,
}

/// Sends what is logged from now on to `file`, and to the terminal if asked. Only the first call of a process counts.
pub(super) fn start(file: LogFile, terminal: bool, debug: bool) -> Logging {
    let level = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    // Without it, as where stderr is closed, there is still the file.
    let terminal = terminal.then(Terminal::start).and_then(Result::ok);
    let out = Out { file, terminal, fold: Fold::default(), ended: false };
    let logger = Logger { levels: Levels::new(level), out: Mutex::new(out), held: Condvar::new() };
    if LOGGER.set(logger).is_err() {
        log::debug!("the log goes where it went before");
        return Logging { teller: None };
    }
    let logger = LOGGER.get().expect("just set");
    if log::set_logger(logger).is_err() {
        log::debug!("the log goes where it went before");
    }
    log::set_max_level(logger.levels.most());
    let teller = std::thread::Builder::new().name("log".to_owned()).spawn(|| logger.tell_of_held());
    match teller {
        Ok(teller) => Logging { teller: Some(teller) },
        Err(err) => {
            logger.out.lock().ended = true;
            log::warn!("repeated lines are not folded: {err}");
            Logging { teller: None }
        }
    }
}

/// Has the lines of `name` logged from `level` on, for as long as this process runs; returns the level. `name` is a part
/// of the program as its lines show it, or its path, or `root`, nothing or the name of a class of Alluxio for all of it.
/// `level` is one of log4j's words, in letters of any size.
pub fn set_level(name: &str, level: &str) -> Result<LevelFilter, Failure> {
    let filter = log_level::parse(level)?;
    if let Some(logger) = LOGGER.get() {
        logger.levels.set(name, filter)?;
        log::set_max_level(logger.levels.most());
        let of = if name.is_empty() { "root" } else { name };
        log::info!("The level of {of} is {filter} now");
    }
    Ok(filter)
}

/// Logs every operation, as the settings turn out to say.
pub(super) fn start_debug() {
    if let Some(logger) = LOGGER.get() {
        logger.levels.restart(LevelFilter::Debug);
        log::set_max_level(logger.levels.most());
    }
}

/// Logs what the settings say, whatever was set since.
pub(super) fn reset_level() {
    if let Some(logger) = LOGGER.get() {
        logger.levels.reset();
        log::set_max_level(logger.levels.most());
        log::info!("The level is that of the settings again");
    }
}

/// Writes what is held back: this process is about to end.
pub(super) fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.finish();
    }
}

impl Logger {
    /// Waits for lines that are held back, and tells of them when their time has come.
    fn tell_of_held(&self) {
        let mut out = self.out.lock();
        while !out.ended {
            match out.fold.next() {
                Some(time) => drop(self.held.wait_until(&mut out, time)),
                None => self.held.wait(&mut out),
            }
            let due = out.fold.due(Instant::now());
            due.iter().for_each(|line| out.write(line));
        }
    }

    fn finish(&self) {
        let mut out = self.out.lock();
        let rest = out.fold.rest();
        rest.iter().for_each(|line| out.write(line));
        out.ended = true;
        self.held.notify_all();
        let terminal = out.terminal.take();
        drop(out);
        if let Some(terminal) = terminal {
            terminal.finish();
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.levels.lets_through(metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let line = Line { level: record.level(), target: record.target().to_owned(), text };
        let mut out = self.out.lock();
        if out.ended || out.fold.admits(Instant::now(), &line) {
            out.write(&line);
        } else {
            self.held.notify_all();
        }
    }

    fn flush(&self) {}
}

impl Out {
    fn write(&mut self, line: &Line) {
        let text = shown(SystemTime::now(), std::process::id(), line);
        // There is nobody to tell of a log that cannot be written.
        drop(self.file.write(text.as_bytes()));
        if let Some(terminal) = &self.terminal {
            terminal.write(&text);
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
        if let Some(teller) = self.teller.take()
            && teller.join().is_err()
        {
            log::error!("the thread that tells of repeated lines panicked");
        }
    }
}

/// `2021-08-30 12:07:52,489 ERROR Name[4711] - message`: the layout of Alluxio's log4j, and the process, by which the
/// lines of mounts that share a file are told apart.
fn shown(now: SystemTime, pid: u32, line: &Line) -> String {
    let name = line.target.rsplit("::").next().unwrap_or_default();
    format!("{} {:<5} {name}[{pid}] - {}\n", timestamp(now), line.level, line.text)
}

/// `12:07:52.489` where this machine is, of milliseconds since 1970.
pub fn time_of_day(ms: u64) -> String {
    let time = local_time(ms / 1000);
    format!("{:02}:{:02}:{:02}.{:03}", time.tm_hour, time.tm_min, time.tm_sec, ms % 1000)
}

fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = local_time(since.as_secs());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        time.tm_year + 1900,
        time.tm_mon + 1,
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        since.subsec_millis()
    )
}

/// The parts of a time where this machine is.
fn local_time(secs: u64) -> libc::tm {
    let secs = libc::time_t::try_from(secs).unwrap_or(libc::time_t::MAX);
    let mut time = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to locals that outlive the call. localtime_r reads TZ, and nothing in this process
    // changes its environment. All-zero is a tm, so what a failure leaves behind can be read.
    unsafe {
        libc::localtime_r(&raw const secs, time.as_mut_ptr());
        time.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use log::Level;

    use super::*;

    #[test]
    fn a_line_looks_as_log4j_writes_it() {
        let now = UNIX_EPOCH + Duration::from_millis(1_630_325_272_489);
        let text = "failed to look up".to_owned();
        let line = Line { level: Level::Info, target: "alluxio_fuse::mount::unmount".to_owned(), text };
        let text = shown(now, 4711, &line);
        let (time, rest) = text.split_at(23);
        assert_eq!(rest, " INFO  unmount[4711] - failed to look up\n");
        assert!(time.ends_with(":07:52,489") || time.ends_with(":52,489"), "{time}");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00,000");
    }

    #[test]
    fn files_are_private_and_appended_to() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/logs");
        open(&dir, LOG_FILE).unwrap().write_all(b"one\n").unwrap();
        open(&dir, LOG_FILE).unwrap().write_all(b"two\n").unwrap();
        let path = dir.join(LOG_FILE);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_the_cure() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("file"), "").unwrap();
        let problem = open(&parent.path().join("file"), LOG_FILE).unwrap_err().to_string();
        assert!(problem.contains("file/fuse.log") && problem.contains("ALLUXIO_LOGS_DIR"), "{problem}");
    }
}
