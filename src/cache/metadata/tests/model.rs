//! Random operations, through the cache and by others behind its back, with a clock that moves. What the cache says is
//! checked against all that was ever true: each answer was true at a moment within the time of an entry, and not before
//! the last change through the cache, or command to forget, that concerns it.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Make(usize),
    MakeDir(usize),
    Chmod(usize, u32),
    Remove(usize),
    Rename(usize, usize),
    OtherMakes(usize, u64),
    OtherChmods(usize, u32),
    OtherRemoves(usize),
    Stat(usize),
    Open(usize),
    List(usize),
    Wait(u64),
    ForgetAll,
    ForgetAround(usize),
}

const PATHS: [&str; 12] =
    ["/", "/a", "/b", "/a/x", "/a/y", "/a/x/1", "/a/x/2", "/b/x", "/b/x/1", "/ab", "/a/x/1/z", "/c"];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let any = 0..PATHS.len();
    let named = 1..PATHS.len();
    let op = prop_oneof![
        1 => named.clone().prop_map(Op::Make),
        1 => named.clone().prop_map(Op::MakeDir),
        1 => (named.clone(), 0..8u32).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => named.clone().prop_map(Op::Remove),
        1 => (named.clone(), named.clone()).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (named.clone(), 0..9u64).prop_map(|(path, size)| Op::OtherMakes(path, size)),
        1 => (named.clone(), 0..8u32).prop_map(|(path, mode)| Op::OtherChmods(path, mode)),
        1 => named.prop_map(Op::OtherRemoves),
        5 => any.clone().prop_map(Op::Stat),
        1 => any.clone().prop_map(Op::Open),
        3 => any.clone().prop_map(Op::List),
        1 => (1..60u64).prop_map(Op::Wait),
        1 => Just(Op::ForgetAll),
        1 => any.prop_map(Op::ForgetAround),
    ];
    prop::collection::vec(op, 1..120)
}

/// All that was ever true of each path, and from when on the cache has to know it.
struct History {
    clock: Clock,
    truths: HashMap<&'static str, Vec<(Instant, Option<Attr>)>>,
    floors: HashMap<&'static str, Instant>,
}

impl History {
    fn new(clock: &Clock) -> History {
        let floors = PATHS.map(|path| (path, clock.now())).into();
        History { clock: clock.clone(), truths: HashMap::new(), floors }
    }

    fn note(&mut self, tree: &Tree) {
        for path in PATHS {
            let truth = tree.truth(path);
            let truths = self.truths.entry(path).or_default();
            if truths.last().is_none_or(|(_, last)| *last != truth) {
                truths.push((self.clock.now(), truth));
            }
        }
    }

    /// From now on the cache has to know the present state of what `concerned` says.
    fn raise(&mut self, concerned: impl Fn(&FsPath) -> bool) {
        for (at, floor) in &mut self.floors {
            if concerned(&path(at)) {
                *floor = self.clock.now();
            }
        }
    }

    /// The same, for a change of `changed`: of what is below it, and if it came or went of what is above.
    fn changed(&mut self, changed: &FsPath, names: bool) {
        self.raise(|at| at.starts_with(changed) || names && changed.parent().as_ref() == Some(at));
    }

    fn check(&self, at: &str, said: Option<&Attr>) {
        let now = self.clock.now();
        let earliest = self.floors[at].max(now - EXPIRY);
        let truths = &self.truths[at];
        let ended = |index: usize| truths.get(index + 1).map(|(end, _)| *end);
        let allowed: Vec<_> = (0..truths.len())
            .filter(|index| ended(*index).is_none_or(|end| end > earliest))
            .map(|index| truths[index].1.as_ref())
            .collect();
        assert!(allowed.contains(&said), "{at} is said to be {said:?}, which was not so: {allowed:?}");
    }
}

struct Run {
    tree: Arc<Tree>,
    fs: Arc<dyn FileSystem>,
    memory: Arc<dyn Memory>,
    history: History,
}

impl Run {
    fn new(clock: &Clock, entries: usize) -> Run {
        // What was true before the time of an entry can be looked for.
        clock.advance(EXPIRY);
        let tree = Arc::new(Tree::default());
        let (fs, memory) = cache(&tree, clock, entries);
        let mut history = History::new(clock);
        history.note(&tree);
        Run { tree, fs, memory, history }
    }

    fn change(&mut self, op: &Op) {
        let ctx = Ctx::daemon();
        match op {
            Op::Make(at) => {
                let options = CreateOptions { mode: 0o644, replace: true, beside: false };
                let (_, mut writer) = self.fs.create(&ctx, &path(PATHS[*at]), &options).unwrap();
                self.history.note(&self.tree);
                writer.commit(&ctx).unwrap();
                self.history.clock.advance(Duration::from_millis(1));
                self.history.note(&self.tree);
                self.history.changed(&path(PATHS[*at]), true);
            }
            Op::MakeDir(at) => {
                self.fs.make_dir(&ctx, &path(PATHS[*at]), 0o755).unwrap();
                self.history.changed(&path(PATHS[*at]), true);
            }
            Op::Chmod(at, mode) => {
                let change = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                // That there is nothing to change is no matter.
                drop(self.fs.set_attr(&ctx, &path(PATHS[*at]), &change));
                self.history.changed(&path(PATHS[*at]), false);
            }
            Op::Remove(at) => {
                self.fs.remove_file(&ctx, &path(PATHS[*at])).unwrap();
                self.history.changed(&path(PATHS[*at]), true);
            }
            Op::Rename(from, to) => {
                let (from, to) = (path(PATHS[*from]), path(PATHS[*to]));
                if !to.starts_with(&from) && !from.starts_with(&to) {
                    self.fs.rename(&ctx, &from, &to, RenameMode::Replace).unwrap();
                    self.history.changed(&from, true);
                    self.history.changed(&to, true);
                }
            }
            Op::ForgetAll => {
                self.memory.forget_all();
                self.history.raise(|_| true);
            }
            Op::ForgetAround(dir) => {
                let dir = path(PATHS[*dir]);
                self.memory.forget_around(&dir);
                self.history.raise(|at| at.starts_with(&dir) || dir.starts_with(at));
            }
            Op::OtherMakes(at, size) => self.tree.file(PATHS[*at], *size),
            Op::OtherChmods(at, mode) => self.tree.chmod(PATHS[*at], *mode),
            Op::OtherRemoves(at) => self.tree.remove(PATHS[*at]),
            Op::Wait(secs) => self.history.clock.advance(Duration::from_secs(*secs)),
            Op::Stat(at) => self.stat(PATHS[*at]),
            Op::Open(at) => {
                let opened = self.fs.open(&ctx, &path(PATHS[*at])).ok();
                assert_eq!(opened.map(|reader| reader.attr().clone()), self.tree.truth(PATHS[*at]));
                self.history.raise(|opened| *opened == path(PATHS[*at]));
            }
            Op::List(at) => self.list(PATHS[*at]),
        }
    }

    fn stat(&self, at: &str) {
        let ctx = Ctx::daemon();
        let said = self.fs.stat(&ctx, &path(at)).ok();
        self.history.check(at, said.as_ref());
        let asked = self.tree.asked();
        assert_eq!(self.fs.stat(&ctx, &path(at)).ok(), said);
        assert_eq!(self.tree.asked(), asked, "{at} was known a moment ago");
    }

    fn list(&self, at: &str) {
        let ctx = Ctx::daemon();
        let Ok(mut listing) = self.fs.list(&ctx, &path(at)) else { return };
        let mut listed = HashMap::new();
        loop {
            let batch = listing.next_batch(&ctx).unwrap();
            if batch.is_empty() {
                break;
            }
            listed.extend(batch.into_iter().map(|entry| (entry.name, entry.attr)));
        }
        for child in PATHS.into_iter().filter(|child| path(child).parent() == Some(path(at))) {
            self.history.check(child, listed.get(path(child).name().unwrap()));
        }
    }
}

fn run(ops: &[Op], entries: usize) {
    let clock = Clock::new();
    let mut run = Run::new(&clock, entries);
    for op in ops {
        clock.advance(Duration::from_millis(1));
        run.change(op);
        run.history.note(&run.tree);
        assert!(run.memory.len() <= entries, "{} entries", run.memory.len());
    }
}

fn config() -> Config {
    let wanted = std::env::var("ALLUXIO_TEST_MODEL_CASES").ok().map(|text| text.parse().unwrap());
    Config {
        cases: wanted.unwrap_or(2000),
        // The same cases each time, unless somebody looks for new ones.
        rng_seed: if wanted.is_none() { RngSeed::Fixed(7) } else { RngSeed::Random },
        failure_persistence: None,
        ..Config::default()
    }
}

#[test]
fn what_is_said_was_so_within_the_time_and_since_the_last_change() {
    proptest!(config(), |(ops in ops())| run(&ops, 1000));
}

#[test]
fn the_same_holds_in_little_room() {
    proptest!(config(), |(ops in ops())| run(&ops, 4));
}
