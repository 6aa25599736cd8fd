//! What the operator shows of itself: metrics and log lines.

pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod spans;
#[cfg(feature = "otlp")]
pub(crate) mod traces;
