//! What the store promises: bounds, times, ranges.

use super::*;
use crate::fs::FileKind;
use crate::fs::Timestamp;

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

fn attr(id: u64) -> Attr {
    let time = Timestamp::default();
    Attr {
        id,
        kind: FileKind::Regular,
        size: id,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        atime: time,
        mtime: time,
        ctime: time,
        complete: true,
    }
}

fn store(entries: usize, bytes: u64) -> Store {
    Store::new(Limits { entries, bytes, expiry: Duration::from_secs(10) })
}

fn learn(store: &mut Store, text: &str, id: u64, since: Instant) {
    store.learn(&path(text), Known::Attr(attr(id)), since);
}

/// The invariant.
fn check(store: &Store) {
    let keys: BTreeSet<Arc<str>> = store.map.iter().map(|(key, _)| Arc::clone(key)).collect();
    assert_eq!(keys, store.index);
    assert_eq!(store.bytes, store.map.iter().map(|(key, kept)| bytes_of(key, &kept.value)).sum::<u64>());
    assert!(store.map.len() <= store.limits.entries, "{} of {}", store.map.len(), store.limits.entries);
    assert!(store.bytes <= store.limits.bytes, "{} of {} bytes", store.bytes, store.limits.bytes);
}

#[test]
fn the_number_of_entries_is_bounded_and_used() {
    let now = Instant::now();
    for entries in [1, 2, 7, 99, 100, 1000] {
        let mut store = store(entries, u64::MAX);
        for id in 0..3 * entries as u64 {
            learn(&mut store, &format!("/{id}"), id, now);
            check(&store);
        }
        assert!(store.len(now) >= entries * 9 / 10, "{} of {entries}", store.len(now));
    }
}

#[test]
fn the_bytes_are_bounded_and_used() {
    let now = Instant::now();
    let mut store = store(100_000, 100_000);
    let long = "x".repeat(200);
    for id in 0..1000 {
        learn(&mut store, &format!("/{long}{id}"), id, now);
        check(&store);
    }
    assert!(store.bytes() > 90_000, "{}", store.bytes());
    // What is too large for all of it is not kept, and nothing goes for it.
    let before = store.len(now);
    let names: Vec<(String, Attr)> = (0..1000).map(|id| (format!("{long}{id}"), attr(id))).collect();
    store.put("/d/", Value::Names(Arc::new(Names::new(names.iter().map(|(name, _)| name.as_str())))), now);
    check(&store);
    assert_eq!((store.names(&path("/d"), now), store.len(now)), (None, before));
}

#[test]
fn what_is_used_again_outlives_a_scan() {
    let now = Instant::now();
    let mut store = store(1000, u64::MAX);
    for id in 0..500 {
        learn(&mut store, &format!("/hot/{id}"), id, now);
    }
    for id in 0..20_000 {
        learn(&mut store, &format!("/scan/{id}"), id, now);
        assert!(id % 10 != 0 || store.known(&format!("/hot/{}", id / 10 % 500), now).is_some() || id > 5000);
    }
    let left = (0..500).filter(|id| store.known(&format!("/hot/{id}"), now).is_some()).count();
    assert!(left > 450, "{left} of 500 are left");
}

#[test]
fn entries_end_with_their_time() {
    let start = Instant::now();
    let mut store = store(100, u64::MAX);
    learn(&mut store, "/a", 1, start);
    store.learn_listing(&path("/d"), vec![("f".to_owned(), attr(2))], start);
    let at = |secs| start + Duration::from_secs(secs);
    assert!(store.known("/a", at(9)).is_some() && store.names(&path("/d"), at(9)).is_some());
    assert_eq!(store.len(at(9)), 3);
    assert!(store.known("/a", at(10)).is_none() && store.names(&path("/d"), at(10)).is_none());
    assert_eq!(store.len(at(10)), 0);
    learn(&mut store, "/a", 3, at(10));
    assert_eq!(store.known("/a", at(19)), Some(&Known::Attr(attr(3))));
}

#[test]
fn a_tree_is_forgotten_and_its_neighbours_are_not() {
    let now = Instant::now();
    let mut store = store(100, u64::MAX);
    let texts = ["/", "/a", "/a-b", "/a/b", "/a/b/c", "/a0", "/ab", "/b"];
    for (id, text) in texts.into_iter().enumerate() {
        learn(&mut store, text, id as u64, now);
    }
    store.put("/a/", Value::Names(Arc::new(Names::new(["b"].into_iter()))), now);
    store.forget_tree(&path("/a"));
    check(&store);
    let left: Vec<&str> = texts.into_iter().filter(|text| store.known(text, now).is_some()).collect();
    assert_eq!(left, ["/", "/a-b", "/a0", "/ab", "/b"]);
    assert!(store.names(&path("/a"), now).is_none());
    store.forget_tree(&FsPath::root());
    check(&store);
    assert_eq!((store.len(now), store.bytes()), (0, 0));
}

#[test]
fn names_of_the_root_are_kept_like_others() {
    let now = Instant::now();
    let mut store = store(100, u64::MAX);
    store.learn_listing(&FsPath::root(), vec![("a".to_owned(), attr(1)), ("b".to_owned(), attr(2))], now);
    assert!(store.names(&FsPath::root(), now).unwrap().iter().eq(["a", "b"]));
    assert_eq!(store.known("/a", now), Some(&Known::Attr(attr(1))));
    store.forget(&FsPath::root());
    assert!(store.names(&FsPath::root(), now).is_none());
    check(&store);
}

#[test]
fn an_older_answer_does_not_take_the_place_of_a_newer_one() {
    let (older, newer) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let mut store = store(100, u64::MAX);
    learn(&mut store, "/d/f", 2, newer);
    store.learn_listing(&path("/d"), vec![("f".to_owned(), attr(1))], older);
    assert_eq!(store.known("/d/f", newer), Some(&Known::Attr(attr(2))));
}

#[test]
fn a_list_that_lacks_a_name_that_is_there_is_forgotten() {
    let now = Instant::now();
    let mut store = store(100, u64::MAX);
    store.learn_listing(&path("/d"), vec![("f".to_owned(), attr(1))], now);
    learn(&mut store, "/d/f", 1, now);
    assert!(store.names(&path("/d"), now).is_some());
    learn(&mut store, "/d/new", 2, now);
    assert!(store.names(&path("/d"), now).is_none());
}

#[test]
fn what_is_not_complete_is_in_the_list_and_not_known() {
    let now = Instant::now();
    let mut store = store(100, u64::MAX);
    let writing = Attr { complete: false, ..attr(1) };
    store.learn_listing(&path("/d"), vec![("f".to_owned(), writing)], now);
    assert!(store.names(&path("/d"), now).is_some() && store.known("/d/f", now).is_none());
}
