//! A logical clock: which of two events in this process came first.
//!
//! Freshness in seconds is measured with [`tokio::time::Instant`]. The question "was this request sent after that answer
//! was handed out?" needs an order without ties, and two instants can be equal (always so under tokio's paused time).

use std::sync::atomic::{AtomicU64, Ordering};

/// A point in the order of events. Later calls of [`Moment::next`] yield greater values, across all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Before anything happened.
    pub(crate) const START: Self = Self(0);

    /// A new moment, after every one handed out so far.
    pub(crate) fn next() -> Self {
        // One counter for the process: 64 bits last for centuries at a thousand million events a second. `SeqCst`
        // because moments taken on different threads are compared with each other.
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::SeqCst) + 1)
    }
}
