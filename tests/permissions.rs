//! Who may what, and whose files are: the three policies of owners, the mount options for other users, and mounts of an
//! ordinary user. On a real cluster; only root can act as all these users.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::AccessFlags;
use nix::unistd::access;

use common::attributes::try_set_times;
use common::attributes::xattr;
use common::cluster::Cluster;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::users::Somebody;

const POLICY: &str = "alluxio.fuse.auth.policy.class";
const SYSTEM_USER: &str = "alluxio.fuse.auth.SystemUserGroupAuthPolicy";

fn code<T>(result: io::Result<T>) -> Result<(), Errno> {
    result.map(drop).map_err(|err| Errno::from_raw(err.raw_os_error().unwrap()))
}

fn chmod(path: &Path, mode: u32) -> Result<(), Errno> {
    code(fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid())
}

fn ids(user: &Somebody, group: &Somebody) -> (u32, u32) {
    (user.uid, group.gid)
}

/// A mount of a new directory that everybody may write to, and what shows the owners in the cluster.
fn open_to_all(cluster: &Cluster, path: &str, spec: impl FnOnce(Spec) -> Spec) -> (Mount, Mount) {
    let truth = Spec::alluxio(cluster, path).property(POLICY, SYSTEM_USER).option("attr_timeout=0").start();
    chmod(truth.path(), 0o777).unwrap();
    let mount = spec(Spec::alluxio(cluster, path)).option("allow_other").start();
    (mount, truth)
}

#[test]
fn the_default_policy_shows_all_as_the_user_of_the_mount() {
    if !users::are_available() {
        return;
    }
    let (cluster, daemon) = (Cluster::get(), users::named("daemon"));
    let dir = cluster.directory("policy-launch");
    let class = "alluxio.fuse.auth.LaunchUserGroupAuthPolicy";
    let (mount, truth) = open_to_all(&cluster, &dir.path, |spec| spec.property(POLICY, class));
    let root = users::named("root");
    daemon.run(|| fs::write(mount.path().join("file"), b"x").unwrap());
    daemon.run(|| fs::create_dir(mount.path().join("dir")).unwrap());
    for name in ["file", "dir"] {
        assert_eq!(owner(&mount.path().join(name)), ids(&root, &root), "{name}");
        assert_eq!(owner(&truth.path().join(name)).0, root.uid, "{name}");
    }
    // A change is made where there is one to make, but not shown.
    chown(mount.path().join("file"), Some(root.uid), Some(root.gid)).unwrap();
    chown(mount.path().join("file"), Some(daemon.uid), Some(daemon.gid)).unwrap();
    assert_eq!(owner(&mount.path().join("file")), ids(&root, &root));
    assert_eq!(owner(&truth.path().join("file")), ids(&daemon, &daemon));
}

#[test]
fn the_policy_of_system_users_shows_and_makes_owners_by_name() {
    if !users::are_available() {
        return;
    }
    let (cluster, daemon, bin) = (Cluster::get(), users::named("daemon"), users::named("bin"));
    let dir = cluster.directory("policy-system");
    let (mount, truth) = open_to_all(&cluster, &dir.path, |spec| {
        // The under store takes no owner that its own machine does not know.
        spec.property(POLICY, SYSTEM_USER)
            .property("alluxio.user.file.writetype.default", "MUST_CACHE")
            .option("default_permissions")
    });
    daemon.run(|| fs::write(mount.path().join("file"), b"x").unwrap());
    daemon.run(|| fs::create_dir(mount.path().join("dir")).unwrap());
    for name in ["file", "dir"] {
        assert_eq!(owner(&mount.path().join(name)), ids(&daemon, &daemon), "{name}");
        assert_eq!(owner(&truth.path().join(name)), ids(&daemon, &daemon), "{name}");
    }
    let file = mount.path().join("file");
    assert_eq!(daemon.run(|| code(chown(&file, Some(bin.uid), None))), Err(Errno::EPERM), "given away");
    assert_eq!(bin.run(|| code(chown(&file, None, Some(bin.gid)))), Err(Errno::EPERM), "another's");
    assert_eq!(daemon.run(|| code(chown(&file, None, Some(daemon.gid)))), Ok(()), "as it is");
    chown(&file, Some(bin.uid), None).unwrap();
    assert_eq!(owner(&truth.path().join("file")), ids(&bin, &daemon));
    chown(&file, None, Some(bin.gid)).unwrap();
    assert_eq!((owner(&file), owner(&truth.path().join("file"))), (ids(&bin, &bin), ids(&bin, &bin)));
    // A number without a name cannot be kept, as Alluxio knows only names.
    assert_eq!(code(chown(&file, Some(4_000_000_007), None)), Err(Errno::EINVAL));

    cluster.shell(&["chown", "no-such-user", &dir.join("file")]);
    cluster.shell(&["chgrp", "no-such-group", &dir.join("file")]);
    let nobody = 65534;
    assert_eq!(owner(&truth.path().join("file")), (nobody, nobody), "names that this machine does not know");
}

#[test]
fn the_custom_policy_shows_and_makes_one_owner() {
    if !users::are_available() {
        return;
    }
    let (cluster, daemon, bin) = (Cluster::get(), users::named("daemon"), users::named("bin"));
    let dir = cluster.directory("policy-custom");
    let (mount, truth) = open_to_all(&cluster, &dir.path, |spec| {
        spec.property(POLICY, "alluxio.fuse.auth.CustomAuthPolicy")
            .property("alluxio.fuse.auth.policy.custom.user", "bin")
            .property("alluxio.fuse.auth.policy.custom.group", "daemon")
    });
    fs::write(truth.path().join("other"), b"x").unwrap();
    fs::write(mount.path().join("file"), b"x").unwrap();
    fs::create_dir(mount.path().join("dir")).unwrap();
    for name in ["file", "dir"] {
        assert_eq!(owner(&truth.path().join(name)), ids(&bin, &daemon), "{name}");
    }
    for name in ["file", "dir", "other"] {
        assert_eq!(owner(&mount.path().join(name)), ids(&bin, &daemon), "{name}");
    }
    chown(mount.path().join("file"), Some(daemon.uid), Some(bin.gid)).unwrap();
    assert_eq!(owner(&truth.path().join("file")), ids(&daemon, &bin));
    assert_eq!(owner(&mount.path().join("file")), ids(&bin, &daemon));
}

#[test]
fn a_policy_that_cannot_be_is_refused() {
    let cluster = Cluster::get();
    let spec = || Spec::alluxio(&cluster, "/");
    let unknown = spec().property(POLICY, "com.acme.Policy").refusal();
    assert!(unknown.contains("alluxio.fuse.auth.LaunchUserGroupAuthPolicy"), "{unknown}");
    let custom = spec().property(POLICY, "alluxio.fuse.auth.CustomAuthPolicy");
    let unset = custom.refusal();
    assert!(unset.contains("alluxio.fuse.auth.policy.custom.user must be set"), "{unset}");
    let absent = custom
        .property("alluxio.fuse.auth.policy.custom.user", "no-such-user")
        .property("alluxio.fuse.auth.policy.custom.group", "daemon")
        .refusal();
    assert!(absent.contains("no-such-user") && absent.contains("no such name"), "{absent}");
}

#[test]
fn default_permissions_lets_the_kernel_check_every_user() {
    if !users::are_available() {
        return;
    }
    let (cluster, daemon) = (Cluster::get(), users::named("daemon"));
    for libfuse in [2, 3] {
        let dir = cluster.directory("default-permissions");
        let (mount, truth) = open_to_all(&cluster, &dir.path, |spec| {
            spec.property(POLICY, SYSTEM_USER).option("default_permissions").libfuse(libfuse)
        });
        let path = |name: &str| mount.path().join(name);
        for (name, mode) in [("secret", 0o600), ("readable", 0o644)] {
            fs::write(path(name), b"x").unwrap();
            chmod(&path(name), mode).unwrap();
        }
        fs::create_dir(path("closed")).unwrap();
        chmod(&path("closed"), 0o700).unwrap();
        daemon.run(|| {
            assert_eq!(code(fs::read(path("secret"))), Err(Errno::EACCES));
            assert_eq!(code(fs::read(path("readable"))), Ok(()));
            assert_eq!(code(OpenOptions::new().write(true).open(path("readable"))), Err(Errno::EACCES));
            assert_eq!(code(fs::read_dir(path("closed"))), Err(Errno::EACCES));
            assert_eq!(code(fs::write(path("closed/new"), b"x")), Err(Errno::EACCES));
            assert_eq!(chmod(&path("readable"), 0o666), Err(Errno::EPERM));
            assert_eq!(xattr::set(&path("readable"), "user.a", b"1", 0), Err(Errno::EACCES));
        });
        drop(truth);
        // Without it, whoever gets in has the rights of the one who mounts.
        let open = Spec::alluxio(&cluster, &dir.path).option("allow_other").libfuse(libfuse).start();
        assert_eq!(daemon.run(|| code(fs::read(open.path().join("secret")))), Ok(()));
        assert!(open.said().contains("allow_other without default_permissions"), "{}", open.said());
    }
}

#[test]
fn a_mount_is_for_its_user_unless_others_are_let_in() {
    if !users::are_available() {
        return;
    }
    let daemon = users::named("daemon");
    for libfuse in [2, 3] {
        for (word, lets_in) in [("rw", false), ("allow_root", false), ("allow_other", true)] {
            let store = tempfile::tempdir().unwrap();
            fs::write(store.path().join("file"), b"x").unwrap();
            let mount = Spec::local(store.path()).option(word).libfuse(libfuse).start();
            let read = || code(fs::read(mount.path().join("file")));
            assert_eq!(read(), Ok(()), "{word}");
            let expected = if lets_in { Ok(()) } else { Err(Errno::EACCES) };
            assert_eq!(daemon.run(read), expected, "{word}, libfuse {libfuse}");
            mount.unmount();
        }
    }
}

#[test]
fn all_others_and_only_root_contradict_each_other() {
    let store = tempfile::tempdir().unwrap();
    for libfuse in [2, 3] {
        let spec = Spec::local(store.path()).option("allow_other").option("allow_root").libfuse(libfuse);
        let problem = spec.refusal();
        assert!(problem.contains("mount options allow_other and allow_root"), "{problem}");
    }
}

/// Set in the process that runs a test in a namespace of its own.
const INSIDE: &str = "ALLUXIO_FUSE_TEST_INSIDE";

/// Exit code of a namespace that cannot be made.
const CANNOT: i32 = 77;

/// Runs the test `name` once more, in a namespace where every user may open `/dev/fuse` and `/etc/fuse.conf` has the
/// line `conf`: what the machine itself has stays as it is. True in there.
fn in_a_namespace_for_all_users(name: &str, conf: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !users::are_available() {
        return false;
    }
    let work = tempfile::tempdir().unwrap();
    let script = r#"
        prepare() {
          mount -t tmpfs none "$1" && mknod "$1/fuse" c 10 229 && chmod 666 "$1/fuse" &&
            echo "$2" > "$1/fuse.conf" && touch /etc/fuse.conf &&
            mount --bind "$1/fuse" /dev/fuse && mount --bind "$1/fuse.conf" /etc/fuse.conf
        }
        prepare "$1" "$2" || exit 77
        exec "$3" --exact "$4" --nocapture
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(work.path()).arg(conf).arg(std::env::current_exe().unwrap()).arg(name).env(INSIDE, "1");
    let output = process::output_within(&mut command, Duration::from_secs(240));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.code() == Some(CANNOT) {
        eprintln!("not tested, as this machine allows no such namespace: {}", said(&output.stderr));
        return false;
    }
    let text = said(&output.stdout);
    assert!(output.status.success() && text.contains(" 1 passed"), "{text}\n{}", said(&output.stderr));
    false
}

#[test]
fn an_ordinary_user_is_told_what_the_system_allows() {
    if !in_a_namespace_for_all_users("an_ordinary_user_is_told_what_the_system_allows", "# nothing") {
        return;
    }
    let nobody = users::named("nobody");
    let store = tempfile::tempdir().unwrap();
    for word in ["allow_other", "allow_root"] {
        let problem = Spec::local(store.path()).option(word).by(&nobody).refusal();
        let expected =
            format!("mount option {word}: only root may use it, unless /etc/fuse.conf has the line");
        assert!(problem.contains(&expected), "{problem}");
    }
}

#[test]
fn others_see_the_mount_of_a_user_as_far_as_they_are_let() {
    let name = "others_see_the_mount_of_a_user_as_far_as_they_are_let";
    if !in_a_namespace_for_all_users(name, "user_allow_other") {
        return;
    }
    let (nobody, daemon) = (users::named("nobody"), users::named("daemon"));
    for libfuse in [2, 3] {
        for (word, root, others) in
            [("rw", false, false), ("allow_root", true, false), ("allow_other", true, true)]
        {
            let store = tempfile::tempdir().unwrap();
            fs::write(store.path().join("file"), b"x").unwrap();
            let mount = Spec::local(store.path()).option(word).libfuse(libfuse).by(&nobody).start();
            let read = || code(fs::read(mount.path().join("file")));
            let expected = |let_in: bool| if let_in { Ok(()) } else { Err(Errno::EACCES) };
            assert_eq!(nobody.run(read), Ok(()), "{word}, libfuse {libfuse}");
            assert_eq!(read(), expected(root), "{word}, libfuse {libfuse}: root");
            assert_eq!(daemon.run(read), expected(others), "{word}, libfuse {libfuse}: another user");
        }
    }
}

#[test]
fn the_kernel_reads_nothing_by_itself_for_the_mount_of_an_ordinary_user() {
    let name = "the_kernel_reads_nothing_by_itself_for_the_mount_of_an_ordinary_user";
    if !in_a_namespace_for_all_users(name, "# nothing") {
        return;
    }
    let nobody = users::named("nobody");
    for libfuse in [2, 3] {
        let store = tempfile::tempdir().unwrap();
        chmod(store.path(), 0o755).unwrap();
        fs::write(store.path().join("file"), b"content").unwrap();
        let mount = Spec::local(store.path()).libfuse(libfuse).by(&nobody).start();
        nobody.run(|| assert_eq!(fs::read(mount.path().join("file")).unwrap(), b"content"));
        assert_eq!(mount.logged("Passthrough: not in use (it needs CAP_SYS_ADMIN)").len(), 1);
        assert_eq!(mount.counted("opens for reading (not permitted)"), 1);
        mount.unmount();
    }
}

#[test]
fn what_an_ordinary_user_may_not_do_is_eacces_or_eperm() {
    if !in_a_namespace_for_all_users("what_an_ordinary_user_may_not_do_is_eacces_or_eperm", "# nothing") {
        return;
    }
    let (cluster, nobody) = (Cluster::get(), users::named("nobody"));
    let dir = cluster.directory("ordinary");
    let root = Spec::alluxio(&cluster, &dir.path).property(POLICY, SYSTEM_USER).start();
    chmod(root.path(), 0o755).unwrap();
    let make = |name: &str, mode: u32| {
        fs::write(root.path().join(name), b"x").unwrap();
        chmod(&root.path().join(name), mode).unwrap();
    };
    make("secret", 0o600);
    make("readable", 0o644);
    make("writable", 0o666);
    for (name, mode) in [("closed", 0o700), ("listed", 0o755), ("own", 0o777)] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join("file"), b"x").unwrap();
        chmod(&root.path().join(name), mode).unwrap();
    }
    for libfuse in [2, 3] {
        let mount = Spec::alluxio(&cluster, &dir.path).libfuse(libfuse).by(&nobody).start();
        nobody.run(|| check_denials(mount.path()));
        assert_eq!(code(fs::read_dir(mount.path())), Err(Errno::EACCES), "not even root is let in");
        let said = mount.said();
        assert!(!said.contains(" ERROR "), "{said}");
        mount.unmount();
    }
    assert_eq!(owner(&root.path().join("own/made")).0, nobody.uid);
}

/// What the cluster denies to a user who owns nothing but what is made here.
fn check_denials(root: &Path) {
    let path = |name: &str| root.join(name);
    let denied = Err(Errno::EACCES);
    assert_eq!(code(fs::read(path("secret"))), denied);
    assert_eq!(code(fs::read(path("readable"))), Ok(()));
    assert_eq!(code(fs::read_dir(path("closed"))), denied);
    assert_eq!(code(fs::metadata(path("closed/file"))), denied);
    assert_eq!(code(File::create(path("new"))), denied);
    assert_eq!(code(fs::create_dir(path("new"))), denied);
    assert_eq!(code(fs::remove_file(path("readable"))), denied);
    assert_eq!(code(fs::remove_dir(path("listed"))), denied);
    assert_eq!(code(fs::rename(path("readable"), path("own/taken"))), denied);
    assert_eq!(code(fs::rename(path("listed/file"), path("own/taken"))), denied);
    assert_eq!(code(fs::rename(path("own/file"), path("taken"))), denied);
    assert_eq!(chmod(&path("writable"), 0o777), Err(Errno::EPERM));
    assert_eq!(code(chown(path("writable"), None, Some(1))), Err(Errno::EPERM));
    assert_eq!(xattr::set(&path("readable"), "user.a", b"1", 0), denied);
    assert_eq!(xattr::set(&path("writable"), "user.a", b"1", 0), Ok(()));
    assert_eq!(xattr::remove(&path("writable"), "user.a"), Ok(()));
    let readable = File::open(path("readable")).unwrap();
    assert_eq!(try_set_times(&readable, None, Some((5, 5))), Err(Errno::EPERM));
    assert_eq!(access(&path("secret"), AccessFlags::R_OK), Err(Errno::EACCES));
    assert_eq!(access(&path("writable"), AccessFlags::W_OK), Ok(()));

    // And what it does not deny.
    let made = path("own/made");
    fs::write(&made, b"mine").unwrap();
    assert_eq!(chmod(&made, 0o600), Ok(()));
    assert_eq!(fs::read(&made).unwrap(), b"mine");
    fs::rename(&made, path("own/moved")).unwrap();
    fs::rename(path("own/moved"), &made).unwrap();
    assert_eq!(code(chown(&made, Some(1), None)), Err(Errno::EPERM), "not to be given away");
}
