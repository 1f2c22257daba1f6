//! What is counted by name.

use std::fmt;

use super::Counter;
use super::histogram::Timer;

/// The value of one named counter at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The name for Prometheus.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// What is counted, in words.
    pub words: &'static str,
    /// What the label tells apart; empty if there is none.
    pub key: &'static str,
    /// Which of it; empty if it is not told apart.
    pub label: &'static str,
    /// How many.
    pub value: u64,
}

impl fmt::Display for Counted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label {
            "" => write!(out, "{} {}", self.value, self.words),
            label => write!(out, "{} {} ({label})", self.value, self.words),
        }
    }
}

macro_rules! counters {
    ($($words:literal, $name:literal, $key:literal, $help:literal { $($(#[$doc:meta])* $counter:ident: $label:literal,)* })*) => {
        $($(
            $(#[$doc])*
            pub static $counter: Counter = Counter::new();
        )*)*

        /// All of them, as of now.
        pub fn named() -> Vec<Counted> {
            vec![$($(Counted {
                name: $name,
                help: $help,
                words: $words,
                key: $key,
                label: $label,
                value: $counter.value(),
            },)*)*]
        }
    };
}

counters! {
    "reads", "alluxio_fuse_reads_total", "", "Reads that the kernel passed on to this process." {
        /// Reads that the kernel passed on to this process.
        READS: "",
    }
    "bytes written", "alluxio_fuse_written_bytes_total", "", "Bytes that writes of the kernel brought and that were taken." {
        /// Bytes that writes of the kernel brought and that were taken.
        BYTES_WRITTEN: "",
    }
    "panics", "alluxio_fuse_panics_total", "", "Requests that a fault of this program has ended." {
        /// Requests that a fault of this program has ended.
        PANICS: "",
    }
    "opens for reading", "alluxio_fuse_opens_total", "passthrough", "Opens for reading, by whether the kernel reads the file by itself, and if not, why." {
        /// The kernel reads the file by itself.
        OPENS_PASSED: "passed through",
        /// Passthrough is switched off.
        OPENS_SWITCHED_OFF: "switched off",
        /// The kernel has no passthrough.
        OPENS_NOT_OFFERED: "not offered by the kernel",
        /// This process may not do it.
        OPENS_NOT_PERMITTED: "not permitted",
        /// There is nothing to read.
        OPENS_EMPTY: "empty file",
        /// The bytes are in several files.
        OPENS_PIECES: "not one local file",
        /// The bytes are not in a file of this machine.
        OPENS_REMOTE: "not on this machine",
        /// The inode is open otherwise, which excludes it.
        OPENS_BUSY: "inode open in another mode",
        /// Opened with `O_DIRECT`, which the file with the bytes may not know, or not in the same way.
        OPENS_DIRECT: "O_DIRECT",
        /// The kernel runs the file as a program.
        OPENS_EXECUTED: "executed",
        /// As many are passed through as may be.
        OPENS_LIMIT: "too many at a time",
        /// The file with the bytes lies on stacked file systems.
        OPENS_STACKED: "stacked file system",
        /// It was tried in vain.
        OPENS_FAILED: "error",
    }
    "fall-backs", "alluxio_fuse_fallbacks_total", "reason", "Where a slower way was taken as the faster one was not to be had." {
        /// A block of a worker on this machine came over the network, as its file could not be opened or mapped.
        FALLBACK_READ: "no short circuit for reads",
        /// A block went to a worker on this machine over the network, as its file could not be opened.
        FALLBACK_WRITE: "no short circuit for writes",
        /// A worker of the pool shares the device with others, though a clone for each was asked for.
        FALLBACK_CLONE: "no clone of the device",
        /// Requests come by the device, though io_uring was asked for.
        FALLBACK_URING: "no io_uring",
    }
}

/// A counter that Alluxio's clients have.
pub(super) struct Client {
    /// After `Client.`.
    pub(super) name: &'static str,
    pub(super) counter: &'static Counter,
    /// Whether there is a meter of it, too.
    pub(super) throughput: bool,
}

/// Bytes read from block files of workers on this machine, for whatever reason.
pub static BYTES_READ_LOCAL: Counter = Counter::new();

/// Bytes written into block files of workers on this machine.
pub static BYTES_WRITTEN_LOCAL: Counter = Counter::new();

/// Bytes written to the under file system, by way of workers.
pub static BYTES_WRITTEN_UFS: Counter = Counter::new();

/// Times that a file was not to be had because somebody else was using it.
pub static BUSY_EXCEPTIONS: Counter = Counter::new();

/// The wait for each message of a block from a worker, if that is to be measured.
pub static BLOCK_READ_CHUNK_REMOTE: Timer = Timer::new();

/// The completion of files that were written.
pub static CLOSE_ALLUXIO_OUT_STREAM: Timer = Timer::new();

/// The end of streams to the under file system.
pub static CLOSE_UFS_OUT_STREAM: Timer = Timer::new();

/// What Alluxio's clients count of data. These, and no others, are what the master adds up over all clients.
pub(super) fn client() -> [Client; 4] {
    [
        Client { name: "BusyExceptionCount", counter: &BUSY_EXCEPTIONS, throughput: false },
        Client { name: "BytesReadLocal", counter: &BYTES_READ_LOCAL, throughput: true },
        Client { name: "BytesWrittenLocal", counter: &BYTES_WRITTEN_LOCAL, throughput: true },
        Client { name: "BytesWrittenUfs", counter: &BYTES_WRITTEN_UFS, throughput: false },
    ]
}

/// What the master adds up over all its clients: name and value of each.
pub fn reported() -> [(&'static str, u64); 4] {
    client().map(|client| (client.name, client.counter.value()))
}

pub(super) fn client_timers() -> [(&'static str, &'static Timer); 3] {
    [
        ("BlockReadChunkRemote", &BLOCK_READ_CHUNK_REMOTE),
        ("CloseAlluxioOutStreamLatency", &CLOSE_ALLUXIO_OUT_STREAM),
        ("CloseUFSOutStreamLatency", &CLOSE_UFS_OUT_STREAM),
    ]
}
