//! What can be seen of a mount: its counters, its state, its threads. Reads only, and waits for nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::Busy;
use super::Call;
use super::Other;
use super::Request;
use super::Stats;
use super::Threads;
use super::Times;
use super::Value;
use crate::backend::alluxio::AlluxioFs;
use crate::cache::data::DataCache;
use crate::metrics;
use crate::metrics::Distribution;
use crate::session;
use crate::session::Activity;
use crate::session::Doing;
use crate::vfs::Vfs;
use crate::waiting;
use crate::waiting::Wait;

/// The parts of a mount that are looked at.
#[derive(Clone)]
pub(in crate::mount) struct Inspected {
    /// Where it is.
    pub(in crate::mount) point: PathBuf,
    /// What it shows.
    pub(in crate::mount) path: String,
    /// Since when it serves.
    pub(in crate::mount) since: Instant,
    /// What its workers do.
    pub(in crate::mount) activity: Arc<Activity>,
    /// Its inodes and open files.
    pub(in crate::mount) vfs: Arc<Vfs>,
    /// Its data cache, if it has one.
    pub(in crate::mount) data: Option<Arc<DataCache>>,
    /// Its cluster, if it shows one.
    pub(in crate::mount) cluster: Option<Arc<AlluxioFs>>,
}

impl Inspected {
    /// Everything that is counted.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            mount: self.point.display().to_string(),
            path: self.path.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.since.elapsed().as_secs_f64(),
            open_handles: self.vfs.open_handles(),
            known_inodes: self.vfs.known_inodes(),
            state: self.state(),
            values: metrics::snapshot().samples.iter().map(value).collect(),
        }
    }

    /// What somebody wants to know who sends SIGQUIT, as to a Java process.
    pub(in crate::mount) fn log(&self) {
        log::info!(
            "{} open files and directories, {} inodes known to the kernel, {} threads",
            self.vfs.open_handles(),
            self.vfs.known_inodes(),
            tasks().len()
        );
        let counted = metrics::named().into_iter().filter(|counted| counted.value > 0);
        let counted: Vec<String> = counted.map(|counted| counted.to_string()).collect();
        log::info!("Counted: {}", counted.join(", "));
        self.state().iter().for_each(|sentence| log::info!("{sentence}"));
    }

    /// Sentences about caches, memory and traffic.
    pub(in crate::mount) fn state(&self) -> Vec<String> {
        let memory = self.vfs.memory();
        let metadata = memory
            .map(|memory| format!("Metadata cache: {} entries, {} bytes", memory.len(), memory.bytes()));
        let data = self.data.as_ref().map(|data| data.report());
        let cluster = self.cluster.iter().flat_map(|fs| [fs.memory().to_string(), fs.traffic().to_string()]);
        metadata.into_iter().chain(data).chain(cluster).collect()
    }

    /// What each thread does.
    pub(super) fn threads(&self) -> Threads {
        let workers = self.activity.workers();
        let busy: Vec<Busy> = workers
            .into_iter()
            .filter_map(|worker| Some(busy(worker.thread, worker.tid, worker.doing?)))
            .collect();
        let all = tasks();
        let is_worker =
            |name: &str| name.strip_prefix("fuse-").is_some_and(|rest| rest.parse::<u64>().is_ok());
        let workers = all.iter().filter(|task| is_worker(&task.name)).count();
        let at_work = busy.iter().filter(|busy| is_worker(&busy.thread)).count();
        let mut others: BTreeMap<String, Other> = BTreeMap::new();
        for task in all.into_iter().filter(|task| !is_worker(&task.name)) {
            let other = others.entry(task.name.clone()).or_default();
            other.thread = task.name;
            other.count += 1;
            if !other.states.contains(task.state) {
                other.states.push(task.state);
            }
        }
        Threads {
            idle: workers.saturating_sub(at_work),
            busy,
            others: others.into_values().collect(),
            calls: waiting::all().into_iter().map(call).collect(),
        }
    }
}

/// A thread of this process.
pub(super) struct Task {
    pub(super) tid: i32,
    pub(super) name: String,
    /// The kernel's letter for what it does.
    pub(super) state: char,
}

/// The threads of this process.
pub(super) fn tasks() -> Vec<Task> {
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let tid = entry.file_name().to_str()?.parse().ok()?;
            // One that has just ended is none.
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (before, after) = stat.rsplit_once(')')?;
            let name = before.split_once('(')?.1.to_owned();
            Some(Task { tid, name, state: after.trim_start().chars().next()? })
        })
        .collect()
}

pub(super) fn busy(thread: String, tid: i32, doing: Doing) -> Busy {
    Busy {
        thread,
        tid,
        seconds: doing.time.as_secs_f64(),
        request: request(&doing.request, doing.path),
        waiting: doing.wait.map(call),
    }
}

pub(super) fn request(request: &session::Request, path: String) -> Request {
    Request {
        op: request.operation.name().to_owned(),
        path,
        offset: request.range.map(|(offset, _)| offset),
        size: request.range.map(|(_, size)| size),
        unique: request.unique,
        uid: request.uid,
        pid: request.pid,
        program: program(request.pid),
    }
}

/// The name of the program of thread `pid`; empty if it has ended.
pub(super) fn program(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn call(wait: Wait) -> Call {
    Call {
        server: wait.server.to_string(),
        what: wait.what.to_owned(),
        seconds: wait.since.elapsed().as_secs_f64(),
    }
}

fn value(sample: &metrics::Sample) -> Value {
    let labels = sample.labels.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    let (value, times) = match &sample.value {
        metrics::Value::Counter(value) | metrics::Value::Gauge(value) => (*value, None),
        metrics::Value::Times(times) => (times.count as f64, Some(self::times(times))),
    };
    Value { name: sample.name.to_owned(), labels, value, times }
}

fn times(times: &Distribution) -> Times {
    let seconds = metrics::seconds;
    Times {
        sum: seconds(times.sum_ns as f64),
        mean: seconds(times.mean_ns()),
        p50: seconds(times.quantile_ns(0.5)),
        p99: seconds(times.quantile_ns(0.99)),
        max: seconds(times.max_ns as f64),
    }
}
