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

/// How long a mount that is already there may take to end, as with Alluxio's script.
const PREVIOUS_LIMIT: Duration = Duration::from_secs(120);

/// Mounts with the settings that `environment` gives.
pub(super) fn run(args: &MountArgs, environment: Environment) -> ExitCode {
    if args.daemon {
        return run_daemon(args, environment);
    }
    let plan = match plan(args, environment) {
        Ok(plan) => plan,
        Err(failure) => return refuse(args.point.as_deref(), &failure, ExitCode::FAILURE),
    };
    let failed = if args.foreground { ExitCode::from(LAUNCH_FAILED) } else { ExitCode::FAILURE };
    let point = plan.point().display().to_string();
    if args.make_point {
        match mount::make_point(&plan) {
            Ok(false) => {}
            Ok(true) => out(format_args!("Mount point on local filesystem does not exist, creating {point}")),
            Err(failure) => return refuse(Some(&point), &failure, failed),
        }
    }
    if !args.keep_previous {
        match mount::end_previous(&plan, PREVIOUS_LIMIT) {
            Ok(None) => {}
            Ok(Some(pid)) => out(format_args!("Unmount fuse at {point} (PID:{pid}).")),
            Err(failure) => return refuse(Some(&point), &failure, failed),
        }
    }
    if let Err(failure) = mount::prepare(&plan) {
        return refuse(Some(&point), &failure, failed);
    }
    out(format_args!(
        "Starting AlluxioFuse process: mounting alluxio path \"{}\" to local mount point \"{point}\"",
        plan.path(),
    ));
    let logs = plan.logs().display().to_string();
    let outcome = if args.foreground {
        let (point, logs) = (point.clone(), logs.clone());
        mount::serve(plan, &Launch::Terminal(Box::new(move || welcome(&point, &logs))))
    } else {
        let limit = Duration::from_secs(args.timeout);
        mount::start(&plan, &daemon_arguments(args, &plan), limit).map(|()| welcome(&point, &logs))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = refuse(Some(&point), &failure, failed);
            complain(format_args!("See {logs}/{LOG_FILE} and {logs}/{OUT_FILE} for more details"));
            code
        }
    }
}

fn plan(args: &MountArgs, environment: Environment) -> Result<Plan, Failure> {
    let mut properties = command_line_properties(&args.options)?;
    let places = [(&keys::FUSE_MOUNT_POINT, &args.point), (&keys::FUSE_ALLUXIO_PATH, &args.path)];
    for (key, text) in places {
        if let Some(text) = text {
            properties.push((key.name.to_owned(), text.clone()));
        }
    }
    let plan = Plan::new(Config::load(environment, &properties)?)?;
    Ok(plan.with_pid_file(args.pid_file.clone()).with_fs_name(args.fs_name.clone()))
}

fn welcome(point: &str, logs: &str) {
    out(format_args!("Successfully mounted Alluxio to {point}."));
    out(format_args!("See {logs}/{LOG_FILE} for logging messages"));
}

fn refuse(point: Option<&str>, failure: &Failure, code: ExitCode) -> ExitCode {
    match point {
        Some(point) => complain(format_args!("Failed to mount Alluxio to {point}.")),
        None => complain("Failed to mount Alluxio."),
    }
    complain(failure);
    code
}

/// The same command for the process that stays, with every place made plain.
fn daemon_arguments(args: &MountArgs, plan: &Plan) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["mount".into(), "--daemon".into()];
    for list in &args.options {
        words.push("-o".into());
        words.push(list.into());
    }
    if let Some(file) = plan.pid_file() {
        words.extend(["--pid-file".into(), file.into()]);
    }
    if let Some(name) = &args.fs_name {
        words.extend(["--fs-name".into(), name.into()]);
    }
    words.push("--".into());
    words.push(plan.point().into());
    words.push(plan.path().into());
    words
}

/// The process that stays: what went wrong is told to the command that started it.
fn run_daemon(args: &MountArgs, environment: Environment) -> ExitCode {
    let handshake = match Handshake::take() {
        Ok(handshake) => handshake,
        Err(err) => {
            complain(format_args!("--daemon is for `alluxio-fuse mount` itself: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let launch = Launch::Command(handshake);
    match plan(args, environment).and_then(|plan| mount::serve(plan, &launch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            launch.failed(&failure);
            ExitCode::from(LAUNCH_FAILED)
        }
    }
}
