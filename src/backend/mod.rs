//! Backends: what implements `fs::FileSystem`.

pub mod alluxio;
pub mod local;
