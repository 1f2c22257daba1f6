//! What a reader may see through the caches: the mount's memory of metadata, the kernel's attributes, names and pages, and
//! the commands that drop them. SEMANTICS.md has the contract that this quotes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use tempfile::TempDir;

use common::attributes::set_times;
use common::attributes::xattr;
use common::cluster::Cluster;
use common::kernel;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
/// The kernel asks each time.
const ASKING: &str = "attr_timeout=0,entry_timeout=0";
/// The kernel believes what it was told as long as a test lasts.
const BELIEVING: &str = "attr_timeout=600,entry_timeout=600,negative_timeout=600";

/// With a memory for metadata that outlasts a test, and commands to it.
fn remembering(spec: Spec, kernel: &str) -> Spec {
    spec.option("direct_io")
        .option(kernel)
        .option("metadata_cache_size=2000,metadata_cache_expire=1h")
        .property("alluxio.fuse.special.command.enabled", "true")
}

/// The tests that use the cluster run one by one, as one of them suspends its master.
fn cluster() -> (Cluster, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    (Cluster::get(), ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn stat(path: &Path) -> fs::Metadata {
    fs::metadata(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn mode(path: &Path) -> u32 {
    stat(path).mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|err| err.raw_os_error()).map(Errno::from_raw)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What `ls -l` shows of the command `name` in `dir`.
fn ls(dir: &Path, name: &str) -> String {
    let path = dir.join(format!(".alluxiocli.metadatacache.{name}"));
    process::succeed(Command::new("ls").arg("-l").arg(path).env("TZ", "UTC").env("LC_ALL", "C"), LIMIT)
}

/// The number of entries that are remembered.
fn size(mount: &Mount) -> u64 {
    ls(mount.path(), "size").split_whitespace().nth(4).unwrap().parse().unwrap()
}

// --- changes through the mount

type Seen = (bool, u64, u32, (i64, i64), (i64, i64), (u32, u32));

/// Everything at and below `root` that a change may have touched, by its path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = stat(&path);
        let entry = (
            meta.is_dir(),
            meta.len(),
            meta.mode() & 0o777,
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
            (meta.uid(), meta.gid()),
        );
        if meta.is_dir() {
            ahead.extend(names(&path).into_iter().map(|name| path.join(name)));
        }
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), entry);
    }
    seen
}

/// Makes every kind of change below `root`, which remembers all there is before each of them, and compares it then with
/// `truth`, the same directory without caches.
fn change_everything(root: &Path, truth: &Path) {
    let at = |name: &str| root.join(name);
    let absent = ["new", "dir", "dir/f", "moved", "moved/sub/g", "dir/sub"].map(at);
    let check = |what: &str, change: &dyn Fn()| {
        tree(root);
        absent.iter().for_each(|path| drop(fs::metadata(path)));
        change();
        assert_eq!(tree(root), tree(truth), "after {what}");
        for path in &absent {
            let true_path = truth.join(path.strip_prefix(root).unwrap());
            assert_eq!(path.exists(), true_path.exists(), "{} after {what}", path.display());
        }
    };
    check("create", &|| fs::write(at("new"), b"12345").unwrap());
    check("mkdir", &|| fs::create_dir_all(at("dir/sub")).unwrap());
    check("files in it", &|| {
        fs::write(at("dir/f"), b"1").unwrap();
        fs::write(at("dir/sub/g"), b"22").unwrap();
    });
    check("chmod", &|| chmod(&at("new"), 0o600));
    check("chmod of a directory", &|| chmod(&at("dir"), 0o700));
    let id = stat(root).uid();
    check("chown", &|| std::os::unix::fs::chown(at("new"), Some(id), None).unwrap());
    check("times", &|| {
        set_times(&File::open(at("dir/f")).unwrap(), Some((1_000_000_000, 1)), Some((1_100_000_000, 2)));
    });
    check("an extended attribute", &|| xattr::set(&at("dir/f"), "user.a", b"x", 0).unwrap());
    check("its removal", &|| xattr::remove(&at("dir/f"), "user.a").unwrap());
    check("writing over it", &|| fs::write(at("dir/f"), b"anew").unwrap());
    check("truncate", &|| OpenOptions::new().write(true).open(at("dir/f")).unwrap().set_len(0).unwrap());
    check("a write to what is empty", &|| {
        OpenOptions::new().append(true).open(at("dir/f")).unwrap().write_all(b"appended").unwrap();
    });
    check("rename of a file", &|| fs::rename(at("dir/f"), at("dir/sub/h")).unwrap());
    check("rename over a file", &|| fs::rename(at("dir/sub/h"), at("new")).unwrap());
    check("rename of a directory", &|| fs::rename(at("dir"), at("moved")).unwrap());
    check("another one in its place", &|| fs::create_dir(at("dir")).unwrap());
    check("rename over an empty directory", &|| fs::rename(at("moved"), at("dir")).unwrap());
    check("unlink", &|| fs::remove_file(at("dir/sub/g")).unwrap());
    check("rmdir", &|| fs::remove_dir(at("dir/sub")).unwrap());
    check("rm -r", &|| fs::remove_dir_all(at("dir")).unwrap());
}

#[test]
fn changes_through_the_mount_are_seen_at_once() {
    for kernel in [ASKING, BELIEVING] {
        for libfuse in [2, 3] {
            let dir = tempfile::tempdir().unwrap();
            let mount = remembering(Spec::local(dir.path()), kernel).libfuse(libfuse).start();
            change_everything(mount.path(), dir.path());
            mount.unmount();
        }
    }
}

#[test]
fn changes_through_a_mount_of_a_cluster_are_seen_at_once() {
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("caches");
    let plain = Spec::alluxio(&cluster, &dir.path).option("direct_io").option(ASKING).start();
    for (name, kernel) in [("asking", ASKING), ("believing", BELIEVING)] {
        let mount = remembering(Spec::alluxio(&cluster, &dir.path), kernel).start();
        fs::create_dir(mount.path().join(name)).unwrap();
        change_everything(&mount.path().join(name), &plain.path().join(name));
        mount.unmount();
    }
}

// --- without the master

#[test]
fn what_is_remembered_needs_no_master() {
    let (cluster, _alone) = cluster();
    for libfuse in [2, 3] {
        let dir = cluster.directory("warm");
        let mount = remembering(Spec::alluxio(&cluster, &dir.path), ASKING)
            .libfuse(libfuse)
            .property("alluxio.user.rpc.retry.max.duration", "5s")
            .start();
        let sub = mount.path().join("sub");
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join("file"), b"bytes").unwrap();
        let look = || {
            let script = "test -r sub/file && stat sub/file && ls -l sub && test ! -e sub/absent && ls -l .alluxiocli.metadatacache.size";
            let mut command = Command::new("timeout");
            command.args(["20", "sh", "-c", script]).current_dir(mount.path());
            process::succeed(&mut command, LIMIT)
        };
        let before = look();
        // What the command says of the size may have grown by what the first look was the first to ask for.
        let (before, _) = before.split_once("----------").unwrap();
        let away = cluster.suspend("master");
        let after = look();
        drop(away);
        assert_eq!(after.split_once("----------").unwrap().0, before);
        mount.unmount();
    }
}

// --- changes by others

#[test]
fn what_others_change_is_seen_after_the_time_or_the_command() {
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("others");
    let mount = remembering(Spec::alluxio(&cluster, &dir.path), BELIEVING).start();
    let brief = Spec::alluxio(&cluster, &dir.path)
        .option("direct_io")
        .option(ASKING)
        .option("metadata_cache_size=100,metadata_cache_expire=2s")
        .start();
    let other = Spec::alluxio(&cluster, &dir.path).start();
    for name in ["kept", "gone", "moved"] {
        fs::write(other.path().join(name), b"1").unwrap();
    }
    let at = |name: &str| mount.path().join(name);
    let all = ["gone", "kept", "moved"];
    assert_eq!(
        (names(mount.path()), names(brief.path())),
        (all.map(str::to_owned).to_vec(), all.map(str::to_owned).to_vec())
    );
    assert!(
        all.iter().all(|name| at(name).exists()) && !at("new").exists() && !brief.path().join("new").exists()
    );

    cluster.shell(&["chmod", "600", &dir.join("kept")]);
    cluster.shell(&["rm", &dir.join("gone")]);
    cluster.shell(&["mv", &dir.join("moved"), &dir.join("new")]);
    assert_eq!(mode(&at("kept")), 0o644);
    assert!(at("gone").exists() && at("moved").exists() && !at("new").exists());
    assert_eq!(names(mount.path()), all);
    // What gives bytes is asked each time.
    assert_eq!(errno(File::open(at("gone"))), Some(Errno::ENOENT));
    assert!(!at("gone").exists(), "it was seen to be gone");

    ls(mount.path(), "dropAll");
    assert_eq!(names(mount.path()), ["kept", "new"]);
    assert_eq!(mode(&at("kept")), 0o600);
    assert!(!at("moved").exists());
    assert_eq!(fs::read(at("new")).unwrap(), b"1");
    wait_until("the time of the entries is over", LIMIT, || {
        names(brief.path()) == ["kept", "new"] && mode(&brief.path().join("kept")) == 0o600
    });
    mount.unmount();
    brief.unmount();
    other.unmount();
}

#[test]
fn an_open_shows_what_another_client_has_written_with_its_length() {
    let (cluster, _alone) = cluster();
    for pages in ["direct_io", "kernel_cache", "auto_cache", "noauto_cache"] {
        let dir = cluster.directory("rewritten");
        let mount = Spec::alluxio(&cluster, &dir.path)
            .option(pages)
            .option(BELIEVING)
            .option("metadata_cache_size=100,metadata_cache_expire=1h")
            .start();
        let other = Spec::alluxio(&cluster, &dir.path).start();
        let at = |name: &str| mount.path().join(name);
        for (first, second) in [(10, 100_000), (100_000, 10)] {
            fs::write(at("f"), vec![b'1'; first]).unwrap();
            assert_eq!(fs::read(at("f")).unwrap().len(), first);
            let old = File::open(at("f")).unwrap();
            assert_eq!(stat(&at("f")).len(), first as u64);
            fs::write(other.path().join("f"), vec![b'2'; second]).unwrap();
            assert_eq!(stat(&at("f")).len(), first as u64, "{pages}: it is remembered");
            let mut file = File::open(at("f")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), second as u64, "{pages}");
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert!(bytes == vec![b'2'; second], "{pages}: {} bytes", bytes.len());
            assert_eq!(stat(&at("f")).len(), second as u64, "{pages}");
            // Who had the old one open gets its bytes or an error.
            let mut byte = [0];
            match old.read_exact_at(&mut byte, 0) {
                Ok(()) => assert_eq!(byte, [b'1'], "{pages}"),
                Err(err) => assert_eq!(err.raw_os_error(), Some(libc::ESTALE), "{pages}: {err}"),
            }
        }
        mount.unmount();
        other.unmount();
    }
}

#[test]
fn who_writes_goes_by_what_is_there() {
    for kernel in [ASKING, BELIEVING] {
        let dir = tempfile::tempdir().unwrap();
        let mount = remembering(Spec::local(dir.path()), kernel).start();
        let (here, there) = (mount.path().join("log"), dir.path().join("log"));
        fs::write(&there, b"").unwrap();
        assert_eq!(stat(&here).len(), 0);
        fs::write(&there, b"written by another").unwrap();
        assert_eq!(stat(&here).len(), 0, "it is remembered as empty");
        let append = OpenOptions::new().append(true).open(&here).and_then(|mut file| file.write_all(b"more"));
        assert_eq!(errno(append), Some(Errno::EOPNOTSUPP));
        assert_eq!(fs::read(&there).unwrap(), b"written by another");
        // What is remembered as absent is not made a second time.
        assert!(!mount.path().join("lock").exists());
        fs::write(dir.path().join("lock"), b"theirs").unwrap();
        let exclusive = OpenOptions::new().write(true).create_new(true).open(mount.path().join("lock"));
        assert_eq!(errno(exclusive), Some(Errno::EEXIST));
        assert_eq!(fs::read(mount.path().join("lock")).unwrap(), b"theirs");
        mount.unmount();
    }
}

// --- races, bounds, rights

/// Changes `file` again and again while others look at it and at its directory: after each change it shows.
fn race(dir: &Path, changes: u32) {
    let (file, name) = (dir.join("file"), dir.join("name"));
    fs::write(&file, b"x").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (done, file, name) = (&done, &file, &name);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    match reader {
                        0 => drop(fs::metadata(file)),
                        1 => drop(fs::metadata(name)),
                        _ => drop(names(dir)),
                    }
                }
            });
        }
        let writer = scope.spawn(|| {
            for change in 0..changes {
                let bits = 0o400 | (change % 0o100);
                chmod(&file, bits);
                assert_eq!(mode(&file), bits, "change {change}");
                fs::create_dir(&name).unwrap();
                assert!(name.is_dir() && names(dir) == ["file", "name"], "change {change}");
                fs::remove_dir(&name).unwrap();
                assert!(!name.exists() && names(dir) == ["file"], "change {change}");
            }
        });
        let outcome = writer.join();
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn no_reader_puts_back_what_was_before_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let mount = remembering(Spec::local(dir.path()), ASKING).start();
    race(mount.path(), 2000);
    mount.unmount();
    let (cluster, _alone) = cluster();
    let dir = cluster.directory("race");
    let mount = remembering(Spec::alluxio(&cluster, &dir.path), ASKING).start();
    race(mount.path(), 20);
    mount.unmount();
}

#[test]
fn no_more_is_remembered_than_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Spec::local(dir.path())
        .option("direct_io")
        .option("metadata_cache_size=200,alluxio.fuse.special.command.enabled=true")
        .start();
    for number in 0..1000 {
        fs::write(dir.path().join(number.to_string()), b"").unwrap();
    }
    for number in 0..2000 {
        drop(fs::metadata(mount.path().join(number.to_string())));
    }
    let entries = size(&mount);
    assert!((150..=200).contains(&entries), "{entries} entries");
    // A directory that is larger than that is listed whole.
    assert_eq!(names(mount.path()).len(), 1000);
    assert!(size(&mount) <= 200);
    mount.unmount();
}

#[test]
fn nobody_gets_rights_by_what_another_was_shown() {
    if !users::are_available() {
        return;
    }
    let daemon = users::named("daemon");
    let dir = TempDir::new().unwrap();
    chmod(dir.path(), 0o755);
    let mount =
        remembering(Spec::local(dir.path()), ASKING).option("allow_other,default_permissions").start();
    let closed = mount.path().join("closed");
    fs::create_dir(&closed).unwrap();
    for (path, bits) in [("closed/f", 0o644), ("own", 0o600)] {
        fs::write(mount.path().join(path), b"secret").unwrap();
        chmod(&mount.path().join(path), bits);
    }
    chmod(&closed, 0o700);
    // The way to the mount is open only to its owner.
    let above = mount.path().parent().unwrap();
    chmod(above, 0o755);
    assert_eq!(
        (names(&closed).len(), mode(&closed.join("f")), mode(&mount.path().join("own"))),
        (1, 0o644, 0o600)
    );
    daemon.run(|| {
        assert_eq!(errno(fs::metadata(closed.join("f"))), Some(Errno::EACCES));
        assert_eq!(errno(fs::read_dir(&closed)), Some(Errno::EACCES));
        assert_eq!(errno(File::open(mount.path().join("own"))), Some(Errno::EACCES));
    });
    chmod(&closed, 0o755);
    daemon.run(|| assert_eq!(fs::read(closed.join("f")).unwrap(), b"secret"));
    chmod(&closed, 0o700);
    daemon.run(|| assert_eq!(errno(fs::metadata(closed.join("f"))), Some(Errno::EACCES)));
    mount.unmount();
}

#[test]
fn a_cache_of_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = Spec::local(dir.path())
        .property("alluxio.user.metadata.cache.enabled", "true")
        .property("alluxio.user.metadata.cache.max.size", "0")
        .refusal();
    assert!(
        said.contains("alluxio.user.metadata.cache.max.size (command line) should not be zero"),
        "{said}"
    );
}

// --- commands

#[test]
fn commands_drop_what_the_mount_and_the_kernel_believe() {
    let drops_names = kernel::is_since(6, 16);
    for libfuse in [2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let there = |name: &str| dir.path().join(name);
        fs::create_dir_all(there("a/b/c")).unwrap();
        fs::create_dir(there("other")).unwrap();
        let files = ["a/top", "a/b/file", "a/b/c/deep", "other/file"];
        for file in files {
            fs::write(there(file), b"1").unwrap();
        }
        let mount = remembering(Spec::local(dir.path()), BELIEVING).libfuse(libfuse).start();
        assert!(mount.uses_libfuse(libfuse));
        let here = |name: &str| mount.path().join(name);
        let all =
            ["a", "a/b", "a/b/c", "a/b/c/deep", "a/b/absent", "a/top", "other", "other/file", "other/absent"];
        // An older kernel goes on to believe absent names.
        let all: Vec<&str> =
            all.into_iter().filter(|name| drops_names || !name.ends_with("absent")).collect();
        let mode_of = |path: PathBuf| fs::metadata(path).ok().map(|meta| meta.mode() & 0o777);
        let look = || -> Vec<_> { all.iter().map(|name| mode_of(here(name))).collect() };
        let truth = || -> Vec<_> { all.iter().map(|name| mode_of(there(name))).collect() };
        let before = look();
        assert_eq!(before, truth());
        for name in ["a", "a/b", "a/b/c", "other"] {
            chmod(&there(name), 0o711);
        }
        files.iter().for_each(|name| chmod(&there(name), 0o600));
        for name in ["a/b/absent", "other/absent"] {
            fs::write(there(name), b"").unwrap();
        }
        assert_eq!(look(), before, "nothing has been dropped yet");

        // That directory, all above it, all below it, and nothing beside it.
        let line = ls(&here("a/b"), "drop");
        assert!(line.starts_with("---------- 1 "), "{line}");
        let now = truth();
        let expected: Vec<_> = all
            .iter()
            .zip(before.iter().zip(&now))
            .map(
                |(name, (before, now))| {
                    if name.starts_with("other") || *name == "a/top" { *before } else { *now }
                },
            )
            .collect();
        assert_eq!(look(), expected, "libfuse {libfuse}");
        ls(&here("a/b/c"), "dropAll");
        assert_eq!(look(), now, "libfuse {libfuse}");
        // Done a second time, it is done a second time.
        chmod(&there("other/file"), 0o640);
        assert_eq!(mode(&here("other/file")), 0o600);
        ls(&here("a/b/c"), "dropAll");
        assert_eq!(mode(&here("other/file")), 0o640);
        mount.unmount();
    }
}

#[test]
fn the_size_is_shown_as_java_shows_it_and_never_believed() {
    for libfuse in [2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mount = remembering(Spec::local(dir.path()), BELIEVING).libfuse(libfuse).start();
        ls(mount.path(), "dropAll");
        assert_eq!(size(&mount), 0);
        for number in 1..=13 {
            fs::write(dir.path().join(number.to_string()), b"").unwrap();
            fs::metadata(mount.path().join(number.to_string())).unwrap();
            assert_eq!(size(&mount), number, "libfuse {libfuse}");
        }
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        let user = nix::unistd::User::from_uid(user).unwrap().unwrap().name;
        let group = nix::unistd::Group::from_gid(group).unwrap().unwrap().name;
        let path = mount.path().join(".alluxiocli.metadatacache.size");
        let expected = format!("---------- 1 {user} {group} 13 Jan  1  1970 {}\n", path.display());
        assert_eq!(ls(mount.path(), "size"), expected);
        // It can only be looked at.
        assert_eq!(errno(fs::read(&path)), Some(Errno::ENOENT));
        assert_eq!(names(mount.path()).len(), 13);
        mount.unmount();
    }
}

#[test]
fn a_command_that_cannot_be_carried_out_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let look = |mount: &Mount, name: &str| errno(fs::metadata(mount.path().join(name)));

    let mount = remembering(Spec::local(dir.path()), ASKING).start();
    for (name, text) in [
        (".alluxiocli", "Command is needed in Fuse shell"),
        (".alluxiocli.unheard", "unheard is an unknown command."),
        (".alluxiocli.metadatacache", "No sub-command is specified"),
        (".alluxiocli.metadatacache.size2", "Unknown sub-command: size2"),
    ] {
        assert_eq!(look(&mount, name), Some(Errno::EINVAL), "{name}");
        let logged = mount.logged(text);
        assert!(
            logged.iter().any(|line| line.contains(&format!("Failed to lookup /{name}: "))),
            "{logged:?}"
        );
    }
    mount.unmount();

    let off = Spec::local(dir.path()).property("alluxio.fuse.special.command.enabled", "true").start();
    assert_eq!(look(&off, ".alluxiocli.metadatacache.size"), Some(Errno::EOPNOTSUPP));
    let text = "size command is not supported when alluxio.user.metadata.cache.enabled is false";
    assert_eq!(off.logged(text).len(), 1, "{}", off.said());
    off.unmount();

    let plain = Spec::local(dir.path()).option("metadata_cache_size=10").start();
    assert_eq!(look(&plain, ".alluxiocli.metadatacache.size"), Some(Errno::ENOENT), "off by default");
    fs::write(plain.path().join(".alluxiocli.metadatacache.size"), b"a name like others").unwrap();
    plain.unmount();
}

// --- the kernel's caches alone

/// Whether what `look` shows stays after `change`, which is made behind the mount's back.
fn stays<T: PartialEq>(look: impl Fn() -> T, change: impl FnOnce()) -> bool {
    let before = look();
    change();
    look() == before
}

#[test]
fn the_kernel_believes_attributes_and_names_for_their_times() {
    for libfuse in [2, 3] {
        for (words, attributes, absent) in [
            ("attr_timeout=600", true, false),
            ("attr_timeout=0", false, false),
            ("attr_timeout=0,entry_timeout=600", false, false),
            ("attr_timeout=0,entry_timeout=0,negative_timeout=600", false, true),
            ("attr_timeout=600,entry_timeout=600,negative_timeout=600", true, true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let there = |name: &str| dir.path().join(name);
            fs::write(there("f"), b"1").unwrap();
            let mount = Spec::local(dir.path()).option("direct_io").option(words).libfuse(libfuse).start();
            let here = |name: &str| mount.path().join(name);
            // By a descriptor, so that no look-up brings attributes along.
            let open = File::open(here("f")).unwrap();
            let by_name = || open.metadata().unwrap().mode();
            assert_eq!(
                stays(by_name, || chmod(&there("f"), 0o600)),
                attributes,
                "{words}, libfuse {libfuse}"
            );
            let exists = || here("new").exists();
            assert_eq!(stays(exists, || fs::write(there("new"), b"").unwrap()), absent, "{words}, {libfuse}");
            mount.unmount();
        }
    }
}

#[test]
fn a_name_is_believed_for_its_time() {
    for libfuse in [2, 3] {
        for (words, believed) in
            [("attr_timeout=600,entry_timeout=600", true), ("attr_timeout=600,entry_timeout=0", false)]
        {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("f"), b"1").unwrap();
            let mount = Spec::local(dir.path()).option("direct_io").option(words).libfuse(libfuse).start();
            let exists = || mount.path().join("f").exists();
            let removed = || fs::remove_file(dir.path().join("f")).unwrap();
            assert_eq!(stays(exists, removed), believed, "{words}, libfuse {libfuse}");
            mount.unmount();
        }
    }
}

#[test]
fn a_short_time_passes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"1").unwrap();
    let words = "direct_io,attr_timeout=0.5,entry_timeout=0.5,negative_timeout=0.5";
    let mount = Spec::local(dir.path()).option(words).start();
    let (file, new) = (mount.path().join("f"), mount.path().join("new"));
    assert!(!new.exists());
    assert_eq!(mode(&file), 0o644);
    chmod(&dir.path().join("f"), 0o600);
    fs::write(dir.path().join("new"), b"").unwrap();
    wait_until("the times are over", LIMIT, || mode(&file) == 0o600 && new.exists());
    mount.unmount();
}

/// What a file of 5 bytes reads as, opened anew.
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// Puts `bytes` in the place of those of `path`, without a trace in its times if `traceless`.
fn rewrite(path: &Path, bytes: &[u8], traceless: bool) {
    let before = stat(path);
    OpenOptions::new().write(true).custom_flags(libc::O_TRUNC).open(path).unwrap().write_all(bytes).unwrap();
    let mtime = if traceless { (before.mtime(), before.mtime_nsec()) } else { (before.mtime() + 1, 0) };
    set_times(&File::open(path).unwrap(), None, Some(mtime));
}

#[test]
fn pages_are_kept_as_the_words_say() {
    for libfuse in [2, 3] {
        for memory in ["", ",metadata_cache_size=100,metadata_cache_expire=1h"] {
            // The words; whether pages outlive an open without and with a trace of the change, and a change of the size.
            for (words, traceless, traced) in [
                ("direct_io,attr_timeout=600", false, false),
                ("attr_timeout=600", false, false),
                ("auto_cache,attr_timeout=600", true, false),
                ("auto_cache,attr_timeout=0", true, false),
                ("kernel_cache,attr_timeout=600", true, false),
            ] {
                let dir = tempfile::tempdir().unwrap();
                let there = dir.path().join("f");
                fs::write(&there, b"first").unwrap();
                let mount = Spec::local(dir.path())
                    .option(&format!("{words}{memory}"))
                    .libfuse(libfuse)
                    // Of a file that the kernel reads by itself it keeps no pages of ours.
                    .property("alluxio.fuse.passthrough.enabled", "false")
                    .start();
                let here = mount.path().join("f");
                let look = || read(&here);
                look();
                let what = format!("{words}{memory}, libfuse {libfuse}");
                assert_eq!(
                    stays(look, || rewrite(&there, b"other", true)),
                    traceless,
                    "{what}, without a trace"
                );
                assert_eq!(
                    stays(look, || rewrite(&there, b"third", false)),
                    traced,
                    "{what}, with another time"
                );
                rewrite(&there, b"longer than before", false);
                assert_eq!(read(&here), b"longer than before", "{what}");
                rewrite(&there, b"short", false);
                assert_eq!(read(&here), b"short", "{what}");
                mount.unmount();
            }
        }
    }
}
