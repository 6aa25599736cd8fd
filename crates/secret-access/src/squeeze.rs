//! Making do with less for a time.

/// How much of its memory an access may use for the time being: see [`Switch::squeeze`](crate::Switch::squeeze).
///
/// ```
/// use kube_secret_access::{Bodies, Squeeze};
///
/// let little = Squeeze::new(1 << 20, Bodies::All);
/// assert!(little.max_bytes() < Squeeze::NONE.max_bytes());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Squeeze {
    max_bytes: usize,
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
        max_bytes: usize::MAX,
        bodies: Bodies::All,
    };

    /// A cache holds at most `max_bytes`, and so does a watch; never more than configured.
    #[must_use]
    pub const fn new(max_bytes: usize, bodies: Bodies) -> Self {
        Self { max_bytes, bodies }
    }

    /// How many bytes a cache may hold, and how many a watch.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        self.max_bytes
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
