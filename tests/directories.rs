//! Large directories are streamed: the first entries come at once, the daemon's memory has a bound, and an offset stays
//! good while entries come and go.
//!
//! `ALLUXIO_TEST_ENTRIES=100000` makes the directory on the cluster that large, too.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::fs::Cancel;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::vfs::Ino;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;

use common::cluster::Cluster;
use common::content::Random;
use common::dirstream::DirStream;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

/// What the daemon may take for reading a directory of any size. Names alone of 100,000 entries are 2 MB, and the
/// attributes 17 MB more.
const MEMORY_MAX: u64 = 10 << 20;

/// A name that stays, or one that goes.
fn name(number: usize) -> String {
    let kind = if number.is_multiple_of(10) { "goes" } else { "stays" };
    format!("entry {number:07} {kind}")
}

fn stays(name: &str) -> bool {
    name.ends_with("stays")
}

/// Files without content, made where the mount's backend finds them.
fn fill(dir: &Path, entries: usize) {
    fs::create_dir(dir).unwrap();
    for number in 0..entries {
        File::create(dir.join(name(number))).unwrap();
    }
}

/// Runs `scenario` over `entries` entries of the embedded store.
fn on_the_embedded_store(libfuse: u32, entries: usize, scenario: fn(&Mount, &Path, usize)) {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("large"), entries);
    let mount = Spec::local(dir.path()).libfuse(libfuse).start();
    scenario(&mount, &mount.path().join("large"), entries);
    mount.unmount();
}

/// The same over a cluster, which finds the entries in its under store.
fn on_a_cluster(entries: usize, scenario: fn(&Mount, &Path, usize)) {
    let cluster = Cluster::get();
    let remote = cluster.directory("large");
    let under = remote.below();
    fs::create_dir_all(&under).unwrap();
    fill(&under.join("large"), entries);
    // The first listing makes the master load them all, which takes it longer than it takes to answer.
    let loaded = cluster.shell(&["ls", &remote.join("large")]);
    assert!(loaded.lines().count() >= entries);
    let mount = Spec::alluxio(&cluster, &remote.path).start();
    scenario(&mount, &mount.path().join("large"), entries);
    mount.unmount();
}

fn entries_on_a_cluster() -> usize {
    std::env::var("ALLUXIO_TEST_ENTRIES").map_or(20_000, |text| text.parse().unwrap())
}

#[test]
fn a_large_directory_is_streamed() {
    on_the_embedded_store(3, 100_000, streamed);
}

#[test]
fn a_large_directory_of_a_cluster_is_streamed() {
    on_a_cluster(entries_on_a_cluster(), streamed);
}

#[test]
fn offsets_stay_good_while_entries_come_and_go() {
    on_the_embedded_store(2, 20_000, come_and_go);
}

#[test]
fn offsets_stay_good_while_entries_of_a_cluster_come_and_go() {
    on_a_cluster(5_000, come_and_go);
}

/// The time until the first entries are there, and until all are.
fn times(dir: &Path, entries: usize) -> (Duration, Duration) {
    let start = Instant::now();
    let mut stream = DirStream::open(dir);
    assert!(stream.next().is_some());
    let first = start.elapsed();
    assert_eq!(stream.count(), entries - 1);
    (first, start.elapsed())
}

fn streamed(mount: &Mount, dir: &Path, entries: usize) {
    // What a first listing costs once is not what is asked about.
    assert_eq!(DirStream::open(dir).take(5_000).count(), 5_000);
    process::forget_peak(mount.pid());
    let before = process::peak_memory(mount.pid());
    let all: Vec<_> = (0..3).map(|_| times(dir, entries)).collect();
    let grown = process::peak_memory(mount.pid()).saturating_sub(before);
    eprintln!("{entries} entries: {grown} bytes of memory, first and all after {all:?}");
    assert!(grown < MEMORY_MAX, "{grown} bytes for a directory of {entries}");
    let first = all.iter().map(|(first, _)| *first).min().unwrap();
    let whole = all.iter().map(|(_, whole)| *whole).min().unwrap();
    assert!(first < whole / 4, "{first:?} until the first entries, {whole:?} until the last");
    let seen: BTreeSet<_> = DirStream::open(dir).collect();
    assert!(seen.iter().map(String::as_str).eq((0..entries).map(name).collect::<BTreeSet<_>>().iter()));
}

/// Reads all of `dir` while entries come and go, then seeks to places all over it, forth and back.
fn come_and_go(_: &Mount, dir: &Path, entries: usize) {
    let mut random = Random::new(entries as u64);
    let mut stream = DirStream::open(dir);
    let mut seen = Vec::new();
    let mut places = Vec::new();
    loop {
        places.push(stream.tell());
        let Some(name) = stream.next() else { break };
        seen.push(name);
        if seen.len() % 50 == 0 {
            let number = seen.len() / 50;
            // Some of those that were read already, some of those to come.
            fs::remove_file(dir.join(name_that_goes(number * 37, entries))).unwrap();
            File::create(dir.join(format!("entry {:07} comes", random.below(entries as u64)))).unwrap();
        }
    }
    let expected: Vec<_> = (0..entries).map(name).filter(|name| stays(name)).collect();
    let mut stable: Vec<_> = seen.iter().filter(|name| stays(name)).cloned().collect();
    stable.sort();
    assert_eq!(stable, expected, "each entry that stays is listed once");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "no name comes twice");
    for _ in 0..100 {
        let at = random.below(seen.len() as u64) as usize;
        stream.seek(places[at]);
        let again: Vec<_> = stream.by_ref().take(100).collect();
        let before = &seen[at..(at + 100).min(seen.len())];
        assert_eq!(again, before, "from {at} on");
    }
    stream.rewind();
    let now: BTreeSet<_> = stream.collect();
    assert_eq!(
        now,
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    );
    assert!(now.iter().any(|name| name.ends_with("comes")));
}

fn name_that_goes(seed: usize, entries: usize) -> String {
    name(seed * 10 % entries)
}

#[test]
fn a_directory_is_listed_on_when_it_was_renamed() {
    on_a_cluster(3_000, |_, dir, entries| {
        let mut stream = DirStream::open(dir);
        let first: Vec<_> = stream.by_ref().take(10).collect();
        let moved = dir.with_file_name("moved");
        fs::rename(dir, &moved).unwrap();
        let all: BTreeSet<_> = first.into_iter().chain(stream).collect();
        assert_eq!(all.len(), entries);
    });
}

#[test]
fn a_listing_that_was_interrupted_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("large"), 1_000);
    let store = Arc::new(LocalFs::open(&dir.path().join("large")).unwrap());
    let vfs = Vfs::new(store, VfsOptions::default());
    let fh = vfs.opendir(&Ctx::daemon(), Ino::ROOT).unwrap();
    let cancel = Cancel::new();
    let (mut seen, mut offset) = (Vec::new(), 0);
    let interrupted = vfs.readdir(&Ctx::new(0, 0, 0, &cancel), Ino::ROOT, fh, 0, &mut |item| {
        seen.push(item.name.to_owned());
        offset = item.next;
        cancel.cancel();
        true
    });
    assert_eq!(interrupted.unwrap_err().fault(), Fault::Interrupted);
    assert!(seen.len() < 1_000);
    vfs.readdir(&Ctx::daemon(), Ino::ROOT, fh, offset, &mut |item| {
        seen.push(item.name.to_owned());
        true
    })
    .unwrap();
    vfs.releasedir(fh);
    assert_eq!(seen.len(), 1_002);
    assert_eq!(seen.iter().map(OsStr::new).collect::<BTreeSet<_>>().len(), 1_002);
}
