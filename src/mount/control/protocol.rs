//! What is said over the control socket: one line of JSON to ask, and one or more to answer. Both sides are this program,
//! of versions that may differ; so what is not known is left out, and a question that is not known is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// Longest question, in bytes.
pub(super) const ASK_MAX: usize = 64 << 10;

/// Longest line of an answer, in bytes: that of a flame graph.
pub(super) const ANSWER_MAX: usize = 64 << 20;

/// A question.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Everything that is counted.
    Stats,
    /// What each thread does.
    Threads,
    /// Operations as they end, until one side closes.
    Trace(Wish),
    /// What was done in each interval, until one side closes.
    Top {
        /// The interval in milliseconds, 50 to 60,000.
        interval_ms: u64,
    },
    /// Where the time goes, as a flame graph.
    Profile {
        /// For how long, 1 to 300.
        seconds: u64,
        /// What threads wait for, rather than what processors do.
        off_cpu: bool,
    },
    /// Another level for the log.
    LogLevel {
        /// Of which part of the program.
        name: String,
        /// The level.
        level: String,
    },
}

/// Which operations are traced. What is empty or absent does not matter.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Wish {
    /// Names of operations.
    pub ops: Vec<String>,
    /// A path of the mount, which those below it match as well, or a pattern with `*` and `?`.
    pub path: Option<String>,
    /// Only those that took as long, in microseconds.
    pub slower_than_us: u64,
    /// Only those of this process.
    pub pid: Option<u32>,
    /// End after so many.
    pub count: Option<u64>,
}

/// A part of an answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It cannot be answered, and why.
    Error(String),
    /// To `Stats`.
    Stats(Stats),
    /// To `Threads`.
    Threads(Threads),
    /// To `Trace`: it begins now.
    Tracing,
    /// To `Trace`: an operation has ended.
    Event(Event),
    /// To `Trace`: so many were not told, as they came too fast.
    Dropped(u64),
    /// To `Top`: one interval.
    Top(Box<Top>),
    /// To `Profile`: a picture, and how many samples it is made of.
    Profile {
        /// As SVG.
        svg: String,
        /// How many.
        samples: u64,
    },
    /// To `LogLevel`: what it is now.
    LogLevel(String),
}

/// Everything that is counted, and the state of the mount.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Stats {
    /// The mount point.
    pub mount: String,
    /// What it shows.
    pub path: String,
    /// The process that serves it.
    pub pid: u32,
    /// The version of the program.
    pub version: String,
    /// How long it has served.
    pub uptime_seconds: f64,
    /// Open files and directories.
    pub open_handles: usize,
    /// Inodes that the kernel knows.
    pub known_inodes: usize,
    /// Sentences about parts of the mount: caches, memory, traffic.
    pub state: Vec<String>,
    /// Values by name and labels.
    pub values: Vec<Value>,
}

/// One value.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Value {
    /// What it is, with its unit.
    pub name: String,
    /// Which of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many or how much; how often, if there are times.
    pub value: f64,
    /// How long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// How long something took, in seconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Times {
    /// In all.
    pub sum: f64,
    /// On average.
    pub mean: f64,
    /// Half of them at most.
    pub p50: f64,
    /// 99 of 100 at most.
    pub p99: f64,
    /// At most.
    pub max: f64,
}

/// Threads, and calls to servers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Threads {
    /// Those that serve a request, the longest first.
    pub busy: Vec<Busy>,
    /// How many wait for a request.
    pub idle: usize,
    /// All others, by name.
    pub others: Vec<Other>,
    /// Calls that are under way, the longest first.
    pub calls: Vec<Call>,
}

/// A thread that serves a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Busy {
    /// Its name.
    pub thread: String,
    /// Its number.
    pub tid: i32,
    /// For how long.
    pub seconds: f64,
    /// The request.
    pub request: Request,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Call>,
}

/// One request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Request {
    /// The operation.
    pub op: String,
    /// What it is about, in the mount.
    pub path: String,
    /// Where in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The kernel's number of it.
    pub unique: u64,
    /// Who asks.
    pub uid: u32,
    /// Which thread.
    pub pid: u32,
    /// Its program, if that is known.
    pub program: String,
}

/// A call to a server, or a wait for this process itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Call {
    /// Who is to answer; empty for this process.
    pub server: String,
    /// What.
    pub what: String,
    /// For how long.
    pub seconds: f64,
}

/// A thread that serves no requests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Other {
    /// Its name.
    pub thread: String,
    /// How many of that name.
    pub count: usize,
    /// What they do, by the kernel's letters: R runs, S sleeps, D waits for a device.
    pub states: String,
}

/// An operation that has ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was asked for.
    pub request: Request,
    /// Bytes or 0; a negative error number if it failed.
    pub code: i64,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What was done in one interval.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Top {
    /// The mount point.
    pub mount: String,
    /// The process that serves it.
    pub pid: u32,
    /// How long the interval was.
    pub seconds: f64,
    /// By operation, those that took most time first.
    pub ops: Vec<Row>,
    /// By file, those with most operations first.
    pub files: Vec<Row>,
    /// By process, those with most operations first.
    pub callers: Vec<Row>,
    /// Bytes read in the interval, by where they came from.
    pub sources: BTreeMap<String, u64>,
    /// Operations that were not looked at, as they came too fast.
    pub dropped: u64,
    /// Threads at work, and those that wait for it.
    pub busy: usize,
    /// See `busy`.
    pub idle: usize,
    /// What hangs longest, if it does for more than a second.
    pub longest: Option<Busy>,
    /// Bytes of memory of the process.
    pub resident: u64,
    /// Open files and directories.
    pub open_handles: usize,
    /// Sentences about parts of the mount.
    pub state: Vec<String>,
}

/// A line of [`Top`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Row {
    /// What is counted.
    pub name: String,
    /// How many.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Average time in microseconds.
    pub mean_us: u64,
    /// 99 of 100 took at most so many microseconds; told of operations only.
    pub p99_us: Option<u64>,
    /// The longest, in microseconds.
    pub max_us: u64,
}
