//! What is on disk beside the bytes of a cached file: which file and version it is, by the name, and which pages are there,
//! by a list that only grows. Each entry has a checksum of its own, so a list that ends in the middle of one is good up to
//! there. Reads and writes no file itself.

use crate::fs::Attr;
use crate::fs::Timestamp;

/// The bytes of one checksum: a small read has to read and check as many.
pub(super) const BLOCK: usize = 64 << 10;

/// How a list begins: the layout of this version, and the size of a page.
pub(super) const HEADER: usize = 16;
const MAGIC: &[u8; 8] = b"AFPAGES1";

/// One version of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    /// What tells its backend from others.
    pub(super) origin: u64,
    /// The backend's number of the file.
    pub(super) id: u64,
    /// Its bytes.
    pub(super) size: u64,
    /// When they were written.
    pub(super) mtime: Timestamp,
}

impl Version {
    /// The version that `attr` describes.
    pub(super) fn of(origin: u64, attr: &Attr) -> Self {
        Self { origin, id: attr.id, size: attr.size, mtime: attr.mtime }
    }

    /// Its name, as a file.
    pub(super) fn name(&self) -> String {
        let Self { origin, id, size, mtime } = self;
        format!("{origin:016x}.{id:x}.{size:x}.{:x}.{:x}", mtime.secs, mtime.nanos)
    }

    /// The reverse.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let mut next = || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
        let (origin, id, size, secs, nanos) = (next()?, next()?, next()?, next()?, next()?);
        let mtime = Timestamp { secs: secs.cast_signed(), nanos: u32::try_from(nanos).ok()? };
        let version = Self { origin, id, size, mtime };
        // One name for each version.
        (version.name() == name).then_some(version)
    }

    /// Which of `count` it belongs to, by its number. Of some backends the low bits of all numbers are the same, as Alluxio
    /// gives each small file a container of its own.
    pub(super) fn part(&self, count: usize) -> usize {
        let mixed = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mixed) * count as u128) >> 64) as usize
    }

    /// How many pages of `page_size` bytes it has.
    pub(super) fn pages(&self, page_size: u64) -> u32 {
        u32::try_from(self.size.div_ceil(page_size)).unwrap_or(u32::MAX)
    }

    /// The bytes of page `index`.
    pub(super) fn page_len(&self, page_size: u64, index: u32) -> u64 {
        let start = u64::from(index) * page_size;
        self.size.saturating_sub(start).min(page_size)
    }
}

/// What tells the backend called `name` from others: FNV-1a, which is the same in every build.
pub(super) fn origin(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A page that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// When it came, in seconds since 1970.
    pub(super) time: u64,
    /// Of each [`BLOCK`] bytes of it, in order.
    pub(super) sums: Box<[u32]>,
}

impl Page {
    /// The page with these bytes, which come at `time`.
    pub(super) fn new(time: u64, bytes: &[u8]) -> Self {
        Self { time, sums: bytes.chunks(BLOCK).map(crc32fast::hash).collect() }
    }

    /// Whether `bytes`, which begin with the block `first`, are those of the page.
    pub(super) fn has(&self, first: usize, bytes: &[u8]) -> bool {
        let mut blocks = bytes.chunks(BLOCK).enumerate();
        blocks.all(|(n, block)| self.sums.get(first + n) == Some(&crc32fast::hash(block)))
    }
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The page of this number came.
    Here(u32, Page),
    /// It went.
    Gone(u32),
}

/// The bytes of an entry, for pages of `page_size`.
pub(super) fn record_len(page_size: u64) -> usize {
    // Number, kind, time, checksums, and the checksum of all that.
    4 + 4 + 8 + 4 * blocks(page_size) + 4
}

fn blocks(page_size: u64) -> usize {
    (page_size as usize).div_ceil(BLOCK)
}

/// The beginning of a list.
pub(super) fn header(page_size: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..].copy_from_slice(&page_size.to_le_bytes());
    bytes
}

impl Record {
    /// The entry as it is written.
    pub(super) fn bytes(&self, page_size: u64) -> Vec<u8> {
        let len = record_len(page_size);
        let mut bytes = Vec::with_capacity(len);
        let (index, kind, page) = match self {
            Self::Here(index, page) => (*index, 1_u32, Some(page)),
            Self::Gone(index) => (*index, 0, None),
        };
        bytes.extend(index.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(page.map_or(0, |page| page.time).to_le_bytes());
        for sum in page.iter().flat_map(|page| page.sums.iter()) {
            bytes.extend(sum.to_le_bytes());
        }
        bytes.resize(len - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8], version: &Version, page_size: u64) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if word(bytes.len() - 4)? != crc32fast::hash(&bytes[..bytes.len() - 4]) {
            return None;
        }
        let index = word(0)?;
        match word(4)? {
            0 => Some(Self::Gone(index)),
            1 if index < version.pages(page_size) => {
                let time = u64::from(word(8)?) | u64::from(word(12)?) << 32;
                let used = blocks(version.page_len(page_size, index));
                let sums: Option<Box<[u32]>> = (0..used).map(|n| word(16 + 4 * n)).collect();
                Some(Self::Here(index, Page { time, sums: sums? }))
            }
            _ => None,
        }
    }
}

/// The entries of the list `bytes` for `version`, and how many bytes of it are good; nothing if it is none for pages of
/// `page_size`.
pub(super) fn parse(bytes: &[u8], version: &Version, page_size: u64) -> Option<(Vec<Record>, usize)> {
    let (start, rest) = bytes.split_at_checked(HEADER)?;
    if start != header(page_size) {
        return None;
    }
    let records: Vec<Record> = rest
        .chunks_exact(record_len(page_size))
        .map_while(|bytes| Record::parse(bytes, version, page_size))
        .collect();
    let good = HEADER + records.len() * record_len(page_size);
    Some((records, good))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 1 << 20;

    fn version(size: u64) -> Version {
        Version { origin: origin("here"), id: 7, size, mtime: Timestamp { secs: -3, nanos: 999_999_999 } }
    }

    #[test]
    fn a_version_is_known_by_its_name() {
        let version = version(5_000_000_000);
        assert_eq!(Version::parse(&version.name()), Some(version));
        let name = version.name();
        for other in ["", "x", "1.2.3.4", &format!("{name}.1"), &format!("0{name}"), &name.to_uppercase()] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }

    #[test]
    fn files_of_a_container_each_are_spread_evenly() {
        let mut counts = [0; 64];
        for container in 0..6400_u64 {
            let id = (container << 24 | 0xff_ffff) + 1;
            counts[Version { id, ..version(1) }.part(counts.len())] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }

    #[test]
    fn pages_are_counted_to_the_last_byte() {
        for (size, pages, last) in [(1, 1, 1), (PAGE, 1, PAGE), (PAGE + 1, 2, 1), (3 * PAGE, 3, PAGE)] {
            let version = version(size);
            assert_eq!((version.pages(PAGE), version.page_len(PAGE, pages - 1)), (pages, last), "{size}");
        }
        assert_eq!(version(PAGE).page_len(PAGE, 1), 0);
    }

    #[test]
    fn a_list_is_read_back_up_to_where_it_is_damaged() {
        let version = version(2 * PAGE + 100_000);
        let pages = [Page::new(1 << 40, &vec![1; PAGE as usize]), Page::new(2, &[3; 100_000])];
        let records =
            vec![Record::Here(0, pages[0].clone()), Record::Here(2, pages[1].clone()), Record::Gone(0)];
        let mut bytes = header(PAGE).to_vec();
        records.iter().for_each(|record| bytes.extend(record.bytes(PAGE)));
        assert_eq!(parse(&bytes, &version, PAGE), Some((records.clone(), bytes.len())));
        assert_eq!(parse(&bytes, &version, PAGE / 2), None, "of another page size");

        let one = record_len(PAGE);
        let short = &bytes[..bytes.len() - 1];
        assert_eq!(parse(short, &version, PAGE), Some((records[..2].to_vec(), HEADER + 2 * one)));
        for at in HEADER..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let good = (at - HEADER) / one;
            assert_eq!(
                parse(&damaged, &version, PAGE),
                Some((records[..good].to_vec(), HEADER + good * one))
            );
        }
    }

    #[test]
    fn a_page_knows_its_bytes() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let page = Page::new(0, &bytes);
        assert_eq!(page.sums.len(), 4);
        assert!(
            page.has(0, &bytes) && page.has(3, &bytes[3 * BLOCK..]) && page.has(1, &bytes[BLOCK..2 * BLOCK])
        );
        assert!(
            !page.has(0, &bytes[1..]) && !page.has(2, &bytes[BLOCK..2 * BLOCK]) && !page.has(4, &bytes[..1])
        );
    }
}
