//! Benchmarks.

pub mod cache_policy;
pub mod memory;
pub mod secrets;
