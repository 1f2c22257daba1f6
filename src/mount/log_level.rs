//! Which lines are logged, as that can be changed while the mount serves. Knows nothing of where lines go.
//!
//! The program's own lines have one level, and parts of it may have another. What libraries say is logged from warnings
//! on.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use log::LevelFilter;
use parking_lot::RwLock;

use super::Failure;

/// The program itself, as Rust names it in a line's target.
const PROGRAM: &str = "alluxio_fuse";

/// For what is not this program's.
const LIBRARIES: LevelFilter = LevelFilter::Warn;

/// The levels of one process.
#[derive(Debug)]
pub(super) struct Levels {
    /// As the settings have it, as a number.
    start: AtomicUsize,
    /// Of the program, as a number.
    program: AtomicUsize,
    /// Whether `parts` holds anything, so that nobody takes its lock in vain.
    has_parts: AtomicBool,
    /// Of parts of the program, the latest last.
    parts: RwLock<Vec<(String, LevelFilter)>>,
}

impl Levels {
    /// The program's lines from `start` on.
    pub(super) fn new(start: LevelFilter) -> Self {
        Self {
            start: AtomicUsize::new(start as usize),
            program: AtomicUsize::new(start as usize),
            has_parts: AtomicBool::new(false),
            parts: RwLock::default(),
        }
    }

    /// Whether a line of `level` from `target` is to be logged.
    pub(super) fn lets_through(&self, level: log::Level, target: &str) -> bool {
        let Some(part) = target.strip_prefix(PROGRAM) else { return level <= LIBRARIES };
        if self.has_parts.load(Ordering::Relaxed) {
            let parts = self.parts.read();
            if let Some((_, filter)) = parts.iter().rev().find(|(name, _)| is_part(part, name)) {
                return level <= *filter;
            }
        }
        level as usize <= self.program.load(Ordering::Relaxed)
    }

    /// The most that anything is logged at.
    pub(super) fn most(&self) -> LevelFilter {
        let program = filter_of(self.program.load(Ordering::Relaxed));
        let parts = self.parts.read();
        parts.iter().map(|(_, filter)| *filter).chain([program, LIBRARIES]).max().unwrap_or(program)
    }

    /// Has the lines of `name` logged at `filter`: a part of the program as lines name it (`answer`), by its path
    /// (`session::answer`), or all of it, which is also what the names of Alluxio's Java classes mean.
    pub(super) fn set(&self, name: &str, filter: LevelFilter) -> Result<(), Failure> {
        let mut parts = self.parts.write();
        let part = name.strip_prefix(PROGRAM).map_or(name, |rest| rest.trim_start_matches("::"));
        if part.is_empty()
            || part == "alluxio"
            || part.starts_with("alluxio.")
            || part.eq_ignore_ascii_case("root")
        {
            parts.clear();
            self.program.store(filter as usize, Ordering::Relaxed);
        } else if part.len() <= 100 && part.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)) {
            parts.retain(|(known, _)| known != part);
            // As many as anybody can want; the first one gives way.
            if parts.len() >= 32 {
                parts.remove(0);
            }
            parts.push((part.to_owned(), filter));
        } else {
            return Err(Failure::new(format!(
                "{name} is no part of this program: give one as the log names it, such as `answer`, or `root` for all"
            )));
        }
        self.has_parts.store(!parts.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// The settings turn out to have `start`, which holds from now on.
    pub(super) fn restart(&self, start: LevelFilter) {
        self.start.store(start as usize, Ordering::Relaxed);
        self.reset();
    }

    /// As the settings have it.
    pub(super) fn reset(&self) {
        let start = filter_of(self.start.load(Ordering::Relaxed));
        self.set("", start).expect("no name means all");
    }
}

/// The level of that name, in log4j's words or our own.
pub(super) fn parse(text: &str) -> Result<LevelFilter, Failure> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "OFF" => LevelFilter::Off,
        "FATAL" | "ERROR" => LevelFilter::Error,
        "WARN" | "WARNING" => LevelFilter::Warn,
        "INFO" => LevelFilter::Info,
        "DEBUG" => LevelFilter::Debug,
        "TRACE" | "ALL" => LevelFilter::Trace,
        _ => {
            return Err(Failure::new(format!(
                "{text} is no level: give off, error, warn, info, debug or trace"
            )));
        }
    })
}

fn filter_of(number: usize) -> LevelFilter {
    LevelFilter::iter().nth(number).unwrap_or(LevelFilter::Info)
}

/// Whether `name` is a part of `path` (`::session::answer`), cut at its colons.
fn is_part(path: &str, name: &str) -> bool {
    path.match_indices(name).any(|(at, _)| {
        let rest = &path[at + name.len()..];
        path[..at].ends_with("::") && (rest.is_empty() || rest.starts_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    const ANSWER: &str = "alluxio_fuse::session::answer";

    #[test]
    fn libraries_are_heard_from_warnings_on_whatever_the_level() {
        let levels = Levels::new(LevelFilter::Info);
        levels.set("root", LevelFilter::Trace).unwrap();
        assert!(!levels.lets_through(Level::Info, "h2::codec"));
        assert!(levels.lets_through(Level::Warn, "h2::codec"));
        assert!(levels.lets_through(Level::Trace, ANSWER));
        assert_eq!(levels.most(), LevelFilter::Trace);
    }

    #[test]
    fn a_part_has_its_own_level_until_all_are_set() {
        for name in ["answer", "session", "session::answer", ANSWER] {
            let levels = Levels::new(LevelFilter::Info);
            levels.set(name, LevelFilter::Debug).unwrap();
            assert!(levels.lets_through(Level::Debug, ANSWER), "{name}");
            assert!(!levels.lets_through(Level::Debug, "alluxio_fuse::vfs::answers"), "{name}");
            assert_eq!(levels.most(), LevelFilter::Debug);
            levels.reset();
            assert!(!levels.lets_through(Level::Debug, ANSWER), "{name}");
            assert_eq!(levels.most(), LevelFilter::Info);
        }
    }

    #[test]
    fn the_classes_of_alluxio_mean_the_whole_program() {
        let levels = Levels::new(LevelFilter::Info);
        levels.set("alluxio.fuse.AlluxioJniFuseFileSystem", parse("debug").unwrap()).unwrap();
        assert!(levels.lets_through(Level::Debug, "alluxio_fuse::vfs"));
        levels.set("alluxio", parse("OFF").unwrap()).unwrap();
        assert!(!levels.lets_through(Level::Error, "alluxio_fuse::vfs"));
    }

    #[test]
    fn what_is_no_name_and_no_level_is_refused() {
        let levels = Levels::new(LevelFilter::Info);
        assert!(levels.set("a b", LevelFilter::Debug).unwrap_err().to_string().contains("a b is no part"));
        assert!(parse("loud").unwrap_err().to_string().contains("loud is no level"));
    }
}
