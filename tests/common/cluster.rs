//! The real cluster that `make test` starts: its shell, its Java client, its faults, its counters. Knows it
//! only by the script `tests/cluster/cluster`.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::holds_within;
use super::mount::is_mounted;
use super::process;

/// How long the cluster may take for a step: a JVM starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    script: PathBuf,
    /// Where its `alluxio-site.properties` is.
    pub(crate) conf: PathBuf,
    worker_web: Vec<u16>,
}

impl Cluster {
    /// The cluster that the environment names.
    pub(crate) fn get() -> Cluster {
        let worker_web = variable("ALLUXIO_TEST_WORKER_WEB");
        Cluster {
            script: variable("ALLUXIO_TEST_CLUSTER").into(),
            conf: variable("ALLUXIO_CONF_DIR").into(),
            worker_web: worker_web.split(' ').map(|port| port.parse().unwrap()).collect(),
        }
    }

    /// A new directory of the cluster for the test `name`, gone after it.
    pub(crate) fn directory(&self, name: &str) -> RemoteDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = format!("/{name}-{}-{number}", std::process::id());
        self.shell(&["mkdir", &path]);
        RemoteDir { cluster: self.clone(), path }
    }

    /// Runs a command of the Alluxio shell; panics with what it said unless it succeeds.
    pub(crate) fn shell(&self, words: &[&str]) -> String {
        let (code, text) = self.shell_code(words);
        assert_eq!(code, 0, "alluxio fs {words:?}: {text}");
        text
    }

    /// Runs a command of the Alluxio shell and returns its exit code and output.
    pub(crate) fn shell_code(&self, words: &[&str]) -> (i32, String) {
        Shell::of_this_process(self).run(words)
    }

    /// Runs a command of the administrators' shell; panics with what it said unless it succeeds.
    pub(crate) fn admin(&self, words: &[&str]) -> String {
        self.script(&[&["fsadmin"], words].concat())
    }

    /// Ends `name`, a worker or the master, as a crash would. It is started again at the latest when the
    /// guard is dropped.
    pub(crate) fn kill(&self, name: &str) -> Down {
        self.script(&["kill", name]);
        Down { cluster: self.clone(), name: name.to_owned(), down: true }
    }

    /// The master that serves, of several.
    pub(crate) fn leader(&self) -> String {
        self.script(&["leader"]).trim().to_owned()
    }

    pub(crate) fn kill_all_workers(&self) -> Vec<Down> {
        self.workers().iter().map(|name| self.kill(name)).collect()
    }

    /// Lets `name` hang: it keeps its connections, and answers nothing until the guard is dropped.
    pub(crate) fn suspend(&self, name: &str) -> Suspended {
        let file = self.conf.parent().expect("in the cluster's home").join("run").join(format!("{name}.pid"));
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        process::signal(pid, Signal::SIGSTOP);
        Suspended { pid }
    }

    /// Mounts `path` with the Java client, with the words `options` of `-o` and arguments for its JVM.
    pub(crate) fn mount_java(&self, path: &str, options: &str, jvm: &[&str]) -> JavaMount {
        self.try_mount_java(path, options, jvm).unwrap_or_else(|said| panic!("the Java client: {said}"))
    }

    /// As [`Self::mount_java`]; what was said if it did not come.
    pub(crate) fn try_mount_java(
        &self,
        path: &str,
        options: &str,
        jvm: &[&str],
    ) -> Result<JavaMount, String> {
        let dir = tempfile::Builder::new().prefix("java").tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        let mut command = Command::new(&self.script);
        command.arg("mount").arg(&point).arg(path).arg(options);
        let output = process::output_within(command.env("CLUSTER_FUSE_JAVA_OPTS", jvm.join(" ")), PATIENCE);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(JavaMount { cluster: self.clone(), point, dir: Some(dir) })
    }

    /// The bytes of blocks that the workers have sent to clients over the network since they started.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent_by_each().iter().sum()
    }

    /// The same of each worker.
    pub(crate) fn bytes_sent_by_each(&self) -> Vec<u64> {
        self.worker_web.iter().map(|&port| bytes_sent_by(port)).collect()
    }

    /// [`Self::bytes_sent`] once the count stands still: it lags a little behind the last chunks.
    pub(crate) fn bytes_sent_at_rest(&self) -> u64 {
        let mut count = self.bytes_sent();
        let stands = || {
            let before = std::mem::replace(&mut count, self.bytes_sent());
            before == count
        };
        assert!(holds_within(PATIENCE, stands), "something keeps reading");
        count
    }

    /// The ports of the master and the workers.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let master = variable("ALLUXIO_TEST_MASTER");
        let master = master.rsplit(':').next().expect("it has at least one part");
        let workers = variable("ALLUXIO_TEST_WORKERS");
        workers.split(' ').chain([master]).map(|port| port.parse().unwrap()).collect()
    }

    /// The names of the workers.
    pub(crate) fn workers(&self) -> Vec<String> {
        (1..=self.worker_web.len()).map(|n| format!("worker{n}")).collect()
    }

    /// The directory that is the under store of `/`.
    fn under_store(&self) -> PathBuf {
        self.conf.parent().expect("in the cluster's home").join("store")
    }

    /// The directory that holds the block files of the workers.
    pub(crate) fn memory(&self) -> PathBuf {
        let settings = self.conf.parent().expect("in the cluster's home").join("run/settings");
        let settings = std::fs::read_to_string(settings).unwrap();
        settings.lines().find_map(|line| line.strip_prefix("memory=")).expect("one of the settings").into()
    }

    fn script(&self, words: &[&str]) -> String {
        process::succeed(Command::new(&self.script).args(words), PATIENCE)
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: this test needs a real cluster, run it by `make test`")
    })
}

/// The counter of a worker's metrics; one that has never counted is not listed.
fn bytes_sent_by(web_port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", web_port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics/json/ HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"gauges\""), "no metrics: {answer}");
    let answer: String = answer.split_whitespace().collect();
    ["Worker.BytesReadRemote.", "Worker.BytesReadDomain."].iter().map(|name| counter(&answer, name)).sum()
}

/// The sum of the counters whose names begin with `name`, in the metrics' JSON without its spaces.
fn counter(json: &str, name: &str) -> u64 {
    let mut sum = 0;
    for (at, _) in json.match_indices(&format!("\"{name}")) {
        let Some((_, value)) = json[at..].split_once("\":{\"count\":") else {
            continue;
        };
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        sum += digits.parse::<u64>().unwrap();
    }
    sum
}

/// A directory of the cluster that ends with its guard.
pub(crate) struct RemoteDir {
    cluster: Cluster,
    pub(crate) path: String,
}

impl RemoteDir {
    /// The path of `name` in it.
    pub(crate) fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The same directory in the under store of `/`.
    pub(crate) fn below(&self) -> PathBuf {
        self.cluster.under_store().join(self.path.trim_start_matches('/'))
    }
}

impl Drop for RemoteDir {
    fn drop(&mut self) {
        // After a failure the shell may be what failed.
        if !thread::panicking() {
            self.cluster.shell(&["rm", "-R", &self.path]);
        }
    }
}

/// A worker or the master that has been ended.
pub(crate) struct Down {
    cluster: Cluster,
    name: String,
    down: bool,
}

impl Down {
    /// Starts it again; it serves when this returns.
    pub(crate) fn run(mut self) {
        self.cluster.script(&["run", &self.name]);
        self.down = false;
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        if self.down {
            let again = Command::new(&self.cluster.script).args(["run", &self.name]).status();
            eprintln!("{} was started again: {again:?}", self.name);
        }
    }
}

/// A server that hangs.
pub(crate) struct Suspended {
    pid: u32,
}

impl Drop for Suspended {
    fn drop(&mut self) {
        process::signal_if_alive(self.pid, Signal::SIGCONT);
    }
}

/// A cluster of one test, with servers that are as small as the test wants them.
pub(crate) struct OwnCluster {
    pub(crate) cluster: Cluster,
    home: TempDir,
}

impl OwnCluster {
    /// Starts one with the words `options` of the script's `start`.
    pub(crate) fn start(options: &[&str]) -> OwnCluster {
        let home = tempfile::Builder::new().prefix("cluster").tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster");
        let mut command = Command::new(script);
        command.arg("--home").arg(home.path()).arg("start").args(options);
        process::succeed(&mut command, PATIENCE);
        let cluster = Cluster {
            script: home.path().join("cluster"),
            conf: home.path().join("conf"),
            worker_web: vec![],
        };
        OwnCluster { cluster, home }
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let done = Command::new(self.home.path().join("cluster")).arg("stop").status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("the cluster in {} was not stopped", self.home.path().display());
        }
    }
}

/// A mount of the Java client.
pub(crate) struct JavaMount {
    cluster: Cluster,
    point: PathBuf,
    dir: Option<TempDir>,
}

impl JavaMount {
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for JavaMount {
    fn drop(&mut self) {
        let done = Command::new(&self.cluster.script).arg("umount").arg(&self.point).status();
        if !done.is_ok_and(|status| status.success()) || is_mounted(&self.point) {
            // Removing the tree below a mount would remove the files of the cluster.
            let kept = self.dir.take().map(TempDir::keep);
            eprintln!("left mounted: {kept:?}");
        }
    }
}

/// The Alluxio shell in one JVM for all commands of the test process.
struct Shell {
    // Reaped by whoever inherits it: the end of its input, with this process, is its end.
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    /// A command was not answered in time.
    is_late: bool,
}

impl Shell {
    /// There is at most one, started when it is first wanted.
    fn of_this_process(cluster: &Cluster) -> MutexGuard<'static, Shell> {
        static SHELL: OnceLock<Mutex<Shell>> = OnceLock::new();
        let shell = SHELL.get_or_init(|| Mutex::new(Shell::start(cluster)));
        let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
        if shell.is_late {
            // Its late answer would be taken for that to the next command.
            let _ = shell.child.kill();
            let _ = shell.child.wait();
            *shell = Shell::start(cluster);
        }
        shell
    }

    fn start(cluster: &Cluster) -> Shell {
        let mut child = Command::new(&cluster.script)
            .arg("fs-loop")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().expect("started with a pipe");
        let output = child.stdout.take().expect("started with a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Shell { child, input, lines, is_late: false }
    }

    fn run(&mut self, words: &[&str]) -> (i32, String) {
        assert!(
            !words.iter().any(|word| word.contains(['\t', '\n'])),
            "cannot be said in one line: {words:?}"
        );
        writeln!(self.input, "{}", words.join("\t")).unwrap();
        let mut text = String::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            self.is_late = line.is_err();
            let line = line.unwrap_or_else(|e| panic!("alluxio fs {words:?}: {e} after\n{text}"));
            if let Some(code) = line.strip_prefix("exit ") {
                return (code.parse().unwrap(), text);
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
}

#[test]
fn a_counter_is_found_in_the_metrics() {
    let json =
        r#"{"counters":{"Worker.BytesReadRemote.localhost":{"count":17},"Worker.Other.x":{"count":5}}}"#;
    assert_eq!(counter(json, "Worker.BytesReadRemote."), 17);
    assert_eq!(counter(json, "Worker.BytesReadDomain."), 0);
}
