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
use crate::mount::memory;
use crate::session::Event;
use crate::session::Listener;
use crate::session::Topic;

/// How often it is looked whether the caller is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Files, and processes, that are told apart in one interval; others are not counted by file or process.
const KEYS_MAX: usize = 2_000;

/// Rows of files, and of processes.
const ROWS: usize = 10;

/// A request that has not ended after so long may hang.
const LONG: Duration = Duration::from_secs(1);

/// Answers with one part for each interval, until the caller goes.
pub(super) fn top(line: &mut Line, inspected: &Inspected, interval: Duration) -> io::Result<()> {
    let listener = inspected.activity.listen();
    while let Some(page) = page(line, inspected, &listener, interval) {
        line.say(&Answer::Top(Box::new(page)))?;
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
        ops: by_time(&seen.ops),
        files: by_count(&seen.files, |topic| inspected.activity.path(topic)),
        callers: by_count(&seen.callers, |caller| caller.text(&seen.programs)),
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
    ops: HashMap<Operation, (Sum, Histogram)>,
    files: HashMap<Topic, Sum>,
    callers: HashMap<Caller, Sum>,
    /// What threads run, looked for when they are first seen: most are gone soon.
    programs: HashMap<u32, String>,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Caller {
    pid: u32,
    uid: u32,
}

#[derive(Default)]
struct Sum {
    count: u64,
    failed: u64,
    bytes: u64,
    time: Duration,
    longest: Duration,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        let asked = &event.request;
        let caller = Caller { pid: asked.pid, uid: asked.uid };
        let (sum, times) = self.ops.entry(asked.operation).or_default();
        sum.add(event);
        times.record(event.time);
        if let Some(sum) = entry(&mut self.files, asked.topic.clone()) {
            sum.add(event);
        }
        if let Some(sum) = entry(&mut self.callers, caller) {
            sum.add(event);
            self.programs.entry(caller.pid).or_insert_with(|| program(caller.pid));
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
        self.count += 1;
        self.failed += u64::from(event.code < 0);
        self.bytes += u64::try_from(event.code).unwrap_or(0);
        self.time += event.time;
        self.longest = self.longest.max(event.time);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.time += other.time;
        self.longest = self.longest.max(other.longest);
    }

    fn row(&self, name: String) -> Row {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Row {
            name,
            count: self.count,
            failed: self.failed,
            bytes: self.bytes,
            mean_us: micros(self.time) / self.count.max(1),
            p99_us: None,
            max_us: micros(self.longest),
        }
    }
}

impl Caller {
    fn text(self, programs: &HashMap<u32, String>) -> String {
        let Self { pid, uid } = self;
        match programs.get(&pid).map_or("", String::as_str) {
            "" if pid == 0 => "the kernel, or another pid namespace".to_owned(),
            "" => format!("pid {pid}, uid {uid}"),
            program => format!("{program}, pid {pid}, uid {uid}"),
        }
    }
}

/// The operations, those that took most time first.
fn by_time(ops: &HashMap<Operation, (Sum, Histogram)>) -> Vec<Row> {
    let mut ops: Vec<_> = ops.iter().collect();
    ops.sort_by_key(|(_, (sum, _))| std::cmp::Reverse(sum.time));
    let row = |(op, (sum, times)): (&Operation, &(Sum, Histogram))| Row {
        p99_us: Some((times.read().quantile_ns(0.99) / 1000.0) as u64),
        ..sum.row(op.name().to_owned())
    };
    ops.into_iter().map(row).collect()
}

/// The first rows by number. What has the same name is the same.
fn by_count<K>(sums: &HashMap<K, Sum>, name: impl Fn(&K) -> String) -> Vec<Row> {
    let mut named: HashMap<String, Sum> = HashMap::new();
    for (key, sum) in sums {
        named.entry(name(key)).or_default().merge(sum);
    }
    let mut rows: Vec<Row> = named.into_iter().map(|(name, sum)| sum.row(name)).collect();
    rows.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.name.cmp(&other.name)));
    rows.truncate(ROWS);
    rows
}

fn read_by_source() -> BTreeMap<String, u64> {
    Source::ALL.into_iter().map(|source| (source.name().to_owned(), metrics::read_from(source))).collect()
}

/// The memory of this process in bytes.
fn resident() -> u64 {
    memory::of_process("VmRSS:").unwrap_or_default()
}
