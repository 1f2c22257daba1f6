//! The memory of the metadata cache: what is known of paths, bounded by number and by bytes, each for a time. Knows
//! neither backends nor threads, and not what time it is.
//!
//! A directory's names are kept under its path with a slash at the end, so that everything below a directory is one
//! range of keys. A listing has no attributes of its own: those are the entries' of its names, and so never older than
//! what stat(2) shows.
//!
//! Invariant: `index` has exactly the keys that `map` has, and `bytes` is the sum of what they take.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use quick_cache::Lifecycle;
use quick_cache::OptionsBuilder;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::fs::Attr;
use crate::fs::FsPath;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most entries: attributes, absent names, and lists of names.
    pub(super) entries: usize,
    /// Most bytes of all entries.
    pub(super) bytes: u64,
    /// How long an entry is good for.
    pub(super) expiry: Duration,
}

/// What one entry takes beside its texts: its place in the map and the index, the attributes, and what the allocator adds.
/// Measured as growth of the process: 254 to 269 bytes with paths of 34 bytes, 328 with paths of 100, 100,000 and a million of
/// them (2026-11-23, x86-64, glibc).
const ENTRY_BYTES: u64 = 236;

/// Weights are shares of this.
const WHOLE: u64 = 1 << 40;

/// From so many entries on, a part of the room is for what was used once.
const MANY: usize = 100;

/// What is known of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    /// It is there.
    Attr(Attr),
    /// It is not.
    Absent,
}

/// The names of a directory, in the backend's order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Each with a slash behind it.
    text: Box<str>,
}

impl Names {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        for name in names {
            text.push_str(name);
            text.push('/');
        }
        Self { text: text.into_boxed_str() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.split_terminator('/')
    }
}

enum Value {
    Known(Known),
    Names(Arc<Names>),
}

struct Kept {
    value: Value,
    /// The ways of access(2) in which it was found that it may be used.
    granted: u8,
    /// When it was asked for.
    since: Instant,
}

/// The bytes of an entry.
fn bytes_of(key: &str, value: &Value) -> u64 {
    let names = match value {
        Value::Known(_) => 0,
        Value::Names(names) => names.text.len() as u64,
    };
    ENTRY_BYTES + key.len() as u64 + names
}

/// An entry weighs what it takes of the scarcer, the number or the bytes: as long as all weigh no more than the whole, both
/// bounds hold.
#[derive(Clone)]
struct Share {
    entry: u64,
    bytes: u64,
}

impl Share {
    fn new(limits: &Limits) -> Self {
        Self { entry: WHOLE.div_ceil(limits.entries.max(1) as u64), bytes: limits.bytes.max(1) }
    }
}

impl Weighter<Arc<str>, Kept> for Share {
    fn weight(&self, key: &Arc<str>, kept: &Kept) -> u64 {
        let bytes = u128::from(bytes_of(key, &kept.value)) * u128::from(WHOLE);
        let share = u64::try_from(bytes.div_ceil(u128::from(self.bytes))).unwrap_or(u64::MAX);
        share.max(self.entry)
    }
}

/// Tells what had to go.
#[derive(Clone)]
struct Gone;

impl Lifecycle<Arc<str>, Kept> for Gone {
    type RequestState = Vec<(Arc<str>, Kept)>;

    fn on_evict(&self, gone: &mut Self::RequestState, key: Arc<str>, kept: Kept) {
        gone.push((key, kept));
    }
}

/// All that is known.
pub(super) struct Store {
    limits: Limits,
    map: Cache<Arc<str>, Kept, Share, RandomState, Gone>,
    index: BTreeSet<Arc<str>>,
    bytes: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, map: Self::map(&limits), index: BTreeSet::new(), bytes: 0 }
    }

    fn map(limits: &Limits) -> Cache<Arc<str>, Kept, Share, RandomState, Gone> {
        let mut options = OptionsBuilder::new();
        // Grows as it is filled.
        options.estimated_items_capacity(limits.entries.min(MANY)).weight_capacity(WHOLE);
        if limits.entries < MANY {
            options.hot_allocation(1.0);
        }
        let options = options.build().expect("both capacities are given");
        Cache::with_options(options, Share::new(limits), RandomState::new(), Gone)
    }

    /// What is known of `path`.
    pub(super) fn known(&self, path: &str, now: Instant) -> Option<&Known> {
        match self.fresh(path, now)? {
            Value::Known(known) => Some(known),
            Value::Names(_) => None,
        }
    }

    /// The names in the directory `path`, if all of them are known.
    pub(super) fn names(&self, path: &FsPath, now: Instant) -> Option<Arc<Names>> {
        match self.fresh(&names_key(path), now)? {
            Value::Names(names) => Some(Arc::clone(names)),
            Value::Known(_) => None,
        }
    }

    fn fresh(&self, key: &str, now: Instant) -> Option<&Value> {
        let kept = self.map.get(key)?;
        self.is_fresh(kept, now).then_some(&kept.value)
    }

    fn is_fresh(&self, kept: &Kept, now: Instant) -> bool {
        now.saturating_duration_since(kept.since) < self.limits.expiry
    }

    /// Keeps what was asked for at `since`, unless something newer is known. The names of the directory that `path` is in
    /// are not all of them if they lack it.
    pub(super) fn learn(&mut self, path: &FsPath, known: Known, since: Instant) {
        if let Known::Attr(_) = known {
            self.forget_names_without(path);
        }
        self.put(path.as_str(), Value::Known(known), since);
    }

    /// Forgets the names of the directory that `path` is in, if they lack it: they are not all of them.
    pub(super) fn forget_names_without(&mut self, path: &FsPath) {
        let (Some(name), Some(parent)) = (path.name(), path.parent()) else { return };
        let key = names_key(&parent);
        let lacks = match self.map.peek(&*key) {
            Some(Kept { value: Value::Names(names), .. }) => !names.iter().any(|listed| listed == name),
            _ => false,
        };
        if lacks {
            self.remove(&key);
        }
    }

    /// Keeps the entries of the directory `path`, all of them.
    pub(super) fn learn_listing(&mut self, path: &FsPath, entries: Vec<(String, Attr)>, since: Instant) {
        let names = Names::new(entries.iter().map(|(name, _)| name.as_str()));
        let mut key = names_key(path);
        self.put(&key, Value::Names(Arc::new(names)), since);
        // That of the root is `//`, and names follow one slash.
        let start = if path.is_root() { 1 } else { key.len() };
        for (name, attr) in entries {
            key.truncate(start);
            key.push_str(&name);
            if attr.complete {
                self.put(&key, Value::Known(Known::Attr(attr)), since);
            } else {
                self.remove(&key);
            }
        }
    }

    /// `path` may be used in the ways of `mask`. That ends with what is known of it.
    pub(super) fn grant(&mut self, path: &FsPath, mask: u8) {
        if let Some(mut kept) = self.map.peek_mut(path.as_str()) {
            kept.granted |= mask;
        }
    }

    /// Whether `path` is known to be of use in the ways of `mask`.
    pub(super) fn is_granted(&self, path: &FsPath, mask: u8, now: Instant) -> bool {
        let known = self.map.get(path.as_str()).filter(|kept| self.is_fresh(kept, now));
        known.is_some_and(|kept| kept.granted & mask == mask)
    }

    fn put(&mut self, key: &str, value: Value, since: Instant) {
        if let Some(kept) = self.map.peek(key) {
            let same = match (&kept.value, &value) {
                (Value::Known(old), Value::Known(new)) => old == new && self.is_fresh(kept, since),
                _ => false,
            };
            // What may be done is kept with what is there, and not for longer than it was found to be so.
            if same || kept.since > since {
                return;
            }
        }
        let key = self.remove(key).unwrap_or_else(|| Arc::from(key));
        self.bytes += bytes_of(&key, &value);
        self.index.insert(Arc::clone(&key));
        let mut gone = Vec::new();
        self.map.insert_with_lifecycle(key, Kept { value, granted: 0, since }, &mut gone);
        for (key, kept) in gone {
            self.bytes -= bytes_of(&key, &kept.value);
            self.index.remove(&key);
        }
    }

    fn remove(&mut self, key: &str) -> Option<Arc<str>> {
        let (key, kept) = self.map.remove(key)?;
        self.bytes -= bytes_of(&key, &kept.value);
        self.index.remove(&key);
        Some(key)
    }

    /// Forgets what `path` is, and what its names are if it is a directory.
    pub(super) fn forget(&mut self, path: &FsPath) {
        self.remove(path.as_str());
        self.remove(&names_key(path));
    }

    /// Forgets `path` and everything below it.
    pub(super) fn forget_tree(&mut self, path: &FsPath) {
        if path.is_root() {
            return self.clear();
        }
        self.remove(path.as_str());
        let (from, to) = (names_key(path), format!("{path}{AFTER_SLASH}"));
        loop {
            // One by one, as removing changes what is looked at.
            let range = (Bound::Included(&*from), Bound::Excluded(&*to));
            let Some(key) = self.index.range::<str, _>(range).next().cloned() else { return };
            self.remove(&key);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        // A new map rather than an empty one: that keeps its memory.
        self.map = Self::map(&self.limits);
        self.index.clear();
        self.bytes = 0;
    }

    /// Entries that are still good.
    pub(super) fn len(&self, now: Instant) -> usize {
        self.map.iter().filter(|(_, kept)| self.is_fresh(kept, now)).count()
    }

    /// Bytes of all entries, also of those that are not good any more and have not been replaced yet.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The character after the slash.
const AFTER_SLASH: char = '0';

/// Where the names of the directory `path` are kept.
fn names_key(path: &FsPath) -> String {
    format!("{path}/")
}

#[cfg(test)]
mod tests;
