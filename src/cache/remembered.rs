//! What is remembered of a file system's metadata, and the questions by which it comes to be known. Asks nobody itself.
//!
//! Lock order: the table of questions, then the store.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use parking_lot::RwLock;

use super::loads::Flight;
use super::loads::LoadId;
use super::loads::Loads;
use super::loads::Reach;
use super::store::Known;
use super::store::Limits;
use super::store::Store;
use crate::fs::Attr;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Memory;
use crate::fs::Result;

/// How much a cache of metadata keeps, and for how long.
#[derive(Clone)]
pub struct MetadataOptions {
    /// Most entries: attributes, absent names, and lists of names.
    pub entries: usize,
    /// Most bytes that they take in memory.
    pub bytes: u64,
    /// How long an entry is good for.
    pub expiry: Duration,
    /// Tells the time.
    pub now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl MetadataOptions {
    /// A bound on the bytes for each entry that is allowed: three times what an entry takes on average.
    const BYTES_PER_ENTRY: u64 = 1024;

    /// At most `entries`, each for `expiry`, by the clock of this machine.
    pub fn new(entries: usize, expiry: Duration) -> Self {
        let bytes = (entries as u64).saturating_mul(Self::BYTES_PER_ENTRY);
        Self { entries, bytes, expiry, now: Arc::new(Instant::now) }
    }
}

/// The most names of a directory that are kept, whatever the bounds.
const NAMES_MAX: usize = 10_000;

/// The most of all room that one directory's names may take, and that all directories together may take that are being
/// read and not kept yet: this part of it.
pub(super) const SHARE: usize = 4;

/// How long a change may still be made whose answer has not come.
pub(super) const DOUBT: Duration = Duration::from_secs(30);

/// What is remembered, and what is being asked.
pub(super) struct Remembered {
    options: MetadataOptions,
    loads: Mutex<Loads>,
    store: RwLock<Store>,
    /// Bytes of listings that are on their way.
    on_the_way: AtomicU64,
}

impl Remembered {
    pub(super) fn new(options: MetadataOptions) -> Self {
        let limits = Limits { entries: options.entries, bytes: options.bytes, expiry: options.expiry };
        let store = RwLock::new(Store::new(limits));
        Self { options, loads: Mutex::default(), store, on_the_way: AtomicU64::new(0) }
    }

    fn now(&self) -> Instant {
        (self.options.now)()
    }

    pub(super) fn known(&self, path: &FsPath) -> Option<Known> {
        let now = self.now();
        self.store.read().known(path.as_str(), now).cloned()
    }

    /// Whether `path` is known to be of use in the ways of `mask`.
    pub(super) fn is_granted(&self, path: &FsPath, mask: u8) -> bool {
        let now = self.now();
        self.store.read().is_granted(path, mask, now)
    }

    /// Begins to ask about `path`.
    pub(super) fn ask(self: &Arc<Self>, path: &FsPath, reach: Reach) -> Question {
        let since = self.now();
        let id = self.loads.lock().begin(path.clone(), reach);
        Question { memory: Arc::clone(self), id, path: path.clone(), since, flight: None }
    }

    pub(super) fn board(self: &Arc<Self>, path: &FsPath) -> Boarding {
        let since = self.now();
        let mut loads = self.loads.lock();
        // Somebody's answer may have come since the caller looked.
        if let Some(known) = self.store.read().known(path.as_str(), since) {
            return Boarding::Known(known.clone());
        }
        if let Some(flight) = loads.flight(path) {
            return Boarding::Join(flight);
        }
        let (id, flight) = loads.begin_flight(path);
        drop(loads);
        let (memory, path) = (Arc::clone(self), path.clone());
        Boarding::Ask(Question { memory, id, path, since, flight: Some(flight) })
    }

    /// The entries of the directory `path`, if all of them are remembered with their attributes.
    pub(super) fn entries(&self, path: &FsPath) -> Option<Vec<DirEntry>> {
        let now = self.now();
        let store = self.store.read();
        let names = store.names(path, now)?;
        let mut entries = Vec::new();
        let mut child = if path.is_root() { String::new() } else { path.as_str().to_owned() };
        child.push('/');
        let start = child.len();
        for name in names.iter() {
            child.truncate(start);
            child.push_str(name);
            match store.known(&child, now)? {
                Known::Attr(attr) => entries.push(DirEntry { name: name.to_owned(), attr: attr.clone() }),
                Known::Absent => return None,
            }
        }
        Some(entries)
    }

    /// `path` and what is below it is not what it was; with `names`, nor is the directory that it is in.
    /// In doubt, it may still change, and for a while nothing is kept of it.
    pub(super) fn changed(&self, path: &FsPath, names: bool, in_doubt: bool) {
        let mut loads = self.loads.lock();
        loads.changed(path);
        if in_doubt {
            loads.doubt(path.clone(), self.now() + DOUBT);
        }
        let mut store = self.store.write();
        store.forget_tree(path);
        match path.parent() {
            Some(parent) if names => {
                store.forget(&parent);
                store.forget_names_without(&parent);
            }
            Some(_) => store.forget_names_without(path),
            None => {}
        }
    }
}

impl Memory for Remembered {
    fn forget_all(&self) {
        let mut loads = self.loads.lock();
        loads.changed(&FsPath::root());
        self.store.write().clear();
    }

    fn forget_around(&self, dir: &FsPath) {
        let mut loads = self.loads.lock();
        // What is on its way for other places is asked for once more; this is rare.
        loads.changed(&FsPath::root());
        let mut store = self.store.write();
        store.forget_tree(dir);
        let mut above = dir.parent();
        while let Some(path) = above {
            store.forget(&path);
            above = path.parent();
        }
    }

    fn len(&self) -> usize {
        self.store.read().len(self.now())
    }

    fn bytes(&self) -> u64 {
        self.store.read().bytes() + self.on_the_way.load(Ordering::Relaxed)
    }
}

/// A question that is being asked. Dropped without an answer, there is none.
pub(super) struct Question {
    memory: Arc<Remembered>,
    id: LoadId,
    path: FsPath,
    since: Instant,
    /// Who waits for the answer, if anybody can.
    flight: Option<Arc<Flight>>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.memory.loads.lock().end(self.id, self.since);
        if let Some(flight) = self.flight.take() {
            flight.land(None);
        }
    }
}

impl Question {
    /// The answer has come, and is remembered if it can be.
    pub(super) fn answered(mut self, answer: &Result<Attr>) {
        let known = match answer {
            Ok(attr) if attr.complete => Some(Known::Attr(attr.clone())),
            Err(error) if error.fault() == Fault::NotFound => Some(Known::Absent),
            // Nothing to remember, but what is remembered is wrong.
            Ok(_) => None,
            Err(_) => return self.land(answer),
        };
        {
            let mut loads = self.memory.loads.lock();
            if loads.end(self.id, self.memory.now()) {
                let mut store = self.memory.store.write();
                match known {
                    Some(known) => store.learn(&self.path, known, self.since),
                    None => store.forget(&self.path),
                }
            }
        }
        self.land(answer);
    }

    fn land(&mut self, answer: &Result<Attr>) {
        if let Some(flight) = self.flight.take() {
            let given_up = answer.as_ref().is_err_and(|error| error.fault() == Fault::Interrupted);
            self.memory.loads.lock().end(self.id, self.since);
            flight.land((!given_up).then(|| answer.clone()));
        }
    }

    /// The path may be used in the ways of `mask`.
    pub(super) fn granted(self, mask: u8) {
        let mut loads = self.memory.loads.lock();
        if loads.end(self.id, self.memory.now()) {
            self.memory.store.write().grant(&self.path, mask);
        }
    }

    /// All entries of the directory have come.
    pub(super) fn listed(&self, entries: Vec<(String, Attr)>) {
        let mut loads = self.memory.loads.lock();
        if loads.end(self.id, self.memory.now()) {
            self.memory.store.write().learn_listing(&self.path, entries, self.since);
        }
    }

    /// Whether `more` bytes can be held until the listing is complete; to be given back.
    pub(super) fn reserve(&self, more: u64) -> bool {
        let bound = self.memory.options.bytes / SHARE as u64;
        let before = self.memory.on_the_way.fetch_add(more, Ordering::Relaxed);
        let fits = before + more <= bound;
        if !fits {
            self.give_back(more);
        }
        fits
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.memory.on_the_way.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The most names of a directory that are kept.
    pub(super) fn names_max(&self) -> usize {
        NAMES_MAX.min(self.memory.options.entries / SHARE)
    }
}

/// Where the attributes of a path come from that are not remembered.
pub(super) enum Boarding {
    /// They are, by now.
    Known(Known),
    /// Somebody is asking for them.
    Join(Arc<Flight>),
    /// Who wants them has to ask.
    Ask(Question),
}
