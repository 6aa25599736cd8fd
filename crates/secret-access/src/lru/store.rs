//! The cache's contents and their bounds. Pure: told the time, touching nothing outside.

use ::lru::LruCache;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::moment::Moment;
use crate::options::LruOptions;
use crate::probe::{CacheSize, Eviction};
use crate::secret_ref::SecretRef;
use crate::snapshot::ALLOCATION_OVERHEAD;

/// What the `lru` crate adds to an entry: the node with its two links and value, and the hash table's pointers, which are
/// about half used at worst.
const NODE_BYTES: usize =
    size_of::<SecretRef>() + size_of::<Entry>() + 2 * size_of::<usize>() + ALLOCATION_OVERHEAD + 4 * size_of::<usize>();

/// Answers by Secret, the most recently used first, within entries, bytes and age.
pub(crate) struct Store {
    entries: LruCache<SecretRef, Entry>,
    bytes: usize,
    options: LruOptions,
    /// Accepts nothing any more, because caching ended while requests were on their way.
    closed: bool,
}

struct Entry {
    answer: Answer,
    /// Requests sent after this were sent after the answer was received.
    received: Moment,
    cost: usize,
}

/// Entries that are no more. Values are wiped when it is dropped: do that outside of locks.
#[derive(Default)]
pub(crate) struct Removed {
    entries: Vec<Entry>,
    reasons: Vec<Eviction>,
}

impl Removed {
    pub(crate) fn reasons(&self) -> &[Eviction] {
        &self.reasons
    }

    /// The number of entries that were held, as opposed to declined.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn push(&mut self, entry: Entry, reason: Eviction) {
        self.entries.push(entry);
        self.reasons.push(reason);
    }
}

impl Store {
    pub(crate) fn new(options: LruOptions) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            options,
            closed: false,
        }
    }

    pub(crate) fn size(&self) -> CacheSize {
        CacheSize {
            entries: self.entries.len(),
            bytes: self.bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The answer for a read that began at `began`, if there is one that is recent enough. One that is not is removed.
    pub(crate) fn look_up(&mut self, secret: &SecretRef, began: Instant, removed: &mut Removed) -> Option<Answer> {
        let answer = &self.entries.get(secret)?.answer;
        if expired(answer, &self.options, began) {
            self.remove(secret, Eviction::Age, removed);
            return None;
        }
        Some(answer.clone())
    }

    /// Keeps an answer just received, unless what is held is newer.
    pub(crate) fn insert(&mut self, secret: &SecretRef, answer: &Answer, now: Instant) -> Removed {
        let mut removed = Removed::default();
        let held = self.entries.peek(secret);
        if self.closed || held.is_some_and(|held| !supersedes(answer, held)) {
            return removed;
        }
        let replaced = self.entries.pop(secret);
        if let Some(replaced) = replaced {
            self.bytes -= replaced.cost;
            // Not an eviction: the Secret is still held, in another version.
            removed.entries.push(replaced);
        }
        let content = answer.found.as_ref().map_or(0, |found| found.cost());
        let cost = content + secret.heap_bytes() + NODE_BYTES;
        if cost > self.options.max_entry_bytes() {
            removed.reasons.push(Eviction::Oversized);
            return removed;
        }
        if expired(answer, &self.options, now) {
            removed.reasons.push(Eviction::Age);
            return removed;
        }
        let entry = Entry {
            answer: Answer {
                found: answer.found.as_ref().map(|found| found.as_cached().into()),
                sent: answer.sent,
            },
            received: Moment::next(),
            cost,
        };
        self.entries.put(secret.clone(), entry);
        self.bytes += cost;
        self.shrink(&mut removed);
        removed
    }

    /// Removes what is too old.
    pub(crate) fn expire(&mut self, now: Instant) -> Removed {
        let mut removed = Removed::default();
        let old: Vec<SecretRef> = self
            .entries
            .iter()
            .filter(|(_, entry)| expired(&entry.answer, &self.options, now))
            .map(|(secret, _)| secret.clone())
            .collect();
        for secret in old {
            self.remove(&secret, Eviction::Age, &mut removed);
        }
        removed
    }

    /// Empties the cache and keeps it empty until [`Store::open`].
    pub(crate) fn close(&mut self) -> Removed {
        self.closed = true;
        let mut removed = Removed::default();
        while let Some((_, entry)) = self.entries.pop_lru() {
            removed.push(entry, Eviction::Cleared);
        }
        // The hash table keeps its size otherwise.
        self.entries = LruCache::unbounded();
        self.bytes = 0;
        removed
    }

    /// Accepts entries again.
    pub(crate) fn open(&mut self) {
        self.closed = false;
    }

    fn shrink(&mut self, removed: &mut Removed) {
        loop {
            let reason = if self.entries.len() > self.options.max_secrets {
                Eviction::Entries
            } else if self.bytes > self.options.max_bytes {
                Eviction::Bytes
            } else {
                return;
            };
            let Some((_, entry)) = self.entries.pop_lru() else {
                return;
            };
            self.bytes -= entry.cost;
            removed.push(entry, reason);
        }
    }

    fn remove(&mut self, secret: &SecretRef, reason: Eviction, removed: &mut Removed) {
        if let Some(entry) = self.entries.pop(secret) {
            self.bytes -= entry.cost;
            removed.push(entry, reason);
        }
    }
}

fn expired(answer: &Answer, options: &LruOptions, now: Instant) -> bool {
    let max_age = if answer.found.is_some() {
        options.max_age
    } else {
        options.negative_age
    };
    now.saturating_duration_since(answer.sent.at) > max_age
}

/// Whether `new` is to take the place of `held`. Two requests for one Secret may overlap and be answered in any order.
fn supersedes(new: &Answer, held: &Entry) -> bool {
    if new.sent.moment > held.received {
        // Asked later, answered later: also when versions went backwards because the cluster was restored.
        return true;
    }
    let version = |answer: &Answer| answer.found.as_ref().map(|found| found.resource_version());
    match (version(new), version(&held.answer)) {
        (Some(new), Some(held)) if new != held => new > held,
        // The same version, or an absence, which has none: the later question keeps the later age. Should it be the older
        // state, the floors refuse it to whoever saw the newer one.
        _ => new.sent.moment > held.answer.sent.moment,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::answer::Sent;
    use crate::snapshot::SecretSnapshot;

    fn secret(number: usize) -> SecretRef {
        SecretRef::new("ns", &format!("s{number}")).expect("valid")
    }

    fn found(number: usize, version: u64, bytes: usize, sent: Sent) -> Answer {
        let snapshot = SecretSnapshot::builder(secret(number))
            .resource_version(version)
            .data("k", vec![7; bytes]);
        Answer {
            found: Some(Arc::new(snapshot.build_validated_at(sent.at))),
            sent,
        }
    }

    fn sent(at: Instant) -> Sent {
        Sent {
            at,
            moment: Moment::next(),
        }
    }

    fn version(answer: Option<Answer>) -> Option<u64> {
        answer?.found.map(|found| found.resource_version().number())
    }

    #[test]
    fn answers_of_overlapping_requests_may_arrive_in_any_order() {
        let now = Instant::now();
        let mut store = Store::new(LruOptions::default());
        let (first, second) = (sent(now), sent(now));
        store.insert(&secret(1), &found(1, 8, 10, second), now);
        store.insert(&secret(1), &found(1, 7, 10, first), now);
        let mut removed = Removed::default();
        assert_eq!(version(store.look_up(&secret(1), now, &mut removed)), Some(8));
        // Sent first, but answered with something newer.
        let third = sent(now);
        let fourth = sent(now);
        store.insert(&secret(2), &found(2, 7, 10, fourth), now);
        store.insert(&secret(2), &found(2, 8, 10, third), now);
        assert_eq!(version(store.look_up(&secret(2), now, &mut removed)), Some(8));
        // Sent after the other was received: the truth, even if lower.
        store.insert(&secret(2), &found(2, 3, 10, sent(now)), now);
        assert_eq!(version(store.look_up(&secret(2), now, &mut removed)), Some(3));
    }

    #[test]
    fn age_counts_from_sending_and_is_checked_at_each_hit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut store = Store::new(LruOptions::default());
        let mut removed = Removed::default();
        // Received late: what is left of its age is less.
        store.insert(&secret(1), &found(1, 1, 10, sent(start)), at(9));
        store.insert(
            &secret(2),
            &Answer {
                found: None,
                sent: sent(at(9)),
            },
            at(9),
        );
        assert!(store.look_up(&secret(2), at(11), &mut removed).is_some());
        assert!(store.look_up(&secret(2), at(12), &mut removed).is_none());
        assert!(store.look_up(&secret(1), at(60), &mut removed).is_some());
        assert!(store.look_up(&secret(1), at(61), &mut removed).is_none());
        assert_eq!(removed.reasons(), [Eviction::Age, Eviction::Age]);
        assert_eq!(store.size(), CacheSize::default());
        let too_late = store.insert(&secret(1), &found(1, 1, 10, sent(start)), at(61));
        assert_eq!(too_late.reasons(), [Eviction::Age]);
        assert!(store.is_empty());
    }

    #[test]
    fn what_is_too_old_goes_without_being_asked_for() {
        let start = Instant::now();
        let mut store = Store::new(LruOptions::default());
        for number in 0..10_u32 {
            let sent_at = start + Duration::from_secs(10) * number;
            store.insert(
                &secret(number as usize),
                &found(number as usize, 1, 10, sent(sent_at)),
                sent_at,
            );
        }
        let removed = store.expire(start + Duration::from_secs(101));
        assert_eq!((removed.len(), store.size().entries), (5, 5));
    }

    #[test]
    fn one_big_entry_is_served_but_not_kept() {
        let now = Instant::now();
        let mut store = Store::new(LruOptions {
            max_bytes: 40_000,
            ..LruOptions::default()
        });
        store.insert(&secret(1), &found(1, 1, 5000, sent(now)), now);
        store.insert(&secret(2), &found(2, 1, 10, sent(now)), now);
        let grown = store.insert(&secret(2), &found(2, 2, 10_000, sent(now)), now);
        assert_eq!(grown.reasons(), [Eviction::Oversized]);
        let mut removed = Removed::default();
        assert!(
            store.look_up(&secret(1), now, &mut removed).is_some(),
            "the others stay"
        );
        assert!(
            store.look_up(&secret(2), now, &mut removed).is_none(),
            "its old version does not"
        );
    }

    #[test]
    fn closed_it_stays_empty() {
        let now = Instant::now();
        let mut store = Store::new(LruOptions::default());
        store.insert(&secret(1), &found(1, 1, 10, sent(now)), now);
        assert_eq!(store.close().reasons(), [Eviction::Cleared]);
        store.insert(&secret(1), &found(1, 1, 10, sent(now)), now);
        assert_eq!(store.size(), CacheSize::default());
        store.open();
        store.insert(&secret(1), &found(1, 1, 10, sent(now)), now);
        assert_eq!(store.size().entries, 1);
    }

    /// The obvious implementation: a list, the most recently used last.
    #[derive(Default)]
    struct Model(Vec<(usize, u64, Instant, usize)>);

    impl Model {
        fn bytes(&self) -> usize {
            self.0.iter().map(|(.., cost)| cost).sum()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert { number: usize, bytes: usize },
        LookUp { number: usize },
        Wait { seconds: u64 },
        Expire,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..20, prop_oneof![0_usize..300, 0_usize..6000])
                .prop_map(|(number, bytes)| Step::Insert { number, bytes }),
            4 => (0_usize..20).prop_map(|number| Step::LookUp { number }),
            1 => (0_u64..30).prop_map(|seconds| Step::Wait { seconds }),
            1 => Just(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_within_bounds(steps in prop::collection::vec(step(), 1..150)) {
            let options = LruOptions { max_secrets: 8, max_bytes: 16_000, ..LruOptions::default() };
            let mut store = Store::new(options.clone());
            let mut model = Model::default();
            let mut now = Instant::now();
            for (version, step) in (1..).zip(steps) {
                match step {
                    Step::Wait { seconds } => now += Duration::from_secs(seconds),
                    Step::Expire => {
                        drop(store.expire(now));
                        model.0.retain(|(_, _, at, _)| now - *at <= options.max_age);
                    }
                    Step::LookUp { number } => {
                        let mut removed = Removed::default();
                        let hit = version_of(&mut store, number, now, &mut removed);
                        let held = model.0.iter().position(|entry| entry.0 == number).map(|at| model.0.remove(at));
                        let fresh = held.filter(|(_, _, at, _)| now - *at <= options.max_age);
                        prop_assert_eq!(hit, fresh.map(|entry| entry.1));
                        model.0.extend(fresh);
                    }
                    Step::Insert { number, bytes } => {
                        let answer = found(number, version, bytes, sent(now));
                        let content = answer.found.as_ref().map_or(0, |found| found.cost());
                        let cost = content + secret(number).heap_bytes() + NODE_BYTES;
                        drop(store.insert(&secret(number), &answer, now));
                        model.0.retain(|entry| entry.0 != number);
                        if cost <= options.max_bytes / options.entry_share {
                            model.0.push((number, version, now, cost));
                        }
                        while model.0.len() > options.max_secrets || model.bytes() > options.max_bytes {
                            model.0.remove(0);
                        }
                    }
                }
                let size = store.size();
                prop_assert_eq!((size.entries, size.bytes), (model.0.len(), model.bytes()));
                prop_assert!(size.entries <= options.max_secrets && size.bytes <= options.max_bytes);
            }
            let cleared = store.close();
            prop_assert_eq!(cleared.len(), model.0.len());
            prop_assert_eq!(store.size(), CacheSize::default());
        }
    }

    fn version_of(store: &mut Store, number: usize, now: Instant, removed: &mut Removed) -> Option<u64> {
        version(store.look_up(&secret(number), now, removed))
    }
}
