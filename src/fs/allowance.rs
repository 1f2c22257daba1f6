//! Memory for data that a backend limits, for a layer above it that holds data, too.

/// A limit of memory that several share.
pub trait Allowance: Send + Sync {
    /// `bytes`, until what is returned is dropped; nothing if there is less left. Does not wait.
    fn take(&self, bytes: u64) -> Option<Box<dyn Send>>;
}
