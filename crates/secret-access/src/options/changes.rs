//! How changes are noticed.

use std::time::Duration;

use super::{InvalidOptions, MOST_SECRETS, between, check};

/// How changes of tracked Secrets are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeOptions {
    /// With the right to `get` alone, how often the metadata of a tracked Secret are asked for, about: each wait is random
    /// between 90 % and 100 % of this. Default: 60 s.
    pub poll_interval: Duration,
    /// ... and of one that is absent, or changed within the last minute. Default: 5 s. It grows back to `poll_interval`,
    /// doubling each time.
    pub fast_poll_interval: Duration,
    /// The most polls a second, over all tracked Secrets. Default: 10. With more Secrets than `poll_interval` times this,
    /// each is polled less often, and changes take that much longer to be noticed.
    pub max_polls_per_second: u32,
    /// The most Secrets tracked at once. Default: 20000. A reference beyond it is counted and not watched over, which
    /// [`Probe::untracked`](crate::Probe::untracked) tells. How many owners refer to one Secret is up to those who track: each
    /// holds a guard of its own.
    pub max_tracked: usize,
    /// The most watches on single Secrets, for identities whose `list` and `watch` rights are limited by `resourceNames`.
    /// Each takes a connection. Default: 0, which is not to try; the others are polled.
    pub named_watches: usize,
}

impl Default for ChangeOptions {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(60),
            fast_poll_interval: Duration::from_secs(5),
            max_polls_per_second: 10,
            max_tracked: 20_000,
            named_watches: 0,
        }
    }
}

impl ChangeOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            between(
                self.poll_interval,
                Duration::from_secs(1),
                Duration::from_secs(24 * 3600),
            ),
            "changes.poll_interval",
            "must be between 1 s and 24 h",
        )?;
        check(
            between(self.fast_poll_interval, Duration::from_secs(1), self.poll_interval),
            "changes.fast_poll_interval",
            "must be between 1 s and changes.poll_interval",
        )?;
        check(
            (1..=1000).contains(&self.max_polls_per_second),
            "changes.max_polls_per_second",
            "must be between 1 and 1000",
        )?;
        check(
            (1..=MOST_SECRETS).contains(&self.max_tracked),
            "changes.max_tracked",
            "must be between 1 and 1000000",
        )?;
        check(
            self.named_watches <= 256,
            "changes.named_watches",
            "must be at most 256: each takes a connection and a share of the API server",
        )
    }
}
