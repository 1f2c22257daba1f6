//! Where one worker's requests are read into.

use std::io;

use memmap2::MmapMut;

use super::abi::InHeader;
use super::abi::WRITE_IN_LEN;

/// Requests with names and attributes fit in this however small `max_write` is (an extended attribute may
/// have 64 KiB).
const LEAST: usize = 128 << 10;

/// Memory for one request, page-aligned. Requests start a little before the second page, so that the data
/// of a WRITE starts on it. Pages that no request has touched cost nothing.
pub(super) struct Buffer {
    memory: MmapMut,
    start: usize,
}

impl Buffer {
    /// For requests with up to `max_write` bytes of data.
    pub(super) fn new(max_write: usize) -> io::Result<Self> {
        let page = page_size();
        let memory = MmapMut::map_anon(page + max_write.max(LEAST) + page)?;
        Ok(Self { memory, start: page - size_of::<InHeader>() - WRITE_IN_LEN })
    }

    /// All the room for a request.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// The first `len` bytes of the request that was read.
    pub(super) fn request(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.start..][..len]
    }
}

/// Bytes of a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: asks for a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has a page size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_write_is_page_aligned_and_fits() {
        let mut buffer = Buffer::new(1 << 20).unwrap();
        let header = size_of::<InHeader>() + WRITE_IN_LEN;
        assert!(buffer.room().len() >= header + (1 << 20));
        assert_eq!(buffer.request(header + 1)[header..].as_ptr().addr() % page_size(), 0);
    }
}
