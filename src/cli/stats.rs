//! `alluxio-fuse stats`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::ShownArgs;
use super::look;
use super::out;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Failure;
use crate::mount::Stats;
use crate::mount::Value;

pub(super) fn run(args: &ShownArgs) -> ExitCode {
    look::finish(show(args))
}

fn show(args: &ShownArgs) -> Result<(), Failure> {
    match look::answer(args.point.as_deref(), &Ask::Stats, Duration::ZERO)? {
        Answer::Stats(stats) if args.json => {
            out(serde_json::to_string_pretty(&stats).map_err(|err| Failure::new(err.to_string()))?);
            Ok(())
        }
        Answer::Stats(stats) => {
            print(&stats);
            Ok(())
        }
        other => Err(look::strange(&other)),
    }
}

fn print(stats: &Stats) {
    let Stats { mount, path, pid, version, uptime_seconds, open_handles, known_inodes, .. } = stats;
    out(format_args!(
        "{} on {}, process {pid}, version {version}, for {}",
        look::plain(path),
        look::plain(mount),
        look::time(*uptime_seconds)
    ));
    out(format_args!("{open_handles} open files and directories, {known_inodes} inodes known to the kernel"));
    stats.state.iter().for_each(out);
    out("");
    stats.values.iter().filter(|value| value.value != 0.0).for_each(|value| out(row(value)));
}

fn row(value: &Value) -> String {
    let labels: Vec<String> = value.labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let name = look::plain(&format!("{}{labels}", value.name));
    let number = value.value;
    match value.times {
        None => format!("{name:<70} {number}"),
        Some(times) => format!(
            "{name:<70} {number}, mean {}, p50 {}, p99 {}, max {}",
            look::time(times.mean),
            look::time(times.p50),
            look::time(times.p99),
            look::time(times.max)
        ),
    }
}
