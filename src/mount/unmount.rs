//! The end of a mount, asked for from outside: by a signal to the process that serves it, or, if there is none or it
//! does not listen, by taking the mount away.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MntFlags;
use nix::mount::umount2;
use nix::sys::signal::Signal;

use super::Failure;
use super::Record;
use super::Registry;
use super::point::is_dead;
use super::process::wait_until;
use super::table;

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How a mount ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended it and itself.
    Ended {
        /// The process.
        pid: i32,
    },
    /// The process was killed and the mount taken away.
    Killed {
        /// The process.
        pid: i32,
    },
    /// There was no process of ours; the mount was taken away.
    Removed,
    /// There was no mount.
    NotMounted,
    /// There is a mount, but it is nothing of ours: its type.
    Foreign(String),
    /// The process has not ended in time and goes on.
    Busy {
        /// The process.
        pid: i32,
    },
}

/// Ends the mount at `point`, waiting for it at most for `limit`.
pub fn unmount(point: &Path, registry: &Registry, limit: Duration) -> Result<Outcome, Failure> {
    let Some(record) = find_record(point, registry)? else {
        return remove_orphan(point, Removal::Polite);
    };
    let pid = record.process.pid;
    record
        .process
        .signal(Signal::SIGTERM)
        .map_err(|errno| Failure::because(format!("process {pid}"), errno))?;
    if !wait_until(limit, || !record.process.is_alive()) {
        return Ok(Outcome::Busy { pid });
    }
    // A process that was killed meanwhile leaves a dead mount.
    if is_mounted(point)? && is_dead(point) {
        take_away(point, Removal::Lazy)?;
    }
    registry.live()?;
    Ok(Outcome::Ended { pid })
}

/// Ends the mount at `point` without asking: open files are lost.
pub fn kill(point: &Path, registry: &Registry) -> Result<Outcome, Failure> {
    let Some(record) = find_record(point, registry)? else {
        return remove_orphan(point, Removal::Forced);
    };
    let pid = record.process.pid;
    let fail = |errno| Failure::because(format!("process {pid}"), errno);
    record.process.signal(Signal::SIGKILL).map_err(fail)?;
    // A process can be stuck in its own mount until that is gone, so the mount goes first.
    if is_mounted(point)? {
        take_away(point, Removal::Forced)?;
    }
    let ended = wait_until(KILL_LIMIT, || !record.process.is_alive());
    registry.live()?;
    Ok(if ended { Outcome::Killed { pid } } else { Outcome::Busy { pid } })
}

/// The running mount at `point`, if it is known. The last one recorded is on top.
fn find_record(point: &Path, registry: &Registry) -> Result<Option<Record>, Failure> {
    let records = registry.mounts()?.into_iter().filter(|record| record.point == point);
    Ok(records.max_by_key(|record| record.process.started))
}

fn is_mounted(point: &Path) -> Result<bool, Failure> {
    let entry = table::find(point).map_err(|err| Failure::because("/proc/self/mountinfo", err))?;
    Ok(entry.is_some_and(|entry| entry.is_fuse()))
}

/// Ends a mount that no process in the registry serves: a dead one, or one of Alluxio's Java client.
fn remove_orphan(point: &Path, removal: Removal) -> Result<Outcome, Failure> {
    let entry = table::find(point).map_err(|err| Failure::because("/proc/self/mountinfo", err))?;
    match entry {
        None => Ok(Outcome::NotMounted),
        Some(entry) => {
            // A dead mount may be one of ours that was given another name.
            let dead = entry.is_fuse() && is_dead(point);
            if !dead && entry.fs_type != table::TYPE {
                return Ok(Outcome::Foreign(entry.fs_type));
            }
            take_away(point, if dead { Removal::Lazy } else { removal })?;
            Ok(Outcome::Removed)
        }
    }
}

/// How a mount is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Only if nobody uses it.
    Polite,
    /// From the tree at once, from those who use it when they are done.
    Lazy,
    /// At once, and those who wait for it get an error.
    Forced,
}

/// Takes a dead mount out of the way.
pub(super) fn clean_up(point: &Path) -> Result<(), Failure> {
    take_away(point, Removal::Lazy)
}

/// Takes the mount of a process that was killed out of the way, if it is still there. One that lives is another's.
pub(super) fn clean_up_after(point: &Path) -> Result<(), Failure> {
    if is_mounted(point)? && is_dead(point) { take_away(point, Removal::Lazy) } else { Ok(()) }
}

fn take_away(point: &Path, removal: Removal) -> Result<(), Failure> {
    let flags = match removal {
        Removal::Polite => MntFlags::empty(),
        Removal::Lazy => MntFlags::MNT_DETACH,
        Removal::Forced => MntFlags::MNT_DETACH | MntFlags::MNT_FORCE,
    };
    match umount2(point, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => fusermount(point, removal),
        Err(errno) => Err(describe(point, errno)),
    }
}

/// The way for everybody but root.
fn fusermount(point: &Path, removal: Removal) -> Result<(), Failure> {
    let options = if removal == Removal::Polite { "-u" } else { "-uz" };
    let mut reason = "neither fusermount3 nor fusermount is installed".to_owned();
    for program in ["fusermount3", "fusermount"] {
        let run = Command::new(program).arg(options).arg("--").arg(point).stdin(Stdio::null()).output();
        match run {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => reason = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => reason = format!("{program}: {err}"),
        }
    }
    Err(Failure::because(format!("cannot unmount {}", point.display()), reason))
}

fn describe(point: &Path, errno: Errno) -> Failure {
    let shown = point.display();
    match errno {
        Errno::EBUSY => Failure::new(format!(
            "{shown} is in use, close what is open there or run `alluxio-fuse unmount -f {shown}`"
        )),
        errno => Failure::because(format!("cannot unmount {shown}"), errno),
    }
}
