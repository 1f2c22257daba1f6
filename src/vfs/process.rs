//! The process that a calling thread belongs to. A descriptor is closed by each process that inherited it, and
//! only its opener's close ends the file.

use std::fs;
use std::path::Path;

/// A process by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The process of thread `tid`. None if that cannot be told, as for a caller in another pid namespace, whose
    /// number is 0 here.
    pub(super) fn of_thread(tid: u32) -> Option<Self> {
        if tid == 0 {
            return None;
        }
        let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let number = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        number.trim().parse().ok().map(Self)
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(self) -> bool {
        Path::new(&format!("/proc/{}", self.0)).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = Process(std::process::id());
        let tid = std::thread::spawn(|| nix::unistd::gettid().as_raw().cast_unsigned()).join();
        assert_eq!(Process::of_thread(std::process::id()), Some(own));
        let of_thread =
            std::thread::spawn(|| Process::of_thread(nix::unistd::gettid().as_raw().cast_unsigned()));
        assert_eq!(of_thread.join().unwrap(), Some(own));
        assert!(own.is_alive());
        // The thread has ended, and a caller of another namespace has no number.
        assert_eq!(Process::of_thread(tid.unwrap()), None);
        assert_eq!(Process::of_thread(0), None);
        assert!(!Process(u32::MAX).is_alive());
    }
}
