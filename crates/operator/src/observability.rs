//! What the operator shows of itself: metrics and log lines.

pub(crate) mod logs;
pub(crate) mod metrics;
