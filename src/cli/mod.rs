//! What the user typed, what the user reads, and exit codes. The texts are those of Alluxio's `alluxio-fuse`, as
//! scripts look for them. Knows nothing of how a mount works.

mod args;
mod config;
mod doctor;
mod log_level;
mod look;
mod mount;
mod pages;
mod preload;
mod profile;
mod stat;
mod stats;
mod threads;
mod top;
mod trace;
mod unmount;
mod wrappers;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use nix::sys::statfs::statfs;

use crate::config::Environment;
use args::Arguments;
use args::Command;
use args::FuseArgs;
use args::MountArgs;
use wrappers::Wrapper;

/// Exit code of a helper of mount(8) that could not mount.
const MOUNT_FAILED: u8 = 32;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    match wrappers::recognize(&words) {
        Some(Ok(wrapper)) => run_wrapper(wrapper),
        Some(Err(err)) => explain(&err),
        None => match Arguments::try_parse_from(words) {
            Ok(arguments) => run(arguments.command),
            Err(err) => explain(&err),
        },
    }
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Mount(args) => mount::run(&args, Environment::of_process()),
        Command::Fuse(args) => {
            let FuseArgs { fuse_opts: options, point, path } = args;
            let args =
                MountArgs { foreground: true, make_point: true, options, point, path, ..Arguments::mount() };
            mount::run(&args, Environment::of_container())
        }
        Command::Unmount(args) => unmount::run(&args),
        Command::Stat => stat::run(),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Preload(args) => preload::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Threads(args) => threads::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Loglevel(args) => log_level::run(&args),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::manual(&dir),
        Command::Probe { point } => probe(&point),
        Command::Properties => pages::properties(),
    }
}

fn run_wrapper(wrapper: Wrapper) -> ExitCode {
    match wrapper {
        Wrapper::Direct(direct) => match direct.into_mount() {
            Ok(args) => mount::run(&args, Environment::of_process()),
            Err(problem) => {
                complain(problem);
                ExitCode::FAILURE
            }
        },
        Wrapper::Helper(helper) if helper.fake => ExitCode::SUCCESS,
        Wrapper::Helper(helper) => {
            let done = mount::run(&helper.into_mount(), Environment::of_process());
            if done == ExitCode::SUCCESS { done } else { ExitCode::from(MOUNT_FAILED) }
        }
    }
}

/// Asks in the place of the process that serves `point`, which must not use its own mount: should it be killed
/// meanwhile, it would wait for itself.
fn probe(point: &Path) -> ExitCode {
    match statfs(point) {
        Ok(_) => ExitCode::SUCCESS,
        Err(errno) => {
            complain(errno.desc());
            ExitCode::FAILURE
        }
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
