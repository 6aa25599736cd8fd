//! Pure: whether a read is served from memory or requested, and when `auto` caches at all.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{Answer, Asked, Recency, Served};
use crate::options::{AutoOptions, LruOptions};
use crate::snapshot::Source;
use crate::want::Freshness;

/// What `auto` does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Reads go through the cache.
    Cached,
    /// Every read is a request.
    Direct {
        /// Since when all sizes have been low enough to return, if they are.
        low_since: Option<Instant>,
    },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    /// Distinct Secrets read within the window.
    pub(crate) secrets: usize,
    /// Bytes of those.
    pub(crate) bytes: usize,
    /// Secrets in the cluster, where that is counted and known.
    pub(crate) cluster: Option<u64>,
}

/// Why Secrets are read in another way within [`Mode::Auto`](crate::Mode::Auto) or [`Mode::Watch`](crate::Mode::Watch).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// This many distinct Secrets were read within the window: more than [`AutoOptions::max_secrets`].
    TooManySecrets {
        /// The number, at least. Counting stops one above the threshold.
        secrets: usize,
        /// The threshold.
        max: usize,
    },
    /// The Secrets read within the window take this many bytes: more than [`AutoOptions::max_bytes`].
    TooManyBytes {
        /// The bytes, at least.
        bytes: usize,
        /// The threshold.
        max: usize,
    },
    /// The cluster has this many Secrets: more than
    /// [`ClusterCountOptions::max_secrets`](crate::ClusterCountOptions::max_secrets).
    TooManyInCluster {
        /// The number.
        secrets: u64,
        /// The threshold.
        max: u64,
    },
    /// The watch's selection has this many Secrets: more than [`WatchOptions::max_secrets`](crate::WatchOptions::max_secrets),
    /// or, where there were too many before, than the part of it that it must not exceed to begin again.
    WatchedTooManySecrets {
        /// The number, at least. Counting stops one above the threshold.
        secrets: usize,
        /// The threshold.
        max: usize,
    },
    /// The watch's selection takes this many bytes: more than [`WatchOptions::max_bytes`](crate::WatchOptions::max_bytes),
    /// or, where it took too many before, than the part of it that it must not exceed to begin again.
    WatchedTooManyBytes {
        /// The bytes, at least.
        bytes: usize,
        /// The threshold.
        max: usize,
    },
    /// The identity has no right to list or watch.
    WatchDenied,
    /// The watch's selection is held (again).
    Watched {
        /// How many Secrets.
        secrets: usize,
        /// Bytes of those.
        bytes: usize,
    },
    /// All sizes have been below [`AutoOptions::return_below_percent`] of their thresholds for
    /// [`AutoOptions::return_after`].
    Quiet {
        /// Distinct Secrets read within the window.
        secrets: usize,
        /// Bytes of those.
        bytes: usize,
    },
}

impl Reason {
    /// What [`Reason::as_str`] may say, in order.
    pub const NAMES: [&'static str; 8] = [
        "quiet",
        "too_many_bytes",
        "too_many_in_cluster",
        "too_many_secrets",
        "watch_denied",
        "watched",
        "watched_too_many_bytes",
        "watched_too_many_secrets",
    ];

    /// The threshold's name in `snake_case`, for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManySecrets { .. } => "too_many_secrets",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::TooManyInCluster { .. } => "too_many_in_cluster",
            Self::WatchedTooManySecrets { .. } => "watched_too_many_secrets",
            Self::WatchedTooManyBytes { .. } => "watched_too_many_bytes",
            Self::WatchDenied => "watch_denied",
            Self::Watched { .. } => "watched",
            Self::Quiet { .. } => "quiet",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManySecrets { secrets, max } => {
                write!(f, "at least {secrets} distinct Secrets read, threshold {max}")
            }
            Self::TooManyBytes { bytes, max } => {
                write!(f, "at least {bytes} bytes of Secrets read, threshold {max}")
            }
            Self::TooManyInCluster { secrets, max } => {
                write!(f, "{secrets} Secrets in the cluster, threshold {max}")
            }
            Self::WatchedTooManySecrets { secrets, max } => {
                write!(f, "at least {secrets} Secrets to watch, threshold {max}")
            }
            Self::WatchedTooManyBytes { bytes, max } => {
                write!(f, "at least {bytes} bytes of Secrets to watch, threshold {max}")
            }
            Self::WatchDenied => f.write_str("no right to list or watch Secrets"),
            Self::Watched { secrets, bytes } => write!(f, "{secrets} Secrets of {bytes} bytes are watched"),
            Self::Quiet { secrets, bytes } => {
                write!(f, "all sizes low again: {secrets} Secrets of {bytes} bytes read")
            }
        }
    }
}

/// What to do next, and why if that is something else than before.
pub(crate) fn next(route: Route, sizes: Sizes, options: &AutoOptions, now: Instant) -> (Route, Option<Reason>) {
    match (route, crossed(sizes, options)) {
        (Route::Cached, None) => (Route::Cached, None),
        (Route::Cached, Some(reason)) => (Route::Direct { low_since: None }, Some(reason)),
        (Route::Direct { .. }, _) if !low(sizes, options) => (Route::Direct { low_since: None }, None),
        (Route::Direct { low_since }, _) => {
            let since = low_since.unwrap_or(now);
            if now.saturating_duration_since(since) < options.return_after.max(Duration::from_nanos(1)) {
                return (Route::Direct { low_since: Some(since) }, None);
            }
            let reason = Reason::Quiet {
                secrets: sizes.secrets,
                bytes: sizes.bytes,
            };
            (Route::Cached, Some(reason))
        }
    }
}

fn crossed(sizes: Sizes, options: &AutoOptions) -> Option<Reason> {
    let Sizes { secrets, bytes, .. } = sizes;
    if secrets > options.max_secrets {
        let max = options.max_secrets;
        return Some(Reason::TooManySecrets { secrets, max });
    }
    if bytes > options.max_bytes {
        let max = options.max_bytes;
        return Some(Reason::TooManyBytes { bytes, max });
    }
    match (sizes.cluster, &options.cluster) {
        (Some(secrets), Some(limit)) if secrets > limit.max_secrets => Some(Reason::TooManyInCluster {
            secrets,
            max: limit.max_secrets,
        }),
        _ => None,
    }
}

/// Whether every size is low enough to cache again.
fn low(sizes: Sizes, options: &AutoOptions) -> bool {
    let below =
        |size: u64, max: u64| u128::from(size) * 100 < u128::from(max) * u128::from(options.return_below_percent);
    let cluster = match (sizes.cluster, &options.cluster) {
        (Some(secrets), Some(limit)) => below(secrets, limit.max_secrets),
        _ => true,
    };
    below(sizes.secrets as u64, options.max_secrets as u64)
        && below(sizes.bytes as u64, options.max_bytes as u64)
        && cluster
}

/// What a cache does about a read.
#[derive(Debug)]
pub(crate) enum LookUp {
    /// What is held will do.
    Serve(Served),
    /// A request this recent will do. What is held may save fetching the content.
    Request { recency: Recency, held: Option<Answer> },
    /// No request is wanted, and nothing is held.
    Refuse,
}

/// What to do about a read, given what is held.
pub(crate) fn look_up(held: Option<Answer>, asked: Asked<'_>, options: &LruOptions) -> LookUp {
    let freshness = asked.want.freshness();
    let complete = held.as_ref().is_some_and(|held| match &held.found {
        Some(found) => found.fields().covers(asked.want.fields()),
        None => true,
    });
    let recent = |held: &Answer| {
        let age = asked.began.saturating_duration_since(held.sent.at);
        match (freshness, &held.found) {
            (Freshness::Cached, _) => true,
            (Freshness::AtMost(max_age), _) => age <= max_age,
            (Freshness::Mode, Some(_)) => age <= options.max_age,
            (Freshness::Mode, None) => age <= options.negative_age,
            (Freshness::AtLeast(version), Some(found)) => found.resource_version() >= version,
            // An absence has no version to compare, and nothing held is a quorum's.
            (Freshness::AtLeast(_), None) | (Freshness::Quorum, _) => false,
        }
    };
    let served = !asked.anew && complete && held.as_ref().is_some_and(recent);
    let held = match held {
        Some(answer) if served => {
            let source = Source::Cache;
            return LookUp::Serve(Served { answer, source });
        }
        held => held,
    };
    let since = |max_age| Recency::Since {
        since: asked.began,
        max_age,
    };
    let recency = match freshness {
        Freshness::Cached => return LookUp::Refuse,
        _ if asked.anew => Recency::New,
        Freshness::Quorum => Recency::New,
        Freshness::Mode => since(options.max_age),
        Freshness::AtMost(max_age) => since(max_age),
        Freshness::AtLeast(version) => Recency::Version(version),
    };
    LookUp::Request { recency, held }
}

/// What is held, if it is not older than what may be served while the API server cannot be reached.
pub(crate) fn stale(held: &Answer, asked: Asked<'_>, options: &LruOptions) -> Option<Served> {
    let found = held.found.as_ref()?;
    let age = asked.began.saturating_duration_since(held.sent.at);
    let served = !options.stale_if_unavailable.is_zero()
        && age <= options.max_age + options.stale_if_unavailable
        && found.fields().covers(asked.want.fields());
    served.then(|| Served {
        answer: Answer {
            found: Some(found.with_source(Source::Stale).into()),
            sent: held.sent,
        },
        source: Source::Stale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ClusterCountOptions;

    fn options() -> AutoOptions {
        AutoOptions {
            max_secrets: 100,
            max_bytes: 1000,
            return_after: Duration::from_secs(60),
            cluster: Some(ClusterCountOptions {
                max_secrets: 10,
                ..ClusterCountOptions::default()
            }),
            ..AutoOptions::default()
        }
    }

    fn sizes(secrets: usize, bytes: usize, cluster: Option<u64>) -> Sizes {
        Sizes {
            secrets,
            bytes,
            cluster,
        }
    }

    /// Seconds since an arbitrary start.
    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn leaves_the_cache_above_a_threshold_and_names_it() {
        let start = Instant::now();
        let cases = [
            (sizes(0, 0, None), None),
            (sizes(100, 1000, Some(10)), None),
            (
                sizes(101, 0, None),
                Some(Reason::TooManySecrets { secrets: 101, max: 100 }),
            ),
            (
                sizes(1, 1001, None),
                Some(Reason::TooManyBytes { bytes: 1001, max: 1000 }),
            ),
            (
                sizes(1, 1, Some(11)),
                Some(Reason::TooManyInCluster { secrets: 11, max: 10 }),
            ),
            (
                sizes(101, 1001, Some(11)),
                Some(Reason::TooManySecrets { secrets: 101, max: 100 }),
            ),
        ];
        for (sizes, reason) in cases {
            let expected = if reason.is_some() {
                Route::Direct { low_since: None }
            } else {
                Route::Cached
            };
            assert_eq!(
                next(Route::Cached, sizes, &options(), start),
                (expected, reason),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let reasons = [
            Reason::TooManySecrets { secrets: 2, max: 1 },
            Reason::TooManyBytes { bytes: 2, max: 1 },
            Reason::TooManyInCluster { secrets: 2, max: 1 },
            Reason::WatchedTooManySecrets { secrets: 2, max: 1 },
            Reason::WatchedTooManyBytes { bytes: 2, max: 1 },
            Reason::WatchDenied,
            Reason::Watched { secrets: 2, bytes: 1 },
            Reason::Quiet { secrets: 2, bytes: 1 },
        ];
        let names: std::collections::BTreeSet<_> = reasons.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), reasons.len());
        assert!(names.contains("watched_too_many_bytes") && !names.contains(""));
    }

    #[test]
    fn a_cluster_count_without_a_threshold_changes_nothing() {
        let options = AutoOptions {
            cluster: None,
            ..options()
        };
        let counted = sizes(1, 1, Some(u64::MAX));
        assert_eq!(
            next(Route::Cached, counted, &options, Instant::now()),
            (Route::Cached, None)
        );
    }

    #[test]
    fn returns_only_after_all_sizes_stayed_low() {
        let start = Instant::now();
        let mut route = Route::Direct { low_since: None };
        let low = sizes(69, 699, Some(6));
        // (seconds, sizes, low since, returned)
        let steps = [
            (0, sizes(70, 0, None), None, false),
            (1, sizes(0, 700, None), None, false),
            (2, sizes(0, 0, Some(7)), None, false),
            (3, low, Some(3), false),
            (62, low, Some(3), false),
            // One high moment starts the wait anew, even though no threshold is crossed.
            (63, sizes(80, 0, None), None, false),
            (64, low, Some(64), false),
            (123, low, Some(64), false),
            (124, low, None, true),
        ];
        for (seconds, sizes, low_since, returned) in steps {
            let (next_route, reason) = next(route, sizes, &options(), at(start, seconds));
            route = next_route;
            if returned {
                assert_eq!(route, Route::Cached, "at {seconds}");
                assert_eq!(
                    reason,
                    Some(Reason::Quiet {
                        secrets: 69,
                        bytes: 699
                    })
                );
            } else {
                let low_since = low_since.map(|seconds| at(start, seconds));
                assert_eq!((route, reason), (Route::Direct { low_since }, None), "at {seconds}");
            }
        }
    }

    #[test]
    fn never_flips_back_at_once() {
        let start = Instant::now();
        let options = AutoOptions {
            return_after: Duration::ZERO,
            ..options()
        };
        let (route, _) = next(Route::Direct { low_since: None }, Sizes::default(), &options, start);
        assert_eq!(route, Route::Direct { low_since: Some(start) });
        let (route, _) = next(route, Sizes::default(), &options, at(start, 1));
        assert_eq!(route, Route::Cached);
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        let options = AutoOptions {
            max_bytes: usize::MAX,
            ..options()
        };
        let (route, _) = next(
            Route::Direct { low_since: None },
            sizes(0, usize::MAX, None),
            &options,
            Instant::now(),
        );
        assert_eq!(route, Route::Direct { low_since: None });
    }
}
