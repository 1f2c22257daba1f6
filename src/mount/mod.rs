//! The life of a mount: from settings to a backend, a `Vfs` and a session, in the foreground or the background, until
//! a signal or an unmount ends it. The only place that knows all layers.

mod alluxio_options;
mod background;
mod cluster;
mod control;
mod daemons;
mod data_cache;
mod doctor;
mod ending;
mod failure;
mod figures;
mod fuse_conf;
mod heap;
mod insight;
mod launch;
mod log_file;
mod log_fold;
mod log_level;
mod log_terminal;
mod logging;
mod memory;
mod pid_file;
mod point;
mod presence;
mod process;
mod registry;
mod shown_as;
mod signals;
mod systemd;
mod table;
mod tracing;
mod unmount;
mod users;
mod web;

pub use background::Handshake;
pub use cluster::add_cluster_defaults;
pub use control::*;
pub use doctor::Finding;
pub use doctor::Verdict;
pub use doctor::examine;
pub use failure::Failure;
pub use launch::Launch;
pub use logging::LOG_FILE;
pub use logging::OUT_FILE;
pub use logging::set_level;
pub use logging::time_of_day;
pub use point::resolve;
pub use process::Process;
pub use registry::Record;
pub use registry::Registry;
pub use table::TYPE;
pub use unmount::Outcome;
pub use unmount::kill;
pub use unmount::unmount;
pub use users::User;
pub use users::users;

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
use nix::sys::statfs::statfs;

use crate::backend::alluxio::AlluxioFs;
use crate::backend::alluxio::OwnerPolicy;
use crate::backend::local::LocalFs;
use crate::backend::local::NewOwner;
use crate::cache::MetadataCache;
use crate::cache::MetadataOptions;
use crate::config::Config;
use crate::config::Libfuse;
use crate::config::MountOptions;
use crate::config::PageCache;
use crate::config::keys;
use crate::fs::Ctx;
use crate::fs::FileKind;
use crate::fs::FileSystem;
use crate::fs::FsPath;
use crate::fs::Memory;
use crate::session::LibraryChoice;
use crate::session::Session;
use crate::session::SessionOptions;
use crate::session::Stop;
use crate::vfs;
use crate::vfs::Vfs;
use crate::vfs::VfsOptions;
use cluster::Watch;
use control::Inspected;
use ending::Ending;
use figures::Parts;
use heap::Heap;
use log_file::Reopen;
use pid_file::PidFile;
use point::Conditions;
use point::State;
use presence::Presence;
use shown_as::Mask;
use shown_as::shown_as;
use signals::Caught;
use signals::Signals;

/// How long files that are being written may take to be completed when the mount ends.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Everything that is decided before anything is done.
pub struct Plan {
    config: Config,
    options: MountOptions,
    point: PathBuf,
    root: Root,
    logs: PathBuf,
    pid_file: Option<PathBuf>,
    fs_name: Option<String>,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    /// A path of the cluster.
    Alluxio(FsPath),
    /// A directory of this machine, by its path without links.
    Store(PathBuf),
}

/// One line of the list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who serves it, if it is one of this user's.
    pub pid: Option<i32>,
    /// Where it is.
    pub point: PathBuf,
    /// What it shows, if that is known.
    pub path: Option<String>,
}

impl Plan {
    /// Reads the plan out of the settings. Looks at the machine, but changes nothing.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let options = config.mount_options()?;
        let text = config.text(&keys::FUSE_MOUNT_POINT);
        if text.trim().is_empty() {
            return Err(Failure::new(format!(
                "{} should be set and should not be empty",
                keys::FUSE_MOUNT_POINT.name
            )));
        }
        let point =
            resolve(Path::new(text)).map_err(|err| Failure::because(format!("mount point {text}"), err))?;
        let root = Root::parse(config.text(&keys::FUSE_ALLUXIO_PATH))?;
        let logs = config.logs_dir();
        let logs = std::path::absolute(&logs).unwrap_or(logs);
        Ok(Self { config, options, point, root, logs, pid_file: None, fs_name: None })
    }

    /// The number of the process that serves the mount is to be in `file` while it does.
    #[must_use]
    pub fn with_pid_file(mut self, file: Option<PathBuf>) -> Self {
        self.pid_file = file.map(|file| std::path::absolute(&file).unwrap_or(file));
        self
    }

    /// The source in the list of mounts is `name`, unless the mount options name one.
    #[must_use]
    pub fn with_fs_name(mut self, name: Option<String>) -> Self {
        self.fs_name = name;
        self
    }

    /// Where the mount will be: absolute and without links.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What it will show, as the user wrote it.
    pub fn path(&self) -> &str {
        self.config.text(&keys::FUSE_ALLUXIO_PATH)
    }

    /// Directory of the logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where the number of the process is kept.
    pub fn pid_file(&self) -> Option<&Path> {
        self.pid_file.as_deref()
    }

    fn debug(&self) -> bool {
        self.options.debug || self.config.flag(&keys::FUSE_DEBUG)
    }

    fn fs_name(&self) -> &str {
        let name = self.options.fs_name.as_deref().or(self.fs_name.as_deref());
        name.unwrap_or_else(|| self.config.text(&keys::FUSE_FS_NAME))
    }

    fn subtype(&self) -> &str {
        self.options.subtype.as_deref().unwrap_or_else(|| self.config.text(&keys::FUSE_FS_NAME))
    }

    /// Refuses what cannot be mounted at, and cleans up a dead mount, which is the first thing that changes.
    fn prepare(&self, registry: &Registry) -> Result<(), Failure> {
        fuse_conf::check(&self.options.kernel_words)?;
        let fs_type = format!("fuse.{}", self.subtype());
        let store = match &self.root {
            Root::Store(dir) => Some(dir.as_path()),
            Root::Alluxio(_) => None,
        };
        let conditions = Conditions { nonempty: self.options.nonempty, fs_type: &fs_type, store };
        let mut state = point::check(&self.point, &conditions, registry)?;
        while state == State::Dead {
            unmount::clean_up(&self.point)?;
            state = point::check(&self.point, &conditions, registry)?;
        }
        Ok(())
    }

    fn session_options(&self) -> SessionOptions {
        let options = &self.options;
        let defaults = SessionOptions::new(&self.point);
        let count = |number: u32| usize::try_from(number).expect("Linux has no machines of 16 bits");
        let mut kernel_options = options.kernel_words.clone();
        kernel_options.extend(options.nonempty.then(|| "nonempty".to_owned()));
        SessionOptions {
            library: match self.config.libfuse() {
                Libfuse::Only2 => LibraryChoice::Only2,
                Libfuse::Only3 => LibraryChoice::Only3,
                Libfuse::Either => LibraryChoice::TwoThenThree,
            },
            fs_name: self.fs_name().to_owned(),
            subtype: self.subtype().to_owned(),
            kernel_options,
            max_idle_threads: count(options.max_idle_threads),
            max_threads: options.max_threads.map_or(defaults.max_threads, count),
            clone_fd: options.clone_fd,
            io_uring: options.io_uring,
            libfuse_loop: options.libfuse_loop,
            max_read: options.max_read,
            max_write: options.max_write.unwrap_or(defaults.max_write),
            max_readahead: options.max_readahead,
            max_background: options.max_background,
            congestion_threshold: options.congestion_threshold,
            passthrough: self.config.flag(&keys::FUSE_PASSTHROUGH),
            over_stacked: self.root.is_on_overlay(),
            slow: self.config.duration(&keys::FUSE_LOGGING_THRESHOLD),
            debug: self.debug(),
            ..defaults
        }
    }

    fn vfs_options(&self) -> VfsOptions {
        VfsOptions {
            page_cache: match self.options.page_cache {
                PageCache::DirectIo => vfs::PageCache::DirectIo,
                PageCache::KernelCache => vfs::PageCache::KernelCache,
                PageCache::AutoCache => vfs::PageCache::AutoCache,
                PageCache::Default => vfs::PageCache::DropOnOpen,
            },
            attr_timeout: self.options.attr_timeout,
            entry_timeout: self.options.entry_timeout,
            negative_timeout: self.options.negative_timeout,
            commands: self.config.flag(&keys::FUSE_SPECIAL_COMMANDS),
        }
    }

    /// The cache of metadata that the settings ask for.
    fn metadata_cache(&self, below: Arc<dyn FileSystem>) -> Result<Option<MetadataCache>, Failure> {
        if !self.config.flag(&keys::USER_METADATA_CACHE) {
            return Ok(None);
        }
        let size = &keys::USER_METADATA_CACHE_SIZE;
        let entries = usize::try_from(self.config.int(size)).expect("checked to be none that is negative");
        if entries == 0 {
            return Err(Failure::new(format!(
                "{} ({}) should not be zero if {} ({}) is true",
                size.name,
                self.config.origin(size),
                keys::USER_METADATA_CACHE.name,
                self.config.origin(&keys::USER_METADATA_CACHE)
            )));
        }
        let expiry = self.config.duration(&keys::USER_METADATA_CACHE_EXPIRATION);
        log::info!("Metadata cache: {entries} entries, each for {expiry:?}");
        Ok(Some(MetadataCache::new(below, MetadataOptions::new(entries, expiry))))
    }
}

impl Root {
    /// An absolute path is one of the cluster, `file:///dir` a directory of this machine, taken literally.
    fn parse(text: &str) -> Result<Self, Failure> {
        let refuse = |what: &str| {
            Err(Failure::new(format!(
                "path {text} {what}: give a path of the cluster such as /people, or a directory of this machine as \
                 file:///dir"
            )))
        };
        match text.split_once(':') {
            Some(("file", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                dir if dir.starts_with('/') => Self::store(Path::new(dir)),
                _ => refuse("names another machine or no absolute directory"),
            },
            Some((scheme, rest)) if rest.starts_with("//") && !scheme.contains('/') => {
                refuse("has a scheme that cannot be mounted")
            }
            _ => match FsPath::parse(text) {
                Ok(path) => Ok(Self::Alluxio(path)),
                Err(problem) => refuse(&format!("cannot be mounted ({problem})")),
            },
        }
    }

    /// What tells the backend from others whose files may have the same numbers.
    fn origin(&self, config: &Config) -> String {
        match self {
            Self::Store(dir) => format!("file://{}", dir.display()),
            Self::Alluxio(_) => {
                let keys = [&keys::MASTER_RPC_ADDRESSES, &keys::MASTER_JOURNAL_ADDRESSES];
                let names: Vec<String> = keys.iter().map(|key| config.list(key).join(",")).collect();
                let host = config.optional_text(&keys::MASTER_HOSTNAME).unwrap_or_default();
                format!("alluxio://{};{host}:{}", names.join(";"), config.int(&keys::MASTER_RPC_PORT))
            }
        }
    }

    /// Whether its files lie on overlayfs. A worker's are rather in memory or on a disk.
    fn is_on_overlay(&self) -> bool {
        match self {
            Self::Alluxio(_) => false,
            Self::Store(dir) => statfs(dir).is_ok_and(|stat| stat.filesystem_type() == OVERLAYFS_SUPER_MAGIC),
        }
    }

    fn store(dir: &Path) -> Result<Self, Failure> {
        let what = || format!("directory {}", dir.display());
        let found = dir.canonicalize().map_err(|err| Failure::because(what(), err))?;
        if !found.is_dir() {
            return Err(Failure::new(format!("{} is not a directory but a file", what())));
        }
        Ok(Self::Store(found))
    }
}

/// Refuses what cannot work before anything is started: a mount point that cannot be used, or logs that cannot be
/// written. A dead mount that is in the way is cleaned up.
pub fn prepare(plan: &Plan) -> Result<(), Failure> {
    plan.prepare(&Registry::open(&plan.config.runtime_dirs())?)?;
    logging::open(&plan.logs, LOG_FILE).map(drop)
}

/// Makes the directory to mount at, if it is missing: whether it was.
pub fn make_point(plan: &Plan) -> Result<bool, Failure> {
    match plan.point.symlink_metadata() {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
        // Whatever else is wrong with it is found by who prepares the mount.
        _ => return Ok(false),
    }
    let shown = plan.point.display();
    let failed =
        |err| Failure::because(format!("mount point {shown} does not exist and cannot be made"), err);
    std::fs::create_dir_all(&plan.point).map_err(failed)?;
    Ok(true)
}

/// Ends the mount of this user that is already at the plan's mount point, as Alluxio's script does before each mount,
/// and returns its process.
pub fn end_previous(plan: &Plan, limit: Duration) -> Result<Option<i32>, Failure> {
    let registry = Registry::open(&plan.config.runtime_dirs())?;
    if !registry.mounts()?.iter().any(|record| record.point == plan.point) {
        return Ok(None);
    }
    match unmount(&plan.point, &registry, limit)? {
        Outcome::Ended { pid } | Outcome::Killed { pid } => Ok(Some(pid)),
        Outcome::Removed | Outcome::NotMounted | Outcome::Foreign(_) => Ok(None),
        Outcome::Busy { pid } => Err(Failure::new(format!(
            "{point} is already mounted by process {pid}, which has not ended within {} seconds, run \
             `alluxio-fuse unmount -f {point}` first",
            limit.as_secs(),
            point = plan.point.display()
        ))),
    }
}

/// Mounts in a process of its own and returns when the mount answers, at most after `limit`. `arguments` are what
/// makes this program call [`serve`] with an equal plan and [`Launch::Command`].
pub fn start(plan: &Plan, arguments: &[OsString], limit: Duration) -> Result<(), Failure> {
    background::start(arguments, &plan.point, &plan.logs, limit)
}

/// Mounts, and returns when the mount has ended. Errors come before there is a mount, or as it ends.
pub fn serve(mut plan: Plan, launch: &Launch) -> Result<(), Failure> {
    let signals = Signals::catch().map_err(|err| Failure::because("cannot wait for signals", err))?;
    let registry = Registry::open(&plan.config.runtime_dirs())?;
    plan.prepare(&registry)?;
    let terminal = matches!(launch, Launch::Terminal(_));
    let file = logging::open_log(&plan.logs)?;
    let reopen = file.reopen();
    let _logging = logging::start(file, terminal, plan.debug());
    let outcome = serve_logged(&mut plan, &registry, launch, signals, reopen);
    match &outcome {
        Ok(()) => log::info!("{} is unmounted", plan.point.display()),
        Err(failure) => log::error!("Failed to launch FUSE: {failure}"),
    }
    outcome
}

fn serve_logged(
    plan: &mut Plan,
    registry: &Registry,
    launch: &Launch,
    mut signals: Signals,
    reopen: Reopen,
) -> Result<(), Failure> {
    log::info!("alluxio-fuse version: {}", env!("CARGO_PKG_VERSION"));
    for (level, note) in plan.config.take_notes() {
        log::log!(level, "{note}");
    }
    if !plan.options.without_effect.is_empty() {
        log::info!("mount options without effect: {}", plan.options.without_effect.join(","));
    }
    raise_open_files();
    heap::set_up();
    // The last one goes first.
    let _tracing = tracing::start(plan);
    let Built { fs, cluster, watch: _watch } = backend(plan)?;
    // The cluster may have asked for it.
    if plan.debug() {
        logging::start_debug();
    }
    let cached = data_cache::from_config(&plan.config, plan.root.origin(&plan.config))?;
    warn_of_open_doors(&plan.options);
    // Nothing is looked for by a relative path from here on, and no directory is to be kept busy.
    std::env::set_current_dir("/").map_err(|err| Failure::because("/", err))?;

    let port = web::Port::take(&plan.config)?;
    // Two mounts at the same point must not both find it free.
    let lock = registry.lock()?;
    plan.prepare(registry)?;
    let behind = Arc::clone(&fs);
    // Only when the mount that was here before has let go of its directories.
    let (fs, data) = data_cache::over(fs, cached, cluster.as_ref().map(|cluster| cluster.allowance()))?;
    let (fs, memory) = match plan.metadata_cache(Arc::clone(&fs))? {
        Some(cache) => {
            let memory = cache.memory();
            (Arc::new(cache) as Arc<dyn FileSystem>, Some(memory))
        }
        None => (fs, None),
    };
    let MountOptions { uid, gid, umask, .. } = plan.options;
    let vfs = Vfs::new(shown_as(Mask { uid, gid, umask }, fs), plan.vfs_options());
    let vfs = Arc::new(vfs.with_memory(memory, data.clone().map(|data| data as Arc<dyn Memory>)));
    log::info!(
        "Mounting {}: mount point=\"{}\", OPTIONS=\"{}\"",
        plan.path(),
        plan.point.display(),
        plan.config.text(&keys::FUSE_MOUNT_OPTIONS)
    );
    launch.mounting();
    signals.mounting();
    let session = Session::mount(&plan.session_options(), Arc::clone(&vfs))
        .map_err(|err| Failure::new(err.to_string()))?;
    let registration = registry
        .add(&plan.point, plan.path())
        .map_err(|err| Failure::because("cannot record the mount", err))?;
    let pid_file = plan.pid_file.as_deref().map(PidFile::write).transpose()?;
    drop(lock);
    let parts = Parts { vfs: Arc::clone(&vfs), data: data.clone(), cluster: cluster.clone() };
    let patience = plan.config.optional_duration(&keys::FUSE_UMOUNT_TIMEOUT).unwrap_or_default();
    let mut ending = Ending::new(session.stopper(), Arc::clone(&vfs), plan.point.clone(), patience);
    let finishing = ending.finishing();
    let inspected = Inspected {
        point: plan.point.clone(),
        path: plan.path().to_owned(),
        since: Instant::now(),
        activity: session.activity(),
        vfs: Arc::clone(&vfs),
        data,
        cluster,
    };
    let dirs = plan.config.runtime_dirs();
    let presence = Arc::new(Presence::begin(dirs, registry, registration, inspected.clone()));
    let (present, cluster) = (Arc::clone(&presence), parts.cluster.clone());
    let mut heap = Heap::default();
    let also = move || {
        present.renew();
        heap.rest(cluster.as_ref().map_or(0, |cluster| cluster.memory().held()));
    };
    let insight = insight::start(&plan.config, port, plan.point.clone(), behind, parts, also)?;
    let at_terminal = launch.is_at_terminal();
    let received = move |signal| {
        let name = match signal {
            Caught::Quit => {
                inspected.log();
                return;
            }
            // The terminal is gone; a process without one is told to look after its log.
            Caught::Hup if !at_terminal => {
                reopen.request();
                log::info!("Receive signal name HUP, the log is opened again");
                return;
            }
            Caught::Usr1 => return drop(set_level("root", "debug")),
            Caught::Usr2 => return logging::reset_level(),
            Caught::Hup => "HUP, number 1",
            Caught::Int => "INT, number 2",
            Caught::Term => "TERM, number 15",
        };
        log::info!("Receive signal name {name}, system exiting");
        ending.request();
    };
    signals.call(received);
    let stopper = session.stopper();
    let serving = session.start().map_err(|err| Failure::because("cannot start workers", err))?;
    let abandoned = move || {
        if let Err(err) = stopper.stop(Stop::Force) {
            log::error!("{err}");
        }
    };
    launch.mounted(abandoned);
    systemd::ready(plan.path(), &plan.point);

    let outcome = serving.wait();
    finishing();
    systemd::stopping(&plan.point);
    let registration = presence.close();
    let unfinished = vfs.finish(FINISH_LIMIT);
    if unfinished > 0 {
        log::error!("{unfinished} files could not be completed");
    }
    drop(insight);
    drop(pid_file);
    drop(registration);
    drop(signals);
    outcome.map_err(|err| Failure::new(err.to_string()))
}

/// What the plan asks for.
struct Built {
    fs: Arc<dyn FileSystem>,
    /// The same, if it is a cluster.
    cluster: Option<Arc<AlluxioFs>>,
    /// Keeps its settings up to date.
    watch: Option<Watch>,
}

/// The file system that the plan asks for, with its root looked at, and what keeps its settings up to date.
fn backend(plan: &mut Plan) -> Result<Built, Failure> {
    let (mut watch, mut cluster) = (None, None);
    let fs: Arc<dyn FileSystem> = match &plan.root {
        Root::Store(dir) => {
            let owner = match alluxio_options::owner_policy(&plan.config)? {
                OwnerPolicy::LaunchUser { .. } => NewOwner::Process,
                OwnerPolicy::SystemUser => NewOwner::Caller,
                OwnerPolicy::Custom { uid, gid } => NewOwner::Fixed { uid, gid },
            };
            let store = LocalFs::open_for(dir, owner);
            Arc::new(store.map_err(|err| Failure::because(format!("directory {}", dir.display()), err))?)
        }
        Root::Alluxio(path) => {
            let (fs, watching) = cluster::connect(&mut plan.config, path)?;
            warn_without_effect(&plan.config);
            watch = watching;
            cluster = Some(Arc::clone(&fs));
            fs
        }
    };
    // The cluster may have had something to say about the mount.
    plan.options = plan.config.mount_options()?;
    let root = fs.stat(&Ctx::daemon(), &FsPath::root());
    match root.map_err(|err| Failure::from(err.context(format!("path {}", plan.path()))))?.kind {
        FileKind::Directory => Ok(Built { fs, cluster, watch }),
        FileKind::Regular => {
            Err(Failure::new(format!("path {} is a file, only directories can be mounted", plan.path())))
        }
    }
}

/// Says so if somebody counts on what this program does not do.
fn warn_without_effect(config: &Config) {
    let impersonation = config.text(&keys::SECURITY_IMPERSONATION);
    if !["", "_HDFS_USER_", "_NONE_"].contains(&impersonation) {
        log::warn!("Impersonation ignored. Invalid configuration: {impersonation}");
    }
}

/// Says so if permissions are checked for nobody but the user of the mount.
fn warn_of_open_doors(options: &MountOptions) {
    let has = |word: &str| options.kernel_words.iter().any(|known| known == word);
    if has("allow_other") && !has("default_permissions") {
        log::warn!(
            "allow_other without default_permissions: all users of this machine act with the rights of the one who \
             mounts"
        );
    }
}

/// Every connection and open block is a descriptor.
fn raise_open_files() {
    let outcome = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match outcome {
        Ok(hard) => log::info!("up to {hard} open files"),
        Err(errno) => log::warn!("the limit of open files stays as it is: {errno}"),
    }
}

/// All mounts: those of this user with their processes, and those of others as far as they show. Dead ones of this
/// user are left out.
pub fn list(registry: &Registry) -> Result<Vec<Listed>, Failure> {
    let entries = table::read().map_err(|err| Failure::because("/proc/self/mountinfo", err))?;
    let records = registry.mounts()?;
    let is_mounted = |record: &&Record| entries.iter().any(|entry| entry.point == record.point);
    let mut listed: Vec<Listed> = records
        .iter()
        .filter(is_mounted)
        .map(|record| Listed {
            pid: Some(record.process.pid),
            point: record.point.clone(),
            path: Some(record.path.clone()),
        })
        .collect();
    for entry in entries.iter().filter(|entry| entry.fs_type == TYPE) {
        if !listed.iter().any(|mount| mount.point == entry.point) && !point::is_dead(&entry.point) {
            listed.push(Listed { pid: None, point: entry.point.clone(), path: None });
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_cluster_and_of_this_machine_are_told_apart() {
        let path = |text| FsPath::parse(text).unwrap();
        assert_eq!(Root::parse("/people").unwrap(), Root::Alluxio(path("/people")));
        assert_eq!(Root::parse("/a:b//c").unwrap(), Root::Alluxio(path("/a:b/c")));
        let dir = tempfile::tempdir().unwrap();
        let found = dir.path().canonicalize().unwrap();
        for form in ["file://", "file:"] {
            let root = Root::parse(&format!("{form}{}/", dir.path().display())).unwrap();
            assert_eq!(root, Root::Store(found.clone()));
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        for text in
            ["people", "", "/a/../b", "s3://bucket/x", "hdfs://h:9000/", "file://host/dir", "file:dir"]
        {
            let problem = Root::parse(text).unwrap_err().to_string();
            assert!(problem.contains("such as /people"), "{text}: {problem}");
        }
        assert!(Root::parse("file:///no/such/dir").unwrap_err().to_string().contains("No such file"));
        assert!(Root::parse("file:///etc/passwd").unwrap_err().to_string().contains("but a file"));
    }
}
