//! The same system calls on a mount and on the machine's own file system get the same answers, or the difference is
//! named in `differences`, with its reason and the line of SEMANTICS.md that an application can rely on.
//!
//! When a difference comes or goes this fails and says which. `ALLUXIO_TEST_DIFFERENCES=write` writes the file anew: what
//! was explained stays where it was, what is new stands at its end, without a reason, and fails until it has one.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

#[path = "../common/mod.rs"]
mod common;
mod differences;
mod script;
mod scripts;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use common::cluster::Cluster;
use common::kernel;
use common::mount::Spec;

use differences::Difference;
use differences::Differences;
use script::Script;

/// What the kernel may keep, where bytes can go wrong, and the version of libfuse that it is tried through.
const WAYS: [(&str, u32); 4] = [("direct_io", 2), ("kernel_cache", 3), ("none", 3), ("auto_cache", 2)];

/// As many of them are tried unless all are asked for.
const USUAL_WAYS: usize = 2;

/// The calls of scripts about names wait for a master most of the time.
const THREADS: usize = 4;

/// The answers of one script at one door.
type Answers = Vec<(String, String)>;

#[test]
fn every_difference_from_the_machines_own_file_system_is_explained() {
    let names = scripts::about_names();
    let mut bytes = scripts::about_data();
    let mut removed = scripts::about_removed();
    check_names(names.iter().chain(&bytes).chain(&removed));
    if !kernel::is_since(6, 6) {
        bytes.retain(|script| !script.maps_shared());
        removed.retain(|script| !script.maps_shared());
    }
    let all: Vec<_> = names.iter().chain(&bytes).chain(&removed).cloned().collect();
    let mut doors: BTreeMap<String, BTreeMap<String, Answers>> = BTreeMap::new();
    let own = tempfile::tempdir().unwrap();
    let native = answers(own.path(), &all);

    let store = tempfile::tempdir().unwrap();
    let mount = Spec::local(store.path()).libfuse(3).start();
    doors.insert("store".to_owned(), answers(mount.path(), &all));
    mount.unmount();

    let cluster = Cluster::get();
    let dir = cluster.directory("differential");
    let mount = Spec::alluxio(&cluster, &dir.path).libfuse(2).start();
    doors.insert("cluster".to_owned(), answers_in_parallel(mount.path(), &names));
    mount.unmount();
    for (way, usual) in &WAYS[..if thorough() { WAYS.len() } else { USUAL_WAYS }] {
        for libfuse in if thorough() { vec![2, 3] } else { vec![*usual] } {
            let dir = cluster.directory(&format!("differential-{way}"));
            let spec = Spec::alluxio(&cluster, &dir.path).libfuse(libfuse);
            // Any option keeps the one that is there by default away.
            let word = if *way == "none" { "attr_timeout=1" } else { way };
            let mount = spec.option(word).start();
            assert!(mount.uses_libfuse(libfuse));
            let answers = answers(mount.path(), &bytes);
            if let Some(other) = doors.insert((*way).to_owned(), answers.clone()) {
                assert_eq!(answers, other, "{way}: the versions of libfuse differ");
            }
            mount.unmount();
        }
    }
    let found = differing(&native, &doors);
    eprintln!("{} scripts, {} differences", native.len(), found.len());
    Differences::read().compare(&found, |script| native.contains_key(script));
}

/// Whether all ways are tried through both versions of libfuse, as `ALLUXIO_TEST_DIFFERENCES=all` asks.
fn thorough() -> bool {
    std::env::var("ALLUXIO_TEST_DIFFERENCES").is_ok_and(|word| word == "all")
}

fn check_names<'a>(scripts: impl Iterator<Item = &'a Script>) {
    let mut names = BTreeSet::new();
    for script in scripts {
        assert!(names.insert(script.name.clone()), "two scripts are called {:?}", script.name);
    }
}

/// Runs all `scripts` below `root`, each in a directory of its own.
fn answers(root: &Path, scripts: &[Script]) -> BTreeMap<String, Answers> {
    let start = Instant::now();
    let run = |(number, script): (usize, &Script)| {
        let dir = root.join(format!("script{number}"));
        fs::create_dir(&dir).unwrap();
        let answers = script::run(script, &dir);
        fs::remove_dir_all(&dir).unwrap_or_else(|err| panic!("after {:?}: {err}", script.name));
        (script.name.clone(), answers)
    };
    let all = scripts.iter().enumerate().map(run).collect();
    eprintln!("{} scripts at {} in {:?}", scripts.len(), root.display(), start.elapsed());
    all
}

/// As [`answers`], by several threads: for scripts that start no process, which would inherit what others have open.
fn answers_in_parallel(root: &Path, scripts: &[Script]) -> BTreeMap<String, Answers> {
    thread::scope(|scope| {
        let parts = scripts.chunks(scripts.len().div_ceil(THREADS)).enumerate();
        let started: Vec<_> = parts
            .map(|(number, part)| {
                let dir = root.join(format!("part{number}"));
                scope.spawn(move || {
                    fs::create_dir(&dir).unwrap();
                    answers(&dir, part)
                })
            })
            .collect();
        started.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Where the answers are not those of the machine's own file system, and at which doors.
fn differing(
    native: &BTreeMap<String, Answers>,
    doors: &BTreeMap<String, BTreeMap<String, Answers>>,
) -> BTreeSet<Difference> {
    let mut found: BTreeMap<(String, usize, String), BTreeSet<String>> = BTreeMap::new();
    for (door, scripts) in doors {
        for (name, answers) in scripts {
            for (nth, ((_, expected), (_, answer))) in native[name].iter().zip(answers).enumerate() {
                if answer != expected {
                    found.entry((name.clone(), nth, answer.clone())).or_default().insert(door.clone());
                }
            }
        }
    }
    let doors_of = |name: &str| -> BTreeSet<String> {
        doors.iter().filter(|(_, scripts)| scripts.contains_key(name)).map(|(door, _)| door.clone()).collect()
    };
    let difference = |((name, nth, answer), at): ((String, usize, String), BTreeSet<String>)| {
        let (call, expected) = native[&name][nth].clone();
        Difference { doors: short(&at, &doors_of(&name)), script: name, nth, call, expected, answer }
    };
    found.into_iter().map(difference).collect()
}

/// `doors` of `all` in one word, if there is one.
fn short(doors: &BTreeSet<String>, all: &BTreeSet<String>) -> String {
    let of_the_cluster: BTreeSet<_> = all.iter().filter(|door| *door != "store").cloned().collect();
    if doors == all {
        "everywhere".to_owned()
    } else if *doors == of_the_cluster {
        "Alluxio".to_owned()
    } else {
        doors.iter().cloned().collect::<Vec<_>>().join(",")
    }
}
