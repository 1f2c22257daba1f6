//! Writing over a file that is there, on a real cluster: the new version takes the place of the old one when it is
//! complete, with everything that was set on that, and a crash between loses neither.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::attributes::xattr;
use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::content;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

const LIMIT: Duration = Duration::from_secs(60);

/// More than a block of the test's cluster.
const SIZE: u64 = 20 << 20;

/// Lets something else have the name of a file that is open.
type Way<'a> = &'a (dyn Fn(&Path, &File) + Sync);

const WRITE_TYPES: [&str; 4] = ["MUST_CACHE", "CACHE_THROUGH", "ASYNC_THROUGH", "THROUGH"];

/// A mount of `dir` that writes so.
fn spec(cluster: &Cluster, dir: &RemoteDir, write_type: &str) -> Spec {
    Spec::alluxio(cluster, &dir.path).property("alluxio.user.file.writetype.default", write_type)
}

fn truncating(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).truncate(true).open(path)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What the Alluxio shell says of `path`, but for what a new version may change.
fn settings(cluster: &Cluster, path: &str) -> String {
    cluster.shell(&["stat", "-f", "owner %u group %g", path]) + &field_lines(&cluster.shell(&["stat", path]))
}

fn field_lines(stat: &str) -> String {
    let wanted =
        ["pinned=", "ttl=", "ttlAction=", "replicationMin=", "replicationMax=", "permission=", "mode="];
    let parts = stat.split([',', '{', '}', '\n']).map(str::trim);
    let mut found: Vec<_> = parts.filter(|part| wanted.iter().any(|name| part.starts_with(name))).collect();
    found.sort_unstable();
    assert!(found.len() >= 5, "not what this test can read: {stat}");
    found.join(" ")
}

#[test]
fn a_new_version_keeps_what_was_set_on_the_old_one() {
    let cluster = Cluster::get();
    for write_type in WRITE_TYPES {
        let dir = cluster.directory("keeps");
        let mount = spec(&cluster, &dir, write_type)
            .property("alluxio.fuse.auth.policy.class", "alluxio.fuse.auth.SystemUserGroupAuthPolicy")
            .start();
        let file = mount.path().join("file");
        content::write_file(&file, 1, SIZE).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&file, Some(1), Some(2)).unwrap();
        xattr::set(&file, "user.kept", b"value", 0).unwrap();
        let remote = dir.join("file");
        cluster.shell(&["setTtl", "--action", "free", &remote, "3600000"]);
        cluster.shell(&["setReplication", "--min", "1", "--max", "2", &remote]);
        let before = settings(&cluster, &remote);
        assert!(before.contains("replicationMax=2") && before.contains("ttl=3600000"), "{before}");

        content::overwrite_file(&file, 2, SIZE / 2).unwrap();

        content::check_file(&file, 2, SIZE / 2).unwrap();
        assert_eq!(settings(&cluster, &remote), before, "{write_type}");
        let attr = file.metadata().unwrap();
        assert_eq!((attr.uid(), attr.gid(), attr.mode() & 0o7777), (1, 2, 0o640), "{write_type}");
        assert_eq!(xattr::get(&file, "user.kept").unwrap(), b"value", "{write_type}");
        assert_eq!(names(mount.path()), ["file"], "{write_type}");

        // Emptied, by a truncate(2) and by an open alone.
        for at in 0..2 {
            fs::write(&file, b"something").unwrap();
            if at == 0 {
                nix::unistd::truncate(&file, 0).unwrap();
            } else {
                drop(truncating(&file).unwrap());
            }
            assert_eq!(file.metadata().unwrap().len(), 0, "{write_type}");
            assert_eq!(settings(&cluster, &remote), before, "{write_type}");
        }
        mount.unmount();
    }
}

#[test]
fn a_file_that_is_pinned_stays_pinned() {
    let cluster = Cluster::get();
    let dir = cluster.directory("pinned");
    let mount = Spec::alluxio(&cluster, &dir.path).start();
    let file = mount.path().join("file");
    fs::write(&file, b"old").unwrap();
    cluster.shell(&["pin", &dir.join("file")]);
    fs::write(&file, b"new").unwrap();
    let stat = cluster.shell(&["stat", &dir.join("file")]);
    assert!(stat.contains("pinned=true"), "{stat}");
    mount.unmount();
}

#[test]
fn a_daemon_that_is_killed_leaves_the_old_version() {
    let cluster = Cluster::get();
    for write_type in WRITE_TYPES {
        let dir = cluster.directory("killed");
        let spec = spec(&cluster, &dir, write_type);
        let mount = spec.start();
        content::write_file(&mount.path().join("file"), 1, SIZE).unwrap();
        let mut file = truncating(&mount.path().join("file")).unwrap();
        file.write_all(&vec![7; SIZE as usize]).unwrap();
        process::signal(mount.pid(), nix::sys::signal::Signal::SIGKILL);
        drop(file);
        drop(mount);

        let mount = spec.start();
        content::check_file(&mount.path().join("file"), 1, SIZE).unwrap();
        remove_what_was_left(&mount);
        mount.unmount();
    }
}

/// A daemon that was killed can remove nothing; what it had begun anybody may remove.
fn remove_what_was_left(mount: &Mount) {
    for name in names(mount.path()) {
        if name.starts_with(".alluxio-fuse.") {
            // The new mount may be about to do it.
            match fs::remove_file(mount.path().join(&name)) {
                Err(err) if err.kind() != ErrorKind::NotFound => panic!("{name}: {err}"),
                _ => {}
            }
        }
    }
    assert_eq!(names(mount.path()), ["file"]);
}

#[test]
fn other_clients_see_the_old_version_until_the_close() {
    let cluster = Cluster::get();
    let dir = cluster.directory("others");
    let (ours, theirs) =
        (Spec::alluxio(&cluster, &dir.path).start(), Spec::alluxio(&cluster, &dir.path).start());
    let there = theirs.path().join("file");
    content::write_file(&ours.path().join("file"), 1, SIZE).unwrap();
    let mut file = truncating(&ours.path().join("file")).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(ours.path().join("file").metadata().unwrap().len(), 3);
    content::check_file(&there, 1, SIZE).unwrap();
    drop(file);
    // The kernel of the other mount believes what it has seen for a second.
    assert!(holds_within(LIMIT, || fs::read(&there).is_ok_and(|data| data == b"new")));
    theirs.unmount();
    ours.unmount();
}

#[test]
fn who_may_not_write_a_file_cannot_replace_it() {
    let cluster = Cluster::get();
    let dir = cluster.directory("denied");
    cluster.shell(&["chmod", "777", &dir.path]);
    let owner = Spec::alluxio(&cluster, &dir.path).start();
    let file = owner.path().join("file");
    fs::write(&file, b"old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // The directory lets everybody remove and make files; the file itself only root write.
    let other =
        Spec::alluxio(&cluster, &dir.path).property("alluxio.security.login.username", "somebody").start();
    let there = other.path().join("file");
    assert_eq!(truncating(&there).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(nix::unistd::truncate(&there, 0), Err(nix::errno::Errno::EACCES));
    assert_eq!(fs::read(&there).unwrap(), b"old");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(&there, b"new").unwrap();
    assert!(holds_within(LIMIT, || fs::read(&file).is_ok_and(|data| data == b"new")));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o666);
    other.unmount();
    owner.unmount();
}

#[test]
fn a_file_that_is_written_through_can_be_renamed_meanwhile() {
    let cluster = Cluster::get();
    for write_type in ["CACHE_THROUGH", "THROUGH"] {
        let dir = cluster.directory("through");
        let mount = spec(&cluster, &dir, write_type).start();
        let (from, to) = (mount.path().join("from"), mount.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.write_all(b"one ").unwrap();
        fs::rename(&from, &to).unwrap();
        file.write_all(b"two").unwrap();
        drop(file);
        assert_eq!(fs::read(&to).unwrap(), b"one two", "{write_type}");
        assert_eq!(names(mount.path()), ["to"], "{write_type}");
        let below = dir.below();
        assert_eq!(fs::read(below.join("to")).unwrap(), b"one two", "{write_type}");
        assert_eq!(names(&below), ["to"], "{write_type}");
        mount.unmount();
    }
}

/// A worker removes from the under store by its name what was given up, a moment after that.
#[test]
fn what_takes_the_name_of_a_file_that_was_given_up_stays_in_the_under_store() {
    const FILES: u64 = 12;
    let rewrite = |path: &Path, old: &File| {
        old.set_len(0).unwrap();
        old.write_all_at(path.as_os_str().as_encoded_bytes(), 0).unwrap();
    };
    let make_anew = |path: &Path, _: &File| {
        fs::remove_file(path).unwrap();
        File::create_new(path).unwrap().write_all(path.as_os_str().as_encoded_bytes()).unwrap();
    };
    let ready = |path: &Path| {
        let ready = path.with_extension("ready");
        fs::write(&ready, path.as_os_str().as_encoded_bytes()).unwrap();
        ready
    };
    let move_over = |path: &Path, _: &File| fs::rename(ready(path), path).unwrap();
    let remove_and_move = |path: &Path, _: &File| {
        let ready = ready(path);
        fs::remove_file(path).unwrap();
        fs::rename(ready, path).unwrap();
    };
    let ways: [Way<'_>; 4] = [&rewrite, &make_anew, &move_over, &remove_and_move];
    let cluster = Cluster::get();
    for write_type in ["CACHE_THROUGH", "THROUGH"] {
        let dir = cluster.directory("given-up");
        let mount = spec(&cluster, &dir, write_type).start();
        let below = dir.below();
        thread::scope(|scope| {
            for (n, take) in ways.iter().enumerate() {
                let top = mount.path().join(n.to_string());
                scope.spawn(move || {
                    fs::create_dir(&top).unwrap();
                    for m in 0..FILES {
                        let path = top.join(m.to_string());
                        let mut old = File::create_new(&path).unwrap();
                        old.write_all(&[b'o'; 50_000]).unwrap();
                        // A worker has it now.
                        old.sync_all().unwrap();
                        take(&path, &old);
                    }
                });
            }
        });
        // Nothing is given up any more.
        mount.unmount();
        for (n, m) in (0..ways.len()).flat_map(|n| (0..FILES).map(move |m| (n, m))) {
            let name = format!("{n}/{m}");
            let content = fs::read(below.join(&name));
            let content = content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert!(
                content.as_ref().is_ok_and(|text| text.ends_with(&name)),
                "{write_type} {name}: {content:?}"
            );
        }
    }
}

/// A worker that still has data of a file makes its directory in the under store anew.
#[test]
fn a_directory_that_is_removed_while_a_file_in_it_is_written_does_not_come_back() {
    let cluster = Cluster::get();
    for write_type in ["CACHE_THROUGH", "THROUGH"] {
        let dir = cluster.directory("directory-goes");
        let mount = spec(&cluster, &dir, write_type).start();
        thread::scope(|scope| {
            for n in 0..4 {
                let mount = &mount;
                scope.spawn(move || {
                    for m in 0..6 {
                        let top = mount.path().join(format!("{n}-{m}"));
                        fs::create_dir(&top).unwrap();
                        let path = top.join("file");
                        let mut file = File::create(&path).unwrap();
                        for _ in 0..5 {
                            file.write_all(&[b'x'; 1_000_000]).unwrap();
                        }
                        fs::remove_file(&path).unwrap();
                        fs::remove_dir(&top).unwrap();
                    }
                });
            }
        });
        mount.unmount();
        let below = dir.below();
        assert!(names(&below).is_empty(), "{write_type}: {:?}", names(&below));
    }
}

#[test]
fn the_end_of_a_file_that_another_client_has_moved_is_not_that_of_what_took_its_place() {
    let cluster = Cluster::get();
    for write_type in ["MUST_CACHE", "ASYNC_THROUGH"] {
        let dir = cluster.directory("rotated");
        let start = || spec(&cluster, &dir, write_type).start();
        let (mount, other) = (start(), start());
        let mut old = File::create(mount.path().join("log")).unwrap();
        old.write_all(b"old bytes").unwrap();
        // For a second the client goes by what the master has said.
        thread::sleep(Duration::from_millis(1100));
        fs::rename(other.path().join("log"), other.path().join("log.1")).unwrap();
        let mut new = File::create(other.path().join("log")).unwrap();
        new.write_all(b"new").unwrap();
        drop(old);
        new.write_all(b" bytes").unwrap();
        drop(new);
        for (name, content) in [("log", "new bytes"), ("log.1", "old bytes")] {
            let path = other.path().join(name);
            let is_there = || fs::read(&path).is_ok_and(|found| found == content.as_bytes());
            assert!(holds_within(LIMIT, is_there), "{write_type}: {name} is {:?}", fs::read(&path));
        }
        mount.unmount();
        other.unmount();
    }
}

#[test]
fn files_get_the_life_time_that_the_user_sets() {
    let cluster = Cluster::get();
    let dir = cluster.directory("life");
    let mount = Spec::alluxio(&cluster, &dir.path)
        .property("alluxio.user.file.create.ttl", "2h")
        .property("alluxio.user.file.create.ttl.action", "DELETE_ALLUXIO")
        .start();
    process::succeed(Command::new("touch").arg(mount.path().join("file")), LIMIT);
    let stat = cluster.shell(&["stat", &dir.join("file")]);
    assert!(stat.contains("ttl=7200000") && stat.contains("ttlAction=DELETE_ALLUXIO"), "{stat}");
    mount.unmount();
}

#[test]
fn no_reader_gets_pages_of_another_version() {
    let cluster = Cluster::get();
    let dir = cluster.directory("pages");
    for (libfuse, mode) in [(2, "kernel_cache"), (3, "auto_cache"), (3, "attr_timeout=9")] {
        for wanted in ["true", "false"] {
            let mount = Spec::alluxio(&cluster, &dir.path)
                .libfuse(libfuse)
                .option(mode)
                .property("alluxio.fuse.passthrough.enabled", wanted)
                .start();
            let file = mount.path().join(format!("{mode}-{wanted}"));
            content::write_file(&file, 1, 100_000).unwrap();
            let old = File::open(&file).unwrap();
            let passthrough = mount.counted("opens for reading (passed through)") > 0;
            content::check_range(&old, 1, 0, 4096).unwrap();
            content::overwrite_file(&file, 2, 50_000).unwrap();
            // Through the old handle: the bytes that it opened, where the kernel reads them by itself; else bytes of the new
            // version that the kernel has, or an error.
            let mut got = vec![0; 50_000];
            match old.read_at(&mut got, 0) {
                Ok(count) => {
                    let is_version = |seed| {
                        let mut expected = vec![0; count];
                        content::fill(seed, 0, &mut expected);
                        got[..count] == expected
                    };
                    assert!(
                        is_version(1) && passthrough || is_version(2) && !passthrough,
                        "{mode}: {count} bytes are not of the version that they should be of"
                    );
                }
                Err(err) => assert_eq!(err.raw_os_error(), Some(libc::ESTALE), "{mode}"),
            }
            content::check_file(&file, 2, 50_000).unwrap();
            drop(old);
            content::check_file(&file, 2, 50_000).unwrap();
            mount.unmount();
        }
    }
}

#[test]
fn pages_of_a_version_that_failed_are_shown_to_nobody() {
    for (libfuse, mode) in [(2, "kernel_cache"), (3, "kernel_cache"), (3, "auto_cache")] {
        let store = tempfile::tempdir().unwrap();
        let mount = Spec::local(store.path())
            .libfuse(libfuse)
            .option(mode)
            .property("alluxio.fuse.passthrough.enabled", "false")
            .start();
        let file = mount.path().join("file");
        content::write_file(&file, 1, 100_000).unwrap();
        content::check_file(&file, 1, 100_000).unwrap();
        let mut bytes = vec![0; 100_000];
        content::fill(2, 0, &mut bytes);
        let writer = truncating(&file).unwrap();
        writer.write_all_at(&bytes, 0).unwrap();
        let refused = writer.write_all_at(b"?", 10).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        drop(writer);
        content::check_file(&file, 1, 100_000).unwrap();
        mount.unmount();
    }
}
