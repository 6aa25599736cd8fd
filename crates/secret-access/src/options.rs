//! Options of each mode, with the reason for each default.
//!
//! All structs here may gain fields: start from `Default` and set what differs.

use std::time::Duration;

use thiserror::Error;

use crate::mode::Mode;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The most a bound on a number of Secrets may be set to: beyond it, the bookkeeping alone takes hundreds of megabytes.
const MOST_SECRETS: usize = 1_000_000;

/// Everything a [`Switch`](crate::Switch) needs to know: the mode in force and the options of all modes, so that switching
/// back and forth loses none.
///
/// ```
/// use std::time::Duration;
/// use kube_secret_access::{AccessOptions, Mode};
///
/// let mut options = AccessOptions::default();
/// options.mode = Mode::Lru;
/// options.lru.max_age = Duration::from_secs(20);
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AccessOptions {
    /// The mode in force. Default: [`Mode::Auto`], which is right without knowing the cluster.
    pub mode: Mode,
    /// How requests are made, in every mode.
    pub fetch: FetchOptions,
    /// The mode [`Lru`](crate::Lru), and what [`Auto`](crate::Auto) does while it caches.
    pub lru: LruOptions,
    /// The mode [`Auto`](crate::Auto).
    pub auto: AutoOptions,
}

impl AccessOptions {
    /// The defaults with another mode.
    #[must_use]
    pub fn for_mode(mode: Mode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Sets the bounds that most users have one opinion about: the cache's, and the size at which `auto` gives up caching.
    ///
    /// [`LruOptions::negative_age`] is lowered to `max_age` where it would exceed it, and [`AutoOptions::window`] raised.
    #[must_use]
    pub fn with_bounds(mut self, max_secrets: usize, max_bytes: usize, max_age: Duration) -> Self {
        self.lru.max_secrets = max_secrets;
        self.lru.max_bytes = max_bytes;
        self.lru.max_age = max_age;
        self.lru.negative_age = self.lru.negative_age.min(max_age);
        self.auto.max_secrets = max_secrets;
        self.auto.max_bytes = max_bytes;
        self.auto.window = self.auto.window.max(max_age);
        self
    }

    /// Checks all options, those of modes not in force too.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, by its path such as `lru.max_age`.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        self.fetch.validate()?;
        self.lru.validate()?;
        self.auto.validate()?;
        check(
            self.auto.window >= self.lru.max_age,
            "auto.window",
            "must be at least lru.max_age: what is cached must be counted",
        )
    }
}

/// How the API server is asked, in every mode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchOptions {
    /// The most time a read takes, and the most time one request takes. Default: 10 s. A healthy API server answers in
    /// milliseconds and gives up on etcd after some seconds; kube's clients have no deadline of their own.
    pub deadline: Duration,
    /// The biggest body accepted, in bytes after decompression. Default: 4 MiB. The API server stores at most 1 MiB of
    /// `data`; base64 makes 1.4 MiB of it, and annotations, labels and managed fields come on top.
    pub max_body_bytes: usize,
    /// The most requests in flight at once, over all Secrets. Default: 16, which a single API server answers at some
    /// thousands a second; with `max_body_bytes` it bounds the memory that answers take while they arrive. A live change
    /// lets requests already sent finish beside the new bound.
    pub max_in_flight: usize,
    /// The longest `Retry-After` passed on to the caller; longer ones are cut to it. Default: 60 s, so that one odd header
    /// cannot silence a reader for hours.
    pub max_retry_after: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            max_body_bytes: 4 * MIB,
            max_in_flight: 16,
            max_retry_after: Duration::from_secs(60),
        }
    }
}

impl FetchOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            between(self.deadline, Duration::from_millis(1), Duration::from_secs(300)),
            "fetch.deadline",
            "must be between 1 ms and 5 min",
        )?;
        check(
            (KIB..=64 * MIB).contains(&self.max_body_bytes),
            "fetch.max_body_bytes",
            "must be between 1 KiB and 64 MiB",
        )?;
        check(
            (1..=1024).contains(&self.max_in_flight),
            "fetch.max_in_flight",
            "must be between 1 and 1024",
        )?;
        check(
            self.max_retry_after <= Duration::from_secs(3600),
            "fetch.max_retry_after",
            "must be at most 1 h",
        )
    }
}

/// The bounds of [`Lru`](crate::Lru).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LruOptions {
    /// The most entries, remembered absences included. Default: 2000, more Secrets than most operators reference.
    pub max_secrets: usize,
    /// The most memory the entries may take, in bytes by [`SecretSnapshot::cost`](crate::SecretSnapshot::cost) and the
    /// cache's own structures. Default: 64 MiB: 2000 Secrets of 32 kB.
    pub max_bytes: usize,
    /// The oldest content that is served, counted from when the request that brought it was sent. Older entries are
    /// removed, whether or not they are read. Default: 60 s, about what kubelet takes to notice a change of a Secret.
    pub max_age: Duration,
    /// How long an absence is remembered, 1 to 5 s and at most `max_age`. Default: 2 s: a Secret created after the object
    /// that refers to it is noticed soon, and a busy loop over a missing one costs a request in two seconds.
    pub negative_age: Duration,
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
            negative_age: Duration::from_secs(2),
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

/// When [`Auto`](crate::Auto) stops caching, and when it begins again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoOptions {
    /// The most distinct Secrets read within `window` before reads become direct. Default: 2000, as
    /// [`LruOptions::max_secrets`]: a cache smaller than what is read in a loop hits next to nothing.
    pub max_secrets: usize,
    /// The most bytes those Secrets may take together. Default: 64 MiB, as [`LruOptions::max_bytes`].
    pub max_bytes: usize,
    /// How far back a read counts towards the working set; at least [`LruOptions::max_age`]. Default: 2 min, twice that
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

/// How [`Auto`](crate::Auto) counts the Secrets of the whole cluster.
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
    fn validate(&self) -> Result<(), InvalidOptions> {
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

/// An option that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct InvalidOptions {
    field: &'static str,
    problem: &'static str,
}

impl InvalidOptions {
    /// The path of the field, such as `lru.max_age`.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }
}

fn check(holds: bool, field: &'static str, problem: &'static str) -> Result<(), InvalidOptions> {
    if holds {
        Ok(())
    } else {
        Err(InvalidOptions { field, problem })
    }
}

fn between(value: Duration, least: Duration, most: Duration) -> bool {
    (least..=most).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(AccessOptions::default().validate(), Ok(()));
        let mut counting = AccessOptions::default();
        counting.auto.cluster = Some(ClusterCountOptions::default());
        assert_eq!(counting.validate(), Ok(()));
    }

    #[test]
    fn an_error_names_the_field() {
        type Spoil = fn(&mut AccessOptions);
        let cases: [(&str, Spoil); 14] = [
            ("fetch.deadline", |o| o.fetch.deadline = Duration::ZERO),
            ("fetch.max_body_bytes", |o| o.fetch.max_body_bytes = 0),
            ("fetch.max_in_flight", |o| o.fetch.max_in_flight = 0),
            ("fetch.max_retry_after", |o| o.fetch.max_retry_after = Duration::MAX),
            ("lru.max_secrets", |o| o.lru.max_secrets = 0),
            ("lru.max_bytes", |o| o.lru.max_bytes = 0),
            ("lru.max_age", |o| o.lru.max_age = Duration::ZERO),
            ("lru.negative_age", |o| o.lru.negative_age = Duration::from_secs(6)),
            ("lru.negative_age", |o| o.lru.max_age = Duration::from_secs(1)),
            ("lru.entry_share", |o| o.lru.entry_share = 0),
            ("auto.max_secrets", |o| o.auto.max_secrets = MOST_SECRETS + 1),
            ("auto.max_bytes", |o| o.auto.max_bytes = 0),
            ("auto.return_below_percent", |o| o.auto.return_below_percent = 100),
            ("auto.window", |o| o.auto.window = Duration::from_secs(59)),
        ];
        for (field, spoil) in cases {
            let mut options = AccessOptions::default();
            spoil(&mut options);
            let error = options.validate().expect_err(field);
            assert_eq!(error.field(), field);
            assert!(error.to_string().starts_with(field), "{error}");
        }
        let mut options = AccessOptions::default();
        options.auto.cluster = Some(ClusterCountOptions {
            retry_denied_after: Duration::from_secs(1),
            ..ClusterCountOptions::default()
        });
        assert_eq!(
            options.validate().expect_err("shorter than the interval").field(),
            "auto.cluster.retry_denied_after"
        );
    }

    #[test]
    fn bounds_reach_cache_and_threshold_alike() {
        let second = Duration::from_secs(1);
        let options = AccessOptions::default().with_bounds(10, 1000, second);
        assert_eq!((options.lru.max_secrets, options.auto.max_secrets), (10, 10));
        assert_eq!((options.lru.max_bytes, options.auto.max_bytes), (1000, 1000));
        assert_eq!((options.lru.max_age, options.lru.negative_age), (second, second));
        assert_eq!(options.validate(), Ok(()));
        let hour = Duration::from_secs(3600);
        assert_eq!(AccessOptions::default().with_bounds(10, 1000, hour).validate(), Ok(()));
    }
}
