//! Our mount, the Java client's mount and tmpfs side by side: the same work on each, in turns, round by
//! round, on a real cluster. Prints a table for BENCHMARKS.md. Started by `make bench`.
//!
//! Settings, from the environment: `BENCH_ROUNDS` (5), `BENCH_FILE_MB` (128, each of five files),
//! `BENCH_FILES` (800 small files), `BENCH_SECONDS` (2, for each measure of random reads), `BENCH_OPTIONS`
//! (`direct_io`, of `-o` for both mounts), `BENCH_SHORT_CIRCUIT` (`true`), `BENCH_JAVA` (`false` leaves it out),
//! `BENCH_SMALL_FILES` (10000, of 100 KiB), `BENCH_QUICK` (small values for all of these: does it run, not how fast),
//! `BENCH_PART` (`all`; `local`, `remote`, `amounts`, `caches`, `memory` or `background` for what the modules of these names
//! measure instead). For `memory`: `BENCH_MEMORY_MB` (2048, of the file), `BENCH_MEMORY_PASSES` (10), `BENCH_MEMORY_READERS` (1).
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by its panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]

mod amounts;
mod background;
mod caches;
#[path = "../../tests/common/mod.rs"]
mod common;
mod local;
mod memory;
mod remote;
mod report;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;

use common::cluster::Cluster;
use common::cluster::JavaMount;
use common::cluster::RemoteDir;
use common::mount::Mount;
use common::mount::Spec;
use report::Results;
use work::Sizes;

fn main() -> ExitCode {
    if remote::read_if_told() {
        return ExitCode::SUCCESS;
    }
    let settings = Settings::from_environment();
    let cluster = Cluster::get();
    match &*settings.part {
        "local" => {
            local::run(&settings, &cluster);
            return ExitCode::SUCCESS;
        }
        "caches" => {
            caches::run(&settings, &cluster);
            return ExitCode::SUCCESS;
        }
        "background" => {
            background::run(&settings, &cluster);
            return ExitCode::SUCCESS;
        }
        "remote" => return code(remote::run(&settings, &cluster)),
        "amounts" => return code(amounts::run(&settings, &cluster)),
        "memory" => return code(memory::run(&settings, &cluster)),
        _ => {}
    }
    let sides = Sides::mount(&settings, &cluster);
    let names: Vec<&str> = sides.roots.iter().map(|(name, _)| *name).collect();
    let mut results = Results::new(&names);
    for round in 0..settings.rounds {
        run_round(&settings, &sides, round, &mut results);
    }
    sides.unmount();
    results.print(&settings.describe());
    // The peer may fail at something; we may not.
    let good = !results.has_failed(OURS);
    let good = remote::run(&settings, &cluster) && good;
    code(memory::run(&settings, &cluster) && good)
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const OURS: &str = "alluxio-fuse";
const JAVA: &str = "Java";
const NATIVE: &str = "tmpfs";

/// Every piece of work on every side, one side after the other before the next piece, and another side first in
/// each round, so that a slow minute of the machine hits all of them.
fn run_round(settings: &Settings, sides: &Sides, round: usize, results: &mut Results) {
    let mut sites: Vec<work::Site> = sides
        .roots
        .iter()
        .map(|(name, root)| work::Site::new(name, &root.join(format!("round{round}"))))
        .collect();
    let turn = round % sites.len();
    sites.rotate_left(turn);
    for job in work::JOBS {
        for site in &sites {
            let rate = job.run(site, &settings.sizes);
            if let Err(reason) = &rate {
                eprintln!("round {round}: {} on {}: {reason}", job.name, site.name);
            }
            results.add(job.name, job.unit, site.name, rate.ok());
        }
        eprintln!("round {} of {}: {}", round + 1, settings.rounds, job.name);
    }
    for site in &sites {
        site.remove();
    }
}

struct Settings {
    part: String,
    rounds: usize,
    sizes: Sizes,
    options: String,
    short_circuit: bool,
    java: bool,
    /// Files of 100 KiB.
    small_files: usize,
    memory: memory::Sizes,
}

impl Settings {
    fn from_environment() -> Settings {
        let quick = std::env::var_os("BENCH_QUICK").is_some();
        let default = |thorough: u64, brief: u64| if quick { brief } else { thorough };
        Settings {
            part: variable("BENCH_PART", "all".to_owned()),
            rounds: usize::try_from(variable("BENCH_ROUNDS", default(5, 2))).unwrap().max(1),
            sizes: Sizes {
                file_bytes: variable("BENCH_FILE_MB", default(128, 16)) << 20,
                files: usize::try_from(variable("BENCH_FILES", default(800, 80))).unwrap(),
                time: Duration::from_secs_f64(variable("BENCH_SECONDS", if quick { 0.3 } else { 2.0 })),
            },
            options: variable("BENCH_OPTIONS", "direct_io".to_owned()),
            short_circuit: variable("BENCH_SHORT_CIRCUIT", true),
            java: variable("BENCH_JAVA", true),
            small_files: usize::try_from(variable("BENCH_SMALL_FILES", default(10_000, 64))).unwrap(),
            memory: memory::Sizes {
                file_bytes: variable("BENCH_MEMORY_MB", default(2048, 512)) << 20,
                passes: variable("BENCH_MEMORY_PASSES", if quick { 3 } else { 10 }).max(1),
                readers: variable("BENCH_MEMORY_READERS", 1).max(1),
            },
        }
    }

    /// The words of `-o`, the same for both mounts.
    fn mount_options(&self) -> String {
        format!("{},alluxio.user.short.circuit.enabled={}", self.options, self.short_circuit)
    }

    fn describe(&self) -> String {
        format!(
            "{} rounds; files of {} MiB, {} small files; `-o {}`",
            self.rounds,
            self.sizes.file_bytes >> 20,
            self.sizes.files,
            self.mount_options()
        )
    }
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: what is `{text}`?")),
        Err(_) => default,
    }
}

/// The places to compare. Mounts of one directory of one cluster, and a directory in memory.
struct Sides {
    roots: Vec<(&'static str, PathBuf)>,
    ours: Mount,
    java: Option<JavaMount>,
    native: TempDir,
    _remote: RemoteDir,
}

impl Sides {
    fn mount(settings: &Settings, cluster: &Cluster) -> Sides {
        let remote = cluster.directory("bench");
        for name in ["ours", "java"] {
            cluster.shell(&["mkdir", &remote.join(name)]);
        }
        let ours = Spec::alluxio(cluster, &remote.join("ours")).option(&settings.mount_options()).start();
        let java =
            settings.java.then(|| cluster.mount_java(&remote.join("java"), &settings.mount_options(), &[]));
        let native = TempDir::with_prefix_in("alluxio-fuse-bench", "/dev/shm").unwrap();
        let mut roots = vec![(OURS, ours.path().to_owned())];
        roots.extend(java.as_ref().map(|java| (JAVA, java.path().to_owned())));
        roots.push((NATIVE, native.path().to_owned()));
        Sides { roots, ours, java, native, _remote: remote }
    }

    fn unmount(self) {
        self.ours.unmount();
        drop(self.java);
        self.native.close().unwrap();
    }
}
