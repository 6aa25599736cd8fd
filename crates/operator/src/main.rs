//! leanserve.
fn main() {}
