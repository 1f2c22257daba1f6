//! What of an open directory has been given: a seek back is answered from here, with exactly what was there.
//! Knows nothing of backends and inodes.
//!
//! Entries lie one after the other, each with its number, kind and name. A position is the number of bytes before an
//! entry, so it stays the same whatever becomes of the directory, and needs no table. The last ones are in memory; when
//! they fill [`IN_MEMORY`], they go to a file without a name. So an open directory takes bounded memory, and
//! 11 bytes and its name on the disk for each entry.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FsError;
use crate::fs::Result;

/// About 2,000 entries: no file is made for most directories.
const IN_MEMORY: usize = 64 << 10;

/// Number, kind, length of the name.
const HEAD: usize = 8 + 1 + 2;

/// Longest name that is read back; what kernels show is not longer.
const NAME_MAX: usize = 255;

/// The entries that were given, from the first to the last.
#[derive(Default)]
pub(super) struct Trail {
    recent: Vec<u8>,
    /// Those before the recent ones, and their bytes.
    older: Option<(File, u64)>,
    /// There is no place for a file: all stay in memory.
    homeless: bool,
}

/// An entry of the trail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) kind: FileKind,
    /// Where the next one is.
    pub(super) end: u64,
}

impl Trail {
    /// The position behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.older_len() + self.recent.len() as u64
    }

    /// What [`Self::end`] will be when an entry called `name` is added.
    pub(super) fn end_with(&self, name: &str) -> u64 {
        self.end() + (HEAD + name.len()) as u64
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, name: &str, id: u64, kind: FileKind) {
        let len = u16::try_from(name.len()).expect("names are at most 255 bytes");
        self.recent.extend_from_slice(&id.to_le_bytes());
        self.recent.push(u8::from(kind == FileKind::Directory));
        self.recent.extend_from_slice(&len.to_le_bytes());
        self.recent.extend_from_slice(name.as_bytes());
        if self.recent.len() >= IN_MEMORY && !self.homeless {
            self.spill().unwrap_or_else(|err| {
                let dir = std::env::temp_dir();
                log::warn!("a large directory is kept in memory, as {} takes no file: {err}", dir.display());
                self.homeless = true;
            });
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let (file, len) = match &mut self.older {
            Some(older) => older,
            none => none.insert((tempfile::tempfile()?, 0)),
        };
        file.write_all_at(&self.recent, *len)?;
        *len += self.recent.len() as u64;
        self.recent.clear();
        Ok(())
    }

    fn older_len(&self) -> u64 {
        self.older.as_ref().map_or(0, |(_, len)| *len)
    }

    /// The entry at `position`, none at the end. [`Fault::InvalidArgument`] if no entry begins there, as far as that
    /// can be seen.
    pub(super) fn at(&self, position: u64) -> Result<Option<Passed>> {
        if position >= self.end() {
            return Ok(None);
        }
        let mut bytes = [0; HEAD + NAME_MAX];
        let len = self.read_at(position, &mut bytes).map_err(|err| {
            FsError::because(Fault::Io, format!("what was listed cannot be read again: {err}"))
        })?;
        parse(&bytes[..len], position)
            .map(Some)
            .ok_or_else(|| FsError::because(Fault::InvalidArgument, "no entry was given at this offset"))
    }

    /// Entries are written whole, so what begins in the file ends there.
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.older {
            Some((file, len)) if position < *len => {
                let left = usize::try_from(len - position).unwrap_or(usize::MAX).min(bytes.len());
                file.read_exact_at(&mut bytes[..left], position)?;
                Ok(left)
            }
            _ => {
                let start = usize::try_from(position - self.older_len()).expect("in memory");
                let recent = &self.recent[start..];
                let left = recent.len().min(bytes.len());
                bytes[..left].copy_from_slice(&recent[..left]);
                Ok(left)
            }
        }
    }
}

fn parse(bytes: &[u8], position: u64) -> Option<Passed> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (&[kind], rest) = rest.split_first_chunk::<1>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let name = rest.get(..usize::from(u16::from_le_bytes(*len)))?;
    let kind = match kind {
        0 => FileKind::Regular,
        1 => FileKind::Directory,
        _ => return None,
    };
    Some(Passed {
        name: str::from_utf8(name).ok()?.to_owned(),
        id: u64::from_le_bytes(*id),
        kind,
        end: position + (HEAD + name.len()) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(n: u64) -> FileKind {
        if n.is_multiple_of(3) { FileKind::Directory } else { FileKind::Regular }
    }

    #[test]
    fn what_was_given_is_found_again_at_its_position() {
        let mut trail = Trail::default();
        let mut positions = Vec::new();
        for n in 0..20_000 {
            positions.push(trail.end());
            let name = format!("naïve {n}");
            let end = trail.end_with(&name);
            trail.push(&name, n, kind(n));
            assert_eq!(trail.end(), end);
            assert!(trail.recent.capacity() <= 2 * IN_MEMORY, "{}", trail.recent.capacity());
        }
        assert!(trail.older_len() > 0, "the test is large enough for a file");
        for n in (0..20_000).rev() {
            let passed = trail.at(positions[n as usize]).unwrap().unwrap();
            let end = positions.get(n as usize + 1).copied().unwrap_or(trail.end());
            assert_eq!(passed, Passed { name: format!("naïve {n}"), id: n, kind: kind(n), end });
        }
        assert_eq!(trail.at(trail.end()).unwrap(), None);
    }

    #[test]
    fn names_of_the_longest_kind_are_found_again() {
        let mut trail = Trail::default();
        let name = "x".repeat(NAME_MAX);
        trail.push("", 1, FileKind::Regular);
        trail.push(&name, u64::MAX, FileKind::Directory);
        let first = trail.at(0).unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.end), ("", HEAD as u64));
        assert_eq!(trail.at(first.end).unwrap().unwrap().name, name);
    }

    #[test]
    fn a_position_that_was_never_given_is_refused() {
        let mut trail = Trail::default();
        trail.push("name", 0x0505_0505_0505_0505, FileKind::Regular);
        for position in 1..trail.end() {
            assert_eq!(trail.at(position).unwrap_err().fault(), Fault::InvalidArgument, "{position}");
        }
    }
}
