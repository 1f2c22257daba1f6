//! The caches in all combinations, beside another client that changes what they hold: each mount shows the old or the new
//! state exactly as SEMANTICS.md says, and never a mixture.
//!
//! Each test has eight mounts of one directory (data cache, metadata cache and passthrough, each on or off; the times
//! differ) and one mount without any cache that makes the changes, as the Alluxio shell does now and then. The steps look
//! random and are the same each time; `COMBINATION_STEPS=1000` makes more of them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use tempfile::TempDir;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::content;
use common::content::Random;
use common::mount::Mount;
use common::mount::Spec;
use common::users;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const DIRS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["x", "y", "z"];
/// Larger than two blocks of the cluster's files, and many pages of the data cache.
const SIZE_MAX: u64 = 600_000;
const HANDLES_MAX: usize = 4;
/// Clocks of the kernel that are coarser than ours.
const SLACK: Duration = Duration::from_millis(100);

fn steps() -> u64 {
    std::env::var("COMBINATION_STEPS").map_or(30, |text| text.parse().unwrap())
}

/// A file as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    seed: u64,
    size: u64,
    mtime: (i64, i64),
}

/// What a path was, one state after the other.
#[derive(Default)]
struct History(Vec<State>);

struct State {
    version: Option<Version>,
    /// When the change to the next one had been made.
    until: Option<Instant>,
}

impl History {
    fn now(&self) -> Option<Version> {
        self.0.last().and_then(|state| state.version)
    }

    fn last(&self) -> usize {
        self.0.len() - 1
    }

    fn change(&mut self, version: Option<Version>) {
        if let Some(state) = self.0.last_mut() {
            state.until = Some(Instant::now());
        }
        self.0.push(State { version, until: None });
    }

    /// The first state from `floor` on that `matches` and may be shown at `begun` by who believes anything for `belief`.
    fn find(
        &self,
        floor: usize,
        begun: Instant,
        belief: Duration,
        matches: impl Fn(Option<Version>) -> bool,
    ) -> Option<usize> {
        let may_be_shown = |state: &State| state.until.is_none_or(|until| begun <= until + belief);
        (floor..self.0.len()).find(|&n| may_be_shown(&self.0[n]) && matches(self.0[n].version))
    }
}

/// The files by their paths in the mounts, and who changes them.
struct World {
    cluster: Cluster,
    remote: RemoteDir,
    other: Mount,
    files: BTreeMap<String, History>,
    random: Random,
    seeds: u64,
}

impl World {
    fn new(number: u64) -> World {
        let cluster = Cluster::get();
        let remote = cluster.directory("combinations");
        // Some of the files are in one block, which may be passed through, some in several.
        let other = Spec::alluxio(&cluster, &remote.path)
            .option("direct_io,attr_timeout=0,entry_timeout=0")
            .property("alluxio.user.block.size.bytes.default", "256KB")
            .property("alluxio.user.file.writetype.default", "MUST_CACHE")
            .start();
        let mut world = World {
            cluster,
            remote,
            other,
            files: BTreeMap::new(),
            random: Random::new(number << 40),
            seeds: number << 20,
        };
        for dir in DIRS {
            fs::create_dir(world.other.path().join(dir)).unwrap();
            for name in NAMES {
                let path = format!("{dir}/{name}");
                world.files.insert(path.clone(), History::default());
                world.files.get_mut(&path).unwrap().change(None);
                world.write(&path);
            }
        }
        world
    }

    fn any(&mut self) -> String {
        let (dir, name) = (self.random.below(3) as usize, self.random.below(3) as usize);
        format!("{}/{}", DIRS[dir], NAMES[name])
    }

    /// What the cluster says of `path`.
    fn mtime(&self, path: &str) -> (i64, i64) {
        let found = fs::metadata(self.other.path().join(path)).unwrap();
        (found.mtime(), found.mtime_nsec())
    }

    /// Writes `path` anew, in half of the cases as long as before.
    fn write(&mut self, path: &str) {
        self.seeds += 1;
        let before = self.files[path].now();
        let size = match before {
            Some(before) if self.random.below(2) == 0 => before.size,
            _ => 1 + self.random.below(SIZE_MAX),
        };
        let at = self.other.path().join(path);
        match before {
            Some(_) => content::overwrite_file(&at, self.seeds, size).unwrap(),
            None => content::write_file(&at, self.seeds, size).unwrap(),
        }
        let version = Version { seed: self.seeds, size, mtime: self.mtime(path) };
        self.files.get_mut(path).unwrap().change(Some(version));
    }

    fn remove(&mut self, path: &str, by_shell: bool) {
        if self.files[path].now().is_none() {
            return;
        }
        if by_shell {
            self.cluster.shell(&["rm", &self.remote.join(path)]);
        } else {
            fs::remove_file(self.other.path().join(path)).unwrap();
        }
        self.files.get_mut(path).unwrap().change(None);
    }

    fn rename(&mut self, from: &str, to: &str, by_shell: bool) {
        let Some(version) = self.files[from].now().filter(|_| from != to) else { return };
        // The shell does not rename over what is there.
        if by_shell && self.files[to].now().is_none() {
            self.cluster.shell(&["mv", &self.remote.join(from), &self.remote.join(to)]);
        } else {
            fs::rename(self.other.path().join(from), self.other.path().join(to)).unwrap();
        }
        self.files.get_mut(from).unwrap().change(None);
        self.files.get_mut(to).unwrap().change(Some(version));
    }

    /// Two directories change their names.
    fn exchange(&mut self, one: &str, other: &str) {
        let root = self.other.path();
        for (from, to) in [(one, "aside"), (other, one), ("aside", other)] {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
        for name in NAMES {
            let paths = [format!("{one}/{name}"), format!("{other}/{name}")];
            let [first, second] = [0, 1].map(|n| self.files[&paths[n]].now());
            self.files.get_mut(&paths[0]).unwrap().change(second);
            self.files.get_mut(&paths[1]).unwrap().change(first);
        }
    }

    fn change_something(&mut self) {
        let (path, to) = (self.any(), self.any());
        let by_shell = self.random.below(4) == 0;
        match self.random.below(10) {
            0..5 => self.write(&path),
            5 => self.remove(&path, by_shell),
            6..9 => self.rename(&path, &to, by_shell),
            _ => self.exchange("a", "b"),
        }
    }
}

/// An open file, which stays what it was.
struct Handle {
    file: File,
    version: Version,
}

/// A mount with caches, and what it has shown already.
struct Side {
    name: String,
    mount: Mount,
    _disk: TempDir,
    data: bool,
    metadata: Option<Duration>,
    kernel: Duration,
    passthrough: bool,
    /// By path: no state before this one may be shown by stat, by a list of names.
    floors: BTreeMap<String, (usize, usize)>,
    handles: Vec<Handle>,
    /// How often a state was shown that was not the present one.
    old: u64,
}

impl Side {
    /// Combination `number` of eight in the mode `pages` of the kernel's page cache, which is the `mode`-th.
    fn mount(world: &World, number: usize, pages: &str, mode: usize) -> Side {
        let [data, remembers, passthrough] = [1, 2, 4].map(|bit| number & bit != 0);
        let disk = tempfile::tempdir().unwrap();
        let metadata = remembers.then(|| Duration::from_secs([3600, 1][(number / 4 + number + mode) % 2]));
        let kernel = [0, 1, 600][(number + mode) % 3];
        let mut spec = Spec::alluxio(&world.cluster, &world.remote.path)
            .option(&format!("attr_timeout={kernel},entry_timeout={kernel}"))
            .property("alluxio.fuse.special.command.enabled", "true")
            .property("alluxio.fuse.passthrough.enabled", if passthrough { "true" } else { "false" });
        if pages != "neither" {
            spec = spec.option(pages);
        }
        // Half of them.
        let io_uring = number.count_ones() % 2 == 1;
        if io_uring {
            spec = spec.option("io_uring");
        }
        if let Some(time) = metadata {
            let time = time.as_secs();
            spec = spec.option(&format!("metadata_cache_size=2000,metadata_cache_expire={time}s"));
        }
        if data {
            // Too small for all. Blocks of this machine would not be cached.
            spec = spec
                .option(&format!("data_cache={},data_cache_size=4MB", disk.path().display()))
                .property("alluxio.user.client.cache.page.size", "64KB")
                .property("alluxio.user.short.circuit.enabled", "false");
        }
        let name = format!(
            "data cache {data}, metadata cache {metadata:?}, kernel {kernel} s, {pages}, passthrough {passthrough}, \
             io_uring {io_uring}"
        );
        let kernel = Duration::from_secs(kernel);
        let floors =
            world.files.iter().map(|(path, history)| (path.clone(), (history.last(), history.last())));
        let floors = floors.collect();
        let mount = spec.start();
        Side {
            name,
            mount,
            _disk: disk,
            data,
            metadata,
            kernel,
            passthrough,
            floors,
            handles: Vec::new(),
            old: 0,
        }
    }

    /// How old a stat, a list of names may be.
    fn beliefs(&self) -> (Duration, Duration) {
        let metadata = self.metadata.unwrap_or_default();
        let with_slack = |time: Duration| if time.is_zero() { time } else { time + SLACK };
        (with_slack(metadata + self.kernel), with_slack(metadata))
    }

    fn do_something(&mut self, world: &mut World) {
        let path = world.any();
        match world.random.below(16) {
            0..6 => self.stat(world, &path),
            6..10 => self.open(world, &path),
            10..12 => self.list(world, path.split('/').next().unwrap()),
            12..14 => self.read_on(world),
            14 => self.drop_metadata(world, &path),
            _ => self.drop_data(&path),
        }
    }

    fn stat(&mut self, world: &World, path: &str) {
        let begun = Instant::now();
        let found = match fs::metadata(self.mount.path().join(path)) {
            Ok(found) => Some((found.len(), (found.mtime(), found.mtime_nsec()))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => panic!("{}: stat {path}: {err}", self.name),
        };
        let belief = self.beliefs().0;
        let (history, floor) = (&world.files[path], self.floors.get_mut(path).unwrap());
        let is_it = |version: Option<Version>| version.map(|version| (version.size, version.mtime)) == found;
        let state = history.find(floor.0, begun, belief, is_it).unwrap_or_else(|| {
            panic!("{}: {path} is {found:?}, it is {:?}", self.name, history.now());
        });
        self.old += u64::from(!is_it(history.now()));
        // The kernel may go on to believe what it was told before.
        if self.kernel.is_zero() {
            floor.0 = state;
        }
    }

    /// An open shows the present file, in all combinations, unless the name is remembered as absent.
    fn open(&mut self, world: &mut World, path: &str) {
        let (history, now) = (&world.files[path], world.files[path].now());
        let (begun, belief, floor) = (Instant::now(), self.beliefs().0, self.floors[path].0);
        let file = match File::open(self.mount.path().join(path)) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let absent = history.find(floor, begun, belief, |version| version.is_none());
                assert!(absent.is_some(), "{}: open {path}: {err}, it is {now:?}", self.name);
                return;
            }
            Err(err) => panic!("{}: open {path}: {err}, it is {now:?}", self.name),
        };
        let version = now.unwrap_or_else(|| panic!("{}: {path} was opened, it is not there", self.name));
        let found = file.metadata().unwrap();
        let shown = (found.len(), (found.mtime(), found.mtime_nsec()));
        assert_eq!(shown, (version.size, version.mtime), "{}: open {path}", self.name);
        self.floors.get_mut(path).unwrap().0 = history.last();
        let handle = Handle { file, version };
        assert!(self.reads_right(world, &handle), "{}: {path} was just opened", self.name);
        if world.random.below(2) == 0 {
            let whole = content::check_range(&handle.file, version.seed, 0, version.size as usize);
            whole.unwrap_or_else(|wrong| panic!("{}: {path}: {wrong}", self.name));
        }
        if self.handles.len() == HANDLES_MAX {
            self.handles.remove(0);
        }
        self.handles.push(handle);
    }

    /// Reads a part of `handle`: whether there is anything of its version any more. Other bytes are a failure.
    fn reads_right(&self, world: &mut World, handle: &Handle) -> bool {
        let Version { seed, size, .. } = handle.version;
        let offset = world.random.below(size);
        let len = (1 + world.random.below(200_000)).min(size - offset);
        let (mut got, mut wanted) = (vec![0; len as usize], vec![0; len as usize]);
        match handle.file.read_exact_at(&mut got, offset) {
            Ok(()) => {}
            Err(err) if err.raw_os_error() == Some(Errno::ESTALE as i32) => return false,
            Err(err) => panic!("{}: read at {offset} of {:?}: {err}", self.name, handle.version),
        }
        content::fill(seed, offset, &mut wanted);
        assert!(got == wanted, "{}: {len} bytes at {offset} are not those of {seed}", self.name);
        true
    }

    fn read_on(&mut self, world: &mut World) {
        if self.handles.is_empty() {
            return;
        }
        let handle = self.handles.remove(world.random.below(self.handles.len() as u64) as usize);
        assert_eq!(handle.file.metadata().unwrap().len(), handle.version.size, "{}", self.name);
        if self.reads_right(world, &handle) {
            self.handles.push(handle);
        }
    }

    fn list(&mut self, world: &World, dir: &str) {
        let begun = Instant::now();
        let names: Vec<String> = fs::read_dir(self.mount.path().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().all(|name| NAMES.contains(&&**name)), "{}: {names:?}", self.name);
        let belief = self.beliefs().1;
        for name in NAMES {
            let path = format!("{dir}/{name}");
            let (history, floor) = (&world.files[&path], self.floors[&path].1);
            let is_there = names.iter().any(|found| found == name);
            let found = history.find(floor, begun, belief, |version| version.is_some() == is_there);
            assert!(found.is_some(), "{}: {path} in {names:?}, it is {:?}", self.name, history.now());
            self.old += u64::from(history.now().is_some() != is_there);
        }
    }

    fn look_at(&self, path: &Path) {
        fs::metadata(path).unwrap_or_else(|err| panic!("{}: {}: {err}", self.name, path.display()));
    }

    fn drop_metadata(&mut self, world: &World, path: &str) {
        if self.metadata.is_none() {
            return;
        }
        let dir = path.split('/').next().unwrap();
        self.look_at(&self.mount.path().join(dir).join(".alluxiocli.metadatacache.drop"));
        for name in NAMES {
            let path = format!("{dir}/{name}");
            self.floors.insert(path.clone(), (world.files[&path].last(), world.files[&path].last()));
        }
    }

    fn drop_all_metadata(&mut self, world: &World) {
        self.look_at(&self.mount.path().join(".alluxiocli.metadatacache.dropAll"));
        for (path, floor) in &mut self.floors {
            *floor = (world.files[path].last(), world.files[path].last());
        }
    }

    fn drop_data(&self, path: &str) {
        if self.data {
            let dir = self.mount.path().join(path.split('/').next().unwrap());
            self.look_at(&dir.join(".alluxiocli.datacache.drop"));
        }
    }

    /// After all changes: the present state is seen when the times are over, or after a command; by an open at once.
    fn settle(&mut self, world: &mut World) {
        let paths: Vec<String> = world.files.keys().cloned().collect();
        let belief = self.beliefs().0;
        if belief < LIMIT {
            let shows_all = || {
                paths.iter().all(|path| {
                    let found = fs::metadata(self.mount.path().join(path)).ok();
                    let found = found.map(|found| (found.len(), (found.mtime(), found.mtime_nsec())));
                    found == world.files[path].now().map(|version| (version.size, version.mtime))
                })
            };
            wait_until(&format!("{}: the present state", self.name), LIMIT, shows_all);
        } else if self.metadata.is_some() {
            self.drop_all_metadata(world);
        }
        for path in &paths {
            self.stat(world, path);
            self.open(world, path);
            self.stat(world, path);
        }
    }
}

/// The mounts in the mode `pages` of the kernel's page cache.
fn check(pages: &str, mode: usize) {
    let mut world = World::new(mode as u64 + 1);
    let mut sides: Vec<Side> = (0..8).map(|number| Side::mount(&world, number, pages, mode)).collect();
    for _ in 0..steps() {
        for side in &mut sides {
            (0..6).for_each(|_| side.do_something(&mut world));
        }
        world.change_something();
    }
    sides.iter_mut().for_each(|side| side.settle(&mut world));
    // That the caches were there to be seen through.
    for side in sides {
        let Side { name, mount, handles, .. } = side;
        drop(handles);
        let believes = side.metadata.unwrap_or_default() + side.kernel > Duration::from_secs(10);
        assert!(!believes || side.old > 0, "{name}: nothing old was ever shown");
        let passed = mount.counted("opens for reading (passed through)");
        assert!(side.passthrough || passed == 0, "{name}");
        if side.passthrough
            && users::are_available()
            && mount.counted("opens for reading (not offered by the kernel)") == 0
        {
            assert!(passed > 0, "{name}");
        }
        mount.unmount();
    }
    world.other.unmount();
}

#[test]
fn with_direct_io_old_and_new_are_shown_as_the_contract_says() {
    check("direct_io", 0);
}

#[test]
fn with_kernel_cache_old_and_new_are_shown_as_the_contract_says() {
    check("kernel_cache", 1);
}

#[test]
fn with_auto_cache_old_and_new_are_shown_as_the_contract_says() {
    check("auto_cache", 2);
}

#[test]
fn without_a_word_for_pages_old_and_new_are_shown_as_the_contract_says() {
    check("neither", 3);
}
