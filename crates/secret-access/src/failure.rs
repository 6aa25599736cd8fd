//! Why a request brought no answer, before anybody says for which Secret.

use std::time::Duration;

use crate::error::{ReadError, ReadErrorKind, UnavailableCause};
use crate::secret_ref::SecretRef;

/// Why a request brought no answer; [`Failure::named`] makes a [`ReadError`] of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    NotFound,
    Forbidden,
    Unauthorized,
    Throttled(Option<Duration>),
    TooLarge(usize),
    Malformed(&'static str),
    Unavailable(UnavailableCause, Option<Duration>),
    Timeout(Duration),
}

impl Failure {
    pub(crate) fn named(self, secret: SecretRef) -> ReadError {
        match self {
            Self::NotFound => ReadError::NotFound { secret },
            Self::Forbidden => ReadError::Forbidden { secret },
            Self::Unauthorized => ReadError::Unauthorized { secret },
            Self::Throttled(retry_after) => ReadError::Throttled { secret, retry_after },
            Self::TooLarge(limit) => ReadError::TooLarge { secret, limit },
            Self::Malformed(problem) => ReadError::Malformed { secret, problem },
            Self::Unavailable(cause, retry_after) => ReadError::Unavailable {
                secret,
                cause,
                retry_after,
            },
            Self::Timeout(deadline) => ReadError::Timeout { secret, deadline },
        }
    }

    /// The variant alone.
    pub(crate) fn kind(self) -> ReadErrorKind {
        match self {
            Self::NotFound => ReadErrorKind::NotFound,
            Self::Forbidden => ReadErrorKind::Forbidden,
            Self::Unauthorized => ReadErrorKind::Unauthorized,
            Self::Throttled(_) => ReadErrorKind::Throttled,
            Self::TooLarge(_) => ReadErrorKind::TooLarge,
            Self::Malformed(_) => ReadErrorKind::Malformed,
            Self::Unavailable(..) => ReadErrorKind::Unavailable,
            Self::Timeout(_) => ReadErrorKind::Timeout,
        }
    }
}
