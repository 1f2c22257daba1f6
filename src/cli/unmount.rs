//! `alluxio-fuse unmount`.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::args::UnmountArgs;
use super::complain;
use super::out;
use crate::config::Config;
use crate::config::Environment;
use crate::config::keys;
use crate::mount;
use crate::mount::Failure;
use crate::mount::LOG_FILE;
use crate::mount::Outcome;
use crate::mount::Registry;

pub(super) fn run(args: &UnmountArgs) -> ExitCode {
    match end(args) {
        Ok((point, logs, outcome)) => report(args, &point, &logs, &outcome),
        Err(failure) => {
            match &args.point {
                Some(point) => complain(format_args!("Failed to umount fuse mount point {point}")),
                None => complain("Failed to umount"),
            }
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

fn end(args: &UnmountArgs) -> Result<(PathBuf, PathBuf, Outcome), Failure> {
    let environment = Environment::of_process();
    let registry = Registry::open(&environment.runtime_dirs())?;
    // A mount that is named can be ended whatever is wrong with the settings.
    let config = Config::load(environment, &[]);
    let logs = config.as_ref().map(Config::logs_dir).unwrap_or_default();
    let text = match (&args.point, config) {
        (Some(point), _) => point.clone(),
        (None, config) => config?.text(&keys::FUSE_MOUNT_POINT).to_owned(),
    };
    let point =
        mount::resolve(Path::new(&text)).map_err(|err| Failure::new(format!("mount point {text}: {err}")))?;
    let outcome = if args.force {
        mount::kill(&point, &registry)?
    } else {
        mount::unmount(&point, &registry, Duration::from_secs(args.wait))?
    };
    Ok((point, logs, outcome))
}

fn report(args: &UnmountArgs, path: &Path, logs: &Path, outcome: &Outcome) -> ExitCode {
    let point = path.display();
    match outcome {
        Outcome::Ended { pid } => {
            out(format_args!("Unmount fuse at {point} (PID:{pid})."));
            ExitCode::SUCCESS
        }
        Outcome::Killed { pid } => {
            out(format_args!("Forcibly killed fuse process {pid}"));
            out(format_args!("Unmount fuse at {point} (PID:{pid})."));
            ExitCode::SUCCESS
        }
        Outcome::Removed => {
            out(format_args!("Successfully unmount fuse at {point}"));
            ExitCode::SUCCESS
        }
        Outcome::NotMounted => {
            out(format_args!("Path {point} is not mounted"));
            ExitCode::SUCCESS
        }
        Outcome::Foreign(fs_type) => {
            complain(format_args!("Path {point} is not mounted by alluxio-fuse, but as {fs_type}"));
            ExitCode::FAILURE
        }
        Outcome::Busy { pid } if args.force => {
            complain(format_args!("Failed to kill fuse process [{pid}]: it is stuck in the kernel."));
            ExitCode::FAILURE
        }
        Outcome::Busy { pid } => {
            complain(format_args!(
                "Failed to kill fuse process [{pid}] after {wait} seconds. \n\
                 Fuse process may still in the exiting process if \"{timeout}\" is bigger than {wait} seconds. \n\
                 Fuse process may not be able to exit when the fuse device is busy (have ongoing reading/writing \
                 operations). \n\
                 See {logs} for more details.\n\
                 Run \"alluxio-fuse umount -f {point}\" if needed to forcibly kill the alluxio fuse process and fuse \
                 mount point. ",
                wait = args.wait,
                timeout = keys::FUSE_UMOUNT_TIMEOUT.name,
                logs = logs.join(LOG_FILE).display(),
            ));
            mount::users(path).iter().for_each(complain);
            ExitCode::FAILURE
        }
    }
}
