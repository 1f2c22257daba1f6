//! The kernel's list of mounts, `/proc/self/mountinfo`, and its way to write any path as one word.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// The type that our mounts, and those of Alluxio's Java client, have unless they are told another name.
pub const TYPE: &str = "fuse.alluxio-fuse";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountEntry {
    /// Where it is.
    pub(super) point: PathBuf,
    /// Its type, `fuse.subtype` for ours.
    pub(super) fs_type: String,
}

impl MountEntry {
    /// Whether a process serves it, of this program or another.
    pub(super) fn is_fuse(&self) -> bool {
        self.fs_type.starts_with("fuse")
    }
}

/// All mounts that this process sees, in the order they were made.
pub(super) fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount on top of all that are at exactly `point`.
pub(super) fn find(point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(read()?.into_iter().rev().find(|entry| entry.point == point))
}

/// Lines that do not look as documented are left out: they cannot be ours.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - type source options`, with any number of words before the dash.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = unescape(words.nth(4)?);
    words.find(|word| *word == b"-")?;
    let fs_type = String::from_utf8_lossy(words.next()?).into_owned();
    Some(MountEntry { point: PathBuf::from(point), fs_type })
}

/// Reads `\ooo`, which stands for a byte that would end the word.
pub(super) fn unescape(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value =
            digits.map(|digits| digits.iter().fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0')));
        match value.map(u8::try_from) {
            Some(Ok(byte)) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The reverse of [`unescape`].
pub(super) fn escape(text: &Path) -> Vec<u8> {
    let mut word = Vec::new();
    for byte in text.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => word.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => word.push(*byte),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        36 22 0:50 / /mnt/with\\040space rw,nosuid - fuse.alluxio-fuse alluxio-fuse rw,user_id=0\n\
        37 22 0:51 / /mnt/a\\134b rw shared:7 master:3 - fuse.other src rw\n\
        garbage\n\
        38 22 0:52 / /mnt/no-dash rw fuse x rw\n";

    #[test]
    fn lines_are_read_with_any_number_of_optional_words() {
        let entry = |point: &str, fs_type: &str| MountEntry {
            point: PathBuf::from(point),
            fs_type: fs_type.to_owned(),
        };
        assert_eq!(
            parse(TEXT),
            [entry("/", "ext4"), entry("/mnt/with space", TYPE), entry("/mnt/a\\b", "fuse.other"),]
        );
    }

    #[test]
    fn escaping_is_reversible() {
        for text in ["/plain", "/a b\tc\nd\\e", "/\\040", "/é"] {
            let word = escape(Path::new(text));
            assert!(!word.contains(&b' ') && !word.contains(&b'\n'));
            assert_eq!(unescape(&word), OsString::from(text));
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for word in ["\\", "\\8", "\\04", "\\09x", "\\777"] {
            assert_eq!(unescape(word.as_bytes()), OsString::from(word));
        }
    }

    #[test]
    fn this_process_sees_its_root() {
        assert!(find(Path::new("/proc")).unwrap().is_some_and(|entry| entry.fs_type == "proc"));
        assert_eq!(find(Path::new("/nowhere/at/all")).unwrap(), None);
    }
}
