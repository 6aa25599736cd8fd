//! When `auto` caches.

use std::time::Duration;

use super::{InvalidOptions, MIB, MOST_SECRETS, between, check};

/// When [`Mode::Auto`](crate::Mode::Auto) stops caching, and when it begins again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoOptions {
    /// Begin as [`Mode::Watch`](crate::Mode::Watch) where the rights allow it, within [`AccessOptions::watch`](crate::AccessOptions::watch). Default: true. Where they do not,
    /// that costs one denied request per [`WatchOptions::retry_denied_after`](crate::WatchOptions::retry_denied_after).
    pub watch: bool,
    /// The most distinct Secrets read within `window` before reads become direct. Default: 2000, as
    /// [`LruOptions::max_secrets`](crate::LruOptions::max_secrets): a cache smaller than what is read in a loop hits next to nothing.
    pub max_secrets: usize,
    /// The most bytes those Secrets may take together. Default: 64 MiB, as [`LruOptions::max_bytes`](crate::LruOptions::max_bytes).
    pub max_bytes: usize,
    /// How far back a read counts towards the working set; at least [`LruOptions::max_age`](crate::LruOptions::max_age). Default: 2 min, twice that
    /// age, so that a Secret read once per age is counted all the time.
    pub window: Duration,
    /// Caching begins again when every size is below this many percent of its threshold. Default: 70, so that a size that
    /// hovers at the threshold does not flip the mode.
    pub return_below_percent: u8,
    /// ... and has stayed there for this long. Default: 1 min.
    pub return_after: Duration,
    /// Also count the Secrets of the whole cluster, which needs the right to `list` Secrets. Default: off, because `get` is
    /// all that the rest needs.
    pub cluster: Option<ClusterCountOptions>,
}

impl Default for AutoOptions {
    fn default() -> Self {
        Self {
            watch: true,
            max_secrets: 2000,
            max_bytes: 64 * MIB,
            window: Duration::from_secs(120),
            return_below_percent: 70,
            return_after: Duration::from_secs(60),
            cluster: None,
        }
    }
}

impl AutoOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            (1..=MOST_SECRETS).contains(&self.max_secrets),
            "auto.max_secrets",
            "must be between 1 and 1000000",
        )?;
        check(self.max_bytes > 0, "auto.max_bytes", "must be greater than 0")?;
        check(
            between(self.window, Duration::from_secs(1), Duration::from_secs(24 * 3600)),
            "auto.window",
            "must be between 1 s and 24 h",
        )?;
        check(
            (1..=99).contains(&self.return_below_percent),
            "auto.return_below_percent",
            "must be between 1 and 99",
        )?;
        check(
            self.return_after <= Duration::from_secs(24 * 3600),
            "auto.return_after",
            "must be at most 24 h",
        )?;
        match &self.cluster {
            Some(cluster) => cluster.validate(),
            None => Ok(()),
        }
    }
}

/// How [`Mode::Auto`](crate::Mode::Auto) counts the Secrets of the whole cluster.
///
/// One request with `limit=1` for metadata only, whose answer says how many more there are. It is made at most once per
/// `interval`, when a read comes by, and never delays that read. A 403 turns counting off until `retry_denied_after` has
/// passed and is reported through [`Probe::cluster_count`](crate::Probe::cluster_count).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterCountOptions {
    /// The most Secrets in the cluster before reads become direct. Default: 20000.
    pub max_secrets: u64,
    /// The least time between two counts. Default: 5 min; a count takes the API server some milliseconds.
    pub interval: Duration,
    /// How long a denial is believed. Default: 1 h: rights change rarely, and each denied request is a line in the audit log.
    pub retry_denied_after: Duration,
}

impl Default for ClusterCountOptions {
    fn default() -> Self {
        Self {
            max_secrets: 20_000,
            interval: Duration::from_secs(300),
            retry_denied_after: Duration::from_secs(3600),
        }
    }
}

impl ClusterCountOptions {
    pub(super) fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            self.max_secrets > 0,
            "auto.cluster.max_secrets",
            "must be greater than 0",
        )?;
        check(
            between(self.interval, Duration::from_secs(1), Duration::from_secs(24 * 3600)),
            "auto.cluster.interval",
            "must be between 1 s and 24 h",
        )?;
        check(
            between(
                self.retry_denied_after,
                self.interval,
                Duration::from_secs(7 * 24 * 3600),
            ),
            "auto.cluster.retry_denied_after",
            "must be between auto.cluster.interval and 7 days",
        )
    }
}
