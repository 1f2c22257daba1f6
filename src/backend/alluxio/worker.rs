//! One worker, as a value.

use std::path::PathBuf;

use super::options::AlluxioOptions;
use super::options::HostPort;

/// A worker as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    /// The name that it registered with, which is also what other workers and the master call it.
    pub(super) host: String,
    /// Where to reach it.
    pub(super) address: HostPort,
    /// Its domain socket, if it has one.
    pub(super) domain_socket: Option<PathBuf>,
    /// By what Java clients sort workers, in lower case.
    pub(super) order: String,
    /// Whether it is in this client's rack.
    pub(super) same_rack: bool,
    /// Whether it runs on this host, as far as addresses tell. Its block files may be out of sight all the same.
    pub(super) local: bool,
    /// Bytes that it can hold; 0 if not known.
    pub(super) capacity: u64,
    /// Bytes that it holds.
    pub(super) used: u64,
}

impl Worker {
    /// Whether to look for its block files on this host.
    pub(super) fn short_circuit(&self, options: &AlluxioOptions) -> bool {
        options.short_circuit
            && self.local
            && (self.domain_socket.is_none() || options.short_circuit_preferred)
    }

    /// Bytes that it could still take.
    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}
