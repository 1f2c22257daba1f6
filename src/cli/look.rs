//! What the commands that look into a mount share: which mount is meant, and how numbers are shown.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::complain;
use crate::config::Environment;
use crate::mount;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Control;
use crate::mount::Failure;
use crate::mount::Record;
use crate::mount::Registry;

/// Asks the mount at `point`, or the only one. Parts of its answer are to come within `within` of each other, and a
/// little more.
pub(super) fn ask(point: Option<&str>, ask: &Ask, within: Duration) -> Result<Control, Failure> {
    let registry = Registry::open(&Environment::of_process().runtime_dirs())?;
    let record = choose(point, registry.mounts()?)?;
    Control::ask(&registry, &record, ask, within)
}

/// The whole of an answer that has one part.
pub(super) fn answer(point: Option<&str>, question: &Ask, within: Duration) -> Result<Answer, Failure> {
    let answer = ask(point, question, within)?.part()?;
    answer.ok_or_else(|| Failure::new("the mount has ended without an answer"))
}

fn choose(point: Option<&str>, mut records: Vec<Record>) -> Result<Record, Failure> {
    let Some(text) = point else {
        return match records.len() {
            0 => Err(Failure::new("no mount of this user is running")),
            1 => Ok(records.remove(0)),
            _ => {
                let points: Vec<String> =
                    records.iter().map(|record| record.point.display().to_string()).collect();
                Err(Failure::new(format!("there are several mounts, name one: {}", points.join(", "))))
            }
        };
    };
    let place =
        mount::resolve(Path::new(text)).map_err(|err| Failure::new(format!("mount point {text}: {err}")))?;
    let found = records.into_iter().find(|record| record.point == place);
    found.ok_or_else(|| {
        Failure::new(format!("{text} is no mount of this user, `alluxio-fuse stat` lists those there are"))
    })
}

/// Tells why it did not work.
pub(super) fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

/// An answer to another question.
pub(super) fn strange(answer: &Answer) -> Failure {
    let text = format!("{answer:?}");
    let start: String = text.chars().take(40).collect();
    Failure::new(format!("the mount is of another version, and answers {start}"))
}

/// A time in seconds with its unit.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

/// A number of bytes with its unit.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (count as f64, 0);
    while number >= 1024.0 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{number:.1} {}", units[unit]) }
}

/// Text of others, such as a path, that cannot change the terminal or break a line.
pub(super) fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_that_people_read() {
        let times = [0.000_012, 0.012, 1.25, 250.0].map(time);
        assert_eq!(times, ["12 us", "12.0 ms", "1.2 s", "250 s"]);
        assert_eq!([0, 1023, 1024, 5 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]);
    }

    #[test]
    fn names_cannot_change_the_terminal() {
        assert_eq!(plain("a b\u{1b}[2J\n"), "a b\\u{1b}[2J\\n");
    }
}
