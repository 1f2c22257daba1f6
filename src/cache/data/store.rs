//! All pages in all directories: finds them, puts them there by threads of its own, gives up others for them, brings back
//! what an earlier process left. Knows no backend.
//!
//! Lock order: one of `loading`, then `files`, then a file's own lock, then an [`Order`]. A file's lock may be held across a
//! write to the disk, so under `files` it is taken only of a file that is not in use.
//! Invariant: a page is in its order just while it is in its file, or is about to be given up. A page is put only when room
//! for it was promised, and room is promised only when the files of what had to go are gone: the directories never hold
//! more than their limits, but for what a program still has mapped of a file that is gone.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use parking_lot::Mutex;

use super::counters::Counters;
use super::directory::Directory;
use super::directory::Faults;
use super::file::CachedFile;
use super::file::Found;
use super::file::Pin;
use super::order::Order;
use super::order::PageId;
use super::order::Policy;
use super::order::Room;
use super::record::Version;
use crate::fs::Allowance;
use crate::fs::Slices;

/// Threads that write pages.
const WRITERS: usize = 2;

/// Pages that wait for them: more are not kept rather than waited for.
pub(super) const QUEUE: usize = 16;

/// How long a directory is left alone after it could not be written.
const SHUN: u64 = 30;

/// The same after there was no room to be had.
pub(super) const FULL: u64 = 2;

/// Files that may be looked for on disk at once.
const LOADS: usize = 64;

/// Files brought back between two looks whether something more urgent is to be done.
const RESTORE_STEP: usize = 64;

/// After each step, so that a start does not keep the disks from everybody else.
const RESTORE_PAUSE: Duration = Duration::from_millis(5);

/// How often pages are looked at whose time may be over, at most.
const TICK_MAX: Duration = Duration::from_secs(3600);

/// Files that wait to be checked in the background: of more, another open has to ask.
const CHECKS_MAX: usize = 64;

/// Bytes of a file that an open waits for to be checked before the kernel may read them.
pub(super) const VERIFY_MAX: u64 = 16 << 20;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the cache is told.
#[derive(Clone)]
pub struct DataOptions {
    /// Directories with the bytes that may be used in each.
    pub directories: Vec<(PathBuf, u64)>,
    /// Bytes of a page, a multiple of 4096.
    pub page_size: u64,
    /// What goes first.
    pub policy: Policy,
    /// After so many seconds a page goes; none: it stays.
    pub ttl: Option<u64>,
    /// How often that is looked at.
    pub ttl_interval: Duration,
    /// What tells the backend from others that may use the same directories.
    pub origin: String,
    /// All files of the backend are files of this machine, which are slow enough to be cached.
    pub below_is_local: bool,
    /// The time.
    pub clock: Clock,
    /// The memory for pages on their way; none: it is not limited but by the length of the queue.
    pub memory: Option<Arc<dyn Allowance>>,
    /// Failures of the disk that are to be tried.
    pub faults: Option<Faults>,
}

struct Place {
    directory: Arc<Directory>,
    order: Mutex<Order>,
    limit: u64,
    /// What was there before is counted. Until then nothing is added, as there might be no room.
    counted: AtomicBool,
    /// Not written before this time, in seconds since 1970.
    shunned_until: AtomicU64,
}

/// The memory of a page, given back on drop; nothing where it is not limited.
pub(super) type Taken = Option<Box<dyn Send>>;

/// A page on its way to the disk.
pub(super) struct Put {
    pub(super) file: Arc<CachedFile>,
    pub(super) index: u32,
    pub(super) bytes: Slices,
    pub(super) taken: Taken,
    /// Called when it is there, or will not be.
    pub(super) done: Box<dyn FnOnce() + Send>,
}

/// The pages.
pub(super) struct Store {
    places: Vec<Place>,
    page_size: u64,
    ttl: Option<u64>,
    clock: Clock,
    /// Held from the look whether a file is on disk until it is in the table, by [`Version::part`]: a list that is read while
    /// pages are put would be cut, and the pages that it does not name punched.
    loading: [Mutex<()>; LOADS],
    files: Mutex<Table>,
    next_number: AtomicU64,
    pub(super) counters: Counters,
    ending: AtomicBool,
}

#[derive(Default)]
struct Table {
    by_version: HashMap<Version, Arc<CachedFile>>,
    by_number: HashMap<u64, Arc<CachedFile>>,
}

/// The threads of a store. Dropped, they end.
pub(super) struct Threads {
    store: Arc<Store>,
    puts: Option<Sender<Put>>,
    /// Files that are to be checked.
    checks: Option<Sender<Arc<CachedFile>>>,
    running: Vec<JoinHandle<()>>,
}

impl Store {
    /// Takes the directories. Pages that are in them come back by and by.
    pub(super) fn open(options: &DataOptions) -> io::Result<Self> {
        let mut places = Vec::new();
        for (dir, limit) in &options.directories {
            let named = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", dir.display()));
            let directory =
                Arc::new(Directory::take(dir, options.page_size, options.faults.clone()).map_err(named)?);
            let order = Mutex::new(Order::new(options.policy, *limit));
            let (counted, shunned_until) = (AtomicBool::new(directory.is_new()), AtomicU64::new(0));
            places.push(Place { directory, order, limit: *limit, counted, shunned_until });
        }
        Ok(Self {
            places,
            page_size: options.page_size,
            ttl: options.ttl,
            clock: Arc::clone(&options.clock),
            loading: [const { Mutex::new(()) }; LOADS],
            files: Mutex::default(),
            next_number: AtomicU64::new(0),
            counters: Counters::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Bytes of a page.
    pub(super) fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Bytes that are used or promised, in all directories.
    pub(super) fn used(&self) -> u64 {
        self.places.iter().map(|place| place.order.lock().used()).sum()
    }

    /// Bytes that may be used, in all directories.
    pub(super) fn limit(&self) -> u64 {
        self.places.iter().map(|place| place.limit).sum()
    }

    /// Bytes of `version` that are there.
    pub(super) fn cached(&self, version: Version) -> u64 {
        let file = self.file(version);
        let bytes = file.pages().iter().map(|(index, _)| version.page_len(self.page_size, *index)).sum();
        self.let_go(file);
        bytes
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.places.iter().map(|place| place.order.lock().len()).sum()
    }

    /// The file `version`, with the pages of it that are there.
    pub(super) fn file(&self, version: Version) -> Arc<CachedFile> {
        let known = || self.files.lock().by_version.get(&version).cloned();
        if let Some(file) = known() {
            return file;
        }
        let _loading = self.loading[version.part(LOADS)].lock();
        if let Some(file) = known() {
            return file;
        }
        let place = self.place_of(&version);
        let new = || {
            let number = self.next_number.fetch_add(1, Ordering::Relaxed);
            let directory = Arc::clone(&self.places[place].directory);
            CachedFile::new(number, place, version, self.page_size, directory)
        };
        // One that has not come back yet is brought back now.
        let file = match new().load() {
            Ok(Some(file)) => file,
            Ok(None) => new(),
            Err(err) => {
                log::warn!("{} cannot be brought back: {err}", version.name());
                new()
            }
        };
        self.add(file)
    }

    /// Puts `file` into the table, where it is not.
    fn add(&self, file: CachedFile) -> Arc<CachedFile> {
        let pages = file.pages();
        let file = Arc::new(file);
        let mut files = self.files.lock();
        files.by_version.insert(file.version, Arc::clone(&file));
        files.by_number.insert(file.number, Arc::clone(&file));
        let mut order = self.places[file.place].order.lock();
        for (index, _) in pages {
            order.restore((file.number, index), file.weight(index));
        }
        drop(order);
        file
    }

    /// Ends a use of `file`, which is forgotten if there is nothing of it and nobody else has it.
    pub(super) fn let_go(&self, file: Arc<CachedFile>) {
        let number = file.number;
        drop(file);
        self.look_after(number);
    }

    /// Forgets file `number` if there is nothing of it, and nobody has it. To be called by each who had it, and does not any
    /// more: so the last of those who go at once finds it alone.
    pub(super) fn look_after(&self, number: u64) {
        let mut files = self.files.lock();
        let Some(file) = files.by_number.get(&number) else { return };
        // The table has it twice.
        if Arc::strong_count(file) == 2 && file.close() {
            let version = file.version;
            files.by_version.remove(&version);
            files.by_number.remove(&number);
        }
    }

    /// The directory of `version`: always the same, and the larger, the more often.
    pub(super) fn place_of(&self, version: &Version) -> usize {
        let total: u128 = self.places.iter().map(|place| u128::from(place.limit)).sum();
        let hash = super::record::origin(&version.name());
        let mut point = (u128::from(hash) * total) >> 64;
        for (n, place) in self.places.iter().enumerate() {
            if point < u128::from(place.limit) {
                return n;
            }
            point -= u128::from(place.limit);
        }
        self.places.len() - 1
    }

    /// The bytes `from..to` of page `index` of `file`, if they are there.
    pub(super) fn read(&self, file: &CachedFile, index: u32, from: usize, to: usize) -> Option<bytes::Bytes> {
        match file.read(index, from, to) {
            Found::Bytes(bytes) => Some(bytes),
            Found::Absent => None,
            Found::Damaged(why) => {
                self.counters.damaged.add(1);
                log::warn!("page {index} of {} is dropped: {why}", file.version.name());
                self.drop_page(file, index);
                None
            }
        }
    }

    /// A page was used again, after something else.
    pub(super) fn touch(&self, file: &CachedFile, index: u32) {
        self.places[file.place].order.lock().touch((file.number, index));
    }

    /// Whether pages of `file` are put on disk at this time.
    pub(super) fn accepts(&self, file: &CachedFile) -> bool {
        let place = &self.places[file.place];
        place.counted.load(Ordering::Acquire) && (self.clock)() >= place.shunned_until.load(Ordering::Relaxed)
    }

    /// Drops page `index` of `file`, if it is there: how many pages went, as it may take others along.
    pub(super) fn drop_page(&self, file: &CachedFile, index: u32) -> usize {
        file.remove(index, |gone| {
            self.places[file.place].order.lock().remove((file.number, gone));
        })
    }

    /// Drops all pages of `version`: how many there were.
    pub(super) fn drop_file(&self, version: Version) -> usize {
        let file = self.file(version);
        let dropped = self.drop_pages(&file);
        self.let_go(file);
        dropped
    }

    fn drop_pages(&self, file: &CachedFile) -> usize {
        file.pages().into_iter().map(|(index, _)| self.drop_page(file, index)).sum()
    }

    /// Drops all pages: how many there were.
    pub(super) fn drop_all(&self) -> usize {
        let versions: Vec<Version> = self.files.lock().by_version.keys().copied().collect();
        versions.into_iter().map(|version| self.drop_file(version)).sum()
    }

    /// The data file of `file` if it is there whole and right: it stays so until [`Self::unpin`]. A use of all its pages.
    pub(super) fn pin(&self, file: &CachedFile) -> Pin {
        let pages = || (0..file.version.pages(self.page_size)).map(|index| (file.number, index));
        let order = &self.places[file.place].order;
        let pinned = file.pin(|| {
            let mut order = order.lock();
            pages().for_each(|page| order.pin(page));
        });
        if matches!(pinned, Pin::Pinned(..)) {
            let mut order = order.lock();
            pages().for_each(|page| order.touch(page));
        }
        pinned
    }

    /// Ends one [`Self::pin`].
    pub(super) fn unpin(&self, file: &CachedFile) {
        file.unpin(|gone| {
            let mut order = self.places[file.place].order.lock();
            for index in gone {
                order.remove((file.number, *index));
            }
            (0..file.version.pages(self.page_size)).for_each(|index| order.unpin((file.number, index)));
        });
    }

    /// Waits until the disk has all pages of `file`, reads those that nobody has read, and drops what is not right.
    pub(super) fn check(&self, file: &CachedFile) {
        let synced = file.sync(|| self.ending.load(Ordering::Relaxed));
        if let Err(err) = &synced {
            let dropped = self.drop_pages(file);
            self.counters.failed.add(dropped as u64);
            log::warn!("{dropped} pages of {} did not come to the disk: {err}", file.version.name());
        }
        file.checked(synced.is_ok() && (file.is_verified() || self.verify(file)));
    }

    /// Whether all pages of `file` are right. Drops those that are not.
    fn verify(&self, file: &CachedFile) -> bool {
        file.pages().into_iter().all(|(index, _)| {
            let len = file.version.page_len(self.page_size, index) as usize;
            // One that cannot be had at this time was not checked.
            let is_right = self.read(file, index, 0, len).is_some() || !file.has(index);
            is_right && !self.ending.load(Ordering::Relaxed)
        })
    }

    /// Puts a page on disk, others making room.
    pub(super) fn put(&self, file: &CachedFile, index: u32, bytes: &Slices) {
        let place = &self.places[file.place];
        let weight = file.weight(index);
        if file.has(index) {
            return;
        }
        if !self.accepts(file) || !self.make_room(place, weight) {
            self.counters.refused.add(1);
            // Whole pages are not loaded in vain again and again.
            place.shunned_until.fetch_max((self.clock)() + FULL, Ordering::Relaxed);
            return;
        }
        let whole;
        let bytes = match bytes.parts() {
            [one] if !bytes.is_mapped() => &one[..],
            _ => match bytes.copied() {
                Ok(copy) => {
                    whole = copy;
                    &whole[..]
                }
                Err(err) => {
                    place.order.lock().release(weight);
                    self.counters.failed.add(1);
                    log::warn!("A page of {} is not kept: {err}", file.version.name());
                    return;
                }
            },
        };
        let page = (file.number, index);
        let put = file.put(index, bytes, (self.clock)(), |pinned| {
            let mut order = place.order.lock();
            order.insert(page, weight);
            if pinned {
                order.pin(page);
            }
        });
        match put {
            Ok(true) => self.counters.written.add(bytes.len() as u64),
            Ok(false) => place.order.lock().release(weight),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                place.order.lock().release(weight);
                self.counters.failed.add(1);
                let dropped = self.drop_pages(file);
                log::warn!("{} is gone from the disk, with {dropped} pages: {err}", file.version.name());
            }
            Err(err) => {
                place.order.lock().release(weight);
                self.counters.failed.add(1);
                let is_full = matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                let secs = if is_full && self.give_up(place, weight) { FULL } else { SHUN };
                place.shunned_until.store((self.clock)() + secs, Ordering::Relaxed);
                let path = place.directory.path().display();
                log::warn!("{path} cannot be written, and is not for {secs} s: {err}");
            }
        }
    }

    /// Gives up what goes first, `weight` bytes, on a disk that is full before the limit is reached: else nothing would go
    /// there any more. False if there is nothing.
    fn give_up(&self, place: &Place, weight: u64) -> bool {
        let victims = place.order.lock().give_up(weight);
        let found = !victims.is_empty();
        self.evict(place, victims);
        found
    }

    /// Whether `weight` bytes are promised in `place`. Removes what has to go for them.
    fn make_room(&self, place: &Place, weight: u64) -> bool {
        loop {
            let room = place.order.lock().make_room(weight);
            match room {
                Room::Promised => return true,
                Room::After(victims) => self.evict(place, victims),
                Room::Never => return false,
            }
        }
    }

    fn evict(&self, place: &Place, victims: Vec<(PageId, u64)>) {
        for (page, weight) in victims {
            let (number, index) = page;
            let file = self.files.lock().by_number.get(&number).cloned();
            if let Some(file) = file {
                // Those that are about to be given up by others count until then.
                let with_it = |other| {
                    if let Some(weight) = place.order.lock().remove((number, other)) {
                        self.note_evicted(weight);
                    }
                };
                // It may have been dropped since it was chosen, and put again.
                let is_back = || place.order.lock().has(page);
                let keep = || place.order.lock().keep(page, weight);
                let gone = file.give_up(index, is_back, keep, with_it);
                self.let_go(file);
                if !gone {
                    continue;
                }
            }
            self.note_evicted(weight);
            place.order.lock().release(weight);
        }
    }

    fn note_evicted(&self, weight: u64) {
        self.counters.evicted.add(1);
        self.counters.evicted_bytes.add(weight);
    }

    /// Brings back what is in the directories, and gives up what is too much.
    pub(super) fn restore(&self) {
        let mut seen = 0;
        for (number, place) in self.places.iter().enumerate() {
            // Pages are put into a new one already: what is half made there is not what a process has left.
            if place.counted.load(Ordering::Acquire) {
                continue;
            }
            for version in place.directory.versions() {
                if self.ending.load(Ordering::Relaxed) {
                    return;
                }
                let file = self.file(version);
                // It is elsewhere now if the directories or their sizes are others than before.
                if file.place != number || file.pages().is_empty() {
                    place.directory.remove(&version);
                }
                self.let_go(file);
                seen += 1;
                if seen % RESTORE_STEP == 0 {
                    std::thread::sleep(RESTORE_PAUSE);
                }
            }
            let excess = place.order.lock().excess();
            self.evict(place, excess);
            place.counted.store(true, Ordering::Release);
        }
        log::info!("data cache: {} pages, {} MiB, were there before", self.pages(), self.used() >> 20);
    }

    /// Whether all that was there before is counted.
    #[cfg(test)]
    pub(super) fn places_counted(&self) -> bool {
        self.places.iter().all(|place| place.counted.load(Ordering::Acquire))
    }

    /// The pages of directory `place`, first those that go first.
    #[cfg(test)]
    pub(super) fn in_order(&self, place: usize) -> Vec<(Version, u32)> {
        let pages = self.places[place].order.lock().in_order();
        let files = self.files.lock();
        pages.into_iter().map(|(number, index)| (files.by_number[&number].version, index)).collect()
    }

    /// Bytes that are used or promised in directory `place`.
    #[cfg(test)]
    pub(super) fn used_in(&self, place: usize) -> u64 {
        self.places[place].order.lock().used()
    }

    /// Has pages chosen that go for `bytes` more in directory `place`, and gives them up after `meanwhile`.
    #[cfg(test)]
    pub(super) fn evict_after(&self, place: usize, bytes: u64, meanwhile: impl FnOnce()) {
        let place = &self.places[place];
        let room = place.order.lock().make_room(bytes);
        let Room::After(victims) = room else { panic!("none has to go: {room:?}") };
        meanwhile();
        self.evict(place, victims);
    }

    /// Where the files of `version` are.
    #[cfg(test)]
    pub(super) fn paths(&self, version: &Version) -> super::directory::Paths {
        self.places[self.place_of(version)].directory.paths(version)
    }

    /// Whether no file is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.files.lock().by_number.is_empty()
    }

    /// Drops the pages whose time is over.
    pub(super) fn expire(&self) {
        let Some(ttl) = self.ttl else { return };
        let files: Vec<Arc<CachedFile>> = self.files.lock().by_number.values().cloned().collect();
        let now = (self.clock)();
        for file in files {
            let pages = if file.is_pinned() { Vec::new() } else { file.pages() };
            for (index, _) in pages.into_iter().filter(|(_, time)| time + ttl <= now) {
                self.counters.expired.add(self.drop_page(&file, index) as u64);
            }
            self.let_go(file);
        }
    }
}

impl Threads {
    /// Starts them.
    pub(super) fn start(store: &Arc<Store>, ttl_interval: Duration) -> io::Result<Self> {
        let (puts, waiting) = bounded::<Put>(QUEUE);
        let (checks, unchecked) = bounded::<Arc<CachedFile>>(CHECKS_MAX);
        let mut threads =
            Self { store: Arc::clone(store), puts: Some(puts), checks: Some(checks), running: Vec::new() };
        for number in 0..WRITERS {
            let (store, waiting) = (Arc::clone(store), waiting.clone());
            let checks = threads.checks.clone().expect("there until it is dropped");
            threads.run(format!("cache-write-{number}"), move || write_pages(&store, &waiting, &checks))?;
        }
        let store = Arc::clone(store);
        threads.run("cache-keeper".to_owned(), move || keep(&store, ttl_interval, &unchecked))?;
        Ok(threads)
    }

    fn run(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.running.push(std::thread::Builder::new().name(name).spawn(work)?);
        Ok(())
    }

    /// Has the pages of `file` looked at in the background, if there is a place in the queue.
    pub(super) fn check(&self, file: &Arc<CachedFile>) {
        ask_for_check(self.checks.as_ref().expect("there until it is dropped"), file);
    }

    /// Hands a page over; gives its memory back if too many wait already.
    pub(super) fn put(&self, put: Put) -> Result<(), Taken> {
        let puts = self.puts.as_ref().expect("there until it is dropped");
        let Err(refused) = puts.try_send(put) else { return Ok(()) };
        self.store.counters.refused.add(1);
        let Put { taken, done, .. } = refused.into_inner();
        done();
        Err(taken)
    }
}

/// Brings back what was there before; then checks files when it is asked to, and drops what is too old.
fn keep(store: &Store, ttl_interval: Duration, unchecked: &Receiver<Arc<CachedFile>>) {
    store.restore();
    let tick = ttl_interval.clamp(Duration::from_millis(1), TICK_MAX);
    let mut next = Instant::now() + tick;
    loop {
        match unchecked.recv_deadline(next) {
            Ok(file) => {
                store.check(&file);
                store.let_go(file);
            }
            Err(RecvTimeoutError::Timeout) => {
                store.expire();
                next = Instant::now() + tick;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn ask_for_check(checks: &Sender<Arc<CachedFile>>, file: &Arc<CachedFile>) {
    if file.ask_for_check() && checks.try_send(Arc::clone(file)).is_err() {
        file.checked(false);
    }
}

fn write_pages(store: &Store, waiting: &Receiver<Put>, checks: &Sender<Arc<CachedFile>>) {
    for Put { file, index, bytes, taken, done } in waiting {
        if !store.ending.load(Ordering::Relaxed) {
            store.put(&file, index, &bytes);
            // So that the next open does not only ask for it.
            if file.version.size > VERIFY_MAX && file.is_whole() {
                ask_for_check(checks, &file);
            }
        }
        done();
        drop((bytes, taken));
        store.let_go(file);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.store.ending.store(true, Ordering::Relaxed);
        self.puts = None;
        self.checks = None;
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the data cache panicked");
            }
        }
    }
}
