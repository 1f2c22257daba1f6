//! The work that is measured: each job does its part on one site and says how fast it was.
//!
//! A job uses what the jobs before it have left: files are written, then read; made, listed, renamed,
//! removed. What the kernel may have kept is dropped before a job that reads.

use std::fs;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::common::content;
use crate::common::content::Random;
use crate::common::holds_within;

const MIB: usize = 1 << 20;
/// The bytes of a small file.
const SMALL: usize = 4096;
/// Threads of the jobs on small files: one, and this many.
const MANY: usize = 8;

pub(crate) struct Sizes {
    /// Of each large file.
    pub(crate) file_bytes: u64,
    /// The number of small files.
    pub(crate) files: usize,
    /// How long random reads are counted.
    pub(crate) time: Duration,
}

/// A directory on one of the sides, new in each round.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    root: PathBuf,
}

impl Site {
    pub(crate) fn new(name: &'static str, root: &Path) -> Site {
        fs::create_dir(root).unwrap();
        Site { name, root: root.to_owned() }
    }

    pub(crate) fn remove(&self) {
        // A peer that has failed may refuse; the cluster ends with the run.
        let _ = fs::remove_dir_all(&self.root);
    }

    /// The large files: one, and four more.
    fn large(&self, n: usize) -> PathBuf {
        self.root.join(format!("large{n}"))
    }

    /// The directory of the small files of the jobs with `threads` threads; each thread has one below.
    fn small(&self, threads: usize, thread: usize) -> PathBuf {
        self.root.join(format!("small{threads}/{thread}"))
    }
}

pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    work: fn(&Site, &Sizes) -> io::Result<f64>,
}

impl Job {
    /// How fast it went, in `unit`.
    pub(crate) fn run(&self, site: &Site, sizes: &Sizes) -> io::Result<f64> {
        (self.work)(site, sizes)
    }
}

const MBS: &str = "MB/s";
const OPS: &str = "/s";

macro_rules! job {
    ($name:literal, $unit:ident, $work:expr) => {
        Job { name: $name, unit: $unit, work: $work }
    };
}

pub(crate) const JOBS: &[Job] = &[
    job!("sequential write, 1 writer", MBS, |site, sizes| write_large(site, sizes, 0..1)),
    job!("sequential write, 4 writers", MBS, |site, sizes| write_large(site, sizes, 1..5)),
    job!("sequential read, 1 reader", MBS, |site, sizes| read_large(site, sizes, 0..1)),
    job!("sequential read, 4 readers", MBS, |site, sizes| read_large(site, sizes, 1..5)),
    job!("random 4 KiB read, 1 reader", OPS, |site, sizes| read_random(site, sizes, 1, 4 << 10)),
    job!("random 4 KiB read, 4 readers", OPS, |site, sizes| read_random(site, sizes, 4, 4 << 10)),
    job!("random 128 KiB read, 1 reader", OPS, |site, sizes| read_random(site, sizes, 1, 128 << 10)),
    job!("random 128 KiB read, 4 readers", OPS, |site, sizes| read_random(site, sizes, 4, 128 << 10)),
    job!("create, 1 thread", OPS, |site, sizes| create(site, sizes, 1)),
    job!("create, 8 threads", OPS, |site, sizes| create(site, sizes, MANY)),
    job!("stat, 1 thread", OPS, |site, sizes| stat(site, sizes, 1)),
    job!("stat, 8 threads", OPS, |site, sizes| stat(site, sizes, MANY)),
    // Without a call to the master, if `BENCH_OPTIONS` have a `metadata_cache_size`.
    job!("stat again, 1 thread", OPS, |site, sizes| stat(site, sizes, 1)),
    job!("list (entries), 1 thread", OPS, |site, sizes| list(site, sizes, 1)),
    job!("list (entries), 8 threads", OPS, |site, sizes| list(site, sizes, MANY)),
    job!("open+read 4 KiB file, 1 thread", OPS, |site, sizes| read_small(site, sizes, 1)),
    job!("open+read 4 KiB file, 8 threads", OPS, |site, sizes| read_small(site, sizes, MANY)),
    job!("rename, 1 thread", OPS, |site, sizes| rename(site, sizes, 1)),
    job!("rename, 8 threads", OPS, |site, sizes| rename(site, sizes, MANY)),
    job!("unlink, 1 thread", OPS, |site, sizes| unlink(site, sizes, 1)),
    job!("unlink, 8 threads", OPS, |site, sizes| unlink(site, sizes, MANY)),
];

/// MB/s of all writers together, close included.
fn write_large(site: &Site, sizes: &Sizes, files: std::ops::Range<usize>) -> io::Result<f64> {
    let mut piece = vec![0; MIB];
    content::fill(1, 0, &mut piece);
    let count = files.len();
    let took = in_threads(count, |n| {
        let mut file = File::create_new(site.large(files.start + n))?;
        for _ in 0..sizes.file_bytes / MIB as u64 {
            file.write_all(&piece)?;
        }
        nix::unistd::close(file)?;
        Ok(())
    })?;
    Ok(megabytes(count as u64 * sizes.file_bytes) / took)
}

/// MB/s of all readers together, each with a file of its own.
fn read_large(site: &Site, sizes: &Sizes, files: std::ops::Range<usize>) -> io::Result<f64> {
    wait_complete((files.clone()).map(|n| (site.large(n), sizes.file_bytes)))?;
    drop_caches();
    let count = files.len();
    let took = in_threads(count, |n| {
        let mut file = File::open(site.large(files.start + n))?;
        let mut buf = vec![0; MIB];
        let mut total = 0;
        loop {
            match file.read(&mut buf)? {
                0 => break,
                n => total += n as u64,
            }
        }
        expect(total == sizes.file_bytes, "a short file")
    })?;
    Ok(megabytes(count as u64 * sizes.file_bytes) / took)
}

/// Reads per second of all readers together, each with a descriptor of its own on the same file.
fn read_random(site: &Site, sizes: &Sizes, readers: usize, len: usize) -> io::Result<f64> {
    wait_complete([(site.large(0), sizes.file_bytes)])?;
    drop_caches();
    let reads = AtomicU64::new(0);
    let took = in_threads(readers, |n| {
        let file = File::open(site.large(0))?;
        let mut random = Random::new((n as u64) << 40);
        let mut buf = vec![0; len];
        let start = Instant::now();
        while start.elapsed() < sizes.time {
            let offset = random.below(sizes.file_bytes / len as u64) * len as u64;
            file.read_exact_at(&mut buf, offset)?;
            reads.fetch_add(1, Ordering::Relaxed);
        }
        black_box(&buf);
        Ok(())
    })?;
    Ok(reads.into_inner() as f64 / took)
}

/// Small files made, written and closed per second.
fn create(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    for n in 0..threads {
        fs::create_dir_all(site.small(threads, n))?;
    }
    let data = [7; SMALL];
    each_small(site, sizes, threads, |path| {
        let mut file = File::create_new(path)?;
        file.write_all(&data)?;
        nix::unistd::close(file)?;
        Ok(())
    })
}

fn stat(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    wait_complete(small_files(site, sizes, threads).into_iter().map(|path| (path, SMALL as u64)))?;
    drop_caches();
    each_small(site, sizes, threads, |path| {
        expect(fs::metadata(path)?.len() == SMALL as u64, "a file of another size")
    })
}

/// Entries per second of all threads together, each of which lists its directory ten times.
fn list(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    const TIMES: usize = 10;
    drop_caches();
    let each = sizes.files / threads;
    let took = in_threads(threads, |n| {
        for _ in 0..TIMES {
            let entries = fs::read_dir(site.small(threads, n))?.count();
            expect(entries == each, "a list of another length")?;
        }
        Ok(())
    })?;
    Ok((TIMES * each * threads) as f64 / took)
}

fn read_small(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    drop_caches();
    each_small(site, sizes, threads, |path| expect(fs::read(path)?.len() == SMALL, "a file of another size"))
}

fn rename(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    each_small(site, sizes, threads, |path| fs::rename(path, path.with_extension("renamed")))
}

fn unlink(site: &Site, sizes: &Sizes, threads: usize) -> io::Result<f64> {
    each_small(site, sizes, threads, |path| fs::remove_file(path.with_extension("renamed")))
}

/// Does `work` for every small file, in `threads` threads, and returns how many were done per second.
fn each_small(
    site: &Site,
    sizes: &Sizes,
    threads: usize,
    work: impl Fn(&Path) -> io::Result<()> + Sync,
) -> io::Result<f64> {
    let files = small_files(site, sizes, threads);
    let each = sizes.files / threads;
    let took =
        in_threads(threads, |n| files[n * each..(n + 1) * each].iter().try_for_each(|path| work(path)))?;
    Ok(files.len() as f64 / took)
}

fn small_files(site: &Site, sizes: &Sizes, threads: usize) -> Vec<PathBuf> {
    let each = sizes.files / threads;
    (0..threads)
        .flat_map(|n| (0..each).map(move |i| (n, i)))
        .map(|(n, i)| site.small(threads, n).join(format!("file{i}")))
        .collect()
}

/// Runs `work` in `count` threads at once and returns the seconds until the last was done.
pub(crate) fn in_threads(count: usize, work: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<f64> {
    let work = &work;
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// The Java client completes a file some time after close(2).
fn wait_complete(files: impl IntoIterator<Item = (PathBuf, u64)>) -> io::Result<()> {
    for (path, size) in files {
        let complete =
            || fs::metadata(&path).is_ok_and(|meta| meta.len() == size) && File::open(&path).is_ok();
        expect(holds_within(Duration::from_secs(20), complete), "a file that is not complete")?;
    }
    Ok(())
}

/// Pages, names and attributes that the kernel keeps. Only root can; otherwise the report says so.
pub(crate) fn drop_caches() {
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
}

/// Whether [`drop_caches`] can do what it says.
pub(crate) fn can_drop_caches() -> bool {
    fs::OpenOptions::new().write(true).open("/proc/sys/vm/drop_caches").is_ok()
}

pub(crate) fn expect(holds: bool, otherwise: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(otherwise)) }
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
