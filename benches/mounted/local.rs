//! Reads of files that a worker on this machine has, one side by side with the other: by the kernel itself
//! (passthrough), by our loop, by the same over io_uring, by libfuse's own loop with the same callbacks, by the Java client, and of a tmpfs.
//! `BENCH_PART=local` runs just this.

use std::fs;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tempfile::TempDir;

use crate::Settings;
use crate::common::cluster::Cluster;
use crate::common::cluster::JavaMount;
use crate::common::content;
use crate::common::content::Random;
use crate::common::mount::Mount;
use crate::common::mount::Spec;
use crate::report::Results;
use crate::work::drop_caches;
use crate::work::expect;
use crate::work::in_threads;
use crate::work::megabytes;

const SMALL: usize = 4 << 10;
const LARGE: usize = 1 << 20;
/// Blocks of the file that has many.
const BLOCKS: u64 = 8;
const NAMES: [&str; 2] = ["one block", "many blocks"];

/// A mount of ours, and the words of `-o` that make it different. All of them use libfuse 3, as its loop is what is
/// compared with.
const OURS: [(&str, &str); 4] = [
    ("passthrough", "alluxio.fuse.passthrough.enabled=true"),
    ("daemon", "alluxio.fuse.passthrough.enabled=false"),
    ("io_uring", "alluxio.fuse.passthrough.enabled=false,io_uring"),
    ("C loop", "alluxio.fuse.passthrough.enabled=false,libfuse_loop"),
];

/// Runs all rounds and prints the table.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) {
    let remote = cluster.directory("bench-local");
    let block = settings.sizes.file_bytes / BLOCKS;
    let ours: Vec<(&'static str, Mount)> = OURS
        .iter()
        .map(|(name, words)| {
            let spec = Spec::alluxio(cluster, &remote.path).libfuse(3).option(&settings.mount_options());
            (*name, spec.option(words).start())
        })
        .collect();
    let native = TempDir::with_prefix_in("alluxio-fuse-bench", "/dev/shm").unwrap();
    for (name, block) in NAMES.iter().zip([settings.sizes.file_bytes, block]) {
        let writer = Spec::alluxio(cluster, &remote.path)
            .property("alluxio.user.block.size.bytes.default", &block.to_string())
            .property("alluxio.user.file.writetype.default", "MUST_CACHE")
            .start();
        for dir in [writer.path(), native.path()] {
            content::write_file(&dir.join(name), 1, settings.sizes.file_bytes).unwrap();
        }
        writer.unmount();
    }
    let java: Option<JavaMount> =
        settings.java.then(|| cluster.mount_java(&remote.path, &settings.mount_options(), &[]));

    let mut sides: Vec<(&str, &Path)> = ours.iter().map(|(name, mount)| (*name, mount.path())).collect();
    sides.extend(java.as_ref().map(|java| ("Java", java.path())));
    sides.push(("tmpfs", native.path()));
    let names: Vec<&str> = sides.iter().map(|(name, _)| *name).collect();
    let mut results = Results::new(&names);
    for round in 0..settings.rounds {
        let turn = round % sides.len();
        sides.rotate_left(turn);
        run_round(settings, &sides, &mut results);
        eprintln!("local: round {} of {}", round + 1, settings.rounds);
    }
    results.print(&settings.describe());
    // That the sides are what they are called.
    for (name, mount) in ours {
        let passed = mount.counted("opens for reading (passed through)");
        assert_eq!(passed > 0, name == "passthrough", "{name}: {passed} opens were passed through");
        println!("{name}: {passed} opens passed through, {} reads served", mount.counted("reads"));
        mount.unmount();
    }
}

fn run_round(settings: &Settings, sides: &[(&str, &Path)], results: &mut Results) {
    for file in NAMES {
        for jobs in [1, 4, 16] {
            let name = format!("random 4 KiB, {jobs} jobs, {file}");
            for (side, dir) in sides {
                let rate = read_random(&dir.join(file), jobs, settings);
                results.add(&name, "/s", side, said(&name, side, rate));
            }
        }
        let name = format!("sequential 1 MiB, {file}");
        for (side, dir) in sides {
            let rate = read_through(&dir.join(file), settings);
            results.add(&name, "MB/s", side, said(&name, side, rate));
        }
    }
}

pub(crate) fn said(name: &str, side: &str, rate: io::Result<f64>) -> Option<f64> {
    rate.inspect_err(|err| eprintln!("{name} on {side}: {err}")).ok()
}

/// Reads per second of all jobs together, each with a descriptor of its own.
fn read_random(path: &Path, jobs: usize, settings: &Settings) -> io::Result<f64> {
    drop_caches();
    random_reads(path, jobs, settings)
}

/// The same with whatever the kernel has kept.
pub(crate) fn random_reads(path: &Path, jobs: usize, settings: &Settings) -> io::Result<f64> {
    let size = fs::metadata(path)?.len();
    let reads = AtomicU64::new(0);
    let took = in_threads(jobs, |n| {
        let file = File::open(path)?;
        let mut random = Random::new((n as u64) << 40);
        let (mut buf, mut count) = (vec![0; SMALL], 0);
        let start = Instant::now();
        while start.elapsed() < settings.sizes.time {
            let offset = random.below(size / SMALL as u64) * SMALL as u64;
            file.read_exact_at(&mut buf, offset)?;
            count += 1;
        }
        reads.fetch_add(count, Ordering::Relaxed);
        black_box(&buf);
        Ok(())
    })?;
    Ok(reads.into_inner() as f64 / took)
}

/// MB/s of one reader with one descriptor, over and over for the time of a measure. Opening is not part of it: it costs
/// two calls of servers, as much as reading some MB.
fn read_through(path: &Path, settings: &Settings) -> io::Result<f64> {
    drop_caches();
    let file = File::open(path)?;
    let (mut buf, mut total) = (vec![0; LARGE], 0);
    let start = Instant::now();
    while start.elapsed() < settings.sizes.time {
        let mut offset = 0;
        loop {
            match file.read_at(&mut buf, offset)? {
                0 => break,
                n => offset += n as u64,
            }
        }
        expect(offset == settings.sizes.file_bytes, "a short file")?;
        total += offset;
    }
    black_box(&buf);
    Ok(megabytes(total) / start.elapsed().as_secs_f64())
}
