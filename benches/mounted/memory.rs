//! More bytes than there is memory: one remote file, read pass after pass by a mount with a limit. Prints how much memory
//! the mount has after each pass, and fails if that is more than the limit and what the program itself may have, or
//! grows. `BENCH_PART=memory` runs just this.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::Settings;
use crate::common::cluster::Cluster;
use crate::common::content;
use crate::common::mount::Spec;
use crate::common::process;
use crate::work::drop_caches;
use crate::work::in_threads;
use crate::work::megabytes;

const MIB: u64 = 1 << 20;
/// `alluxio.fuse.memory.limit`.
const LIMIT: u64 = 256 * MIB;
/// What the program may have beside the data.
const BESIDE: u64 = 64 * MIB;
/// How much more in the second half of the passes than in the first is not yet growth: what readers leave behind for each
/// other differs from pass to pass.
const SLACK: u64 = 16 * MIB;

/// How much is read, and by how many.
pub(crate) struct Sizes {
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
    pub(crate) passes: usize,
    /// Each reads all of the file, with a descriptor of its own.
    pub(crate) readers: usize,
}

/// Reads, prints the table, and returns whether the memory was within its bounds.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) -> bool {
    let Sizes { file_bytes, passes, readers } = settings.memory;
    let remote = cluster.directory("bench-memory");
    let words = format!(
        "{},alluxio.user.short.circuit.enabled=false,alluxio.user.file.passive.cache.enabled=false,\
         alluxio.user.file.writetype.default=MUST_CACHE,alluxio.fuse.memory.limit={LIMIT}",
        settings.options
    );
    let writer = Spec::alluxio(cluster, &remote.path).option(&words).start();
    content::write_file(&writer.path().join("large"), 1, file_bytes).unwrap();
    writer.unmount();
    let mount = Spec::alluxio(cluster, &remote.path).option(&words).start();
    let path = mount.path().join("large");
    println!(
        "\n{passes} passes over a remote file of {} MiB, {readers} readers with a descriptor each: {:.1} GiB in all; `-o {words}`.\n",
        file_bytes / MIB,
        (file_bytes * passes as u64 * readers as u64) as f64 / (1024 * MIB) as f64,
    );
    println!(
        "| after pass | resident, MiB | at most so far, MiB | MB/s of all readers | sent by the worker / file |"
    );
    println!("|---:|---:|---:|---:|---:|");
    let (mut after, mut most) = (Vec::new(), 0);
    for pass in 1..=passes {
        drop_caches();
        let sent = cluster.bytes_sent_at_rest();
        let start = Instant::now();
        in_threads(readers, |_| read_through(&File::open(&path)?, file_bytes)).unwrap();
        let rate = megabytes(file_bytes * readers as u64) / start.elapsed().as_secs_f64();
        let [now, peak] = process::resident(mount.pid());
        let sent = (cluster.bytes_sent_at_rest() - sent) as f64 / file_bytes as f64;
        println!("| {pass} | {} | {} | {rate:.0} | {sent:.3} |", now / MIB, peak / MIB);
        most = peak;
        after.push(now);
    }
    mount.unmount();
    let bound = LIMIT + BESIDE;
    if most > bound {
        eprintln!("memory: {} MiB were resident, more than {} MiB", most / MIB, bound / MIB);
    }
    let [first, second] = halves(&after);
    let grows = second > first + SLACK;
    if grows {
        eprintln!(
            "memory: it grows, from {} MiB in the first half of the passes to {} MiB",
            first / MIB,
            second / MIB
        );
    }
    most <= bound && !grows
}

/// The median of each half; the one in the middle of an odd number counts for both.
fn halves(after: &[u64]) -> [u64; 2] {
    let half = after.len().div_ceil(2);
    [&after[..half], &after[after.len() - half..]].map(|part| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted[half / 2]
    })
}

/// In order, and checks a few bytes of each piece: all of them would take longer than the reading.
fn read_through(file: &File, size: u64) -> io::Result<()> {
    const CHECKED: usize = 64;
    let (mut buf, mut known) = (vec![0; MIB as usize], [0; CHECKED]);
    for offset in (0..size).step_by(MIB as usize) {
        let len = MIB.min(size - offset) as usize;
        file.read_exact_at(&mut buf[..len], offset)?;
        let checked = CHECKED.min(len);
        content::fill(1, offset, &mut known[..checked]);
        if known[..checked] != buf[..checked] {
            return Err(io::Error::other(format!("other bytes at {offset} than were written")));
        }
    }
    Ok(())
}
