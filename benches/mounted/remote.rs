//! A worker that is reached over the network only: our mount beside our client without FUSE, which is the bound, and beside
//! the Java client, for files of one block and of many. One table of its own, and that of `amounts`; no short circuit and no passive cache on any side.
//!
//! Small files are read once by 16 processes, each a copy of this program. The calls of our mount are counted by itself.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsError;
use alluxio_fuse::fs::FsPath;
use nix::sys::signal::Signal;

use crate::JAVA;
use crate::OURS;
use crate::Settings;
use crate::amounts;
use crate::common::cluster::Cluster;
use crate::common::cluster::JavaMount;
use crate::common::cluster::RemoteDir;
use crate::common::content::Random;
use crate::common::holds_within;
use crate::common::mount::Mount;
use crate::common::mount::Spec;
use crate::common::process;
use crate::report::Results;
use crate::work::drop_caches;

const BARE: &str = "client without FUSE";
const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
const SMALL: usize = 100 << 10;
const PROCESSES: usize = 16;

/// What a copy of this program is told in its environment: a directory, how many files there are, and which part is its own.
const TASK: &str = "ALLUXIO_FUSE_BENCH_READER";

/// Reads its part of the small files, if this process was started for that.
pub(crate) fn read_if_told() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let [dir, count, part]: [&str; 3] = task.split('|').collect::<Vec<_>>().try_into().unwrap();
    let [count, part] = [count, part].map(|text| text.parse::<usize>().unwrap());
    for n in (part..count).step_by(PROCESSES) {
        assert_eq!(fs::read(Path::new(dir).join(n.to_string())).unwrap().len(), SMALL);
    }
    true
}

/// Measures all sides and prints the table, and that of the amounts.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) -> bool {
    let sets = BLOCKS.map(|(name, blocks)| Set::mount(settings, cluster, name, blocks));
    let files = settings.small_files;
    write_small(&sets[0].bare, files);
    let mut results = Results::new(&sets[0].sides().iter().map(Side::name).collect::<Vec<_>>());
    for round in 0..settings.rounds {
        for set in &sets {
            let mut sides = set.sides();
            let turn = round % sides.len();
            sides.rotate_left(turn);
            for (job, unit) in JOBS {
                let name = format!("{job}, {}", set.name);
                for side in &sides {
                    let rate = side.run(job, round, settings);
                    results.add(&name, unit, side.name(), said(round, &name, side, rate));
                }
            }
        }
        let mut sides = sets[0].sides();
        let turn = round % sides.len();
        sides.rotate_left(turn);
        for side in &sides {
            let before = calls(&sets[0].ours);
            let rate = side.run(READ_SMALL, round, settings);
            if side.name() == OURS {
                let [masters, workers] =
                    [0, 1].map(|at| (calls(&sets[0].ours)[at] - before[at]) as f64 / files as f64);
                results.add("calls per file, to masters", "", OURS, Some(masters));
                results.add("calls per file, to workers", "", OURS, Some(workers));
            }
            results.add(READ_SMALL, "/s", side.name(), said(round, READ_SMALL, side, rate));
        }
        eprintln!("remote: round {} of {}", round + 1, settings.rounds);
    }
    let failed = results.has_failed(OURS);
    println!();
    results.print(&format!(
        "{} rounds; files of {} MiB, of one block and of {}; {files} files of 100 KiB read once by {PROCESSES} processes; `-o {}`",
        settings.rounds,
        settings.sizes.file_bytes >> 20,
        BLOCKS[1].1,
        words(settings),
    ));
    for set in sets {
        drop(set.java);
        set.ours.unmount();
    }
    let amounts = amounts::run(settings, cluster);
    amounts && !failed
}

/// How many blocks the large files have.
const BLOCKS: [(&str, u64); 2] = [("one block", 1), ("many blocks", 8)];

/// The sides for files that are cut so.
struct Set {
    name: &'static str,
    ours: Mount,
    java: Option<JavaMount>,
    bare: AlluxioFs,
    _remote: RemoteDir,
}

impl Set {
    fn mount(settings: &Settings, cluster: &Cluster, name: &'static str, blocks: u64) -> Set {
        let remote = cluster.directory("bench-remote");
        for name in ["small", "ours", "java", "bare"] {
            cluster.shell(&["mkdir", &remote.join(name)]);
        }
        let block = settings.sizes.file_bytes / blocks;
        let words = format!("{},alluxio.user.block.size.bytes.default={block}", words(settings));
        let ours = Spec::alluxio(cluster, &remote.path).option(&words).start();
        let java = settings.java.then(|| cluster.mount_java(&remote.path, &words, &[]));
        let bare = client(&remote.path, block);
        Set { name, ours, java, bare, _remote: remote }
    }

    fn sides(&self) -> Vec<Side<'_>> {
        let mut sides = vec![Side::Mount(OURS, self.ours.path()), Side::Client(&self.bare)];
        sides.extend(self.java.as_ref().map(|java| Side::Mount(JAVA, java.path())));
        sides
    }
}

/// The words of `-o` for both mounts, but for the size of a block.
fn words(settings: &Settings) -> String {
    format!(
        "{},alluxio.user.short.circuit.enabled=false,alluxio.user.file.passive.cache.enabled=false",
        settings.options
    )
}

fn said(round: usize, job: &str, side: &Side<'_>, rate: io::Result<f64>) -> Option<f64> {
    rate.inspect_err(|err| eprintln!("round {round}: {job} on {}: {err}", side.name())).ok()
}

const WRITE: &str = "sequential write";
const READ: &str = "sequential read";
const RANDOM: &str = "random 4 KiB read";
const READ_SMALL: &str = "open+read 100 KiB file";
const JOBS: [(&str, &str); 3] = [(WRITE, "MB/s"), (READ, "MB/s"), (RANDOM, "/s")];

enum Side<'a> {
    Mount(&'static str, &'a Path),
    Client(&'a AlluxioFs),
}

impl Side<'_> {
    fn name(&self) -> &'static str {
        match self {
            Side::Mount(name, _) => name,
            Side::Client(_) => BARE,
        }
    }

    fn run(&self, job: &str, round: usize, settings: &Settings) -> io::Result<f64> {
        let (size, time) = (settings.sizes.file_bytes, settings.sizes.time);
        drop_caches();
        match (job, self) {
            (WRITE, Side::Mount(_, root)) => write_mounted(&root.join(self.file(round)), size),
            (WRITE, Side::Client(fs)) => Ok(per_second(size, write_bare(fs, &self.place(round), size)?)),
            (READ, Side::Mount(_, root)) => read_mounted(&root.join(self.file(round)), size),
            (READ, Side::Client(fs)) => read_bare(fs, &self.place(round), size).map_err(io::Error::other),
            (RANDOM, Side::Mount(_, root)) => {
                let file = File::open(root.join(self.file(round)))?;
                let mut buf = vec![0; PAGE];
                at_random(size, time, |offset| file.read_exact_at(&mut buf, offset))
            }
            (RANDOM, Side::Client(fs)) => {
                let reader = fs.open(&Ctx::daemon(), &self.place(round)).map_err(io::Error::other)?;
                at_random(size, time, |offset| {
                    let read = reader.read_at(&Ctx::daemon(), offset, PAGE).map_err(io::Error::other)?;
                    expect(read.len() == PAGE)
                })
            }
            (_, Side::Mount(_, root)) => small_mounted(&root.join("small"), settings.small_files),
            (_, Side::Client(fs)) => small_bare(fs, settings.small_files).map_err(io::Error::other),
        }
    }

    fn file(&self, round: usize) -> String {
        let dir = match self.name() {
            OURS => "ours",
            JAVA => "java",
            _ => "bare",
        };
        format!("{dir}/file{round}")
    }

    fn place(&self, round: usize) -> FsPath {
        FsPath::parse(&format!("/{}", self.file(round))).unwrap()
    }
}

fn write_mounted(path: &Path, size: u64) -> io::Result<f64> {
    let piece = vec![7; MIB];
    let start = Instant::now();
    let mut file = File::create_new(path)?;
    for _ in 0..size / MIB as u64 {
        file.write_all(&piece)?;
    }
    nix::unistd::close(file)?;
    Ok(per_second(size, start.elapsed()))
}

fn read_mounted(path: &Path, size: u64) -> io::Result<f64> {
    // The Java client completes a file some time after close(2).
    expect(holds_within(Duration::from_secs(20), || {
        fs::metadata(path).is_ok_and(|meta| meta.len() == size) && File::open(path).is_ok()
    }))?;
    let start = Instant::now();
    let file = File::open(path)?;
    let mut buf = vec![0; MIB];
    for offset in (0..size).step_by(MIB) {
        file.read_exact_at(&mut buf, offset)?;
    }
    Ok(per_second(size, start.elapsed()))
}

fn write_bare(fs: &AlluxioFs, path: &FsPath, size: u64) -> io::Result<Duration> {
    let (ctx, piece) = (Ctx::daemon(), vec![7; MIB.min(size as usize)]);
    let options = CreateOptions { mode: 0o644, replace: false, beside: false };
    let start = Instant::now();
    let (_, mut writer) = fs.create(&ctx, path, &options).map_err(io::Error::other)?;
    for _ in 0..size.div_ceil(MIB as u64) {
        writer.append(&ctx, &piece).map_err(io::Error::other)?;
    }
    writer.commit(&ctx).map_err(io::Error::other)?;
    Ok(start.elapsed())
}

fn read_bare(fs: &AlluxioFs, path: &FsPath, size: u64) -> Result<f64, FsError> {
    let start = Instant::now();
    let reader = fs.open(&Ctx::daemon(), path)?;
    for offset in (0..size).step_by(MIB) {
        assert_eq!(reader.read_at(&Ctx::daemon(), offset, MIB)?.len(), MIB);
    }
    Ok(per_second(size, start.elapsed()))
}

fn at_random(size: u64, time: Duration, mut read: impl FnMut(u64) -> io::Result<()>) -> io::Result<f64> {
    let (mut random, start, mut count) = (Random::new(5), Instant::now(), 0_u32);
    while start.elapsed() < time {
        // Every second page only, so that no two of them touch.
        read(random.below(size / (2 * PAGE as u64)) * 2 * PAGE as u64)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Small files for all sides to read.
fn write_small(fs: &AlluxioFs, files: usize) {
    in_parts(|part| {
        for n in (part..files).step_by(PROCESSES) {
            write_bare(fs, &FsPath::parse(&format!("/small/{n}")).unwrap(), SMALL as u64).unwrap();
        }
    });
}

fn small_mounted(dir: &Path, files: usize) -> io::Result<f64> {
    let start = Instant::now();
    let copies: Vec<Child> = (0..PROCESSES)
        .map(|part| {
            Command::new(std::env::current_exe()?)
                .env(TASK, format!("{}|{files}|{part}", dir.display()))
                .spawn()
        })
        .collect::<io::Result<_>>()?;
    let ends: Vec<_> = copies.into_iter().map(|mut child| child.wait()).collect::<io::Result<_>>()?;
    let took = start.elapsed();
    expect(ends.iter().all(|end| end.success()))?;
    Ok(files as f64 / took.as_secs_f64())
}

fn small_bare(fs: &AlluxioFs, files: usize) -> Result<f64, FsError> {
    let start = Instant::now();
    in_parts(|part| {
        for n in (part..files).step_by(PROCESSES) {
            let path = FsPath::parse(&format!("/small/{n}")).unwrap();
            let reader = fs.open(&Ctx::daemon(), &path).unwrap();
            assert_eq!(reader.read_at(&Ctx::daemon(), 0, MIB).unwrap().len(), SMALL);
        }
    });
    Ok(files as f64 / start.elapsed().as_secs_f64())
}

fn in_parts(work: impl Fn(usize) + Sync) {
    let work = &work;
    thread::scope(|scope| {
        for part in 0..PROCESSES {
            scope.spawn(move || work(part));
        }
    });
}

/// Calls to masters and to workers, and bytes from workers so far, as the state in the log has them.
pub(crate) fn calls(mount: &Mount) -> [u64; 3] {
    let lines = || mount.logged(" - calls: ");
    let before = lines().len();
    process::signal(mount.pid(), Signal::SIGQUIT);
    assert!(holds_within(Duration::from_secs(20), || lines().len() > before), "no state in the log");
    let line = lines().pop().unwrap();
    ["calls: ", "masters, ", "workers; "].map(|name| {
        let digits: String =
            line.split_once(name).unwrap().1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    })
}

fn client(root: &str, block_size: u64) -> AlluxioFs {
    let (write_type, passive_cache) = (WriteType::MustCache, false);
    let paths = PathOptions { block_size, write_type, passive_cache, ..PathOptions::default() };
    let masters = vec![std::env::var("ALLUXIO_TEST_MASTER").unwrap().parse().unwrap()];
    let root = FsPath::parse(root).unwrap();
    let options = AlluxioOptions { masters, root, short_circuit: false, ..AlluxioOptions::default() };
    AlluxioFs::connect(AlluxioOptions { paths: paths.into(), ..options }).unwrap()
}

fn per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn expect(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other("not what was written")) }
}
