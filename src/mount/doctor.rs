//! Looks for what would keep a mount from working, or from working well, on this machine: one finding for each thing
//! that a mount needs, with the cure where there is one. Changes nothing.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::statvfs::statvfs;

use super::add_cluster_defaults;
use super::alluxio_options;
use super::fuse_conf;
use super::logging;
use super::point;
use super::registry;
use super::table;
use crate::backend::alluxio::AlluxioOptions;
use crate::backend::alluxio::RetryTimes;
use crate::backend::alluxio::Survey;
use crate::backend::alluxio::Surveyed;
use crate::backend::alluxio::survey;
use crate::config::Config;
use crate::config::MountOptions;
use crate::config::keys;
use crate::fs::FsPath;
use crate::session;

/// Clocks that differ by more make times in listings surprising.
const CLOCK_MAX_MS: i64 = 5000;

/// A mount needs a descriptor for each connection and each open block.
const FILES_MIN: u64 = 65_536;

/// A cluster that does not answer by then will not.
const CLUSTER_LIMIT: Duration = Duration::from_secs(3);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A mount works, but not as well as it could.
    Warning,
    /// A mount does not work.
    Problem,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do, if something is to be done.
    pub cure: Option<String>,
}

impl Finding {
    fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self { subject: subject.to_owned(), verdict: Verdict::Ok, text: text.into(), cure: None }
    }

    fn warning(subject: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, cure: Some(cure.into()), ..Self::ok(subject, text) }
    }

    fn problem(subject: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, cure: Some(cure.into()), ..Self::ok(subject, text) }
    }
}

/// Examines this machine and the cluster that `config` names.
pub fn examine(mut config: Config) -> Vec<Finding> {
    let mut findings = vec![device(), fusermount()];
    findings.extend(libraries());
    findings.extend(kernel());
    findings.push(open_files());
    let cluster = cluster(&mut config);
    findings.extend(settings(&mut config));
    findings.extend(mount_point(&config));
    findings.push(logs(&config));
    findings.push(list_of_mounts(&config));
    findings.extend(cache_directories(&config));
    findings.extend(cluster);
    findings
}

fn device() -> Finding {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok("/dev/fuse", "can be opened"),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Finding::problem(
            "/dev/fuse",
            "is not there",
            "`modprobe fuse` on the host; a container needs `--device /dev/fuse`",
        ),
        Err(err) => Finding::problem(
            "/dev/fuse",
            format!("cannot be opened: {err}"),
            "`chmod 666 /dev/fuse`; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
        ),
    }
}

fn fusermount() -> Finding {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<PathBuf> = std::env::split_paths(&paths)
        .flat_map(|dir| ["fusermount3", "fusermount"].map(|name| dir.join(name)))
        .filter(|path| path.is_file())
        .collect();
    let root = nix::unistd::geteuid().is_root();
    let is_set_user =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.permissions().mode() & 0o4000 != 0);
    match found.first() {
        Some(path) if root || found.iter().any(is_set_user) => {
            Finding::ok("fusermount", path.display().to_string())
        }
        Some(path) => Finding::problem(
            "fusermount",
            format!("{} is not set-user-id root, so only root can mount", path.display()),
            format!("`chown root {0} && chmod 4755 {0}` as root", path.display()),
        ),
        None if root => Finding::ok("fusermount", "not installed, and not needed by root"),
        None => Finding::problem("fusermount", "is not installed", "`apt-get install fuse3`"),
    }
}

fn libraries() -> Vec<Finding> {
    let found = session::libraries();
    let any = found.iter().any(|(_, library)| library.is_ok());
    let finding = |(major, library): (u32, Result<String, String>)| {
        let subject = format!("libfuse {major}");
        let package = if major == 2 { "libfuse2" } else { "fuse3" };
        match library {
            Ok(text) => Finding::ok(&subject, text),
            Err(reason) if any => Finding::ok(&subject, format!("not used: {reason}")),
            Err(reason) => Finding::problem(&subject, reason, format!("`apt-get install {package}`")),
        }
    };
    found.into_iter().map(finding).collect()
}

fn kernel() -> Vec<Finding> {
    let name = nix::sys::utsname::uname();
    let release =
        name.as_ref().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    let release = release.as_str();
    let version = release_numbers(release);
    let root = nix::unistd::geteuid().is_root();
    let mut findings = Vec::new();
    findings.push(if version >= (5, 6) {
        Finding::ok("kernel", release)
    } else {
        Finding::warning("kernel", format!("{release} is old"), "5.6 or newer has what file:// mounts need")
    });
    findings.push(match (version >= (6, 9), root) {
        (true, true) => Finding::ok("passthrough", "the kernel can read local files itself"),
        (true, false) => Finding::ok("passthrough", "the kernel lets only root use it"),
        (false, _) => Finding::ok("passthrough", format!("not in kernel {release}, 6.9 or newer has it")),
    });
    let uring = read("/sys/module/fuse/parameters/enable_uring");
    findings.push(match uring.as_deref() {
        Some("Y") => Finding::ok("io_uring", "switched on for FUSE"),
        Some(_) => Finding::ok("io_uring", "there, and switched off for FUSE"),
        None => Finding::ok("io_uring", format!("not for FUSE in kernel {release}, 6.14 or newer has it")),
    });
    if let Some(pages) = read("/proc/sys/fs/fuse/max_pages_limit").and_then(|text| text.parse::<u64>().ok()) {
        let text = format!("up to {} KiB", pages * 4);
        findings.push(if pages >= 256 {
            Finding::ok("request size", text)
        } else {
            Finding::warning(
                "request size",
                text,
                "`sysctl fs.fuse.max_pages_limit=256` for requests of 1 MiB",
            )
        });
    }
    findings
}

/// `6.12.5-amd64` as (6, 12); what cannot be read counts as 0.
fn release_numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-', '+']).map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn open_files() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= FILES_MIN => Finding::ok("open files", format!("up to {hard}")),
        Ok((_, hard)) => Finding::warning(
            "open files",
            format!("up to {hard}"),
            format!("`ulimit -Hn {FILES_MIN}`, or LimitNOFILE= of the service"),
        ),
        Err(errno) => {
            Finding::warning("open files", format!("the limit is not known: {errno}"), "look at `ulimit -n`")
        }
    }
}

fn settings(config: &mut Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (level, note) in config.take_notes() {
        match level {
            log::Level::Error | log::Level::Warn => {
                findings.push(Finding::warning("settings", note, "`alluxio-fuse config` shows all of them"));
            }
            log::Level::Info => findings.push(Finding::ok("settings", note)),
            log::Level::Debug | log::Level::Trace => {}
        }
    }
    match config.mount_options() {
        Ok(options) => findings.extend(allow_others(&options)),
        Err(problem) => findings.push(Finding::problem("mount options", problem.to_string(), "correct them")),
    }
    findings
}

/// Users other than root may let others in only if root says so.
fn allow_others(options: &MountOptions) -> Option<Finding> {
    let word = options.kernel_words.iter().find(|word| word.starts_with("allow_"))?;
    Some(match fuse_conf::check(&options.kernel_words) {
        Ok(()) => Finding::ok("/etc/fuse.conf", format!("lets this user use {word}")),
        Err(problem) => {
            let cure = "`echo user_allow_other >> /etc/fuse.conf` as root";
            Finding::problem("/etc/fuse.conf", problem.to_string(), cure)
        }
    })
}

fn mount_point(config: &Config) -> Option<Finding> {
    let text = config.text(&keys::FUSE_MOUNT_POINT);
    // The default is a proposal, not somebody's wish.
    if !config.is_set_by_user(&keys::FUSE_MOUNT_POINT) {
        return None;
    }
    let subject = format!("mount point {text}");
    let point = match point::resolve(Path::new(text)) {
        Ok(point) => point,
        Err(err) => return Some(Finding::problem(&subject, err.to_string(), "choose another")),
    };
    let mounted = table::find(&point).ok().flatten();
    Some(match mounted {
        Some(entry) if point::is_dead(&point) => {
            let cure = format!("`alluxio-fuse mount` cleans it up, or `alluxio-fuse unmount {text}`");
            Finding::warning(&subject, format!("a {} whose process has ended", entry.fs_type), cure)
        }
        Some(entry) => Finding::ok(&subject, format!("{} is mounted there", entry.fs_type)),
        None if point.is_dir() => Finding::ok(&subject, "a directory"),
        None => Finding::problem(&subject, "is no directory", format!("`mkdir -p {text}`")),
    })
}

fn logs(config: &Config) -> Finding {
    let dir = config.logs_dir();
    match logging::check(&dir) {
        Ok(()) => Finding::ok("logs", dir.join(logging::LOG_FILE).display().to_string()),
        Err(err) => Finding::problem(
            "logs",
            format!("{}: {err}", dir.display()),
            "set ALLUXIO_LOGS_DIR to a directory that you can write",
        ),
    }
}

fn list_of_mounts(config: &Config) -> Finding {
    let subject = "list of mounts";
    match registry::check(&config.runtime_dirs()) {
        Ok(dir) => Finding::ok(subject, dir.display().to_string()),
        Err(problem) => Finding::problem(
            subject,
            problem,
            "set ALLUXIO_FUSE_RUNTIME_DIR to a directory that you can write",
        ),
    }
}

fn cache_directories(config: &Config) -> Vec<Finding> {
    if !config.flag(&keys::USER_CLIENT_CACHE) {
        return Vec::new();
    }
    let finding = |dir: &String| {
        let subject = format!("cache {dir}");
        match statvfs(Path::new(dir)) {
            Ok(stat) => {
                let free = stat.blocks_available() * stat.fragment_size();
                Finding::ok(&subject, format!("{} MiB free", free >> 20))
            }
            Err(errno) => Finding::problem(&subject, errno.desc(), format!("`mkdir -p {dir}`")),
        }
    };
    config.list(&keys::USER_CLIENT_CACHE_DIRS).iter().map(finding).collect()
}

fn cluster(config: &mut Config) -> Vec<Finding> {
    let options = match alluxio_options::from_config(config, &FsPath::root()) {
        Ok(options) => impatient(options),
        Err(problem) => {
            let cure = "set alluxio.master.hostname, for example in /etc/alluxio/alluxio-site.properties";
            return vec![Finding::problem("masters", problem.to_string(), cure)];
        }
    };
    match survey(&options) {
        Ok(survey) => {
            let mut findings = found(&survey, &options);
            // Not asked for before the master is known to answer: that would be waited for as long as a mount does.
            if let Err(failure) = add_cluster_defaults(config) {
                let cure = "look at the log of the master";
                findings.push(Finding::warning("cluster settings", failure.to_string(), cure));
            }
            findings
        }
        Err(err) => {
            let names: Vec<_> = options.masters.iter().map(ToString::to_string).collect();
            let cure = format!(
                "is the master at {} up, is alluxio.master.hostname right, does a firewall let {} through?",
                names.join(", "),
                options.masters.first().map_or(0, |master| master.port)
            );
            vec![Finding::problem("masters", err.to_string(), cure)]
        }
    }
}

fn impatient(options: AlluxioOptions) -> AlluxioOptions {
    let rpc_retry = RetryTimes { total: CLUSTER_LIMIT, ..options.rpc_retry };
    AlluxioOptions { rpc_retry, polling_timeout: CLUSTER_LIMIT, connect_timeout: CLUSTER_LIMIT, ..options }
}

fn found(survey: &Survey, options: &AlluxioOptions) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(
        "masters",
        format!("{} is the primary, Alluxio {}, user {}", survey.primary, survey.version, options.user),
    )];
    if survey.safe_mode {
        findings.push(Finding::warning(
            "masters",
            "the primary is in safe mode",
            "wait for its workers to register",
        ));
    }
    findings.push(clock(survey.clock_ahead_ms));
    let unreachable = survey.workers.iter().filter_map(|worker| Some((worker, worker.problem.as_ref()?)));
    findings.extend(unreachable.map(|(worker, problem)| {
        let text = format!("{}: {problem}", worker.address);
        Finding::problem("workers", text, "is its data port open to this machine?")
    }));
    let (capacity, used) = survey
        .workers
        .iter()
        .fold((0, 0), |(capacity, used), worker| (capacity + worker.capacity, used + worker.used));
    findings.push(if survey.live == 0 {
        Finding::problem("workers", "none is registered at the master", "start one, and look at its log")
    } else {
        let text = format!("{} live, {} of {} MiB in use", survey.live, used >> 20, capacity >> 20);
        Finding::ok("workers", text)
    });
    findings.push(short_circuit(survey.workers.iter().find(|worker| worker.local), options));
    findings
}

fn clock(ahead_ms: i64) -> Finding {
    let seconds = ahead_ms.unsigned_abs().div_ceil(1000);
    if ahead_ms.abs() <= CLOCK_MAX_MS {
        Finding::ok("clock", format!("within {} s of the master's", seconds.max(1)))
    } else {
        let way = if ahead_ms > 0 { "behind" } else { "ahead of" };
        Finding::warning("clock", format!("{seconds} s {way} the master's"), "run an NTP client on both")
    }
}

fn short_circuit(local: Option<&Surveyed>, options: &AlluxioOptions) -> Finding {
    const SUBJECT: &str = "short circuit";
    match local {
        None => Finding::ok(SUBJECT, "no worker on this machine"),
        Some(_) if !options.short_circuit => Finding::warning(
            SUBJECT,
            "switched off, though a worker is on this machine",
            "set alluxio.user.short.circuit.enabled=true",
        ),
        Some(worker) => Finding::ok(SUBJECT, format!("with the worker {}", worker.address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(release_numbers("6.12.5-amd64"), (6, 12));
        assert_eq!(release_numbers("5.10+"), (5, 10));
        assert_eq!(release_numbers("?"), (0, 0));
    }

    #[test]
    fn clocks_that_differ_are_told_which_way() {
        assert_eq!(clock(-900), Finding::ok("clock", "within 1 s of the master's"));
        assert_eq!(clock(61_000).text, "61 s behind the master's");
        assert_eq!(clock(-61_000).verdict, Verdict::Warning);
        assert_eq!(clock(-61_000).text, "61 s ahead of the master's");
    }

    #[test]
    fn each_worker_that_cannot_be_reached_is_named() {
        let worker = |port, problem: Option<&str>| Surveyed {
            address: crate::backend::alluxio::HostPort::new("w", port),
            local: false,
            capacity: 2 << 20,
            used: 1 << 20,
            problem: problem.map(str::to_owned),
        };
        let survey = Survey {
            primary: "m:1".to_owned(),
            version: "2.9.4".to_owned(),
            safe_mode: false,
            clock_ahead_ms: 0,
            workers: vec![worker(1, None), worker(2, Some("connection refused"))],
            live: 2,
        };
        let findings = found(&survey, &AlluxioOptions::default());
        let problems: Vec<_> =
            findings.iter().filter(|finding| finding.verdict == Verdict::Problem).collect();
        assert_eq!(problems.len(), 1, "{findings:?}");
        assert!(problems[0].text.contains("w:2: connection refused"));
        assert!(findings.iter().any(|finding| finding.text == "2 live, 2 of 4 MiB in use"));
    }
}
