//! Why a mount fails, in one line with a cure.

use std::fmt;
use std::io;
use std::path::PathBuf;

use fuse_sys::OpenError;

use super::transport;

/// Why a directory could not be mounted.
#[derive(Debug)]
pub enum MountError {
    /// No libfuse to work with.
    Library(OpenError),
    /// The kernel has no FUSE, or this container is not given it.
    NoDevice(io::Error),
    /// The mount point is not a directory that can be used.
    MountPoint(PathBuf, io::Error),
    /// libfuse refused; what it said.
    Refused(String),
    /// Something else that should not fail.
    Failed(&'static str, io::Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(err) => err.fmt(out),
            Self::NoDevice(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    out,
                    "{} may not be opened, try `--device {0}` for a container: {err}",
                    transport::DEVICE
                )
            }
            Self::NoDevice(err) => {
                let device = transport::DEVICE;
                write!(
                    out,
                    "{device} not found, try `modprobe fuse`, or `--device {device}` for a container: {err}"
                )
            }
            Self::MountPoint(path, err) => {
                write!(out, "mount point {} cannot be used: {err}", path.display())?;
                match err.kind() {
                    io::ErrorKind::NotConnected => {
                        write!(out, ", its daemon has ended, try `fusermount -u {}`", path.display())
                    }
                    _ => Ok(()),
                }
            }
            Self::Refused(said) => {
                write!(out, "libfuse refused to mount: {}", said.replace('\n', "; "))?;
                out.write_str(cure(said))
            }
            Self::Failed(what, err) => write!(out, "{what}: {err}"),
        }
    }
}

/// What helps against the common refusals.
fn cure(said: &str) -> &'static str {
    let cures = [
        ("user_allow_other", ""),
        ("is not empty", ", try `-o nonempty`"),
        ("Operation not permitted", ", try as root, or `--cap-add SYS_ADMIN` for a container"),
        ("exec fusermount3", ", try `apt-get install fuse3`"),
        ("exec fusermount", ", try `apt-get install fuse3` or `apt-get install fuse`"),
        ("fusermount3: not found", ", try `apt-get install fuse3`"),
    ];
    cures.iter().find(|(sign, _)| said.contains(sign)).map_or("", |(_, cure)| cure)
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Library(err) => Some(err),
            Self::NoDevice(err) | Self::MountPoint(_, err) | Self::Failed(_, err) => Some(err),
            Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_with_a_cure() {
        let refused =
            MountError::Refused("fuse: failed to exec fusermount3: No such file\nmore".replace("\\n", "\n"));
        assert!(refused.to_string().ends_with("try `apt-get install fuse3`"), "{refused}");
        let missing = MountError::NoDevice(io::ErrorKind::NotFound.into());
        assert!(missing.to_string().contains("modprobe fuse"), "{missing}");
    }
}
