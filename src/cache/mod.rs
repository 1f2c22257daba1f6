//! Caches around a backend. They know of it only the traits of `fs`, and nothing of the kernel or of settings.
//!
//! `metadata` is a file system that keeps attributes, names and absent names; `remembered` is what it shares with its listings
//! and writers: the `store`, a bounded memory, and the `loads`, what is being asked for, so that nothing is asked for twice
//! at a time and nothing old is kept after a change.

pub mod data;

mod listing;
mod loads;
mod metadata;
mod remembered;
mod store;
mod writer;

pub use metadata::MetadataCache;
pub use remembered::MetadataOptions;
