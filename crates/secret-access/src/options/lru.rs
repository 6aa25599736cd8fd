//! The bounds of what is kept of what was read.

use std::time::Duration;

use super::{InvalidOptions, MIB, MOST_SECRETS, between, check};

/// The bounds of [`Mode::Lru`](crate::Mode::Lru).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LruOptions {
    /// The most entries, remembered absences included. Default: 2000, more Secrets than most operators reference.
    pub max_secrets: usize,
    /// The most memory the entries may take, in bytes by [`SecretSnapshot::cost`](crate::SecretSnapshot::cost) and the
    /// cache's own structures. Default: 64 MiB: 2000 Secrets of 32 kB.
    pub max_bytes: usize,
    /// The oldest content that is served, counted from when the request that brought or last confirmed it was sent. Older
    /// content is revalidated when it is read. Default: 60 s, about what kubelet takes to notice a change of a Secret.
    pub max_age: Duration,
    /// Content that was not read for this long is removed and wiped; at least `max_age`. Default: 5 min. Until then it can
    /// be revalidated for the price of its metadata.
    pub max_idle: Duration,
    /// While the API server cannot be reached, content is served that is older than `max_age` by at most this much, marked
    /// as [`Source::Stale`](crate::Source::Stale). Default: zero, which is never.
    pub stale_if_unavailable: Duration,
    /// How long an absence is remembered, 1 to 5 s and at most `max_age`. Default: 2 s: a Secret created after the object
    /// that refers to it is noticed soon, and a busy loop over a missing one costs a request in two seconds.
    pub negative_age: Duration,
    /// The most absences remembered, which count among `max_secrets` too. Default: 500.
    pub max_absent: usize,
    /// An entry bigger than `max_bytes` divided by this is served but not kept. Default: 4, so that one big Secret cannot
    /// push out everything else.
    pub entry_share: usize,
}

impl Default for LruOptions {
    fn default() -> Self {
        Self {
            max_secrets: 2000,
            max_bytes: 64 * MIB,
            max_age: Duration::from_secs(60),
            max_idle: Duration::from_secs(300),
            stale_if_unavailable: Duration::ZERO,
            negative_age: Duration::from_secs(2),
            max_absent: 500,
            entry_share: 4,
        }
    }
}

impl LruOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            (1..=MOST_SECRETS).contains(&self.max_secrets),
            "lru.max_secrets",
            "must be between 1 and 1000000",
        )?;
        check(self.max_bytes > 0, "lru.max_bytes", "must be greater than 0")?;
        check(
            between(self.max_age, Duration::from_secs(1), Duration::from_secs(24 * 3600)),
            "lru.max_age",
            "must be between 1 s and 24 h",
        )?;
        check(
            between(self.negative_age, Duration::from_secs(1), Duration::from_secs(5)),
            "lru.negative_age",
            "must be between 1 s and 5 s",
        )?;
        check(
            self.negative_age <= self.max_age,
            "lru.negative_age",
            "must be at most lru.max_age",
        )?;
        check(
            between(self.max_idle, self.max_age, Duration::from_secs(7 * 24 * 3600)),
            "lru.max_idle",
            "must be between lru.max_age and 7 days",
        )?;
        check(
            self.stale_if_unavailable <= Duration::from_secs(24 * 3600),
            "lru.stale_if_unavailable",
            "must be at most 24 h",
        )?;
        check(
            (1..=MOST_SECRETS).contains(&self.max_absent),
            "lru.max_absent",
            "must be between 1 and 1000000",
        )?;
        check(
            (1..=1024).contains(&self.entry_share),
            "lru.entry_share",
            "must be between 1 and 1024",
        )
    }

    /// The biggest entry that is kept.
    pub(crate) fn max_entry_bytes(&self) -> usize {
        self.max_bytes / self.entry_share
    }
}
