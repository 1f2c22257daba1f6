//! Mounts a path of an Alluxio 2.9 cluster, or a local directory, as a file system.
//!
//! Calls go down and results come back: `cli -> mount -> session -> vfs -> fs <- cache, backend`. `config`,
//! `metrics`, `threads`, `waiting` and `spans` are leaves that every layer may use. ARCHITECTURE.md has the map; `tests/layers.rs` keeps it so.

pub mod backend;
pub mod cache;
pub mod cli;
pub mod config;
pub mod fs;
pub mod metrics;
pub mod mount;
pub mod session;
pub mod spans;
mod threads;
pub mod vfs;
pub mod waiting;
