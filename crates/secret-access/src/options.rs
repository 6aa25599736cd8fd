//! Options of each mode, with the reason for each default.
//!
//! All structs here may gain fields: start from `Default` and set what differs.

mod auto;
mod changes;
mod fetch;
mod lru;
mod watch;

use std::time::Duration;

use thiserror::Error;

pub use self::auto::{AutoOptions, ClusterCountOptions};
pub use self::changes::ChangeOptions;
pub use self::fetch::{FetchOptions, RetryOptions};
pub use self::lru::LruOptions;
pub use self::watch::{TypeSelector, WatchOptions};
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
    /// The mode [`Mode::Lru`], and what [`Mode::Auto`] does while it caches.
    pub lru: LruOptions,
    /// The mode [`Mode::Watch`], and what [`Mode::Auto`] begins with where the rights allow it.
    pub watch: WatchOptions,
    /// The mode [`Mode::Auto`].
    pub auto: AutoOptions,
    /// How changes of tracked Secrets are noticed, in every mode.
    pub changes: ChangeOptions,
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
        self.lru.max_idle = self.lru.max_idle.max(max_age);
        self.watch.max_secrets = max_secrets;
        self.watch.max_bytes = max_bytes;
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
        self.watch.validate()?;
        self.auto.validate()?;
        self.changes.validate()?;
        check(
            self.auto.window >= self.lru.max_age,
            "auto.window",
            "must be at least lru.max_age: what is cached must be counted",
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
