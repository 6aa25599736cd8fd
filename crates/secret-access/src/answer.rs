//! What an API server said about a Secret, and when: the currency between the modes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::access::BoxFuture;
use crate::error::ReadError;
use crate::mode::Mode;
use crate::moment::Moment;
use crate::probe::CacheSize;
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SecretSnapshot, Source};
use crate::want::Want;

/// One answer: a Secret, or its absence. Absence is no error here, because it is as much a fact with an age as content is.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The Secret, or `None` when there was none.
    pub(crate) found: Option<Arc<SecretSnapshot>>,
    /// When the request was sent. The answer was true at some time after this.
    pub(crate) sent: Sent,
}

/// When a request was sent: as a time, to measure ages, and in the order of events, to compare with other answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) moment: Moment,
}

impl Sent {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            moment: Moment::next(),
        }
    }

    /// Of an answer that is known by its version alone: it may have been true only before anything else that is known.
    pub(crate) fn unproven() -> Self {
        Self {
            at: Instant::now(),
            moment: Moment::START,
        }
    }

    /// Whether it says anything about time.
    pub(crate) fn is_proof(self) -> bool {
        self.moment > Moment::START
    }
}

/// How old a request may be for its answer to serve a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recency {
    /// Only a request that is sent after the read began.
    New,
    /// A request sent at most `max_age` before `since`.
    Since { since: Instant, max_age: Duration },
    /// Any request for this version or a later one.
    Version(ResourceVersion),
}

/// What a mode is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// When the caller's read began.
    pub(crate) began: Instant,
    /// Only what is requested from now on will do: what the mode offered first was older than an earlier read's result.
    pub(crate) anew: bool,
    /// What the caller wants.
    pub(crate) want: &'a Want,
}

/// An answer and where it came from.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) answer: Answer,
    pub(crate) source: Source,
}

/// One mode, from the inside. [`Front`](crate::front::Front) makes a [`SecretAccess`](crate::SecretAccess) of it.
pub(crate) trait Answers: Send + Sync {
    /// Which mode this is.
    fn mode(&self) -> Mode;

    /// The answer, if it is there without waiting. What is not is left to [`Answers::answer`].
    fn at_hand(&self, secret: &SecretRef, asked: Asked<'_>) -> Option<Served>;

    /// Answers one read. Deadlines, ordering across reads and the probe are the front's business.
    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked<'a>) -> BoxFuture<'a, Result<Served, ReadError>>;

    /// Drops what is held, and says how many entries and bytes that was. Modes that hold nothing do nothing.
    fn purge(&self, level: crate::purge::Purge) -> crate::purge::Purged;

    /// Holds at most so many bytes from now on, and no more than configured; says what that dropped.
    fn squeeze(&self, max_bytes: usize) -> crate::purge::Purged;

    /// What is held.
    fn held(&self) -> CacheSize;

    /// What a healthy watch holds of this Secret, which tells of its changes: it need not be polled.
    fn watched(&self, secret: &SecretRef) -> Option<Answer> {
        let _ = secret;
        None
    }

    /// A metadata read sent at `sent` found the Secret to be this version: a held copy of it is as good as new.
    fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent);
}

/// Is told what requests found out, whoever made them and for whatever reason.
pub(crate) trait Observe: Send + Sync {
    /// An API server gave this answer, which is handed out, and no floor is above it.
    fn answered(&self, secret: &SecretRef, answer: &Answer);
}
