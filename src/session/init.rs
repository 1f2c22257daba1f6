//! INIT: what kernel and session agree on, before any worker runs.
//!
//! libfuse decodes the request and must see it, as it remembers the kernel's version. But its reply knows
//! neither all flags that this kernel offers nor, before 3.17, all that it claims to ask for. So its reply
//! is caught before it reaches the kernel, completed, and sent on. To catch it needs no help from libfuse:
//! for the one message, a socket lies under the number of the session's descriptor.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use log::debug;
use log::info;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::recv;
use nix::sys::socket::socketpair;

use super::abi::InHeader;
use super::abi::InitIn;
use super::abi::InitOut;
use super::abi::OutHeader;
use super::abi::Plain;
use super::abi::opcode;
use super::buffer::Buffer;
use super::buffer::page_size;
use super::mounted::Mounted;

/// Kernels from 3.15 (2014) on know all structures in the sizes that `abi` has.
const OLDEST_MINOR: u32 = 23;

/// The kernel sends INIT as soon as it has mounted; more than this is a fault of the machine.
const WAIT_MS: u16 = 10_000;

/// `FUSE_*` flags of INIT; those above bit 31 travel in `flags2`.
mod flag {
    pub(super) const ASYNC_READ: u64 = 1 << 0;
    pub(super) const POSIX_LOCKS: u64 = 1 << 1;
    pub(super) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(super) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(super) const BIG_WRITES: u64 = 1 << 5;
    pub(super) const DONT_MASK: u64 = 1 << 6;
    pub(super) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(super) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(super) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(super) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(super) const ASYNC_DIO: u64 = 1 << 15;
    pub(super) const WRITEBACK_CACHE: u64 = 1 << 16;
    pub(super) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(super) const HANDLE_KILLPRIV: u64 = 1 << 19;
    pub(super) const POSIX_ACL: u64 = 1 << 20;
    pub(super) const MAX_PAGES: u64 = 1 << 22;
    pub(super) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(super) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(super) const INIT_EXT: u64 = 1 << 30;
    pub(super) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub(super) const PASSTHROUGH: u64 = 1 << 37;
    pub(super) const OVER_IO_URING: u64 = 1 << 41;
}

/// Never, whatever libfuse thinks of it: locks are the kernel's affair (no server knows them); nobody here
/// answers for "." and ".." of a forgotten inode, or keeps ACLs; umask is applied by the kernel; the writeback cache
/// would take size and times away from the server; there is a better way to clear set-user-id bits.
const REFUSED: u64 = flag::POSIX_LOCKS
    | flag::FLOCK_LOCKS
    | flag::EXPORT_SUPPORT
    | flag::DONT_MASK
    | flag::WRITEBACK_CACHE
    | flag::HANDLE_KILLPRIV
    | flag::POSIX_ACL
    | flag::EXPLICIT_INVAL_DATA
    // These need a part of the session that takes them up, and are asked for then.
    | flag::PASSTHROUGH
    | flag::OVER_IO_URING;

/// What the session asks for.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) flags: u64,
    /// Most bytes of one WRITE, and of one READ unless a mount option says less.
    pub(super) max_write: u32,
    /// Most bytes of read-ahead; the kernel's own limit if none.
    pub(super) max_readahead: Option<u32>,
    /// Most requests that nobody waits for, such as read-ahead, at a time.
    pub(super) max_background: u16,
    /// From how many on the kernel holds back more read-ahead.
    pub(super) congestion_threshold: u16,
    /// How many file systems may lie one on the other below this one, so that it may pass files through to them; 0 for
    /// no passthrough. Each is one less that may lie above.
    pub(super) stack_depth: u32,
    /// Whether requests are to come over io_uring.
    pub(super) io_uring: bool,
}

/// What was agreed that others must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Whether files can be passed through.
    pub(super) passthrough: bool,
    /// Whether the kernel waits for queues of io_uring.
    pub(super) io_uring: bool,
}

impl Wishes {
    /// The flags that are good for every mount of ours.
    pub(super) const FLAGS: u64 = flag::ASYNC_READ
        | flag::ATOMIC_O_TRUNC
        | flag::BIG_WRITES
        | flag::AUTO_INVAL_DATA
        | flag::DO_READDIRPLUS
        | flag::READDIRPLUS_AUTO
        | flag::ASYNC_DIO
        // libfuse before 3.17 claims to ask for it and does not.
        | flag::PARALLEL_DIROPS
        | flag::MAX_PAGES
        // Set-user-id bits are cleared by who keeps them: `vfs` at a write, the embedded store at a chown. Without it
        // the kernel asks for `security.capability` before each write that goes through its pages.
        | flag::HANDLE_KILLPRIV_V2
        | flag::DIRECT_IO_ALLOW_MMAP;

    /// Without reads in parallel for one file, as the mount option `sync_read` asks.
    pub(super) const fn sync_read(flags: u64) -> u64 {
        flags & !flag::ASYNC_READ
    }
}

/// Answers the kernel's INIT by way of libfuse. Must run before anyone else reads from the session.
pub(super) fn negotiate(mounted: &Mounted, wishes: &Wishes, buffer: &mut Buffer) -> io::Result<Agreed> {
    let device = mounted.fd();
    loop {
        let len = receive(device, buffer)?;
        let request = buffer.request(len);
        let (header, offer) = parse(request)?;
        let reply = caught_reply(mounted, request)?;
        let (head, body) = split(&reply)?;
        if head.error != 0 {
            write(device, &reply)?;
            return Err(broken(format!(
                "libfuse refuses the kernel's INIT: {}",
                Errno::from_raw(-head.error)
            )));
        }
        if offer.major > 7 {
            // The kernel will ask again in the older way.
            write(device, &reply)?;
            continue;
        }
        if offer.major < 7 || offer.minor < OLDEST_MINOR {
            return Err(broken(format!("the kernel speaks FUSE {}.{}, too old", offer.major, offer.minor)));
        }
        let answer = complete(&body, &offer, wishes);
        log_outcome(&offer, wishes, &body, &answer);
        send(device, header.unique, &answer)?;
        let has = |flag| flags_out(&answer) & flag != 0;
        return Ok(Agreed { passthrough: has(flag::PASSTHROUGH), io_uring: has(flag::OVER_IO_URING) });
    }
}

/// libfuse's reply with everything that we know better.
fn complete(reply: &InitOut, offer: &InitIn, wishes: &Wishes) -> InitOut {
    let offered = flags_in(offer);
    let passthrough = if wishes.stack_depth > 0 { flag::PASSTHROUGH } else { 0 };
    let io_uring = if wishes.io_uring { flag::OVER_IO_URING } else { 0 };
    let wished = wishes.flags | passthrough | io_uring;
    let flags = ((flags_out(reply) & !REFUSED) | wished | flag::INIT_EXT) & offered;
    let pages = u64::from(wishes.max_write).div_ceil(page_size() as u64);
    // Without MAX_PAGES a request has at most 32 pages, and max_write beyond that is ignored.
    InitOut {
        // What libfuse 2 says is too low for RENAME2 and the longer reply, both of which are taken care of.
        minor: reply.minor.max(OLDEST_MINOR),
        flags: low(flags),
        flags2: if flags & flag::INIT_EXT == 0 { 0 } else { high(flags) },
        max_write: wishes.max_write,
        max_pages: if flags & flag::MAX_PAGES == 0 { 0 } else { u16::try_from(pages).unwrap_or(u16::MAX) },
        max_readahead: wishes.max_readahead.map_or(offer.max_readahead, |most| most.min(offer.max_readahead)),
        max_background: wishes.max_background,
        congestion_threshold: wishes.congestion_threshold,
        max_stack_depth: if flags & flag::PASSTHROUGH == 0 { 0 } else { wishes.stack_depth },
        // Times are exact to the nanosecond as far as the backend knows them.
        time_gran: 1,
        ..*reply
    }
}

fn flags_in(offer: &InitIn) -> u64 {
    let low = u64::from(offer.flags);
    if low & flag::INIT_EXT == 0 { low } else { low | u64::from(offer.flags2) << 32 }
}

fn flags_out(reply: &InitOut) -> u64 {
    u64::from(reply.flags) | u64::from(reply.flags2) << 32
}

fn low(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).expect("masked")
}

fn high(flags: u64) -> u32 {
    u32::try_from(flags >> 32).expect("shifted")
}

fn log_outcome(offer: &InitIn, wishes: &Wishes, libfuse: &InitOut, answer: &InitOut) {
    let flags = flags_out(answer);
    debug!(
        "INIT flags: offered {:#x}, wished {:#x}, libfuse's {:#x}, final {flags:#x}",
        flags_in(offer),
        wishes.flags,
        flags_out(libfuse)
    );
    info!(
        "FUSE 7.{}: requests up to {} KiB, read-ahead {} KiB, {} in the background, {}",
        offer.minor,
        answer.max_write >> 10,
        answer.max_readahead >> 10,
        answer.max_background,
        Names(flags)
    );
}

/// The names of the flags that make a difference.
struct Names(u64);

impl fmt::Display for Names {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (flag::ASYNC_READ, "async_read"),
            (flag::BIG_WRITES, "big_writes"),
            (flag::ATOMIC_O_TRUNC, "atomic_o_trunc"),
            (flag::AUTO_INVAL_DATA, "auto_inval_data"),
            (flag::DO_READDIRPLUS, "readdirplus"),
            (flag::ASYNC_DIO, "async_dio"),
            (flag::PARALLEL_DIROPS, "parallel_dirops"),
            (flag::DIRECT_IO_ALLOW_MMAP, "direct_io_allow_mmap"),
            (flag::PASSTHROUGH, "passthrough"),
            (flag::OVER_IO_URING, "over_io_uring"),
        ];
        let set = known.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name);
        out.write_str(&set.collect::<Vec<_>>().join(" "))
    }
}

fn receive(device: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<usize> {
    loop {
        let ready = poll(&mut [PollFd::new(device, PollFlags::POLLIN)], PollTimeout::from(WAIT_MS));
        match ready {
            Ok(0) => return Err(broken("the kernel does not send INIT")),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(err) => return Err(err.into()),
        }
        match nix::unistd::read(device, buffer.room()?) {
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => {}
            outcome => return Ok(outcome?),
        }
    }
}

fn parse(request: &[u8]) -> io::Result<(InHeader, InitIn)> {
    let header =
        InHeader::read_from(request).ok_or_else(|| broken("the kernel's first request is too short"))?;
    if header.opcode != opcode::INIT {
        return Err(broken(format!("the kernel's first request is not INIT but {}", header.opcode)));
    }
    // Before 7.36 the structure ends earlier: what is missing counts as zero.
    let offer = &request[size_of::<InHeader>()..];
    let mut padded = [0; size_of::<InitIn>()];
    let len = offer.len().min(padded.len());
    padded[..len].copy_from_slice(&offer[..len]);
    Ok((header, InitIn::read_from(&padded).expect("of its size")))
}

fn split(reply: &[u8]) -> io::Result<(OutHeader, InitOut)> {
    let head = OutHeader::read_from(reply).ok_or_else(|| broken("libfuse's reply to INIT is too short"))?;
    // Older libraries end it after 24 bytes, as older kernels did.
    let body = &reply[size_of::<OutHeader>()..];
    let mut padded = [0; size_of::<InitOut>()];
    let len = body.len().min(padded.len());
    padded[..len].copy_from_slice(&body[..len]);
    Ok((head, InitOut::read_from(&padded).expect("of its size")))
}

fn send(device: BorrowedFd<'_>, unique: u64, answer: &InitOut) -> io::Result<()> {
    let len = size_of::<OutHeader>() + size_of::<InitOut>();
    let head = OutHeader { len: u32::try_from(len).expect("small"), error: 0, unique };
    write(device, &[head.as_bytes(), answer.as_bytes()].concat())
}

fn write(device: BorrowedFd<'_>, reply: &[u8]) -> io::Result<()> {
    nix::unistd::write(device, reply)?;
    Ok(())
}

/// Has libfuse process the request and returns what it wanted to send.
fn caught_reply(mounted: &Mounted, request: &mut [u8]) -> io::Result<Vec<u8>> {
    // One message stays one message.
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let diverted = Diverted::new(mounted.fd(), theirs.as_fd())?;
    mounted.process(request, mounted.fd());
    diverted.restore()?;
    let mut reply = vec![0; 4096];
    let len = match recv(ours.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT) {
        Ok(len) => len,
        Err(Errno::EAGAIN) => return Err(broken("libfuse does not reply to INIT")),
        Err(err) => return Err(err.into()),
    };
    reply.truncate(len);
    Ok(reply)
}

/// A descriptor's number that stands for something else for a while.
struct Diverted<'a> {
    number: BorrowedFd<'a>,
    /// What the number stood for before.
    original: OwnedFd,
}

impl<'a> Diverted<'a> {
    fn new(number: BorrowedFd<'a>, instead: BorrowedFd<'_>) -> io::Result<Self> {
        let original = number.try_clone_to_owned()?;
        put(instead, number)?;
        Ok(Self { number, original })
    }

    fn restore(self) -> io::Result<()> {
        // What `drop` does, but its failure is seen.
        put(self.original.as_fd(), self.number)
    }
}

impl Drop for Diverted<'_> {
    fn drop(&mut self) {
        // A second time does no harm, and cannot fail: both numbers are open.
        let _ = put(self.original.as_fd(), self.number);
    }
}

/// Makes the number of `to` stand for what `from` stands for.
fn put(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the number stays open, and is the session's, which nobody uses meanwhile: no worker runs yet.
    let code = unsafe { libc::dup3(from.as_raw_fd(), to.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(code)?;
    Ok(())
}

fn broken(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernel 6.18 offers.
    const OFFERED: u64 = 0x5fd_73ff_fffb;

    fn offer(flags: u64) -> InitIn {
        InitIn {
            major: 7,
            minor: 45,
            max_readahead: 128 << 10,
            flags: low(flags),
            flags2: high(flags),
            ..InitIn::default()
        }
    }

    fn wishes() -> Wishes {
        Wishes {
            flags: Wishes::FLAGS,
            max_write: 1 << 20,
            max_readahead: None,
            max_background: 64,
            congestion_threshold: 48,
            stack_depth: 0,
            io_uring: false,
        }
    }

    #[test]
    fn a_reply_of_libfuse_2_gets_what_it_does_not_know() {
        let libfuse_2 = InitOut { major: 7, minor: 19, flags: 1, max_write: 128 << 10, ..InitOut::default() };
        let answer = complete(&libfuse_2, &offer(OFFERED), &wishes());
        let flags = flags_out(&answer);
        for wished in [
            flag::PARALLEL_DIROPS,
            flag::MAX_PAGES,
            flag::BIG_WRITES,
            flag::HANDLE_KILLPRIV_V2,
            flag::DIRECT_IO_ALLOW_MMAP,
        ] {
            assert_ne!(flags & wished, 0, "{wished:#x} in {flags:#x}");
        }
        assert_eq!((answer.max_write, answer.max_pages), (1 << 20, 256));
        assert_eq!((answer.minor, answer.max_readahead, answer.max_background), (23, 128 << 10, 64));
    }

    #[test]
    fn passthrough_is_agreed_on_where_it_is_wished_and_offered() {
        // A libfuse that asks for it by itself.
        let libfuse = InitOut { flags2: high(flag::PASSTHROUGH), max_stack_depth: 2, ..InitOut::default() };
        for (stack_depth, offered, depth) in
            [(0, OFFERED, 0), (1, OFFERED, 1), (2, OFFERED, 2), (1, OFFERED & !flag::PASSTHROUGH, 0)]
        {
            let answer = complete(&libfuse, &offer(offered), &Wishes { stack_depth, ..wishes() });
            let is_set = flags_out(&answer) & flag::PASSTHROUGH != 0;
            assert_eq!((is_set, answer.max_stack_depth), (depth > 0, depth), "{stack_depth}, {offered:#x}");
        }
    }

    #[test]
    fn nothing_is_set_that_the_kernel_does_not_offer() {
        let old = flag::ASYNC_READ | flag::BIG_WRITES;
        let answer = complete(&InitOut { flags: u32::MAX, ..InitOut::default() }, &offer(old), &wishes());
        assert_eq!(flags_out(&answer), old);
        assert_eq!(answer.max_pages, 0);
        // Bits of flags2 mean nothing without INIT_EXT.
        let no_ext = offer(OFFERED & !flag::INIT_EXT);
        assert_eq!(complete(&InitOut::default(), &no_ext, &wishes()).flags2, 0);
    }

    #[test]
    fn what_must_not_be_is_taken_out_of_libfuses_reply() {
        let all = InitOut { flags: u32::MAX, flags2: u32::MAX, ..InitOut::default() };
        let flags = flags_out(&complete(&all, &offer(u64::MAX), &wishes()));
        assert_eq!(flags & REFUSED, 0);
        let passthrough = Wishes { flags: Wishes::FLAGS | flag::PASSTHROUGH, ..wishes() };
        assert_ne!(flags_out(&complete(&all, &offer(u64::MAX), &passthrough)) & flag::PASSTHROUGH, 0);
    }

    #[test]
    fn read_ahead_is_only_ever_lowered() {
        let lower = Wishes { max_readahead: Some(4096), ..wishes() };
        assert_eq!(complete(&InitOut::default(), &offer(OFFERED), &lower).max_readahead, 4096);
        let higher = Wishes { max_readahead: Some(u32::MAX), ..wishes() };
        assert_eq!(complete(&InitOut::default(), &offer(OFFERED), &higher).max_readahead, 128 << 10);
    }

    #[test]
    fn requests_of_older_kernels_are_shorter() {
        let header = InHeader { opcode: opcode::INIT, unique: 2, ..InHeader::default() };
        let mut request = header.as_bytes().to_vec();
        request.extend(&offer(OFFERED).as_bytes()[..16]);
        let (header, offer) = parse(&request).unwrap();
        assert_eq!((header.unique, offer.minor, offer.flags2), (2, 45, 0));
        assert!(parse(&request[..20]).is_err());
    }
}
