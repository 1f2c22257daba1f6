//! `alluxio-fuse mount`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use super::args::MountArgs;
use super::complain;
use super::out;
use crate::config::Config;
use crate::config::Environment;
use crate::config::command_line_properties;
use crate::config::keys;
use crate::mount;
use crate::mount::Failure;
use crate::mount::Handshake;
use crate::mount::LOG_FILE;
use crate::mount::Launch;
use crate::mount::OUT_FILE;
use crate::mount::Plan;

/// Exit code of a mount in the foreground that failed, as that of Alluxio's.
const LAUNCH_FAILED: u8 = 255;

pub(super) fn run(args: &MountArgs) -> ExitCode {
    if args.daemon {
        return run_daemon(args);
    }
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(failure) => {
            match &args.point {
                Some(point) => complain(format_args!("Failed to mount Alluxio to {point}.")),
                None => complain("Failed to mount Alluxio."),
            }
            complain(failure);
            return ExitCode::FAILURE;
        }
    };
    out(format_args!(
        "Starting AlluxioFuse process: mounting alluxio path \"{}\" to local mount point \"{}\"",
        plan.path(),
        plan.point().display()
    ));
    if args.foreground { run_foreground(plan) } else { run_background(args, &plan) }
}

fn plan(args: &MountArgs) -> Result<Plan, Failure> {
    let mut properties = command_line_properties(&args.options)?;
    let places = [(&keys::FUSE_MOUNT_POINT, &args.point), (&keys::FUSE_ALLUXIO_PATH, &args.path)];
    for (key, text) in places {
        if let Some(text) = text {
            properties.push((key.name.to_owned(), text.clone()));
        }
    }
    Plan::new(Config::load(Environment::of_process(), &properties)?)
}

fn run_background(args: &MountArgs, plan: &Plan) -> ExitCode {
    let point = plan.point().display();
    let logs = plan.logs().display();
    match mount::start(plan, &daemon_arguments(args, plan), Duration::from_secs(args.timeout)) {
        Ok(()) => {
            out(format_args!("Successfully mounted Alluxio to {point}."));
            out(format_args!("See {logs}/{LOG_FILE} for logging messages"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(format_args!("Failed to mount Alluxio to {point}."));
            complain(failure);
            complain(format_args!("See {logs}/{LOG_FILE} and {logs}/{OUT_FILE} for more details"));
            ExitCode::FAILURE
        }
    }
}

/// The same command for the process that stays, with every place made plain.
fn daemon_arguments(args: &MountArgs, plan: &Plan) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["mount".into(), "--daemon".into()];
    for list in &args.options {
        words.push("-o".into());
        words.push(list.into());
    }
    words.push("--".into());
    words.push(plan.point().into());
    words.push(plan.path().into());
    words
}

fn run_foreground(plan: Plan) -> ExitCode {
    let point = plan.point().display().to_string();
    let logs = plan.logs().display().to_string();
    let told = point.clone();
    let mut launch = Launch::Terminal(Box::new(move || {
        out(format_args!("Successfully mounted Alluxio to {told}."));
        out(format_args!("See {logs}/{LOG_FILE} for logging messages"));
    }));
    match mount::serve(plan, &mut launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(format_args!("Failed to mount Alluxio to {point}."));
            complain(failure);
            ExitCode::from(LAUNCH_FAILED)
        }
    }
}

/// The process that stays: what went wrong is told to the command that started it.
fn run_daemon(args: &MountArgs) -> ExitCode {
    let handshake = match Handshake::take() {
        Ok(handshake) => handshake,
        Err(err) => {
            complain(format_args!("--daemon is for `alluxio-fuse mount` itself: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let mut launch = Launch::Command(handshake);
    let outcome = plan(args).and_then(|plan| mount::serve(plan, &mut launch));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            launch.failed(&failure);
            ExitCode::from(LAUNCH_FAILED)
        }
    }
}
