use std::fs::Permissions;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::RenameFlags;
use nix::fcntl::renameat2;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::unistd::Uid;

use super::LocalFs;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsPath;
use crate::fs::RenameMode;
use crate::fs::SetAttr;
use crate::fs::Timestamp;
use crate::fs::XattrMode;

struct Fixture {
    dir: tempfile::TempDir,
    fs: Arc<LocalFs>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let fs = Arc::new(LocalFs::open(dir.path()).unwrap());
    Fixture { dir, fs }
}

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

fn start(fs: &LocalFs, at: &str, replace: bool) -> Box<dyn FileWriter> {
    fs.create(&Ctx::daemon(), &path(at), &CreateOptions { mode: 0o640, replace, beside: false }).unwrap().1
}

fn write(fs: &LocalFs, at: &str, data: &[u8]) {
    let mut writer = start(fs, at, true);
    writer.append(&Ctx::daemon(), data).unwrap();
    writer.commit(&Ctx::daemon()).unwrap();
}

fn read(fs: &LocalFs, at: &str) -> Vec<u8> {
    fs.open(&Ctx::daemon(), &path(at)).unwrap().read_at(&Ctx::daemon(), 0, 1 << 20).unwrap().copied().unwrap()
}

fn names(fs: &LocalFs, at: &str) -> Vec<String> {
    let mut listing = fs.list(&Ctx::daemon(), &path(at)).unwrap();
    let mut names = Vec::new();
    loop {
        let batch = listing.next_batch(&Ctx::daemon()).unwrap();
        if batch.is_empty() {
            names.sort();
            return names;
        }
        names.extend(batch.into_iter().map(|entry| entry.name));
    }
}

#[test]
fn what_is_written_is_read_back() {
    let Fixture { dir: _dir, fs } = fixture();
    write(&fs, "/a", b"hello");
    let reader = fs.open(&Ctx::daemon(), &path("/a")).unwrap();
    assert_eq!(reader.attr().size, 5);
    assert_eq!(reader.attr().mode, 0o640);
    assert_eq!(reader.read_at(&Ctx::daemon(), 1, 3).unwrap().copied().unwrap(), b"ell");
    assert_eq!(reader.read_at(&Ctx::daemon(), 3, 100).unwrap().copied().unwrap(), b"lo");
    assert!(reader.read_at(&Ctx::daemon(), 5, 1).unwrap().is_empty());
}

#[test]
fn an_unfinished_file_is_seen_but_not_read() {
    let Fixture { dir: _dir, fs } = fixture();
    let mut writer = start(&fs, "/a", false);
    assert!(!fs.stat(&Ctx::daemon(), &path("/a")).unwrap().complete);
    assert_eq!(fs.open(&Ctx::daemon(), &path("/a")).err().unwrap().fault(), Fault::Busy);
    assert_eq!(
        fs.create(&Ctx::daemon(), &path("/a"), &CreateOptions { mode: 0o600, replace: false, beside: false })
            .err()
            .unwrap()
            .fault(),
        Fault::Exists
    );
    assert!(writer.commit(&Ctx::daemon()).unwrap().complete);
    assert_eq!(read(&fs, "/a"), b"");
}

#[test]
fn a_file_that_is_given_up_is_removed() {
    let Fixture { dir, fs } = fixture();
    let mut writer = start(&fs, "/a", false);
    writer.append(&Ctx::daemon(), b"half").unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_given_up_leaves_its_successor_alone() {
    let Fixture { dir, fs } = fixture();
    let first = start(&fs, "/a", false);
    write(&fs, "/a", b"second");
    drop(first);
    assert_eq!(read(&fs, "/a"), b"second");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_outside_the_root_can_be_reached() {
    let Fixture { dir, fs } = fixture();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    symlink("/etc", dir.path().join("abs")).unwrap();
    for hidden in ["/link", "/link/secret", "/file", "/abs/passwd"] {
        assert_eq!(fs.stat(&Ctx::daemon(), &path(hidden)).unwrap_err().fault(), Fault::NotFound, "{hidden}");
        assert_eq!(
            fs.open(&Ctx::daemon(), &path(hidden)).err().unwrap().fault(),
            Fault::NotFound,
            "{hidden}"
        );
    }
    for hidden in ["/link", "/file"] {
        let ctx = Ctx::daemon();
        let outcome = fs.set_xattr(&ctx, &path(hidden), "user.a", b"x", XattrMode::Set);
        assert_eq!(outcome.unwrap_err().fault(), Fault::NotFound, "{hidden}");
        assert_eq!(fs.xattrs(&ctx, &path(hidden)).unwrap_err().fault(), Fault::NotFound, "{hidden}");
    }
    let options = CreateOptions { mode: 0o600, replace: true, beside: false };
    assert!(fs.create(&Ctx::daemon(), &path("/link/new"), &options).is_err());
    assert!(fs.create(&Ctx::daemon(), &path("/file"), &options).is_err());
    assert!(fs.make_dir(&Ctx::daemon(), &path("/link/dir"), 0o700).is_err());
    assert!(fs.remove_file(&Ctx::daemon(), &path("/link/secret")).is_err());
    assert_eq!(names(&fs, "/"), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "x");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_link_that_takes_the_place_of_a_file_leads_nowhere_at_any_moment() {
    let Fixture { dir, fs } = fixture();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    write(&fs, "/file", b"y");
    symlink(&secret, dir.path().join("link")).unwrap();
    let change = SetAttr { mode: Some(0o666), mtime: Some(Timestamp::default()), ..SetAttr::default() };
    let (mut changed, mut refused) = (0, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (file, link) = (dir.path().join("file"), dir.path().join("link"));
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &file, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        while changed < 2000 || refused < 2000 {
            match fs.set_attr(&Ctx::daemon(), &path("/file"), &change) {
                Ok(_) => changed += 1,
                Err(error) => {
                    assert_eq!(error.fault(), Fault::NotFound);
                    refused += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let meta = std::fs::metadata(&secret).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_ne!(meta.mtime(), 0);
}

/// Two users and a group that nobody has to know.
const OWNER: u32 = 54_321;
const OTHER: u32 = 54_322;
const GROUP: u32 = 54_323;

/// Runs `work` as `OTHER`, who is in `GROUP`, if this is root: the kernel keeps the user of each thread apart.
fn as_other(work: impl FnOnce() + Send) {
    if !Uid::effective().is_root() {
        return;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let groups = [GROUP];
            // SAFETY: system calls that change the credentials of this thread, and read one number.
            let codes = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
                    libc::syscall(libc::SYS_setresgid, OTHER, OTHER, OTHER),
                    libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER),
                ]
            };
            assert_eq!(codes, [0; 3]);
            work();
        });
    });
}

/// A file of `OWNER` and `GROUP` in a store that everybody may write to.
fn file_of_owner(Fixture { dir, fs }: &Fixture, mode: u32) {
    write(fs, "/file", b"old");
    let file = dir.path().join("file");
    if Uid::effective().is_root() {
        chown(&file, Some(OWNER), Some(GROUP)).unwrap();
    }
    std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn a_new_version_keeps_what_its_writer_may_set() {
    let fixture = fixture();
    file_of_owner(&fixture, 0o444);
    let (ctx, fs) = (Ctx::daemon(), &fixture.fs);
    fs.set_xattr(&ctx, &path("/file"), "user.a", b"1", XattrMode::Set).unwrap();
    as_other(|| {
        write(fs, "/new", b"new");
        let attr = fs.replace(&ctx, &path("/new"), &path("/file")).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode), (OTHER, GROUP, 0o444));
        assert_eq!(&fs.xattr(&ctx, &path("/file"), "user.a").unwrap()[..], b"1");
    });
}

#[test]
fn times_of_now_are_for_who_may_write_and_others_for_the_owner() {
    let fixture = fixture();
    file_of_owner(&fixture, 0o666);
    let (ctx, fs, file) = (Ctx::daemon(), &fixture.fs, path("/file"));
    let past = SetAttr {
        atime: Some(Timestamp { secs: 1, nanos: 2 }),
        mtime: Some(Timestamp { secs: 3, nanos: 4 }),
        ..SetAttr::default()
    };
    let attr = fs.set_attr(&ctx, &file, &past).unwrap();
    assert_eq!((Some(attr.atime), Some(attr.mtime)), (past.atime, past.mtime));
    let mtime = SetAttr { atime: None, now: true, ..past };
    let attr = fs.set_attr(&ctx, &file, &mtime).unwrap();
    assert!(Some(attr.atime) == past.atime && attr.mtime.secs > 3);
    as_other(|| {
        assert_eq!(fs.set_attr(&ctx, &file, &past).unwrap_err().fault(), Fault::NotPermitted);
        for now in [mtime, SetAttr { now: true, ..past }] {
            assert!(fs.set_attr(&ctx, &file, &now).unwrap().mtime.secs > 3);
        }
    });
}

#[test]
fn what_is_mounted_in_the_store_is_not_part_of_it() {
    let Fixture { dir, fs } = fixture();
    std::fs::create_dir(dir.path().join("mounted")).unwrap();
    assert_eq!(names(&fs, "/"), ["mounted"]);
    // Mounted for that thread alone, and as long as it lives.
    thread::scope(|scope| {
        scope.spawn(|| {
            if unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS) == Err(Errno::EPERM) {
                return;
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let point = dir.path().join("mounted");
            mount(None::<&str>, &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let fs = LocalFs::open(dir.path()).unwrap();
            let (ctx, at) = (Ctx::daemon(), path("/mounted"));
            let change = SetAttr { mode: Some(0o700), ..SetAttr::default() };
            assert_eq!(names(&fs, "/"), Vec::<String>::new());
            assert_eq!(fs.stat(&ctx, &at).unwrap_err().fault(), Fault::NotFound);
            assert_eq!(fs.set_attr(&ctx, &at, &change).unwrap_err().fault(), Fault::NotFound);
        });
    });
}

#[test]
fn names_are_made_moved_and_removed() {
    let Fixture { dir: _dir, fs } = fixture();
    let ctx = Ctx::daemon();
    assert_eq!(fs.make_dir(&ctx, &path("/d"), 0o777).unwrap().mode, 0o777);
    assert_eq!(fs.make_dir(&ctx, &path("/d"), 0o777).unwrap_err().fault(), Fault::Exists);
    write(&fs, "/d/f", b"1");
    write(&fs, "/g", b"2");
    assert_eq!(fs.remove_dir(&ctx, &path("/d")).unwrap_err().fault(), Fault::NotEmpty);
    assert_eq!(fs.remove_file(&ctx, &path("/d")).unwrap_err().fault(), Fault::IsDirectory);
    assert_eq!(fs.remove_dir(&ctx, &path("/g")).unwrap_err().fault(), Fault::NotDirectory);
    let no_replace = fs.rename(&ctx, &path("/d/f"), &path("/g"), RenameMode::NoReplace);
    assert_eq!(no_replace.unwrap_err().fault(), Fault::Exists);
    fs.rename(&ctx, &path("/d/f"), &path("/g"), RenameMode::Replace).unwrap();
    assert_eq!(read(&fs, "/g"), b"1");
    fs.remove_dir(&ctx, &path("/d")).unwrap();
    assert_eq!(names(&fs, "/"), ["g"]);
}
