//! What the concurrent parts of this crate are made of, in one place, so that `tests/model.rs` can run the same sources on
//! a scheduler that tries many interleavings.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use tokio::spawn;
pub(crate) use tokio::time::sleep;
