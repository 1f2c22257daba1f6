//! FUSE over io_uring, from Linux 6.14 on, where `fuse.enable_uring` is set: the kernel gives a request to a thread that waits on
//! the processor of who asks, so that no other processor is woken, and takes a reply and gives the next request in one system
//! call. See `Documentation/filesystems/fuse-io-uring.rst` and `fs/fuse/dev_uring.c` of the kernel.
//!
//! Each possible processor has a queue, and each queue a pool of its own, whose workers have one ring with one entry each: a
//! request that waits for the network then holds up nobody but itself. The pool that reads `/dev/fuse` stays, for what
//! still comes there: FORGET and INTERRUPT, and all until every queue has a worker.
//!
//! All workers of a queue start with the mount, and stay. A request for which there is no free entry is given to one that
//! replies later, not to one that is new: a pool that grows with the need would leave it behind requests that hang. So would a
//! mount that is used while its workers start, as the kernel begins when each queue has one entry: nobody is told of the mount
//! before all have theirs. And an entry cannot be taken back while the mount lives. The kernel takes the free entry that was
//! used last, so that the memory of those that are never needed at a time is never touched.
//!
//! Both ways share the memory of an entry: the request is copied out of it, like by read(2), and the reply into it.
//!
//! An INTERRUPT that is read from the device before its request is known to libfuse is lost if another request comes first: the
//! kernel, asked to send it again, looks among the requests of the device. Nor does the kernel send one for a signal that was
//! pending when the request was given to the ring. Who asked then waits for the reply.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use io_uring::IoUring;
use io_uring::squeue::Entry128;
use log::error;
use log::info;
use log::warn;
use nix::errno::Errno;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::abi::InHeader;
use super::abi::Plain;
use super::buffer::Buffer;
use super::buffer::LEAST;
use super::buffer::page_size;
use super::current;
use super::init::Agreed;
use super::options::SessionOptions;
use super::ring_entry::RingEntry;
use super::transport;
use super::transport::DEVICE;
use super::transport::Port;
use super::transport::Received;
use crate::metrics;
use crate::threads;

/// Where the kernel tells which processors there may ever be, each of which needs a queue.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// `IORING_OP_URING_CMD`.
const URING_CMD: u8 = 46;

/// `FUSE_IO_URING_CMD_REGISTER`: a new entry.
const REGISTER: u32 = 1;

/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`: a reply, and wait for the next request.
const COMMIT_AND_FETCH: u32 = 2;

/// Workers of a queue, however many queues there are.
const WORKERS_LEAST: usize = 16;

type Ring = IoUring<Entry128>;

/// What a session needs to be served so.
pub(super) struct Queues {
    /// How many there must be.
    count: u16,
    /// Most bytes of data of a request or reply.
    payload: usize,
    /// Whether workers may tell the kernel of their entries, once that is decided.
    begun: Mutex<Option<bool>>,
    /// Notified when it is.
    decided: Condvar,
    /// Workers that have not told the kernel of their entry yet.
    starting: Mutex<usize>,
    /// Notified when there are none.
    all_started: Condvar,
    /// Nobody waits on it. It was made before the kernel was asked, and tells the kernel if it has to go on without.
    spare: Mutex<Ring>,
}

impl Queues {
    /// For requests with up to `max_write` bytes of data, if all is there that this needs. It must be known before the kernel is
    /// asked: once it has agreed, it waits for all queues.
    pub(super) fn prepare(max_write: usize) -> io::Result<Self> {
        if max_write < LEAST {
            let least = LEAST >> 10;
            return Err(io::Error::other(format!("max_write must be {least} KiB at least for it")));
        }
        let failed = |err| io::Error::other(format!("io_uring_setup: {err}"));
        // Such as the workers have, which cannot be used by another thread, and one that can.
        new_ring().map_err(failed)?;
        let spare = Ring::builder().build(1).map_err(failed)?;
        let possible = std::fs::read_to_string(POSSIBLE)?;
        let last = possible.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u16>().ok());
        let last = last.ok_or_else(|| io::Error::other(format!("{POSSIBLE} says {possible:?}")))?;
        let payload = max_write.next_multiple_of(page_size());
        Ok(Self {
            count: last + 1,
            payload,
            begun: Mutex::new(None),
            decided: Condvar::new(),
            starting: Mutex::new(0),
            all_started: Condvar::new(),
            spare: Mutex::new(spare),
        })
    }

    /// All workers are there: has them begin, and waits until the kernel knows the entry of each, or has refused it.
    pub(super) fn begin(&self) {
        self.decide(true);
        let mut starting = self.starting.lock();
        while *starting > 0 {
            self.all_started.wait(&mut starting);
        }
    }

    /// How many queues there must be; each needs a worker.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// How many workers of `all` each queue gets.
    pub(super) fn share(&self, all: usize) -> usize {
        (all / usize::from(self.count)).max(WORKERS_LEAST)
    }

    /// A new worker's end of queue `queue` of the session of `device`.
    pub(super) fn port(self: &Arc<Self>, queue: u16, device: &Arc<OwnedFd>) -> io::Result<Box<dyn Port>> {
        let entry = Arc::new(RingEntry::new(self.payload)?);
        let (queues, device) = (Arc::clone(self), Arc::clone(device));
        let ring = new_ring()?;
        Ok(Box::new(QueuePort {
            ring,
            starting: Some(Starting::new(self)),
            entry,
            device,
            queues,
            queue,
            is_enabled: false,
            state: State::New,
        }))
    }

    fn decide(&self, begins: bool) {
        self.begun.lock().get_or_insert(begins);
        self.decided.notify_all();
    }

    /// Whether a worker may tell the kernel of its entry. Waits until that is decided.
    fn may_begin(&self) -> bool {
        let mut begun = self.begun.lock();
        loop {
            match *begun {
                Some(begins) => return begins,
                None => self.decided.wait(&mut begun),
            }
        }
    }

    /// Tells the kernel of `device` not to wait for the queues, because of `why`: all goes on by the device. It does so when a
    /// queue is refused. Workers that have not begun leave.
    pub(super) fn give_up(&self, device: BorrowedFd<'_>, why: &io::Error) {
        do_without(why);
        self.decide(false);
        let mut spare = self.spare.lock();
        // A queue that cannot be.
        let entry = command(device, REGISTER, u16::MAX, 0, None);
        // SAFETY: the entry points to nothing.
        let told = unsafe { spare.submission().push(&entry) }
            .map_err(io::Error::other)
            .and_then(|()| spare.submit_and_wait(1));
        if let Err(err) = told {
            error!("The kernel cannot be told that io_uring is not to be had: {err}");
        }
    }
}

/// What is needed to be served over io_uring, if `options` ask for it and it can be had. `by_other_ways` says whether replies may
/// leave otherwise than by the session's descriptor.
pub(super) fn wanted(options: &SessionOptions, by_other_ways: bool) -> Option<Queues> {
    if !options.io_uring {
        return None;
    }
    let prepared = if by_other_ways {
        Queues::prepare(options.max_write() as usize)
    } else {
        Err(io::Error::other("it needs libfuse 2, or 3.13 or newer"))
    };
    prepared.inspect_err(do_without).ok()
}

/// Whether the kernel has agreed to what is `wanted`.
pub(super) fn settle(wanted: Option<Queues>, agreed: Agreed) -> Option<Arc<Queues>> {
    let wanted = wanted?;
    if !agreed.io_uring {
        do_without(&io::Error::other(
            "this kernel does not offer it (6.14 and newer do, if /sys/module/fuse/parameters/enable_uring says Y)",
        ));
        return None;
    }
    info!("Transport: io_uring with {} queues, before {DEVICE}", wanted.count);
    Some(Arc::new(wanted))
}

fn do_without(why: &io::Error) {
    metrics::FALLBACK_URING.count();
    warn!("Requests come by {DEVICE} and not over io_uring: {why}");
}

/// A ring for one command at a time, used by the one thread that enables it.
fn new_ring() -> io::Result<Ring> {
    Ring::builder().setup_r_disabled().setup_single_issuer().setup_defer_taskrun().build(2)
}

/// A command to the FUSE device: the io_uring crate has no way to say how many parts the memory has.
fn command(
    device: BorrowedFd<'_>,
    code: u32,
    queue: u16,
    request: u64,
    memory: Option<&[libc::iovec; 2]>,
) -> Entry128 {
    let mut bytes = [0_u8; 128];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &[URING_CMD]);
    put(4, &device.as_raw_fd().to_ne_bytes());
    put(8, &code.to_ne_bytes());
    if let Some(memory) = memory {
        put(16, &(memory.as_ptr().expose_provenance() as u64).to_ne_bytes());
        put(24, &2_u32.to_ne_bytes());
    }
    // `struct fuse_uring_cmd_req`: flags, which request, which queue.
    put(56, &request.to_ne_bytes());
    put(64, &queue.to_ne_bytes());
    // SAFETY: the type is `struct io_uring_sqe` with 64 bytes more, all of them numbers.
    unsafe { std::mem::transmute::<[u8; 128], Entry128>(bytes) }
}

/// A worker that has not told the kernel of its entry yet.
struct Starting(Arc<Queues>);

impl Starting {
    fn new(queues: &Arc<Queues>) -> Self {
        *queues.starting.lock() += 1;
        Self(Arc::clone(queues))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut starting = self.0.starting.lock();
        *starting -= 1;
        if *starting == 0 {
            self.0.all_started.notify_all();
        }
    }
}

/// One worker's entry in a queue.
struct QueuePort {
    ring: Ring,
    starting: Option<Starting>,
    entry: Arc<RingEntry>,
    device: Arc<OwnedFd>,
    queues: Arc<Queues>,
    queue: u16,
    /// Whether this is the thread that uses the ring.
    is_enabled: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The kernel does not know the entry.
    New,
    /// It was told, and may not take it.
    Registered,
    /// It has it, and will put a request there.
    Waiting,
    /// It does not take it: requests come by the device.
    Refused,
    /// The request of this number is to be replied to.
    Serving(u64),
}

impl Port for QueuePort {
    fn receive(&mut self, buffer: &mut Buffer) -> io::Result<Received> {
        match self.state {
            State::Refused => return transport::receive(self.device.as_fd(), buffer),
            State::New => {
                if !self.queues.may_begin() {
                    return Ok(Received::Leave);
                }
                let registered = self.register();
                self.starting = None;
                match registered {
                    Ok(()) => self.state = State::Registered,
                    Err(err) => {
                        self.refused();
                        self.queues.give_up(self.device.as_fd(), &err);
                        return Ok(Received::Again);
                    }
                }
            }
            State::Registered | State::Waiting => {}
            State::Serving(unique) => {
                self.entry.settle(unique);
                self.submit(&command(self.device.as_fd(), COMMIT_AND_FETCH, self.queue, unique, None))?;
                self.state = State::Waiting;
            }
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            // What is not submitted yet is with the next call.
            Err(err) if matches!(err.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {
                return Ok(Received::Again);
            }
            Err(err) => return Err(err),
        }
        let Some(done) = self.ring.completion().next() else { return Ok(Received::Again) };
        match Errno::from_raw(-done.result()) {
            _ if done.result() >= 0 => {}
            Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ENODEV | Errno::ECANCELED => {
                return Ok(Received::End);
            }
            // A security module says so, before the kernel's FUSE sees it: that goes on waiting for the queues.
            Errno::EACCES if matches!(self.state, State::Registered) => {
                let why =
                    format!("a security policy refuses io_uring for {DEVICE}, mount without -o io_uring");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            err if matches!(self.state, State::Registered) => {
                metrics::FALLBACK_URING.count();
                warn!("The kernel takes no worker for queue {}, which reads {DEVICE}: {err}", self.queue);
                self.refused();
                return Ok(Received::Again);
            }
            err => {
                error!("The kernel does not take a reply over io_uring: {err}");
                self.state = State::New;
                return Ok(Received::Again);
            }
        }
        let header = self.entry.header();
        let request = InHeader::read_from(&header.in_out).expect("it has 128 bytes");
        self.state = State::Serving(request.unique);
        self.entry.expect_reply();
        match self.entry.request(&header, &request, buffer) {
            Ok(len) => Ok(Received::Request(len)),
            Err(err) => {
                warn!("A request is answered with an error, as it cannot be received: {err}");
                self.entry.fail(request.unique, err.raw_os_error().unwrap_or(libc::EIO));
                Ok(Received::Again)
            }
        }
    }

    fn reply_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl QueuePort {
    /// On the thread that will wait: makes it known to the kernel.
    fn register(&mut self) -> io::Result<()> {
        if !self.is_enabled {
            // Where those ask whom it serves.
            threads::bind(self.queue);
            self.ring.submitter().register_enable_rings()?;
            current::set_ring_entry(Some(Arc::clone(&self.entry)));
            self.is_enabled = true;
        }
        let (head, payload) = self.entry.parts();
        let memory = [head, payload];
        self.submit(&command(self.device.as_fd(), REGISTER, self.queue, 0, Some(&memory)))?;
        // The kernel reads `memory` at once; whether it takes it, waiting for the first request tells.
        self.ring.submit()?;
        Ok(())
    }

    fn refused(&mut self) {
        threads::unbind();
        current::set_ring_entry(None);
        self.state = State::Refused;
    }

    fn submit(&mut self, entry: &Entry128) -> io::Result<()> {
        // SAFETY: what the command points to is read when it is submitted, or belongs to the entry, which lives longer than the
        // ring: fields are dropped in their order, and the kernel is done with the memory when the ring is closed.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }
}
