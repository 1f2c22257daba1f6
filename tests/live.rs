//! What the commands tell that look into a mount while it serves: the same as what was done, who did it, and what hangs
//! where; and that nobody who looks can harm it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use common::cluster::Cluster;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::wait_until;

/// Guards against hangs only.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every request comes to the mount, as the kernel may remember nothing.
fn local(dir: &Path) -> Spec {
    Spec::local(dir)
        .option("attr_timeout=0")
        .option("entry_timeout=0")
        .property("alluxio.fuse.passthrough.enabled", "false")
}

/// What `command` of the program says about `mount`.
fn look(mount: &Mount, words: &[&str]) -> String {
    process::succeed(mount.command().args(words).arg(mount.path()), PATIENCE)
}

fn json(mount: &Mount, command: &str) -> Value {
    serde_json::from_str(&look(mount, &[command, "--json"])).unwrap()
}

/// How often an operation was done.
fn done(stats: &Value, op: &str) -> u64 {
    value(stats, "alluxio_fuse_operation_seconds", &[("op", op)])
}

fn value(stats: &Value, name: &str, labels: &[(&str, &str)]) -> u64 {
    let values = stats["values"].as_array().unwrap();
    let is_it = |value: &&Value| {
        value["name"] == name && labels.iter().all(|(label, text)| value["labels"][label] == *text)
    };
    values.iter().find(is_it).map_or(0, |value| value["value"].as_f64().unwrap() as u64)
}

fn socket(mount: &Mount) -> PathBuf {
    Path::new("/run/alluxio-fuse").join(format!("{}.sock", mount.pid()))
}

/// A trace that has begun.
struct Trace {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Trace {
    fn start(mount: &Mount, words: &[&str]) -> Trace {
        let mut command = mount.command();
        command.arg("trace").args(words).arg(mount.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("Tracing"), "{line}");
        let told = BufReader::new(child.stdout.take().unwrap());
        Trace { child, told }
    }

    /// The next line.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line
    }

    /// Its lines that nobody had yet, once it has ended by itself.
    fn lines(mut self) -> Vec<String> {
        assert!(process::status_within(&mut self.child, PATIENCE).expect("it ends").success());
        let mut text = String::new();
        self.told.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn stats_count_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    let before = json(&mount, "stats");
    for number in 0..7 {
        let path = mount.path().join(format!("file {number}"));
        fs::create_dir(mount.path().join(format!("dir {number}"))).unwrap();
        fs::write(&path, vec![b'x'; 1000]).unwrap();
        fs::read(&path).unwrap();
        fs::rename(&path, mount.path().join("other")).unwrap();
    }
    fs::remove_file(mount.path().join("absent")).unwrap_err();
    let after = json(&mount, "stats");
    for op in ["mkdir", "create", "open", "rename"] {
        assert_eq!(done(&after, op) - done(&before, op), 7, "{op}");
    }
    assert_eq!(value(&after, "alluxio_fuse_written_bytes_total", &[]), 7000);
    let failed = [("op", "lookup"), ("error", "ENOENT")];
    assert!(value(&after, "alluxio_fuse_operation_failures_total", &failed) > 0);
    assert_eq!(after["mount"], mount.path().to_str().unwrap());
    assert_eq!(after["pid"], mount.pid());
    let text = look(&mount, &["stats"]);
    assert!(
        text.contains("alluxio_fuse_operation_seconds{op=rename}") && text.contains(" 7, mean "),
        "{text}"
    );
    mount.unmount();
}

#[test]
fn a_trace_tells_each_operation_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    fs::write(mount.path().join("a b"), "hello").unwrap();
    let reads = Trace::start(&mount, &["--op", "read", "--path", "/a*", "--count", "1"]);
    let mut removals = Trace::start(&mount, &["--op", "open,unlink", "--path", "/a b", "--count", "2"]);
    let own = std::process::id().to_string();
    let mine = Trace::start(&mount, &["--pid", &own, "--path", "/made", "--count", "1"]);
    let mut slow = Trace::start(&mount, &["--slower-than", "1000s", "--count", "1"]);
    process::succeed(Command::new("cat").arg(mount.path().join("a b")), PATIENCE);
    fs::create_dir(mount.path().join("made")).unwrap();
    // Paths are found out when an operation is told: before the file is removed.
    let lines = reads.lines();
    let opened = removals.next();
    fs::remove_file(mount.path().join("a b")).unwrap();
    for part in [" read /a b ", "@0 (cat, pid ", " = 5 in "] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    let lines = removals.lines();
    assert!(
        opened.contains(" open /a b (cat, ") && lines[0].contains(" unlink /a b ("),
        "{opened} {lines:?}"
    );
    assert!(lines[0].contains(" = 0 in "), "{lines:?}");
    let lines = mine.lines();
    assert!(lines[0].contains(" /made (") && lines[0].contains(&format!("uid {}", nix::unistd::getuid())));
    assert!(slow.child.try_wait().unwrap().is_none(), "nothing takes as long");
    drop(slow);
    mount.unmount();
}

#[test]
fn a_trace_of_what_is_no_operation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    let mut command = mount.command();
    let output = process::output_within(command.args(["trace", "--op", "look"]).arg(mount.path()), PATIENCE);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("look is no operation, there are lookup"), "{said}");
    mount.unmount();
}

#[test]
fn top_shows_operations_files_and_callers() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    fs::write(mount.path().join("hot"), "hello").unwrap();
    let mut shell = Command::new("sh")
        .args(["-c", "while :; do cat \"$1\" > /dev/null || exit; done", "sh"])
        .arg(mount.path().join("hot"))
        .spawn()
        .unwrap();
    let text = look(&mount, &["top", "--once"]);
    shell.kill().unwrap();
    shell.wait().unwrap();
    for part in ["OPERATION", " read\n", " open\n", "  /hot\n", "cat, pid ", " store\n"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    wait_until("the last cat ends", PATIENCE, || json(&mount, "stats")["open_handles"] == 0);
    mount.unmount();
}

#[test]
fn a_request_that_hangs_is_found_with_its_server() {
    let cluster = Cluster::get();
    let remote = cluster.directory("live");
    let mount = Spec::alluxio(&cluster, &remote.path)
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.fuse.logging.threshold", "1ms")
        .start_in_background();
    fs::write(mount.path().join("file"), vec![7; 3 << 20]).unwrap();
    let workers: Vec<_> = cluster.workers().iter().map(|worker| cluster.suspend(worker)).collect();
    let mut cat = Command::new("cat").arg(mount.path().join("file")).stdout(Stdio::null()).spawn().unwrap();
    let mut found = Value::Null;
    wait_until("the request is seen to wait for a worker", PATIENCE, || {
        found = json(&mount, "threads");
        found["busy"][0]["waiting"]["what"] == "ReadBlock" && found["busy"][0]["waiting"]["server"] != ""
    });
    let busy = &found["busy"][0];
    assert_eq!((&busy["request"]["op"], &busy["request"]["path"]), (&"read".into(), &"/file".into()));
    assert_eq!((&busy["request"]["program"], &busy["request"]["pid"]), (&"cat".into(), &cat.id().into()));
    let server = busy["waiting"]["server"].as_str().unwrap();
    assert!(found["calls"].as_array().unwrap().iter().any(|call| call["server"] == server), "{found}");
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("waiting.svg");
    look(&mount, &["profile", "--off-cpu", "-d", "1", "-f", picture.to_str().unwrap()]);
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.contains("ReadBlock (") && svg.contains(&format!("{server} (")), "{svg}");
    let text = look(&mount, &["threads"]);
    assert!(text.contains("read /file ") && text.contains(&format!("for {server} ReadBlock")), "{text}");
    drop(workers);
    assert!(process::status_within(&mut cat, PATIENCE).expect("it goes on").success());
    let slow = mount.logged(&format!("ms of it waiting for {server} ReadBlock (cat, pid {}", cat.id()));
    assert!(slow.iter().any(|line| line.contains("request ")), "{}", mount.said());
    mount.unmount();
}

#[test]
fn a_profile_is_a_picture_and_the_mount_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    let picture = dir.path().join("profile.svg");
    let work = mount.path().join("absent");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let worker = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            fs::metadata(&work).unwrap_err();
        }
    });
    let file = picture.to_str().unwrap();
    // However little of the processor the mount gets, some of its time is seen at last.
    wait_until("a profile has samples", PATIENCE, || {
        let mut command = mount.command();
        let output = process::output_within(
            command.args(["profile", "-d", "1", "-f", file]).arg(mount.path()),
            PATIENCE,
        );
        output.status.success()
    });
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.contains("<svg") && svg.contains("session::"), "{} bytes", svg.len());
    assert_eq!(fs::metadata(&picture).unwrap().permissions().mode() & 0o777, 0o600);
    drop(stop);
    worker.join().unwrap();
    mount.unmount();
}

#[test]
fn where_nobody_waits_there_is_no_picture() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("waiting.svg");
    let mount = local(dir.path()).start_in_background();
    let mut command = mount.command();
    let output = process::output_within(
        command.args(["profile", "--off-cpu", "-d", "1", "-f"]).arg(&picture).arg(mount.path()),
        PATIENCE,
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no thread waited"), "{said}");
    assert!(!picture.exists());
    mount.unmount();
}

#[test]
fn the_level_of_the_log_changes_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    let seen = |name: &str| {
        fs::create_dir(mount.path().join(name)).unwrap();
        let line = format!("Enter: Fuse.Mkdir(path=/{name},mode=");
        mount.logged(&line).len()
    };
    assert_eq!(seen("one"), 0);
    assert!(look(&mount, &["loglevel", "debug"]).contains("root is DEBUG now"));
    assert_eq!(seen("two"), 1);
    look(&mount, &["loglevel", "info"]);
    assert_eq!(seen("three"), 0);
    process::signal(mount.pid(), Signal::SIGUSR1);
    wait_until("SIGUSR1 is heeded", PATIENCE, || mount.logged("root is DEBUG now").len() == 2);
    assert_eq!(seen("four"), 1);
    process::signal(mount.pid(), Signal::SIGUSR2);
    wait_until("SIGUSR2 is heeded", PATIENCE, || !mount.logged("that of the settings again").is_empty());
    assert_eq!(seen("five"), 0);
    let mut command = mount.command();
    let output = process::output_within(command.args(["loglevel", "loud"]).arg(mount.path()), PATIENCE);
    assert!(String::from_utf8_lossy(&output.stderr).contains("loud is no level"));
    mount.unmount();
}

#[test]
fn a_storm_of_errors_is_a_few_lines_and_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    for number in 0..50 {
        let name = format!("{number} {}", "x".repeat(300));
        fs::metadata(mount.path().join(name)).unwrap_err();
    }
    process::succeed(mount.command().arg("unmount").arg(mount.path()), PATIENCE);
    let lines = mount.logged("Failed to lookup");
    // A slow machine may begin to count anew.
    let held = |line: &String| {
        Some(line.rsplit_once("(repeated ")?.1.split_once(" times in 10 s)")?.0.parse::<usize>().unwrap())
    };
    let (told, counted): (Vec<&String>, Vec<&String>) = lines.iter().partition(|line| held(line).is_none());
    assert!(lines.len() < 50, "{lines:?}");
    assert_eq!(told.len() + counted.into_iter().filter_map(held).sum::<usize>(), 50, "{lines:?}");
}

#[test]
fn garbage_on_the_socket_is_answered_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let long = [b"{\"ask\": \"".as_slice(), &[b'x'; 200_000], b"\"}\n"].concat();
    for garbage in [b"hello\n".as_slice(), b"\n", b"{\"ask\":\"everything\"}\n", b"\xff\xfe\n", &long] {
        let mut stream = UnixStream::connect(socket(&mount)).unwrap();
        // The end of a line that is too long may find nobody who reads it.
        drop(stream.write_all(garbage));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        let is_told = answer.starts_with("{\"error\":\"not understood");
        assert!(is_told || garbage.len() > 100_000 && answer.is_empty(), "{answer}");
    }
    drop(UnixStream::connect(socket(&mount)).unwrap());
    assert_eq!(json(&mount, "stats")["pid"], mount.pid());
    mount.unmount();
}

#[test]
fn a_caller_that_never_reads_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let silent: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = UnixStream::connect(socket(&mount)).unwrap();
            stream.write_all(b"{\"ask\":\"trace\"}\n").unwrap();
            stream
        })
        .collect();
    for number in 0..3000 {
        fs::metadata(mount.path().join(format!("absent {number}"))).unwrap_err();
    }
    let stats = json(&mount, "stats");
    assert!(done(&stats, "lookup") >= 3000);
    // With them still there.
    mount.unmount();
    drop(silent);
}

#[test]
fn the_socket_is_private_and_goes_with_the_mount() {
    let dir = tempfile::tempdir().unwrap();
    if !users::are_available() {
        return;
    }
    let mount = local(dir.path()).start_in_background();
    let path = socket(&mount);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let nobody = users::named("nobody");
    nobody.run(|| UnixStream::connect(&path).unwrap_err());
    mount.unmount();
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_mount_that_crashed_is_removed_by_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    if !users::are_available() {
        return;
    }
    let mount = local(dir.path()).start_in_background();
    let path = socket(&mount);
    assert!(path.exists());
    let mut command = mount.command();
    command.arg("stat");
    mount.crash();
    // Twice: the record of the process goes first.
    for _ in 0..2 {
        process::output_within(&mut command, PATIENCE);
    }
    assert!(!path.exists());
}

#[test]
fn operations_of_another_user_are_told_as_his() {
    let dir = tempfile::tempdir().unwrap();
    if !users::are_available() {
        return;
    }
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), all.clone()).unwrap();
    let mount = local(dir.path()).option("allow_other").start_in_background();
    fs::set_permissions(mount.path().parent().unwrap(), all).unwrap();
    let (nobody, daemon) = (users::named("nobody"), users::named("daemon"));
    let trace = Trace::start(&mount, &["--op", "lookup", "--path", "/of *", "--count", "2"]);
    for user in [&nobody, &daemon] {
        user.run(|| fs::metadata(mount.path().join(format!("of {}", user.name))).unwrap_err());
    }
    let lines = trace.lines();
    for (line, user) in lines.iter().zip([&nobody, &daemon]) {
        let (path, uid) = (format!(" /of {} (", user.name), format!(", uid {})", user.uid));
        assert!(line.contains(&path) && line.contains(&uid) && line.contains(" = ENOENT in "), "{line}");
    }
    assert_eq!(lines.len(), 2);
    mount.unmount();
}

#[test]
fn what_is_no_mount_is_named_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).start_in_background();
    for command in ["stats", "threads", "trace", "top", "profile"] {
        let output = process::output_within(mount.command().arg(command).arg(dir.path()), PATIENCE);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{command}");
        assert!(said.contains("is no mount of this user, `alluxio-fuse stat` lists"), "{command}: {said}");
    }
    mount.unmount();
}

#[test]
fn the_log_tells_arguments_and_the_number_of_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let mount = local(dir.path()).property("alluxio.fuse.debug.enabled", "true").start_in_background();
    let path = mount.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"hello").unwrap();
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(&path, mount.path().join("new")).unwrap();
    fs::metadata(mount.path().join("absent")).unwrap_err();
    for part in [
        "Enter: Fuse.Create(path=/file,mode=",
        ",size=5,offset=0)",
        "Exit (5): Fuse.Write(path=/file,fd=",
        "Enter: Fuse.Flush(path=/file,fd=",
        "Enter: Fuse.Chmod(path=/file,mode=640)",
        "Exit (0): Fuse.Rename(oldPath=/file,newPath=/new,) in ",
        "Failed to lookup /absent: ",
    ] {
        assert!(!mount.logged(part).is_empty(), "{part}: {}", mount.said());
    }
    let failed = mount.logged("Failed to lookup /absent: ").pop().unwrap();
    let number = failed.rsplit("request ").next().unwrap();
    assert!(number.parse::<u64>().is_ok_and(|number| number > 0), "{failed}");
    mount.unmount();
}
