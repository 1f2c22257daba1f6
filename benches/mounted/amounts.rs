//! How much a worker sends for what is read of it over the network, in all modes of the kernel's cache: counted by the
//! worker and by our mount, so that it depends on no clock. The worker now and then misses the last chunk of a stream, so what
//! is printed is the larger of the two. A part of `BENCH_PART=remote`; `BENCH_PART=amounts` runs just this. Fails if more
//! is sent than may be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::Settings;
use crate::common::cluster::Cluster;
use crate::common::content;
use crate::common::content::Random;
use crate::common::mount::Spec;
use crate::remote::calls;
use crate::work::drop_caches;
use crate::work::in_threads;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const MODES: [&str; 3] = ["direct_io", "kernel_cache", "auto_cache"];
const READERS: [usize; 3] = [1, 4, 16];
/// Random reads of one reader.
const RANDOM: u64 = 500;
/// What may be sent for each byte that is read in order.
const MOST: f64 = 1.05;
/// Blocks of the file that has many.
const BLOCKS: u64 = 8;

/// Reads, prints the table, and returns whether no more was sent than may be.
pub(crate) fn run(settings: &Settings, cluster: &Cluster) -> bool {
    let size = settings.sizes.file_bytes;
    println!(
        "\nBytes that the worker sends (by its own count or by ours, whichever is more) for each byte of a file of {} MiB, whose readers begin together with a descriptor each;\n\
         for random reads of 4 KiB by one reader, for each byte that is asked for. Highest of {} rounds, each with a new mount.\n",
        size / MIB,
        settings.rounds
    );
    println!("| | {} |", MODES.join(" | "));
    println!("|---|{}", "---:|".repeat(MODES.len()));
    let mut good = true;
    for (name, block) in [("one block", size), ("many blocks", size / BLOCKS)] {
        let remote = cluster.directory("bench-amounts");
        let spec = |mode: &str| {
            Spec::alluxio(cluster, &remote.path)
                .property("alluxio.user.short.circuit.enabled", "false")
                .property("alluxio.user.file.passive.cache.enabled", "false")
                .property("alluxio.user.file.writetype.default", "MUST_CACHE")
                .property("alluxio.user.block.size.bytes.default", &block.to_string())
                .option(mode)
        };
        let writer = spec(MODES[0]).start();
        content::write_file(&writer.path().join("large"), 1, size).unwrap();
        writer.unmount();
        let times = |mode: &str, read: &(dyn Fn(&File) -> io::Result<u64> + Sync), readers: usize| {
            let once = |_| {
                drop_caches();
                let mount = spec(mode).start();
                let before = cluster.bytes_sent_at_rest();
                let (file, together) = (mount.path().join("large"), Barrier::new(readers));
                let wanted = AtomicU64::new(0);
                in_threads(readers, |_| {
                    let file = File::open(&file)?;
                    together.wait();
                    wanted.store(read(&file)?, Ordering::Relaxed);
                    Ok(())
                })
                .unwrap();
                let sent = cluster.bytes_sent_at_rest() - before;
                let [.., received] = calls(&mount);
                mount.unmount();
                sent.max(received) as f64 / wanted.into_inner() as f64
            };
            (0..settings.rounds).map(once).fold(0.0, f64::max)
        };
        for readers in READERS {
            let row = MODES.map(|mode| times(mode, &|file| in_order(file, size), readers));
            good &= row.iter().all(|times| *times <= MOST);
            print_row(&format!("in order, {readers} readers, {name}"), row);
        }
        let row = MODES.map(|mode| times(mode, &|file| at_random(file, size), 1));
        // The kernel reads pages around one that it is to keep; without them it asks for just the range.
        good &= row[0] <= 1.0;
        print_row(&format!("random 4 KiB, {name}"), row);
    }
    if !good {
        eprintln!(
            "amounts: more was sent than {MOST} times the file, or than the random ranges with direct_io"
        );
    }
    good
}

fn print_row(name: &str, row: [f64; 3]) {
    let cells = row.map(|times| format!("{times:.3}"));
    println!("| {name} | {} |", cells.join(" | "));
}

/// Returns the bytes of the file.
fn in_order(file: &File, size: u64) -> io::Result<u64> {
    let mut buf = vec![0; MIB as usize];
    for offset in (0..size).step_by(MIB as usize) {
        file.read_exact_at(&mut buf[..MIB.min(size - offset) as usize], offset)?;
    }
    Ok(size)
}

/// Returns the bytes that were asked for. No two pages touch, as such would be a sequence.
fn at_random(file: &File, size: u64) -> io::Result<u64> {
    let (mut random, mut buf) = (Random::new(9), [0; PAGE as usize]);
    for _ in 0..RANDOM {
        file.read_exact_at(&mut buf, random.below(size / (2 * PAGE)) * 2 * PAGE)?;
    }
    Ok(RANDOM * PAGE)
}
