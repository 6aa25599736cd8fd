//! The cache's contents and their bounds. Pure: told the time, touching nothing outside.

mod active;
mod load;
mod past;
mod shares;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ::lru::LruCache;
use tokio::time::Instant;

use self::load::{Bound, Load};
use self::shares::{Grouped, Newcomer, Refusal, Shares};
use crate::answer::{Answer, Sent};
use crate::heap::allocated;
use crate::moment::Moment;
use crate::options::LruOptions;
use crate::probe::{CacheSize, Eviction};
use crate::purge::Purge;
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SecretSnapshot, Source};

/// What an absence takes beside its name: the list's node with its two links, and its part of the hash table.
const ABSENCE_BYTES: usize = allocated(size_of::<SecretRef>() + size_of::<Absence>() + 2 * size_of::<usize>()) + 32;

type Contents = Shares<SecretRef, Content, Moment>;

impl Grouped for SecretRef {
    fn group(&self) -> &str {
        self.namespace()
    }
}

/// Contents and absences by Secret, within the bounds of [`LruOptions`]. Namespaces are the groups of [`Shares`].
///
/// Absences are a list of their own, the latest first: they are short-lived, cheap and as many as somebody cares to ask for, so
/// they make room for each other and for contents, and never the other way round.
pub(crate) struct Store {
    contents: Contents,
    absences: LruCache<SecretRef, Absence>,
    absent_bytes: usize,
    /// No content and no absence was asked for before these.
    oldest_content: Option<Instant>,
    oldest_absence: Option<Instant>,
    /// With the bytes that may be held at the moment.
    options: LruOptions,
    /// The bytes that may be held when nothing squeezes.
    configured_bytes: usize,
    /// Accepts nothing any more, because caching ended while requests were on their way.
    closed: bool,
}

struct Content {
    snapshot: Arc<SecretSnapshot>,
    times: Times,
    /// When it was last read.
    used: Instant,
}

struct Absence {
    times: Times,
}

/// When an answer was asked for and given.
#[derive(Clone, Copy)]
struct Times {
    sent: Sent,
    /// Requests sent after this were sent after the answer was received.
    received: Moment,
}

/// Entries that are no more. Values are wiped when it is dropped: do that outside of locks.
#[derive(Default)]
pub(crate) struct Removed {
    contents: Vec<Arc<SecretSnapshot>>,
    reasons: Vec<Eviction>,
}

impl Removed {
    pub(crate) fn reasons(&self) -> &[Eviction] {
        &self.reasons
    }

    fn push(&mut self, content: Content, reason: Eviction) {
        self.contents.push(content.snapshot);
        self.reasons.push(reason);
    }

    fn extend(&mut self, contents: impl IntoIterator<Item = Content>, reason: Eviction) {
        for content in contents {
            self.push(content, reason);
        }
    }
}

impl Store {
    pub(crate) fn new(options: LruOptions) -> Self {
        let bounds = Load {
            entries: options.max_secrets,
            weight: options.max_bytes,
        };
        Self {
            contents: Shares::new(bounds, Contents::GROUP_BYTES),
            absences: LruCache::unbounded(),
            absent_bytes: 0,
            oldest_content: None,
            oldest_absence: None,
            configured_bytes: options.max_bytes,
            options,
            closed: false,
        }
    }

    /// What is held, absences included.
    pub(crate) fn size(&self) -> CacheSize {
        CacheSize {
            entries: self.contents.load().entries + self.absences.len(),
            bytes: self.contents.load().weight + self.absent_bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size() == CacheSize::default()
    }

    /// What is held of a Secret, which is hereby used: content of any age, or an absence that may still be believed.
    pub(crate) fn held(&mut self, secret: &SecretRef, now: Instant) -> Option<Answer> {
        if let Some(content) = self.contents.get(secret) {
            content.used = content.used.max(now);
            return Some(Answer {
                found: Some(Arc::clone(&content.snapshot)),
                sent: content.times.sent,
            });
        }
        let sent = self.absences.peek(secret)?.times.sent;
        (!older(sent, self.options.negative_age, now)).then_some(Answer { found: None, sent })
    }

    /// Keeps an answer just received, unless what is held is newer.
    pub(crate) fn insert(&mut self, secret: &SecretRef, answer: &Answer, now: Instant) -> Removed {
        let mut removed = Removed::default();
        if self.closed || self.is_newer(secret, answer) {
            return removed;
        }
        self.drop_absence(secret);
        match &answer.found {
            Some(found) => self.insert_content(found, answer.sent, now, &mut removed),
            None => self.insert_absence(secret, answer.sent, now, &mut removed),
        }
        removed
    }

    /// Notes that a request sent at `sent` found the Secret to be this version. Whether that is what is held.
    pub(crate) fn confirm(&mut self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) -> bool {
        let held = self.contents.peek_mut(secret);
        let Some(content) = held.filter(|held| is_version(&held.snapshot, uid, version)) else {
            return false;
        };
        if sent.moment > content.times.sent.moment {
            content.snapshot = content.snapshot.validated(sent.at).with_source(Source::Cache).into();
            content.times = Times::now(sent);
        }
        true
    }

    /// Removes what nobody read for too long, or could be served any more.
    pub(crate) fn expire(&mut self, now: Instant) -> Removed {
        let mut removed = Removed::default();
        let LruOptions {
            max_age,
            max_idle,
            stale_if_unavailable,
            negative_age,
            ..
        } = self.options;
        removed.extend(self.trim(max_idle, now), Eviction::Idle);
        let limit = max_age + max_idle + stale_if_unavailable;
        // All of them are looked at only when the oldest may be too old, which a cache in use is spared most of the time.
        if self.oldest_content.is_some_and(|oldest| since(oldest, now) > limit) {
            let mut oldest = None;
            let old = self.contents.extract(|content| {
                let old = older(content.times.sent, limit, now);
                if !old {
                    note(&mut oldest, content.times.sent.at);
                }
                old
            });
            self.oldest_content = oldest;
            removed.extend(old, Eviction::Age);
        }
        if self
            .oldest_absence
            .is_some_and(|oldest| since(oldest, now) > negative_age)
        {
            self.expire_absences(now, &mut removed);
        }
        removed
    }

    /// Gives memory back, and goes on accepting. Absences go in any case.
    pub(crate) fn purge(&mut self, level: Purge, now: Instant) -> Removed {
        let mut removed = Removed::default();
        let before = self.size().bytes;
        self.clear_absences(Eviction::Purged, &mut removed);
        match level {
            Purge::Idle => removed.extend(self.trim(self.options.max_age / 4, now), Eviction::Purged),
            Purge::Half => {
                let half = Load {
                    entries: self.options.max_secrets,
                    weight: self.options.max_bytes.min(before) / 2,
                };
                removed.extend(self.contents.shrink(half), Eviction::Purged);
            }
            Purge::All => self.clear_contents(Eviction::Purged, &mut removed),
        }
        removed
    }

    /// Holds at most so many bytes from now on, and no more than configured. Entries beyond that go in the order in which they
    /// would make room.
    pub(crate) fn squeeze(&mut self, max_bytes: usize) -> Removed {
        let mut removed = Removed::default();
        let max_bytes = max_bytes.min(self.configured_bytes);
        if max_bytes == self.options.max_bytes {
            return removed;
        }
        self.options.max_bytes = max_bytes;
        let bounds = Load {
            entries: self.options.max_secrets,
            weight: self.options.max_bytes,
        };
        removed.extend(self.contents.set_bounds(bounds), Eviction::Purged);
        self.shrink_absences(&mut removed);
        removed
    }

    /// Empties the cache and keeps it empty until [`Store::open`].
    pub(crate) fn close(&mut self) -> Removed {
        self.closed = true;
        let mut removed = Removed::default();
        self.clear_absences(Eviction::Cleared, &mut removed);
        self.clear_contents(Eviction::Cleared, &mut removed);
        removed
    }

    /// Accepts entries again.
    pub(crate) fn open(&mut self) {
        self.closed = false;
    }

    /// Whether what is held is newer than this.
    fn is_newer(&self, secret: &SecretRef, answer: &Answer) -> bool {
        if let Some(held) = self.contents.peek(secret) {
            return !supersedes(answer, held.times, Some(held.snapshot.resource_version()));
        }
        let held = self.absences.peek(secret);
        held.is_some_and(|held| !supersedes(answer, held.times, None))
    }

    fn insert_content(&mut self, found: &Arc<SecretSnapshot>, sent: Sent, now: Instant, removed: &mut Removed) {
        // The content's own reference, whose texts are counted with the content, and not the reader's.
        let secret = found.secret();
        let weight = found.cost() + Contents::ENTRY_BYTES;
        if weight > self.options.max_entry_bytes() {
            removed
                .contents
                .extend(self.contents.remove(secret).map(|old| old.snapshot));
            removed.reasons.push(Eviction::Oversized);
            return;
        }
        let times = Times::now(sent);
        let outcome = self.contents.insert(Newcomer {
            key: secret.clone(),
            value: Content {
                snapshot: found.with_source(Source::Cache).into(),
                times,
                used: now,
            },
            weight,
            asked: sent.moment,
            arrived: times.received,
        });
        // Not an eviction: the Secret is still held, in another version.
        removed.contents.extend(outcome.replaced.map(|old| old.snapshot));
        for (content, bound) in outcome.evicted {
            removed.push(content, bound.into());
        }
        match outcome.refused {
            None => note(&mut self.oldest_content, sent.at),
            Some((_, Refusal::Repeated)) => {}
            Some((_, Refusal::Outweighed)) => removed.reasons.push(Eviction::NotAdmitted),
        }
        self.shrink_absences(removed);
    }

    fn insert_absence(&mut self, secret: &SecretRef, sent: Sent, now: Instant, removed: &mut Removed) {
        // Not an eviction: what is known of the Secret is just something else.
        removed
            .contents
            .extend(self.contents.remove(secret).map(|old| old.snapshot));
        let cost = absence_cost(secret);
        if cost > self.options.max_entry_bytes() {
            removed.reasons.push(Eviction::Oversized);
            return;
        }
        if older(sent, self.options.negative_age, now) {
            removed.reasons.push(Eviction::Age);
            return;
        }
        self.absences.put(
            secret.clone(),
            Absence {
                times: Times::now(sent),
            },
        );
        self.absent_bytes += cost;
        note(&mut self.oldest_absence, sent.at);
        self.shrink_absences(removed);
    }

    /// Removes the absences asked for first until everything is within the bounds.
    fn shrink_absences(&mut self, removed: &mut Removed) {
        let bounds = Load {
            entries: self.options.max_secrets,
            weight: self.options.max_bytes,
        };
        loop {
            let CacheSize { entries, bytes, .. } = self.size();
            let reason = if self.absences.len() > self.options.max_absent {
                Eviction::Entries
            } else if let Some(bound) = (Load { entries, weight: bytes }).beyond(bounds) {
                bound.into()
            } else {
                return;
            };
            let Some((secret, _)) = self.absences.pop_lru() else {
                return;
            };
            self.absent_bytes -= absence_cost(&secret);
            removed.reasons.push(reason);
        }
    }

    fn drop_absence(&mut self, secret: &SecretRef) {
        if let Some((secret, _)) = self.absences.pop_entry(secret) {
            self.absent_bytes -= absence_cost(&secret);
        }
    }

    fn expire_absences(&mut self, now: Instant, removed: &mut Removed) {
        let mut oldest = None;
        let mut bytes = 0;
        let before = self.absences.len();
        self.absences.retain(|secret, absence| {
            let kept = !older(absence.times.sent, self.options.negative_age, now);
            if kept {
                note(&mut oldest, absence.times.sent.at);
                bytes += absence_cost(secret);
            }
            kept
        });
        self.absent_bytes = bytes;
        self.oldest_absence = oldest;
        let gone = before - self.absences.len();
        removed.reasons.extend(std::iter::repeat_n(Eviction::Age, gone));
        if self.absences.is_empty() {
            self.absences = LruCache::unbounded();
        }
    }

    fn clear_absences(&mut self, reason: Eviction, removed: &mut Removed) {
        removed.reasons.extend(std::iter::repeat_n(reason, self.absences.len()));
        // The hash table keeps its size otherwise.
        self.absences = LruCache::unbounded();
        self.absent_bytes = 0;
        self.oldest_absence = None;
    }

    fn clear_contents(&mut self, reason: Eviction, removed: &mut Removed) {
        removed.extend(self.contents.clear(), reason);
        self.oldest_content = None;
    }

    /// Contents not read for longer than this.
    fn trim(&mut self, idle: Duration, now: Instant) -> Vec<Content> {
        self.contents.trim(|content| since(content.used, now) > idle)
    }
}

impl Times {
    /// Of an answer received just now.
    fn now(sent: Sent) -> Self {
        Self {
            sent,
            received: Moment::next(),
        }
    }
}

impl From<Bound> for Eviction {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::Entries => Self::Entries,
            Bound::Weight => Self::Bytes,
        }
    }
}

fn absence_cost(secret: &SecretRef) -> usize {
    ABSENCE_BYTES + secret.heap_bytes()
}

fn since(past: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(past)
}

fn older(sent: Sent, age: Duration, now: Instant) -> bool {
    since(sent.at, now) > age
}

fn note(oldest: &mut Option<Instant>, at: Instant) {
    *oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
}

fn is_version(snapshot: &SecretSnapshot, uid: &str, version: ResourceVersion) -> bool {
    snapshot.uid() == uid && snapshot.resource_version() == version
}

/// Whether `new` is to take the place of what is held. Two requests for one Secret may overlap and be answered in any order.
fn supersedes(new: &Answer, held: Times, held_version: Option<ResourceVersion>) -> bool {
    if new.sent.moment > held.received {
        // Asked later, answered later: also when versions went backwards because the cluster was restored.
        return true;
    }
    let new_version = new.found.as_ref().map(|found| found.resource_version());
    match (new_version, held_version) {
        (Some(new), Some(held)) if new != held => new > held,
        // The same version, or an absence, which has none: the later question keeps the later age. Should it be the older
        // state, the floors refuse it to whoever saw the newer one.
        _ => new.sent.moment > held.sent.moment,
    }
}
