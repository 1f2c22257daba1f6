//! Mounts in the background whose record is gone, found by the command lines of this user's processes. The kernel's list of
//! mounts has the last word here as well.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use super::process::Process;
use super::table;
use super::table::MountEntry;

/// A process that serves a mount in the background.
pub(super) struct Daemon {
    pub(super) process: Process,
    /// Where it mounts.
    pub(super) point: PathBuf,
    /// What it shows.
    pub(super) path: String,
}

/// The mounts at points that are not `known`. Processes are only looked at if there is a mount that could be one.
pub(super) fn unrecorded(known: impl Fn(&Path) -> bool) -> Vec<Daemon> {
    let is_unknown = |entry: &MountEntry| entry.is_fuse() && !known(&entry.point);
    let unknown: Vec<MountEntry> = table::read().unwrap_or_default().into_iter().filter(is_unknown).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    let mut found = daemons();
    found.retain(|daemon| unknown.iter().any(|entry| entry.point == daemon.point));
    found
}

/// This user's processes that were started to serve a mount in the background.
fn daemons() -> Vec<Daemon> {
    let own = nix::unistd::geteuid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let daemon = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        if entry.metadata().ok()?.uid() != own {
            return None;
        }
        let (point, path) = parse(&std::fs::read(entry.path().join("cmdline")).ok()?)?;
        Some(Daemon { process: Process::find(pid)?, point, path })
    };
    processes.filter_map(daemon).collect()
}

/// Mount point and path out of `NAME mount --daemon ... -- POINT PATH`, each word ended by a zero.
fn parse(line: &[u8]) -> Option<(PathBuf, String)> {
    let words: Vec<&[u8]> = line.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
    match words[..] {
        [_, b"mount", b"--daemon", .., b"--", point, path] => {
            let point = PathBuf::from(OsString::from_vec(point.to_vec()));
            Some((point, String::from_utf8(path.to_vec()).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_command_line_of_a_daemon_is_one() {
        let found = Some((PathBuf::from("/mnt/a b"), "/people".to_owned()));
        assert_eq!(parse(b"alluxio-fuse\0mount\0--daemon\0-o\0ro\0--\0/mnt/a b\0/people\0"), found);
        assert_eq!(parse(b"alluxio-fuse\0mount\0--daemon\0--\0/mnt/a b\0/people\0"), found);
        for other in [
            &b"alluxio-fuse\0mount\0/mnt/a b\0/people\0"[..],
            b"alluxio-fuse\0mount\0--daemon\0--\0/mnt\0",
            b"vi\0mount\0",
            b"",
        ] {
            assert_eq!(parse(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
