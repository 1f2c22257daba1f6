//! Extended attributes, times and modes on a real cluster, by both versions of libfuse, as tools use them.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use common::attributes;
use common::attributes::check_times;
use common::attributes::now;
use common::attributes::set_times;
use common::attributes::try_set_times;
use common::attributes::xattr;
use common::cluster::Cluster;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::wait_until;
use common::web::Web;
use common::web::with_web;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `scenario` in a new directory of the cluster, once through each version of libfuse.
fn on_a_cluster(name: &str, scenario: fn(&Path)) {
    let cluster = Cluster::get();
    for libfuse in [2, 3] {
        let dir = cluster.directory(name);
        let mount = Spec::alluxio(&cluster, &dir.path).libfuse(libfuse).start();
        assert!(mount.uses_libfuse(libfuse));
        scenario(mount.path());
        mount.unmount();
    }
}

/// The same over the embedded store.
fn on_the_embedded_store(scenario: fn(&Path)) {
    for libfuse in [2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mount = Spec::local(dir.path()).libfuse(libfuse).start();
        scenario(mount.path());
        mount.unmount();
    }
}

fn run(program: &str, words: &[&str], dir: &Path) -> String {
    process::succeed(Command::new(program).args(words).current_dir(dir).env("LC_ALL", "C"), LIMIT)
}

#[test]
fn extended_attributes_are_kept() {
    on_a_cluster("xattr", attributes::extended_attributes_are_kept);
}

#[test]
fn other_extended_attributes_are_refused() {
    on_a_cluster("xattr-other", attributes::other_extended_attributes_are_refused);
}

#[test]
fn attributes_set_before_close_are_there_after_it() {
    on_a_cluster("early", attributes::attributes_set_before_close_are_there_after_it);
}

#[test]
fn attributes_stay_when_a_write_follows_a_close() {
    on_a_cluster("go-on", attributes::attributes_stay_when_a_write_follows_a_close);
}

#[test]
fn a_write_moves_the_time_that_was_set_before_it() {
    on_a_cluster("write-time", attributes::a_write_moves_the_time_that_was_set_before_it);
}

#[test]
fn times_are_kept() {
    on_a_cluster("times", attributes::times_are_kept);
}

#[test]
fn every_change_of_attributes_moves_ctime() {
    on_a_cluster("ctime", attributes::every_change_of_attributes_moves_ctime);
}

#[test]
fn a_change_of_attributes_is_seen_by_other_mounts() {
    let cluster = Cluster::get();
    let dir = cluster.directory("ctime-shared");
    let spec = Spec::alluxio(&cluster, &dir.path).option("attr_timeout=0");
    let (one, other) = (spec.start(), spec.start());
    let ctime = |mount: &Mount| attributes::ctime(&fs::metadata(mount.path().join("file")).unwrap());
    fs::write(one.path().join("file"), b"x").unwrap();
    let mut last = ctime(&other);
    // By turns, which one clock would order.
    for mode in [0o600, 0o640, 0o644, 0o600] {
        for mount in [&one, &other] {
            let path = mount.path().join("file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(ctime(mount) > last, "{:?} after {last:?}", ctime(mount));
            last = ctime(mount);
            assert_eq!((ctime(&one), ctime(&other)), (last, last));
        }
    }
    fs::write(other.path().join("file"), b"more").unwrap();
    assert!(ctime(&one) > last);
}

#[test]
fn one_of_many_makes_an_attribute() {
    let cluster = Cluster::get();
    let dir = cluster.directory("xattr-race");
    let spec = Spec::alluxio(&cluster, &dir.path);
    let mounts = [spec.start(), spec.start()];
    let name = |round: u32| format!("user.lock{round}");
    fs::write(mounts[0].path().join("file"), b"x").unwrap();
    for round in 0..20 {
        // The values differ in every other round only.
        let value = |who: usize| if round % 2 == 0 { vec![b'x'] } else { vec![who as u8] };
        let start = Barrier::new(mounts.len());
        let race = |who: usize| {
            let path = mounts[who].path().join("file");
            start.wait();
            xattr::set(&path, &name(round), &value(who), libc::XATTR_CREATE)
        };
        let race = &race;
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..mounts.len()).map(|who| scope.spawn(move || race(who))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = (0..mounts.len()).filter(|who| results[*who].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.contains(&Err(Errno::EEXIST)), "{results:?}");
        let path = mounts[0].path().join("file");
        assert_eq!(xattr::get(&path, &name(round)).unwrap(), value(winners[0]));
        if round % 3 == 0 {
            // What was removed can be made again.
            xattr::remove(&path, &name(round)).unwrap();
            let path = mounts[1].path().join("file");
            xattr::set(&path, &name(round), b"again", libc::XATTR_CREATE).unwrap();
        }
    }
    assert_eq!(xattr::list(&mounts[0].path().join("file")).unwrap().len(), 20);
}

/// A master of 2.9.4 fails in the middle of its answer if one of the attributes that it writes there is added or removed.
#[test]
fn a_change_does_not_fail_those_who_look() {
    const READERS: usize = 3;
    let cluster = Cluster::get();
    let dir = cluster.directory("looked-at");
    let (changing, looking) = (
        Spec::alluxio(&cluster, &dir.path).start(),
        with_web(Spec::alluxio(&cluster, &dir.path)).option("attr_timeout=0").start(),
    );
    let web = Web::of(&looking);
    let has_met_it = || web.figures().sum("alluxio_fuse_rpc_retries_total{method=GetStatus") > 0.0;
    let (changed, seen) = (changing.path().join("file"), looking.path().join("file"));
    fs::write(&changed, b"x").unwrap();
    for kept in 0..30 {
        xattr::set(&changed, &format!("user.kept{kept}"), b"1", 0).unwrap();
    }
    thread::scope(|scope| {
        let changes = Arc::new(scope.spawn(|| {
            wait_until("the master fails in its answer", Duration::from_secs(120), || {
                for _ in 0..50 {
                    xattr::set(&changed, "user.moved", b"1", 0).unwrap();
                    xattr::remove(&changed, "user.moved").unwrap();
                }
                has_met_it()
            });
        }));
        for _ in 0..READERS {
            let (changes, seen) = (Arc::clone(&changes), &seen);
            scope.spawn(move || {
                while !changes.is_finished() {
                    assert_eq!(fs::metadata(seen).unwrap().len(), 1);
                    assert_eq!(xattr::get(seen, "user.kept0").unwrap(), b"1");
                }
            });
        }
    });
}

#[test]
fn values_have_the_bounds_that_are_promised() {
    on_a_cluster("xattr-large", |root| {
        let file = root.join("file");
        fs::write(&file, b"x").unwrap();
        let value = vec![7; 64 << 10];
        xattr::set(&file, "user.large", &value, 0).unwrap();
        assert!(xattr::get(&file, "user.large").unwrap() == value);
        assert_eq!(xattr::set(&file, "user.more", &value, 0), Err(Errno::ENOSPC));
        xattr::set(&file, "user.less", &value[..60 << 10], 0).unwrap();
        assert_eq!(xattr::list(&file).unwrap().len(), 2);
    });
}

/// A tree whose files and directories all have times of their own; returns their paths.
fn dated_tree(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (name, content) in [("a", "1"), ("sub/b", "2"), ("sub/empty", ""), ("sub/deep/c", "3")] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | paths.len() as u32)).unwrap();
        paths.push(PathBuf::from(name));
    }
    // Directories last, as what is made in them moves their times.
    paths.extend(["sub/deep", "sub", "."].map(PathBuf::from));
    for (number, path) in paths.iter().enumerate() {
        let number = number as i64;
        let file = File::open(root.join(path)).unwrap();
        set_times(&file, Some((2_000_000 + number, 5)), Some((1_000_000 + number, 111_111_111 * number)));
    }
    paths
}

fn check_same(what: &str, paths: &[PathBuf], root: &Path, original: &Path) {
    for path in paths {
        let (copy, original) =
            (fs::metadata(root.join(path)).unwrap(), fs::metadata(original.join(path)).unwrap());
        let seen = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(seen(&copy), seen(&original), "{what}: {}", path.display());
        if copy.is_file() {
            assert_eq!(copy.len(), original.len(), "{what}: {}", path.display());
        }
    }
}

#[test]
fn cp_and_tar_keep_times_and_modes() {
    on_a_cluster("tools", copy_with_tools);
    on_the_embedded_store(copy_with_tools);
}

fn copy_with_tools(root: &Path) {
    let local = tempfile::tempdir().unwrap();
    let original = local.path().join("original");
    let paths = dated_tree(&original);
    let (from, to) = (original.to_str().unwrap(), root.join("copy"));
    run("cp", &["-a", from, to.to_str().unwrap()], root);
    check_same("cp -a in", &paths, &to, &original);

    run("tar", &["-cf", "original.tar", "original"], local.path());
    let archive = local.path().join("original.tar");
    run("tar", &["-xpf", archive.to_str().unwrap()], root);
    // Without `--format=posix` an archive has whole seconds.
    for path in &paths {
        let meta = fs::metadata(root.join("original").join(path)).unwrap();
        let expected = fs::metadata(original.join(path)).unwrap();
        assert_eq!((meta.mtime(), meta.mode()), (expected.mtime(), expected.mode()), "{}", path.display());
    }

    run("tar", &["--format=posix", "-cf", "back.tar", "-C", root.to_str().unwrap(), "copy"], local.path());
    run("tar", &["-xpf", "back.tar"], local.path());
    check_same("tar out", &paths, &local.path().join("copy"), &original);

    // One file, over another and to a new name.
    run("cp", &["-p", "copy/sub/b", "copy/a"], root);
    run("cp", &["-p", "copy/sub/b", "new"], root);
    for name in ["copy/a", "new"] {
        check_times(&fs::metadata(root.join(name)).unwrap(), None, (1_000_001, 111_111_111));
        assert_eq!(fs::read(root.join(name)).unwrap(), b"2");
    }
}

#[test]
fn touch_and_make_compare_times() {
    on_a_cluster("make", |root| {
        fs::write(root.join("source"), b"1").unwrap();
        fs::write(root.join("Makefile"), "target: source\n\tcat source source > target\n").unwrap();
        run("touch", &["-d", "2001-02-03 04:05:06.789 UTC", "source"], root);
        check_times(&fs::metadata(root.join("source")).unwrap(), None, (981_173_106, 789_000_000));
        assert!(run("make", &[], root).contains("cat source"));
        assert!(run("make", &[], root).contains("up to date"));
        run("touch", &["-d", "2000-01-01 UTC", "target"], root);
        assert!(run("make", &[], root).contains("cat source"));
        run("touch", &["-r", "source", "twin"], root);
        run("test", &["target", "-nt", "twin"], root);
        assert!(
            !Command::new("test")
                .args(["twin", "-nt", "source"])
                .current_dir(root)
                .status()
                .unwrap()
                .success()
        );
        let before = now();
        run("touch", &["source"], root);
        assert!(fs::metadata(root.join("source")).unwrap().mtime() >= before);
    });
}

#[test]
fn times_outlive_the_mount_and_are_seen_by_others() {
    let cluster = Cluster::get();
    let dir = cluster.directory("times-shared");
    let spec = Spec::alluxio(&cluster, &dir.path);
    let first = spec.start();
    let paths = dated_tree(first.path());
    let local = tempfile::tempdir().unwrap();
    dated_tree(local.path());
    let second = spec.clone().libfuse(2).option("attr_timeout=0").start();
    let seen = |what: &str, mount: &Mount| {
        // First by a listing, which brings the attributes along.
        let listed = run("ls", &["-lR", "--time-style=+%s.%N"], mount.path());
        assert!(listed.contains(" 1000001.111111111 b\n"), "{what}:\n{listed}");
        check_same(what, &paths[..paths.len() - 1], mount.path(), local.path());
    };
    seen("another mount", &second);
    first.unmount();
    let again = spec.start();
    seen("a new mount", &again);

    // What others do to a file counts for the mounts that had seen the times.
    let before = now();
    fs::write(again.path().join("a"), b"changed").unwrap();
    let meta = fs::metadata(second.path().join("a")).unwrap();
    assert!(meta.mtime() >= before, "{}", meta.mtime());

    let without = spec.property("alluxio.fuse.times.enabled", "false").start();
    let path = without.path().join("sub/b");
    assert!(fs::metadata(&path).unwrap().mtime() >= before - 600, "the master's own");
    set_times(&File::open(&path).unwrap(), None, Some((5, 5)));
    assert!(fs::metadata(&path).unwrap().mtime() >= before - 600, "without effect");
    assert_eq!(xattr::list(&path).unwrap().len(), 0);
}

#[test]
fn bits_that_alluxio_cannot_keep_are_refused_and_nothing_else_is_lost() {
    on_a_cluster("bits", |root| {
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o7777;
        let chmod = |name: &str, mode: u32| {
            let result = fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode));
            result.map_err(|err| err.raw_os_error().unwrap())
        };
        fs::write(root.join("file"), b"x").unwrap();
        for bits in [0o4000, 0o2000, 0o1000] {
            assert_eq!(chmod("file", 0o600), Ok(()));
            assert_eq!(chmod("file", 0o755 | bits), Err(libc::EPERM), "{bits:o}");
            assert_eq!(mode("file"), 0o755);
        }
        // What asks for a mode in passing gets what there is.
        run("sh", &["-c", "umask 0; mkdir dir"], root);
        fs::OpenOptions::new().write(true).create_new(true).mode(0o4711).open(root.join("made")).unwrap();
        assert_eq!((mode("dir"), mode("made") & 0o7000), (0o777, 0));
        assert_eq!(chmod("dir", 0o1777), Err(libc::EPERM));
        assert_eq!(mode("dir"), 0o777);
        let open = File::create(root.join("open")).unwrap();
        assert_eq!(
            open.set_permissions(fs::Permissions::from_mode(0o4751)).err().unwrap().raw_os_error(),
            Some(libc::EPERM)
        );
        assert_eq!(open.metadata().unwrap().mode() & 0o7777, 0o751);
        drop(open);
        assert_eq!(mode("open"), 0o751);

        let local = tempfile::tempdir().unwrap();
        let tool = local.path().join("tool");
        fs::write(&tool, b"tool").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        set_times(&File::open(&tool).unwrap(), None, Some((77, 88)));
        let copied =
            process::output_within(Command::new("cp").arg("-p").arg(&tool).arg(root.join("copied")), LIMIT);
        assert!(!copied.status.success(), "the bit is lost, which cp says");
        run("tar", &["--format=posix", "-cf", "tool.tar", "tool"], local.path());
        let archive = local.path().join("tool.tar");
        let untarred =
            process::output_within(Command::new("tar").arg("-xpf").arg(&archive).current_dir(root), LIMIT);
        assert!(!untarred.status.success(), "the bit is lost, which tar says");
        for name in ["copied", "tool"] {
            assert_eq!(mode(name), 0o755, "{name}");
            assert_eq!(fs::read(root.join(name)).unwrap(), b"tool");
            check_times(&fs::metadata(root.join(name)).unwrap(), None, (77, 88));
        }
    });
}

#[test]
fn a_mode_that_is_set_before_close_reaches_the_under_store() {
    let cluster = Cluster::get();
    let dir = cluster.directory("through");
    for write_type in ["CACHE_THROUGH", "THROUGH"] {
        let spec = Spec::alluxio(&cluster, &dir.path);
        let mount = spec.property("alluxio.user.file.writetype.default", write_type).start();
        let mut file = File::create(mount.path().join(write_type)).unwrap();
        file.write_all(b"secret").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        drop(file);
        let below = dir.below().join(write_type);
        assert_eq!(fs::metadata(&below).unwrap().mode() & 0o7777, 0o600, "{}", below.display());
        assert_eq!(fs::metadata(mount.path().join(write_type)).unwrap().mode() & 0o7777, 0o600);
        mount.unmount();
    }
}

#[test]
fn who_may_what_is_as_posix_has_it() {
    let cluster = Cluster::get();
    let dir = cluster.directory("users");
    let root = Spec::alluxio(&cluster, &dir.path).start();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, mode) in [("open", 0o666), ("readable", 0o644), ("secret", 0o600)] {
        fs::write(root.path().join(name), b"x").unwrap();
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        xattr::set(&root.path().join(name), "user.a", b"1", 0).unwrap();
    }
    let spec = Spec::alluxio(&cluster, &dir.path).property("alluxio.security.login.username", "alice");
    let alice = spec.option("attr_timeout=0").start();
    let path = |name: &str| alice.path().join(name);

    // Whoever may not change a file does not move its times either.
    let before = attributes::ctime(&fs::metadata(path("readable")).unwrap());
    let chmod = fs::set_permissions(path("readable"), fs::Permissions::from_mode(0o644));
    assert_eq!(chmod.unwrap_err().raw_os_error(), Some(libc::EPERM), "also if it is the mode that it has");
    assert_eq!(attributes::ctime(&fs::metadata(path("readable")).unwrap()), before);

    // An owner needs no right to write for the times, as of a file that is copied with its mode.
    let local = tempfile::tempdir().unwrap();
    let original = local.path().join("read-only");
    fs::write(&original, b"x").unwrap();
    fs::set_permissions(&original, fs::Permissions::from_mode(0o444)).unwrap();
    set_times(&File::open(&original).unwrap(), None, Some((55, 66)));
    run("cp", &["-p", original.to_str().unwrap(), "read-only"], alice.path());
    let meta = fs::metadata(path("read-only")).unwrap();
    check_times(&meta, None, (55, 66));
    assert_eq!(meta.mode() & 0o7777, 0o444);
    let before = attributes::ctime(&meta);
    fs::set_permissions(path("read-only"), fs::Permissions::from_mode(0o400)).unwrap();
    assert!(attributes::ctime(&fs::metadata(path("read-only")).unwrap()) > before);

    let open = File::open(path("open")).unwrap();
    assert_eq!(try_set_times(&open, None, Some((5, 5))), Err(Errno::EPERM), "not the owner");
    let before = now();
    run("touch", &["open"], alice.path());
    assert!(fs::metadata(path("open")).unwrap().mtime() >= before, "who may write may say that it is now");
    let touched = process::output_within(Command::new("touch").arg("-c").arg(path("readable")), LIMIT);
    assert!(
        !touched.status.success() && String::from_utf8_lossy(&touched.stderr).contains("Permission denied")
    );

    let before = attributes::ctime(&fs::metadata(path("open")).unwrap());
    xattr::set(&path("open"), "user.b", b"2", 0).unwrap();
    assert!(attributes::ctime(&fs::metadata(path("open")).unwrap()) > before);
    assert_eq!(xattr::set(&path("readable"), "user.b", b"2", 0), Err(Errno::EACCES));
    assert_eq!(xattr::remove(&path("readable"), "user.a"), Err(Errno::EACCES));
    assert_eq!(xattr::get(&path("readable"), "user.a").unwrap(), b"1");
    assert_eq!(xattr::get(&path("secret"), "user.a"), Err(Errno::EACCES));
}
