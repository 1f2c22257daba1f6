//! The log: whole lines in the layout of Alluxio's log4j, appended to a private file that several mounts may share.

use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use env_logger::Builder;
use env_logger::Target;
use log::LevelFilter;
use log::Record;
use nix::unistd::AccessFlags;

use super::Failure;
use super::log_file;
use super::log_file::LogFile;
use super::log_file::open_file;

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

/// Sends what is logged from now on to `file`, and to the terminal if asked. Only the first call of a process counts.
pub(super) fn start(file: LogFile, terminal: bool, debug: bool) {
    let own = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    let pid = std::process::id();
    let outcome = Builder::new()
        .filter_level(LevelFilter::Warn)
        // What is logged of this is decided before it comes here: see `set_level`.
        .filter_module("alluxio_fuse", LevelFilter::Trace)
        .format(move |out, record| out.write_all(line(SystemTime::now(), pid, record).as_bytes()))
        .target(Target::Pipe(Box::new(Sink { file, terminal })))
        .try_init();
    if outcome.is_err() {
        log::debug!("the log goes where it went before");
    }
    log::set_max_level(own);
}

/// Has lines logged from `level` on, for as long as this process runs; returns the level. `name` is for the log only, as
/// there is one level for all. `level` is one of log4j's words, in letters of any size.
pub(super) fn set_level(name: &str, level: &str) -> Result<LevelFilter, Failure> {
    let filter = match level.to_ascii_uppercase().as_str() {
        "OFF" => LevelFilter::Off,
        "FATAL" | "ERROR" => LevelFilter::Error,
        "WARN" => LevelFilter::Warn,
        "INFO" => LevelFilter::Info,
        "DEBUG" => LevelFilter::Debug,
        "TRACE" | "ALL" => LevelFilter::Trace,
        _ => {
            return Err(Failure::new(format!(
                "{level} is no level: give off, error, warn, info, debug or trace"
            )));
        }
    };
    log::set_max_level(filter);
    log::info!("The level of {name} is {filter} now");
    Ok(filter)
}

/// Where lines go. Each comes in one piece.
struct Sink {
    file: LogFile,
    terminal: bool,
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.terminal {
            // A terminal that is gone is no reason to stop logging.
            drop(io::stderr().write_all(line));
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2021-08-30 12:07:52,489 ERROR Name[4711] - message`: the layout of Alluxio's log4j, and the process, by which the
/// lines of mounts that share a file are told apart.
fn line(now: SystemTime, pid: u32, record: &Record<'_>) -> String {
    let name = record.target().rsplit("::").next().unwrap_or_default();
    format!("{} {:<5} {name}[{pid}] - {}\n", timestamp(now), record.level(), record.args())
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
        let args = format_args!("failed to look {}", "up");
        let record =
            Record::builder().args(args).level(Level::Info).target("alluxio_fuse::mount::unmount").build();
        let text = line(now, 4711, &record);
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
