//! Benchmarks.

pub mod cache_policy;
pub mod memory;
pub mod scale;
pub mod secrets;
