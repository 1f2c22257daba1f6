//! The command line as a user meets it: the built program over the embedded store, with every refusal and its cure.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use common::process;

const PROGRAM: &str = env!("CARGO_BIN_EXE_alluxio-fuse");

/// Longest wait for anything; far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A user and group that own nothing.
const NOBODY: u32 = 65_534;

/// Directories of one test. Dropped, nothing is mounted there.
struct Place {
    dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["mnt", "store", "logs", "conf"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn store(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    /// The program with surroundings of its own.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("ALLUXIO_")) {
                command.env_remove(name);
            }
        }
        command.env("ALLUXIO_LOGS_DIR", self.path("logs")).env("ALLUXIO_CONF_DIR", self.path("conf"));
        command.env("HOME", self.dir.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args))
    }

    /// Mounts the store, which must work.
    fn mount(&self, options: &[&str]) -> Done {
        let (point, store) = (self.text("mnt"), self.store());
        let done = self.run(&[&["mount"], options, &[&point, &store]].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        done
    }

    /// Tries to mount, which must be refused with `parts` on stderr and change nothing.
    fn refused(&self, args: &[&str], parts: &[&str]) {
        let done = self.run(&[&["mount"], args].concat());
        assert_eq!(done.code, Some(1), "{done:?}");
        for part in parts {
            assert!(done.err.contains(part), "{part:?} is missing: {done:?}");
        }
        assert!(!done.err.contains("panicked"), "{done:?}");
        assert!(!self.is_mounted());
        assert_eq!(self.processes(), Vec::<i32>::new());
    }

    fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().canonicalize().unwrap();
        table
            .lines()
            .any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(&dir)))
    }

    /// Processes of the program that have something to do with this place.
    fn processes(&self) -> Vec<i32> {
        let dir = self.text("");
        let named = |pid: i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains(dir.trim_end_matches('/'))
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| named(*pid) && is_running(*pid)).collect()
    }

    /// The process that `stat` names for the mount point.
    fn pid(&self) -> i32 {
        let done = self.run(&["stat"]);
        let row = done.out.lines().find(|line| line.contains(&self.text("mnt"))).unwrap();
        row.split('\t').next().unwrap().parse().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("logs/fuse.log")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dir = self.dir.path().to_str().unwrap_or("/nonexistent");
        for line in table.lines().filter(|line| line.contains(dir)) {
            let point =
                line.split(' ').nth(4).unwrap_or_default().replace("\\040", " ").replace("\\011", "\t");
            let _ = Command::new("umount").args(["-l", &point]).status();
        }
    }
}

fn finish(mut command: Command) -> Done {
    let output = process::output_within(&mut command, LIMIT);
    Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The code that `child` ends with.
fn code_of(child: &mut Child) -> Option<i32> {
    process::status_within(child, LIMIT).expect("it ends").code()
}

fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    let place = Place::new();
    for args in [&["--help"][..], &["-h"], &["mount", "--help"], &["umount", "-h"]] {
        let done = place.run(args);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(done.out.contains("Usage: "), "{done:?}");
        assert!(!done.out.contains("--daemon"), "{done:?}");
    }
    let done = place.run(&["-V"]);
    assert_eq!((done.code, done.out), (Some(0), format!("alluxio-fuse {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_is_explained_with_exit_code_1() {
    let place = Place::new();
    let cases: [(&[&str], &str); 7] = [
        (&[], "Usage: "),
        (&["mnt"], "unrecognized subcommand 'mnt'"),
        (&["mount", "-x"], "unexpected argument '-x'"),
        (&["mount", "-t", "soon"], "invalid value 'soon'"),
        (&["mount", "a", "b", "c"], "unexpected argument 'c'"),
        (&["unmount", "-w", "-1"], "-1"),
        (&["mount", "--daemon"], "is for `alluxio-fuse mount` itself"),
    ];
    for (args, part) in cases {
        let done = place.run(args);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{args:?}");
        assert!(done.err.contains(part), "{done:?}");
    }
}

#[test]
fn a_mount_in_the_background_answers_when_the_command_returns() {
    let place = Place::new();
    fs::write(place.path("store/hello"), "world").unwrap();
    let done = place.mount(&[]);
    assert_eq!(
        done.out,
        format!(
            "Starting AlluxioFuse process: mounting alluxio path \"{store}\" to local mount point \"{mnt}\"\n\
             Successfully mounted Alluxio to {mnt}.\nSee {logs}/fuse.log for logging messages\n",
            store = place.store(),
            mnt = place.text("mnt"),
            logs = place.text("logs"),
        )
    );
    assert_eq!(fs::read_to_string(place.path("mnt/hello")).unwrap(), "world");
    fs::write(place.path("mnt/new"), "data").unwrap();
    assert_eq!(fs::read_to_string(place.path("store/new")).unwrap(), "data");

    let pid = place.pid();
    let done = place.run(&["stat"]);
    assert_eq!(done.code, Some(0));
    assert!(done.out.starts_with("pid\tmount_point\talluxio_path\n"), "{done:?}");
    let row = format!("\n{pid}\t{}\t{}\n", place.text("mnt"), place.store());
    assert!(done.out.contains(&row), "{done:?}");

    let done = place.run(&["unmount", &place.text("mnt")]);
    let expected = format!("Unmount fuse at {} (PID:{pid}).\n", place.text("mnt"));
    assert_eq!((done.code, done.out), (Some(0), expected));
    assert!(!place.is_mounted());
    assert!(!is_running(pid));
    assert!(!place.run(&["stat"]).out.contains(&place.text("mnt")));
}

#[test]
fn the_daemon_stands_alone_and_its_files_are_private() {
    let place = Place::new();
    place.mount(&[]);
    let pid = Pid::from_raw(place.pid());
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid), "a session of its own");
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    assert_eq!(link("fd/0"), Path::new("/dev/null"));
    assert_eq!(link("fd/1"), place.path("logs/fuse.out"));
    assert_eq!(link("fd/2"), place.path("logs/fuse.out"));
    for name in ["fuse.log", "fuse.out"] {
        let mode = fs::metadata(place.path("logs").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn names_with_blanks_are_mounted_listed_and_unmounted() {
    let place = Place::new();
    let (point, store) = (place.path("a mount\tpoint"), place.path("the store"));
    fs::create_dir(&point).unwrap();
    fs::create_dir(&store).unwrap();
    let path = format!("file://{}", store.display());
    let done = place.run(&["mount", point.to_str().unwrap(), &path]);
    assert_eq!(done.code, Some(0), "{done:?}");
    fs::write(point.join("x"), "y").unwrap();
    assert_eq!(fs::read_to_string(store.join("x")).unwrap(), "y");
    let rows = place.run(&["stat"]).out;
    assert!(rows.contains(&format!("\t{}\\011point\t{path}\n", place.text("a mount"))), "{rows}");
    let done = place.run(&["umount", &format!("{}/", point.display())]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!place.is_mounted());
}

#[test]
fn a_mount_in_the_foreground_logs_to_the_terminal_and_ends_by_each_signal() {
    for sent in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new();
        let mut command = place.command(&["mount", "-n", &place.text("mnt"), &place.store()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let welcome = format!("Successfully mounted Alluxio to {}.", place.text("mnt"));
        assert!(process::prints_within(&mut child, LIMIT, |line| line == welcome));
        fs::write(place.path("mnt/file"), "data").unwrap();
        signal(&child, sent);
        assert_eq!(code_of(&mut child), Some(0), "{sent}");
        let output = child.wait_with_output().unwrap();
        assert!(!place.is_mounted());
        let terminal = String::from_utf8(output.stderr).unwrap();
        assert!(terminal.contains("Receive signal name"), "{terminal}");
        assert_eq!(terminal, place.log(), "the same lines in both places");
        for line in terminal.lines() {
            let (time, rest) = line.split_at(24);
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00 00:00:00,000 ", "{line}");
            assert!(["INFO  ", "WARN  "].iter().any(|level| rest.starts_with(level)), "{line}");
            assert!(rest.contains(" - "), "{line}");
        }
    }
}

#[test]
fn a_terminal_that_nobody_reads_stops_nothing() {
    let place = Place::new();
    let mut command = place.command(&["mount", "-n", "-o", "debug", &place.text("mnt"), &place.store()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let welcome = "Successfully mounted Alluxio to";
    assert!(process::prints_within(&mut child, LIMIT, |line| line.starts_with(welcome)));
    let mount = place.path("mnt");
    // A pipe holds 64 KiB, and each of these is a line of the log.
    let user = std::thread::spawn(move || {
        (0..2000).filter(|number| !mount.join(number.to_string()).exists()).count()
    });
    wait_for("operations beside a full pipe", || user.is_finished());
    assert_eq!(user.join().unwrap(), 2000);
    signal(&child, Signal::SIGTERM);
    wait_for("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(place.log().len() > 1 << 17 && place.log().ends_with("is unmounted\n"));
}

#[test]
fn an_unmount_by_others_ends_the_daemon() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    assert!(Command::new("umount").arg(place.path("mnt")).status().unwrap().success());
    wait_for("the end of the daemon", || !is_running(pid));
    assert!(!place.run(&["stat"]).out.contains(&place.text("mnt")));
}

#[test]
fn a_bad_mount_point_is_refused_and_left_alone() {
    let place = Place::new();
    let store = place.store();
    let missing = place.text("missing/deep");
    place.refused(
        &[&missing, &store],
        &[&format!("Failed to mount Alluxio to {missing}."), "does not exist, create it with `mkdir -p "],
    );
    assert!(!place.path("missing").exists());

    fs::write(place.path("file"), "x").unwrap();
    place.refused(&[&place.text("file"), &store], &["is not a directory but a file"]);
    fs::write(place.path("mnt/file"), "x").unwrap();
    place.refused(&[&place.text("mnt"), &store], &["is not empty", "-o nonempty"]);
    place.refused(&["", &store], &["alluxio.fuse.mount.point should be set and should not be empty"]);
    fs::create_dir(place.path("store/inside")).unwrap();
    place.refused(&[&place.text("store/inside"), &store], &["is inside the directory"]);
    place.refused(&["-o", "nonempty", &place.text("store"), &store], &["is inside the directory"]);
}

#[test]
fn nonempty_hides_what_is_there_with_both_libraries() {
    for version in ["2", "3"] {
        let place = Place::new();
        fs::write(place.path("mnt/below"), "x").unwrap();
        let property = format!("alluxio.fuse.jnifuse.libfuse.version={version}");
        place.mount(&["-o", "nonempty", "-o", &property]);
        assert!(!place.path("mnt/below").exists());
        assert!(place.log().contains(&format!("with libfuse version {version}")));
        assert_eq!(place.run(&["unmount", &place.text("mnt")]).code, Some(0));
        assert!(place.path("mnt/below").exists());
    }
}

#[test]
fn a_mount_point_of_somebody_else_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["logs", "home"] {
        fs::create_dir_all(place.path(name)).unwrap();
        std::os::unix::fs::chown(place.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let attempt = |mode: u32| {
        fs::set_permissions(place.path("mnt"), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = place.command(&["mount", &place.text("mnt"), &place.store()]);
        let home = place.path("home");
        command.uid(NOBODY).gid(NOBODY).env("HOME", &home).env("XDG_RUNTIME_DIR", &home);
        finish(command)
    };
    for (mode, part) in [(0o755, "is not writable for you"), (0o1777, "belongs to another user")] {
        let done = attempt(mode);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains(part), "{done:?}");
        assert!(!place.is_mounted());
    }
}

#[test]
fn a_mount_is_found_when_its_record_was_cleaned_up() {
    let place = Place::new();
    let run = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("ALLUXIO_FUSE_RUNTIME_DIR", place.path("run/list"));
        finish(command)
    };
    let (point, store) = (place.text("mnt"), place.store());
    let mount = || {
        fs::create_dir_all(place.path("run")).unwrap();
        let done = run(&["mount", &point, &store]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let shown = run(&["stat"]).out;
        let row = shown.lines().find(|line| line.ends_with(&format!("\t{point}\t{store}"))).unwrap();
        row.split('\t').next().unwrap().parse::<i32>().unwrap()
    };
    let pid = mount();
    fs::remove_dir_all(place.path("run")).unwrap();
    fs::create_dir(place.path("run")).unwrap();
    assert!(run(&["stat"]).out.contains(&format!("{pid}\t{point}\t{store}\n")));
    wait_for("a new record", || place.path("run/list").join(pid.to_string()).exists());
    wait_for("a new socket", || run(&["stats", &point]).code == Some(0));
    fs::remove_dir_all(place.path("run")).unwrap();
    let second = mount();
    assert!(second != pid && !is_running(pid), "the first one was ended");
    fs::remove_dir_all(place.path("run/list")).unwrap();
    let done = run(&["unmount", "-f", &point]);
    assert!(done.out.starts_with(&format!("Forcibly killed fuse process {second}\n")), "{done:?}");
    assert!(!is_running(second) && !place.is_mounted());
}

#[test]
fn a_second_mount_takes_the_place_of_the_first() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    let done = place.run(&["mount", &place.text("mnt"), &place.store()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains(&format!("Unmount fuse at {} (PID:{pid}).\n", place.text("mnt"))), "{done:?}");
    assert_ne!(place.pid(), pid);
    assert!(!is_running(pid));
    fs::write(place.path("mnt/file"), "works").unwrap();
    assert_eq!(place.run(&["unmount", &place.text("mnt")]).code, Some(0));
    assert!(!place.is_mounted(), "nothing is below it");
}

#[test]
fn a_signal_ends_a_mount_that_was_detached_or_is_mounted_elsewhere_as_well() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    fs::write(place.path("mnt/file"), "data").unwrap();
    let file = fs::File::open(place.path("mnt/file")).unwrap();
    assert!(Command::new("umount").args(["-l", &place.text("mnt")]).status().unwrap().success());
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the end of a detached mount", || !is_running(pid));
    drop(file);

    place.mount(&[]);
    let pid = place.pid();
    // As a container has it: a mount namespace with a copy of each mount. It ends with its standard input.
    let mut container = Command::new("unshare");
    container.args(["--mount", "sh", "-c", "echo begun; cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut container = container.spawn().unwrap();
    assert!(process::prints_within(&mut container, LIMIT, |line| line == "begun"));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the end of a mount that a container has as well", || !is_running(pid));
    assert!(!place.is_mounted());
    drop(container.stdin.take());
    assert_eq!(code_of(&mut container), Some(0));
}

#[test]
fn the_flags_of_the_java_process_mount_in_the_foreground() {
    let place = Place::new();
    let mut command = place.command(&["-m", &place.text("mnt"), "-u", &place.text("store"), "-o", "ro"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let welcome = "Successfully mounted Alluxio to";
    assert!(process::prints_within(&mut child, LIMIT, |line| line.starts_with(welcome)));
    assert!(fs::write(place.path("mnt/file"), "data").is_err(), "it is mounted read-only");
    signal(&child, Signal::SIGTERM);
    assert_eq!(code_of(&mut child), Some(0));
    assert!(!place.is_mounted());
    for (words, part) in [(["-u", "s3://bucket"], "alluxio fs mount"), (["-x", "y"], "Usage")] {
        let done = place.run(&[&["-m", &place.text("mnt")][..], &words].concat());
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains(part) && done.err.contains(words[1].trim_end_matches('y')), "{done:?}");
        assert!(!place.is_mounted());
    }
}

#[test]
fn mount_mounts_it_by_its_type() {
    let place = Place::new();
    // As if it were installed: mount(8) looks in no other directories than those of the system.
    let script = "mount -t tmpfs none /usr/local/bin && ln -s \"$0\" /usr/local/bin/alluxio-fuse \
                  && mount -t fuse.alluxio-fuse -o _netdev,nofail,allow_other,attr_timeout=7 \"$1\" \"$2\" \
                  && grep \"$2\" /proc/self/mountinfo && echo works > \"$2/file\" && umount \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, PROGRAM, &place.store(), &place.text("mnt")]);
    command.env("ALLUXIO_LOGS_DIR", place.path("logs")).env("ALLUXIO_CONF_DIR", place.path("conf"));
    let done = finish(command);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains(" fuse.alluxio-fuse ") && done.out.contains("allow_other"), "{done:?}");
    assert_eq!(fs::read_to_string(place.path("store/file")).unwrap(), "works\n");
    wait_for("the end of the daemon", || place.processes().is_empty());
}

#[test]
fn mounting_all_of_fstab_again_leaves_a_live_mount_alone() {
    let place = Place::new();
    let line = format!("{} {} fuse.alluxio-fuse _netdev,nofail 0 0\n", place.store(), place.text("mnt"));
    fs::write(place.path("fstab"), line).unwrap();
    // The helper itself is called at last, as by a mount(8) that does not know what is mounted.
    let script = "mount -t tmpfs none /usr/local/bin && ln -s \"$0\" /usr/local/bin/alluxio-fuse \
                  && mount -a -T \"$1\" && \"$0\" stat && grep \"$2\" /proc/self/mountinfo \
                  && mount -a -T \"$1\" && \"$0\" stat && \"$0\" \"$3\" \"$2\" -o rw; echo code $?; \"$0\" stat; umount \"$2\"";
    let mut command = Command::new("unshare");
    let words = [&place.text("fstab"), &place.text("mnt"), &place.store()];
    command.args(["--mount", "sh", "-c", script, PROGRAM]).args(words);
    command.env("ALLUXIO_LOGS_DIR", place.path("logs")).env("ALLUXIO_CONF_DIR", place.path("conf"));
    let done = finish(command);
    assert!(done.out.contains("code 32") && done.err.contains("is already mounted by process"), "{done:?}");
    let row = format!("\t{}\t{}", place.text("mnt"), place.store());
    let rows: Vec<_> = done.out.lines().filter(|line| line.ends_with(&row)).collect();
    assert_eq!(rows.len(), 3, "{done:?}");
    assert!(rows.iter().all(|other| *other == rows[0]), "the same process: {done:?}");
    // The option direct_io is in force, as nobody gave others.
    assert!(done.out.contains(&format!(" fuse.alluxio-fuse {} ", place.store())), "{done:?}");
    assert!(place.log().contains("OPTIONS=\"direct_io\""), "{}", place.log());
    wait_for("the end of the daemon", || place.processes().is_empty());
}

#[test]
fn a_container_gives_properties_by_its_variables() {
    let place = Place::new();
    fs::remove_dir(place.path("mnt")).unwrap();
    let mut command = place.command(&["fuse", "--fuse-opts=ro,attr_timeout=7"]);
    command.env("ALLUXIO_FUSE_FS_NAME", "in-a-container").env("MOUNT_POINT", place.text("mnt"));
    // As the chart of Alluxio for Kubernetes has it, and Kubernetes itself beside a service of that name.
    command.env("ALLUXIO_JAVA_OPTS", "-Dalluxio.user.hostname=${ALLUXIO_CLIENT_HOSTNAME}");
    command.env("ALLUXIO_CLIENT_HOSTNAME", "node-7").env("ALLUXIO_MASTER_PORT", "tcp://10.0.0.1:19998");
    command.env("ALLUXIO_PATH", place.store());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let welcome = "Successfully mounted Alluxio to";
    assert!(process::prints_within(&mut child, LIMIT, |line| line.starts_with(welcome)));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(&place.text("mnt"))).unwrap();
    assert!(line.contains(" fuse.in-a-container in-a-container ") && line.contains(" ro,"), "{line}");
    signal(&child, Signal::SIGTERM);
    assert_eq!(code_of(&mut child), Some(0));
}

#[test]
fn without_a_terminal_a_hangup_opens_the_log_again_and_a_quit_tells_the_state() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    fs::rename(place.path("logs/fuse.log"), place.path("logs/moved")).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
    wait_for("a new log", || place.path("logs/fuse.log").exists() && place.log().contains("HUP"));
    let open = fs::File::create(place.path("mnt/file")).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGQUIT).unwrap();
    wait_for("the state", || place.log().contains("1 open files and directories"));
    drop(open);
    assert!(is_running(pid) && place.is_mounted());
}

#[test]
fn the_process_is_in_its_pid_file_while_it_serves() {
    let place = Place::new();
    place.mount(&["--pid-file", &place.text("pid")]);
    assert_eq!(fs::read_to_string(place.path("pid")).unwrap(), format!("{}\n", place.pid()));
    assert_eq!(place.run(&["unmount", &place.text("mnt")]).code, Some(0));
    assert!(!place.path("pid").exists());
}

#[test]
fn a_service_manager_is_told_when_the_mount_answers_and_when_it_ends() {
    let place = Place::new();
    let socket = std::os::unix::net::UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = place.command(&["mount", "-n", &place.text("mnt"), &place.store()]);
    command.env("NOTIFY_SOCKET", place.path("notify")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let told = || {
        let mut text = [0; 1000];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let ready = told();
    assert!(ready.contains("READY=1") && ready.contains(&format!("MAINPID={}", child.id())), "{ready}");
    assert!(ready.contains(&format!("is mounted at {}", place.text("mnt"))), "{ready}");
    assert!(place.is_mounted());
    signal(&child, Signal::SIGTERM);
    assert!(told().contains("STOPPING=1"));
    assert_eq!(code_of(&mut child), Some(0));
}

#[test]
fn settings_are_shown_with_their_sources() {
    let place = Place::new();
    fs::write(place.path("conf/alluxio-site.properties"), "alluxio.user.block.size.bytes.default=4MB\n")
        .unwrap();
    let done = place.run(&["config", "--offline", "-o", "alluxio.fuse.debug.enabled=true"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let site = format!(
        "alluxio.user.block.size.bytes.default=4MB ({}:1)\n",
        place.text("conf/alluxio-site.properties")
    );
    for line in [
        site.as_str(),
        "alluxio.fuse.debug.enabled=true (command line)\n",
        "alluxio.master.hostname=(not set)",
    ] {
        assert!(done.out.contains(line), "{done:?}");
    }
    let done = place.run(&["config", "--offline", "alluxio.worker.fuse.mount.point"]);
    assert_eq!((done.code, done.out.lines().count()), (Some(0), 1), "an old name will do: {done:?}");
    let done = place.run(&["config", "--offline", "alluxio.no.such.property"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("alluxio.no.such.property"), "{done:?}");
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = place.run(&["completions", shell]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.out.contains("unmount") && done.out.contains("pid-file"), "{shell}");
    }
}

#[test]
fn of_commands_at_once_one_mounts_in_the_end() {
    let place = Place::new();
    let start = || {
        let mut command = place.command(&["mount", &place.text("mnt"), &place.store()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children = [start(), start(), start()];
    let codes = children.map(|mut child| code_of(&mut child));
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert_eq!(place.processes().len(), 1);
    fs::write(place.path("mnt/file"), "works").unwrap();
}

#[test]
fn a_dead_mount_is_mounted_over() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the end of the daemon", || !is_running(pid));
    assert!(place.is_mounted());
    assert!(nix::sys::statvfs::statvfs(&place.path("mnt")).is_err(), "the mount is dead");
    assert!(!place.run(&["stat"]).out.contains(&place.text("mnt")));
    place.mount(&[]);
    fs::write(place.path("mnt/file"), "works").unwrap();
    assert_ne!(place.pid(), pid);
    assert_eq!(place.run(&["unmount", &place.text("mnt")]).code, Some(0));
    assert!(!place.is_mounted(), "nothing is below it");
}

#[test]
fn a_dead_mount_is_unmounted() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the end of the daemon", || !is_running(pid));
    let done = place.run(&["unmount", &place.text("mnt")]);
    let expected = format!("Successfully unmount fuse at {}\n", place.text("mnt"));
    assert_eq!((done.code, done.out), (Some(0), expected));
    assert!(!place.is_mounted());
}

#[test]
fn a_link_to_the_mount_point_is_as_good() {
    let place = Place::new();
    std::os::unix::fs::symlink("mnt", place.path("link")).unwrap();
    let done = place.run(&["mount", &place.text("link"), &place.store()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains(&format!("Successfully mounted Alluxio to {}.", place.text("mnt"))));
    let done = place.run(&["unmount", &place.text("link")]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!place.is_mounted());
}

#[test]
fn bad_options_and_properties_are_refused_naming_them() {
    let place = Place::new();
    let (point, store) = (place.text("mnt"), place.store());
    let cases = [
        ("allow_ohter", "mount option allow_ohter (command line): unknown, did you mean allow_other?"),
        ("attr_timeout=long", "mount option attr_timeout=long (command line): expected seconds"),
        (
            "alluxio.user.block.size.bytes.default=big",
            "alluxio.user.block.size.bytes.default=big (command line)",
        ),
        ("alluxio.fuse.debug.enabled", "property alluxio.fuse.debug.enabled (command line) needs a value"),
        ("alluxio.fuse.jnifuse.libfuse.version=two", "expected a whole number"),
    ];
    for (option, part) in cases {
        place.refused(&["-o", option, &point, &store], &[part]);
    }
}

#[test]
fn a_bad_property_file_is_refused_naming_file_and_line() {
    let place = Place::new();
    let (point, store, file) = (place.text("mnt"), place.store(), place.path("conf/alluxio-site.properties"));
    let cases = [
        ("# c\na=\\u12\n", ":2: \\u12 is not"),
        ("alluxio.fuse.mount.options=colour\n", ":1): unknown"),
        ("\n\nalluxio.user.rpc.retry.max.duration=10mins\n", ":3): expected a whole number with ms|"),
        ("alluxio.logs.dir=/tmp\n", ":1: alluxio.logs.dir is not accepted in alluxio-site.properties"),
        (
            "alluxio.user.app.id=${alluxio.user.app.id}\n",
            ":1): alluxio.user.app.id -> alluxio.user.app.id refers",
        ),
    ];
    for (text, part) in cases {
        fs::write(&file, text).unwrap();
        place.refused(&[&point, &store], &[&format!("{}{part}", file.display())]);
    }
}

#[test]
fn bad_java_options_are_refused_naming_the_variable() {
    let place = Place::new();
    let mut command = place.command(&["mount", &place.text("mnt"), &place.store()]);
    command.env("ALLUXIO_FUSE_JAVA_OPTS", "-Xmx1G '-Da=b");
    let done = finish(command);
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("environment variable ALLUXIO_FUSE_JAVA_OPTS: quote ' is not closed"),
        "{done:?}"
    );
}

#[test]
fn settings_come_from_file_variable_and_command_line() {
    let place = Place::new();
    let site = "alluxio.fuse.mount.options = ro,\\\n  max_read=65536\nalluxio.fuse.fs.name : from-site\n";
    fs::write(place.path("conf/alluxio-site.properties"), site).unwrap();
    let kernel_line = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().find(|line| line.contains(&place.text("mnt"))).unwrap().to_owned()
    };
    let mount = |options: &[&str], java: &str| {
        let (point, store) = (place.text("mnt"), place.store());
        let mut command = place.command(&[&["mount"], options, &[&point, &store]].concat());
        command.env("ALLUXIO_FUSE_JAVA_OPTS", java);
        let done = finish(command);
        assert_eq!(done.code, Some(0), "{done:?}");
        let line = kernel_line();
        let done = place.run(&["unmount", &place.text("mnt")]);
        assert_eq!(done.code, Some(0), "{done:?}");
        line
    };
    let line = mount(&[], "-server");
    assert!(line.contains(" ro,") && line.contains("max_read=65536"), "{line}");
    assert!(line.contains("fuse.from-site from-site"), "{line}");
    let line = mount(&[], "-server -Dalluxio.fuse.fs.name=from-java");
    assert!(line.contains("fuse.from-java from-java"), "{line}");
    let line = mount(&["-o", "noexec,alluxio.fuse.fs.name=from-line"], "-Dalluxio.fuse.fs.name=from-java");
    assert!(line.contains("fuse.from-line from-line"), "{line}");
    assert!(line.contains("noexec") && !line.contains(" ro,") && !line.contains("max_read=65536"), "{line}");
}

#[test]
fn files_are_shown_as_the_options_say() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    fs::write(place.path("store/file"), "x").unwrap();
    place.mount(&["-o", "uid=1234,gid=2345,umask=027"]);
    let shown = fs::metadata(place.path("mnt/file")).unwrap();
    assert_eq!((shown.uid(), shown.gid(), shown.mode() & 0o7777), (1234, 2345, 0o750));
}

#[test]
fn a_path_that_cannot_be_shown_is_refused() {
    let place = Place::new();
    let point = place.text("mnt");
    place.refused(&[&point, "s3://bucket/dir"], &["has a scheme that cannot be mounted", "file:///dir"]);
    place.refused(&[&point, "people"], &["path people cannot be mounted", "such as /people"]);
    place.refused(&[&point, "/a/../b"], &["path /a/../b cannot be mounted"]);
    place.refused(&[&point, "file:///no/such/directory"], &["directory /no/such/directory: No such file"]);
    let file = place.path("file");
    fs::write(&file, "").unwrap();
    place.refused(&[&point, &format!("file://{}", file.display())], &["is not a directory but a file"]);
    place.refused(&[&point, "/people"], &["no Alluxio master is known, set alluxio.master.hostname or"]);
}

#[test]
fn logs_that_cannot_be_written_are_refused() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let property = format!("alluxio.logs.dir={}", place.text("file"));
    place.refused(
        &["-o", &property, &place.text("mnt"), &place.store()],
        &[&format!("cannot write {}/fuse.log", place.text("file")), "set ALLUXIO_LOGS_DIR"],
    );
}

#[test]
fn a_master_that_is_not_there_is_reported_and_nothing_stays() {
    let place = Place::new();
    let options = "alluxio.master.hostname=127.0.0.1,alluxio.master.rpc.port=1,\
                   alluxio.user.rpc.retry.max.duration=100ms";
    place.refused(&["-o", options, &place.text("mnt"), "/"], &["127.0.0.1:1", "fuse.log"]);
    assert!(place.log().contains("Failed to launch FUSE"));
    let done = place.run(&["mount", "-n", "-o", options, &place.text("mnt"), "/"]);
    assert_eq!(done.code, Some(255), "{done:?}");
}

#[test]
fn a_mount_that_does_not_answer_in_time_is_given_up() {
    let place = Place::new();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let options = format!("alluxio.master.hostname=127.0.0.1,alluxio.master.rpc.port={port}");
    place.refused(
        &["-t", "1", "-o", &options, &place.text("mnt"), "/"],
        &["did not answer within 1 seconds, allow more with `-t`"],
    );
}

#[test]
fn a_signal_ends_a_mount_that_does_not_come_yet() {
    let place = Place::new();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let options = format!("alluxio.master.hostname=127.0.0.1,alluxio.master.rpc.port={port}");
    for sent in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut command = place.command(&["mount", "-n", "-o", &options, &place.text("mnt"), "/"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let _connection = mute.accept().unwrap();
        // The first process of a container would not even get a signal that is not caught.
        signal(&child, sent);
        wait_for("the end", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{sent}");
        assert!(place.log().ends_with("before there is a mount, system exiting\n"), "{}", place.log());
    }
    assert!(!place.is_mounted());
}

#[test]
fn an_interrupted_command_takes_its_daemon_along() {
    let place = Place::new();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let options = format!("alluxio.master.hostname=127.0.0.1,alluxio.master.rpc.port={port}");
    let mut command = place.command(&["mount", "-o", &options, &place.text("mnt"), "/"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    // The daemon connects, so it waits for an answer from here on.
    let connection = mute.accept().unwrap();
    signal(&child, Signal::SIGINT);
    code_of(&mut child);
    wait_for("the end of the daemon", || place.processes().is_empty());
    assert!(!place.is_mounted());
    drop(connection);
}

#[test]
fn what_is_not_mounted_is_not_unmounted() {
    let place = Place::new();
    for force in [&[][..], &["-f"]] {
        let done = place.run(&[&["unmount"], force, &[&place.text("mnt")]].concat());
        let expected = format!("Path {} is not mounted\n", place.text("mnt"));
        assert_eq!((done.code, done.out), (Some(0), expected));
        let done = place.run(&[&["unmount"], force, &["/proc"]].concat());
        assert_eq!(done.code, Some(1));
        assert_eq!(done.err, "Path /proc is not mounted by alluxio-fuse, but as proc\n");
    }
}

#[test]
fn broken_settings_do_not_keep_a_mount_from_ending() {
    let place = Place::new();
    place.mount(&[]);
    fs::write(place.path("conf/alluxio-site.properties"), "a=\\u12").unwrap();
    let done = place.run(&["unmount"]);
    assert_eq!(done.code, Some(1), "where, would be in the settings: {done:?}");
    let done = place.run(&["unmount", &place.text("mnt")]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!place.is_mounted());
}

#[test]
fn somebody_without_rights_mounts_at_a_directory_of_theirs() {
    let place = Place::new();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["logs", "mnt", "store"] {
        std::os::unix::fs::chown(place.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // /dev/fuse is not for everybody on every machine, so this happens where it is.
    let script = "mount -t tmpfs -o dev none /run && mknod -m 666 /run/fuse c 10 229 \
                  && mount --bind /run/fuse /dev/fuse \
                  && exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec '\
                      \"$0\" mount -o \"$1\" \"$2\" \"$3\"; \"$0\" stat; \"$0\" unmount \"$2\"' \"$@\"";
    for version in ["2", "3"] {
        let property = format!("alluxio.fuse.jnifuse.libfuse.version={version}");
        let (point, store) = (place.text("mnt"), place.store());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", PROGRAM, &property, &point, &store]);
        // The list of mounts is private to its user.
        command.env("XDG_RUNTIME_DIR", place.path("logs")).env("ALLUXIO_LOGS_DIR", place.path("logs"));
        command.env("ALLUXIO_CONF_DIR", place.path("conf")).env("HOME", "/root");
        let done = finish(command);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.out.contains(&format!("\t{point}\t{store}\n")), "{done:?}");
        assert!(done.out.contains(&format!("Unmount fuse at {point} (PID:")), "{done:?}");
        assert!(place.processes().is_empty());
    }
}

#[test]
fn a_busy_mount_is_unmounted_all_the_same() {
    let place = Place::new();
    fs::write(place.path("store/file"), "data").unwrap();
    place.mount(&[]);
    let open = fs::File::open(place.path("mnt/file")).unwrap();
    let done = place.run(&["unmount", &place.text("mnt")]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!place.is_mounted());
    drop(open);
}

#[test]
fn open_files_are_waited_for_as_long_as_the_property_says() {
    let place = Place::new();
    place.mount(&["-o", "alluxio.fuse.umount.timeout=1h"]);
    let pid = place.pid();
    let mut open = fs::File::create(place.path("mnt/file")).unwrap();
    let done = place.run(&["unmount", "-w", "0", &place.text("mnt")]);
    assert_eq!(done.code, Some(1), "{done:?}");
    for part in [format!("Failed to kill fuse process [{pid}] after 0 seconds."), "umount -f".to_owned()] {
        assert!(done.err.contains(&part), "{done:?}");
    }
    let user = format!("{} is open in process {} (", place.text("mnt/file"), std::process::id());
    assert!(done.err.contains(&user), "{done:?}");
    wait_for("the note in the log", || place.log().contains("Waiting for all in progress file read/write"));
    let refused = fs::File::open(place.path("mnt")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY), "nothing more is opened");
    open.write_all(b"written meanwhile").unwrap();
    drop(open);
    wait_for("the end of the daemon", || !is_running(pid));
    assert!(!place.is_mounted());
    assert_eq!(fs::read_to_string(place.path("store/file")).unwrap(), "written meanwhile");
}

#[test]
fn a_mount_whose_files_stay_open_serves_on_when_the_time_is_over() {
    let place = Place::new();
    place.mount(&["-o", "alluxio.fuse.umount.timeout=200ms"]);
    let pid = place.pid();
    let mut open = fs::File::create(place.path("mnt/file")).unwrap();
    let done = place.run(&["unmount", "-w", "2", &place.text("mnt")]);
    assert_eq!(done.code, Some(1), "{done:?}");
    wait_for("opens are taken again", || fs::read_dir(place.path("mnt")).is_ok());
    fs::write(place.path("mnt/other"), "made afterwards").unwrap();
    open.write_all(b"as ever").unwrap();
    drop(open);
    assert_eq!(fs::read_to_string(place.path("store/file")).unwrap(), "as ever");
    // The kernel lets go of the file some time after its close.
    wait_for("the unmount", || place.run(&["unmount", &place.text("mnt")]).code == Some(0));
    assert!(!is_running(pid) && !place.is_mounted());
}

#[test]
fn a_second_signal_does_not_wait_for_open_files() {
    let place = Place::new();
    fs::write(place.path("store/file"), "data").unwrap();
    place.mount(&["-o", "alluxio.fuse.umount.timeout=1h"]);
    let pid = place.pid();
    let open = fs::File::open(place.path("mnt/file")).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the note in the log", || place.log().contains("Waiting for all in progress file read/write"));
    assert!(is_running(pid));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    wait_for("the end of the daemon", || !is_running(pid));
    assert!(!place.is_mounted());
    drop(open);
}

#[test]
fn a_forced_unmount_kills_a_daemon_that_does_not_listen() {
    let place = Place::new();
    place.mount(&[]);
    let pid = place.pid();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let done = place.run(&["unmount", "-w", "0", &place.text("mnt")]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let done = place.run(&["unmount", "-f", &place.text("mnt")]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.starts_with(&format!("Forcibly killed fuse process {pid}\n")), "{done:?}");
    assert!(!place.is_mounted());
    assert!(!is_running(pid));
}

#[test]
fn without_any_mount_stat_says_so() {
    let place = Place::new();
    // Other tests have mounts, so this looks from a place where there are none.
    let script = "umount -a -l -t fuse.alluxio-fuse; mount -t tmpfs none /run && exec \"$0\" stat";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, PROGRAM]).env("HOME", place.dir.path());
    let done = finish(command);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.out, "No mount point found. AlluxioFuse process is not running\n\n", "{done:?}");
}

#[test]
fn the_doctor_names_what_keeps_a_mount_from_working_and_the_cure() {
    let place = Place::new();
    let done = place.run(&["doctor", &place.text("missing")]);
    assert_eq!(done.code, Some(1), "there is no master and no such directory: {done:?}");
    let line =
        |start: &str| done.out.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("ok       /dev/fuse").ends_with("can be opened"), "{done:?}");
    assert!(line("problem  masters").contains("-> set alluxio.master.hostname"), "{done:?}");
    assert!(line("problem  mount point").contains("-> `mkdir -p "), "{done:?}");
    assert!(line("ok       logs").contains("logs/fuse.log"), "{done:?}");

    let done = place.run(&["doctor", "--json", "-o", "alluxio.master.rpc.addresses=127.0.0.1:9"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let findings: Vec<serde_json::Value> = serde_json::from_str(&done.out).unwrap();
    let masters = findings.iter().find(|finding| finding["subject"] == "masters").unwrap();
    assert_eq!(masters["verdict"], "problem");
    assert!(masters["text"].as_str().unwrap().contains("127.0.0.1:9"), "{masters}");
    assert!(masters["cure"].as_str().unwrap().contains("firewall"), "{masters}");
    assert!(findings.iter().all(|finding| finding["verdict"] == "problem"
        || finding["cure"].is_null()
        || finding["verdict"] == "warning"));
}
