//! `alluxio-fuse stat`.

use std::process::ExitCode;

use super::complain;
use super::out;
use crate::config::Environment;
use crate::mount;
use crate::mount::Registry;

pub(super) fn run() -> ExitCode {
    let registry = Registry::open(&Environment::of_process().runtime_dirs());
    match registry.and_then(|registry| mount::list(&registry)) {
        Ok(mounts) if mounts.is_empty() => {
            out("No mount point found. AlluxioFuse process is not running\n");
            ExitCode::FAILURE
        }
        Ok(mounts) => {
            out("pid\tmount_point\talluxio_path");
            for mount in mounts {
                let pid = mount.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                let point = one_line(&mount.point.to_string_lossy());
                let path = one_line(mount.path.as_deref().unwrap_or("-"));
                out(format_args!("{pid}\t{point}\t{path}"));
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

/// Text that cannot break a row or a column.
fn one_line(text: &str) -> String {
    text.replace('\\', "\\134").replace('\t', "\\011").replace('\n', "\\012")
}
