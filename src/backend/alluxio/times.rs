//! Times that applications have set, which Alluxio has no place for: kept in an extended attribute of the file,
//! under a name that no application can reach. Knows nothing of calls.
//!
//! Beside each time stands the master's own time at that moment. Once the master's is newer, the file was changed
//! (or read) since, and the kept time is void, as POSIX wants it.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

use super::proto::grpc::file::FileInfo;
use crate::fs::Attr;
use crate::fs::SetAttr;
use crate::fs::Timestamp;

/// The extended attribute. Names that applications can use begin with `user.`.
pub(super) const KEY: &str = "alluxio-fuse.times";

/// A time, and the master's time for the same that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    time: Timestamp,
    stamp_ms: i64,
}

/// The times that are kept of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptTimes {
    accessed: Option<Kept>,
    modified: Option<Kept>,
}

impl KeptTimes {
    /// Those of a file that still hold. What cannot be read counts as absent.
    fn of(info: &FileInfo) -> Self {
        let Some(value) = info.xattr.get(KEY) else { return Self::default() };
        let text = std::str::from_utf8(value).unwrap_or_default();
        let find = |word: &str| text.split(' ').find_map(|part| Kept::parse(part.strip_prefix(word)?));
        Self {
            accessed: find("a=").filter(|kept| info.last_access_time_ms() <= kept.stamp_ms),
            modified: find("m=").filter(|kept| info.last_modification_time_ms() <= kept.stamp_ms),
        }
    }

    /// Those of a file after `change`.
    pub(super) fn after(info: &FileInfo, change: &SetAttr) -> Self {
        let before = Self::of(info);
        let kept = |time: Option<Timestamp>, stamp_ms| time.map(|time| Kept { time, stamp_ms });
        Self {
            accessed: kept(change.atime, info.last_access_time_ms()).or(before.accessed),
            modified: kept(change.mtime, info.last_modification_time_ms()).or(before.modified),
        }
    }

    /// The value of the extended attribute.
    pub(super) fn value(&self) -> HashMap<String, Bytes> {
        HashMap::from([(KEY.to_owned(), Bytes::from(self.to_string()))])
    }
}

/// Shows the times that are kept of a file in the place of the master's.
pub(super) fn show(info: &FileInfo, attr: &mut Attr) {
    if info.xattr.is_empty() {
        return;
    }
    let kept = KeptTimes::of(info);
    if let Some(accessed) = kept.accessed {
        attr.atime = accessed.time;
    }
    if let Some(modified) = kept.modified {
        attr.mtime = modified.time;
    }
}

impl Kept {
    fn parse(text: &str) -> Option<Self> {
        let (time, stamp) = text.split_once('@')?;
        let (secs, nanos) = time.split_once('.')?;
        let time = Timestamp { secs: secs.parse().ok()?, nanos: nanos.parse().ok()? };
        (time.nanos < 1_000_000_000).then_some(Self { time, stamp_ms: stamp.parse().ok()? })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:09}@{}", self.time.secs, self.time.nanos, self.stamp_ms)
    }
}

impl fmt::Display for KeptTimes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("a=", self.accessed), ("m=", self.modified)];
        let parts = parts.iter().filter_map(|(word, kept)| Some((word, kept.as_ref()?)));
        for (at, (word, kept)) in parts.enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(out, "{space}{word}{kept}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(modified_ms: i64, accessed_ms: i64) -> FileInfo {
        FileInfo {
            last_modification_time_ms: Some(modified_ms),
            last_access_time_ms: Some(accessed_ms),
            ..FileInfo::default()
        }
    }

    fn with(value: &str, modified_ms: i64, accessed_ms: i64) -> FileInfo {
        let xattr = HashMap::from([(KEY.to_owned(), Bytes::copy_from_slice(value.as_bytes()))]);
        FileInfo { xattr, ..info(modified_ms, accessed_ms) }
    }

    fn time(secs: i64, nanos: u32) -> Timestamp {
        Timestamp { secs, nanos }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let change = SetAttr {
            atime: Some(time(-7, 5)),
            mtime: Some(time(1 << 33, 999_999_999)),
            ..SetAttr::default()
        };
        let kept = KeptTimes::after(&info(1000, 2000), &change);
        assert_eq!(kept.to_string(), "a=-7.000000005@2000 m=8589934592.999999999@1000");
        assert_eq!(KeptTimes::of(&FileInfo { xattr: kept.value(), ..info(1000, 2000) }), kept);
    }

    #[test]
    fn a_time_is_void_once_the_master_has_a_newer_one() {
        let text = "a=1.000000000@2000 m=2.000000000@1000";
        let held = |modified_ms, accessed_ms| {
            let kept = KeptTimes::of(&with(text, modified_ms, accessed_ms));
            (kept.modified.is_some(), kept.accessed.is_some())
        };
        assert_eq!(held(1000, 2000), (true, true));
        assert_eq!(held(1001, 2000), (false, true));
        assert_eq!(held(1000, 2001), (true, false));
    }

    #[test]
    fn a_time_that_is_not_set_stays_if_it_still_holds() {
        let text = "a=1.000000000@2000 m=2.000000000@1000";
        let change = SetAttr { atime: Some(time(9, 0)), ..SetAttr::default() };
        let kept = KeptTimes::after(&with(text, 1000, 3000), &change);
        assert_eq!(kept.to_string(), "a=9.000000000@3000 m=2.000000000@1000");
        let kept = KeptTimes::after(&with(text, 1001, 3000), &change);
        assert_eq!(kept.to_string(), "a=9.000000000@3000");
    }

    #[test]
    fn what_cannot_be_read_is_as_if_it_were_not_there() {
        for text in ["", "m", "m=", "m=1@5", "m=1.5", "m=x.5@5", "m=1.1000000000@5", "m=1.5@", "n=1.5@5"] {
            assert_eq!(KeptTimes::of(&with(text, 0, 0)), KeptTimes::default(), "{text}");
        }
        let more = "v=2 m=1.000000005@5 later=1";
        assert_eq!(KeptTimes::of(&with(more, 0, 0)).modified.map(|kept| kept.time), Some(time(1, 5)));
    }
}
