//! `alluxio-fuse loglevel`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::LoglevelArgs;
use super::look;
use super::out;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Failure;

pub(super) fn run(args: &LoglevelArgs) -> ExitCode {
    look::finish(change(args))
}

fn change(args: &LoglevelArgs) -> Result<(), Failure> {
    let ask = Ask::LogLevel { name: args.name.clone(), level: args.level.clone() };
    match look::answer(args.point.as_deref(), &ask, Duration::ZERO)? {
        Answer::LogLevel(level) => {
            out(format_args!("The level of {} is {level} now", args.name));
            Ok(())
        }
        other => Err(look::strange(&other)),
    }
}
