//! The entries of a directory as READDIR and READDIRPLUS answer them: one after the other, each padded to
//! 8 bytes, as many as fit.

use super::abi::DirentHeader;
use super::abi::EntryOut;
use super::abi::Plain;
use super::abi::type_bits;
use crate::vfs::DirItem;
use crate::vfs::Ino;
use crate::vfs::PlusItem;

const ALIGN: usize = 8;

/// A growing answer of at most so many bytes as the kernel asked for.
pub(super) struct Dirents {
    bytes: Vec<u8>,
    limit: usize,
    /// Inodes that the kernel will count once more when it gets this answer.
    counted: Vec<Ino>,
}

impl Dirents {
    /// Nothing yet.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::with_capacity(limit.min(64 << 10)), limit, counted: Vec::new() }
    }

    /// Adds an entry; false if it does not fit.
    pub(super) fn push(&mut self, item: &DirItem<'_>) -> bool {
        let fits = self.fits(item, 0);
        if fits {
            self.put(item);
        }
        fits
    }

    /// Adds an entry with what a look-up of it would answer; false if it does not fit.
    pub(super) fn push_plus(&mut self, plus: &PlusItem<'_>) -> bool {
        let fits = self.fits(&plus.item, size_of::<EntryOut>());
        if fits {
            // An entry of inode 0 is only a name: the kernel looks it up when it needs to.
            let entry = plus.entry.as_ref().map(EntryOut::from).unwrap_or_default();
            self.counted.extend(plus.entry.as_ref().map(|entry| entry.ino));
            self.bytes.extend_from_slice(entry.as_bytes());
            self.put(&plus.item);
        }
        fits
    }

    /// The bytes of the answer.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The inodes that count once more.
    pub(super) fn counted(&self) -> &[Ino] {
        &self.counted
    }

    fn fits(&self, item: &DirItem<'_>, before: usize) -> bool {
        let len = (before + size_of::<DirentHeader>() + item.name.len()).next_multiple_of(ALIGN);
        self.bytes.len() + len <= self.limit
    }

    fn put(&mut self, item: &DirItem<'_>) {
        let namelen = u32::try_from(item.name.len()).expect("names are at most 255 bytes");
        // The type bits of a mode, moved down, are the DT_ values of readdir(3).
        let header =
            DirentHeader { ino: item.ino, off: item.next, namelen, kind: type_bits(item.kind) >> 12 };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(item.name.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FileKind;

    fn item(name: &str) -> DirItem<'_> {
        DirItem { name, ino: 5, kind: FileKind::Directory, next: 9 }
    }

    #[test]
    fn entries_are_padded_and_carry_their_type() {
        let mut dirents = Dirents::new(4096);
        assert!(dirents.push(&item("abc")));
        assert!(dirents.push(&item("12345678")));
        let bytes = dirents.bytes();
        assert_eq!(bytes.len(), 32 + 32);
        assert_eq!(bytes[16..20], 3u32.to_ne_bytes());
        assert_eq!(bytes[20..24], u32::from(libc::DT_DIR).to_ne_bytes());
        assert_eq!(&bytes[24..32], b"abc\0\0\0\0\0");
        assert_eq!(&bytes[32 + 24..], b"12345678");
    }

    #[test]
    fn an_entry_is_taken_whole_or_not_at_all() {
        let mut dirents = Dirents::new(63);
        assert!(dirents.push(&item("abc")));
        assert!(!dirents.push(&item("def")));
        assert_eq!(dirents.bytes().len(), 32);
    }

    #[test]
    fn names_without_an_inode_are_not_counted() {
        let mut dirents = Dirents::new(4096);
        assert!(dirents.push_plus(&PlusItem { item: item("."), entry: None }));
        assert_eq!(dirents.bytes().len(), 128 + 32);
        assert_eq!(dirents.bytes()[..8], [0; 8]);
        assert_eq!(dirents.counted(), []);
    }
}
