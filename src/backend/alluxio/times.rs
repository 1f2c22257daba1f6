//! Times that applications have set, which Alluxio has no place for: kept in an extended attribute of the file,
//! under a name that no application can reach. Knows nothing of calls.
//!
//! Beside each time stands the master's own time at that moment. Once the master's is newer, the file was changed
//! (or read) since, and the kept time is void, as POSIX wants it.
//!
//! The time of the last change of attributes, which the master does not know at all, is kept in the same way, in an
//! attribute of its own: two clients of which one sets times and the other a mode then lose nothing. Both travel with
//! the call that makes the change.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

use super::proto::grpc::file::FileInfo;
use crate::fs::Attr;
use crate::fs::SetAttr;
use crate::fs::Timestamp;

/// Extended attributes by their names.
pub(super) type Xattrs = HashMap<String, Bytes>;

/// The extended attribute with the times that were set. Names that applications can use begin with `user.`.
pub(super) const SET: &str = "alluxio-fuse.times";

/// The one with the time of the last change of attributes.
const CHANGED: &str = "alluxio-fuse.ctime";

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
        let text = text(info, SET);
        let find = |word: &str| text.split(' ').find_map(|part| Kept::parse(part.strip_prefix(word)?));
        Self {
            accessed: find("a=").filter(|kept| info.last_access_time_ms() <= kept.stamp_ms),
            modified: find("m=").filter(|kept| info.last_modification_time_ms() <= kept.stamp_ms),
        }
    }

    /// Those of a file after `change`.
    fn after(info: &FileInfo, change: &SetAttr) -> Self {
        let before = Self::of(info);
        let kept = |time: Option<Timestamp>, stamp_ms| time.map(|time| Kept { time, stamp_ms });
        Self {
            accessed: kept(change.atime, info.last_access_time_ms()).or(before.accessed),
            modified: kept(change.mtime, info.last_modification_time_ms()).or(before.modified),
        }
    }
}

/// The extended attributes that keep the times of `change`, and that something was changed `now`.
pub(super) fn after(info: &FileInfo, change: &SetAttr, now: Timestamp) -> Xattrs {
    let mut pairs = changed(info, now);
    if change.has_times() {
        pairs.insert(SET.to_owned(), Bytes::from(KeptTimes::after(info, change).to_string()));
    }
    pairs
}

/// The extended attribute that keeps that something was changed `now`.
pub(super) fn changed(info: &FileInfo, now: Timestamp) -> Xattrs {
    // Later than before, whatever the clocks of other clients and the master say.
    let time = now.max(next(last_change(info)));
    let kept = Kept { time, stamp_ms: info.last_modification_time_ms() };
    Xattrs::from([(CHANGED.to_owned(), Bytes::from(kept.to_string()))])
}

/// Whether `name` is one of the extended attributes that keep times.
pub(super) fn is_own(name: &str) -> bool {
    name == SET || name == CHANGED
}

/// Whether the extended attributes of `info` say that all that `pairs` say.
pub(super) fn has_all(info: &FileInfo, pairs: &Xattrs) -> bool {
    pairs.iter().all(|(name, value)| info.xattr.get(name) == Some(value))
}

/// When attributes or content changed last.
fn last_change(info: &FileInfo) -> Timestamp {
    let kept = Kept::parse(text(info, CHANGED));
    let modified_ms = info.last_modification_time_ms();
    kept.filter(|kept| modified_ms <= kept.stamp_ms)
        .map_or_else(|| Timestamp::from_millis(modified_ms), |kept| kept.time)
}

fn next(time: Timestamp) -> Timestamp {
    match time.nanos {
        999_999_999 => Timestamp { secs: time.secs.saturating_add(1), nanos: 0 },
        nanos => Timestamp { nanos: nanos + 1, ..time },
    }
}

fn text<'a>(info: &'a FileInfo, name: &str) -> &'a str {
    info.xattr.get(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
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
    attr.ctime = last_change(info);
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
        let xattr = Xattrs::from([(SET.to_owned(), Bytes::copy_from_slice(value.as_bytes()))]);
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
        let xattr = after(&info(1000, 2000), &change, time(0, 0));
        assert_eq!(KeptTimes::of(&FileInfo { xattr, ..info(1000, 2000) }), kept);
    }

    #[test]
    fn a_change_of_attributes_is_always_later_than_the_one_before() {
        let made = info(5_000, 0);
        assert_eq!(last_change(&made), time(5, 0));
        let change = |info: &FileInfo, now| FileInfo { xattr: changed(info, now), ..info.clone() };
        let first = change(&made, time(7, 1));
        assert_eq!(last_change(&first), time(7, 1));
        let behind = change(&first, time(6, 0));
        assert_eq!(last_change(&behind), time(7, 2), "by a client whose clock is behind");
        let early = change(&made, time(4, 0));
        assert_eq!(last_change(&early), time(5, 1), "behind that of the master");
        let written = FileInfo { last_modification_time_ms: Some(6_000), ..first };
        assert_eq!(last_change(&written), time(6, 0), "its content has changed since");
        assert_eq!(next(time(1, 999_999_999)), time(2, 0));
    }

    #[test]
    fn what_changes_no_times_leaves_those_that_are_kept() {
        let xattr = after(&info(1000, 2000), &SetAttr { mode: Some(0), ..SetAttr::default() }, time(9, 0));
        assert_eq!(xattr.into_keys().collect::<Vec<_>>(), [CHANGED]);
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
