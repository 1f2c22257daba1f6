//! Our client in process, without FUSE, on a real cluster: what its settings are worth. The defaults were chosen by what
//! this prints. Needs a cluster (`ALLUXIO_TEST_MASTER`); started by `cargo bench --bench client [name...]`.
//!
//! Settings, from the environment: `BENCH_ROUNDS` (5), `BENCH_FILE_MB` (256).
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by its panic")]
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::bounded;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// One setting of one thing.
struct Case {
    name: String,
    options: AlluxioOptions,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    /// Threads, each reading a part of its own of the file in order.
    Sequential(u64),
    /// Threads that read 4 KiB here and there.
    Random(u64),
    Write,
    /// Threads that ask the master for the status of the file: the future on their own thread, as the bridge has it,
    /// or each by way of another thread.
    Stat {
        threads: u64,
        handed: bool,
    },
}

fn main() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (rounds, size) = (number("BENCH_ROUNDS", 5), number("BENCH_FILE_MB", 256) * MIB);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word.as_str())))
        .collect();
    let file = path("/client-bench");
    write(&connect(remote()), &file, size);
    let mut rates = vec![Vec::new(); cases.len()];
    for round in 0..rounds as usize {
        // Another one first each time, so that a slow minute hits all of them.
        for turn in 0..cases.len() {
            let at = (turn + round) % cases.len();
            rates[at].push(cases[at].run(&file, size));
        }
    }
    connect(remote()).remove_file(&Ctx::daemon(), &file).unwrap();
    println!("| | median (lowest-highest) of {rounds} |\n|---|---:|");
    for (case, rates) in cases.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let unit = if matches!(case.work, Work::Random(_) | Work::Stat { .. }) { "/s" } else { "MB/s" };
        let [low, median, high] = [rates[0], rates[rates.len() / 2], rates[rates.len() - 1]];
        println!("| {}, {unit} | {median:.0} ({low:.0}-{high:.0}) |", case.name);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, options: AlluxioOptions, work| cases.push(Case { name, options, work });
    for (ahead, fetch) in [(1, 1), (2, 1), (4, 2), (8, 2), (8, 4), (16, 4), (16, 8), (32, 8), (32, 16)] {
        let options = AlluxioOptions { read_ahead_max: ahead * MIB, fetch_max: fetch * MIB, ..remote() };
        let name = format!("window: {ahead} MiB ahead in fetches of {fetch} MiB");
        add(name, options, Work::Sequential(1));
    }
    for chunk in [128, 512, 1024, 2048, 4096] {
        let options = AlluxioOptions { reader_chunk: chunk * KIB, ..remote() };
        add(format!("chunk: {chunk} KiB"), options, Work::Sequential(1));
    }
    for window in [256, 1024, 2048, 4096, 8192] {
        let options = AlluxioOptions { streaming_window: window * KIB, ..remote() };
        add(format!("flow window: {window} KiB"), options, Work::Sequential(1));
    }
    for connections in [1, 2, 4, 8] {
        let options = AlluxioOptions { worker_connections: connections, ..remote() };
        add(format!("connections: {connections}, 1 reader"), options.clone(), Work::Sequential(1));
        add(format!("connections: {connections}, 4 readers"), options.clone(), Work::Sequential(4));
        add(format!("connections: {connections}, 4 random"), options, Work::Random(4));
    }
    for threads in [1, 2, 4] {
        let options = AlluxioOptions { network_threads: threads, ..remote() };
        add(format!("threads: {threads}, 1 reader"), options.clone(), Work::Sequential(1));
        add(format!("threads: {threads}, 1 random"), options.clone(), Work::Random(1));
        add(format!("threads: {threads}, 4 random"), options, Work::Random(4));
    }
    for threads in [1, 4, 16] {
        for (way, handed) in [("on the calling thread", false), ("handed to another thread", true)] {
            add(format!("bridge: {threads} stat, {way}"), remote(), Work::Stat { threads, handed });
        }
    }
    for chunk in [64, 256, 1024, 4032] {
        let options = AlluxioOptions { writer_chunk: chunk * KIB, ..remote() };
        add(format!("write to a worker: chunks of {chunk} KiB"), options.clone(), Work::Write);
        let options = AlluxioOptions { short_circuit: true, ..options };
        add(format!("write to a local block: chunks of {chunk} KiB"), options, Work::Write);
    }
    cases
}

/// Through the worker, in memory only.
fn remote() -> AlluxioOptions {
    let paths =
        PathOptions { block_size: 64 * MIB, write_type: WriteType::MustCache, ..PathOptions::default() };
    AlluxioOptions { short_circuit: false, paths: paths.into(), ..AlluxioOptions::default() }
}

impl Case {
    /// MB/s, or reads per second.
    fn run(&self, file: &FsPath, size: u64) -> f64 {
        let fs = connect(self.options.clone());
        match self.work {
            Work::Sequential(readers) => {
                let start = Instant::now();
                let part = size / readers;
                thread::scope(|scope| {
                    for n in 0..readers {
                        let fs = &fs;
                        scope.spawn(move || {
                            let reader = fs.open(&Ctx::daemon(), file).unwrap();
                            for offset in (n * part..(n + 1) * part).step_by(MIB as usize) {
                                let slices = reader.read_at(&Ctx::daemon(), offset, MIB as usize).unwrap();
                                assert_eq!(slices.len() as u64, MIB);
                            }
                        });
                    }
                });
                size as f64 / 1e6 / start.elapsed().as_secs_f64()
            }
            Work::Random(readers) => {
                let time = Duration::from_millis(500);
                let counts: Vec<u64> = thread::scope(|scope| {
                    let run = |n| {
                        let fs = &fs;
                        scope.spawn(move || random_reads(fs, file, size, n, time))
                    };
                    let threads: Vec<_> = (0..readers).map(run).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                counts.iter().sum::<u64>() as f64 / time.as_secs_f64()
            }
            Work::Stat { threads, handed } => {
                let time = Duration::from_millis(500);
                let counts: Vec<u64> = thread::scope(|scope| {
                    let run = |_| scope.spawn(|| stats(&fs, file, handed, time));
                    let threads: Vec<_> = (0..threads).map(run).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                counts.iter().sum::<u64>() as f64 / time.as_secs_f64()
            }
            Work::Write => {
                let target = path("/client-bench-write");
                let start = Instant::now();
                write(&fs, &target, size);
                let took = start.elapsed().as_secs_f64();
                fs.remove_file(&Ctx::daemon(), &target).unwrap();
                size as f64 / 1e6 / took
            }
        }
    }
}

fn stats(fs: &AlluxioFs, file: &FsPath, handed: bool, time: Duration) -> u64 {
    let ask = || assert!(fs.stat(&Ctx::daemon(), file).unwrap().complete);
    let (start, mut count) = (Instant::now(), 0);
    if !handed {
        while start.elapsed() < time {
            ask();
            count += 1;
        }
        return count;
    }
    thread::scope(|scope| {
        let ((question, questions), (answer, answers)) = (bounded(1), bounded(1));
        scope.spawn(move || {
            for () in questions {
                ask();
                answer.send(()).unwrap();
            }
        });
        while start.elapsed() < time {
            question.send(()).unwrap();
            answers.recv().unwrap();
            count += 1;
        }
        count
    })
}

fn random_reads(fs: &AlluxioFs, file: &FsPath, size: u64, seed: u64, time: Duration) -> u64 {
    let reader = fs.open(&Ctx::daemon(), file).unwrap();
    let (start, mut count, mut state) = (Instant::now(), 0, seed + 1);
    while start.elapsed() < time {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (state >> 33) % (size / (8 * KIB)) * 8 * KIB;
        assert_eq!(reader.read_at(&Ctx::daemon(), offset, 4096).unwrap().len(), 4096);
        count += 1;
    }
    count
}

fn write(fs: &AlluxioFs, path: &FsPath, size: u64) {
    let ctx = Ctx::daemon();
    let options = CreateOptions { mode: 0o644, replace: false, beside: false };
    let (_, mut writer) = fs.create(&ctx, path, &options).unwrap();
    let piece = vec![7; MIB as usize];
    for _ in 0..size / MIB {
        writer.append(&ctx, &piece).unwrap();
    }
    writer.commit(&ctx).unwrap();
}

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

fn connect(options: AlluxioOptions) -> AlluxioFs {
    let master = std::env::var("ALLUXIO_TEST_MASTER").expect("ALLUXIO_TEST_MASTER=host:port names a cluster");
    AlluxioFs::connect(AlluxioOptions { masters: vec![master.parse().unwrap()], ..options }).unwrap()
}
