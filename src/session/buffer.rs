//! Where one worker's requests are read into, and how the data of a large WRITE is kept without being copied: who keeps it
//! has the memory, and the worker goes on with other memory.
//!
//! Lock order: the spares, which are locked for a moment, and nothing else.

use std::io;
use std::sync::Arc;
use std::sync::Weak;

use bytes::Bytes;
use memmap2::MmapMut;
use memmap2::MmapRaw;
use parking_lot::Mutex;

use super::abi::InHeader;
use super::abi::WRITE_IN_LEN;

/// Requests with names and attributes fit in this however small `max_write` is (an extended attribute may
/// have 64 KiB).
pub(super) const LEAST: usize = 128 << 10;

/// How many pieces of memory wait to be used again. What a writer keeps on its way to a server is a few.
const SPARES_MAX: usize = 8;

/// Memory for one request, page-aligned. Requests start a little before the second page, so that the data
/// of a WRITE starts on it. Pages that no request has touched cost nothing.
pub(super) struct Buffer {
    memory: Arc<Memory>,
    spares: Arc<Spares>,
    start: usize,
}

/// Memory of the buffers of one session that nobody uses: its pages are there already.
pub(super) struct Spares {
    size: usize,
    free: Mutex<Vec<MmapRaw>>,
}

/// The memory of a buffer, as long as the worker or who keeps data of it uses it.
pub(super) struct Memory {
    /// Taken when it goes.
    map: Option<MmapRaw>,
    spares: Weak<Spares>,
}

impl Spares {
    /// For requests with up to `max_write` bytes of data.
    pub(super) fn new(max_write: usize) -> Arc<Self> {
        let page = page_size();
        Arc::new(Self { size: page + max_write.max(LEAST) + page, free: Mutex::default() })
    }

    fn memory(self: &Arc<Self>) -> io::Result<Arc<Memory>> {
        let spare = self.free.lock().pop();
        let map = match spare {
            Some(map) => map,
            None => MmapRaw::from(MmapMut::map_anon(self.size)?),
        };
        Ok(Arc::new(Memory { map: Some(map), spares: Arc::downgrade(self) }))
    }
}

impl Buffer {
    /// One with memory of `spares`.
    pub(super) fn new(spares: &Arc<Spares>) -> io::Result<Self> {
        let start = page_size() - size_of::<InHeader>() - WRITE_IN_LEN;
        Ok(Self { memory: spares.memory()?, spares: Arc::clone(spares), start })
    }

    /// All the room for a request: other memory, if somebody keeps data of the last one.
    pub(super) fn room(&mut self) -> io::Result<&mut [u8]> {
        if Arc::get_mut(&mut self.memory).is_none() {
            self.memory = self.spares.memory()?;
        }
        Ok(self.request(self.spares.size - self.start))
    }

    /// The first `len` bytes of the request that was read.
    pub(super) fn request(&mut self, len: usize) -> &mut [u8] {
        let map = self.memory.map();
        assert!(len <= map.len() - self.start, "a request is not longer than the room for it");
        // SAFETY: the part lies in the map. Nobody else has this memory, as `room` has seen to it: only while the request is
        // served may parts of it be kept, by [`Memory::keep`], and those are not changed any more by then.
        unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().add(self.start), len) }
    }

    /// For whoever may keep data of this request.
    pub(super) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }
}

impl Memory {
    fn map(&self) -> &MmapRaw {
        self.map.as_ref().expect("it is there until this goes")
    }

    /// `data` for longer than the request, without a copy. None if it is not of this memory, or if it is so little that the
    /// memory is worth more.
    pub(super) fn keep(self: Arc<Self>, data: &[u8]) -> Option<Bytes> {
        let map = self.map();
        let start = data.as_ptr().addr().checked_sub(map.as_ptr().addr())?;
        let is_of_it = start.checked_add(data.len()).is_some_and(|end| end <= map.len());
        let kept = Kept { memory: Arc::clone(&self), start, len: data.len() };
        (is_of_it && data.len() > map.len() / 2).then(|| Bytes::from_owner(kept))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (Some(map), Some(spares)) = (self.map.take(), self.spares.upgrade()) else { return };
        let mut free = spares.free.lock();
        if free.len() < SPARES_MAX {
            free.push(map);
        }
    }
}

/// The data of a WRITE.
struct Kept {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `keep` has seen that the part lies in the map, which lives as long as this. The buffer that the request was read
        // into takes other memory for the next one.
        unsafe { std::slice::from_raw_parts(self.memory.map().as_ptr().add(self.start), self.len) }
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

    const HEADER: usize = size_of::<InHeader>() + WRITE_IN_LEN;

    #[test]
    fn the_data_of_a_write_is_page_aligned_and_fits() {
        let mut buffer = Buffer::new(&Spares::new(1 << 20)).unwrap();
        assert!(buffer.room().unwrap().len() >= HEADER + (1 << 20));
        assert_eq!(buffer.request(HEADER + 1)[HEADER..].as_ptr().addr() % page_size(), 0);
    }

    #[test]
    fn data_that_is_kept_stays_as_it_is_while_the_buffer_is_used_again() {
        let spares = Spares::new(1 << 20);
        let mut buffer = Buffer::new(&spares).unwrap();
        buffer.room().unwrap().fill(1);
        let first = buffer.request(HEADER)[..1].as_ptr();
        let data = buffer.request(HEADER + (1 << 20))[HEADER..].as_ptr();
        // SAFETY: the data of the request, which nobody changes.
        let data = unsafe { std::slice::from_raw_parts(data, 1 << 20) };
        let kept = buffer.memory().keep(data).unwrap();
        assert_eq!(kept.as_ptr(), data.as_ptr());
        buffer.room().unwrap().fill(2);
        assert!(kept.iter().all(|byte| *byte == 1) && kept.len() == 1 << 20);
        drop(kept);
        // The memory that was kept is used again by the next one who needs some.
        assert_eq!(spares.free.lock().len(), 1);
        let mut other = Buffer::new(&spares).unwrap();
        assert_eq!(other.request(1).as_ptr(), first);
        assert!(spares.free.lock().is_empty());
    }

    #[test]
    fn little_data_and_that_of_others_is_not_kept() {
        let mut buffer = Buffer::new(&Spares::new(1 << 20)).unwrap();
        buffer.room().unwrap();
        let little = buffer.request(HEADER + 4096)[HEADER..].as_ptr();
        // SAFETY: the data of the request, which nobody changes.
        let little = unsafe { std::slice::from_raw_parts(little, 4096) };
        assert!(buffer.memory().keep(little).is_none());
        assert!(buffer.memory().keep(&vec![0; 1 << 20]).is_none());
        let address = buffer.room().unwrap().as_ptr();
        assert_eq!(buffer.room().unwrap().as_ptr(), address, "nobody has it");
    }
}
