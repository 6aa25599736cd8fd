//! Why a read failed, and whether to try again.

// A new variant must be classified by hand, here and by those who match on it.
#![warn(clippy::wildcard_enum_match_arm)]

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::secret_ref::SecretRef;

/// Why a Secret could not be read. Every variant names the Secret; none carries a value, a body or a text from the server.
///
/// Errors are cheap to clone: readers that share one request share its error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The API server says that there is no such Secret (HTTP 404 with the API's own `Status`).
    #[error("Secret {secret} not found")]
    NotFound {
        /// The Secret that was asked for.
        secret: SecretRef,
    },
    /// The identity has no right to `get` this Secret (HTTP 403).
    #[error("Secret {secret}: forbidden; the identity needs the right to get this Secret")]
    Forbidden {
        /// The Secret that was asked for.
        secret: SecretRef,
    },
    /// The API server does not accept the credentials (HTTP 401).
    #[error("Secret {secret}: the API server does not accept the credentials")]
    Unauthorized {
        /// The Secret that was asked for.
        secret: SecretRef,
    },
    /// The API server asks to slow down (HTTP 429).
    #[error("Secret {secret}: throttled by the API server{}", After(*.retry_after))]
    Throttled {
        /// The Secret that was asked for.
        secret: SecretRef,
        /// The header `Retry-After`, when there was one in seconds; at most
        /// [`FetchOptions::max_retry_after`](crate::FetchOptions::max_retry_after).
        retry_after: Option<Duration>,
    },
    /// There was no answer within the deadline, be it for a free slot or from the API server.
    #[error("Secret {secret}: no answer within {} s", .deadline.as_secs_f32())]
    Timeout {
        /// The Secret that was asked for.
        secret: SecretRef,
        /// The deadline that passed.
        deadline: Duration,
    },
    /// The answer is bigger than allowed.
    #[error("Secret {secret}: the answer is bigger than {limit} bytes")]
    TooLarge {
        /// The Secret that was asked for.
        secret: SecretRef,
        /// The most a body may have, in bytes.
        limit: usize,
    },
    /// The answer is not the Secret that was asked for.
    #[error("Secret {secret}: malformed answer: {problem}")]
    Malformed {
        /// The Secret that was asked for.
        secret: SecretRef,
        /// What is wrong with it, from a closed set of texts.
        problem: &'static str,
    },
    /// The API server could not be reached, it answered that it cannot serve, or there is no memory for its answer.
    #[error("Secret {secret}: {}{cause}{}", Whose(*.cause), After(*.retry_after))]
    Unavailable {
        /// The Secret that was asked for.
        secret: SecretRef,
        /// What happened.
        cause: UnavailableCause,
        /// The header `Retry-After`, as in [`ReadError::Throttled`].
        retry_after: Option<Duration>,
    },
    /// Only a copy in memory was wanted ([`Freshness::Cached`](crate::Freshness::Cached)), and there is none that the reader
    /// may see without going back in time.
    #[error("Secret {secret}: no copy is held, and no request was wanted")]
    NotCached {
        /// The Secret that was asked for.
        secret: SecretRef,
    },
}

/// What kept the API server from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// An HTTP status that no other error stands for.
    Status(u16),
    /// The connection failed, with the kind of the underlying I/O error where there is one.
    Connection(Option<io::ErrorKind>),
    /// The client could not obtain credentials to send, for example from a plug-in or a token file.
    Credentials,
    /// The request was abandoned because the runtime it ran on shut down, or because of a panic.
    Abandoned,
    /// The answer is big, and this process takes none such at the moment: see
    /// [`Bodies::NoneBig`](crate::Bodies::NoneBig).
    MemoryShort,
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "HTTP status {code}"),
            Self::Connection(Some(kind)) => write!(f, "connection failed: {kind}"),
            Self::Connection(None) => f.write_str("connection failed"),
            Self::Credentials => f.write_str("the client has no credentials to send"),
            Self::Abandoned => f.write_str("the request was abandoned"),
            Self::MemoryShort => f.write_str("memory is short, and the answer is too big to be taken now"),
        }
    }
}

/// What to do after a failed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same read will fail the same way until somebody changes the Secret, the rights or a limit. Report it, and look
    /// again at the pace of a poll, not of a retry.
    WhenChanged,
    /// It may work soon. Try again with exponential backoff and jitter, bounded in number or by a budget.
    Backoff {
        /// Not before this much time has passed, because the API server said so. Already capped.
        at_least: Option<Duration>,
    },
}

/// The variant of a [`ReadError`], as a closed set for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadErrorKind {
    /// See [`ReadError::NotFound`].
    NotFound,
    /// See [`ReadError::Forbidden`].
    Forbidden,
    /// See [`ReadError::Unauthorized`].
    Unauthorized,
    /// See [`ReadError::Throttled`].
    Throttled,
    /// See [`ReadError::Timeout`].
    Timeout,
    /// See [`ReadError::TooLarge`].
    TooLarge,
    /// See [`ReadError::Malformed`].
    Malformed,
    /// See [`ReadError::Unavailable`].
    Unavailable,
    /// See [`ReadError::NotCached`].
    NotCached,
}

impl ReadErrorKind {
    /// All kinds, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::Forbidden,
        Self::Malformed,
        Self::NotCached,
        Self::NotFound,
        Self::Throttled,
        Self::Timeout,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Unavailable,
    ];

    /// The kind in `snake_case`, for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::NotCached => "not_cached",
        }
    }
}

impl ReadError {
    /// Whether and when to read again: the one place where that is decided.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } | Self::Forbidden { .. } | Self::TooLarge { .. } | Self::NotCached { .. } => {
                Retry::WhenChanged
            }
            // Tokens are rotated and connections cut: all of these pass without anybody's doing.
            Self::Unauthorized { .. } | Self::Timeout { .. } | Self::Malformed { .. } => {
                Retry::Backoff { at_least: None }
            }
            Self::Throttled { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Retry::Backoff { at_least: *retry_after }
            }
        }
    }

    /// The variant alone.
    #[must_use]
    pub fn kind(&self) -> ReadErrorKind {
        match self {
            Self::NotFound { .. } => ReadErrorKind::NotFound,
            Self::Forbidden { .. } => ReadErrorKind::Forbidden,
            Self::Unauthorized { .. } => ReadErrorKind::Unauthorized,
            Self::Throttled { .. } => ReadErrorKind::Throttled,
            Self::Timeout { .. } => ReadErrorKind::Timeout,
            Self::TooLarge { .. } => ReadErrorKind::TooLarge,
            Self::Malformed { .. } => ReadErrorKind::Malformed,
            Self::Unavailable { .. } => ReadErrorKind::Unavailable,
            Self::NotCached { .. } => ReadErrorKind::NotCached,
        }
    }

    /// The Secret that was asked for.
    #[must_use]
    pub fn secret(&self) -> &SecretRef {
        match self {
            Self::NotFound { secret }
            | Self::Forbidden { secret }
            | Self::Unauthorized { secret }
            | Self::Throttled { secret, .. }
            | Self::Timeout { secret, .. }
            | Self::TooLarge { secret, .. }
            | Self::Malformed { secret, .. }
            | Self::Unavailable { secret, .. }
            | Self::NotCached { secret } => secret,
        }
    }
}

/// Whose fault a cause is, as the head of a message.
struct Whose(UnavailableCause);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            UnavailableCause::MemoryShort => f.write_str("not read: "),
            UnavailableCause::Status(_)
            | UnavailableCause::Connection(_)
            | UnavailableCause::Credentials
            | UnavailableCause::Abandoned => f.write_str("API server unavailable: "),
        }
    }
}

/// `Retry-After` as the tail of a message.
struct After(Option<Duration>);

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " (asks to wait {} s)", wait.as_secs()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_kinds_are_listed_once_and_in_order() {
        let names = super::ReadErrorKind::ALL.map(super::ReadErrorKind::as_str);
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    }

    use super::*;

    #[test]
    fn every_error_names_the_secret_and_is_classified() {
        let secret = SecretRef::new("ns", "name").expect("valid");
        let wait = Some(Duration::from_secs(7));
        let soon = Retry::Backoff { at_least: None };
        let cases = [
            (ReadError::NotFound { secret: secret.clone() }, Retry::WhenChanged),
            (ReadError::Forbidden { secret: secret.clone() }, Retry::WhenChanged),
            (ReadError::NotCached { secret: secret.clone() }, Retry::WhenChanged),
            (ReadError::Unauthorized { secret: secret.clone() }, soon),
            (
                ReadError::Throttled {
                    secret: secret.clone(),
                    retry_after: wait,
                },
                Retry::Backoff { at_least: wait },
            ),
            (
                ReadError::Timeout {
                    secret: secret.clone(),
                    deadline: Duration::from_secs(10),
                },
                soon,
            ),
            (
                ReadError::TooLarge {
                    secret: secret.clone(),
                    limit: 9,
                },
                Retry::WhenChanged,
            ),
            (
                ReadError::Malformed {
                    secret: secret.clone(),
                    problem: "x",
                },
                soon,
            ),
            (
                ReadError::Unavailable {
                    secret: secret.clone(),
                    cause: UnavailableCause::Status(503),
                    retry_after: wait,
                },
                Retry::Backoff { at_least: wait },
            ),
        ];
        for (error, retry) in cases {
            assert_eq!(error.retry(), retry, "{error}");
            assert_eq!(error.secret(), &secret);
            assert!(error.to_string().contains("ns/name"), "{error}");
            assert!(!error.kind().as_str().is_empty());
        }
    }

    #[test]
    fn messages_say_what_happened() {
        let secret = SecretRef::new("ns", "name").expect("valid");
        let error = ReadError::Throttled {
            secret: secret.clone(),
            retry_after: Some(Duration::from_secs(3)),
        };
        assert_eq!(
            error.to_string(),
            "Secret ns/name: throttled by the API server (asks to wait 3 s)"
        );
        let error = ReadError::Unavailable {
            secret: secret.clone(),
            cause: UnavailableCause::MemoryShort,
            retry_after: None,
        };
        assert_eq!(
            error.to_string(),
            "Secret ns/name: not read: memory is short, and the answer is too big to be taken now"
        );
        let error = ReadError::Unavailable {
            secret,
            cause: UnavailableCause::Connection(Some(io::ErrorKind::ConnectionRefused)),
            retry_after: None,
        };
        assert_eq!(
            error.to_string(),
            "Secret ns/name: API server unavailable: connection failed: connection refused"
        );
    }
}
