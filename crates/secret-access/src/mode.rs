//! The modes by name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::secret_ref::excerpt;

/// How Secrets are read. The crate's front page compares the modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Cached while the working set is small, direct while it is not. See [`Auto`](crate::Auto).
    #[default]
    Auto,
    /// One request a read. See [`Direct`](crate::Direct).
    Direct,
    /// Cached within bytes, entries and age. See [`Lru`](crate::Lru).
    Lru,
}

impl Mode {
    /// All modes, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Direct, Self::Lru];

    /// The mode's name, as it is written in configuration and in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Lru => "lru",
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
    /// assert_eq!(error.to_string(), r#"unknown mode "Direct": valid are auto, direct, lru"#);
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
        for text in ["", "watch", " lru", "LRU", "simple"] {
            let error = text.parse::<Mode>().expect_err("no mode of that name");
            for mode in Mode::ALL {
                assert!(error.to_string().contains(mode.as_str()), "{error}");
            }
        }
    }
}
