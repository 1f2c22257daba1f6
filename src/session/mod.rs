//! The kernel's side: mounts through libfuse 2 or 3, receives requests on many threads and answers them from
//! a [`Vfs`]. Knows nothing of backends, configuration or daemons.
//!
//! One request, top to bottom: a worker of the `pool` receives it by its port of the `transport`; libfuse
//! (`ffi`) decodes it and calls back on the same thread (`shims`, `serve`); `answer` runs it and replies.
//!
//! Lock order: the pool's workers, then a request's interrupt. libfuse's own locks come first where it calls
//! us (an interrupt), and are not held where it calls back with a request.

mod abi;
mod activity;
mod answer;
mod arguments;
mod buffer;
mod current;
mod dirents;
mod errno;
mod error;
mod ffi;
mod ffi2;
mod ffi3;
mod init;
mod interrupts;
mod mounted;
mod notify;
mod older;
mod options;
mod passthrough;
mod pool;
mod probe;
mod ring_entry;
mod serve;
mod shims;
mod stderr;
mod transport;
mod unmount;
mod uring;
mod wall;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::thread;

use log::debug;
use log::info;
use log::warn;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use self::buffer::Buffer;
use self::buffer::Spares;
use self::ffi::Refused;
use self::ffi::Shared;
use self::mounted::Mounted;
use self::notify::Notifier;
use self::pool::Limits;
use self::pool::Pool;
use self::pool::Service;
use self::transport::Port;
use self::transport::Transport;
use self::unmount::Place;
use self::uring::Queues;
use crate::metrics;
use crate::metrics::Value;
use crate::vfs::Vfs;

pub use self::activity::Activity;
pub use self::activity::Doing;
pub use self::activity::Event;
pub use self::activity::Listener;
pub use self::activity::Request;
pub use self::activity::Topic;
pub use self::activity::Worker;
pub use self::error::MountError;
pub use self::options::SessionOptions;
#[doc(hidden)]
pub use self::probe::Probe;
#[doc(hidden)]
pub use self::probe::ReadRequest;
pub use fuse_sys::Choice as LibraryChoice;

/// A mounted file system that nobody serves yet. Dropped, it is unmounted.
///
/// The fields go in their order: what holds the device open, then what unmounts, then the check that it worked.
pub struct Session {
    device: Arc<OwnedFd>,
    live: Arc<Live>,
    /// Present if requests come over io_uring.
    queues: Option<Arc<Queues>>,
    end: End,
    limits: Limits,
    /// For stoppers; the pools belong to [`Serving`].
    pools: Pools,
    library: String,
    libfuse_loop: bool,
    activity: Arc<Activity>,
}

/// A mounted file system with its workers. Dropped, it is unmounted.
pub struct Serving {
    /// None if libfuse serves by its own loop. They go before the session: they hold the device open.
    pools: Vec<Arc<Pool>>,
    session: Session,
    _figures: metrics::Registration,
}

/// What workers use.
struct Live {
    /// Goes before `mounted`: it holds the device open.
    transport: Box<dyn Transport>,
    mounted: Mounted,
    spares: Arc<Spares>,
}

/// The workers of one queue of io_uring.
struct Queue {
    live: Arc<Live>,
    queues: Arc<Queues>,
    device: Arc<OwnedFd>,
    number: u16,
}

/// The pools of a session, once it runs: that of the device comes first.
type Pools = Arc<OnceLock<Vec<Weak<Pool>>>>;

/// Leaves no mount behind when it is dropped.
struct End(Place);

/// Each libfuse of this machine, 2 and 3: its version and file, or why it cannot be used.
pub fn libraries() -> [(u32, Result<String, String>); 2] {
    let look = |choice| match fuse_sys::open(choice) {
        Ok(library) => Ok(format!("{} ({})", library.version(), library.file().display())),
        Err(err) => Err(err.to_string()),
    };
    [(2, look(LibraryChoice::Only2)), (3, look(LibraryChoice::Only3))]
}

impl Session {
    /// Mounts, and agrees with the kernel on how to go on. Requests wait until [`Self::start`].
    pub fn mount(options: &SessionOptions, vfs: Arc<Vfs>) -> Result<Self, MountError> {
        wall::install_hook();
        let library = fuse_sys::open(options.library).map_err(MountError::Library)?;
        check_device().map_err(MountError::NoDevice)?;
        let path = check_mount_point(&options.mount_point)
            .map_err(|err| MountError::MountPoint(options.mount_point.clone(), err))?;
        let name = format!("libfuse {} ({})", library.version(), library.file().display());
        info!("Loaded libjnifuse with libfuse version {}.", library.version().major);
        info!("Using {name}");

        let shared = Arc::new(Shared {
            vfs: Arc::clone(&vfs),
            activity: Activity::new(Arc::clone(&vfs)),
            max_read: options.max_read.unwrap_or(0),
            slow: options.slow,
        });
        let words = options.words(library);
        debug!("Mounting {} with options {}", path.display(), words.join(","));
        let (outcome, said) =
            stderr::captured(|| Mounted::mount(library, &path, &words, Arc::clone(&shared)));
        let mounted = outcome.map_err(|Refused| MountError::Refused(said.clone()))?;
        said.lines().for_each(|line| warn!("libfuse says: {line}"));

        let place = Place::find(&path).and_then(|place| {
            place.ok_or_else(|| io::Error::other("the new mount is not in the table of mounts"))
        });
        let place = place.map_err(|err| MountError::MountPoint(path, err))?;
        let session = Self::establish(options, mounted, place, name, &shared)
            .map_err(|err| MountError::Failed("cannot agree with the kernel on the mount", err))?;
        vfs.set_kernel(Arc::new(Notifier(Arc::downgrade(&session.device))));
        Ok(session)
    }

    /// From a mount to one that can be served.
    fn establish(
        options: &SessionOptions,
        mut mounted: Mounted,
        place: Place,
        name: String,
        shared: &Shared,
    ) -> io::Result<Self> {
        let wished = passthrough::is_wished(options);
        let by_other_ways = (options.clone_fd || options.io_uring) && mounted.allow_other_ways_of_reply();
        let queues = uring::wanted(options, by_other_ways);
        let wishes = options.wishes(wished.is_ok(), queues.is_some());
        let max_write = usize::try_from(wishes.max_write).expect("at most a megabyte");
        let spares = Spares::new(max_write);
        let agreed = init::negotiate(&mounted, &wishes, &mut Buffer::new(&spares)?)?;
        if let Some(wanted) = options.max_readahead.filter(|wanted| *wanted > READ_AHEAD_OFFERED) {
            match place.set_read_ahead(wanted) {
                Ok(()) => info!("Read-ahead: {} KiB, as the kernel has been told beside INIT", wanted >> 10),
                Err(err) => warn!("Read-ahead stays as the kernel offers it, max_readahead={wanted}: {err}"),
            }
        }
        let device = Arc::new(mounted.fd().try_clone_to_owned()?);
        passthrough::settle(wished, agreed, &device, &shared.vfs);
        let transport = transport::choose(&device, options.clone_fd, by_other_ways);
        let queues = uring::settle(queues, agreed);
        let limits = Limits {
            first: 1,
            max_threads: options.max_threads,
            max_idle: options.max_idle_threads,
            linger: options.linger,
        };
        let live = Arc::new(Live { transport, mounted, spares });
        let (pools, libfuse_loop) = (Arc::default(), options.libfuse_loop);
        let (activity, end) = (Arc::clone(&shared.activity), End(place));
        Ok(Self { device, live, queues, end, limits, pools, library: name, libfuse_loop, activity })
    }

    /// Starts the workers. When it returns, all of them wait for requests.
    pub fn start(self) -> io::Result<Serving> {
        let pools = if self.libfuse_loop { Vec::new() } else { self.start_pools()? };
        let known = pools.iter().map(Arc::downgrade).collect();
        self.pools.set(known).expect("a session starts once, as that consumes it");
        let figures = tell_figures(Arc::clone(&self.pools), self.end.0.clone());
        let by = if self.libfuse_loop { " by libfuse's own loop" } else { "" };
        info!("Serving {}{by}", self.end.0.path().display());
        Ok(Serving { session: self, pools, _figures: figures })
    }

    /// Starts the workers, and serves until the file system is unmounted.
    pub fn run(self) -> io::Result<()> {
        self.start()?.wait()
    }

    fn start_pools(&self) -> io::Result<Vec<Arc<Pool>>> {
        let counted = Arc::default();
        let device = Pool::start(Arc::clone(&self.live) as Arc<dyn Service>, self.limits, &counted)?;
        let Some(queues) = &self.queues else { return Ok(vec![device]) };
        let (of_queues, failure) = self.start_queues(queues, &counted);
        match failure {
            None => {
                queues.begin();
                Ok(std::iter::once(device).chain(of_queues).collect())
            }
            Some(err) => {
                queues.give_up(self.device.as_fd(), &err);
                // What they take is wanted by those who serve.
                for pool in of_queues {
                    pool.wait()?;
                }
                Ok(vec![device])
            }
        }
    }

    /// A pool for each queue, up to the first that cannot be had in full, and why it cannot.
    fn start_queues(
        &self,
        queues: &Arc<Queues>,
        counted: &Arc<AtomicU64>,
    ) -> (Vec<Arc<Pool>>, Option<io::Error>) {
        let each = queues.share(self.limits.max_threads);
        let limits = Limits { first: each, max_threads: each, max_idle: each, ..self.limits };
        let mut pools = Vec::new();
        for number in 0..queues.count() {
            let (live, device) = (Arc::clone(&self.live), Arc::clone(&self.device));
            let queue = Queue { live, queues: Arc::clone(queues), device, number };
            match Pool::start(Arc::new(queue), limits, counted) {
                Ok(pool) => pools.push(pool),
                Err(err) => return (pools, Some(err)),
            }
            let (started, ..) = pools[pools.len() - 1].figures();
            if started < each {
                let why = format!("queue {number} has {started} threads of {each}, as no more can be had");
                return (pools, Some(io::Error::other(why)));
            }
        }
        (pools, None)
    }

    /// What ends the session from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            place: self.end.0.clone(),
            device: Arc::downgrade(&self.device),
            pools: Arc::clone(&self.pools),
        }
    }

    /// What its workers do.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// One worker more, for benchmarks and tests.
    #[doc(hidden)]
    pub fn probe(&self) -> Probe {
        Probe::new(&self.live)
    }

    /// The library in use, its version and file.
    pub fn library(&self) -> &str {
        &self.library
    }
}

impl Serving {
    /// Serves until the file system is unmounted, from wherever. Afterwards no worker is left and no mount.
    pub fn wait(self) -> io::Result<()> {
        let Session { live, limits, end, libfuse_loop, .. } = &self.session;
        if *libfuse_loop {
            return live.mounted.loop_of_libfuse(limits.max_threads, limits.max_idle);
        }
        let path = end.0.path().display().to_string();
        let wait = |pool: &Pool| wait_for(pool, &self.pools, &end.0);
        let outcome = thread::scope(|scope| {
            let (device, queues) = self.pools.split_first().expect("that of the device is always there");
            let mut waiting = Vec::new();
            for queue in queues {
                let thread = thread::Builder::new().spawn_scoped(scope, move || wait(queue));
                waiting.push(thread.map_err(|_| queue));
            }
            let outcome = wait(device);
            let panicked = |_| Err(io::Error::other("a thread of the session panicked"));
            let ends = waiting.into_iter().map(|queue| match queue {
                Ok(thread) => thread.join().unwrap_or_else(panicked),
                // There was no thread to be had for it: it ends with the device.
                Err(queue) => wait(queue),
            });
            ends.fold(outcome, Result::and)
        });
        drop(self);
        info!("The mount at {path} has ended");
        outcome
    }
}

/// Waits for `pool` to end, and sees to it that the others of the mount at `place` do. It ends with the mount, unless nothing can
/// be received any more by its way.
fn wait_for(pool: &Pool, pools: &[Arc<Pool>], place: &Place) -> io::Result<()> {
    let outcome = pool.wait();
    if outcome.is_err()
        && pools.len() > 1
        && let Err(err) = place.abort()
    {
        warn!("The connection cannot be aborted: {err}");
    }
    pools.iter().for_each(|pool| pool.cancel_all());
    outcome
}

impl Service for Live {
    fn join(&self) -> io::Result<(Box<dyn Port>, Buffer)> {
        Ok((self.transport.port()?, Buffer::new(&self.spares)?))
    }

    fn process(&self, request: &mut [u8], port: &dyn Port) {
        self.mounted.process(request, port.reply_fd());
    }

    fn ended(&self) {
        self.mounted.exit();
    }
}

impl Service for Queue {
    fn join(&self) -> io::Result<(Box<dyn Port>, Buffer)> {
        Ok((self.queues.port(self.number, &self.device)?, Buffer::new(&self.live.spares)?))
    }

    fn process(&self, request: &mut [u8], port: &dyn Port) {
        self.live.process(request, port);
    }

    fn ended(&self) {
        self.live.ended();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        unmount::leave_nothing(&self.0);
    }
}

/// Has the workers of `pools` counted, and what waits for them at `place`.
fn tell_figures(pools: Pools, place: Place) -> metrics::Registration {
    metrics::register(move |all| {
        let each = pools.get().into_iter().flatten().filter_map(Weak::upgrade).map(|pool| pool.figures());
        let sum = each.reduce(|sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
        let Some((threads, idle, most)) = sum else { return };
        let busy = threads - idle;
        let help = "Threads that serve requests of the kernel, by what they do.";
        for (state, count) in [("idle", idle), ("busy", busy)] {
            let labels = vec![("state", state.to_owned())];
            all.sample("alluxio_fuse_worker_threads", help, labels, Value::Gauge(count as f64));
        }
        all.gauge("alluxio_fuse_worker_threads_max", "How many such threads there may be.", most as f64);
        // Of all that the kernel waits for, what a worker has is not in the queue.
        if let Some(waiting) = place.waiting() {
            let queued = waiting.saturating_sub(busy as u64);
            all.gauge(
                "alluxio_fuse_queued_requests",
                "Requests of the kernel that no thread serves yet.",
                queued as f64,
            );
        }
    })
}

/// The most that the kernel reads ahead for FUSE if it is not told otherwise.
const READ_AHEAD_OFFERED: u32 = 128 << 10;

/// How urgent the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Unmount if nobody uses the file system; `EBUSY` if somebody does.
    Soft,
    /// Whoever uses it gets errors from now on, and requests under way are interrupted.
    Force,
}

/// Ends a session from outside of [`Serving::wait`], which then returns.
#[derive(Clone)]
pub struct Stopper {
    place: Place,
    /// Gone when the session is.
    device: Weak<OwnedFd>,
    pools: Pools,
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
        for pool in self.pools.get().into_iter().flatten().filter_map(Weak::upgrade) {
            pool.cancel_all();
        }
        aborted.and(detached)
    }

    /// Whether the kernel may still send requests. It may after an unmount: as long as somebody uses what was detached, or another
    /// mount namespace has a copy of the mount.
    pub fn is_connected(&self) -> bool {
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
    fn a_mount_point_must_be_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(check_mount_point(file.path()).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(check_mount_point(Path::new("/no/such/dir")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
