//! What was done in each interval, by operation, file and process, for one caller. It counts what it hears while it
//! listens, so that nobody counts it when nobody looks.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::time::Duration;
use std::time::Instant;

use super::Answer;
use super::Row;
use super::Top;
use super::inspect::Inspected;
use super::inspect::program;
use super::line::Line;
use crate::metrics;
use crate::metrics::Histogram;
use crate::metrics::Operation;
use crate::metrics::Source;
use crate::session::Event;
use crate::session::Listener;
use crate::session::Topic;

/// How often it is looked whether the caller is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Files, and processes, that are told apart in one interval; others are not counted by file or process.
const KEYS_MAX: usize = 10_000;

/// Rows of files, and of processes.
const ROWS: usize = 10;

/// A request that has not ended after so long may hang.
const LONG: Duration = Duration::from_secs(1);

/// Answers with one part for each interval, until the caller goes.
pub(super) fn top(line: &mut Line, inspected: &Inspected, interval: Duration) -> io::Result<()> {
    let listener = inspected.activity.listen();
    while let Some(page) = page(line, inspected, &listener, interval) {
        line.say(&Answer::Top(page))?;
    }
    Ok(())
}

/// One interval; nothing if the caller has gone.
fn page(line: &Line, inspected: &Inspected, listener: &Listener, interval: Duration) -> Option<Top> {
    let (begun, before) = (Instant::now(), read_by_source());
    let mut seen = Seen::default();
    let mut looked = begun;
    loop {
        let left = interval.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        if let Some(event) = listener.next(left.min(LOOK)) {
            seen.add(&event);
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if line.is_over() {
                return None;
            }
        }
    }
    let threads = inspected.threads();
    let sources = read_by_source().into_iter().map(|(name, bytes)| {
        let grown = bytes - before.get(&name).copied().unwrap_or_default();
        (name, grown)
    });
    Some(Top {
        mount: inspected.point.display().to_string(),
        pid: std::process::id(),
        seconds: begun.elapsed().as_secs_f64(),
        ops: rows(seen.ops, usize::MAX, |row| row.count * row.mean_us, |op| op.name().to_owned()),
        files: rows(seen.files, ROWS, |row| row.count, |topic| inspected.activity.path(topic)),
        callers: rows(seen.callers, ROWS, |row| row.count, |caller| caller.text()),
        sources: sources.filter(|(_, bytes)| *bytes > 0).collect(),
        dropped: listener.take_dropped(),
        busy: threads.busy.len(),
        idle: threads.idle,
        longest: threads.busy.into_iter().next().filter(|busy| busy.seconds >= LONG.as_secs_f64()),
        resident: resident(),
        open_handles: inspected.vfs.open_handles(),
        state: inspected.state(),
    })
}

/// What was heard in one interval.
#[derive(Default)]
struct Seen {
    ops: HashMap<Operation, Sum>,
    files: HashMap<Topic, Sum>,
    callers: HashMap<Caller, Sum>,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Caller {
    pid: u32,
    uid: u32,
}

#[derive(Default)]
struct Sum {
    failed: u64,
    bytes: u64,
    times: Histogram,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        let asked = &event.request;
        let caller = Caller { pid: asked.pid, uid: asked.uid };
        self.ops.entry(asked.operation).or_default().add(event);
        if let Some(sum) = entry(&mut self.files, asked.topic.clone()) {
            sum.add(event);
        }
        if let Some(sum) = entry(&mut self.callers, caller) {
            sum.add(event);
        }
    }
}

/// The sum of `key`, unless there are too many keys.
fn entry<K: Eq + Hash>(sums: &mut HashMap<K, Sum>, key: K) -> Option<&mut Sum> {
    if sums.len() >= KEYS_MAX && !sums.contains_key(&key) {
        return None;
    }
    Some(sums.entry(key).or_default())
}

impl Sum {
    fn add(&mut self, event: &Event) {
        self.failed += u64::from(event.code < 0);
        self.bytes += u64::try_from(event.code).unwrap_or(0);
        self.times.record(event.time);
    }

    fn row(&self, name: String) -> Row {
        let times = self.times.read();
        let micros = |nanos: f64| (nanos / 1000.0) as u64;
        Row {
            name,
            count: times.count,
            failed: self.failed,
            bytes: self.bytes,
            mean_us: micros(times.mean_ns()),
            p99_us: micros(times.quantile_ns(0.99)),
            max_us: micros(times.max_ns as f64),
        }
    }
}

impl Caller {
    fn text(self) -> String {
        match program(self.pid).as_str() {
            "" => format!("pid {}, uid {}", self.pid, self.uid),
            program => format!("{program}, pid {}, uid {}", self.pid, self.uid),
        }
    }
}

/// The first `most` rows by `weight`. Names are found out for those only.
fn rows<K>(
    sums: HashMap<K, Sum>,
    most: usize,
    weight: impl Fn(&Row) -> u64,
    name: impl Fn(&K) -> String,
) -> Vec<Row> {
    let mut rows: Vec<(K, Row)> = sums.into_iter().map(|(key, sum)| (key, sum.row(String::new()))).collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(weight(row)));
    rows.truncate(most);
    rows.into_iter().map(|(key, row)| Row { name: name(&key), ..row }).collect()
}

fn read_by_source() -> BTreeMap<String, u64> {
    Source::ALL.into_iter().map(|source| (source.name().to_owned(), metrics::read_from(source))).collect()
}

/// The memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}
