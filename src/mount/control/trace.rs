//! Operations as they end, for one caller.

use std::io;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use regex::Regex;

use super::Answer;
use super::Event;
use super::Wish;
use super::inspect::Inspected;
use super::inspect::request;
use super::line::Line;
use crate::metrics::Operation;
use crate::session;

/// How often it is looked whether the caller is still there.
const LOOK: Duration = Duration::from_millis(200);

/// What is wished for, in a form that is quickly compared.
struct Filter<'a> {
    wish: &'a Wish,
    ops: Vec<Operation>,
    path: Option<Regex>,
}

pub(super) fn trace(line: &mut Line, inspected: &Inspected, wish: &Wish) -> io::Result<()> {
    let filter = match Filter::new(wish) {
        Ok(filter) => filter,
        Err(problem) => return line.say(&Answer::Error(problem)),
    };
    let listener = inspected.activity.listen();
    line.say(&Answer::Tracing)?;
    let mut left = wish.count.unwrap_or(u64::MAX);
    let mut looked = Instant::now();
    while left > 0 {
        if let Some(event) = listener.next(LOOK)
            && let Some(event) = filter.wanted(inspected, &event)
        {
            line.say(&Answer::Event(event))?;
            left -= 1;
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            tell_dropped(line, &listener)?;
            if line.is_over() {
                return Ok(());
            }
        }
    }
    tell_dropped(line, &listener)
}

fn tell_dropped(line: &mut Line, listener: &session::Listener) -> io::Result<()> {
    match listener.take_dropped() {
        0 => Ok(()),
        dropped => line.say(&Answer::Dropped(dropped)),
    }
}

impl<'a> Filter<'a> {
    fn new(wish: &'a Wish) -> Result<Self, String> {
        let mut ops = Vec::new();
        for name in &wish.ops {
            let same = |op: &&Operation| op.name().eq_ignore_ascii_case(name);
            let Some(op) = Operation::ALL.iter().find(same) else {
                let names: Vec<&str> = Operation::ALL.iter().map(|op| op.name()).collect();
                return Err(format!("{name} is no operation, there are {}", names.join(", ")));
            };
            ops.push(*op);
        }
        let path = wish.path.as_deref().map(pattern).transpose()?;
        Ok(Self { wish, ops, path })
    }

    fn wanted(&self, inspected: &Inspected, event: &session::Event) -> Option<Event> {
        let asked = &event.request;
        if !self.ops.is_empty() && !self.ops.contains(&asked.operation)
            || event.time.as_micros() < u128::from(self.wish.slower_than_us)
            || self.wish.pid.is_some_and(|pid| !belongs(asked.pid, pid))
        {
            return None;
        }
        let path = inspected.activity.path(&asked.topic);
        if self.path.as_ref().is_some_and(|pattern| !pattern.is_match(&path)) {
            return None;
        }
        let at = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Event {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            request: request(asked, path),
            code: event.code,
            micros: u64::try_from(event.time.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

/// Whether thread `tid` is one of process `pid`.
fn belongs(tid: u32, pid: u32) -> bool {
    tid == pid || Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
}

/// A path and all below it, or a pattern in which `*` is any text and `?` any letter.
fn pattern(text: &str) -> Result<Regex, String> {
    let mut pattern = String::from("(?s)^");
    if text.contains(['*', '?']) {
        for c in text.chars() {
            match c {
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                c => pattern.push_str(&regex::escape(&c.to_string())),
            }
        }
        pattern.push('$');
    } else {
        pattern.push_str(&regex::escape(text.trim_end_matches('/')));
        pattern.push_str("(/|$| to )");
    }
    Regex::new(&pattern).map_err(|err| format!("path {text}: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_all_below_it_and_a_pattern_what_it_says() {
        let matches = |text: &str, path: &str| pattern(text).unwrap().is_match(path);
        assert!(
            matches("/a", "/a") && matches("/a/", "/a/b") && matches("/", "/x") && matches("/a", "/a to /b")
        );
        assert!(!matches("/a", "/ab") && !matches("/a", "/x/a"));
        assert!(matches("*.csv", "/x/y.csv") && !matches("*.csv", "/x/y.csv.gz"));
        assert!(matches("/a?c/*", "/abc/d") && !matches("/a.c/*", "/abc/d"));
    }

    #[test]
    fn an_operation_that_is_none_is_refused_with_those_there_are() {
        let wish = Wish { ops: vec!["Read".to_owned(), "look".to_owned()], ..Wish::default() };
        let problem = Filter::new(&wish).err().unwrap();
        assert!(problem.contains("look is no operation") && problem.contains("lookup"), "{problem}");
    }
}
