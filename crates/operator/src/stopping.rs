//! How long the parts of the end may take, one after the other.

use std::time::Duration;

/// After so long Kubernetes kills, by default (`terminationGracePeriodSeconds`).
const KILLED: Duration = Duration::from_secs(30);

/// Running passes, watches and Events.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);

/// Giving the Lease back; who waits for it takes it after a while anyway.
pub(crate) const RELEASE: Duration = Duration::from_secs(3);

/// Sending the last spans.
pub(crate) const SPANS: Duration = Duration::from_secs(5);

// What is left over is for the signal to arrive and the process to go.
const _: () = assert!(DRAIN.as_secs() + RELEASE.as_secs() + SPANS.as_secs() + 2 <= KILLED.as_secs());
