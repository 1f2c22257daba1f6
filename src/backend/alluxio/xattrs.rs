//! Extended attributes in Alluxio, which keeps a map of them with each file: those of applications have their whole
//! name as the key. Other keys, ours and those of other programs, are never seen here.
//!
//! The master can add a key only if it is not there, but does not say whether it did. So a key of ours goes with
//! each attribute that was made that way, with a value that nobody else has: who finds their own value has made it.

use bytes::Bytes;
use uuid::Uuid;

use super::Shared;
use super::proto::grpc::file::FileInfo;
use super::times;
use super::times::Xattrs;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::Timestamp;
use crate::fs::XattrMode;

/// What a key that belongs to an application begins with.
const USER: &str = "user.";

/// What the key begins with that says who has made an attribute; the attribute's name follows.
const MAKER: &str = "alluxio-fuse.maker.";

/// All names of a file together, with a byte more for each: listxattr(2) has no room for more.
const NAMES_MAX: usize = 64 << 10;

/// All names and values of a file together. The master keeps them in its memory, and sends them with every answer
/// about the file.
const ALL_MAX: usize = 128 << 10;

impl Shared {
    pub(super) async fn xattr(&self, place: &FsPath, name: &str) -> Result<Bytes> {
        let info = self.master.get_status(place).await?;
        let value = info.xattr.get(name).cloned().ok_or_else(|| FsError::new(Fault::NoData))?;
        self.check_read(place, &info).await?;
        Ok(value)
    }

    pub(super) async fn xattrs(&self, place: &FsPath) -> Result<Vec<String>> {
        let info = self.master.get_status(place).await?;
        Ok(info.xattr.into_keys().filter(|name| name.starts_with(USER)).collect())
    }

    pub(super) async fn set_xattr(
        &self,
        place: &FsPath,
        name: &str,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        let info = self.master.get_status(place).await?;
        match (mode, info.xattr.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Fault::Exists.into()),
            (XattrMode::Replace, false) => return Err(Fault::NoData.into()),
            (XattrMode::Set, _) | (XattrMode::Create, false) | (XattrMode::Replace, true) => {}
        }
        check_room(&info, name, value)?;
        let pair = (name.to_owned(), Bytes::copy_from_slice(value));
        let mut changed = self.changed(&info);
        if mode == XattrMode::Create {
            return self.make_xattr(place, name, pair, changed).await;
        }
        changed.extend([pair]);
        self.master.set_xattrs(place, changed).await
    }

    /// Adds `pair` if nobody else does at the same time. `changed` is set along, as far as it is not there yet, and
    /// else after it.
    async fn make_xattr(
        &self,
        place: &FsPath,
        name: &str,
        pair: (String, Bytes),
        changed: Xattrs,
    ) -> Result<()> {
        let maker = (format!("{MAKER}{name}"), Bytes::from(Uuid::new_v4().into_bytes().to_vec()));
        let made = Xattrs::from([pair, maker]);
        let mut pairs = changed.clone();
        pairs.extend(made.clone());
        self.master.add_xattrs(place, pairs).await?;
        let after = self.master.known_status(place).await?;
        if !times::has_all(&after, &made) {
            return Err(Fault::Exists.into());
        }
        if times::has_all(&after, &changed) {
            return Ok(());
        }
        self.master.set_xattrs(place, changed).await
    }

    pub(super) async fn remove_xattr(&self, place: &FsPath, name: &str) -> Result<()> {
        let info = self.master.get_status(place).await?;
        if !info.xattr.contains_key(name) {
            return Err(Fault::NoData.into());
        }
        self.master.remove_xattrs(place, vec![name.to_owned(), format!("{MAKER}{name}")]).await?;
        let changed = self.changed(&info);
        if changed.is_empty() { Ok(()) } else { self.master.set_xattrs(place, changed).await }
    }

    /// What keeps that an attribute of the file was changed just now.
    fn changed(&self, info: &FileInfo) -> Xattrs {
        if self.options.times { times::changed(info, Timestamp::now()) } else { Xattrs::new() }
    }
}

/// Whether there is room for one more attribute, or another value.
fn check_room(info: &FileInfo, name: &str, value: &[u8]) -> Result<()> {
    let others = || info.xattr.iter().filter(|(key, _)| key.starts_with(USER) && *key != name);
    let names: usize = others().map(|(key, _)| key.len() + 1).sum::<usize>() + name.len() + 1;
    let values: usize = others().map(|(_, value)| value.len()).sum::<usize>() + value.len();
    if names > NAMES_MAX || names + values > ALL_MAX {
        let detail = format!("extended attributes of more than {} KiB in one file", ALL_MAX >> 10);
        return Err(FsError::because(Fault::NoSpace, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, usize)]) -> FileInfo {
        let xattr =
            pairs.iter().map(|(name, len)| ((*name).to_owned(), Bytes::from(vec![0; *len]))).collect();
        FileInfo { xattr, ..FileInfo::default() }
    }

    #[test]
    fn the_attributes_of_one_file_have_a_bound() {
        let value = vec![0; 64 << 10];
        assert!(check_room(&with(&[]), "user.a", &value).is_ok());
        assert!(check_room(&with(&[("user.b", 60 << 10)]), "user.a", &value).is_ok());
        let full = with(&[("user.b", 64 << 10)]);
        assert_eq!(check_room(&full, "user.a", &value).unwrap_err().fault(), Fault::NoSpace);
        assert!(check_room(&full, "user.b", &value).is_ok(), "in the place of its old value");
        assert!(check_room(&with(&[("other", 1 << 20)]), "user.a", &value).is_ok());
    }

    #[test]
    fn the_names_of_one_file_can_be_listed() {
        let names: Vec<String> = (0..257).map(|at| format!("user.{at:0249}")).collect();
        let pairs: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        assert!(check_room(&with(&pairs[..256]), &names[256], b"").is_ok());
        assert_eq!(check_room(&with(&pairs), "user.a", b"").unwrap_err().fault(), Fault::NoSpace);
    }
}
