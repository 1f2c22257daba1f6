//! Copies of what may be of a mapped file. Where such a file became shorter or its disk fails, a thread that reads the mapping is ended
//! by SIGBUS, and the process with it. The kernel, asked to copy, says `EFAULT`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::Fault;
use super::FsError;

/// `IOV_MAX`, of which one call takes no more.
const PARTS_MAX: usize = 1024;

/// What it is for who asked that [`copy_mapped`], or the kernel when it takes a reply, says `EFAULT`.
pub fn cut_off() -> FsError {
    FsError::because(Fault::Io, "a block file became shorter while it was mapped")
}

/// Where `bytes` are, for a system call.
pub fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Copies the memory of this process at `parts`, one after the other, to `to`, which is as long as all of them. Fails with `EFAULT` if
/// some of it cannot be read; what `to` has then is not said.
pub fn copy_mapped(parts: &[libc::iovec], to: &mut [u8]) -> Result<(), Errno> {
    match by_call(parts, to) {
        // A container's seccomp profile may not let it pass: Docker's does not on kernels before 4.8.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => by_file(parts, to),
        result => result,
    }
}

fn by_call(parts: &[libc::iovec], mut to: &mut [u8]) -> Result<(), Errno> {
    for some in parts.chunks(PARTS_MAX) {
        let (now, rest) = to.split_at_mut(some.iter().map(|part| part.iov_len).sum());
        to = rest;
        let whole = libc::iovec { iov_base: now.as_mut_ptr().cast(), iov_len: now.len() };
        // SAFETY: the kernel writes to `now` alone, which is ours, and checks what it reads.
        let copied = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const whole, 1, some.as_ptr(), some.len() as u64, 0)
        };
        // It stops where it cannot read.
        if Errno::result(copied)?.cast_unsigned() < now.len() {
            return Err(Errno::EFAULT);
        }
    }
    Ok(())
}

fn by_file(parts: &[libc::iovec], mut to: &mut [u8]) -> Result<(), Errno> {
    let errno = |err: std::io::Error| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO));
    let memory = File::open("/proc/self/mem").map_err(errno)?;
    for part in parts {
        let (now, rest) = to.split_at_mut(part.iov_len);
        to = rest;
        // `EIO`, or fewer bytes, where it cannot read.
        memory.read_exact_at(now, part.iov_base.addr() as u64).map_err(|_| Errno::EFAULT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 65536;

    fn parts(of: &[&[u8]]) -> Vec<libc::iovec> {
        of.iter().map(|part| iovec(part)).collect()
    }

    /// Two pages, the second of which has become unreadable.
    fn shortened() -> memmap2::Mmap {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 2 * PAGE], 0).unwrap();
        // SAFETY: only the kernel reads it.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        file.set_len(PAGE as u64).unwrap();
        map
    }

    #[test]
    fn many_parts_are_copied_in_their_order() {
        let bytes: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
        let parts = parts(&bytes.chunks(2).collect::<Vec<_>>());
        assert!(parts.len() > PARTS_MAX);
        for copy in [copy_mapped, by_call, by_file] {
            let mut to = vec![0; bytes.len()];
            assert_eq!(copy(&parts, &mut to), Ok(()));
            assert_eq!(to, bytes);
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_the_end() {
        let map = shortened();
        for copy in [copy_mapped, by_call, by_file] {
            let mut to = vec![0; 3 * PAGE];
            assert_eq!(copy(&parts(&[&map[..10], b"end"]), &mut to[..13]), Ok(()));
            assert_eq!(to[..13], *b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07end");
            assert_eq!(copy(&parts(&[&map[PAGE..], b"end"]), &mut to[..PAGE + 3]), Err(Errno::EFAULT));
            assert_eq!(copy(&parts(&[&map]), &mut to[..2 * PAGE]), Err(Errno::EFAULT));
        }
    }
}
