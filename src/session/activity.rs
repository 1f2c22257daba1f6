//! What each worker does now, and a stream of what has been done: for whoever looks into a mount that serves. Knows
//! nothing of who looks, and never waits for him.
//!
//! A worker writes down its request in a slot of its own by a few plain stores, between two of a version number by which
//! a reader sees that it read all of one request. Paths are found out by the reader. Operations that end go to
//! listeners, if there are any, by bounded queues; what finds no room is counted.
//!
//! Lock order: the list of slots and the list of listeners are each taken alone.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use parking_lot::Mutex;
use parking_lot::RwLock;

use super::arguments::Caller;
use super::arguments::Subject;
use crate::metrics::Operation;
use crate::vfs::Vfs;
use crate::waiting::Wait;
use crate::waiting::Waiting;

/// Operations that wait for a listener at a time.
const QUEUE: usize = 16_384;

/// The longest name of a file, which the kernel keeps to.
const NAME_MAX: usize = 255;

/// Eight bytes of a name each.
const NAME_WORDS: usize = NAME_MAX.div_ceil(8);

/// One request, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What the kernel asks for.
    pub operation: Operation,
    /// The kernel's number of the request; 0 if libfuse serves by its own loop.
    pub unique: u64,
    /// Where in the file, and how many bytes, if it is about bytes.
    pub range: Option<(u64, u64)>,
    /// The user that asks.
    pub uid: u32,
    /// The thread that asks; 0 if it is in another pid namespace.
    pub pid: u32,
    /// What it is about.
    pub topic: Topic,
}

/// What a request is about, without the rest of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic(About);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum About {
    Inode(u64),
    Name(u64, OsString),
    Names(u64, OsString, u64, OsString),
}

/// A request as a worker has it before it: what [`Request`] keeps of it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) operation: Operation,
    pub(super) subject: Subject<'a>,
    pub(super) range: Option<(u64, u64)>,
    pub(super) caller: Caller,
    pub(super) unique: u64,
}

/// What a worker does.
#[derive(Clone, Debug)]
pub struct Doing {
    /// The request.
    pub request: Request,
    /// What it is about, by its path in the mount.
    pub path: String,
    /// For how long.
    pub time: Duration,
    /// What it waits for outside of this process.
    pub wait: Option<Wait>,
}

/// One thread that serves.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub thread: String,
    /// The kernel's number of it.
    pub tid: i32,
    /// Nothing, if it waits for a request.
    pub doing: Option<Doing>,
}

/// An operation that has ended.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// What was asked for.
    pub request: Request,
    /// Bytes or 0; a negative error number if it failed.
    pub code: i64,
    /// How long it took.
    pub time: Duration,
}

/// What the workers of a session do.
pub struct Activity {
    vfs: Arc<Vfs>,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// How many `listeners` there are, so that nobody looks in vain.
    listening: AtomicUsize,
    listeners: RwLock<Vec<Arc<Queue>>>,
}

struct Queue {
    sender: Sender<Event>,
    dropped: AtomicU64,
}

/// Gets what ends from now on. Dropped, it ends.
pub struct Listener {
    activity: Arc<Activity>,
    queue: Arc<Queue>,
    receiver: Receiver<Event>,
}

thread_local! {
    static HERE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// The slot of a thread, which goes with it.
struct Place {
    activity: Weak<Activity>,
    slot: Arc<Slot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(activity) = self.activity.upgrade() {
            activity.slots.lock().retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        }
    }
}

impl Activity {
    /// Nobody serves `vfs` yet.
    pub(super) fn new(vfs: Arc<Vfs>) -> Arc<Self> {
        Arc::new(Self {
            vfs,
            slots: Mutex::default(),
            listening: AtomicUsize::new(0),
            listeners: RwLock::default(),
        })
    }

    /// This thread begins the request `asked`, at `began`.
    pub(super) fn begin(self: &Arc<Self>, asked: Asked<'_>, began: Instant) {
        HERE.with_borrow_mut(|here| {
            let is_here = |place: &Place| std::ptr::eq(place.activity.as_ptr(), Arc::as_ptr(self));
            if !here.as_ref().is_some_and(is_here) {
                *here = Some(self.place());
            }
            let place = here.as_ref().expect("just made");
            place.slot.waiting.begin();
            place.slot.write(asked, began);
        });
    }

    /// This thread's request is about to be answered. Returns what it has waited for longest, if at all.
    pub(super) fn end(&self) -> Option<(Wait, Duration)> {
        HERE.with_borrow(|here| {
            let place = here.as_ref()?;
            place.slot.clear();
            place.slot.waiting.longest()
        })
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listening.load(Ordering::Relaxed) > 0
    }

    /// Tells listeners of an operation that has ended; never waits for them.
    pub(super) fn tell(&self, event: &Event) {
        for queue in self.listeners.read().iter() {
            if queue.sender.try_send(event.clone()).is_err() {
                queue.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What each worker does that has served a request so far, those that are longest at it first, idle ones last.
    pub fn workers(&self) -> Vec<Worker> {
        let slots = self.slots.lock().clone();
        let mut workers: Vec<Worker> = slots.iter().map(|slot| slot.worker(self)).collect();
        workers.sort_by_key(|worker| std::cmp::Reverse(worker.doing.as_ref().map(|doing| doing.time)));
        workers
    }

    /// What ends from now on.
    pub fn listen(self: &Arc<Self>) -> Listener {
        let (sender, receiver) = bounded(QUEUE);
        let queue = Arc::new(Queue { sender, dropped: AtomicU64::new(0) });
        self.listeners.write().push(Arc::clone(&queue));
        self.listening.fetch_add(1, Ordering::Relaxed);
        Listener { activity: Arc::clone(self), queue, receiver }
    }

    /// The path in the mount of what a request is about; of a rename, the old name and the new one.
    pub fn path(&self, topic: &Topic) -> String {
        topic.0.as_subject().text(&self.vfs)
    }

    fn place(self: &Arc<Self>) -> Place {
        let slot = Arc::new(Slot::of_this_thread());
        self.slots.lock().push(Arc::clone(&slot));
        Place { activity: Arc::downgrade(self), slot }
    }
}

impl Listener {
    /// The next operation that has ended; none if there is none within `limit`.
    pub fn next(&self, limit: Duration) -> Option<Event> {
        self.receiver.recv_timeout(limit).ok()
    }

    /// How many were dropped since the last call, as they were not fetched in time.
    pub fn take_dropped(&self) -> u64 {
        self.queue.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.activity.listeners.write().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.activity.listening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Request {
    pub(super) fn new(asked: Asked<'_>) -> Self {
        let Asked { operation, subject, range, caller, unique } = asked;
        let about = match subject {
            Subject::Inode(ino) => About::Inode(ino),
            Subject::Name(parent, name) => About::Name(parent, name.to_owned()),
            Subject::Names(parent, name, to, new_name) => {
                About::Names(parent, name.to_owned(), to, new_name.to_owned())
            }
        };
        Self { operation, unique, range, uid: caller.uid, pid: caller.pid, topic: Topic(about) }
    }
}

impl About {
    fn as_subject(&self) -> Subject<'_> {
        match self {
            Self::Inode(ino) => Subject::Inode(*ino),
            Self::Name(parent, name) => Subject::Name(*parent, name),
            Self::Names(parent, name, to, new_name) => Subject::Names(*parent, name, *to, new_name),
        }
    }
}

/// Where one thread writes down what it does.
struct Slot {
    thread: String,
    tid: i32,
    /// Odd while the rest is being written.
    version: AtomicU64,
    words: [AtomicU64; Word::Count as usize],
    names: [[AtomicU64; NAME_WORDS]; 2],
    waiting: Arc<Waiting>,
}

/// What the words of a slot are.
#[derive(Clone, Copy)]
enum Word {
    /// One more than the number of the operation; 0 for none.
    Operation,
    Unique,
    Ino,
    NewParent,
    /// How long the names are, 16 bits each; one more than that, and 0 for none.
    Names,
    Offset,
    /// One more than the number of bytes; 0 for no range.
    Length,
    /// The user, and the thread.
    Caller,
    /// Nanoseconds from the start of the slot.
    Began,
    Count,
}

type Words = [u64; Word::Count as usize];

impl Slot {
    fn of_this_thread() -> Self {
        let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
        Self {
            thread: name.trim_end().to_owned(),
            tid: nix::unistd::gettid().as_raw(),
            version: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; Word::Count as usize],
            names: [const { [const { AtomicU64::new(0) }; NAME_WORDS] }; 2],
            waiting: Arc::default(),
        }
    }

    /// Only the slot's thread writes.
    fn write(&self, asked: Asked<'_>, began: Instant) {
        let Asked { operation, subject, range, caller, unique } = asked;
        let version = self.open();
        let (ino, new_parent, names) = match subject {
            Subject::Inode(ino) => (ino, 0, [None, None]),
            Subject::Name(parent, name) => (parent, 0, [Some(name), None]),
            Subject::Names(parent, name, to, new_name) => (parent, to, [Some(name), Some(new_name)]),
        };
        let mut lengths = 0;
        for (at, name) in names.into_iter().enumerate() {
            if let Some(name) = name {
                lengths |= (put_name(&self.names[at], name) as u64 + 1) << (16 * at);
            }
        }
        let (offset, length) = range.map_or((0, 0), |(offset, length)| (offset, length + 1));
        self.set(Word::Operation, operation as u64 + 1);
        self.set(Word::Unique, unique);
        self.set(Word::Ino, ino);
        self.set(Word::NewParent, new_parent);
        self.set(Word::Names, lengths);
        self.set(Word::Offset, offset);
        self.set(Word::Length, length);
        self.set(Word::Caller, u64::from(caller.uid) << 32 | u64::from(caller.pid));
        self.set(Word::Began, since_start(began));
        self.version.store(version + 2, Ordering::Release);
    }

    fn clear(&self) {
        let version = self.open();
        self.set(Word::Operation, 0);
        self.version.store(version + 2, Ordering::Release);
    }

    fn open(&self) -> u64 {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        version
    }

    fn set(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::Relaxed);
    }

    /// What its thread does, of one moment. A thread that goes through requests faster than they can be read is as
    /// good as idle.
    fn worker(&self, activity: &Activity) -> Worker {
        let mut doing = None;
        for _ in 0..100 {
            let before = self.version.load(Ordering::Acquire);
            let words: Words = std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed));
            let names = [0, 1].map(|at| name(&self.names[at], words[Word::Names as usize] >> (16 * at)));
            let wait = self.waiting.now();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                doing = read(&words, names).map(|request| Doing {
                    path: activity.path(&request.topic),
                    request,
                    time: elapsed(words[Word::Began as usize]),
                    wait,
                });
                break;
            }
            std::hint::spin_loop();
        }
        Worker { thread: self.thread.clone(), tid: self.tid, doing }
    }
}

/// The request that was written as `words`; none if the thread is idle.
fn read(words: &Words, names: [Option<OsString>; 2]) -> Option<Request> {
    let word = |word: Word| words[word as usize];
    let number = usize::try_from(word(Word::Operation)).ok()?.checked_sub(1)?;
    let about = match names {
        [None, _] => About::Inode(word(Word::Ino)),
        [Some(name), None] => About::Name(word(Word::Ino), name),
        [Some(name), Some(new_name)] => About::Names(word(Word::Ino), name, word(Word::NewParent), new_name),
    };
    Some(Request {
        operation: *Operation::ALL.get(number)?,
        unique: word(Word::Unique),
        range: word(Word::Length).checked_sub(1).map(|length| (word(Word::Offset), length)),
        uid: u32::try_from(word(Word::Caller) >> 32).unwrap_or(u32::MAX),
        pid: u32::try_from(word(Word::Caller) & u64::from(u32::MAX)).unwrap_or(0),
        topic: Topic(about),
    })
}

/// Returns how many bytes were put there: all but those of a name that is too long to exist.
fn put_name(words: &[AtomicU64], name: &OsStr) -> usize {
    let bytes = &name.as_bytes()[..name.len().min(NAME_MAX)];
    for (word, part) in words.iter().zip(bytes.chunks(8)) {
        let mut filled = [0; 8];
        filled[..part.len()].copy_from_slice(part);
        word.store(u64::from_ne_bytes(filled), Ordering::Relaxed);
    }
    bytes.len()
}

/// The name whose length is in the lowest 16 bits of `length`.
fn name(words: &[AtomicU64], length: u64) -> Option<OsString> {
    let length = usize::try_from(length & 0xffff).ok()?.checked_sub(1)?;
    let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
    Some(OsString::from_vec(bytes.take(length).collect()))
}

/// Some time of this process that all others are told from.
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn since_start(time: Instant) -> u64 {
    u64::try_from(time.saturating_duration_since(start()).as_nanos()).unwrap_or(u64::MAX)
}

fn elapsed(since_start: u64) -> Duration {
    start().elapsed().saturating_sub(Duration::from_nanos(since_start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::local::LocalFs;
    use crate::vfs::VfsOptions;

    const CALLER: Caller = Caller { uid: 7, gid: 8, pid: 9 };

    fn activity() -> (tempfile::TempDir, Arc<Activity>) {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalFs::open(dir.path()).unwrap();
        let vfs = Arc::new(Vfs::new(Arc::new(store), VfsOptions::default()));
        (dir, Activity::new(vfs))
    }

    fn begin(activity: &Arc<Activity>, subject: Subject<'_>, range: Option<(u64, u64)>) {
        let asked = Asked { operation: Operation::Rename, subject, range, caller: CALLER, unique: 42 };
        activity.begin(asked, Instant::now());
    }

    #[test]
    fn a_request_is_seen_from_its_begin_to_its_end() {
        let (_dir, activity) = activity();
        let long = "n".repeat(255);
        for (subject, path) in [
            (Subject::Inode(1), "/".to_owned()),
            (Subject::Name(1, OsStr::new(&long)), format!("/{long}")),
            (Subject::Names(1, OsStr::new("a b"), 1, OsStr::new("ü")), "/a b to /ü".to_owned()),
        ] {
            begin(&activity, subject, Some((5, 0)));
            let workers = activity.workers();
            let doing = workers[0].doing.as_ref().unwrap();
            assert_eq!(doing.path, path);
            let Request { operation, unique, range, uid, pid, .. } = doing.request;
            assert_eq!((operation, unique, range, uid, pid), (Operation::Rename, 42, Some((5, 0)), 7, 9));
            activity.end();
            assert!(activity.workers()[0].doing.is_none());
        }
    }

    #[test]
    fn a_thread_that_has_ended_is_no_worker() {
        let (_dir, activity) = activity();
        let other = Arc::clone(&activity);
        std::thread::spawn(move || begin(&other, Subject::Inode(1), None)).join().unwrap();
        assert!(activity.workers().is_empty());
    }

    #[test]
    fn a_reader_never_sees_halves_of_two_requests() {
        let (_dir, activity) = activity();
        let (other, (stop, stopped)) = (Arc::clone(&activity), bounded::<()>(0));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while stopped.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                number += 1;
                let name = OsString::from(number.to_string());
                let (subject, range) = (Subject::Name(1, &name), Some((number, number)));
                let asked =
                    Asked { operation: Operation::Read, subject, range, caller: CALLER, unique: number };
                other.begin(asked, Instant::now());
            }
        });
        let mut seen = 0;
        while seen < 1000 {
            let Some(doing) = activity.workers().pop().and_then(|worker| worker.doing) else { continue };
            let number = doing.request.unique;
            assert_eq!(doing.request.range, Some((number, number)));
            assert_eq!(doing.path, format!("/{number}"));
            seen += 1;
        }
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn what_a_listener_does_not_fetch_is_counted() {
        let (_dir, activity) = activity();
        assert!(!activity.is_heard());
        let listener = activity.listen();
        assert!(activity.is_heard());
        let (operation, subject) = (Operation::Read, Subject::Inode(1));
        let request = Request::new(Asked { operation, subject, range: None, caller: CALLER, unique: 1 });
        let event = Event { at: SystemTime::now(), request, code: 0, time: Duration::ZERO };
        (0..QUEUE + 3).for_each(|_| activity.tell(&event));
        assert_eq!((listener.take_dropped(), listener.take_dropped()), (3, 0));
        assert_eq!(listener.next(Duration::ZERO).unwrap().request, event.request);
        drop(listener);
        assert!(!activity.is_heard());
    }
}
