//! The mount point: which directory a name means, and whether it can be mounted at. Changes nothing, and asks no
//! mounted file system anything, as it may hang, unless it is known to be nobody's.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::AccessFlags;

use super::Failure;
use super::Registry;
use super::table;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Longest wait for a mount that may be dead.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What is at a mount point that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing in the way.
    Free,
    /// A mount whose process ended without ending it, to be cleaned up.
    Dead,
}

/// What decides whether a mount point can be used.
pub(super) struct Conditions<'a> {
    /// Entries that the mount would hide are no matter.
    pub(super) nonempty: bool,
    /// The type that a mount made with these settings has.
    pub(super) fs_type: &'a str,
    /// Directory of the embedded store.
    pub(super) store: Option<&'a Path>,
}

/// The absolute path without links that `text` means. The last component is not touched unless it is a link, so this
/// does not hang at a mount that does not answer.
pub fn resolve(text: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(text)?;
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize();
        };
        let parent = match parent.canonicalize() {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(path),
            other => other?,
        };
        let place = parent.join(name);
        match std::fs::read_link(&place) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(place),
        }
    }
    Err(Errno::ELOOP.into())
}

/// Whether a mount can be made at `point`, and what has to be cleaned up for it.
pub(super) fn check(
    point: &Path,
    conditions: &Conditions<'_>,
    registry: &Registry,
) -> Result<State, Failure> {
    if is_in_the_way(point, conditions.fs_type, registry)? {
        return Ok(State::Dead);
    }
    let shown = point.display();
    let found = match std::fs::metadata(point) {
        Ok(found) => found,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(format!(
                "mount point {shown} does not exist, create it with `mkdir -p {shown}`"
            )));
        }
        Err(err) => return Err(Failure::because(format!("mount point {shown}"), err)),
    };
    if !found.is_dir() {
        return Err(Failure::new(format!("mount point {shown} is not a directory but a file")));
    }
    if let Some(store) = conditions.store.filter(|store| point.starts_with(store)) {
        return Err(Failure::new(format!(
            "mount point {shown} is inside the directory {} that it would show, choose one outside",
            store.display()
        )));
    }
    check_rights(point, &found)?;
    if !conditions.nonempty {
        check_empty(point)?;
    }
    Ok(State::Free)
}

/// Whether a dead mount of ours is at `point`. One that lives is an error.
fn is_in_the_way(point: &Path, fs_type: &str, registry: &Registry) -> Result<bool, Failure> {
    let entry = table::find(point).map_err(|err| Failure::because("/proc/self/mountinfo", err))?;
    let Some(entry) = entry else { return Ok(false) };
    let shown = point.display();
    if let Some(record) = registry.live()?.iter().find(|record| record.point == point) {
        return Err(Failure::new(format!(
            "{shown} is already mounted by process {} with path {}, run `alluxio-fuse unmount {shown}` first",
            record.process.pid, record.path
        )));
    }
    if entry.fs_type != table::TYPE && entry.fs_type != fs_type {
        // Somebody else's file system, such as a container's volume, is a directory like any other.
        return Ok(false);
    }
    if is_dead(point) {
        return Ok(true);
    }
    Err(Failure::new(format!(
        "{shown} is already mounted as {}, run `alluxio-fuse unmount {shown}` first",
        entry.fs_type
    )))
}

/// Whether the process behind the mount at `point` has ended. One that does not answer is not dead.
pub(super) fn is_dead(point: &Path) -> bool {
    let (answer, answered) = mpsc::channel();
    let path = point.to_owned();
    // Capacity is asked for, as the kernel would answer for attributes from what it remembers.
    let ask = move || {
        // Nobody may wait any more.
        let _ = answer.send(statvfs(&path));
    };
    if std::thread::Builder::new().name("probe".to_owned()).spawn(ask).is_err() {
        return false;
    }
    matches!(answered.recv_timeout(PROBE_LIMIT), Ok(Err(Errno::ENOTCONN | Errno::ECONNABORTED)))
}

/// What fusermount asks of everybody but root.
fn check_rights(point: &Path, found: &std::fs::Metadata) -> Result<(), Failure> {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return Ok(());
    }
    let sticky = found.mode() & 0o1000 != 0;
    if sticky && found.uid() != user.as_raw() {
        return Err(Failure::new(format!(
            "mount point {} belongs to another user, mount at a directory of your own",
            point.display()
        )));
    }
    nix::unistd::access(point, AccessFlags::W_OK).map_err(|_| {
        Failure::new(format!(
            "mount point {} is not writable for you, mount at a directory of your own",
            point.display()
        ))
    })
}

fn check_empty(point: &Path) -> Result<(), Failure> {
    let mut entries = std::fs::read_dir(point)
        .map_err(|err| Failure::because(format!("mount point {}", point.display()), err))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!(
            "mount point {} is not empty, choose another or hide its content with `-o nonempty`",
            point.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Conditions<'_> = Conditions { nonempty: false, fs_type: table::TYPE, store: None };

    fn registry(dir: &Path) -> Registry {
        Registry::open(&[dir.join("registry")]).unwrap()
    }

    fn refusal(point: &Path, conditions: &Conditions<'_>) -> String {
        let dir = tempfile::tempdir().unwrap();
        check(point, conditions, &registry(dir.path())).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("point");
        std::fs::create_dir(&point).unwrap();
        assert_eq!(check(&point, &FREE, &registry(dir.path())).unwrap(), State::Free);
    }

    #[test]
    fn what_cannot_be_mounted_at_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(
            refusal(&missing, &FREE).contains(&format!("create it with `mkdir -p {}`", missing.display()))
        );
        assert!(!missing.exists());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(refusal(&file, &FREE).contains("not a directory but a file"));
        assert!(refusal(&file.join("below"), &FREE).contains("Not a directory"));
        assert!(refusal(dir.path(), &FREE).contains("is not empty"));
    }

    #[test]
    fn a_full_directory_can_be_hidden_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let conditions = Conditions { nonempty: true, ..FREE };
        assert_eq!(check(dir.path(), &conditions, &registry(elsewhere.path())).unwrap(), State::Free);
    }

    #[test]
    fn a_point_inside_the_store_is_refused_and_one_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let (inside, beside) = (store.join("a/b"), dir.path().join("store2"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir(&beside).unwrap();
        let conditions = Conditions { store: Some(&store), ..FREE };
        assert!(refusal(&inside, &conditions).contains("is inside the directory"));
        assert!(refusal(&store, &conditions).contains("is inside the directory"));
        assert_eq!(check(&beside, &conditions, &registry(dir.path())).unwrap(), State::Free);
    }

    #[test]
    fn somebody_elses_mount_is_a_directory_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let conditions = Conditions { nonempty: true, ..FREE };
        assert_eq!(check(Path::new("/proc"), &conditions, &registry(dir.path())).unwrap(), State::Free);
    }

    #[test]
    fn links_are_resolved_and_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("relative")).unwrap();
        std::os::unix::fs::symlink(base.join("relative"), base.join("chain")).unwrap();
        std::os::unix::fs::symlink("loop", base.join("loop")).unwrap();
        assert_eq!(resolve(&base.join("chain/")).unwrap(), base.join("real"));
        assert_eq!(resolve(&base.join("real/../relative")).unwrap(), base.join("real"));
        assert_eq!(resolve(&base.join("missing/x")).unwrap(), base.join("missing/x"));
        assert!(resolve(&base.join("loop")).is_err());
        assert_eq!(resolve(Path::new("/")).unwrap(), Path::new("/"));
    }
}
