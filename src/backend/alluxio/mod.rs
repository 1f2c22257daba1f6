//! The Alluxio backend: an `fs::FileSystem` over the masters and workers of an Alluxio 2.9 cluster.

mod options;
mod proto;

pub use options::*;
