//! `alluxio-fuse threads`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::ShownArgs;
use super::look;
use super::out;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Busy;
use crate::mount::Call;
use crate::mount::Failure;
use crate::mount::Request;
use crate::mount::Threads;

pub(super) fn run(args: &ShownArgs) -> ExitCode {
    look::finish(show(args))
}

fn show(args: &ShownArgs) -> Result<(), Failure> {
    match look::answer(args.point.as_deref(), &Ask::Threads, Duration::ZERO)? {
        Answer::Threads(threads) if args.json => {
            out(serde_json::to_string_pretty(&threads).map_err(|err| Failure::new(err.to_string()))?);
            Ok(())
        }
        Answer::Threads(threads) => {
            lines(&threads).into_iter().for_each(out);
            Ok(())
        }
        other => Err(look::strange(&other)),
    }
}

fn lines(threads: &Threads) -> Vec<String> {
    let mut lines =
        vec![format!("{} requests under way, {} threads wait for one", threads.busy.len(), threads.idle)];
    lines.extend(threads.busy.iter().map(busy));
    lines.push(String::new());
    lines.push(format!("{} calls to servers under way", threads.calls.len()));
    lines.extend(
        threads.calls.iter().map(|call| format!("{:>9}  {}", look::time(call.seconds), called(call))),
    );
    lines.push(String::new());
    let others = threads.others.iter().map(|other| match other.count {
        1 => format!("{} ({})", other.thread, other.states),
        count => format!("{} {} ({})", count, other.thread, other.states),
    });
    lines.push(format!("Other threads: {}", others.collect::<Vec<_>>().join(", ")));
    lines
}

/// One thread at work.
pub(super) fn busy(busy: &Busy) -> String {
    let waiting = busy.waiting.as_ref().map_or_else(
        || "does not wait for others".to_owned(),
        |call| format!("waits {} for {}", look::time(call.seconds), called(call)),
    );
    format!("{:>9}  {}  {}; {waiting}", look::time(busy.seconds), busy.thread, request(&busy.request))
}

fn called(call: &Call) -> String {
    if call.server.is_empty() { call.what.clone() } else { format!("{} {}", call.server, call.what) }
}

/// What is asked for, and by whom.
pub(super) fn request(request: &Request) -> String {
    let range = match (request.offset, request.size) {
        (Some(offset), Some(size)) => format!(" {size}@{offset}"),
        _ => String::new(),
    };
    let program = if request.program.is_empty() { String::new() } else { format!("{}, ", request.program) };
    look::plain(&format!(
        "{} {}{range} ({program}pid {}, uid {}), request {}",
        request.op, request.path, request.pid, request.uid, request.unique
    ))
}
