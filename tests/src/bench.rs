//! Benchmarks.

pub mod cache_policy;
pub mod memory;
pub mod policy;
pub mod scale;
pub mod secrets;
