//! What applications rely on about extended attributes and times, on any directory of any mount. Each scenario
//! wants an empty directory of its own.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::time::ClockId;
use nix::time::clock_gettime;

/// Extended attributes by the calls of xattr(7); a failure is its errno.
pub(crate) mod xattr {
    use super::*;

    pub(crate) fn set(path: &Path, name: &str, value: &[u8], flags: i32) -> Result<(), Errno> {
        let (path, name) = (c(path), c(name.as_ref()));
        let (value, len) = (value.as_ptr().cast(), value.len());
        // SAFETY: both names end with a zero, and the value is as long as said.
        let code = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value, len, flags) };
        Errno::result(code).map(drop)
    }

    /// The value, or as much as there is room for.
    pub(crate) fn get_into(path: &Path, name: &str, room: &mut [u8]) -> Result<usize, Errno> {
        let (path, name) = (c(path), c(name.as_ref()));
        // SAFETY: both names end with a zero, and the kernel writes no more than there is room for.
        let len =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
        Errno::result(len).map(isize::cast_unsigned)
    }

    pub(crate) fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
        let mut room = vec![0; get_into(path, name, &mut [])?];
        let len = get_into(path, name, &mut room)?;
        assert_eq!(len, room.len(), "{name} of {}", path.display());
        Ok(room)
    }

    pub(crate) fn list_into(path: &Path, room: &mut [u8]) -> Result<usize, Errno> {
        let path = c(path);
        // SAFETY: the name ends with a zero, and the kernel writes no more than there is room for.
        let len = unsafe { libc::listxattr(path.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
        Errno::result(len).map(isize::cast_unsigned)
    }

    pub(crate) fn list(path: &Path) -> Result<BTreeSet<String>, Errno> {
        let mut room = vec![0; list_into(path, &mut [])?];
        assert_eq!(list_into(path, &mut room)?, room.len());
        let names = room.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect())
    }

    pub(crate) fn remove(path: &Path, name: &str) -> Result<(), Errno> {
        let (path, name) = (c(path), c(name.as_ref()));
        // SAFETY: both names end with a zero.
        Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
    }

    fn c(text: &Path) -> CString {
        CString::new(text.as_os_str().as_bytes()).unwrap()
    }
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// SEMANTICS: extended attributes `user.*` are kept, with the rules of xattr(7).
pub(crate) fn extended_attributes_are_kept(root: &Path) {
    let (file, dir) = (root.join("file"), root.join("dir"));
    fs::write(&file, b"content").unwrap();
    fs::create_dir(&dir).unwrap();
    for path in [&file, &dir] {
        assert_eq!(xattr::list(path), Ok(names(&[])));
        assert_eq!(xattr::get(path, "user.a"), Err(Errno::ENODATA));
        assert_eq!(xattr::remove(path, "user.a"), Err(Errno::ENODATA));
        assert_eq!(xattr::set(path, "user.a", b"1", libc::XATTR_REPLACE), Err(Errno::ENODATA));
        xattr::set(path, "user.a", b"one\0two\xff", libc::XATTR_CREATE).unwrap();
        assert_eq!(xattr::set(path, "user.a", b"2", libc::XATTR_CREATE), Err(Errno::EEXIST));
        assert_eq!(xattr::get(path, "user.a").unwrap(), b"one\0two\xff");
        xattr::set(path, "user.a", b"three", libc::XATTR_REPLACE).unwrap();
        xattr::set(path, "user.ü b", b"", 0).unwrap();
        let long = format!("user.{}", "n".repeat(250));
        xattr::set(path, &long, b"long", 0).unwrap();
        assert_eq!(xattr::list(path), Ok(names(&["user.a", "user.ü b", &long])));
        assert_eq!(xattr::get(path, "user.ü b").unwrap(), b"");
        assert_eq!(xattr::get(path, &long).unwrap(), b"long");
        // Too little room is told from asking for the length.
        assert_eq!(xattr::get_into(path, "user.a", &mut [0; 4]), Err(Errno::ERANGE));
        assert_eq!(xattr::get_into(path, "user.a", &mut [0; 100]), Ok(5));
        assert_eq!(xattr::list_into(path, &mut [0; 4]), Err(Errno::ERANGE));
        xattr::remove(path, &long).unwrap();
        assert_eq!(xattr::list(path), Ok(names(&["user.a", "user.ü b"])));
        assert_eq!(xattr::set(path, "user.big", &vec![0; (64 << 10) + 1], 0), Err(Errno::E2BIG));
        assert_eq!(xattr::set(path, &format!("user.{}", "n".repeat(251)), b"", 0), Err(Errno::ERANGE));
        assert_eq!(xattr::set(path, "user.", b"", 0), Err(Errno::EINVAL));
    }
    let moved = root.join("moved");
    fs::rename(&file, &moved).unwrap();
    assert_eq!(xattr::get(&moved, "user.a").unwrap(), b"three");
    assert_eq!(fs::read(&moved).unwrap(), b"content");
    assert_eq!(xattr::get(&file, "user.a"), Err(Errno::ENOENT));
}

/// SEMANTICS: extended attributes of other kinds are EOPNOTSUPP.
pub(crate) fn other_extended_attributes_are_refused(root: &Path) {
    let file = root.join("file");
    fs::write(&file, b"x").unwrap();
    for name in ["security.any", "trusted.any", "system.any", "alluxio-fuse.times", "s3_etag", "any"] {
        assert_eq!(xattr::set(&file, name, b"x", 0), Err(Errno::EOPNOTSUPP), "{name}");
        assert_eq!(xattr::get(&file, name), Err(Errno::EOPNOTSUPP), "{name}");
        assert_eq!(xattr::remove(&file, name), Err(Errno::EOPNOTSUPP), "{name}");
    }
    assert_eq!(xattr::list(&file), Ok(names(&[])));
}

/// SEMANTICS: what is set on a file while it is being written is there when it is closed.
pub(crate) fn attributes_set_before_close_are_there_after_it(root: &Path) {
    let path = root.join("file");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path).unwrap();
    let by_fd = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    xattr::set(&by_fd, "user.early", b"before data", 0).unwrap();
    file.write_all(b"some ").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    xattr::set(&by_fd, "user.late", b"between", 0).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    file.write_all(b"content").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o444)).unwrap();
    set_times(&file, Some((1_000_000_001, 123_456_789)), Some((1_000_000_002, 987_654_321)));
    file.sync_all().unwrap();
    check_times(&file.metadata().unwrap(), Some((1_000_000_001, 123_456_789)), (1_000_000_002, 987_654_321));
    drop(file);

    let meta = fs::metadata(&path).unwrap();
    check_times(&meta, Some((1_000_000_001, 123_456_789)), (1_000_000_002, 987_654_321));
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o444, 12));
    assert_eq!(xattr::get(&path, "user.early").unwrap(), b"before data");
    assert_eq!(xattr::get(&path, "user.late").unwrap(), b"between");
    assert_eq!(fs::read(&path).unwrap(), b"some content");
}

/// SEMANTICS: what was set on a file stays when its opener goes on writing after a close.
pub(crate) fn attributes_stay_when_a_write_follows_a_close(root: &Path) {
    let path = root.join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"some ").unwrap();
    drop(file.try_clone().unwrap());
    xattr::set(&path, "user.a", b"1", 0).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    file.write_all(b"content").unwrap();
    xattr::set(&path, "user.b", b"2", 0).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    set_times(&file, None, Some((5, 6)));
    drop(file);
    let meta = fs::metadata(&path).unwrap();
    check_times(&meta, None, (5, 6));
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o600, 12));
    assert_eq!(xattr::list(&path), Ok(names(&["user.a", "user.b"])));
    assert_eq!(fs::read(&path).unwrap(), b"some content");
}

/// SEMANTICS: a time that is set before a write is void after it.
pub(crate) fn a_write_moves_the_time_that_was_set_before_it(root: &Path) {
    let before = now();
    let path = root.join("file");
    let mut file = File::create(&path).unwrap();
    set_times(&file, None, Some((5, 0)));
    assert_eq!(file.metadata().unwrap().mtime(), 5);
    file.write_all(b"x").unwrap();
    assert!(file.metadata().unwrap().mtime() >= before);
    drop(file);
    assert!(fs::metadata(&path).unwrap().mtime() >= before);

    // The same with the descriptors of a shell, for which the file is complete in between.
    let file = File::options().write(true).open(&path).unwrap();
    set_times(&file, None, Some((6, 0)));
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 6);
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 6, "nothing was written");
    fs::write(&path, b"another").unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() >= before);
}

/// SEMANTICS: times of files and directories are kept to the nanosecond, as utimensat(2) has it.
pub(crate) fn times_are_kept(root: &Path) {
    let before = now();
    let (path, dir) = (root.join("file"), root.join("dir"));
    fs::write(&path, b"x").unwrap();
    fs::create_dir(&dir).unwrap();
    for path in [&path, &dir] {
        let file = File::open(path).unwrap();
        let (atime, mtime) = ((1_234_567_890, 999_999_999), (987_654_321, 1));
        set_times(&file, Some(atime), Some(mtime));
        check_times(&fs::metadata(path).unwrap(), Some(atime), mtime);
        set_times(&file, None, Some((7, 8)));
        check_times(&fs::metadata(path).unwrap(), Some(atime), (7, 8));
        set_times(&file, Some((9, 10)), None);
        check_times(&fs::metadata(path).unwrap(), Some((9, 10)), (7, 8));
        set_times(&file, None, Some((-5, 500_000_000)));
        check_times(&fs::metadata(path).unwrap(), Some((9, 10)), (-5, 500_000_000));
        let mode = fs::Permissions::from_mode(0o750);
        fs::set_permissions(path, mode).unwrap();
        check_times(&fs::metadata(path).unwrap(), Some((9, 10)), (-5, 500_000_000));
    }
    // What is done to a directory is a change of it; to a file, a rename is none.
    let moved = dir.join("moved");
    fs::rename(&path, &moved).unwrap();
    check_times(&fs::metadata(&moved).unwrap(), Some((9, 10)), (-5, 500_000_000));
    assert!(fs::metadata(&dir).unwrap().mtime() >= before);
    // utimensat(2) without times.
    // SAFETY: the descriptor is open, and no times are passed.
    Errno::result(unsafe { libc::futimens(File::open(&moved).unwrap().as_raw_fd(), std::ptr::null()) })
        .unwrap();
    let meta = fs::metadata(&moved).unwrap();
    assert!(meta.mtime() >= before && meta.atime() >= before);
}

/// SEMANTICS: every change of attributes moves the time of the last change, and no other time.
pub(crate) fn every_change_of_attributes_moves_ctime(root: &Path) {
    let (file, dir) = (root.join("file"), root.join("dir"));
    fs::write(&file, b"content").unwrap();
    fs::create_dir(&dir).unwrap();
    for path in [&file, &dir] {
        let changed = |what: &str, change: &dyn Fn()| {
            let before = fs::symlink_metadata(path).unwrap();
            wait_for_the_clock(ctime(&before));
            change();
            let after = fs::symlink_metadata(path).unwrap();
            assert!(ctime(&after) > ctime(&before), "{what}: {:?}, {:?}", ctime(&before), ctime(&after));
            assert!(ctime(&after).0 >= now() - 60, "{what}: {:?}", ctime(&after));
            after
        };
        let open = File::open(path).unwrap();
        set_times(&open, Some((11, 12)), Some((13, 14)));
        let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let meta = fs::symlink_metadata(path).unwrap();
        let steps: [(&str, &dyn Fn()); 9] = [
            ("chmod", &|| mode(0o700)),
            ("chmod to the same", &|| mode(0o700)),
            ("chmod that leaves no right to write", &|| mode(0o500)),
            ("chmod without that right", &|| mode(0o750)),
            ("chown to the same", &|| chown(path, Some(meta.uid()), Some(meta.gid())).unwrap()),
            ("setxattr", &|| xattr::set(path, "user.a", b"1", 0).unwrap()),
            ("setxattr of a new one", &|| xattr::set(path, "user.b", b"1", libc::XATTR_CREATE).unwrap()),
            ("setxattr of an old one", &|| xattr::set(path, "user.a", b"2", libc::XATTR_REPLACE).unwrap()),
            ("removexattr", &|| xattr::remove(path, "user.a").unwrap()),
        ];
        for (what, change) in steps {
            check_times(&changed(what, change), Some((11, 12)), (13, 14));
        }
        changed("utimensat", &|| set_times(&open, Some((5, 6)), None));
        changed("utimensat of now", &|| set_times(&open, Some((7, 8)), Some((9, 10))));

        let before = fs::symlink_metadata(path).unwrap();
        assert_eq!(xattr::remove(path, "user.none"), Err(Errno::ENODATA));
        assert_eq!(xattr::set(path, "user.b", b"3", libc::XATTR_CREATE), Err(Errno::EEXIST));
        xattr::get(path, "user.b").unwrap();
        assert_eq!(ctime(&fs::symlink_metadata(path).unwrap()), ctime(&before), "nothing was changed");
    }
    let before = ctime(&fs::metadata(&file).unwrap());
    wait_for_the_clock(before);
    fs::write(&file, b"another").unwrap();
    assert!(ctime(&fs::metadata(&file).unwrap()) > before, "a write");
}

/// Waits until the clock that file systems go by, which takes steps of milliseconds, shows another time than `past`.
fn wait_for_the_clock(past: Time) {
    let start = Instant::now();
    loop {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
        if (now.tv_sec(), now.tv_nsec()) > past {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{past:?} is in the future: {now}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The time of the last change of attributes.
pub(crate) fn ctime(meta: &Metadata) -> Time {
    (meta.ctime(), meta.ctime_nsec())
}

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, i64);

/// futimens(2); a time that is absent stays.
pub(crate) fn set_times(file: &File, atime: Option<Time>, mtime: Option<Time>) {
    try_set_times(file, atime, mtime).unwrap();
}

pub(crate) fn try_set_times(file: &File, atime: Option<Time>, mtime: Option<Time>) -> Result<(), Errno> {
    let spec = |time: Option<Time>| {
        let (tv_sec, tv_nsec) = time.unwrap_or((0, libc::UTIME_OMIT));
        libc::timespec { tv_sec, tv_nsec }
    };
    let times = [spec(atime), spec(mtime)];
    // SAFETY: two times, as the call wants them.
    Errno::result(unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) }).map(drop)
}

pub(crate) fn check_times(meta: &Metadata, atime: Option<Time>, mtime: Time) {
    assert_eq!((meta.mtime(), meta.mtime_nsec()), mtime, "modified");
    if let Some(atime) = atime {
        assert_eq!((meta.atime(), meta.atime_nsec()), atime, "accessed");
    }
}

/// The second that it is, less one for clocks that differ a little.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() - 1
}
