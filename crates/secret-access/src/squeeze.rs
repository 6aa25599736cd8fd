//! Making do with less for a time.

/// How much of its memory an access may use for the time being: see [`Switch::squeeze`](crate::Switch::squeeze).
///
/// ```
/// use kube_secret_access::{Bodies, Squeeze};
///
/// let half = Squeeze::new(50, Bodies::All);
/// assert_eq!(Squeeze::NONE, Squeeze::new(100, Bodies::All));
/// assert!(half.cache_percent() < Squeeze::NONE.cache_percent());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Squeeze {
    cache_percent: u8,
    bodies: Bodies,
}

/// Which big answers are taken. Up to 64 KiB an answer is never big.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Bodies {
    /// As many at a time as [`FetchOptions::max_bytes_in_flight`](crate::FetchOptions::max_bytes_in_flight) allows.
    #[default]
    All,
    /// One at a time; others wait for it, within their deadlines.
    OneBig,
    /// None: a read that would need one fails with [`ReadError::Unavailable`](crate::ReadError::Unavailable) and
    /// [`UnavailableCause::MemoryShort`](crate::UnavailableCause::MemoryShort). One that has begun to arrive and waits for
    /// nothing more is taken.
    NoneBig,
}

impl Squeeze {
    /// As configured.
    pub const NONE: Self = Self {
        cache_percent: 100,
        bodies: Bodies::All,
    };

    /// Caches hold at most `cache_percent` of the bytes configured; more than 100 counts as 100.
    #[must_use]
    pub const fn new(cache_percent: u8, bodies: Bodies) -> Self {
        Self {
            cache_percent: if cache_percent > 100 { 100 } else { cache_percent },
            bodies,
        }
    }

    /// How much of the configured bytes caches may hold.
    #[must_use]
    pub const fn cache_percent(self) -> u8 {
        self.cache_percent
    }

    /// Which big answers are taken.
    #[must_use]
    pub const fn bodies(self) -> Bodies {
        self.bodies
    }
}

impl Default for Squeeze {
    fn default() -> Self {
        Self::NONE
    }
}

/// So many percent of a bound.
pub(crate) fn part(bound: usize, percent: u8) -> usize {
    let percent = usize::from(percent);
    // In parts, because the product may not fit.
    bound / 100 * percent + bound % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_bound() {
        for (bound, percent, expected) in [(1000, 50, 500), (7, 50, 3), (7, 100, 7), (7, 0, 0), (199, 10, 19)] {
            assert_eq!(part(bound, percent), expected);
        }
        assert_eq!(part(usize::MAX, 100), usize::MAX);
        assert_eq!(Squeeze::new(250, Bodies::All), Squeeze::NONE);
    }
}
