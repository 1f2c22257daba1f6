//! What others print on this process's stderr: libfuse 2 knows no other way to say why it does not mount,
//! and `fusermount` is a program of its own.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

/// There is one stderr.
static LOCK: Mutex<()> = Mutex::new(());

/// Runs `work` with stderr diverted into memory and returns what was printed there too, by any thread. Where
/// that cannot be done, what is printed goes where it always goes.
pub(super) fn captured<T>(work: impl FnOnce() -> T) -> (T, String) {
    match Capture::begin() {
        Ok(capture) => {
            let outcome = work();
            (outcome, capture.end())
        }
        Err(_) => (work(), String::new()),
    }
}

struct Capture {
    memory: File,
    /// Where stderr went before.
    original: OwnedFd,
    _lock: MutexGuard<'static, ()>,
}

impl Capture {
    fn begin() -> io::Result<Self> {
        let lock = LOCK.lock();
        // SAFETY: the name is a C string; the new descriptor is nobody else's.
        let memory = unsafe {
            let number = Errno::result(libc::memfd_create(c"stderr".as_ptr(), libc::MFD_CLOEXEC))?;
            File::from_raw_fd(number)
        };
        // SAFETY: if stderr is closed, the duplication fails.
        let original = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }.try_clone_to_owned()?;
        put(memory.as_raw_fd())?;
        Ok(Self { memory, original, _lock: lock })
    }

    fn end(mut self) -> String {
        // Others may still have written to the file when it is read; nothing is lost but what comes later.
        let _ = put(self.original.as_raw_fd());
        let mut said = Vec::new();
        let read = self.memory.rewind().and_then(|()| self.memory.read_to_end(&mut said));
        read.map_or_else(|err| err.to_string(), |_| String::from_utf8_lossy(&said).trim().to_owned())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = put(self.original.as_raw_fd());
    }
}

/// Makes stderr stand for what `number` stands for. Children inherit it.
fn put(number: i32) -> io::Result<()> {
    // SAFETY: replaces only stderr, which stays open throughout.
    Errno::result(unsafe { libc::dup2(number, libc::STDERR_FILENO) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_returned() {
        let (outcome, said) = captured(|| {
            // As C code does, past the test harness.
            // SAFETY: writes bytes that are there.
            unsafe { libc::write(libc::STDERR_FILENO, c"fuse: no\n".as_ptr().cast(), 9) }
        });
        assert_eq!(outcome, 9);
        assert!(said.contains("fuse: no"), "{said:?}");
    }
}
