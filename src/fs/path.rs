//! Paths inside a file system: absolute, normal, UTF-8.

use std::fmt;

use uuid::Uuid;

use super::Fault;
use super::FsError;
use super::Result;

/// Longest name, in bytes.
pub(super) const NAME_MAX: usize = 255;

/// An absolute path: `/`, or components each with a `/` in front. No component is empty, `.` or `..`, so a
/// path cannot leave the root that it is put under.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FsPath(String);

/// How the names of files begin that are to take the place of others once they are complete.
const BESIDE: &str = ".alluxio-fuse.";

impl FsPath {
    /// The root.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// From text. Doubled and trailing slashes and `.` are dropped; `..` and a relative path are refused.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.starts_with('/') {
            return Err(FsError::because(Fault::InvalidArgument, format!("path {text:?} is not absolute")));
        }
        let mut path = Self::root();
        for name in text.split('/').filter(|name| !name.is_empty() && *name != ".") {
            path = path.join(name)?;
        }
        Ok(path)
    }

    /// The entry `name` of this directory.
    pub fn join(&self, name: &str) -> Result<Self> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(FsError::because(Fault::InvalidArgument, format!("{name:?} cannot be a file name")));
        }
        if name.len() > NAME_MAX {
            return Err(Fault::NameTooLong.into());
        }
        let mut text = String::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            text.push_str(&self.0);
        }
        text.push('/');
        text.push_str(name);
        Ok(Self(text))
    }

    /// From components that were checked one by one, such as the names in an inode table.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        for name in names {
            debug_assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..");
            text.push('/');
            text.push_str(name);
        }
        if text.is_empty() {
            text.push('/');
        }
        Self(text)
    }

    /// The text, which starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last component; none for the root.
    pub fn name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.0.rsplit('/').next() }
    }

    /// The directory that this is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.rfind('/').expect("a path has a slash");
        match (self.is_root(), end) {
            (true, _) => None,
            (false, 0) => Some(Self::root()),
            (false, end) => Some(Self(self.0[..end].to_owned())),
        }
    }

    /// This path below `base`: the place in a backend of a path in the mount.
    #[must_use]
    pub fn under(&self, base: &Self) -> Self {
        match (base.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (_, true) => base.clone(),
            _ => Self(format!("{}{}", base.0, self.0)),
        }
    }

    /// What of this path comes after `base`, with its `/` in front, or nothing for `base` itself. None if this
    /// path is not `base` and does not lie below it.
    fn after(&self, base: &Self) -> Option<&str> {
        if base.is_root() {
            return Some(if self.is_root() { "" } else { &self.0 });
        }
        self.0.strip_prefix(&base.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// A new name beside this path, for a file that is to take its place. The root has none.
    pub fn beside(&self) -> Result<Self> {
        match self.parent() {
            Some(parent) => parent.join(&format!("{BESIDE}{}", Uuid::new_v4())),
            None => Err(Fault::Busy.into()),
        }
    }

    /// Whether this is the path of a file that is to take the place of another.
    pub fn is_beside(&self) -> bool {
        self.name().is_some_and(|name| name.starts_with(BESIDE))
    }

    /// Whether `self` is `base` or lies below it.
    pub fn starts_with(&self, base: &Self) -> bool {
        self.after(base).is_some()
    }

    /// Where this path is after `from` was renamed to `to`; none if that does not move it.
    pub fn rebased(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.after(from)?;
        Some(Self(if rest.is_empty() { to.0.clone() } else { format!("{}{rest}", to.0) }))
    }
}

impl fmt::Display for FsPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for FsPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_makes_the_path_normal() {
        assert_eq!(FsPath::parse("//a/./b//").unwrap().as_str(), "/a/b");
        assert_eq!(FsPath::parse("/").unwrap(), FsPath::root());
    }

    #[test]
    fn a_path_cannot_climb_out() {
        for bad in ["a", "", "/a/../b", "/..", "/a\0b"] {
            assert!(FsPath::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", "/"] {
            assert!(FsPath::root().join(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_limited_in_bytes() {
        let root = FsPath::root();
        assert!(root.join(&"x".repeat(255)).is_ok());
        assert_eq!(root.join(&"é".repeat(128)).unwrap_err().fault(), Fault::NameTooLong);
    }

    #[test]
    fn parts_fit_together() {
        let path = FsPath::parse("/a/b").unwrap();
        assert_eq!(path.name(), Some("b"));
        assert_eq!(path.parent().unwrap().parent(), Some(FsPath::root()));
        assert_eq!(FsPath::root().parent(), None);
        let base = FsPath::parse("/data").unwrap();
        assert_eq!(path.under(&base).as_str(), "/data/a/b");
        assert_eq!(FsPath::root().under(&base), base);
        assert!(path.under(&base).starts_with(&base));
        assert!(!FsPath::parse("/database").unwrap().starts_with(&base));
        assert_eq!(FsPath::from_names(["a", "b"]), path);
        let moved = path.under(&base).rebased(&base, &path).unwrap();
        assert_eq!(moved.as_str(), "/a/b/a/b");
        assert_eq!(path.rebased(&base, &path), None);
    }
}
