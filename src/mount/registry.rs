//! What is mounted by whom: a private directory with one small file for each running mount, so that `stat` and
//! `unmount` need not guess from process lists. The kernel's list of mounts has the last word.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::unistd::AccessFlags;
use nix::unistd::access;

use super::Failure;
use super::daemons;
use super::daemons::Daemon;
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
    /// Where records are made.
    dir: PathBuf,
    /// Where there may be others, made when that one could not be used.
    elsewhere: Vec<PathBuf>,
}

/// A record that is removed with this.
#[derive(Debug)]
pub(super) struct Registration {
    file: PathBuf,
}

impl Registry {
    /// The registry in the first of `dirs` that is there or can be made, and that nobody else could write. What is in the
    /// others is read as well.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        for dir in dirs {
            match make(dir) {
                Ok(()) => {
                    let elsewhere = dirs.iter().filter(|other| *other != dir && is_own(other));
                    return Ok(Self { dir: dir.clone(), elsewhere: elsewhere.cloned().collect() });
                }
                Err(problem) => problems.push(problem),
            }
        }
        Err(Failure::new(format!(
            "no directory for the list of mounts: {}; set ALLUXIO_FUSE_RUNTIME_DIR to one that you can write",
            problems.join("; ")
        )))
    }

    /// Where records are made, and control sockets.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the file `name` is, or would be made.
    pub(super) fn dir_of(&self, name: &str) -> &Path {
        self.dirs().find(|dir| dir.join(name).exists()).unwrap_or(&self.dir)
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.dir).chain(&self.elsewhere).map(PathBuf::as_path)
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

    /// The mounts of this user, also those whose record somebody has removed.
    pub fn mounts(&self) -> Result<Vec<Record>, Failure> {
        let mut records = self.live()?;
        let unrecorded = daemons::unrecorded(|point| records.iter().any(|record| record.point == point));
        let record = |Daemon { process, point, path }| Record { process, point, path };
        records.extend(unrecorded.into_iter().map(record));
        records.sort_by(|one, other| one.point.cmp(&other.point));
        Ok(records)
    }

    /// The mounts that have a record and whose process runs. Files that others left behind are removed.
    pub(super) fn live(&self) -> Result<Vec<Record>, Failure> {
        let mut records = read(&self.dir).map_err(|err| Failure::because(self.dir.display(), err))?;
        // They may be gone meanwhile.
        records.extend(self.elsewhere.iter().flat_map(|dir| read(dir).unwrap_or_default()));
        records.sort_by(|one, other| one.point.cmp(&other.point));
        Ok(records)
    }
}

/// The first of `dirs` that is there and of this user alone; the first if none is.
pub(super) fn place(dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter().find(|dir| is_own(dir)).or(dirs.first()).cloned()
}

/// Makes `dir` for this user alone, if it is missing, or says what is wrong with it.
fn make(dir: &Path) -> Result<(), String> {
    let fail = |err: io::Error| format!("{}: {err}", dir.display());
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => close(dir).map_err(fail)?,
        Err(err) => return Err(fail(err)),
    }
    if is_own(dir) && access(dir, AccessFlags::W_OK).is_ok() { Ok(()) } else { Err(unfit(dir)) }
}

fn unfit(dir: &Path) -> String {
    let user = nix::unistd::geteuid();
    format!("{} must be a directory of user {user} that can be written, with mode 0700", dir.display())
}

/// The one of `dirs` that [`Registry::open`] would take, or what is wrong with each. Changes nothing.
pub(super) fn check(dirs: &[PathBuf]) -> Result<&Path, String> {
    let look = |dir: &Path| match std::fs::symlink_metadata(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().unwrap_or(dir);
            access(parent, AccessFlags::W_OK | AccessFlags::X_OK)
                .map_err(|errno| format!("{}: {}", dir.display(), errno.desc()))
        }
        Err(err) => Err(format!("{}: {err}", dir.display())),
        Ok(found) => {
            let fit = is_own(dir) || (is_mine(&found) && is_empty(dir).unwrap_or(false));
            if fit && access(dir, AccessFlags::W_OK).is_ok() { Ok(()) } else { Err(unfit(dir)) }
        }
    };
    let mut problems = Vec::new();
    for dir in dirs {
        match look(dir) {
            Ok(()) => return Ok(dir),
            Err(problem) => problems.push(problem),
        }
    }
    Err(problems.join("; "))
}

/// Shuts others out of an empty directory of this user, such as a volume of a container.
fn close(dir: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(dir)?;
    if is_mine(&found) && found.mode() & 0o077 != 0 && is_empty(dir)? {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        // What somebody has put there before that.
        if !is_empty(dir)? {
            return Err(io::Error::other("others have written there"));
        }
    }
    Ok(())
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

fn is_mine(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw()
}

fn is_own(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|found| is_mine(&found) && found.mode() & 0o077 == 0)
}

/// The records in `dir` whose process runs. Files that others left behind are removed.
fn read(dir: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir)?.flatten() {
        let file = entry.path();
        let numbered = entry.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok());
        let record = std::fs::read(&file).ok().and_then(|bytes| Record::from_bytes(&bytes));
        match record {
            Some(record) if numbered && record.process.is_alive() => records.push(record),
            _ if numbered => drop(std::fs::remove_file(&file)),
            _ => remove_stale_socket(dir, &entry.file_name()),
        }
    }
    Ok(records)
}

/// Removes `name` if it is the control socket of a process that has no record any more: a mount makes its record
/// first, and removes it last.
fn remove_stale_socket(dir: &Path, name: &OsStr) {
    let pid = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse::<i32>().ok());
    if let Some(pid) = pid
        && !dir.join(pid.to_string()).exists()
    {
        drop(std::fs::remove_file(dir.join(name)));
    }
}

impl Registration {
    /// Whether nobody has removed it.
    pub(super) fn is_there(&self) -> bool {
        self.file.exists()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_file(&self.file)
            && err.kind() != io::ErrorKind::NotFound
        {
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
    use super::*;

    #[test]
    fn a_mount_is_listed_while_it_is_registered() {
        let parent = tempfile::tempdir().unwrap();
        let registry = Registry::open(&[parent.path().join("mounts")]).unwrap();
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
        let registry = Registry::open(&[parent.path().join("mounts")]).unwrap();
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
        std::fs::write(dir.join("17"), "forged").unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        let problem = Registry::open(&[dir]).unwrap_err();
        assert!(problem.to_string().contains("mode 0700"), "{problem}");
        assert!(check(&[parent.path().join("mounts")]).unwrap_err().contains("mode 0700"));
        assert!(problem.to_string().contains("ALLUXIO_FUSE_RUNTIME_DIR"), "{problem}");
    }

    #[test]
    fn an_empty_directory_that_others_can_write_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("volume");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        check(std::slice::from_ref(&dir)).unwrap();
        Registry::open(std::slice::from_ref(&dir)).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn where_one_directory_cannot_be_used_another_is_and_both_are_read() {
        let parent = tempfile::tempdir().unwrap();
        let dirs = ["missing/a", "b"].map(|name| parent.path().join(name));
        assert_eq!(check(&dirs), Ok(dirs[1].as_path()));
        let second = Registry::open(&dirs).unwrap();
        let _registration = second.add(Path::new("/mnt/a"), "/").unwrap();
        assert_eq!(place(&dirs).as_ref(), Some(&dirs[1]));
        std::fs::create_dir(parent.path().join("missing")).unwrap();
        let first = Registry::open(&dirs).unwrap();
        assert_eq!(first.dir(), dirs[0]);
        assert_eq!(first.live().unwrap(), second.live().unwrap());
        assert_eq!(first.live().unwrap().len(), 1);
        assert_eq!(first.dir_of(&std::process::id().to_string()), dirs[1]);
        assert_eq!(first.dir_of("other"), dirs[0]);
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("mounts");
        std::os::unix::fs::symlink(parent.path(), &dir).unwrap();
        assert!(Registry::open(&[dir]).is_err());
    }
}
