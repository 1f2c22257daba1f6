//! What is mounted by whom: a private directory with one small file for each running mount, so that `stat` and
//! `unmount` need not guess from process lists. The kernel's list of mounts has the last word.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use super::Failure;
use super::process::Process;
use super::table;

/// One running mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who serves it.
    pub process: Process,
    /// Where it is.
    pub point: PathBuf,
    /// What it shows, as the user wrote it.
    pub path: String,
}

/// The directory of records.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
}

/// A record that is removed with this.
#[derive(Debug)]
pub(super) struct Registration {
    file: PathBuf,
}

impl Registry {
    /// The registry in `dir`, which is made if it is missing, and refused if others could write it.
    pub fn open(dir: PathBuf) -> Result<Self, Failure> {
        let what = || format!("directory {} for the list of mounts", dir.display());
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(Failure::because(what(), err)),
        }
        let found = std::fs::symlink_metadata(&dir).map_err(|err| Failure::because(what(), err))?;
        let owner = nix::unistd::geteuid().as_raw();
        if !found.is_dir() || found.uid() != owner || found.mode() & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{} must be a directory of user {owner} with mode 0700: remove it, or set XDG_RUNTIME_DIR",
                what()
            )));
        }
        Ok(Self { dir })
    }

    /// Where the records are, and the control sockets.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until no other mount is being made, and keeps others waiting until the lock is dropped.
    pub(super) fn lock(&self) -> Result<Flock<File>, Failure> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let mut file = file.map_err(|err| Failure::because(path.display(), err))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(lock),
                Err((unlocked, Errno::EINTR)) => file = unlocked,
                Err((_, errno)) => return Err(Failure::because(path.display(), errno)),
            }
        }
    }

    /// Records a mount of this process.
    pub(super) fn add(&self, point: &Path, path: &str) -> io::Result<Registration> {
        let record = Record { process: Process::current()?, point: point.to_owned(), path: path.to_owned() };
        let file = self.dir.join(record.process.pid.to_string());
        let draft = self.dir.join(format!("{}.new", record.process.pid));
        let mut out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        out.write_all(&record.to_bytes())?;
        std::fs::rename(&draft, &file)?;
        Ok(Registration { file })
    }

    /// The mounts whose process runs. Files that others left behind are removed.
    pub fn live(&self) -> Result<Vec<Record>, Failure> {
        let entries =
            std::fs::read_dir(&self.dir).map_err(|err| Failure::because(self.dir.display(), err))?;
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let file = entry.path();
            let numbered = entry.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok());
            let record = std::fs::read(&file).ok().and_then(|bytes| Record::from_bytes(&bytes));
            match record {
                Some(record) if numbered && record.process.is_alive() => records.push(record),
                _ if numbered => drop(std::fs::remove_file(&file)),
                _ => self.remove_stale_socket(&entry.file_name()),
            }
        }
        records.sort_by(|one, other| one.point.cmp(&other.point));
        Ok(records)
    }

    /// Removes `name` if it is the control socket of a process that has no record any more: a mount makes its record
    /// first, and removes it last.
    fn remove_stale_socket(&self, name: &OsStr) {
        let pid = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse::<i32>().ok());
        if let Some(pid) = pid
            && !self.dir.join(pid.to_string()).exists()
        {
            drop(std::fs::remove_file(self.dir.join(name)));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_file(&self.file) {
            log::warn!("{} stays behind: {err}", self.file.display());
        }
    }
}

impl Record {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} ", self.process.pid, self.process.started).into_bytes();
        bytes.extend(table::escape(&self.point));
        bytes.push(b' ');
        bytes.extend(table::escape(Path::new(&self.path)));
        bytes.push(b'\n');
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.strip_suffix(b"\n")?.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok();
        let process = Process { pid: number()?.parse().ok()?, started: number()?.parse().ok()? };
        let point = PathBuf::from(table::unescape(words.next()?));
        let path = String::from_utf8(table::unescape(words.next()?).into_vec()).ok()?;
        words.next().is_none().then_some(Self { process, point, path })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_mount_is_listed_while_it_is_registered() {
        let parent = tempfile::tempdir().unwrap();
        let registry = Registry::open(parent.path().join("mounts")).unwrap();
        let registration = registry.add(Path::new("/mnt/a b\nc"), "/péople x").unwrap();
        let expected = Record {
            process: Process::current().unwrap(),
            point: PathBuf::from("/mnt/a b\nc"),
            path: "/péople x".to_owned(),
        };
        assert_eq!(registry.live().unwrap(), [expected]);
        drop(registration);
        assert_eq!(registry.live().unwrap(), []);
    }

    #[test]
    fn records_of_processes_that_ended_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let registry = Registry::open(parent.path().join("mounts")).unwrap();
        let me = Process::current().unwrap();
        let ended = Process { started: me.started + 1, ..me };
        let record = Record { process: ended, point: PathBuf::from("/mnt/a"), path: "/".to_owned() };
        let stale = parent.path().join("mounts/17");
        std::fs::write(&stale, record.to_bytes()).unwrap();
        std::fs::write(parent.path().join("mounts/18"), b"half a rec").unwrap();
        std::fs::write(parent.path().join("mounts/17.sock"), "").unwrap();
        drop(registry.lock().unwrap());
        assert_eq!(registry.live().unwrap(), []);
        // The record may have been seen after the socket.
        assert_eq!(registry.live().unwrap(), []);
        assert!(!parent.path().join("mounts/17.sock").exists());
        assert!(!stale.exists());
        assert!(!parent.path().join("mounts/18").exists());
        assert!(parent.path().join("mounts/lock").exists());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("mounts");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let problem = Registry::open(dir).unwrap_err();
        assert!(problem.to_string().contains("mode 0700"), "{problem}");
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("mounts");
        std::os::unix::fs::symlink(parent.path(), &dir).unwrap();
        assert!(Registry::open(dir).is_err());
    }
}
