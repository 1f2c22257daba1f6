//! A simulated day of a machine with favourites, scans, files that change, and a disk that fails and fills and is damaged,
//! with restarts and kills between: each single read is a hit or a miss as a plain model of the policy says.
//!
//! Time is handed in. `CACHE_DAY_READS=5000000` makes the day as long as that, for each policy.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use tempfile::TempDir;

use super::tests::blocks;
use super::tests::eventually;
use super::tests::settle;
use super::*;
use crate::backend::local::LocalFs;
use crate::fs::Timestamp;

/// Two pieces of what a disk gives out, so that pages differ in what they take.
const PAGE: u64 = 8192;
const FILES: usize = 2000;
const FILE_MAX: u64 = 8 * PAGE;
const DAY: u64 = 24 * 3600;
const BEGIN: u64 = 1_000_000;
/// How long a directory is left alone after a failure.
const SHUN: u64 = 30;
const SIZES: [u64; 2] = [700 * PAGE, 1000 * PAGE];
const ORIGIN: &str = "a made store";

const READS: u64 = 20_000;

fn reads_of_a_day() -> u64 {
    std::env::var("CACHE_DAY_READS").map_or(READS, |text| text.parse().unwrap())
}

/// Six hours; of a busier day less, or else nothing would stay until its time is over.
fn ttl() -> u64 {
    (6 * 3600 * READS / reads_of_a_day()).max(60)
}

/// Without a real disk, if there is memory for files: a day makes and removes very many.
fn disk() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % bound
    }
}

/// The bytes `offset..offset + len` of generation `generation` of file `id`; `offset` is a multiple of 8.
fn content(id: u64, generation: u64, offset: u64, len: usize) -> Vec<u8> {
    let start = mix(id << 32 | generation);
    let words = (offset / 8..).map(|word| mix(start ^ word).to_le_bytes());
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

/// Files that are made as they are read, by their number.
struct Made {
    below: LocalFs,
    attrs: Mutex<Vec<Attr>>,
}

struct MadeReader(Attr);

impl Layer for Made {
    fn below(&self) -> &dyn FileSystem {
        &self.below
    }

    fn open(&self, _ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let number: usize = path.as_str()[1..].parse().unwrap();
        Ok(Arc::new(MadeReader(self.attrs.lock()[number].clone())))
    }
}

impl FileReader for MadeReader {
    fn attr(&self) -> &Attr {
        &self.0
    }

    fn read_at(&self, _ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        let bytes = content(self.0.id, self.0.mtime.secs as u64, offset, len);
        Ok(Bytes::from(bytes).into())
    }
}

/// What page `index` of `version` takes: whole pieces of the disk, and its share of the one with the list.
fn weight(version: &Version, index: u32) -> u64 {
    version.page_len(PAGE, index).next_multiple_of(4096) + 4096_u64.div_ceil(u64::from(version.pages(PAGE)))
}

/// A page that the model has.
struct Kept {
    weight: u64,
    uses: u32,
    class: u32,
    /// The larger, the later it was used.
    turn: u64,
    came: u64,
    damaged: bool,
}

type Key = (Version, u32);

/// What one directory should hold.
#[derive(Default)]
struct Shelf {
    limit: u64,
    pages: BTreeMap<Key, Kept>,
    shunned_until: u64,
}

/// The policies in the simplest way: a list of pages, and a look at all of them for each that has to go.
struct Model {
    policy: Policy,
    shelves: Vec<Shelf>,
    turn: u64,
    /// Pages that went while the lists could not be written: the next process may take them for there.
    stale: BTreeSet<Key>,
}

/// What fails during a read.
#[derive(Clone, Copy, PartialEq)]
enum Failing {
    Nothing,
    Disk(Access),
}

impl Shelf {
    fn used(&self) -> u64 {
        self.pages.values().map(|kept| kept.weight).sum()
    }

    fn upper(&self) -> u64 {
        self.pages.values().filter(|kept| kept.class > 0).map(|kept| kept.weight).sum()
    }

    /// The page that goes first of those in class `least` and above.
    fn first(&self, least: u32) -> Option<Key> {
        let pages = self.pages.iter().filter(|(_, kept)| kept.class >= least);
        pages.min_by_key(|(_, kept)| (kept.class, kept.turn)).map(|(key, _)| *key)
    }
}

impl Model {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn touch(&mut self, place: usize, key: Key) {
        let (turn, policy) = (self.next_turn(), self.policy);
        let shelf = &mut self.shelves[place];
        let kept = shelf.pages.get_mut(&key).unwrap();
        kept.uses += 1;
        match policy {
            Policy::Lru => (kept.class, kept.turn) = (1, turn),
            Policy::Lfu => (kept.class, kept.turn) = (kept.uses.ilog2(), turn),
            Policy::Fifo | Policy::Unevictable => {}
        }
        // What is used again may fill four fifths; of more, the first goes back among those that just came.
        while policy == Policy::Lru && self.shelves[place].upper() > self.shelves[place].limit / 100 * 80 {
            let (first, turn) = (self.shelves[place].first(1).unwrap(), self.next_turn());
            let kept = self.shelves[place].pages.get_mut(&first).unwrap();
            (kept.uses, kept.class, kept.turn) = (1, 0, turn);
        }
    }

    /// A read of a page at `now`, after another page unless `again`: whether it should be a hit.
    fn read(&mut self, place: usize, key: Key, weight: u64, now: u64, again: bool, failing: Failing) -> bool {
        match self.shelves[place].pages.get(&key) {
            Some(kept) if !kept.damaged && failing != Failing::Disk(Access::Read) => {
                if !again {
                    self.touch(place, key);
                }
                return true;
            }
            Some(_) => {
                self.shelves[place].pages.remove(&key);
                if failing == Failing::Disk(Access::WriteList) {
                    self.stale.insert(key);
                }
            }
            None => {}
        }
        self.put(place, key, weight, now, failing);
        false
    }

    fn put(&mut self, place: usize, key: Key, weight: u64, now: u64, failing: Failing) {
        let turn = self.next_turn();
        let shelf = &mut self.shelves[place];
        if now < shelf.shunned_until {
            return;
        }
        while shelf.used() + weight > shelf.limit {
            if self.policy == Policy::Unevictable {
                shelf.shunned_until = now + store::FULL;
                return;
            }
            let first = shelf.first(0).unwrap();
            shelf.pages.remove(&first);
            if failing == Failing::Disk(Access::WriteList) {
                self.stale.insert(first);
            }
        }
        if matches!(failing, Failing::Disk(Access::WriteData | Access::WriteList)) {
            shelf.shunned_until = now + SHUN;
            return;
        }
        self.stale.remove(&key);
        let kept = Kept { weight, uses: 1, class: 0, turn, came: now, damaged: false };
        shelf.pages.insert(key, kept);
    }

    fn expire(&mut self, now: u64) -> usize {
        let before: usize = self.shelves.iter().map(|shelf| shelf.pages.len()).sum();
        let ttl = ttl();
        self.shelves.iter_mut().for_each(|shelf| shelf.pages.retain(|_, kept| kept.came + ttl > now));
        before - self.shelves.iter().map(|shelf| shelf.pages.len()).sum::<usize>()
    }
}

/// The cache, what is below it, and the model beside it.
struct Day {
    below: Arc<Made>,
    _empty: TempDir,
    dirs: Vec<TempDir>,
    options: DataOptions,
    cache: Option<DataCache>,
    model: Model,
    now: Arc<AtomicU64>,
    /// As a number of [`Failing`].
    failing: Arc<AtomicUsize>,
    random: Random,
    reads: u64,
    hits: u64,
    restarts: u64,
}

const FAILURES: [Access; 3] = [Access::Read, Access::WriteData, Access::WriteList];

impl Day {
    fn new(policy: Policy) -> Self {
        let empty = tempfile::tempdir().unwrap();
        let attr = LocalFs::open(empty.path()).unwrap().stat(&Ctx::daemon(), &FsPath::root()).unwrap();
        let mut random = Random(policy as u64);
        let attrs = (1..=FILES as u64).map(|id| Attr {
            id,
            kind: FileKind::Regular,
            size: 1 + random.below(FILE_MAX),
            mtime: Timestamp { secs: 1, nanos: 0 },
            ..attr.clone()
        });
        let attrs = Mutex::new(attrs.collect());
        let dirs: Vec<TempDir> = SIZES.iter().map(|_| disk()).collect();
        let (now, failing) = (Arc::new(AtomicU64::new(BEGIN)), Arc::new(AtomicUsize::new(0)));
        let (clock, fails) = (Arc::clone(&now), Arc::clone(&failing));
        let options = DataOptions {
            directories: dirs.iter().zip(SIZES).map(|(dir, size)| (dir.path().to_owned(), size)).collect(),
            page_size: PAGE,
            policy,
            ttl: Some(ttl()),
            // It is the day that says when.
            ttl_interval: Duration::from_secs(3600),
            origin: ORIGIN.to_owned(),
            below_is_local: true,
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            memory: None,
            faults: Some(Arc::new(move |access| {
                let number = fails.load(Ordering::Relaxed);
                if number > 0 && FAILURES[number - 1] == access { Err(Errno::EIO.into()) } else { Ok(()) }
            })),
        };
        let shelves = SIZES.map(|limit| Shelf { limit, ..Shelf::default() }).into();
        let model = Model { policy, shelves, turn: 0, stale: BTreeSet::new() };
        let below = Arc::new(Made { below: LocalFs::open(empty.path()).unwrap(), attrs });
        let mut day = Self {
            below,
            _empty: empty,
            dirs,
            options,
            cache: None,
            model,
            now,
            failing,
            random,
            reads: 0,
            hits: 0,
            restarts: 0,
        };
        day.start();
        day
    }

    fn start(&mut self) {
        let below = Arc::clone(&self.below) as Arc<dyn FileSystem>;
        let cache = DataCache::open(below, &self.options).unwrap();
        eventually(|| cache.shared.store.places_counted());
        self.cache = Some(cache);
    }

    fn cache(&self) -> &DataCache {
        self.cache.as_ref().unwrap()
    }

    fn version(&self, file: usize) -> Version {
        Version::of(record::origin(ORIGIN), &self.below.attrs.lock()[file])
    }

    /// Somebody opens `file` and reads these pages of it, one after the other.
    fn read(&mut self, file: usize, pages: &[u32], failing: Failing) {
        let (ctx, version) = (Ctx::daemon(), self.version(file));
        let path = FsPath::parse(&format!("/{file}")).unwrap();
        let store = Arc::clone(&self.cache().shared.store);
        let place = store.place_of(&version);
        let reader = Layer::open(self.cache(), &ctx, &path).unwrap();
        self.failing.store(
            match failing {
                Failing::Nothing => 0,
                Failing::Disk(access) => 1 + FAILURES.iter().position(|known| *known == access).unwrap(),
            },
            Ordering::Relaxed,
        );
        let mut last = None;
        for &index in pages {
            let page = version.page_len(PAGE, index);
            let from = self.random.below(page) & !7;
            let len = (1 + self.random.below(100)).min(page - from) as usize;
            let weight = weight(&version, index);
            let now = self.now.load(Ordering::Relaxed);
            let missed = store.counters.missed.value();
            let offset = u64::from(index) * PAGE + from;
            let got = reader.read_at(&ctx, offset, len).unwrap().copied().unwrap();
            assert!(got == content(version.id, version.mtime.secs as u64, offset, len), "wrong bytes");
            settle(self.cache.as_ref().unwrap());
            let hit = store.counters.missed.value() == missed;
            let again = last == Some(index);
            let predicted = self.model.read(place, (version, index), weight, now, again, failing);
            assert_eq!(hit, predicted, "read {}: page {index} of {}", self.reads, version.name());
            (self.reads, self.hits, last) = (self.reads + 1, self.hits + u64::from(hit), Some(index));
        }
        self.failing.store(0, Ordering::Relaxed);
    }

    /// Any page of the cache gets other bytes on the disk.
    fn damage(&mut self) {
        let place = self.random.below(SIZES.len() as u64) as usize;
        let pages = &mut self.model.shelves[place].pages;
        let any = self.random.below(1 + pages.len() as u64) as usize;
        let Some((&(version, index), kept)) = pages.iter_mut().nth(any) else { return };
        kept.damaged = true;
        let path = self.cache.as_ref().unwrap().shared.store.paths(&version).data;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"damage", u64::from(index) * PAGE).unwrap();
    }

    /// The process ends and another one comes; `killed` while it wrote a page and an entry of a list.
    fn restart(&mut self, killed: bool) {
        self.restarts += 1;
        let store = Arc::clone(&self.cache().shared.store);
        let any = self.random.below(FILES as u64) as usize;
        let half = (any..FILES).map(|file| self.version(file)).find(|version| {
            let pages = version.pages(PAGE);
            let has =
                |index| self.model.shelves.iter().any(|shelf| shelf.pages.contains_key(&(*version, index)));
            (0..pages).any(has) && !has(pages - 1)
        });
        let half = half.map(|version| (store.paths(&version), u64::from(version.pages(PAGE) - 1) * PAGE));
        drop((store, self.cache.take()));
        if killed && let Some((paths, offset)) = half {
            let data = fs::OpenOptions::new().write(true).open(paths.data).unwrap();
            data.write_all_at(&[7; 4096], offset).unwrap();
            let mut list = fs::read(&paths.pages).unwrap();
            list.extend(list[record::HEADER..record::HEADER + 20].to_owned());
            fs::write(&paths.pages, list).unwrap();
        }
        self.start();
        self.take_over();
    }

    /// After a restart the model has the pages that the cache has, all of them as if they had been used once.
    fn take_over(&mut self) {
        let store = Arc::clone(&self.cache().shared.store);
        for (place, shelf) in self.model.shelves.iter_mut().enumerate() {
            let mut before = std::mem::take(&mut shelf.pages);
            for key in store.in_order(place) {
                self.model.turn += 1;
                let turn = self.model.turn;
                // What has no bytes, but an entry that could not be taken back, is found out when it is read.
                let kept = before.remove(&key).unwrap_or_else(|| {
                    assert!(self.model.stale.contains(&key), "{} of {}", key.1, key.0.name());
                    let weight = weight(&key.0, key.1);
                    let files = store.file(key.0);
                    let came = files.pages().iter().find(|(index, _)| *index == key.1).unwrap().1;
                    Kept { weight, uses: 1, class: 0, turn, came, damaged: true }
                });
                shelf.pages.insert(key, Kept { uses: 1, class: 0, turn, ..kept });
            }
            assert!(before.is_empty() || !self.model.stale.is_empty(), "{} pages were lost", before.len());
            shelf.shunned_until = 0;
        }
        self.model.stale.clear();
    }

    fn check(&self) {
        let store = &self.cache().shared.store;
        for (place, shelf) in self.model.shelves.iter().enumerate() {
            assert_eq!(store.used_in(place), shelf.used(), "after {} reads", self.reads);
            let disk = blocks(self.dirs[place].path());
            assert!(disk <= shelf.limit && shelf.used() <= shelf.limit, "{disk} of {}", shelf.limit);
        }
    }

    /// What happens next.
    fn step(&mut self, favourites: &[u64]) {
        let failing = match self.random.below(150) {
            n @ 0..3 => Failing::Disk(FAILURES[n as usize]),
            _ => Failing::Nothing,
        };
        match self.random.below(300) {
            0 => {
                let from = self.random.below(FILES as u64) as usize;
                for file in (from..FILES).take(60) {
                    let pages: Vec<u32> = (0..self.version(file).pages(PAGE)).collect();
                    self.read(file, &pages, Failing::Nothing);
                }
            }
            1..9 => {
                let file = self.random.below(FILES as u64) as usize;
                let attr = &mut self.below.attrs.lock()[file];
                attr.mtime.secs += 1;
                attr.size = 1 + self.random.below(FILE_MAX);
            }
            9 => self.damage(),
            _ => {
                let point = self.random.below(*favourites.last().unwrap());
                let file = favourites.partition_point(|sum| *sum <= point);
                let count = u64::from(self.version(file).pages(PAGE));
                let reads = 1 + self.random.below(8);
                let pages: Vec<u32> = (0..reads).map(|_| self.random.below(count) as u32).collect();
                self.read(file, &pages, failing);
            }
        }
    }

    fn run(mut self, reads: u64) -> f64 {
        // Zipf: the n-th favourite is read so many times as often as the last one.
        let favourites: Vec<u64> = (1..=FILES as u64)
            .scan(0, |sum, n| {
                *sum += 1_000_000 / n;
                Some(*sum)
            })
            .collect();
        let (mut looked, mut expired) = (0, 0);
        while self.reads < reads {
            let now = BEGIN + (self.reads * DAY / reads).min(DAY);
            self.now.store(now, Ordering::Relaxed);
            // Every ten minutes what is too old goes; every half an hour the process ends in one way or the other.
            let minutes = (now - BEGIN) / 600;
            if minutes > looked {
                looked = minutes;
                self.cache().shared.store.expire();
                expired += self.model.expire(now);
                self.check();
                if minutes.is_multiple_of(3) {
                    self.restart(minutes.is_multiple_of(2));
                    self.check();
                }
            }
            self.step(&favourites);
        }
        self.check();
        assert!(self.restarts > 40 && expired > 0, "{} {expired}", self.restarts);
        let cache = self.cache();
        cache.drop_all();
        settle(cache);
        assert_eq!(cache.usage(), DataUse { pages: 0, bytes: 0 });
        eventually(|| cache.shared.store.is_empty());
        assert_eq!(self.dirs.iter().map(|dir| blocks(dir.path())).sum::<u64>(), 0);
        self.hits as f64 / self.reads as f64
    }
}

#[test]
fn a_day_with_the_least_recently_used_going_first_is_as_the_model_says() {
    let rate = Day::new(Policy::Lru).run(reads_of_a_day());
    assert!(rate > 0.5, "{rate}");
}

#[test]
fn a_day_with_the_least_often_used_going_first_is_as_the_model_says() {
    let rate = Day::new(Policy::Lfu).run(reads_of_a_day());
    assert!(rate > 0.5, "{rate}");
}

#[test]
fn a_day_with_the_first_going_first_is_as_the_model_says() {
    let rate = Day::new(Policy::Fifo).run(reads_of_a_day());
    assert!(rate > 0.4, "{rate}");
}

#[test]
fn a_day_without_eviction_is_as_the_model_says() {
    let rate = Day::new(Policy::Unevictable).run(reads_of_a_day() / 2);
    assert!(rate > 0.2, "{rate}");
}
