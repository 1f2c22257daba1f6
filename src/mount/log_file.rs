//! The file that lines of the log go to: one that several mounts may share, and that is kept from growing without end
//! as log4j does it: `fuse.log` becomes `fuse.log.1` when it is full, that becomes `fuse.log.2`, and so on.
//!
//! Each line is one write at the end of the file, so those of several processes do not mix. Who finds the file full
//! moves it while holding a lock on it; the others notice soon that the name stands for another file, and follow.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

/// When a file is full, and how many full ones are kept: the figures of Alluxio's log4j.properties.
pub(super) const LIMITS: Limits = Limits { bytes: 100 << 20, files: 10 };

/// How often it is looked whether somebody else has moved the file.
const LOOK: Duration = Duration::from_secs(1);

/// Opens `path` for appending; made for this user only if it is missing.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of one file.
    pub(super) bytes: u64,
    /// Full files.
    pub(super) files: u32,
}

/// A word to open the file anew, from other threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// With the next line.
    pub(super) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The file, open.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    limits: Limits,
    looked: Instant,
    reopen: Reopen,
}

impl LogFile {
    /// Opens `path` for appending; it is made for this user only if it is missing.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let file = open_file(path)?;
        Ok(Self { path: path.to_owned(), file, limits, looked: Instant::now(), reopen: Reopen::default() })
    }

    /// By which others can have it opened anew, after somebody has moved it.
    pub(super) fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Opens the file of the name, if the open one is another or was moved. What cannot be opened stays as it is: a
    /// line in the old file is better than none.
    fn follow(&mut self) {
        let asked = self.reopen.0.swap(false, Ordering::Relaxed);
        if !asked && self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if (asked || !self.is_current())
            && let Ok(file) = open_file(&self.path)
        {
            self.file = file;
        }
    }

    fn is_current(&self) -> bool {
        match (self.path.metadata(), self.file.metadata()) {
            (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
            _ => false,
        }
    }

    /// Moves a full file out of the way. Only the one who holds the lock on the file that has the name does it.
    fn rotate(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() < self.limits.bytes {
            return Ok(());
        }
        let lock =
            Flock::lock(self.file.try_clone()?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        if self.is_current() {
            for number in (1..self.limits.files).rev() {
                // Those that there are.
                drop(std::fs::rename(self.numbered(number), self.numbered(number + 1)));
            }
            std::fs::rename(&self.path, self.numbered(1))?;
        }
        self.file = open_file(&self.path)?;
        drop(lock);
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.follow();
        // A file that cannot be moved is written on.
        drop(self.rotate());
        self.file.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { bytes: 10, files: 3 };

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap_or_else(|_| "(none)".to_owned())
    }

    #[test]
    fn a_full_file_is_moved_and_the_oldest_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&dir.path().join("fuse.log"), SMALL).unwrap();
        for number in 1..=6 {
            log.write_all(format!("line {number:5}\n").as_bytes()).unwrap();
        }
        let files = ["fuse.log", "fuse.log.1", "fuse.log.2", "fuse.log.3", "fuse.log.4"];
        let texts = files.map(|name| read(dir.path(), name));
        assert_eq!(texts, ["line     6\n", "line     5\n", "line     4\n", "line     3\n", "(none)"]);
    }

    #[test]
    fn mounts_that_share_a_file_lose_no_line_when_it_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fuse.log");
        let limits = Limits { bytes: 400, files: 1000 };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut log = LogFile::open(path, limits).unwrap();
                    for number in 0..200 {
                        log.write_all(format!("{writer} {number}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut lines: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .flat_map(|entry| {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        let mut expected: Vec<String> =
            (0..4).flat_map(|writer| (0..200).map(move |number| format!("{writer} {number}"))).collect();
        expected.sort();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_file_that_was_moved_by_others_is_left_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fuse.log");
        let mut log = LogFile::open(&path, LIMITS).unwrap();
        log.write_all(b"one\n").unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        log.reopen().request();
        log.write_all(b"two\n").unwrap();
        assert_eq!(
            (read(dir.path(), "moved").as_str(), read(dir.path(), "fuse.log").as_str()),
            ("one\n", "two\n")
        );
    }
}
