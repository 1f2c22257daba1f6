//! `alluxio-fuse profile`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::Duration;

use super::args::ProfileArgs;
use super::complain;
use super::look;
use super::out;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Failure;

pub(super) fn run(args: &ProfileArgs) -> ExitCode {
    look::finish(profile(args))
}

fn profile(args: &ProfileArgs) -> Result<(), Failure> {
    let fail = |err: std::io::Error| Failure::new(format!("{}: {err}", args.file.display()));
    let is_new = !args.file.exists();
    // Rather now than after half a minute.
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&args.file)
        .map_err(fail)?;
    let ask = Ask::Profile { seconds: args.duration, off_cpu: args.off_cpu };
    complain(format_args!("Looking for {} seconds", args.duration));
    let answer = look::answer(args.point.as_deref(), &ask, Duration::from_secs(args.duration + 60));
    if answer.is_err() && is_new {
        // Nobody wants an empty picture. What was there before may be /dev/stdout.
        drop(std::fs::remove_file(&args.file));
    }
    match answer? {
        Answer::Profile { svg, samples } => {
            file.write_all(svg.as_bytes()).map_err(fail)?;
            out(format_args!("{samples} samples are in {}", args.file.display()));
            Ok(())
        }
        other => Err(look::strange(&other)),
    }
}
