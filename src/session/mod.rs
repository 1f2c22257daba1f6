//! The kernel's side: mounts through libfuse 2 or 3, receives requests on many threads and answers them from
//! a [`Vfs`]. Knows nothing of backends, configuration or daemons.
//!
//! One request, top to bottom: a worker of the `pool` receives it by its port of the `transport`; libfuse
//! (`ffi`) decodes it and calls back on the same thread (`shims`, `serve`); `answer` runs it and replies.
//!
//! Lock order: the pool's workers, then a request's interrupt. libfuse's own locks come first where it calls
//! us (an interrupt), and are not held where it calls back with a request.

mod abi;
mod answer;
mod buffer;
mod current;
mod dirents;
mod errno;
mod ffi;
mod ffi2;
mod ffi3;
mod init;
mod interrupts;
mod notify;
mod pool;
mod serve;
mod shims;
mod stderr;
mod transport;
mod unmount;
mod wall;

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::time::Duration;

use fuse_sys::Library;
use fuse_sys::OpenError;
use log::debug;
use log::info;
use log::warn;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use self::buffer::Buffer;
use self::ffi::Mounted;
use self::ffi::Refused;
use self::ffi::Shared;
use self::init::Wishes;
use self::pool::Limits;
use self::pool::Pool;
use self::pool::Service;
use self::transport::Port;
use self::transport::Transport;
use self::unmount::Place;
use crate::vfs::Vfs;

pub use fuse_sys::Choice as LibraryChoice;

/// How to mount.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Which libfuse.
    pub library: LibraryChoice,
    /// Where: a directory.
    pub mount_point: PathBuf,
    /// Shown as the source in the table of mounts.
    pub fs_name: String,
    /// Shown as the type, after `fuse.`.
    pub subtype: String,
    /// Words for libfuse and the kernel: `allow_other`, `default_permissions`, `ro`, `nosuid` and so on. Those that
    /// only concern the loop are heeded or have no meaning here; unknown ones make the mount fail.
    pub kernel_options: Vec<String>,
    /// Workers that may wait for a request once it has been quiet for a while.
    pub max_idle_threads: usize,
    /// Workers at a time. A worker that waits for the network holds one request, and interrupts need a free worker,
    /// so this is large.
    pub max_threads: usize,
    /// How long surplus workers stay after the last shortage.
    pub linger: Duration,
    /// A clone of `/dev/fuse` for each worker.
    pub clone_fd: bool,
    /// Most bytes of one read, if less than the kernel's own limit.
    pub max_read: Option<u32>,
    /// Most bytes of one write.
    pub max_write: u32,
    /// Most bytes of read-ahead, if less than the kernel's own limit.
    pub max_readahead: Option<u32>,
    /// Most requests at a time that nobody waits for.
    pub max_background: Option<u16>,
    /// From how many of them on the kernel holds back.
    pub congestion_threshold: Option<u16>,
    /// Have libfuse print each request.
    pub debug: bool,
}

impl SessionOptions {
    /// The defaults, for `mount_point`.
    pub fn new(mount_point: impl Into<PathBuf>) -> Self {
        Self {
            library: LibraryChoice::TwoThenThree,
            mount_point: mount_point.into(),
            fs_name: "alluxio-fuse".to_owned(),
            subtype: "alluxio-fuse".to_owned(),
            kernel_options: Vec::new(),
            max_idle_threads: 64,
            max_threads: 512,
            linger: Duration::from_secs(5),
            clone_fd: false,
            max_read: None,
            max_write: MAX_WRITE,
            max_readahead: None,
            max_background: None,
            congestion_threshold: None,
            debug: false,
        }
    }

    /// The words that this library is to be given.
    fn words(&self, library: Library) -> Vec<String> {
        let mut words = vec![format!("fsname={}", self.fs_name), format!("subtype={}", self.subtype)];
        words.extend(self.max_read.map(|len| format!("max_read={len}")));
        words.extend(self.debug.then(|| "debug".to_owned()));
        let understood = |word: &&String| {
            let word = word.as_str();
            let only_2 = ONLY_LIBFUSE_2.contains(&word) && matches!(library, Library::V3(_));
            !only_2 && !SETTLED_HERE.contains(&word)
        };
        words.extend(self.kernel_options.iter().filter(understood).cloned());
        words
    }

    fn wishes(&self, library: Library) -> Wishes {
        let mut flags = Wishes::FLAGS;
        if matches!(library, Library::V3(_)) {
            flags |= Wishes::PLUS_FLAGS;
        }
        if self.kernel_options.iter().any(|word| word == "sync_read") {
            flags = Wishes::sync_read(flags);
        }
        let max_background = self.max_background.unwrap_or(MAX_BACKGROUND);
        Wishes {
            flags,
            max_write: self.max_write.clamp(LEAST_WRITE, MAX_WRITE),
            max_readahead: self.max_readahead,
            max_background,
            congestion_threshold: self
                .congestion_threshold
                .unwrap_or(max_background / 4 * 3)
                .min(max_background),
        }
    }
}

/// The most that the kernel takes without a changed `fs.fuse.max_pages_limit`.
const MAX_WRITE: u32 = 1 << 20;

/// The kernel's own lower limit.
const LEAST_WRITE: u32 = 4096;

/// The kernel's default of 12 leaves a fast network idle under read-ahead.
const MAX_BACKGROUND: u16 = 64;

/// Options of libfuse 2 that version 3 does without, as it always acts like that.
const ONLY_LIBFUSE_2: &[&str] = &["nonempty", "large_read"];

/// Options of the library's loop and INIT, both of which are ours. They have no effect, but `sync_read`.
const SETTLED_HERE: &[&str] = &[
    "async_read",
    "sync_read",
    "big_writes",
    "atomic_o_trunc",
    "no_remote_lock",
    "no_remote_flock",
    "no_remote_posix_lock",
    "splice_read",
    "splice_write",
    "splice_move",
    "no_splice_read",
    "no_splice_write",
    "no_splice_move",
];

/// Why a directory could not be mounted.
#[derive(Debug)]
pub enum MountError {
    /// No libfuse to work with.
    Library(OpenError),
    /// The kernel has no FUSE, or this container is not given it.
    NoDevice(io::Error),
    /// The mount point is not a directory that can be used.
    MountPoint(PathBuf, io::Error),
    /// libfuse refused; what it said.
    Refused(String),
    /// Something else that should not fail.
    Failed(&'static str, io::Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(err) => err.fmt(out),
            Self::NoDevice(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    out,
                    "{} may not be opened, try `--device {0}` for a container: {err}",
                    transport::DEVICE
                )
            }
            Self::NoDevice(err) => {
                let device = transport::DEVICE;
                write!(
                    out,
                    "{device} not found, try `modprobe fuse`, or `--device {device}` for a container: {err}"
                )
            }
            Self::MountPoint(path, err) => {
                write!(out, "mount point {} cannot be used: {err}", path.display())?;
                match err.kind() {
                    io::ErrorKind::NotConnected => {
                        write!(out, ", its daemon has ended, try `fusermount -u {}`", path.display())
                    }
                    _ => Ok(()),
                }
            }
            Self::Refused(said) => {
                write!(out, "libfuse refused to mount: {}", said.replace('\n', "; "))?;
                out.write_str(cure(said))
            }
            Self::Failed(what, err) => write!(out, "{what}: {err}"),
        }
    }
}

/// What helps against the common refusals.
fn cure(said: &str) -> &'static str {
    let cures = [
        ("user_allow_other", ""),
        ("is not empty", ", try `-o nonempty`"),
        ("Operation not permitted", ", try as root, or `--cap-add SYS_ADMIN` for a container"),
        ("exec fusermount3", ", try `apt-get install fuse3`"),
        ("exec fusermount", ", try `apt-get install fuse3` or `apt-get install fuse`"),
        ("fusermount3: not found", ", try `apt-get install fuse3`"),
    ];
    cures.iter().find(|(sign, _)| said.contains(sign)).map_or("", |(_, cure)| cure)
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Library(err) => Some(err),
            Self::NoDevice(err) | Self::MountPoint(_, err) | Self::Failed(_, err) => Some(err),
            Self::Refused(_) => None,
        }
    }
}

/// A mounted file system. Dropped, it is unmounted.
///
/// The fields go in their order: what holds the device open, then what unmounts, then the check that it worked.
pub struct Session {
    device: Arc<OwnedFd>,
    live: Arc<Live>,
    end: End,
    limits: Limits,
    /// For stoppers; the pool belongs to `run`.
    pool: Arc<OnceLock<Weak<Pool>>>,
    library: String,
}

/// What workers use.
struct Live {
    /// Goes before `mounted`: it holds the device open.
    transport: Box<dyn Transport>,
    mounted: Mounted,
    max_write: usize,
}

/// Leaves no mount behind when it is dropped.
struct End(Place);

impl Session {
    /// Mounts, and agrees with the kernel on how to go on. Requests wait until [`Self::run`].
    pub fn mount(options: &SessionOptions, vfs: Arc<Vfs>) -> Result<Self, MountError> {
        wall::install_hook();
        let library = fuse_sys::open(options.library).map_err(MountError::Library)?;
        check_device().map_err(MountError::NoDevice)?;
        let path = check_mount_point(&options.mount_point)
            .map_err(|err| MountError::MountPoint(options.mount_point.clone(), err))?;
        let name = format!("libfuse {} ({})", library.version(), library.file().display());
        info!("Loaded libjnifuse with libfuse version {}.", library.version().major);
        info!("Using {name}");

        let shared = Arc::new(Shared { vfs, max_read: options.max_read.unwrap_or(0) });
        let words = options.words(library);
        debug!("Mounting {} with options {}", path.display(), words.join(","));
        let (outcome, said) = stderr::captured(|| Mounted::mount(library, &path, &words, shared));
        let mounted = outcome.map_err(|Refused| MountError::Refused(said.clone()))?;
        said.lines().for_each(|line| warn!("libfuse says: {line}"));

        let place = Place::find(&path).and_then(|place| {
            place.ok_or_else(|| io::Error::other("the new mount is not in the table of mounts"))
        });
        let place = place.map_err(|err| MountError::MountPoint(path, err))?;
        Self::establish(options, library, mounted, place, name)
            .map_err(|err| MountError::Failed("cannot agree with the kernel on the mount", err))
    }

    /// From a mount to one that can be served.
    fn establish(
        options: &SessionOptions,
        library: Library,
        mut mounted: Mounted,
        place: Place,
        name: String,
    ) -> io::Result<Self> {
        let wishes = options.wishes(library);
        let max_write = usize::try_from(wishes.max_write).expect("at most a megabyte");
        init::negotiate(&mounted, &wishes, &mut Buffer::new(max_write)?)?;
        let device = Arc::new(mounted.fd().try_clone_to_owned()?);
        let transport = transport::choose(&mut mounted, &device, options.clone_fd);
        let limits = Limits {
            max_threads: options.max_threads,
            max_idle: options.max_idle_threads,
            linger: options.linger,
        };
        let live = Arc::new(Live { transport, mounted, max_write });
        Ok(Self { device, live, end: End(place), limits, pool: Arc::default(), library: name })
    }

    /// Serves until the file system is unmounted, from wherever. Afterwards no worker is left and no mount.
    pub fn run(self) -> io::Result<()> {
        let pool = Pool::start(Arc::clone(&self.live) as Arc<dyn Service>, self.limits)?;
        self.pool.set(Arc::downgrade(&pool)).expect("a session runs once, as running consumes it");
        let path = self.end.0.path().display().to_string();
        info!("Serving {path}");
        let outcome = pool.wait();
        drop(pool);
        drop(self);
        info!("The mount at {path} has ended");
        outcome
    }

    /// What ends the session from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            place: self.end.0.clone(),
            device: Arc::downgrade(&self.device),
            pool: Arc::clone(&self.pool),
        }
    }

    /// The library in use, its version and file.
    pub fn library(&self) -> &str {
        &self.library
    }
}

impl Service for Live {
    fn join(&self) -> io::Result<(Box<dyn Port>, Buffer)> {
        Ok((self.transport.port()?, Buffer::new(self.max_write)?))
    }

    fn process(&self, request: &mut [u8], port: &dyn Port) {
        self.mounted.process(request, port.reply_fd());
    }

    fn ended(&self) {
        self.mounted.exit();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        unmount::leave_nothing(&self.0);
    }
}

/// How urgent the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Unmount if nobody uses the file system; `EBUSY` if somebody does.
    Soft,
    /// Whoever uses it gets errors from now on, and requests under way are interrupted.
    Force,
}

/// Ends a session from outside of [`Session::run`], which then returns.
#[derive(Clone)]
pub struct Stopper {
    place: Place,
    /// Gone when the session is.
    device: Weak<OwnedFd>,
    pool: Arc<OnceLock<Weak<Pool>>>,
}

impl Stopper {
    /// Unmounts. All is well if it was unmounted before. Must not be called by a worker.
    pub fn stop(&self, how: Stop) -> io::Result<()> {
        match how {
            Stop::Soft => self.place.unmount(),
            Stop::Force => self.force(),
        }
    }

    fn force(&self) -> io::Result<()> {
        // The connection lives on where somebody detached the mount while files were open.
        let aborted = if self.is_connected() { self.place.abort() } else { Ok(()) };
        let detached = self.place.detach();
        if let Some(pool) = self.pool.get().and_then(Weak::upgrade) {
            pool.cancel_all();
        }
        aborted.and(detached)
    }

    /// Whether the kernel may still send requests.
    fn is_connected(&self) -> bool {
        let Some(device) = self.device.upgrade() else { return false };
        let mut polled = [PollFd::new(device.as_fd(), PollFlags::empty())];
        let asked = poll(&mut polled, PollTimeout::ZERO);
        asked.is_ok() && !polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }
}

/// Whether mounting can work at all.
fn check_device() -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(transport::DEVICE).map(drop)
}

/// The mount point as the table of mounts will show it.
fn check_mount_point(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    if path.is_dir() { Ok(path) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_gets_the_words_that_it_knows() {
        let options = SessionOptions {
            kernel_options: ["allow_other", "nonempty", "big_writes", "sync_read"]
                .map(str::to_owned)
                .to_vec(),
            max_read: Some(65536),
            ..SessionOptions::new("/mnt")
        };
        let library = |choice| fuse_sys::open(choice).unwrap();
        let common = ["fsname=alluxio-fuse", "subtype=alluxio-fuse", "max_read=65536", "allow_other"];
        assert_eq!(options.words(library(LibraryChoice::Only3)), common);
        assert_eq!(options.words(library(LibraryChoice::Only2)), [&common[..], &["nonempty"]].concat());
    }

    #[test]
    fn sizes_stay_within_what_the_kernel_takes() {
        let library = fuse_sys::open(LibraryChoice::Only3).unwrap();
        let wishes = |max_write, max_background| {
            SessionOptions { max_write, max_background, ..SessionOptions::new("/mnt") }.wishes(library)
        };
        assert_eq!(wishes(1, None).max_write, 4096);
        assert_eq!(wishes(u32::MAX, None).max_write, 1 << 20);
        assert_eq!(wishes(1, Some(12)).congestion_threshold, 9);
        assert_eq!(wishes(1, None).congestion_threshold, 48);
    }

    #[test]
    fn a_refusal_is_one_line_with_a_cure() {
        let refused =
            MountError::Refused("fuse: failed to exec fusermount3: No such file\nmore".replace("\\n", "\n"));
        assert!(refused.to_string().ends_with("try `apt-get install fuse3`"), "{refused}");
        let missing = MountError::NoDevice(io::ErrorKind::NotFound.into());
        assert!(missing.to_string().contains("modprobe fuse"), "{missing}");
    }

    #[test]
    fn a_mount_point_must_be_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(check_mount_point(file.path()).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(check_mount_point(Path::new("/no/such/dir")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
