//! What `max_background` and `max_readahead` are worth: our mount with different values side by side, reading from a worker
//! that is reached over the network and from one on this machine. `BENCH_PART=background` runs just this.
//!
//! The kernel holds back what nobody waits for (read-ahead, and the pieces of a large read) when `max_background` of it is
//! under way, for all files of the mount together.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Settings;
use crate::common::cluster::Cluster;
use crate::common::content;
use crate::common::mount::Mount;
use crate::common::mount::Spec;
use crate::local::random_reads;
use crate::local::said;
use crate::report::Results;
use crate::work::drop_caches;
use crate::work::in_threads;
use crate::work::megabytes;

/// Most readers of the files.
const FILES: usize = 4;
const BLOCKS: u64 = 8;
const BACKGROUND: [&str; 3] = ["max_background=64", "max_background=12", "max_background=256"];
/// The first is the kernel's own, and our default.
const READ_AHEAD: [&str; 3] = ["max_readahead=131072", "max_readahead=1048576", "max_readahead=4194304"];

/// Runs all rounds of both and prints the tables.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) {
    let remote = cluster.directory("bench-background");
    // Of several blocks, so that none is passed through to the kernel.
    let words = format!(
        "alluxio.user.file.passive.cache.enabled=false,alluxio.user.file.writetype.default=MUST_CACHE,\
         alluxio.user.block.size.bytes.default={}",
        settings.sizes.file_bytes / BLOCKS
    );
    let spec = Spec::alluxio(cluster, &remote.path).option(&words);
    let writer = spec.start();
    for n in 0..FILES {
        content::write_file(&writer.path().join(n.to_string()), n as u64, settings.sizes.file_bytes).unwrap();
    }
    writer.unmount();
    for values in [BACKGROUND, READ_AHEAD] {
        compare(settings, &spec, values);
    }
}

/// A worker that is reached so, and the mode of the kernel's cache.
const WAYS: [(&str, &str); 3] = [
    ("remote, kernel_cache", "kernel_cache,alluxio.user.short.circuit.enabled=false"),
    ("remote, direct_io", "direct_io,alluxio.user.short.circuit.enabled=false"),
    ("local, kernel_cache", "kernel_cache,alluxio.user.short.circuit.enabled=true"),
];

fn compare(settings: &Settings, spec: &Spec, values: [&'static str; 3]) {
    let mut results = Results::new(&values);
    for (way, words) in WAYS {
        let mut sides: Vec<(&str, Mount)> =
            values.iter().map(|value| (*value, spec.clone().option(words).option(value).start())).collect();
        for round in 0..settings.rounds {
            sides.rotate_left(1);
            for readers in [1, FILES] {
                let job = format!("in order, {readers} readers of a file each, {way}");
                for (side, mount) in &sides {
                    let rate = in_order(mount.path(), readers, settings);
                    results.add(&job, "MB/s", side, said(&job, side, rate));
                }
            }
            for jobs in [1, 16] {
                let job = format!("random 4 KiB, {jobs} jobs, {way}");
                for (side, mount) in &sides {
                    drop_caches();
                    let rate = random_reads(&mount.path().join("0"), jobs, settings);
                    results.add(&job, "/s", side, said(&job, side, rate));
                }
            }
            eprintln!("background: {way}: round {} of {}", round + 1, settings.rounds);
        }
        sides.into_iter().for_each(|(_, mount)| mount.unmount());
    }
    let size = settings.sizes.file_bytes >> 20;
    println!();
    results.print(&format!("{} rounds; {FILES} files of {size} MiB in {BLOCKS} blocks", settings.rounds));
}

/// MB/s of all readers together.
fn in_order(dir: &Path, readers: usize, settings: &Settings) -> io::Result<f64> {
    const PIECE: u64 = 1 << 20;
    let size = settings.sizes.file_bytes;
    drop_caches();
    let took = in_threads(readers, |n| {
        let (file, mut buf) = (File::open(dir.join(n.to_string()))?, vec![0; PIECE as usize]);
        for offset in (0..size).step_by(PIECE as usize) {
            file.read_exact_at(&mut buf[..PIECE.min(size - offset) as usize], offset)?;
        }
        Ok(())
    })?;
    Ok(megabytes(size * readers as u64) / took)
}
