//! The modes by name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::secret_ref::excerpt;

/// How Secrets are read. The crate's front page compares the modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Watched where the rights allow it and the cluster is small enough; else cached while the working set is small; else
    /// direct. See [`AutoOptions`](crate::AutoOptions).
    ///
    /// A read is as fresh as the way it takes promises.
    #[default]
    Auto,
    /// One GET a read, and nothing kept.
    ///
    /// Reads are linearizable: each sees every write that was committed before it began. Readers of one Secret that wait for
    /// their turn share one request, but none joins a request that was sent before it came. Memory is what the answers on
    /// their way take. Needs the right to `get`.
    Direct,
    /// Secrets that were read are kept for a while, within hard bounds on entries, bytes and age. See
    /// [`LruOptions`](crate::LruOptions).
    ///
    /// A read is answered from memory if the content was current at some moment within the last
    /// [`max_age`](crate::LruOptions::max_age), and by a request otherwise. An absence is remembered for
    /// [`negative_age`](crate::LruOptions::negative_age). Needs the right to `get`.
    Lru,
    /// A selection of Secrets is kept current by a watch; others are read as in [`Mode::Lru`]. See
    /// [`WatchOptions`](crate::WatchOptions).
    ///
    /// A read is answered with what the watch delivered last. A watch that is silent for
    /// [`heartbeat`](crate::WatchOptions::heartbeat) and 5 s is taken for dead, and reads are requests until it is back. How
    /// far a living API server's watch lags behind its writes (milliseconds, mostly) is not bounded: ask with
    /// [`Freshness::Quorum`](crate::Freshness::Quorum) or [`Freshness::AtMost`](crate::Freshness::AtMost) where that matters.
    /// Needs the rights to `list`, `watch` and `get`.
    Watch,
}

impl Mode {
    /// All modes, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Direct, Self::Lru, Self::Watch];

    /// The mode's name, as it is written in configuration and in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Lru => "lru",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    /// Parses a mode's exact name.
    ///
    /// ```
    /// use kube_secret_access::Mode;
    ///
    /// assert_eq!("direct".parse(), Ok(Mode::Direct));
    /// let error = "Direct".parse::<Mode>().unwrap_err();
    /// assert_eq!(error.to_string(), r#"unknown mode "Direct": valid are auto, direct, lru, watch"#);
    /// ```
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownMode(excerpt(text)))
    }
}

/// A text that names no [`Mode`]. Its message lists the valid ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown mode {0:?}: valid are {list}", list = Mode::ALL.map(Mode::as_str).join(", "))]
pub struct UnknownMode(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_modes_correspond() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in ["", "watches", " lru", "LRU", "simple"] {
            let error = text.parse::<Mode>().expect_err("no mode of that name");
            for mode in Mode::ALL {
                assert!(error.to_string().contains(mode.as_str()), "{error}");
            }
        }
    }
}
