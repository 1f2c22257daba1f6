//! What POSIX says of names, attributes and permissions: pjdfstest over a mount of a real cluster and of the embedded
//! store, and what that does not look at.
//!
//! `tests/pjdfstest.expected` lists what fails there, with the reasons. The list may only get shorter.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::FcntlArg;
use nix::fcntl::fcntl;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::mknod;
use nix::unistd::linkat;
use nix::unistd::mkfifo;
use nix::unistd::symlinkat;

use common::cluster::Cluster;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;

const LIMIT: Duration = Duration::from_secs(60);

/// The version that the list is about.
const PJDFSTEST: &str = "pjdfstest 0.2.2";

/// How long it may take. Two thirds of it are paths of 4095 bytes, for which the master needs its time.
const PJDFSTEST_LIMIT: Duration = Duration::from_secs(600);

/// What every mount of this file is mounted with: a user's rights are checked, and what they make is theirs.
fn for_all_users(spec: Spec) -> Spec {
    let policy = "alluxio.fuse.auth.SystemUserGroupAuthPolicy";
    spec.option("allow_other")
        .option("default_permissions")
        .option("attr_timeout=600")
        .option("entry_timeout=600")
        .property("alluxio.fuse.auth.policy.class", policy)
}

#[test]
fn a_mount_of_a_cluster_passes_pjdfstest_as_listed() {
    if !users::are_available() {
        return;
    }
    let cluster = Cluster::get();
    let dir = cluster.directory("pjdfstest");
    let mount = for_all_users(Spec::alluxio(&cluster, &dir.path)).long_point().start();
    let outcomes = run_pjdfstest(&mount);
    mount.unmount();
    check_list("alluxio", &outcomes);
}

#[test]
fn a_mount_of_the_embedded_store_passes_pjdfstest_as_listed() {
    if !users::are_available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = for_all_users(Spec::local(dir.path())).libfuse(3).start();
    let outcomes = run_pjdfstest(&mount);
    mount.unmount();
    check_list("store", &outcomes);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// By the names of the tests.
type Outcomes = BTreeMap<String, Outcome>;

/// What was said of tests that did not pass.
type Said = BTreeMap<String, String>;

/// Compares outcomes with the list for `place`.
fn check_list(place: &str, (outcomes, said): &(Outcomes, Said)) {
    let expected = expected(place);
    let mut problems = String::new();
    for (test, outcome) in outcomes {
        let listed = expected.get(test).copied().unwrap_or(Outcome::Passed);
        if *outcome == listed {
            continue;
        }
        let reason = said.get(test).map_or("", String::as_str);
        problems += &match outcome {
            Outcome::Passed => format!("{test} passes: remove its line for {place} from the list\n"),
            Outcome::Failed => format!("{test} fails: {reason}\n"),
            Outcome::Skipped => format!("{test} was not run: {reason}\n"),
        };
    }
    for test in expected.keys().filter(|test| !outcomes.contains_key(*test)) {
        problems += &format!("{test} is in the list, but there is no such test\n");
    }
    assert!(problems.is_empty(), "pjdfstest on {place} and tests/pjdfstest.expected differ:\n{problems}");
    let count = |wanted| outcomes.values().filter(|outcome| **outcome == wanted).count();
    println!("{place}: {} passed, {} failed as listed", count(Outcome::Passed), count(Outcome::Failed));
}

/// What is listed for `place`. A line is a place (`alluxio`, `store` or `both`) and a test that fails, or `skipped` and
/// one that is not run; above it stands the reason.
fn expected(place: &str) -> Outcomes {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pjdfstest.expected");
    let mut expected = BTreeMap::new();
    let mut has_reason = false;
    for line in fs::read_to_string(list).unwrap().lines() {
        if line.is_empty() || line.starts_with('#') {
            has_reason = line.starts_with("# ") || has_reason && !line.is_empty();
            continue;
        }
        assert!(has_reason, "{line}: no reason stands above it");
        let (word, test) = line.split_once(' ').unwrap_or_else(|| panic!("{line}: not a place and a test"));
        let outcome = match word {
            "both" => Outcome::Failed,
            "alluxio" | "store" if word == place => Outcome::Failed,
            "alluxio" | "store" => continue,
            "skipped" => Outcome::Skipped,
            _ => panic!("{line}: there is no place {word}"),
        };
        assert_eq!(expected.insert(test.to_owned(), outcome), None, "{test} is listed twice");
    }
    expected
}

/// Runs all of pjdfstest over `mount`. The tests that make the mount read-only come last and in a process of their own,
/// as some of the others leave files open, which keeps the mount busy.
fn run_pjdfstest(mount: &Mount) -> (Outcomes, Said) {
    let (mut outcomes, mut said) = run_tests(mount, false, &[]);
    let (last, said_last) = run_tests(mount, true, &["::erofs_"]);
    assert!(!last.is_empty(), "no test makes the mount read-only");
    outcomes.extend(last);
    said.extend(said_last);
    (outcomes, said)
}

/// Runs the tests of pjdfstest whose names have one of `patterns`; all if there are none.
fn run_tests(mount: &Mount, remount: bool, patterns: &[&str]) -> (Outcomes, Said) {
    let work = tempfile::tempdir().unwrap();
    let elsewhere = work.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let configuration = work.path().join("pjdfstest.toml");
    // Two users with groups of their own, which every system has.
    let text = format!(
        "[features]\nutime_now = {{}}\nutimensat = {{}}\nposix_fallocate = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = {remount}\n\
         [dummy_auth]\nentries = [[\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]\n"
    );
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new(pjdfstest());
    command.arg("-c").arg(&configuration).arg("-s").arg(&elsewhere).arg("-p").arg(mount.path());
    command.env("PATH", path_with_plain_mount(work.path())).env_remove("RUST_BACKTRACE");
    let output = process::output_within(command.args(patterns), PJDFSTEST_LIMIT);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Summary:"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    read_outcomes(&text)
}

fn pjdfstest() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/pjdfstest");
    let version = Command::new(&program).arg("--version").output();
    let version =
        version.unwrap_or_else(|e| panic!("{}: {e}, run `tests/setup/deps posix`", program.display()));
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), PJDFSTEST, "run `tests/setup/deps posix`");
    program
}

/// A PATH in which `mount` is one that changes a mount by itself. The usual one would have the program of the mount's
/// type do it, as if it were to be mounted.
fn path_with_plain_mount(work: &Path) -> String {
    let script = work.join("mount");
    fs::write(&script, "#!/bin/sh\nPATH=${PATH#*:} exec mount -i \"$@\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", work.display(), std::env::var("PATH").unwrap())
}

/// Reads lines such as `chmod::change_perm::dir   FAILED`, each with what was said below it.
fn read_outcomes(text: &str) -> (Outcomes, Said) {
    let mut outcomes = BTreeMap::new();
    let mut said = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let outcome = match (words.next(), words.next(), words.next()) {
            (Some(test), Some("ok"), None) => Some((test, Outcome::Passed)),
            (Some(test), Some("FAILED"), None) => Some((test, Outcome::Failed)),
            (Some(test), Some("skipped"), None) => Some((test, Outcome::Skipped)),
            _ => None,
        };
        match outcome {
            Some((test, outcome)) if !line.starts_with(char::is_whitespace) => {
                last = test.to_owned();
                outcomes.insert(last.clone(), outcome);
            }
            _ if line.starts_with('\t') => {
                said.entry(last.clone()).or_insert_with(String::new).push_str(line.trim());
            }
            _ => {}
        }
    }
    (outcomes, said)
}

#[test]
fn outcomes_are_read_as_they_are_printed() {
    let text = "a::b::dir   ok\na::c   FAILED\n\tassertion `left == right` failed\n  left: 1\nBacktrace:\n   0: x\n\
                d   skipped\n\trequires features: x\n\nSummary: 1 failed, 1 skipped\n";
    let (outcomes, said) = read_outcomes(text);
    let expected = [("a::b::dir", Outcome::Passed), ("a::c", Outcome::Failed), ("d", Outcome::Skipped)];
    assert_eq!(outcomes, expected.map(|(test, outcome)| (test.to_owned(), outcome)).into());
    assert_eq!(said["a::c"], "assertion `left == right` failed");
}

/// Runs `scenario` on a mount of the cluster and on one of the embedded store, by different libraries.
fn everywhere(name: &str, scenario: fn(&Path)) {
    let cluster = Cluster::get();
    let remote = cluster.directory(name);
    let store = tempfile::tempdir().unwrap();
    let specs = [Spec::alluxio(&cluster, &remote.path).libfuse(2), Spec::local(store.path()).libfuse(3)];
    for spec in specs {
        let mount = spec.start();
        scenario(mount.path());
        mount.unmount();
    }
}

#[test]
fn what_is_neither_file_nor_directory_is_refused_at_once() {
    everywhere("nodes", |root| {
        let new = root.join("new");
        let cwd = AT_FDCWD;
        fs::write(root.join("file"), b"x").unwrap();
        assert_eq!(symlinkat("file", cwd, &new), Err(Errno::EPERM));
        let flags = AtFlags::empty();
        assert_eq!(linkat(cwd, &root.join("file"), cwd, &new, flags), Err(Errno::EPERM));
        assert_eq!(mkfifo(&new, Mode::S_IRUSR), Err(Errno::EPERM));
        assert_eq!(mknod(&new, SFlag::S_IFSOCK, Mode::S_IRUSR, 0), Err(Errno::EPERM));
        assert_eq!(UnixListener::bind(&new).unwrap_err().raw_os_error(), Some(libc::EPERM));
        for device in [SFlag::S_IFCHR, SFlag::S_IFBLK] {
            assert_eq!(mknod(&new, device, Mode::S_IRUSR, libc::makedev(1, 3)), Err(Errno::EPERM));
        }
        assert_eq!(fs::read_link(root.join("file")).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        // What is there already comes first.
        assert_eq!(mkfifo(&root.join("file"), Mode::S_IRUSR), Err(Errno::EEXIST));
        assert_eq!(symlinkat("x", cwd, &root.join("file")), Err(Errno::EEXIST));
        let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(["file".into()]));
        // A regular file is a node that can be made.
        mknod(&new, SFlag::S_IFREG, Mode::from_bits_truncate(0o640), 0).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().len(), 0);
    });
}

/// A process that holds a lock and ends when its input does.
struct Holder(Child);

impl Holder {
    /// Starts `script`, which is Python and prints a line when it has the lock.
    fn start(script: &str, file: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("started with a pipe");
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(process::status_within(&mut self.0, LIMIT).unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Has ended already, if all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn locks_of_both_kinds_hold_between_processes() {
    everywhere("locks", |root| {
        let path = root.join("file");
        fs::write(&path, b"0123456789").unwrap();
        // Locks are for files that can be written, too, which such an open leaves as they are.
        let file = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path).unwrap();
        for (kind, first) in
            [("flock", "fcntl.flock(f, fcntl.LOCK_EX)"), ("POSIX", "fcntl.lockf(f, 2, 4, 2)")]
        {
            let script = format!(
                "import fcntl,sys\nf=open(sys.argv[1],'r+b')\n{first}\nprint('locked',flush=True)\nsys.stdin.read()"
            );
            let holder = Holder::start(&script, &path);
            let attempt = || if kind == "flock" { try_flock(&file) } else { try_lock(&file, 3) };
            assert_eq!(attempt(), Err(Errno::EAGAIN), "{kind}");
            if kind == "POSIX" {
                assert_eq!(try_lock(&file, 8), Ok(()), "beside the bytes that are locked");
            }
            holder.end();
            assert_eq!(attempt(), Ok(()), "{kind}: it ends with its process");
        }
        assert_eq!(fs::read(&path).unwrap(), b"0123456789");
    });
}

fn try_flock(file: &File) -> Result<(), Errno> {
    // SAFETY: the descriptor is open.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// Locks the byte at `start`.
fn try_lock(file: &File, start: i64) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&lock)).map(drop)
}
