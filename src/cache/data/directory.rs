//! The place of the cache in one directory of the user's: whose it is, and which files are there. Nobody else's files are
//! touched. Knows nothing of pages.
//!
//! `<directory>/alluxio-fuse-cache/<page size>/<256 buckets>/<version>.{data,pages}`, locked by the process that uses it.
//!
//! Invariant: nothing is opened or made in an `alluxio-fuse-cache` that this process has not locked, also where the one that
//! it had is removed, and another process has made its own there.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use parking_lot::Mutex;

use super::record::Version;

const NAME: &str = "alluxio-fuse-cache";
const LOCK: &str = "lock";
const DATA: &str = "data";
const PAGES: &str = "pages";
const BUCKETS: usize = 256;

/// Only the owner of something may rename it.
const STICKY: u32 = 0o1000;

/// What is about to be done to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The files of a version are opened.
    Open,
    /// Bytes of a page are read.
    Read,
    /// A page is written.
    WriteData,
    /// An entry is added to a list of pages.
    WriteList,
    /// What was written is waited for.
    Sync,
}

/// Asked before each access; an error takes the place of the disk's answer.
pub type Faults = Arc<dyn Fn(Access) -> io::Result<()> + Send + Sync>;

/// A directory that this process alone uses.
pub(super) struct Directory {
    root: PathBuf,
    pages: PathBuf,
    faults: Option<Faults>,
    /// Held across system calls by who makes files.
    held: Mutex<Held>,
}

/// The locks on a directory. The first is on itself, as who tidies up may remove any file in it.
struct Held {
    _root: Flock<File>,
    id: Id,
    /// Says whose it is, and is all that an earlier version of this program locks.
    _name: Flock<File>,
}

/// What a directory is, whatever its name: device and inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id(u64, u64);

/// The two files of a version.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The bytes, each at its place.
    pub(super) data: PathBuf,
    /// Which pages of it are there.
    pub(super) pages: PathBuf,
}

impl Directory {
    /// Takes `dir`, which is made if it is missing, for pages of `page_size`. Those of another size are removed.
    pub(super) fn take(dir: &Path, page_size: u64, faults: Option<Faults>) -> io::Result<Self> {
        private(dir)?;
        // Links are followed once, as somebody else may change them.
        let dir = dir.canonicalize()?;
        check_above(&dir)?;
        let root = dir.join(NAME);
        let held = Mutex::new(Held::take(&root)?);
        let size = page_size.to_string();
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if name != size && name.parse::<u64>().is_ok() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let pages = root.join(size);
        private(&pages)?;
        Ok(Self { root, pages, faults, held })
    }

    /// Whether the disk is to be asked at all: not if a fault takes its place.
    pub(super) fn may(&self, access: Access) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults(access))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// Whether nothing was ever put there.
    pub(super) fn is_new(&self) -> bool {
        fs::read_dir(&self.pages).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// The files of `version`, there or not.
    pub(super) fn paths(&self, version: &Version) -> Paths {
        let stem = self.bucket(version.part(BUCKETS)).join(version.name());
        Paths { data: with(&stem, DATA), pages: with(&stem, PAGES) }
    }

    fn bucket(&self, number: usize) -> PathBuf {
        self.pages.join(format!("{number:02x}"))
    }

    /// The versions that have a list of pages. What is of no use is removed: bytes without a list. What an earlier version of
    /// this program has put into another bucket is moved.
    pub(super) fn versions(&self) -> impl Iterator<Item = Version> {
        (0..BUCKETS).flat_map(move |number| {
            let entries = fs::read_dir(self.bucket(number)).into_iter().flatten().flatten();
            let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.into_iter().filter_map(move |path| {
                let version = Version::parse(path.file_stem()?.to_str()?)?;
                if path.extension()? == PAGES {
                    if version.part(BUCKETS) != number {
                        self.move_here(&path, &version);
                    }
                    return Some(version);
                }
                if path.extension()? == DATA && !path.with_extension(PAGES).exists() {
                    drop(fs::remove_file(&path));
                }
                None
            })
        })
    }

    /// Moves the list `pages` and its bytes to where those of `version` belong; removes them if that cannot be.
    fn move_here(&self, pages: &Path, version: &Version) {
        let (data, new) = (pages.with_extension(DATA), self.paths(version));
        let moved = || {
            // Those may be in use already.
            if new.pages.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            new.pages.parent().map_or(Ok(()), private)?;
            // The list last: bytes without a list are nothing.
            fs::rename(&data, &new.data)?;
            fs::rename(pages, &new.pages)
        };
        if let Err(err) = moved() {
            log::debug!("{} is removed: {err}", pages.display());
            drop(fs::remove_file(pages));
            drop(fs::remove_file(&data));
        }
    }

    /// Opens the two files of `version`, or makes them anew if `make` says so: what was there is nobody's, but may still be
    /// mapped. Fails with NotFound where they are another process's.
    pub(super) fn open(&self, version: &Version, make: bool) -> io::Result<(File, File)> {
        self.may(Access::Open)?;
        let paths = self.paths(version);
        if make && let Some(bucket) = paths.data.parent() {
            self.keep()?;
            private(bucket)?;
            self.remove(version);
        }
        let options = |append: bool| {
            let mut options = OpenOptions::new();
            options.read(true).create_new(make).mode(0o600);
            if append {
                options.append(true)
            } else {
                options.write(true)
            };
            options
        };
        let files = (options(false).open(&paths.data)?, options(true).open(&paths.pages)?);
        // Looked at afterwards, so that it was still there when they were opened.
        if self.is_held() { Ok(files) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether the directory that this process holds is at its path.
    fn is_held(&self) -> bool {
        let id = self.held.lock().id;
        self.is_there(id)
    }

    fn is_there(&self, id: Id) -> bool {
        fs::symlink_metadata(&self.root).is_ok_and(|found| id == Id::of(&found))
    }

    /// Has this process hold what is at its path, where somebody has removed the directory.
    fn keep(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        if self.is_there(held.id) {
            return Ok(());
        }
        let anew = Held::take(&self.root)?;
        // What another process has left there meanwhile, nobody has counted.
        match fs::remove_dir_all(&self.pages) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => *held = anew,
        }
        Ok(())
    }

    /// Removes the two files of `version`. The list first: bytes without a list are nothing.
    pub(super) fn remove(&self, version: &Version) {
        if !self.is_held() {
            return;
        }
        let paths = self.paths(version);
        for path in [&paths.pages, &paths.data] {
            if let Err(err) = fs::remove_file(path)
                && err.kind() != io::ErrorKind::NotFound
            {
                log::warn!("{} stays behind: {err}", path.display());
            }
        }
    }
}

/// `stem` and `extension`, however many dots are in the stem.
fn with(stem: &Path, extension: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Makes the directory `dir` for this user alone, if it is missing.
fn private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Who else can write there could have this mount show what bytes they like.
fn check_owner(root: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(root)?;
    let own = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if own {
        return Ok(());
    }
    let problem = format!("{} is not a directory of this user alone", root.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Who may rename what is on the way to the cache could put another one in its place.
fn check_above(dir: &Path) -> io::Result<()> {
    let user = nix::unistd::geteuid().as_raw();
    for place in dir.ancestors() {
        let found = fs::metadata(place)?;
        // A volume of a container, say. Others may still write there, but rename nothing of ours.
        let mode = if place == dir && found.uid() == user && found.mode() & 0o022 != 0 {
            let mode = found.mode() | STICKY;
            fs::set_permissions(place, fs::Permissions::from_mode(mode & 0o7777))?;
            mode
        } else {
            found.mode()
        };
        let Some((what, cure)) = danger(found.uid(), found.gid(), mode, user) else { continue };
        let shown = place.display();
        let problem =
            format!("{shown} {what}, so others could put their own data in the cache's place: {cure}");
        // Root has opened it for all on purpose, as Kubernetes does with the volumes of a pod that runs as somebody else.
        if place == dir && found.uid() == 0 {
            log::warn!("{problem}");
            continue;
        }
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

/// What is wrong with a directory above the cache of `user`, and the cure.
fn danger(owner: u32, group: u32, mode: u32, user: u32) -> Option<(String, String)> {
    if owner != 0 && owner != user {
        let cure = format!("choose another directory, or give that one to root or user {user}");
        return Some((format!("belongs to user {owner}"), cure));
    }
    // A group of the same number as its user has no other members.
    let of_others = mode & 0o002 != 0 || (mode & 0o020 != 0 && group != 0 && group != owner);
    (of_others && mode & STICKY == 0)
        .then(|| ("can be written by others".to_owned(), "`chmod +t` or `chmod go-w` it".to_owned()))
}

impl Held {
    /// Makes `root`, if it is missing, and locks it.
    fn take(root: &Path) -> io::Result<Self> {
        private(root)?;
        check_owner(root)?;
        let path = root.join(LOCK);
        let directory = lock(File::open(root)?, &path)?;
        let id = Id::of(&directory.metadata()?);
        let name = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let mut name = lock(name, &path)?;
        name.set_len(0)?;
        name.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Self { _root: directory, id, _name: name })
    }
}

impl Id {
    fn of(found: &Metadata) -> Self {
        Self(found.dev(), found.ino())
    }
}

/// Locks `file`; fails, naming who has it, by what is written in `name`.
fn lock(file: File, name: &Path) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => {
            let owner = fs::read_to_string(name).unwrap_or_default();
            let owner = if owner.is_empty() { "another process" } else { &format!("process {owner}") };
            io::Error::new(io::ErrorKind::ResourceBusy, format!("{owner} uses it"))
        }
        errno => errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Timestamp;

    fn version(id: u64) -> Version {
        Version { origin: 1, id, size: 10, mtime: Timestamp { secs: 1, nanos: 2 } }
    }

    #[test]
    fn one_process_has_a_directory_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::take(dir.path(), 64, None).unwrap();
        let refusal = Directory::take(dir.path(), 64, None).err().unwrap();
        assert!(
            refusal.to_string().contains(&format!("process {} uses it", std::process::id())),
            "{refusal}"
        );
        drop(first);
        Directory::take(dir.path(), 64, None).unwrap();
    }

    #[test]
    fn a_directory_stays_taken_when_files_in_it_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::take(dir.path(), 64, None).unwrap();
        fs::remove_file(first.path().join(LOCK)).unwrap();
        let refusal = Directory::take(dir.path(), 64, None).err().unwrap();
        assert!(refusal.to_string().contains("another process uses it"), "{refusal}");
    }

    #[test]
    fn a_directory_that_was_removed_is_whose_who_makes_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::take(dir.path(), 64, None).unwrap();
        first.open(&version(1), true).unwrap();
        fs::remove_dir_all(first.path()).unwrap();
        let second = Directory::take(dir.path(), 64, None).unwrap();
        second.open(&version(1), true).unwrap();
        first.remove(&version(1));
        assert_eq!(first.open(&version(1), false).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(first.open(&version(2), true).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        second.open(&version(1), false).unwrap();
        drop(second);
        first.open(&version(2), true).unwrap();
        assert_eq!(first.versions().map(|version| version.id).collect::<Vec<_>>(), [2]);
        assert!(Directory::take(dir.path(), 64, None).is_err());
    }

    #[test]
    fn a_place_where_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(NAME);
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o770)).unwrap();
        let refusal = Directory::take(dir.path(), 64, None).err().unwrap().to_string();
        assert!(refusal.contains("not a directory of this user alone"), "{refusal}");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        Directory::take(dir.path(), 64, None).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&root, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &root).unwrap();
        assert!(Directory::take(dir.path(), 64, None).is_err(), "a link");
    }

    #[test]
    fn whoever_could_put_another_directory_in_its_place_is_named() {
        for (owner, group, mode) in [(0, 0, 0o1777), (7, 7, 0o775), (0, 0, 0o775), (7, 100, 0o755)] {
            assert_eq!(danger(owner, group, mode, 7), None, "{owner} {group} {mode:o}");
        }
        for (owner, group, mode) in [(0, 0, 0o777), (7, 7, 0o777), (7, 100, 0o775), (8, 8, 0o1755)] {
            assert!(danger(owner, group, mode, 7).is_some(), "{owner} {group} {mode:o}");
        }
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let refusal = Directory::take(&open.join("mine"), 64, None).err().unwrap().to_string();
        assert!(refusal.contains("/open can be written by others") && refusal.contains("chmod"), "{refusal}");
        Directory::take(&open, 64, None).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn files_are_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "x").unwrap();
        let taken = Directory::take(&dir.path().join("a/b"), 64, None).unwrap();
        assert!(taken.open(&version(1), false).is_err());
        for id in [1, 257, 3] {
            taken.open(&version(id), true).unwrap();
        }
        fs::remove_file(taken.paths(&version(3)).pages).unwrap();
        let mut found: Vec<u64> = taken.versions().map(|version| version.id).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 257]);
        assert!(!taken.paths(&version(3)).data.exists(), "bytes without a list");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(taken.path()), mode(&taken.paths(&version(1)).data)), (0o700, 0o600));
        taken.remove(&version(1));
        assert_eq!(taken.versions().count(), 1);
    }

    #[test]
    fn what_is_in_another_bucket_is_moved_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let taken = Directory::take(dir.path(), 64, None).unwrap();
        // One that is there already, and one whose bytes are gone.
        for id in [2, 3] {
            taken.open(&version(id), true).unwrap();
        }
        taken.remove(&version(3));
        let old = taken.bucket(0x77);
        private(&old).unwrap();
        for id in [1, 2, 3] {
            let stem = old.join(version(id).name());
            fs::write(with(&stem, PAGES), [7]).unwrap();
            if id != 3 {
                fs::write(with(&stem, DATA), [7]).unwrap();
            }
        }
        taken.versions().for_each(drop);
        assert_eq!(fs::read_dir(&old).unwrap().count(), 0);
        let Paths { data, pages } = taken.paths(&version(1));
        assert_eq!((fs::read(data).unwrap(), fs::read(pages).unwrap()), (vec![7], vec![7]));
        assert!(fs::read(taken.paths(&version(2)).pages).unwrap().is_empty());
        assert!(!taken.paths(&version(3)).pages.exists());
    }

    #[test]
    fn pages_of_another_size_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let before = Directory::take(dir.path(), 64, None).unwrap();
        before.open(&version(1), true).unwrap();
        let old = before.paths(&version(1)).data;
        fs::write(before.path().join("README"), "x").unwrap();
        drop(before);
        let after = Directory::take(dir.path(), 128, None).unwrap();
        assert!(!old.exists() && after.path().join("README").exists());
    }
}
