//! Hooks for metrics and logs. The crate itself depends on no metrics library.

use std::time::Duration;

use tokio::time::Instant;

use crate::change::Change;
use crate::error::ReadErrorKind;
use crate::mode::Mode;
use crate::route::Reason;
use crate::snapshot::Source;

/// Told what an access does. All methods do nothing by default; `()` is the silent probe.
///
/// Methods are called from within reads: they should return at once and must not block or panic.
/// Nothing they are told contains a value or the name of a Secret, so everything may become a metric's label.
pub trait Probe: Send + Sync {
    /// A read ended, well or badly. Reads whose callers gave up are not reported.
    fn read_finished(&self, read: &FinishedRead) {
        let _ = read;
    }

    /// A request to the API server ended. Reads that shared it are reported by [`Probe::read_finished`] each.
    fn request_finished(&self, request: &FinishedRequest) {
        let _ = request;
    }

    /// A read shares a request that another read began.
    fn flight_joined(&self, mode: Mode) {
        let _ = mode;
    }

    /// The cache's size changed. Called under the cache's lock, alone of all, so that reports arrive in order.
    fn cache_size(&self, size: CacheSize) {
        let _ = size;
    }

    /// The cache dropped an entry, or declined to keep one.
    fn evicted(&self, reason: Eviction) {
        let _ = reason;
    }

    /// [`Mode::Auto`] changed between caching and direct reads, or a watch could not be kept or is back.
    fn transition(&self, transition: &Transition) {
        let _ = transition;
    }

    /// [`Switch::set`](crate::Switch::set) put other options into force.
    fn switched(&self, from: Mode, to: Mode) {
        let _ = (from, to);
    }

    /// The mode's first answer was older than what an earlier read had returned, so it is read again.
    fn stale_answer_refused(&self, mode: Mode) {
        let _ = mode;
    }

    /// Resource versions went backwards, as after restoring the cluster from a backup. Everything read before is read again.
    fn cluster_rewound(&self) {}

    /// A tracked Secret has changed, and the subscribers are told.
    fn changed(&self, change: Change) {
        let _ = change;
    }

    /// A poll of a tracked Secret's metadata ended.
    fn poll_finished(&self, poll: &FinishedRequest) {
        let _ = poll;
    }

    /// This many Secrets are tracked now.
    fn tracked(&self, secrets: usize) {
        let _ = secrets;
    }

    /// This many references are beyond [`ChangeOptions::max_tracked`](crate::ChangeOptions::max_tracked) now, so that nobody
    /// watches over them.
    fn untracked(&self, references: usize) {
        let _ = references;
    }

    /// The Secrets of the cluster were counted, or could not be.
    fn cluster_count(&self, count: ClusterCount) {
        let _ = count;
    }
}

impl Probe for () {}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedRead {
    /// The mode in force when the read began.
    pub mode: Mode,
    /// Where the answer came from. A failed request is [`Source::Api`]; a remembered absence is [`Source::Cache`].
    pub source: Source,
    /// `None` for a Secret, or how the read failed.
    pub error: Option<ReadErrorKind>,
    /// How old the answer was when the read began: zero for what was requested after that, `None` for errors and for what
    /// is known by its version alone.
    pub age: Option<Duration>,
    /// When the read was called. That it ended just now costs a look at the clock, which is left to whoever wants to know:
    /// `began.elapsed()`.
    pub began: Instant,
}

impl FinishedRead {
    /// `found` or the error's name, for a metric's label.
    #[must_use]
    pub fn result(&self) -> &'static str {
        result_label(self.error)
    }
}

/// How a request to the API server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedRequest {
    /// `None` for a Secret, or how the request failed.
    pub error: Option<ReadErrorKind>,
    /// From sending to the decoded answer.
    pub elapsed: Duration,
}

impl FinishedRequest {
    /// `found` or the error's name, for a metric's label.
    #[must_use]
    pub fn result(&self) -> &'static str {
        result_label(self.error)
    }
}

fn result_label(error: Option<ReadErrorKind>) -> &'static str {
    error.map_or("found", ReadErrorKind::as_str)
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheSize {
    /// Entries, remembered absences included.
    pub entries: usize,
    /// Bytes, as counted against [`LruOptions::max_bytes`](crate::LruOptions::max_bytes).
    pub bytes: usize,
}

impl std::ops::Add for CacheSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Why the cache does not hold an entry any more, or never did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eviction {
    /// Too many entries: the least recently used went.
    Entries,
    /// Too many bytes: the least recently used went.
    Bytes,
    /// Older than the mode's age.
    Age,
    /// Bigger than its share of the cache: served, not kept.
    Oversized,
    /// The cache was emptied, because caching ended.
    Cleared,
    /// Not read for [`LruOptions::max_idle`](crate::LruOptions::max_idle).
    Idle,
    /// Read less often than what would have to make room for it: served, not kept.
    NotAdmitted,
    /// Dropped by [`Switch::purge`](crate::Switch::purge).
    Purged,
}

impl Eviction {
    /// All reasons, in the order of their names.
    pub const ALL: [Self; 8] = [
        Self::Age,
        Self::Bytes,
        Self::Cleared,
        Self::Entries,
        Self::Idle,
        Self::NotAdmitted,
        Self::Oversized,
        Self::Purged,
    ];

    /// The reason in `snake_case`, for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Oversized => "oversized",
            Self::Cleared => "cleared",
            Self::Idle => "idle",
            Self::NotAdmitted => "not_admitted",
            Self::Purged => "purged",
        }
    }
}

/// A change of how Secrets are read within one mode: of what [`Mode::Auto`] does, or of whether a watch answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// How Secrets were read: [`Mode::Watch`], [`Mode::Lru`] or [`Mode::Direct`].
    pub from: Mode,
    /// How they are read now. Where a watch is given up this says [`Mode::Lru`], also if [`Mode::Auto`] has left that for
    /// direct reads.
    pub to: Mode,
    /// Why, with the size that crossed a threshold if one did.
    pub reason: Reason,
}

/// The result of counting the cluster's Secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterCount {
    /// This many.
    Counted(u64),
    /// The identity may not list Secrets; counting rests.
    Denied,
    /// The request failed otherwise; counted again after the interval.
    Failed(ReadErrorKind),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_listed_once_and_in_order() {
        let names = Eviction::ALL.map(Eviction::as_str);
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    }
}
