//! Whatever is killed while files are written, at whatever moment, and however often: a file whose close succeeded is
//! there with its bytes, no file is complete with bytes that nobody wrote, and none stays incomplete. What a rename or mkdir says
//! that it has done, it has done.
//!
//! What is killed when is random, by a seed that is printed; `KILLS_SEED` repeats a run, as far as time lets it.
//! `KILLS=1000` kills a thousand times of each kind, instead of what fits in a minute or so.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use common::cluster::Cluster;
use common::cluster::OwnCluster;
use common::cluster::RemoteDir;
use common::content;
use common::content::Random;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

/// Small, so that small files have several.
const BLOCK: u64 = 1 << 20;

/// The largest file: a few blocks.
const SIZE_MAX: u64 = 3 * BLOCK;

/// Writers at a time.
const WRITERS: usize = 4;

/// How soon what was interrupted is completed or removed.
const SETTLES: Duration = Duration::from_secs(60);

/// Between two files of a writer that is not killed itself, on average.
const PAUSE_MS: u64 = 30;

/// What a writer process is told in its environment: its directory, and its seed.
const TASK: &str = "ALLUXIO_FUSE_TEST_WRITER";

/// A file that is written: its name and the seed of its bytes.
struct Task {
    name: String,
    seed: u64,
    size: u64,
}

/// The `n`-th file of the writer with `seed`.
fn task(seed: u64, n: u64) -> Task {
    let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(n) << 16);
    // Mostly small, so that a kill finds any step of a file's life, and not only the sending of bytes.
    let size = match random.below(8) {
        0 => 0,
        1..5 => random.below(20_000),
        5..7 => random.below(BLOCK),
        _ => random.below(SIZE_MAX),
    };
    Task { name: format!("{seed:016x}-{n}"), seed: seed ^ n.wrapping_mul(0x9e37_79b9), size }
}

/// What is known of a file from the one who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its close succeeded.
    Closed,
    /// Its writer was killed before its close returned.
    Unknown,
    /// A write or the close failed.
    Failed,
}

/// All files that were begun, by name.
#[derive(Default)]
struct Book(BTreeMap<String, (u64, u64, Fate)>);

impl Book {
    fn note(&mut self, task: &Task, fate: Fate) {
        self.0.insert(task.name.clone(), (task.seed, task.size, fate));
    }

    fn count(&self, fate: Fate) -> usize {
        self.0.values().filter(|(_, _, found)| *found == fate).count()
    }

    /// Checks the promises at the top of this file for what is in the directory `root`, with everything settled.
    fn check(&self, root: &Path, remote: &RemoteDir, cluster: &Cluster) -> Summary {
        let mut summary = Summary::default();
        let mut wrong = Vec::new();
        let settled = holds_within(SETTLES, || {
            summary = Summary::default();
            wrong.clear();
            self.look(root, &mut summary, &mut wrong);
            // What is just being removed can fail in any way; what is wrong stays so.
            summary.incomplete == 0 && wrong.is_empty()
        });
        wrong.truncate(20);
        assert!(settled, "{} files stay incomplete: {wrong:#?}", summary.incomplete);
        // The same from another client, which knows nothing of this mount.
        let (code, said) = cluster.shell_code(&["stat", &format!("{}/*", remote.path)]);
        assert!(code == 0 || summary.whole + summary.partial == 0, "{said}");
        assert!(!said.contains("completed=false"), "incomplete for others: {said}");
        assert_eq!(said.matches("completed=true").count(), summary.whole + summary.partial, "{said}");
        summary
    }

    fn look(&self, root: &Path, summary: &mut Summary, wrong: &mut Vec<String>) {
        for entry in fs::read_dir(root).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !self.0.contains_key(&name) {
                summary.incomplete += 1;
                wrong.push(format!("{name}: who made this?"));
            }
        }
        for (name, &(seed, size, fate)) in &self.0 {
            match state(&root.join(name), seed, size) {
                State::Whole => summary.whole += 1,
                State::Absent if fate == Fate::Closed => wrong.push(format!("{name}: closed, and missing")),
                State::Absent => summary.absent += 1,
                State::Incomplete => {
                    summary.incomplete += 1;
                    wrong.push(format!("{name}: incomplete, {fate:?}"));
                }
                // As on any file system: what a killed process had written.
                State::Beginning(_) if fate == Fate::Unknown => summary.partial += 1,
                State::Beginning(len) => {
                    wrong.push(format!("{name}: {len} bytes instead of {size}, {fate:?}"));
                }
                State::Wrong(what) => wrong.push(format!("{name}: {what}, {fate:?}")),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Summary {
    whole: usize,
    partial: usize,
    absent: usize,
    incomplete: usize,
}

#[derive(Debug)]
enum State {
    Whole,
    /// The first bytes of it.
    Beginning(u64),
    Absent,
    Incomplete,
    Wrong(String),
}

/// What is at `path`, which should have `size` bytes of the content of `seed`.
fn state(path: &Path, seed: u64, size: u64) -> State {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    match read.map_err(|e| e.raw_os_error().map(Errno::from_raw)) {
        Ok(_) => {}
        Err(Some(Errno::ENOENT)) => return State::Absent,
        Err(Some(Errno::EBUSY)) => return State::Incomplete,
        Err(errno) => return State::Wrong(format!("cannot be read: {errno:?}")),
    }
    let len = bytes.len() as u64;
    let mut expected = vec![0; bytes.len()];
    content::fill(seed, 0, &mut expected);
    if len > size || bytes != expected {
        let at = bytes.iter().zip(&expected).position(|(a, b)| a != b);
        State::Wrong(format!("{len} bytes of {size}, differing from {at:?} on"))
    } else if len == size {
        State::Whole
    } else {
        State::Beginning(len)
    }
}

/// A process that writes one file after the other, and says so on its standard output before and after each.
struct WriterProcess {
    child: Child,
    seed: u64,
}

impl WriterProcess {
    fn start(dir: &Path, seed: u64) -> WriterProcess {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(TASK, format!("{seed}|{}", dir.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        WriterProcess { child, seed }
    }

    /// Kills it, when it has written for some time, and notes what it had done.
    fn kill_after(mut self, time: Duration, book: &Mutex<Book>) {
        let mut lines = BufReader::new(self.child.stdout.take().expect("started with a pipe")).lines();
        // From its first word on, as its start takes longer than what is to be hit.
        let mut said =
            vec![lines.find(|line| line.as_ref().is_ok_and(|l| l.contains("begin"))).unwrap().unwrap()];
        thread::sleep(time);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        let mut book = book.lock().unwrap();
        for line in said {
            let Some((word, n)) = line.rsplit_once(' ') else { continue };
            let Ok(n) = n.parse() else { continue };
            match word.rsplit(' ').next() {
                Some("begin") => book.note(&task(self.seed, n), Fate::Unknown),
                Some("closed") => book.note(&task(self.seed, n), Fate::Closed),
                Some("failed") => book.note(&task(self.seed, n), Fate::Failed),
                _ => {}
            }
        }
    }
}

#[test]
#[ignore = "not a test: the other tests start it, as the process that is killed"]
fn writer_process() {
    let text = std::env::var(TASK).expect("the tests of this file start it, with a task");
    let (seed, dir) = text.split_once('|').unwrap();
    let (seed, dir) = (seed.parse().unwrap(), PathBuf::from(dir));
    let say = |word: &str, n: u64| {
        // Past all buffers: what was said counts.
        nix::unistd::write(std::io::stdout(), format!("\n{word} {n}\n").as_bytes()).unwrap();
    };
    for n in 0.. {
        let task = task(seed, n);
        say("begin", n);
        match write(&dir, &task) {
            Ok(()) => say("closed", n),
            Err(_) => say("failed", n),
        }
    }
}

/// Writes in pieces of many sizes, with an fsync now and then.
fn write(dir: &Path, task: &Task) -> std::io::Result<()> {
    let mut random = Random::new(task.seed);
    let mut file = File::create_new(dir.join(&task.name))?;
    let mut offset = 0;
    while offset < task.size {
        let len = (1 + random.below(300_000)).min(task.size - offset);
        let mut bytes = vec![0; len as usize];
        content::fill(task.seed, offset, &mut bytes);
        file.write_all(&bytes)?;
        offset += len;
        if random.below(20) == 0 {
            file.sync_all()?;
        }
    }
    nix::unistd::close(file)?;
    Ok(())
}

#[test]
fn killed_writers_leave_what_they_wrote_and_nothing_else() {
    let _one = one_at_a_time();
    let (cluster, mut random) = (Cluster::get(), seeded());
    let kills = rounds(120);
    let dir = cluster.directory("kill-writers");
    let mount = spec(&cluster, &dir).start();
    let (left, book) = (AtomicU64::new(kills), Mutex::new(Book::default()));
    let plans: Vec<u64> = (0..WRITERS).map(|_| random.below(u64::MAX)).collect();
    thread::scope(|scope| {
        for seed in plans {
            let (left, book, mount) = (&left, &book, &mount);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let writer = WriterProcess::start(mount.path(), random.below(u64::MAX));
                    writer.kill_after(Duration::from_micros(random.below(200_000)), book);
                }
            });
        }
    });
    let book = book.into_inner().unwrap();
    let summary = book.check(mount.path(), &dir, &cluster);
    let (closed, unknown) = (book.count(Fate::Closed), book.count(Fate::Unknown));
    eprintln!("{kills} writers killed, {closed} files closed, {unknown} not: {summary:?}");
    assert_eq!(book.count(Fate::Failed), 0, "nothing but the writers was disturbed");
    assert!(unknown as u64 >= kills / 2, "the kills came at the wrong time");
    mount.unmount();
}

#[test]
fn killed_workers_lose_nothing_that_was_closed() {
    let _one = one_at_a_time();
    let (cluster, mut random) = (Cluster::get(), seeded());
    let kills = rounds(3);
    let dir = cluster.directory("kill-workers");
    let streamed = spec(&cluster, &dir).property("alluxio.user.short.circuit.enabled", "false").start();
    let mapped = spec(&cluster, &dir).start();
    let book = Mutex::new(Book::default());
    let workers = cluster.workers();
    write_while(&[&streamed, &mapped], &book, &mut random, |random| {
        for _ in 0..kills {
            let down = cluster.kill(&workers[random.below(workers.len() as u64) as usize]);
            thread::sleep(Duration::from_millis(random.below(500)));
            down.run();
            thread::sleep(Duration::from_millis(random.below(1000)));
        }
    });
    let book = book.into_inner().unwrap();
    let summary = book.check(streamed.path(), &dir, &cluster);
    eprintln!("{kills} workers killed, {} writes failed: {summary:?}", book.count(Fate::Failed));
    assert!(book.count(Fate::Closed) as u64 >= kills, "hardly anything was written");
    streamed.unmount();
    mapped.unmount();
}

#[test]
fn broken_connections_lose_nothing_that_was_closed() {
    let _one = one_at_a_time();
    let (cluster, mut random) = (Cluster::get(), seeded());
    let kills = rounds(400);
    let (dir, ports) = (cluster.directory("break-connections"), cluster.ports());
    let mapped = spec(&cluster, &dir).start();
    let streamed = spec(&cluster, &dir).property("alluxio.user.short.circuit.enabled", "false").start();
    let (book, mut broken) = (Mutex::new(Book::default()), 0);
    write_while(&[&mapped, &streamed], &book, &mut random, |random| {
        while broken < kills {
            let mount = if random.below(2) == 0 { &mapped } else { &streamed };
            let hit = process::break_connection(mount.pid(), &ports, |n| random.below(n as u64) as usize);
            broken += u64::from(hit);
            thread::sleep(Duration::from_micros(random.below(20_000)));
        }
    });
    let book = book.into_inner().unwrap();
    let summary = book.check(mapped.path(), &dir, &cluster);
    eprintln!("{kills} connections broken, {} writes failed: {summary:?}", book.count(Fate::Failed));
    assert!(book.count(Fate::Closed) as u64 >= kills / 10, "hardly anything was written");
    mapped.unmount();
    streamed.unmount();
}

#[test]
fn killed_masters_do_nothing_by_halves() {
    let _one = one_at_a_time();
    let (cluster, mut random) = (Cluster::get(), seeded());
    let kills = rounds(1);
    let dir = cluster.directory("kill-masters");
    change_while(&cluster, &dir.path, |goes_on| {
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(1000 + random.below(1000)));
            cluster.kill("master").run();
            goes_on();
        }
    });
}

#[test]
fn a_master_that_takes_over_does_nothing_by_halves() {
    let _one = one_at_a_time();
    let own = OwnCluster::start(&["--masters", "3", "--workers", "2", "--ram", "512MB"]);
    let kills = rounds(1);
    change_while(&own.cluster, "/", |goes_on| {
        for _ in 0..kills {
            goes_on();
            let down = own.cluster.kill(&own.cluster.leader());
            goes_on();
            down.run();
        }
    });
}

/// Says so when it is dropped, also by a panic: whoever waits for threads that go on until then would wait for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes names in the directory `path` of `cluster`, through two mounts, while `disturb` runs, which is told how to wait until
/// the changes go on.
fn change_while(cluster: &Cluster, path: &str, disturb: impl FnOnce(&dyn Fn())) {
    let through = Spec::alluxio(cluster, path).start();
    let cached = Spec::alluxio(cluster, path)
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .property("alluxio.user.short.circuit.enabled", "false")
        .start();
    let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for (n, mount) in [&through, &through, &cached, &cached].into_iter().enumerate() {
            let (place, stop, changes) = (mount.path().join(n.to_string()), &stop, &changes);
            scope.spawn(move || {
                fs::create_dir(&place).unwrap();
                let (mut version, mut there) = (0, None);
                while !stop.load(Ordering::Relaxed) {
                    version += 1;
                    there = Some(replace(&place, version, there));
                    changes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&stop);
        disturb(&|| {
            let before = changes.load(Ordering::Relaxed);
            let goes_on = || changes.load(Ordering::Relaxed) > before + 8;
            assert!(holds_within(SETTLES, goes_on), "nothing is changed any more");
        });
    });
    eprintln!("{} changes", changes.into_inner());
    through.unmount();
    cached.unmount();
}

/// Makes a directory, replaces the file in `place` by its next `version` and removes the directory: all of that is to be there
/// once it is said to be done. The data may not get through, and the version `there` stays then. Returns the one that is there.
fn replace(place: &Path, version: u64, there: Option<u64>) -> u64 {
    let (dir, target) = (place.join(format!("dir-{version}")), place.join("file"));
    let task = |version: u64| Task { name: "new".to_owned(), seed: version, size: version * 7919 % 200_000 };
    fs::create_dir(&dir).unwrap();
    let now = match (write(&dir, &task(version)), there) {
        (Err(err), Some(there)) => {
            eprintln!("version {version} is not there: {err}");
            assert!(holds_within(SETTLES, || fs::read_dir(&dir).unwrap().next().is_none()));
            there
        }
        (written, _) => {
            written.unwrap();
            fs::rename(dir.join("new"), &target).unwrap();
            version
        }
    };
    let found = state(&target, now, task(now).size);
    assert!(matches!(found, State::Whole), "version {version}, {now} is to be there: {found:?}");
    fs::remove_dir(&dir).unwrap();
    now
}

#[test]
fn what_a_killed_daemon_leaves_is_cleaned_up_by_the_next() {
    let _one = one_at_a_time();
    let (cluster, mut random) = (Cluster::get(), seeded());
    let kills = rounds(10);
    let dir = cluster.directory("kill-daemons");
    let book = Mutex::new(Book::default());
    for _ in 0..kills {
        let mount = spec(&cluster, &dir).start();
        let (point, pid) = (mount.path().to_owned(), mount.pid());
        let (seed, time) = (random.below(u64::MAX), Duration::from_micros(random.below(400_000)));
        thread::scope(|scope| {
            for n in 0..WRITERS as u64 {
                let (point, book) = (&point, &book);
                scope.spawn(move || while write_one(point, seed.wrapping_add(n), book) {});
            }
            thread::sleep(time);
            process::signal(pid, Signal::SIGKILL);
        });
        mount.crash();
    }
    let book = book.into_inner().unwrap();
    let mount = spec(&cluster, &dir).start();
    let summary = book.check(mount.path(), &dir, &cluster);
    eprintln!("{kills} daemons killed, {} writes failed: {summary:?}", book.count(Fate::Failed));
    assert!(book.count(Fate::Failed) as u64 >= kills, "the kills came at the wrong time");
    mount.unmount();
}

/// Writes files through all of `mounts` as long as `disturb` runs.
fn write_while(
    mounts: &[&Mount],
    book: &Mutex<Book>,
    random: &mut Random,
    disturb: impl FnOnce(&mut Random),
) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..WRITERS {
            let (mount, stop, seed) = (mounts[n % mounts.len()], &stop, random.below(u64::MAX));
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    write_one(mount.path(), seed, book);
                    // Servers that start want a part of the machine, and all files are read in the end.
                    thread::sleep(Duration::from_millis(random.below(2 * PAUSE_MS)));
                }
            });
        }
        let _stop = Stop(&stop);
        disturb(random);
    });
}

/// Writes the next file of the writer with `seed`; whether it went well.
fn write_one(dir: &Path, seed: u64, book: &Mutex<Book>) -> bool {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let task = task(seed, NEXT.fetch_add(1, Ordering::Relaxed));
    let written = write(dir, &task);
    let fate = if written.is_ok() { Fate::Closed } else { Fate::Failed };
    book.lock().unwrap_or_else(PoisonError::into_inner).note(&task, fate);
    written.is_ok()
}

/// Fails soon where nobody serves, as the tests want to see failures as well.
fn spec(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    Spec::alluxio(cluster, &dir.path)
        .option("direct_io")
        .property("alluxio.user.block.size.bytes.default", &BLOCK.to_string())
        .property("alluxio.user.rpc.retry.max.duration", "10sec")
        .property("alluxio.user.file.write.init.max.duration", "2sec")
        .property("alluxio.user.block.read.retry.max.duration", "10sec")
}

/// How many to kill: `by_default`, or as many as the environment says.
fn rounds(by_default: u64) -> u64 {
    std::env::var("KILLS").map_or(by_default, |text| text.parse().unwrap())
}

fn seeded() -> Random {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("KILLS_SEED").map_or_else(|_| now(), |text| text.parse().unwrap());
    eprintln!("KILLS_SEED={seed}");
    Random::new(seed)
}

/// The tests kill servers of the one cluster.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
