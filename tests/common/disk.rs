//! A file system of a few megabytes, which a test can fill. Only root can make one.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process;

/// Gone with what is in it when it is dropped.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    pub(crate) fn new(megabytes: u32) -> SmallDisk {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m,mode=700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        process::succeed(&mut command, Duration::from_secs(20));
        SmallDisk { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may still have files open there.
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("left mounted: {}, {done:?}", self.path().display());
        }
    }
}
