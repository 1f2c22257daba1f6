//! Whether the mount answers, and whether what is behind it does: each is asked for itself, so that a hung one shows
//! which it is. A question that is not answered in time is given up, and not asked again before its answer has come.
//!
//! The mount is asked by a process of its own, as whoever serves a mount must not use it: killed meanwhile, it would wait
//! for itself for ever.
//!
//! Lock order: the state of a question is the only lock, and is held for memory only.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value as Json;
use serde_json::json;

use crate::fs::Cancel;
use crate::fs::Ctx;
use crate::fs::FileSystem;
use crate::fs::FsPath;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// This program, whatever has become of its file.
const PROGRAM: &str = "/proc/self/exe";

/// What is asked.
pub(super) struct Health {
    mount: Question,
    backend: Question,
    point: PathBuf,
    fs: Arc<dyn FileSystem>,
}

/// A question that is asked by one thread at a time.
#[derive(Clone, Default)]
struct Question {
    /// Since when it has been waiting for its answer.
    asked: Arc<Mutex<Option<Instant>>>,
}

/// What came of it.
struct Outcome {
    time: Duration,
    problem: Option<String>,
}

impl Health {
    /// Of the mount at `point` over `fs`, without the caches.
    pub(super) fn new(point: PathBuf, fs: Arc<dyn FileSystem>) -> Self {
        Self { mount: Question::default(), backend: Question::default(), point, fs }
    }

    /// Asks both at a time. Whether all is well, and what there is to say.
    pub(super) fn examine(&self) -> (bool, Json) {
        let point = self.point.clone().into_os_string();
        let (fs, cancel) = (Arc::clone(&self.fs), Arc::new(Cancel::new()));
        let heard = Arc::clone(&cancel);
        let mount = self.mount.ask("health-mount", move || probe(&point));
        let backend = self.backend.ask("health-backend", move || {
            let asked = fs.fresh_stat(&Ctx::new(0, 0, 0, &heard), &FsPath::root());
            asked.map(drop).map_err(|err| err.to_string())
        });
        let until = Instant::now() + LIMIT;
        let (mount, backend) = (mount.wait(until), backend.wait(until));
        // Whoever still waits for the backend need not.
        cancel.cancel();
        let ok = mount.problem.is_none() && backend.problem.is_none();
        let status = if ok { "ok" } else { "failed" };
        (ok, json!({ "status": status, "mount": mount.shown(), "backend": backend.shown() }))
    }
}

/// Has another process ask the mount for its capacity, which is answered without the backend if need be.
fn probe(point: &OsString) -> Result<(), String> {
    let outcome = Command::new(PROGRAM)
        .arg("probe")
        .arg(point)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match outcome {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(err) => Err(format!("cannot start {PROGRAM}: {err}")),
    }
}

/// A question that was asked.
enum Asked {
    Now(Instant, mpsc::Receiver<Result<(), String>>),
    /// It has been waiting since then.
    Before(Instant),
    Failed(String),
}

impl Question {
    fn ask(&self, name: &str, ask: impl FnOnce() -> Result<(), String> + Send + 'static) -> Asked {
        let begun = Instant::now();
        let mut asked = self.asked.lock();
        if let Some(since) = *asked {
            return Asked::Before(since);
        }
        *asked = Some(begun);
        drop(asked);
        let (sender, receiver) = mpsc::channel();
        let state = Arc::clone(&self.asked);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let answer = ask();
            *state.lock() = None;
            // Nobody listens any more if it took too long.
            let _ = sender.send(answer);
        });
        match thread {
            Ok(_) => Asked::Now(begun, receiver),
            Err(err) => {
                *self.asked.lock() = None;
                Asked::Failed(format!("cannot start a thread: {err}"))
            }
        }
    }
}

impl Asked {
    fn wait(self, until: Instant) -> Outcome {
        match self {
            Self::Now(begun, receiver) => {
                let left = until.saturating_duration_since(Instant::now());
                let problem = match receiver.recv_timeout(left) {
                    Ok(Ok(())) => None,
                    Ok(Err(problem)) => Some(problem),
                    Err(_) => Some(format!("no answer within {} seconds", LIMIT.as_secs())),
                };
                Outcome { time: begun.elapsed(), problem }
            }
            Self::Before(since) => {
                let time = since.elapsed();
                let problem = format!("no answer since {:.1} seconds", time.as_secs_f64());
                Outcome { time, problem: Some(problem) }
            }
            Self::Failed(problem) => Outcome { time: Duration::ZERO, problem: Some(problem) },
        }
    }
}

impl Outcome {
    fn shown(&self) -> Json {
        let ms = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        match &self.problem {
            None => json!({ "answered": true, "ms": ms }),
            Some(problem) => json!({ "answered": false, "ms": ms, "error": problem }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_is_not_asked_twice_and_an_answer_frees_it() {
        let question = Question::default();
        let (release, held) = mpsc::channel::<()>();
        let first = question.ask("test", move || held.recv().map_err(|err| err.to_string()));
        let second = question.ask("test", || Ok(()));
        assert!(matches!(&second, Asked::Before(_)));
        assert!(second.wait(Instant::now()).problem.unwrap().starts_with("no answer since"));
        release.send(()).unwrap();
        assert!(first.wait(Instant::now() + LIMIT).problem.is_none());
        let third = question.ask("test", || Err("gone".to_owned()));
        assert_eq!(third.wait(Instant::now() + LIMIT).problem.unwrap(), "gone");
    }
}
