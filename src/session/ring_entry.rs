//! The memory that the kernel and a worker share for one entry of a queue of io_uring: see `uring`. What libfuse answers is put
//! here in the place of a write to the device.

use std::io;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use log::warn;
use memmap2::MmapMut;
use memmap2::MmapRaw;
use nix::errno::Errno;

use super::abi::InHeader;
use super::abi::OutHeader;
use super::abi::Plain;
use super::abi::UringHeader;
use super::buffer::Buffer;
use super::buffer::page_size;
use crate::fs::copy_mapped;

/// The memory of one entry: a page for heads, and after it the data. The kernel writes it before it says that there is a
/// request, and reads it when it is told that there is a reply; in between it is this process's, and only one thread's.
pub(super) struct RingEntry {
    memory: MmapRaw,
    /// Whether the reply is there.
    answered: AtomicU8,
}

impl RingEntry {
    /// For requests and replies with up to `payload` bytes of data, a multiple of a page.
    pub(super) fn new(payload: usize) -> io::Result<Self> {
        let memory = MmapRaw::from(MmapMut::map_anon(page_size() + payload)?);
        Ok(Self { memory, answered: AtomicU8::new(0) })
    }

    fn head(&self) -> *mut UringHeader {
        self.memory.as_mut_ptr().cast()
    }

    fn payload(&self) -> *mut u8 {
        // SAFETY: the map has a page and the payload.
        unsafe { self.memory.as_mut_ptr().add(page_size()) }
    }

    fn payload_len(&self) -> usize {
        self.memory.len() - page_size()
    }

    pub(super) fn parts(&self) -> (libc::iovec, libc::iovec) {
        let head = libc::iovec { iov_base: self.head().cast(), iov_len: size_of::<UringHeader>() };
        (head, libc::iovec { iov_base: self.payload().cast(), iov_len: self.payload_len() })
    }

    pub(super) fn header(&self) -> UringHeader {
        // SAFETY: the map begins with it, and is aligned to a page; any bits are numbers.
        unsafe { self.head().read() }
    }

    fn set_header(&self, header: &UringHeader) {
        // SAFETY: as above.
        unsafe { self.head().write(*header) };
    }

    /// Puts the request together in `buffer`, as read(2) from the device gives it, and returns its length.
    pub(super) fn request(
        &self,
        header: &UringHeader,
        request: &InHeader,
        buffer: &mut Buffer,
    ) -> io::Result<usize> {
        let broken = || io::Error::other(format!("lengths of request {} do not fit", request.opcode));
        let (len, payload) = (request.len as usize, header.payload_sz as usize);
        let head = size_of::<InHeader>();
        // What its operation has in front of names and data, if anything.
        let fixed = len.checked_sub(head + payload).ok_or_else(broken)?;
        let room = buffer.room()?;
        if fixed > header.op_in.len() || payload > self.payload_len() || len > room.len() {
            return Err(broken());
        }
        room[..head].copy_from_slice(&header.in_out[..head]);
        room[head..head + fixed].copy_from_slice(&header.op_in[..fixed]);
        // SAFETY: both have that many bytes, and are different memory.
        unsafe { room.as_mut_ptr().add(head + fixed).copy_from_nonoverlapping(self.payload(), payload) };
        Ok(len)
    }

    /// There is a request now.
    pub(super) fn expect_reply(&self) {
        self.answered.store(0, Ordering::Relaxed);
    }

    /// Takes a reply of libfuse, whose first part is its head; `mapped` if data of it may be of a mapped file. None if it is
    /// not the reply to the request that lies here. Fails with `EFAULT` if the data cannot be read: then the request is
    /// answered with `EIO`, as the kernel does it when it reads data itself.
    ///
    /// # Safety
    /// `parts` are readable, but for those of a mapped file.
    pub(super) unsafe fn put(&self, parts: &[libc::iovec], mapped: bool) -> Option<Result<usize, Errno>> {
        let (first, data) = parts.split_first()?;
        if first.iov_len != size_of::<OutHeader>() {
            return None;
        }
        // SAFETY: as promised, and as long as that.
        let reply = unsafe { first.iov_base.cast::<OutHeader>().read_unaligned() };
        let mut header = self.header();
        let asked = InHeader::read_from(&header.in_out)?;
        if reply.unique != asked.unique || self.answered.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let len = data.iter().map(|part| part.iov_len).sum::<usize>();
        let copied = if len > self.payload_len() {
            Err(Errno::EMSGSIZE)
        } else if mapped {
            // SAFETY: there is room, which nobody else has until the kernel is told.
            copy_mapped(data, unsafe { std::slice::from_raw_parts_mut(self.payload(), len) })
        } else {
            let mut to = self.payload();
            for part in data {
                // SAFETY: the parts are readable, and there is room for all of them. Some may be of this very memory.
                unsafe {
                    to.copy_from(part.iov_base.cast(), part.iov_len);
                    to = to.add(part.iov_len);
                }
            }
            Ok(())
        };
        let reply = match copied {
            Ok(()) => reply,
            Err(_) => OutHeader { error: -libc::EIO, ..reply },
        };
        header.in_out[..size_of::<OutHeader>()].copy_from_slice(reply.as_bytes());
        header.payload_sz = if copied.is_ok() { u32::try_from(len).expect("a megabyte") } else { 0 };
        self.set_header(&header);
        self.answered.store(1, Ordering::Relaxed);
        Some(copied.map(|()| size_of::<OutHeader>() + len))
    }

    /// Answers the request with an error.
    pub(super) fn fail(&self, unique: u64, errno: i32) {
        let mut header = self.header();
        let reply = OutHeader { len: size_of::<OutHeader>() as u32, error: -errno, unique };
        header.in_out[..size_of::<OutHeader>()].copy_from_slice(reply.as_bytes());
        header.payload_sz = 0;
        self.set_header(&header);
        self.answered.store(1, Ordering::Relaxed);
    }

    /// Answers the request if nobody has: whoever asked would wait for ever.
    pub(super) fn settle(&self, unique: u64) {
        if self.answered.load(Ordering::Relaxed) == 0 {
            warn!("Request {unique} was not replied to");
            self.fail(unique, libc::EIO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::Spares;
    use super::*;
    use crate::fs::iovec;

    const PAYLOAD: usize = 128 << 10;

    /// An entry where the kernel has put request 7, with so many bytes before its data.
    fn asked(fixed: usize, data: &[u8]) -> (RingEntry, UringHeader, InHeader) {
        let entry = RingEntry::new(PAYLOAD).unwrap();
        let len = size_of::<InHeader>() + fixed + data.len();
        let request =
            InHeader { len: u32::try_from(len).unwrap(), opcode: 16, unique: 7, ..InHeader::default() };
        let mut header = UringHeader {
            in_out: [0; 128],
            op_in: [0; 128],
            flags: 0,
            commit_id: 7,
            payload_sz: u32::try_from(data.len()).unwrap(),
            padding: 0,
            reserved: 0,
        };
        header.in_out[..size_of::<InHeader>()].copy_from_slice(request.as_bytes());
        header.op_in[..fixed].fill(b'o');
        entry.set_header(&header);
        // SAFETY: there is room for it, and nobody else has this memory.
        unsafe { entry.payload().copy_from(data.as_ptr(), data.len()) };
        (entry, header, request)
    }

    fn reply(unique: u64, data: usize) -> OutHeader {
        let len = u32::try_from(size_of::<OutHeader>() + data).unwrap();
        OutHeader { len, error: 0, unique }
    }

    /// What the kernel finds: its head, and the data.
    fn answer(entry: &RingEntry) -> (OutHeader, Vec<u8>) {
        let header = entry.header();
        let data = (0..header.payload_sz as usize)
            // SAFETY: the payload is longer, and nobody else has this memory.
            .map(|at| unsafe { entry.payload().add(at).read() })
            .collect();
        (OutHeader::read_from(&header.in_out).unwrap(), data)
    }

    #[test]
    fn a_request_is_put_together_as_the_device_gives_it() {
        let (entry, header, request) = asked(40, b"data");
        let mut buffer = Buffer::new(&Spares::new(PAYLOAD)).unwrap();
        let len = entry.request(&header, &request, &mut buffer).unwrap();
        let expected = [request.as_bytes(), &[b'o'; 40], b"data"].concat();
        assert_eq!(buffer.request(len), expected);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut buffer = Buffer::new(&Spares::new(PAYLOAD)).unwrap();
        let (entry, header, request) = asked(40, b"data");
        let head = size_of::<InHeader>() as u32;
        let mut refused = |payload_sz, len| {
            let (header, request) = (UringHeader { payload_sz, ..header }, InHeader { len, ..request });
            entry.request(&header, &request, &mut buffer).unwrap_err()
        };
        // Less than its parts, more before the data than there is, more data than there is.
        refused(4, head + 3);
        refused(4, head + 129 + 4);
        refused(PAYLOAD as u32 + 1, head + PAYLOAD as u32 + 1);
        refused(u32::MAX, 0);
    }

    #[test]
    fn a_reply_is_put_where_the_kernel_looks_for_it_once() {
        for mapped in [false, true] {
            let (entry, ..) = asked(0, b"");
            let head = reply(7, 6);
            let parts = [iovec(head.as_bytes()), iovec(b"abc"), iovec(b"def")];
            // SAFETY: the parts are of slices that live.
            let put = || unsafe { entry.put(&parts, mapped) };
            assert_eq!(put(), Some(Ok(22)));
            let (found, data) = answer(&entry);
            assert_eq!((found.as_bytes(), &*data), (head.as_bytes(), &b"abcdef"[..]));
            assert_eq!(put(), None, "there is a reply");
        }
    }

    #[test]
    fn what_is_no_reply_to_the_request_goes_elsewhere() {
        let (entry, ..) = asked(0, b"");
        let head = reply(8, 0);
        // SAFETY: the parts are of slices that live.
        unsafe {
            assert_eq!(entry.put(&[iovec(head.as_bytes())], false), None, "another request");
            assert_eq!(entry.put(&[iovec(&head.as_bytes()[..15])], false), None, "no head");
            assert_eq!(entry.put(&[], false), None);
        }
        entry.settle(7);
        let (head, data) = answer(&entry);
        assert_eq!((head.unique, head.error, data.len()), (7, -libc::EIO, 0), "nobody waits for ever");
    }

    #[test]
    fn data_that_cannot_be_read_is_an_error_for_who_asked() {
        let (entry, ..) = asked(0, b"");
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * page_size() as u64).unwrap();
        // SAFETY: nobody reads it but the kernel.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        file.set_len(page_size() as u64).unwrap();
        let head = reply(7, map.len());
        // SAFETY: the head lives; the rest is of a mapped file, as is said.
        let put = unsafe { entry.put(&[iovec(head.as_bytes()), iovec(&map)], true) };
        assert_eq!(put, Some(Err(Errno::EFAULT)));
        let (head, data) = answer(&entry);
        assert_eq!((head.unique, head.error, data.len()), (7, -libc::EIO, 0));
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error_for_who_asked() {
        let (entry, ..) = asked(0, b"");
        let data = vec![0; PAYLOAD + 1];
        let head = reply(7, data.len());
        // SAFETY: the parts are of slices that live.
        let put = unsafe { entry.put(&[iovec(head.as_bytes()), iovec(&data)], false) };
        assert_eq!(put, Some(Err(Errno::EMSGSIZE)));
        assert_eq!(answer(&entry).0.error, -libc::EIO);
    }
}
