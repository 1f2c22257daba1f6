//! Caches around a backend. They know of it only the traits of `fs`, and nothing of the kernel or of settings.

pub mod data;
