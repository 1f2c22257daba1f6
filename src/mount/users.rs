//! Who uses a mount: the processes that have something below it open, as far as /proc shows them to this user. Asks
//! the kernel for names only, never the mount, which may hang.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// As many are named; who has more than that does not read them.
const NAMED_MAX: usize = 20;

/// One process and something that it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The process.
    pub pid: i32,
    /// Its program.
    pub program: String,
    /// What it has open.
    pub file: PathBuf,
}

impl fmt::Display for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} is open in process {} ({})", self.file.display(), self.pid, self.program)
    }
}

/// Those who use the mount at `point`, at most twenty.
pub fn users(point: &Path) -> Vec<User> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.flat_map(|pid| users_in(pid, point)).take(NAMED_MAX).collect()
}

fn users_in(pid: i32, point: &Path) -> Vec<User> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let mut links = vec![dir.join("cwd"), dir.join("root"), dir.join("exe")];
    links.extend(std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = links.iter().filter_map(|link| std::fs::read_link(link).ok()).collect();
    files.extend(mapped(&dir));
    files.retain(|file| file.starts_with(point));
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Vec::new();
    }
    let program = std::fs::read_to_string(dir.join("comm")).unwrap_or_default().trim().to_owned();
    files.into_iter().map(|file| User { pid, program: program.clone(), file }).collect()
}

/// The files that a process has mapped.
fn mapped(dir: &Path) -> Vec<PathBuf> {
    let maps = std::fs::read(dir.join("maps")).unwrap_or_default();
    let path = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'/')?;
        Some(PathBuf::from(OsStr::from_bytes(&line[at..])))
    };
    maps.split(|byte| *byte == b'\n').filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let path = base.join("a file");
        let file = std::fs::File::create(&path).unwrap();
        let found = users(&base);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].pid.cast_unsigned(), &found[0].file), (std::process::id(), &path));
        assert!(!found[0].program.is_empty());
        drop(file);
        assert_eq!(users(&base), []);
    }

    #[test]
    fn a_directory_beside_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let _file = std::fs::File::create(base.join("ab")).unwrap();
        assert_eq!(users(&base.join("a")), []);
    }
}
