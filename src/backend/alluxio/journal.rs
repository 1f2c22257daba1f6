//! Which files this process is writing, by the master's numbers, in a file on this machine: what a process that is
//! killed leaves incomplete, the next one finds here. Asks nobody itself: `leftovers` does.
//!
//! A file is noted before the master is asked to make it, with the id of that request: should its answer be lost, the same
//! request once more tells whether it was carried out.
//!
//! A journal is locked as long as its process lives, so whoever gets the lock knows that its writer is gone.
//!
//! Lock order: last; held across a small write to the journal.
//! Invariant: a file is in the journal from before it exists until it is complete, or gone.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use parking_lot::Mutex;
use uuid::Uuid;

use super::options::AlluxioOptions;
use crate::fs::FsPath;
use crate::fs::Timestamp;

/// How the names of journals begin.
const PREFIX: &str = "writing-";

/// A journal of this many bytes is written anew, if most of it is of no use any more.
const BYTES_MAX: u64 = 64 << 10;

/// The journal of this process.
pub(super) struct Journal {
    path: PathBuf,
    /// The first line: which cluster it is about.
    cluster: String,
    state: Mutex<State>,
}

struct State {
    file: Flock<File>,
    /// What it has to say of the files that are open.
    open: HashMap<Uuid, String>,
    bytes: u64,
}

/// One file that is being written. Dropped without [`done`](Self::done), it stays in the journal.
pub(super) struct Entry {
    journal: Arc<Journal>,
    id: Uuid,
    ended: AtomicBool,
}

/// What a journal says of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A request to make it.
    Asked {
        /// Where.
        path: FsPath,
        /// When, in milliseconds since 1970. Older versions do not say.
        ms: Option<i64>,
    },
    /// It was made, and has this number.
    Made(i64),
}

/// The journal of a process that has ended.
pub(super) struct Left {
    pub(super) path: PathBuf,
    /// Keeps others from doing the same work.
    _lock: Flock<File>,
    /// By the requests that asked for them.
    pub(super) files: HashMap<Uuid, Record>,
}

/// The journal that `options` ask for, if there is a place for it.
pub(super) fn open(options: &AlluxioOptions) -> Option<Arc<Journal>> {
    let dir = options.journal_dir.as_deref()?;
    match Journal::open(dir, cluster(options)) {
        Ok(journal) => Some(Arc::new(journal)),
        Err(err) => {
            let dir = dir.display();
            log::warn!("what a crash leaves incomplete will not be removed, {dir} cannot be written: {err}");
            None
        }
    }
}

impl Journal {
    /// A new one in `dir`, which nobody else may write, for the cluster `cluster`.
    fn open(dir: &Path, cluster: String) -> io::Result<Self> {
        let id = Uuid::new_v4();
        // It gets its name when it is locked.
        let draft = dir.join(format!("new-{id}"));
        let path = dir.join(format!("{PREFIX}{id}"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&draft)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        let state = Mutex::new(State { file, open: HashMap::new(), bytes: 0 });
        let journal = Self { path, cluster, state };
        journal.start(&mut journal.state.lock())?;
        std::fs::rename(&draft, &journal.path)?;
        Ok(journal)
    }

    /// Notes that the request `id` asks for a file at `path` at the time `now`.
    pub(super) fn begin(self: &Arc<Self>, id: Uuid, path: &FsPath, now: Timestamp) -> Entry {
        self.say(id, &format!("? {id} {} {}\n", now.millis(), path.as_str().replace('\n', "\0")));
        Entry { journal: Arc::clone(self), id, ended: AtomicBool::new(false) }
    }

    fn say(&self, id: Uuid, line: &str) {
        let mut state = self.state.lock();
        line.clone_into(state.open.entry(id).or_default());
        self.note(state.add(line));
    }

    fn end(&self, id: Uuid) {
        let mut state = self.state.lock();
        state.open.remove(&id);
        let live: u64 =
            if state.bytes > BYTES_MAX { state.open.values().map(|line| line.len() as u64).sum() } else { 0 };
        let noted = if state.bytes > BYTES_MAX.max(2 * live) {
            self.start(&mut state)
        } else {
            state.add(&format!("- {id}\n"))
        };
        self.note(noted);
    }

    fn start(&self, state: &mut State) -> io::Result<()> {
        state.file.set_len(0)?;
        state.bytes = 0;
        let lines: String = state.open.values().map(String::as_str).collect();
        state.add(&format!("{}\n{lines}", self.cluster))
    }

    /// Files are written all the same.
    fn note(&self, result: io::Result<()>) {
        if let Err(err) = result {
            log::warn!("{} does not say what is being written: {err}", self.path.display());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.state.lock().open.is_empty()
            && let Err(err) = std::fs::remove_file(&self.path)
        {
            log::debug!("{} stays behind: {err}", self.path.display());
        }
    }
}

impl State {
    fn add(&mut self, line: &str) -> io::Result<()> {
        self.bytes += line.len() as u64;
        (&*self.file).write_all(line.as_bytes())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(out)
    }
}

impl Entry {
    /// The file has the number `file_id`.
    pub(super) fn made(&self, file_id: i64) {
        self.journal.say(self.id, &format!("+ {} {file_id}\n", self.id));
    }

    /// The file is complete, or gone, or was never made.
    pub(super) fn done(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.journal.end(self.id);
        }
    }
}

/// What tells this cluster from others.
pub(super) fn cluster(options: &AlluxioOptions) -> String {
    let masters: Vec<String> = options.masters.iter().map(ToString::to_string).collect();
    format!("{} {}", options.user, masters.join(","))
}

/// The journals in `dir` about `cluster` whose writers are gone.
pub(super) fn left(dir: &Path, cluster: &str) -> io::Result<Vec<Left>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let path = entry.path();
        // Locked: its process is alive. Gone: somebody else has cleaned up.
        let Ok(file) = File::open(&path) else { continue };
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        let mut text = String::new();
        (&*lock).read_to_string(&mut text)?;
        if let Some(files) = parse(&text, cluster) {
            journals.push(Left { path, _lock: lock, files });
        }
    }
    Ok(journals)
}

/// The files that a journal leaves open; nothing if it is about another cluster.
fn parse(text: &str, cluster: &str) -> Option<HashMap<Uuid, Record>> {
    // A line without an end was not written to its end, so what it announces was not begun.
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    if lines.next()? != cluster {
        return None;
    }
    let mut files = HashMap::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(id)) = (words.next(), words.next()) else { continue };
        let Ok(id) = Uuid::parse_str(id) else { continue };
        match (kind, words.next()) {
            ("?", Some(request)) => files.extend(asked(request).map(|record| (id, record))),
            ("+", Some(number)) => files.extend(number.parse().ok().map(|number| (id, Record::Made(number)))),
            ("-", None) => drop(files.remove(&id)),
            _ => {}
        }
    }
    Some(files)
}

/// The time and the path of a request; paths begin with a slash.
fn asked(request: &str) -> Option<Record> {
    let (ms, path) = match request.split_once(' ') {
        Some((ms, path)) if !request.starts_with('/') => (Some(ms.parse().ok()?), path),
        _ => (None, request),
    };
    let path = FsPath::parse(&path.replace('\0', "\n")).ok()?;
    Some(Record::Asked { path, ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "root m:1,n:2";

    fn journal(dir: &Path) -> Arc<Journal> {
        Arc::new(Journal::open(dir, CLUSTER.to_owned()).unwrap())
    }

    fn begin(journal: &Arc<Journal>, path: &str) -> Entry {
        journal.begin(Uuid::new_v4(), &FsPath::parse(path).unwrap(), Timestamp::from_millis(5_000))
    }

    fn found(dir: &Path, cluster: &str) -> HashMap<Uuid, Record> {
        left(dir, cluster).unwrap().into_iter().flat_map(|left| left.files).collect()
    }

    #[test]
    fn what_was_not_done_is_found_when_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let (asked, made, done) = (begin(&journal, "/a b\nc"), begin(&journal, "/m"), begin(&journal, "/d"));
        made.made(7);
        done.made(8);
        done.done();
        done.done();
        let record = Record::Asked { path: FsPath::parse("/a b\nc").unwrap(), ms: Some(5_000) };
        let expected = HashMap::from([(asked.id, record), (made.id, Record::Made(7))]);
        assert!(found(dir.path(), CLUSTER).is_empty(), "it is alive");
        drop((asked, made, done, journal));
        assert!(found(dir.path(), "root other:1").is_empty());
        assert_eq!(found(dir.path(), CLUSTER), expected);
    }

    #[test]
    fn a_journal_without_open_files_goes_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        begin(&journal, "/a").done();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(journal);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_journal_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let kept = begin(&journal, "/kept");
        kept.made(5);
        for _ in 0..5_000 {
            begin(&journal, "/a").done();
        }
        assert!(journal.path.metadata().unwrap().len() <= BYTES_MAX + 200);
        let expected = HashMap::from([(kept.id, Record::Made(5))]);
        drop((kept, journal));
        assert_eq!(found(dir.path(), CLUSTER), expected);
    }

    #[test]
    fn lines_without_a_time_are_understood() {
        let id = Uuid::new_v4();
        let record = Record::Asked { path: FsPath::parse("/a b").unwrap(), ms: None };
        assert_eq!(parse(&format!("x\n? {id} /a b\n"), "x"), Some(HashMap::from([(id, record)])));
        assert_eq!(parse(&format!("x\n? {id} soon /a\n"), "x"), Some(HashMap::new()));
    }

    #[test]
    fn half_a_line_and_nonsense_are_passed_over() {
        let id = Uuid::new_v4();
        let text = format!("root m:1\n+ {id} 1\nx\n+ x 3\n- {id}");
        assert_eq!(parse(&text, "root m:1"), Some(HashMap::from([(id, Record::Made(1))])));
        assert_eq!(parse(&format!("{text}\n"), "root m:1"), Some(HashMap::new()));
        assert_eq!(parse("root m:1", "root m:1"), None);
        assert_eq!(parse("", "root m:1"), None);
    }
}
