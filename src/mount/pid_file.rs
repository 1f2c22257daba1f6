//! The file with the number of the process that serves a mount, for supervisors that want one.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::Failure;

/// The file. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the number of this process to `path`, in the place of an old file.
    pub(super) fn write(path: &Path) -> Result<Self, Failure> {
        let failed = |err| Failure::because(format!("pid file {}", path.display()), err);
        let mut draft = path.to_owned().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&draft);
        let mut file = file.map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        std::fs::rename(&draft, path).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_file(&self.0) {
            log::warn!("{} stays behind: {err}", self.0.display());
        }
    }
}
