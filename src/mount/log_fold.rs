//! Lines that repeat: of each kind a few are written as they come, and the rest of a while as one, with their number and
//! the last of them. Knows neither files nor clocks: times are handed in.
//!
//! Two lines are of one kind if they differ in paths and numbers only. So a storm of errors takes a few lines in ten
//! seconds, and each different error is still seen.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use log::Level;

/// How long lines of one kind are counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// So many of a kind are written as they come.
const WHOLE: u32 = 5;

/// Kinds that are told apart at a time. Lines of more than that are all written.
const KINDS_MAX: usize = 256;

/// A line without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// How bad it is.
    pub(super) level: Level,
    /// Which part of the program says it.
    pub(super) target: String,
    /// What it says.
    pub(super) text: String,
}

/// The lines of the last while.
#[derive(Debug, Default)]
pub(super) struct Fold {
    kinds: HashMap<(Level, String, String), Kind>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    written: u32,
    held: u64,
    last: String,
}

impl Fold {
    /// Whether `line` is to be written now. If not, it is counted, and [`Self::due`] tells of it later.
    pub(super) fn admits(&mut self, now: Instant, line: &Line) -> bool {
        if line.level > Level::Warn {
            return true;
        }
        let key = (line.level, line.target.clone(), kind(&line.text));
        // Of a kind with lines that are held back `due` tells, which removes it.
        let is_past = |kind: &Kind| kind.held == 0 && now.saturating_duration_since(kind.since) >= WINDOW;
        if self.kinds.get(&key).is_some_and(is_past) {
            self.kinds.remove(&key);
        }
        if self.kinds.len() >= KINDS_MAX {
            self.kinds.retain(|_, kind| !is_past(kind));
        }
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&key) {
            return true;
        }
        let fresh = || Kind { since: now, written: 0, held: 0, last: String::new() };
        let kind = self.kinds.entry(key).or_insert_with(fresh);
        if kind.written < WHOLE {
            kind.written += 1;
            return true;
        }
        kind.held += 1;
        kind.last.clone_from(&line.text);
        false
    }

    /// One line for each kind whose while is over and of which lines were held back. It begins anew.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Line> {
        self.take(|kind| now.saturating_duration_since(kind.since) >= WINDOW)
    }

    /// The same for all kinds, as nothing more will be written.
    pub(super) fn rest(&mut self) -> Vec<Line> {
        self.take(|_| true)
    }

    /// When [`Self::due`] should be asked next; none if nothing is held back.
    pub(super) fn next(&self) -> Option<Instant> {
        self.kinds.values().filter(|kind| kind.held > 0).map(|kind| kind.since + WINDOW).min()
    }

    fn take(&mut self, is_over: impl Fn(&Kind) -> bool) -> Vec<Line> {
        let over: Vec<_> =
            self.kinds.iter().filter(|(_, kind)| is_over(kind)).map(|(key, _)| key.clone()).collect();
        let taken = over.into_iter().filter_map(|key| {
            let Kind { held, last, .. } = self.kinds.remove(&key)?;
            let times = if held == 1 { "once".to_owned() } else { format!("{held} times") };
            let text = format!("{last} (repeated {times} in {} s)", WINDOW.as_secs());
            (held > 0).then_some(Line { level: key.0, target: key.1, text })
        });
        let mut lines: Vec<Line> = taken.collect();
        lines.sort_by(|one, other| one.text.cmp(&other.text));
        lines
    }
}

/// What remains of a line without its paths and numbers.
fn kind(text: &str) -> String {
    let text = match text.strip_prefix("Failed to ").and_then(|rest| rest.split_once(" /")) {
        // A path may have blanks in it; it ends where the cause begins.
        Some((before, rest)) => match rest.split_once(": ") {
            Some((_, cause)) => format!("Failed to {before} /: {cause}"),
            None => format!("Failed to {before} /"),
        },
        None => text.to_owned(),
    };
    let words = text.split(' ').map(|word| if word.contains('/') { "/" } else { word });
    let mut kind = String::with_capacity(text.len());
    for word in words {
        for c in word.chars() {
            match c {
                '0'..='9' if kind.ends_with('#') => {}
                '0'..='9' => kind.push('#'),
                c => kind.push(c),
            }
        }
        kind.push(' ');
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Line {
        Line {
            level: Level::Error,
            target: "alluxio_fuse::session::answer".to_owned(),
            text: text.to_owned(),
        }
    }

    fn failure(number: u32) -> Line {
        error(&format!("Failed to read /a {number}/b: no answer from h:{number} (cat, pid {number}, uid 0)"))
    }

    #[test]
    fn a_storm_is_a_few_lines_and_their_number() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        let written = (0..1000).filter(|number| fold.admits(now, &failure(*number))).count();
        assert_eq!(written, 5);
        assert_eq!(fold.next(), Some(now + WINDOW));
        assert_eq!(fold.due(now + WINDOW / 2), []);
        let told = fold.due(now + WINDOW);
        let text = "Failed to read /a 999/b: no answer from h:999 (cat, pid 999, uid 0) (repeated 995 times in 10 s)";
        assert_eq!(told, [error(text)]);
        assert_eq!(fold.next(), None);
        assert!(fold.admits(now + WINDOW, &failure(1)), "what comes later is written again");
    }

    #[test]
    fn what_differs_in_more_than_paths_and_numbers_is_written() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        (0..9).for_each(|number| _ = fold.admits(now, &failure(number)));
        for text in
            ["Failed to write /a: no answer from h:1", "Failed to read /a: permission denied", "other"]
        {
            assert!(fold.admits(now, &error(text)), "{text}");
        }
        let warning = Line { level: Level::Warn, ..failure(1) };
        assert!(fold.admits(now, &warning));
    }

    #[test]
    fn nothing_that_was_held_back_is_lost_at_the_end() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        (0..6).for_each(|number| _ = fold.admits(now, &failure(number)));
        let rest = fold.rest();
        assert_eq!(rest.len(), 1);
        assert!(rest[0].text.ends_with("(repeated once in 10 s)"), "{rest:?}");
        assert_eq!(fold.rest(), []);
    }

    #[test]
    fn information_is_never_held_back() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        let line = Line { level: Level::Info, ..failure(1) };
        assert!((0..100).all(|_| fold.admits(now, &line)));
    }

    #[test]
    fn a_kind_that_was_never_held_back_begins_anew_after_its_while() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        (0..5).for_each(|number| assert!(fold.admits(now, &failure(number))));
        assert!((0..5).all(|number| fold.admits(now + WINDOW, &failure(number))));
        assert!(!fold.admits(now + WINDOW, &failure(6)));
    }

    #[test]
    fn kinds_of_long_ago_make_room_for_others() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        let word = |number: usize| "x".repeat(number + 1);
        (0..KINDS_MAX).for_each(|number| assert!(fold.admits(now, &error(&word(number)))));
        let later = now + WINDOW;
        assert!((0..5).all(|_| fold.admits(later, &failure(1))));
        assert!(!fold.admits(later, &failure(1)), "it is folded");
        assert_eq!(fold.kinds.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_lines_beyond_it_are_written() {
        let (mut fold, now) = (Fold::default(), Instant::now());
        let word = |number: usize| "x".repeat(number + 1);
        for number in 0..2 * KINDS_MAX {
            assert!((0..5).all(|_| fold.admits(now, &error(&word(number)))));
        }
        assert_eq!(fold.kinds.len(), KINDS_MAX);
        assert!(!fold.admits(now, &error(&word(0))));
        assert!(fold.admits(now, &error(&word(KINDS_MAX))));
        assert_eq!(fold.due(now + WINDOW).len(), 1);
        assert!(fold.kinds.is_empty());
    }
}
