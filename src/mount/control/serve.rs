//! One caller: a question is read, and answered until there is no more to say. Knows nothing of how callers come.

use std::io;
use std::time::Duration;

use super::Answer;
use super::Ask;
use super::inspect::Inspected;
use super::line::Line;
use super::profile;
use super::protocol::ASK_MAX;
use super::top;
use super::trace;
use super::waits;
use crate::mount::logging;

/// Serves one caller to its end.
pub(super) fn serve(line: &mut Line, inspected: &Inspected) {
    if let Err(err) = answer(line, inspected) {
        // Callers come and go as they like.
        log::debug!("a caller at the control socket was left: {err}");
    }
}

fn answer(line: &mut Line, inspected: &Inspected) -> io::Result<()> {
    let text = match line.hear(ASK_MAX) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::InvalidData => {
            return line.say(&Answer::Error(format!("not understood: {err}")));
        }
        Err(err) => return Err(err),
    };
    let ask: Ask = match serde_json::from_slice(&text) {
        Ok(ask) => ask,
        Err(err) => return line.say(&Answer::Error(format!("not understood: {err}"))),
    };
    match ask {
        Ask::Stats => line.say(&Answer::Stats(inspected.stats())),
        Ask::Threads => line.say(&Answer::Threads(inspected.threads())),
        Ask::Trace(wish) => trace::trace(line, inspected, &wish),
        Ask::Top { interval_ms } => {
            top::top(line, inspected, Duration::from_millis(interval_ms.clamp(50, 60_000)))
        }
        Ask::Profile { seconds, off_cpu } => {
            let time = Duration::from_secs(seconds.clamp(1, 300));
            let over = || line.is_over();
            let made =
                if off_cpu { waits::sample(inspected, time, &over) } else { profile::sample(time, &over) };
            line.say(&made.map_or_else(Answer::Error, |(svg, samples)| Answer::Profile { svg, samples }))
        }
        Ask::LogLevel { name, level } => line.say(&match logging::set_level(&name, &level) {
            Ok(level) => Answer::LogLevel(level.to_string()),
            Err(failure) => Answer::Error(failure.to_string()),
        }),
    }
}
