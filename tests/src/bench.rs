//! Benchmarks.

pub mod memory;
