//! A mount of the program under test, which ends with its guard, also when the test panics.

use std::fs::File;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::cluster::Cluster;
use super::holds_within;
use super::process;
use super::tail;
use super::users::Somebody;
use super::wait_until;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_alluxio-fuse");

/// The program in the directory of a mount of another user.
const OTHERS_PROGRAM: &str = "alluxio-fuse";

/// How long a mount may take to come, and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to mount, and how.
#[derive(Clone)]
pub(crate) struct Spec {
    source: String,
    /// The directory of `alluxio-site.properties`; none: an empty one.
    conf: Option<PathBuf>,
    options: Vec<String>,
    /// Name of the mount point, in a directory of its own.
    point: String,
    environment: Vec<(String, String)>,
    /// Who mounts, if not the user of the test.
    user: Option<Somebody>,
}

impl Spec {
    /// The embedded store over `dir`.
    pub(crate) fn local(dir: &Path) -> Spec {
        Spec {
            source: format!("file://{}", dir.display()),
            conf: None,
            options: Vec::new(),
            point: "point".to_owned(),
            environment: Vec::new(),
            user: None,
        }
    }

    /// `path` of a real cluster.
    pub(crate) fn alluxio(cluster: &Cluster, path: &str) -> Spec {
        Spec {
            source: path.to_owned(),
            conf: Some(cluster.conf.clone()),
            options: Vec::new(),
            point: "point".to_owned(),
            environment: Vec::new(),
            user: None,
        }
    }

    /// Another path of Alluxio, or URI, than it was made with.
    pub(crate) fn source(self, source: &str) -> Spec {
        Spec { source: source.to_owned(), ..self }
    }

    /// Mounted by `user`, in the foreground.
    pub(crate) fn by(mut self, user: &Somebody) -> Spec {
        self.user = Some(user.clone());
        self
    }

    /// A mount point with a longer path than the under store has, so that what fits here fits there.
    pub(crate) fn long_point(self) -> Spec {
        Spec { point: "long-".repeat(40), ..self }
    }

    /// One more word of `-o`.
    pub(crate) fn option(mut self, option: &str) -> Spec {
        self.options.push(option.to_owned());
        self
    }

    /// One more property of Alluxio, given by `-o`.
    pub(crate) fn property(self, key: &str, value: &str) -> Spec {
        self.option(&format!("{key}={value}"))
    }

    /// `2` or `3`.
    pub(crate) fn libfuse(self, version: u32) -> Spec {
        self.property("alluxio.fuse.jnifuse.libfuse.version", &version.to_string())
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Spec {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Mounts in the foreground, in a new place: the daemon is a child of the test. It has said that it is up, and has logged
    /// all that it logs until then.
    pub(crate) fn start(&self) -> Mount {
        let place = Place::new(self);
        let output = File::create(place.output()).unwrap();
        let ready = UnixDatagram::bind(place.ready()).unwrap();
        ready.set_nonblocking(true).unwrap();
        std::fs::set_permissions(place.ready(), Permissions::from_mode(0o666)).unwrap();
        let child = place
            .mount_command(self, true)
            .env("NOTIFY_SOCKET", place.ready())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut mount = Mount { place, daemon: Daemon::Child(child), told: Some(ready) };
        let came = holds_within(PATIENCE, || mount.has_ended() || mount.is_ready());
        assert!(came && !mount.has_ended(), "not mounted:\n{}", mount.said());
        mount
    }

    /// What the program says to a mount that it refuses.
    pub(crate) fn refusal(&self) -> String {
        let place = Place::new(self);
        let output = process::output_within(&mut place.mount_command(self, true), PATIENCE);
        assert!(!output.status.success(), "it was not refused");
        assert!(!is_mounted(&place.point), "refused, but mounted");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Mounts in the background, as users do: the command has returned when this returns.
    pub(crate) fn start_in_background(&self) -> Mount {
        let place = Place::new(self);
        process::succeed(&mut place.mount_command(self, false), PATIENCE);
        assert!(is_mounted(&place.point), "the mount command succeeded without a mount");
        let pid = listed_pid(&place);
        Mount { place, daemon: Daemon::Background(pid), told: None }
    }
}

/// The private directory of a mount: its mount point, logs, configuration and output.
struct Place {
    dir: Option<TempDir>,
    point: PathBuf,
    conf: PathBuf,
    environment: Vec<(String, String)>,
    user: Option<Somebody>,
}

impl Place {
    fn new(spec: &Spec) -> Place {
        let dir = tempfile::Builder::new().prefix("mount").tempdir().unwrap();
        for name in [&*spec.point, "logs", "conf"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        if let Some(user) = &spec.user {
            for name in [&*spec.point, "logs"] {
                chown(dir.path().join(name), Some(user.uid), Some(user.gid)).unwrap();
            }
            // Others need not get to where the tests are built, and where the cluster is.
            std::fs::copy(PROGRAM, dir.path().join(OTHERS_PROGRAM)).unwrap();
            if let Some(conf) = &spec.conf {
                let site = "alluxio-site.properties";
                std::fs::copy(conf.join(site), dir.path().join("conf").join(site)).unwrap();
            }
        }
        let conf =
            spec.conf.clone().filter(|_| spec.user.is_none()).unwrap_or_else(|| dir.path().join("conf"));
        // As the kernel will say it.
        let point = dir.path().join(&spec.point).canonicalize().unwrap();
        Place { dir: Some(dir), point, conf, environment: spec.environment.clone(), user: spec.user.clone() }
    }

    fn dir(&self) -> &Path {
        self.dir.as_ref().expect("kept until the place is dropped").path()
    }

    fn output(&self) -> PathBuf {
        self.dir().join("output")
    }

    /// Where the daemon says that it is up, as to systemd.
    fn ready(&self) -> PathBuf {
        self.dir().join("ready")
    }

    fn logs(&self) -> PathBuf {
        self.dir().join("logs")
    }

    /// The program with nothing of the tester's own settings.
    fn command(&self) -> Command {
        let mut command = match &self.user {
            None => Command::new(PROGRAM),
            Some(user) => {
                let mut command = Command::new(self.dir().join(OTHERS_PROGRAM));
                user.runs(&mut command).env("HOME", self.logs()).env("XDG_RUNTIME_DIR", self.logs());
                command
            }
        };
        for name in ["ALLUXIO_HOME", "ALLUXIO_JAVA_OPTS", "ALLUXIO_FUSE_JAVA_OPTS"] {
            command.env_remove(name);
        }
        command.env("ALLUXIO_CONF_DIR", &self.conf).env("ALLUXIO_LOGS_DIR", self.logs());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn mount_command(&self, spec: &Spec, foreground: bool) -> Command {
        let mut command = self.command();
        command.arg("mount");
        if foreground {
            command.arg("-n");
        }
        // For all mounts of a run, such as `metadata_cache_size=10000`; before their own, which so win.
        if let Ok(words) = std::env::var("ALLUXIO_TEST_MOUNT_OPTIONS") {
            command.arg("-o").arg(words);
        }
        if !spec.options.is_empty() {
            command.arg("-o").arg(spec.options.join(","));
        }
        command.arg(&self.point).arg(&spec.source);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Removing the tree below a mount would remove the files of the cluster.
        if is_mounted(&self.point)
            && let Some(dir) = self.dir.take()
        {
            eprintln!("left mounted: {}", dir.keep().display());
        }
    }
}

enum Daemon {
    Child(Child),
    Background(u32),
}

/// A live mount.
pub(crate) struct Mount {
    place: Place,
    daemon: Daemon,
    /// What the daemon says of itself, as to systemd.
    told: Option<UnixDatagram>,
}

impl Mount {
    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.place.point
    }

    /// The process that serves it.
    pub(crate) fn pid(&self) -> u32 {
        match &self.daemon {
            Daemon::Child(child) => child.id(),
            Daemon::Background(pid) => *pid,
        }
    }

    /// The program, to be run in the environment of this mount.
    pub(crate) fn command(&self) -> Command {
        self.place.command()
    }

    /// The end of what the daemon printed and logged.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", tail(&self.place.output(), 40), tail(&self.place.logs().join("fuse.log"), 80))
    }

    /// All that the daemon printed.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.place.output()).unwrap_or_default()).into_owned()
    }

    /// The lines of the log that contain `text`.
    pub(crate) fn logged(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.place.logs().join("fuse.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// How often the daemon has counted `what`, as it logs that on SIGQUIT.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.log_state();
        let line = self.logged("Counted: ").pop().expect("just seen");
        let (_, samples) = line.split_once("Counted: ").expect("it has that text");
        let value = samples.split(", ").find_map(|sample| sample.strip_suffix(what)?.strip_suffix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// How many files and directories the daemon has open, as it logs that on SIGQUIT.
    pub(crate) fn open_handles(&self) -> u64 {
        self.log_state();
        let line = self.logged(" open files and directories").pop().expect("logged before what is counted");
        let (before, _) = line.split_once(" open files").expect("it has that text");
        before.rsplit(' ').next().expect("at least one word").parse().unwrap()
    }

    fn log_state(&self) {
        let before = self.logged("Counted: ").len();
        process::signal(self.pid(), Signal::SIGQUIT);
        wait_until("the daemon logs its state", PATIENCE, || self.logged("Counted: ").len() > before);
    }

    /// Unmounts by force while it hangs; panics unless the mount is gone soon.
    pub(crate) fn unmount_by_force(mut self) {
        let point = self.path().to_owned();
        process::succeed(self.command().args(["unmount", "-f"]).arg(&point), PATIENCE);
        assert!(!is_mounted(&point), "still mounted after unmount -f");
        assert!(
            holds_within(PATIENCE, || self.has_ended()),
            "the daemon outlives its mount:\n{}",
            self.said()
        );
    }

    /// Whether the daemon has libfuse `version` open.
    pub(crate) fn uses_libfuse(&self, version: u32) -> bool {
        let name = if version == 2 { "/libfuse.so.2" } else { "/libfuse3.so." };
        std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap().contains(name)
    }

    /// Unmounts by the program's own command; panics unless the mount and its daemon are gone.
    pub(crate) fn unmount(mut self) {
        let point = self.path().to_owned();
        process::succeed(self.command().arg("unmount").arg(&point), PATIENCE);
        assert!(!is_mounted(&point), "still mounted after unmount");
        assert!(
            holds_within(PATIENCE, || self.has_ended()),
            "the daemon outlives its mount:\n{}",
            self.said()
        );
    }

    /// Ends the daemon as a crash would, and takes away what it leaves of the mount.
    pub(crate) fn crash(mut self) {
        process::signal(self.pid(), Signal::SIGKILL);
        assert!(holds_within(PATIENCE, || self.has_ended()), "not even SIGKILL ends the daemon");
        detach(self.path());
    }

    /// Whether the daemon has just said that it is up, which is the first that it says.
    fn is_ready(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.recv(&mut [0]).is_ok())
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.daemon {
            Daemon::Child(child) => child.try_wait().unwrap().is_some(),
            Daemon::Background(pid) => !process::is_alive(*pid),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon of {} said\n{}\n---", self.path().display(), self.said());
        }
        if self.has_ended() && !is_mounted(self.path()) {
            return;
        }
        // Softly first. A test that hangs the daemon must not hang its own end.
        process::signal_if_alive(self.pid(), Signal::SIGTERM);
        if !holds_within(Duration::from_secs(10), || self.has_ended()) {
            detach(self.path());
            process::signal_if_alive(self.pid(), Signal::SIGKILL);
            holds_within(Duration::from_secs(5), || self.has_ended());
        }
        if is_mounted(self.path()) {
            detach(self.path());
        }
    }
}

/// Whether something is mounted at `point`.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = point.to_str().expect("the tests' paths are text");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(point))
}

/// Takes a mount away whatever its daemon does.
fn detach(point: &Path) {
    for (program, options) in [("fusermount", "-uz"), ("umount", "-l")] {
        let done = Command::new(program).arg(options).arg(point).stderr(Stdio::null()).status();
        if done.is_ok_and(|status| status.success()) {
            return;
        }
    }
}

/// The process of the mount at `place`, as the program's `stat` lists it.
fn listed_pid(place: &Place) -> u32 {
    let point = &place.point;
    let list = process::succeed(place.command().arg("stat"), PATIENCE);
    let row = list.lines().find(|line| line.split_whitespace().nth(1) == point.to_str());
    let row = row.unwrap_or_else(|| panic!("{} is not in the list of `stat`:\n{list}", point.display()));
    row.split_whitespace().next().unwrap_or_default().parse().unwrap_or_else(|_| panic!("no pid: {row}"))
}
