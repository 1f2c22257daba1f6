//! `alluxio-fuse trace`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;

use super::args::TraceArgs;
use super::complain;
use super::look;
use super::threads;
use crate::mount;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Event;
use crate::mount::Failure;
use crate::mount::Wish;

/// A mount that nobody uses has nothing to tell for as long as it likes.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn run(args: &TraceArgs) -> ExitCode {
    look::finish(trace(args))
}

fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let wish = Wish {
        ops: args.op.clone(),
        path: args.path.clone(),
        slower_than_us: args.slower_than.unwrap_or(0),
        pid: args.pid,
        count: args.count,
    };
    let mut control = look::ask(args.point.as_deref(), &Ask::Trace(wish), PATIENCE)?;
    while let Some(answer) = control.part()? {
        match answer {
            Answer::Tracing => complain("Tracing, Ctrl-C ends it"),
            Answer::Event(event) => {
                // Who reads no further has seen enough.
                if writeln!(std::io::stdout(), "{}", line(&event)).is_err() {
                    return Ok(());
                }
            }
            Answer::Dropped(count) => {
                complain(format_args!("{count} operations are not shown, they came too fast"));
            }
            other => return Err(look::strange(&other)),
        }
    }
    Ok(())
}

fn line(event: &Event) -> String {
    let result = match i32::try_from(-event.code) {
        Ok(code) if code > 0 => format!("{:?}", Errno::from_raw(code)),
        _ => event.code.to_string(),
    };
    let request = threads::request(&event.request);
    format!("{} {request} = {result} in {} us", mount::time_of_day(event.at_ms), event.micros)
}
