//! What the program counts, by name and label. A leaf that every layer may use; knows nothing of who reads it.
//!
//! A counter is one atomic number: to add to it takes no lock. The counters are those of the process, which serves
//! one mount.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A number that only grows.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    label: &'static str,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str, label: &'static str) -> Self {
        Self { name, label, value: AtomicU64::new(0) }
    }

    /// One more.
    pub fn count(&self) {
        self.value.fetch_add(1, Ordering::Relaxed);
    }

    /// How many until now.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// The value of one counter at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What is counted.
    pub name: &'static str,
    /// Which of it; empty if it is not told apart.
    pub label: &'static str,
    /// How many.
    pub value: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label {
            "" => write!(out, "{} {}", self.value, self.name),
            label => write!(out, "{} {} ({label})", self.value, self.name),
        }
    }
}

macro_rules! counters {
    ($($name:literal { $($(#[$doc:meta])* $counter:ident: $label:literal,)* })*) => {
        $($(
            $(#[$doc])*
            pub static $counter: Counter = Counter::new($name, $label);
        )*)*

        /// In the order of a snapshot.
        static ALL: &[&Counter] = &[$($(&$counter,)*)*];
    };
}

counters! {
    "reads" {
        /// Reads that the kernel passed on to this process.
        READS: "",
    }
    "opens for reading" {
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
}

/// All counters as of now. Those of one moment need not fit together exactly, as they are read one by one.
pub fn snapshot() -> Vec<Sample> {
    let sample =
        |counter: &&Counter| Sample { name: counter.name, label: counter.label, value: counter.value() };
    ALL.iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_snapshot_has_each_counter_once() {
        let before = OPENS_STACKED.value();
        OPENS_STACKED.count();
        let samples = snapshot();
        let names: HashSet<_> = samples.iter().map(|sample| (sample.name, sample.label)).collect();
        assert_eq!(names.len(), samples.len());
        let stacked = samples.iter().find(|sample| sample.label == "stacked file system").unwrap();
        assert!(stacked.value > before);
        assert_eq!(stacked.to_string(), format!("{} opens for reading (stacked file system)", stacked.value));
        assert!(samples[0].to_string().ends_with(" reads"));
    }
}
