//! Everything that is counted, as plain data: under names of our own, told apart by labels, and under the names that
//! Alluxio's clients have. Whoever shows it, as JSON or for Prometheus, needs nothing else.
//!
//! What only some part of the program knows, such as how much memory it uses, it tells when it is asked: see [`register`].
//!
//! Lock order: the list of who is asked is the only lock, and is not held while they are.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::Method;
use super::counters;
use super::histogram::Distribution;
use super::operations;
use super::operations::Operation;
use super::process;
use super::rates;
use super::rates::Rates;
use super::rpc;
use super::sources;
use super::sources::Source;

/// The value of one thing that is counted or measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// It only grows.
    Counter(f64),
    /// It comes and goes.
    Gauge(f64),
    /// How long something took.
    Times(Distribution),
}

/// One value under a name of our own. Those of one name differ by their labels, are of one kind, and follow each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// As Prometheus wants it: with the unit, seconds or bytes, and `_total` for what only grows.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// Names and values that tell it apart.
    pub labels: Vec<(&'static str, String)>,
    /// How many or how much.
    pub value: Value,
}

/// The value of what Alluxio's clients show.
#[derive(Clone, Debug, PartialEq)]
pub enum JavaValue {
    /// It comes and goes.
    Gauge(f64),
    /// It only grows; Alluxio calls some numbers so that can shrink.
    Counter(u64),
    /// A counter with its rates.
    Meter(u64, Rates),
    /// How long something took, with the rates at which it happened.
    Timer(Distribution, Rates),
}

/// One value under the name that Alluxio's clients have for it.
#[derive(Clone, Debug, PartialEq)]
pub struct JavaMetric {
    /// Between `Client.` and the name of the client: `Fuse.Read`.
    pub name: String,
    /// Whether the user of the mount is part of the full name, as it is of calls to the master.
    pub by_user: bool,
    /// How many or how much.
    pub value: JavaValue,
}

/// Everything, read one after the other: values of one moment need not fit together exactly.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Under our names.
    pub samples: Vec<Sample>,
    /// Under Alluxio's names, sorted by them.
    pub java: Vec<JavaMetric>,
    now: Instant,
}

type Collector = Arc<dyn Fn(&mut Snapshot) + Send + Sync>;

static COLLECTORS: Mutex<(u64, Vec<(u64, Collector)>)> = Mutex::new((0, Vec::new()));

/// Has `collector` asked at each snapshot, as long as what is returned lives. It may take its time, but must not wait for
/// a server, nor take a snapshot.
pub fn register(collector: impl Fn(&mut Snapshot) + Send + Sync + 'static) -> Registration {
    let mut collectors = COLLECTORS.lock();
    collectors.0 += 1;
    let number = collectors.0;
    collectors.1.push((number, Arc::new(collector)));
    Registration(number)
}

/// A right to be asked. Dropped, it ends; a snapshot that has begun may ask once more.
#[derive(Debug)]
pub struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut collectors = COLLECTORS.lock();
        let at = collectors.1.iter().position(|(number, _)| *number == self.0);
        let gone = at.map(|at| collectors.1.remove(at));
        drop(collectors);
        // Whatever it holds goes without the lock.
        drop(gone);
    }
}

/// Everything, as of now.
pub fn snapshot() -> Snapshot {
    let mut all = Snapshot { samples: Vec::new(), java: Vec::new(), now: Instant::now() };
    all.add_operations();
    all.add_rpcs();
    all.add_bytes();
    for counter in counters::named() {
        let labels =
            if counter.key.is_empty() { vec![] } else { vec![(counter.key, counter.label.to_owned())] };
        all.sample(counter.name, counter.help, labels, Value::Counter(counter.value as f64));
    }
    for figure in process::figures() {
        let value = if figure.grows { Value::Counter(figure.value) } else { Value::Gauge(figure.value) };
        all.sample(figure.name, figure.help, Vec::new(), value);
    }
    let collectors: Vec<Collector> =
        COLLECTORS.lock().1.iter().map(|(_, collector)| Arc::clone(collector)).collect();
    for collector in collectors {
        collector(&mut all);
    }
    all.java.sort_by(|one, other| one.name.cmp(&other.name));
    // What was told by different parts of the program under one name belongs together.
    let mut names: Vec<&str> = Vec::new();
    for sample in &all.samples {
        if !names.contains(&sample.name) {
            names.push(sample.name);
        }
    }
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    all.samples.sort_by_key(|sample| names.iter().position(|name| name == sample.name));
    all
}

/// Brings rates up to date; to be called every [`rates::TICK`].
pub fn tick() {
    let all = snapshot();
    let counts = all.java.iter().filter_map(|metric| match &metric.value {
        JavaValue::Meter(count, _) => Some((metric.name.as_str(), *count)),
        JavaValue::Timer(times, _) => Some((metric.name.as_str(), times.count)),
        JavaValue::Gauge(_) | JavaValue::Counter(_) => None,
    });
    rates::tick(counts, all.now);
}

impl Snapshot {
    /// Adds a value under a name of our own.
    pub fn sample(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Vec<(&'static str, String)>,
        value: Value,
    ) {
        self.samples.push(Sample { name, help, labels, value });
    }

    /// Adds a gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.sample(name, help, Vec::new(), Value::Gauge(value));
    }

    /// Adds a counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.sample(name, help, Vec::new(), Value::Counter(value as f64));
    }

    /// Adds a gauge under Alluxio's name.
    pub fn java_gauge(&mut self, name: &str, value: f64) {
        self.java(name, false, JavaValue::Gauge(value));
    }

    /// Adds a counter under Alluxio's name.
    pub fn java_counter(&mut self, name: &str, value: u64) {
        self.java(name, false, JavaValue::Counter(value));
    }

    /// Adds a meter under Alluxio's name.
    pub fn java_meter(&mut self, name: &str, count: u64) {
        let rates = rates::rates(name, count, self.now);
        self.java(name, false, JavaValue::Meter(count, rates));
    }

    fn java_timer(&mut self, name: &str, by_user: bool, times: Distribution) {
        let rates = rates::rates(name, times.count, self.now);
        self.java(name, by_user, JavaValue::Timer(times, rates));
    }

    fn java(&mut self, name: &str, by_user: bool, value: JavaValue) {
        self.java.push(JavaMetric { name: name.to_owned(), by_user, value });
    }

    /// The value of the counter or gauge `name` with the labels `labels`, if there is one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is_it = |sample: &&Sample| {
            let same = |((a, b), (c, d)): (&(&str, String), &(&str, &str))| a == c && b == d;
            sample.name == name
                && sample.labels.len() == labels.len()
                && sample.labels.iter().zip(labels).all(same)
        };
        match &self.samples.iter().find(is_it)?.value {
            Value::Counter(value) | Value::Gauge(value) => Some(*value),
            Value::Times(times) => Some(times.count as f64),
        }
    }

    fn add_operations(&mut self) {
        let all: Vec<_> =
            Operation::ALL.iter().map(|operation| (*operation, operations::times(*operation))).collect();
        let mut total = Distribution::default();
        let mut java: Vec<(&'static str, Distribution, u64)> = Vec::new();
        for (operation, times) in &all {
            total.merge(times);
            let failures = operations::failures(*operation).map(|(_, count)| count).sum();
            let Some(name) = operation.java() else { continue };
            match java.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, failed)) => {
                    sum.merge(times);
                    *failed += failures;
                }
                None => java.push((name, times.clone(), failures)),
            }
        }
        for (name, times, failures) in java {
            self.java_timer(&format!("Fuse.{name}"), false, times);
            self.java_counter(&format!("Fuse.{name}Failures"), failures);
        }
        self.java_timer("Fuse.TotalCalls", false, total);
        for (operation, times) in all {
            let labels = vec![("op", operation.name().to_owned())];
            self.sample(
                "alluxio_fuse_operation_seconds",
                "Requests of the kernel, by how long their answers took.",
                labels,
                Value::Times(times),
            );
        }
        for operation in Operation::ALL {
            for (errno, count) in operations::failures(*operation) {
                let labels = vec![("op", operation.name().to_owned()), ("error", errno_name(errno))];
                self.sample(
                    "alluxio_fuse_operation_failures_total",
                    "Requests of the kernel that were answered with an error.",
                    labels,
                    Value::Counter(count as f64),
                );
            }
        }
    }

    fn add_rpcs(&mut self) {
        let mut found: Vec<(String, &'static str, Distribution, u64)> = Vec::new();
        rpc::each(|server, name, Method { time, failures, .. }| {
            found.push((server.to_owned(), name, time.read(), failures.value()));
        });
        let labels =
            |server: &str, method: &str| vec![("method", method.to_owned()), ("server", server.to_owned())];
        for (server, method, times, _) in &found {
            self.sample(
                "alluxio_fuse_rpc_seconds",
                "Calls to servers, each attempt by itself, by how long they took.",
                labels(server, method),
                Value::Times(times.clone()),
            );
        }
        for (server, method, _, failures) in &found {
            self.sample(
                "alluxio_fuse_rpc_failures_total",
                "Calls to servers that failed, each attempt by itself.",
                labels(server, method),
                Value::Counter(*failures as f64),
            );
        }
        rpc::each_of_all(|(name, Method { time, failures, retries })| {
            let (failures, retries) = (failures.value(), retries.value());
            self.java_timer(name, true, time.read());
            if failures > 0 {
                self.java(&format!("{name}Failures"), true, JavaValue::Counter(failures));
            }
            if retries > 0 {
                self.java(&format!("{name}Retries"), true, JavaValue::Counter(retries));
            }
            self.sample(
                "alluxio_fuse_rpc_retries_total",
                "Calls to servers that were made once more.",
                vec![("method", name.to_owned())],
                Value::Counter(retries as f64),
            );
        });
    }

    fn add_bytes(&mut self) {
        for source in Source::ALL {
            self.sample(
                "alluxio_fuse_read_bytes_total",
                "Bytes that reads were answered with, by where they came from.",
                vec![("source", source.name().to_owned())],
                Value::Counter(sources::read_from(source) as f64),
            );
        }
        for counter in counters::client() {
            self.java_counter(counter.name, counter.counter.value());
            if counter.throughput {
                self.java_meter(&format!("{}Throughput", counter.name), counter.counter.value());
            }
        }
        for (name, timer) in counters::client_timers() {
            let times = timer.read();
            if times.count > 0 {
                self.java_timer(name, false, times);
            }
        }
    }
}

/// `ENOENT`, or the number of an error without a name.
fn errno_name(errno: i32) -> String {
    match nix::errno::Errno::from_raw(errno) {
        nix::errno::Errno::UnknownErrno => errno.to_string(),
        known => format!("{known:?}"),
    }
}
