//! What the user typed, what the user reads, and exit codes. The texts are those of Alluxio's `alluxio-fuse`, as
//! scripts look for them. Knows nothing of how a mount works.

mod args;
mod mount;
mod stat;
mod unmount;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Arguments;
use args::Command;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Mount(args) }) => mount::run(&args),
        Ok(Arguments { command: Command::Unmount(args) }) => unmount::run(&args),
        Ok(Arguments { command: Command::Stat }) => stat::run(),
        Err(err) => explain(&err),
    }
}

/// Shows help, or what was wrong with the arguments.
fn explain(err: &clap::Error) -> ExitCode {
    let text = err.render();
    match err.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            out(text.to_string().trim_end());
            ExitCode::SUCCESS
        }
        _ => {
            complain(text.to_string().trim_end());
            ExitCode::FAILURE
        }
    }
}

/// A line for the user. A reader who has gone is no reason to stop.
fn out(line: impl Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// A line about what went wrong.
fn complain(line: impl Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
