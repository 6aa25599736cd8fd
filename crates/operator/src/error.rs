//! What failed, told by stage and object, and whether it may pass by itself.

use std::{error::Error as StdError, fmt, time::Duration};

use kube_secret_access::{ReadError, Retry};
use thiserror::Error;

use crate::{client::DeadlineExceeded, key::ObjectKey, leader::fence::NotLeading};

/// The most characters of an API server's message that are kept.
const MOST_MESSAGE: usize = 1024;

/// Why a pass could not be completed. All of these are tried again.
#[derive(Debug, Error)]
pub(crate) enum PassError {
    #[error("cannot read credentials: {0}")]
    ReadSecret(#[from] ReadError),
    #[error("cannot {action} {kind} {key}: {fault}")]
    Api {
        action: Action,
        kind: &'static str,
        key: ObjectKey,
        fault: Fault,
    },
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Apply,
    Delete,
    WriteStatus,
    RemoveFinalizer,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Apply => "apply",
            Self::Delete => "delete",
            Self::WriteStatus => "write the status of",
            Self::RemoveFinalizer => "remove the finalizer of",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PassError {
    /// For metrics and logs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::ReadSecret(error) => error.kind().as_str(),
            Self::Api { fault, .. } => fault.kind.as_str(),
        }
    }

    /// Somebody else has changed the object meanwhile: normal, and not worth a warning.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { fault, .. } if fault.kind == FaultKind::Conflict)
    }

    /// How long the API server has asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ReadSecret(error) => match error.retry() {
                Retry::Backoff { at_least } => at_least,
                Retry::WhenChanged => None,
            },
            Self::Api { fault, .. } => fault.retry_after,
        }
    }
}

/// A request that did not succeed, without the request or the answer.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// The API server's message, or what the transport says.
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

/// The kinds of faults, as far as they are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The object, or its whole kind, is not there.
    NotFound,
    /// The right is missing, a quota is used up, or admission said no.
    Forbidden,
    /// The object is not acceptable as it is.
    Invalid,
    /// Somebody else was faster.
    Conflict,
    /// The version asked for is gone.
    Expired,
    /// The identity is not accepted; tokens are rotated.
    Unauthorized,
    /// Too many requests.
    Throttled,
    /// No answer in time.
    Timeout,
    /// The API server, or the way to it, is down.
    Unavailable,
    /// An answer that cannot be read.
    Malformed,
    /// Not sent: another replica may lead.
    NotLeading,
}

impl FaultKind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Conflict,
        Self::Expired,
        Self::Forbidden,
        Self::Invalid,
        Self::Malformed,
        Self::NotFound,
        Self::Throttled,
        Self::Timeout,
        Self::Unauthorized,
        Self::Unavailable,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::NotLeading => "not_leading",
        }
    }

    /// Whether the answer is about the object itself, so that the same request fails again until something changes.
    pub(crate) const fn is_refusal(self) -> bool {
        match self {
            Self::NotFound | Self::Forbidden | Self::Invalid => true,
            Self::Conflict
            | Self::Expired
            | Self::Unauthorized
            | Self::Throttled
            | Self::Timeout
            | Self::Unavailable
            | Self::Malformed
            | Self::NotLeading => false,
        }
    }
}

impl Fault {
    /// No answer came in time.
    pub(crate) fn timeout() -> Self {
        Self::new(FaultKind::Timeout, "no answer in time")
    }

    fn new(kind: FaultKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: excerpt(message.as_ref(), MOST_MESSAGE),
            retry_after: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)
    }
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let kind = classify(status.code, &status.message);
                let retry_after = status
                    .details
                    .as_ref()
                    .map(|details| u64::from(details.retry_after_seconds));
                let retry_after = retry_after.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                Self {
                    retry_after,
                    ..Self::new(kind, &status.message)
                }
            }
            // The message of this error would quote the answer.
            kube::Error::SerdeError(error) => Self::new(
                FaultKind::Malformed,
                format!(
                    "the answer is no such object (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            ),
            kube::Error::FromUtf8(_) => Self::new(FaultKind::Malformed, "the answer is no text"),
            kube::Error::Auth(error) => Self::new(FaultKind::Unauthorized, error.to_string()),
            other if has_source::<DeadlineExceeded>(&other) => Self::timeout(),
            other if has_source::<NotLeading>(&other) => Self::new(FaultKind::NotLeading, NotLeading.to_string()),
            other => Self::new(FaultKind::Unavailable, innermost(&other)),
        }
    }
}

fn classify(code: u16, message: &str) -> FaultKind {
    match code {
        // Server-side apply answers 500 where an object does not fit its schema, such as two environment variables of one
        // name: the object has to change. Source: the API server's field manager, which reports it as a plain error.
        500 if message.starts_with("failed to create typed patch object") => FaultKind::Invalid,
        400 | 413 | 415 | 422 => FaultKind::Invalid,
        401 => FaultKind::Unauthorized,
        403 => FaultKind::Forbidden,
        404 | 405 => FaultKind::NotFound,
        409 => FaultKind::Conflict,
        410 => FaultKind::Expired,
        429 => FaultKind::Throttled,
        504 => FaultKind::Timeout,
        _ => FaultKind::Unavailable,
    }
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    // Bounded, should an error name itself as its source.
    std::iter::successors(Some(error), |&error| error.source()).take(16)
}

fn has_source<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    sources(error).any(<dyn StdError>::is::<E>)
}

/// The cause at the bottom: what wraps it only says that something failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

/// At most `most` bytes of a text, cut between characters.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub("...".len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn fault(code: u16, message: &str) -> Fault {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed()).into()
    }

    #[test]
    fn answers_are_classified() {
        for (code, refusal) in [
            (400, true),
            (403, true),
            (404, true),
            (422, true),
            (401, false),
            (409, false),
            (410, false),
            (429, false),
            (500, false),
            (502, false),
            (503, false),
            (504, false),
        ] {
            assert_eq!(fault(code, "m").kind.is_refusal(), refusal, "{code}");
        }
        let schema = "failed to create typed patch object (ns/a; apps/v1, Kind=Deployment): duplicate entries";
        assert!(fault(500, schema).kind.is_refusal());
    }

    #[test]
    fn all_kinds_are_listed_once_and_in_order() {
        let names = FaultKind::ALL.map(FaultKind::as_str);
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    }

    #[test]
    fn messages_are_bounded_and_never_quote_the_object() {
        let long = "é".repeat(4000);
        assert!(fault(422, &long).message.len() <= MOST_MESSAGE);
        let error = serde_json::from_str::<u8>("\"planted-value\"").expect_err("no number");
        let fault = Fault::from(kube::Error::SerdeError(error));
        assert!(!fault.to_string().contains("planted"), "{fault}");
    }

    #[test]
    fn a_missed_deadline_is_a_timeout() {
        let fault = Fault::from(kube::Error::Service(Box::new(DeadlineExceeded)));
        assert_eq!(fault.kind, FaultKind::Timeout);
    }

    #[test]
    fn what_the_fence_held_back_is_told_from_what_failed() {
        let fault = Fault::from(kube::Error::Service(Box::new(NotLeading)));
        assert_eq!(fault.kind, FaultKind::NotLeading);
        assert!(
            !fault.kind.is_refusal(),
            "a service must not be told that it was refused"
        );
    }

    #[test]
    fn excerpts_are_cut_between_characters() {
        assert_eq!(excerpt("short", 10), "short");
        assert_eq!(excerpt("ééééé", 8), "éé...");
        assert_eq!(excerpt("abc", 2), "...");
    }
}
