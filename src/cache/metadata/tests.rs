//! What the cache promises, above a tree in memory that counts what it is asked, and by a clock that the tests move.

mod model;
mod tree;

use std::sync::Arc;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::super::remembered::DOUBT;
use super::super::remembered::SHARE;
use super::*;
use crate::fs::Cancel;
use crate::fs::DirEntry;
use crate::fs::Finding;
use tree::Tree;

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

/// A clock that stands still unless it is moved.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn new() -> Clock {
        Clock(Arc::new(Mutex::new(Instant::now())))
    }

    fn advance(&self, time: Duration) {
        *self.0.lock() += time;
    }

    fn now(&self) -> Instant {
        *self.0.lock()
    }
}

const EXPIRY: Duration = Duration::from_secs(100);

fn cache(tree: &Arc<Tree>, clock: &Clock, entries: usize) -> (Arc<dyn FileSystem>, Arc<dyn Memory>) {
    let clock = clock.clone();
    let options =
        MetadataOptions { now: Arc::new(move || clock.now()), ..MetadataOptions::new(entries, EXPIRY) };
    let cache = MetadataCache::new(Arc::clone(tree) as Arc<dyn FileSystem>, options);
    let memory = cache.memory();
    (Arc::new(cache), memory)
}

struct Place {
    tree: Arc<Tree>,
    clock: Clock,
    fs: Arc<dyn FileSystem>,
    memory: Arc<dyn Memory>,
}

impl Place {
    fn new() -> Place {
        let (tree, clock) = (Arc::new(Tree::default()), Clock::new());
        let (fs, memory) = cache(&tree, &clock, 1000);
        Place { tree, clock, fs, memory }
    }

    fn stat(&self, text: &str) -> Result<Attr> {
        self.fs.stat(&Ctx::daemon(), &path(text))
    }

    fn mode(&self, text: &str) -> u32 {
        self.stat(text).unwrap().mode
    }

    /// The names in `text`, and how often the tree was asked for anything.
    fn list(&self, text: &str) -> (Vec<String>, usize) {
        let before = self.tree.asked();
        let mut names = Vec::new();
        let ctx = Ctx::daemon();
        let mut listing = self.fs.list(&ctx, &path(text)).unwrap();
        loop {
            let batch = listing.next_batch(&ctx).unwrap();
            if batch.is_empty() {
                return (names, self.tree.asked() - before);
            }
            names.extend(batch.into_iter().map(|entry| entry.name));
        }
    }

    /// How often the tree is asked by `work`.
    fn asks(&self, work: impl FnOnce(&Self)) -> usize {
        let before = self.tree.asked();
        work(self);
        self.tree.asked() - before
    }

    fn chmod(&self, text: &str, mode: u32) {
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.fs.set_attr(&Ctx::daemon(), &path(text), &change).unwrap();
    }
}

#[test]
fn what_was_asked_once_is_known_until_its_time_is_over() {
    let place = Place::new();
    place.tree.file("/f", 1);
    assert_eq!(place.asks(|place| drop(place.stat("/f"))), 1);
    place.tree.file("/f", 2);
    assert_eq!(place.asks(|place| assert_eq!(place.stat("/f").unwrap().size, 1)), 0);
    place.clock.advance(EXPIRY);
    assert_eq!(place.stat("/f").unwrap().size, 2);
}

#[test]
fn absent_names_are_known_and_vanish_when_they_are_made() {
    let place = Place::new();
    let absent = |place: &Place| assert_eq!(place.stat("/d").unwrap_err().fault(), Fault::NotFound);
    assert_eq!(place.asks(absent), 1);
    assert_eq!(place.asks(absent), 0);
    place.fs.make_dir(&Ctx::daemon(), &path("/d"), 0o755).unwrap();
    assert_eq!(place.stat("/d").unwrap().mode, 0o755);
}

#[test]
fn errors_are_not_known() {
    let place = Place::new();
    place.tree.file("/f", 1);
    place.tree.fail_next(Fault::Unavailable);
    assert_eq!(place.stat("/f").unwrap_err().fault(), Fault::Unavailable);
    assert_eq!(place.stat("/f").unwrap().size, 1);
}

#[test]
fn a_file_that_is_written_is_never_known() {
    let place = Place::new();
    let ctx = Ctx::daemon();
    let options = CreateOptions { mode: 0o644, replace: false, beside: false };
    drop(place.stat("/f"));
    let (_, mut writer) = place.fs.create(&ctx, &path("/f"), &options).unwrap();
    for len in 1..4 {
        writer.append(&ctx, b"x").unwrap();
        let attr = place.stat("/f").unwrap();
        assert_eq!((attr.size, attr.complete), (len, false));
        assert_eq!(place.list("/").0, ["f"]);
    }
    writer.commit(&ctx).unwrap();
    assert!(place.stat("/f").unwrap().complete);
    drop(writer);
    drop(place.stat("/f"));
    assert_eq!(place.asks(|place| drop(place.stat("/f"))), 0);
    // One that is given up goes.
    let (_, writer) = place.fs.create(&ctx, &path("/g"), &options).unwrap();
    assert!(place.stat("/g").is_ok());
    drop(writer);
    assert!(place.stat("/g").is_err());
}

#[test]
fn a_listing_answers_for_its_entries_and_is_known_as_long_as_they_are() {
    let place = Place::new();
    place.tree.dir("/d");
    for name in ["a", "b", "c"] {
        place.tree.file(&format!("/d/{name}"), 1);
    }
    assert_eq!(place.list("/d").0, ["a", "b", "c"]);
    assert_eq!(place.list("/d"), (["a", "b", "c"].map(str::to_owned).to_vec(), 0));
    assert_eq!(place.asks(|place| drop(place.stat("/d/b"))), 0);
    place.chmod("/d/b", 0o600);
    assert_eq!(place.asks(|place| assert_eq!(place.mode("/d/b"), 0o600)), 1);
    assert_eq!(place.list("/d").1, 0, "all of it is known again");
    place.fs.remove_file(&Ctx::daemon(), &path("/d/b")).unwrap();
    assert_eq!(place.list("/d").0, ["a", "c"]);
    assert_eq!(place.asks(|place| drop(place.stat("/d/a"))), 0, "its neighbours are still known");
}

#[test]
fn what_may_be_done_is_known_as_long_as_what_it_is_done_with() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let access = |place: &Place, mask| place.fs.access(&Ctx::daemon(), &path("/f"), mask);
    assert_eq!(place.asks(|place| access(place, 4).unwrap()), 2);
    assert_eq!(place.asks(|place| access(place, 4).unwrap()), 0);
    assert_eq!(place.asks(|place| access(place, 0).unwrap()), 0);
    // More than that is asked, and a refusal each time.
    for _ in 0..2 {
        assert_eq!(place.asks(|place| drop(access(place, 6).unwrap_err())), 1);
    }
    place.chmod("/f", 0);
    drop(place.stat("/f"));
    assert_eq!(access(&place, 4).unwrap_err().fault(), Fault::PermissionDenied);
}

#[test]
fn what_was_changed_here_is_in_its_directory() {
    let place = Place::new();
    place.tree.dir("/d");
    assert_eq!(place.list("/d").0, [""; 0]);
    place.tree.file("/d/theirs", 1);
    place.chmod("/d/theirs", 0o600);
    assert_eq!(place.list("/d").0, ["theirs"]);
}

#[test]
fn a_large_directory_passes_through() {
    let place = Place::new();
    place.tree.dir("/d");
    for number in 0..1000 / SHARE + 1 {
        place.tree.file(&format!("/d/{number:04}"), 1);
    }
    let (names, asked) = place.list("/d");
    assert_eq!((names.len(), asked > 0), (1000 / SHARE + 1, true));
    assert_eq!(place.memory.len(), 0);
    assert_eq!(place.memory.bytes(), 0);
    assert!(place.list("/d").1 > 0);
}

#[test]
fn a_change_of_a_directory_is_one_of_all_below_it() {
    let place = Place::new();
    let ctx = Ctx::daemon();
    for dir in ["/d", "/d/e"] {
        place.tree.dir(dir);
    }
    place.tree.file("/d/e/f", 7);
    drop((place.stat("/d/e/f"), place.stat("/d/e"), place.stat("/moved"), place.stat("/moved/e/f")));
    place.fs.rename(&ctx, &path("/d"), &path("/moved"), RenameMode::Replace).unwrap();
    assert!(place.stat("/d/e/f").is_err() && place.stat("/d").is_err());
    assert_eq!(place.stat("/moved/e/f").unwrap().size, 7);
    // Who may no longer enter a directory is told so of what is in it.
    place.chmod("/moved", 0);
    assert_eq!(place.asks(|place| drop(place.stat("/moved/e/f"))), 1);
}

#[test]
fn an_open_shows_what_is_there_and_is_remembered() {
    let place = Place::new();
    place.tree.file("/f", 1);
    drop(place.stat("/f"));
    place.tree.file("/f", 2);
    let reader = place.fs.open(&Ctx::daemon(), &path("/f")).unwrap();
    assert_eq!(reader.attr().size, 2);
    assert_eq!(place.asks(|place| assert_eq!(place.stat("/f").unwrap().size, 2)), 0);
    place.tree.remove("/f");
    assert!(place.fs.open(&Ctx::daemon(), &path("/f")).is_err());
    assert!(place.stat("/f").is_err());
}

#[test]
fn what_was_found_before_an_open_does_not_take_the_place_of_what_was_learned_since() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let daemon = Ctx::daemon();
    let finding = Finding::default();
    place.fs.stat(&daemon.with_finding(&finding), &path("/f")).unwrap();
    // Another client replaces it, and somebody else opens it.
    place.tree.file("/f", 2);
    place.fs.open(&daemon, &path("/f")).unwrap();
    let reader = place.fs.open(&daemon.with_finding(&finding), &path("/f")).unwrap();
    assert_eq!(reader.attr().size, 1, "as it was at the look-up");
    assert_eq!(
        place.asks(|place| assert_eq!(place.stat("/f").unwrap().size, 2)),
        0,
        "seen new, not old again"
    );
}

#[test]
fn a_right_that_was_found_before_is_not_kept_with_what_was_learned_since() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let daemon = Ctx::daemon();
    let finding = Finding::default();
    let asking = daemon.with_finding(&finding);
    place.fs.fresh_stat(&asking, &path("/f")).unwrap();
    place.tree.chmod("/f", 0);
    place.fs.fresh_stat(&daemon, &path("/f")).unwrap();
    place.fs.access(&asking, &path("/f"), 4).unwrap();
    let denied = place.fs.access(&daemon, &path("/f"), 4).unwrap_err();
    assert_eq!(denied.fault(), Fault::PermissionDenied);
}

#[test]
fn who_goes_on_to_change_something_is_told_what_is_there() {
    let place = Place::new();
    place.tree.file("/f", 1);
    drop(place.stat("/f"));
    place.tree.file("/f", 2);
    let fresh = place.fs.fresh_stat(&Ctx::daemon(), &path("/f")).unwrap();
    assert_eq!((fresh.size, place.stat("/f").unwrap().size), (2, 2));
}

#[test]
fn what_is_to_be_forgotten_is_asked_again() {
    let place = Place::new();
    for dir in ["/d", "/d/e", "/other"] {
        place.tree.dir(dir);
    }
    place.tree.file("/d/e/f", 1);
    let all = ["/", "/d", "/d/e", "/d/e/f", "/d/absent", "/other"];
    let known = |place: &Place| {
        let is_known = |text: &&str| place.asks(|place| drop(place.stat(text))) == 0;
        all.iter().copied().filter(is_known).collect::<Vec<_>>()
    };
    known(&place);
    assert_eq!(known(&place), all);
    assert_eq!(place.memory.len(), all.len());
    place.memory.forget_around(&path("/d"));
    assert_eq!(known(&place), ["/other"]);
    place.memory.forget_around(&path("/d/e"));
    assert_eq!(known(&place), ["/d/absent", "/other"]);
    place.memory.forget_all();
    assert_eq!((place.memory.len(), place.memory.bytes()), (0, 0));
    assert_eq!(known(&place), [""; 0]);
}

#[test]
fn many_who_want_the_same_ask_once() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let gate = place.tree.hold();
    let asked = place.asks(|place| {
        thread::scope(|scope| {
            let start = Arc::new(Barrier::new(17));
            let readers: Vec<_> = (0..16)
                .map(|_| {
                    let start = Arc::clone(&start);
                    scope.spawn(move || {
                        start.wait();
                        place.stat("/f").unwrap().size
                    })
                })
                .collect();
            start.wait();
            place.tree.wait_for_held(1);
            gate.open();
            assert!(readers.into_iter().all(|reader| reader.join().unwrap() == 1));
        });
    });
    assert_eq!(asked, 1);
}

#[test]
fn an_answer_from_before_a_change_is_kept_by_nobody_and_joined_by_nobody() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let gate = place.tree.hold();
    thread::scope(|scope| {
        let early = scope.spawn(|| place.mode("/f"));
        // The tree has looked, and its answer is on its way.
        place.tree.wait_for_held(1);
        place.chmod("/f", 0o600);
        let late = scope.spawn(|| place.mode("/f"));
        place.tree.wait_for_held(2);
        gate.open();
        assert_eq!(early.join().unwrap(), 0o644, "the change was not made when it asked");
        assert_eq!(late.join().unwrap(), 0o600);
    });
    assert_eq!(place.mode("/f"), 0o600);
}

#[test]
fn who_is_interrupted_while_waiting_goes_and_the_others_go_on() {
    let place = Place::new();
    place.tree.file("/f", 1);
    let gate = place.tree.hold();
    let cancel = Cancel::new();
    thread::scope(|scope| {
        let asker = scope.spawn(|| place.stat("/f").map(|attr| attr.size));
        place.tree.wait_for_held(1);
        let waiting = scope.spawn(|| place.fs.stat(&Ctx::new(0, 0, 0, &cancel), &path("/f")));
        cancel.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().fault(), Fault::Interrupted);
        gate.open();
        assert_eq!(asker.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn if_the_one_who_asks_is_interrupted_another_asks() {
    let place = Place::new();
    place.tree.file("/f", 1);
    place.tree.fail_next(Fault::Interrupted);
    let gate = place.tree.hold();
    thread::scope(|scope| {
        let interrupted = scope.spawn(|| place.stat("/f").map(|attr| attr.size));
        place.tree.wait_for_held(1);
        let waiting = scope.spawn(|| place.stat("/f").map(|attr| attr.size));
        gate.open();
        assert_eq!(interrupted.join().unwrap().unwrap_err().fault(), Fault::Interrupted);
        assert_eq!(waiting.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_change_whose_outcome_is_not_known_keeps_what_it_concerns_from_being_kept() {
    let place = Place::new();
    place.tree.file("/f", 1);
    place.tree.file("/other", 1);
    drop(place.stat("/f"));
    place.tree.fail_next(Fault::TimedOut);
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    place.fs.set_attr(&Ctx::daemon(), &path("/f"), &change).unwrap_err();
    assert_eq!(place.mode("/f"), 0o644);
    // The server gets to it only now.
    place.tree.chmod("/f", 0o600);
    assert_eq!(place.mode("/f"), 0o600);
    drop(place.stat("/other"));
    assert_eq!(place.asks(|place| drop(place.stat("/other"))), 0);
    place.clock.advance(DOUBT);
    drop(place.stat("/f"));
    assert_eq!(place.asks(|place| drop(place.stat("/f"))), 0);
}
