//! Operations on extended attributes. Only those called `user.*` exist; whoever asks for others is answered here,
//! without a look at the backend.

use std::ffi::OsStr;

use bytes::Bytes;

use super::Ino;
use super::Vfs;
use super::commands::Command;
use super::names::text;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;
use crate::fs::XattrMode;

/// What every name begins with.
const USER: &str = "user.";

/// Longest name, as in xattr(7).
const NAME_MAX: usize = 255;

/// Longest value.
const VALUE_MAX: usize = 64 << 10;

impl Vfs {
    /// The value of the extended attribute `name` of `ino`.
    pub fn getxattr(&self, ctx: &Ctx, ino: Ino, name: &OsStr) -> Result<Bytes> {
        let name = user_name(name)?;
        self.fs.xattr(ctx, &self.path(ino)?, name)
    }

    /// The names of the extended attributes of `ino`.
    pub fn listxattr(&self, ctx: &Ctx, ino: Ino) -> Result<Vec<String>> {
        match Command::of(ino) {
            // `ls -l` asks.
            Some(_) => Ok(Vec::new()),
            None => self.fs.xattrs(ctx, &self.path(ino)?),
        }
    }

    /// Sets the extended attribute `name` of `ino`.
    pub fn setxattr(&self, ctx: &Ctx, ino: Ino, name: &OsStr, value: &[u8], mode: XattrMode) -> Result<()> {
        let name = user_name(name)?;
        if value.len() > VALUE_MAX {
            return Err(Fault::ValueTooLarge.into());
        }
        self.fs.set_xattr(ctx, &self.path(ino)?, name, value, mode)?;
        self.inodes.touch(ino);
        if let Some(stream) = self.stream(ino) {
            stream.keep();
        }
        Ok(())
    }

    /// Removes the extended attribute `name` of `ino`.
    pub fn removexattr(&self, ctx: &Ctx, ino: Ino, name: &OsStr) -> Result<()> {
        let name = user_name(name)?;
        self.fs.remove_xattr(ctx, &self.path(ino)?, name)?;
        self.inodes.touch(ino);
        Ok(())
    }
}

fn user_name(name: &OsStr) -> Result<&str> {
    if !name.as_encoded_bytes().starts_with(USER.as_bytes()) {
        return Err(Fault::NotSupported.into());
    }
    let name = text(name)?;
    if name.len() == USER.len() {
        return Err(FsError::because(Fault::InvalidArgument, "an extended attribute without a name"));
    }
    if name.len() > NAME_MAX {
        return Err(Fault::NameTooLong.into());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn only_names_for_users_are_let_through() {
        let fault =
            |name: &[u8]| user_name(OsStr::from_bytes(name)).map_err(|error| error.fault()).map(str::len);
        assert_eq!(user_name(OsStr::new("user.ü b")).unwrap(), "user.ü b");
        for other in
            ["security.capability", "system.posix_acl_access", "trusted.a", "alluxio-fuse.times", "user"]
        {
            assert_eq!(fault(other.as_bytes()), Err(Fault::NotSupported), "{other}");
        }
        assert_eq!(fault(b"user."), Err(Fault::InvalidArgument));
        assert_eq!(fault(b"user.\xff"), Err(Fault::BadName));
        assert_eq!(fault(format!("user.{}", "n".repeat(250)).as_bytes()), Ok(255));
        assert_eq!(fault(format!("user.{}", "n".repeat(251)).as_bytes()), Err(Fault::NameTooLong));
    }
}
