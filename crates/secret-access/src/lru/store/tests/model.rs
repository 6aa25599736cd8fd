//! The store beside an obvious implementation: lists that are searched from end to end, and copied before a change that may
//! have to be undone.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECRETS: usize = 12;
const BYTES: usize = 20_000;

fn options() -> LruOptions {
    LruOptions {
        max_secrets: SECRETS,
        max_bytes: BYTES,
        max_absent: 4,
        max_idle: seconds(90),
        stale_if_unavailable: seconds(30),
        ..LruOptions::default()
    }
}

/// Namespace and name.
type Key = (usize, usize);

#[derive(Clone, Debug)]
struct Held {
    key: Key,
    version: u64,
    weight: usize,
    sent: Sent,
    read: Instant,
    used: u32,
}

#[derive(Clone, Default)]
struct Model {
    contents: Vec<Held>,
    /// The one asked for first is the first.
    absences: Vec<(Key, Instant)>,
    /// Last uses of what was refused or displaced, and when that was.
    past: BTreeMap<Key, (u32, Moment)>,
    active: BTreeSet<usize>,
    uses: u32,
}

impl Model {
    fn load(&self, namespace: Option<usize>) -> [usize; 2] {
        let mut load = [0, 0];
        let mut seen = BTreeSet::new();
        for held in &self.contents {
            if namespace.is_none_or(|namespace| held.key.0 == namespace) {
                load[0] += 1;
                load[1] += held.weight;
                if seen.insert(held.key.0) {
                    load[1] += Contents::GROUP_BYTES;
                }
            }
        }
        load
    }

    fn size(&self) -> (usize, usize) {
        let [entries, bytes] = self.load(None);
        let absences: usize = self
            .absences
            .iter()
            .map(|(key, _)| absence_cost(&secret(key.0, key.1)))
            .sum();
        (entries + self.absences.len(), bytes + absences)
    }

    fn find(&mut self, key: Key) -> Option<&mut Held> {
        self.contents.iter_mut().find(|held| held.key == key)
    }

    /// The content read longest ago in a namespace that is beyond its share of bound 0 or 1.
    fn oldest(&self, bound: usize, bounds: [usize; 2]) -> Option<Held> {
        let namespaces: BTreeSet<usize> = self.contents.iter().map(|held| held.key.0).collect();
        let groups = namespaces.len().max(self.active.len());
        let beyond = |held: &&Held| self.load(Some(held.key.0))[bound] * groups > bounds[bound];
        self.contents
            .iter()
            .filter(beyond)
            .min_by_key(|held| held.used)
            .cloned()
    }

    fn beyond(&self, bounds: [usize; 2]) -> Option<usize> {
        let load = self.load(None);
        (0..2).find(|bound| load[*bound] > bounds[*bound])
    }

    fn insert(&mut self, new: &Held) -> Vec<Eviction> {
        let key = new.key;
        self.absences.retain(|(absent, _)| *absent != key);
        if new.weight > BYTES / 4 {
            self.contents.retain(|held| held.key != key);
            return vec![Eviction::Oversized];
        }
        self.uses += 1;
        self.active.insert(key.0);
        let mut reasons = Vec::new();
        let replaced = self.find(key).is_some();
        self.contents.retain(|held| held.key != key);
        let before = self.clone();
        let uses = self.uses;
        let asked = new.sent.moment;
        self.contents.push(Held {
            used: uses,
            ..new.clone()
        });
        if self.beyond([SECRETS, BYTES]).is_some() {
            let known = self.past.get(&key).copied();
            if !replaced && known.is_some_and(|(_, stamp)| asked < stamp) {
                *self = before;
                return reasons;
            }
            let mut loss = 0.0;
            while let Some(bound) = self.beyond([SECRETS, BYTES]) {
                let groups = self
                    .contents
                    .iter()
                    .map(|held| held.key.0)
                    .collect::<BTreeSet<_>>()
                    .len();
                let groups = groups.max(self.active.len());
                let own = self.load(Some(key.0))[bound] * groups;
                let within = own <= [SECRETS, BYTES][bound];
                let oldest = self.oldest(bound, [SECRETS, BYTES]).filter(|oldest| oldest.key != key);
                let admitted = oldest.as_ref().is_some_and(|oldest| {
                    if within || replaced {
                        return true;
                    }
                    let Some((known, _)) = known else { return false };
                    loss += (f64::from(uses - known) / f64::from(uses - oldest.used)).powi(2);
                    loss < 1.0
                });
                let Some(oldest) = oldest.filter(|_| admitted) else {
                    *self = before;
                    self.past.insert(key, (uses, Moment::next()));
                    return vec![Eviction::NotAdmitted];
                };
                self.contents.retain(|held| held.key != oldest.key);
                self.past.insert(oldest.key, (oldest.used, Moment::next()));
                reasons.push([Eviction::Entries, Eviction::Bytes][bound]);
            }
            self.past.remove(&key);
        }
        reasons.extend(self.shrink_absences());
        reasons
    }

    fn shrink_absences(&mut self) -> Vec<Eviction> {
        let mut reasons = Vec::new();
        while !self.absences.is_empty() {
            let (entries, bytes) = self.size();
            reasons.push(if self.absences.len() > 4 || entries > SECRETS {
                Eviction::Entries
            } else if bytes > BYTES {
                Eviction::Bytes
            } else {
                break;
            });
            self.absences.remove(0);
        }
        reasons
    }

    fn shrink(&mut self, bounds: [usize; 2]) {
        while let Some(bound) = self.beyond(bounds)
            && let Some(oldest) = self.oldest(bound, bounds)
        {
            self.contents.retain(|held| held.key != oldest.key);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Read { key: Key, bytes: usize },
    Write { key: Key, bytes: usize },
    Repeat { key: Key },
    Absent { key: Key },
    Confirm { key: Key, same: bool },
    Wait { seconds: u64 },
    Expire,
    Purge { level: Purge },
    Reopen,
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![(0..3_usize, 0..12_usize), (0..1_usize, 0..12_usize)]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0_usize..300, 1 => 0_usize..6000]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => (key(), bytes()).prop_map(|(key, bytes)| Step::Read { key, bytes }),
        4 => (key(), bytes()).prop_map(|(key, bytes)| Step::Write { key, bytes }),
        2 => key().prop_map(|key| Step::Repeat { key }),
        3 => key().prop_map(|key| Step::Absent { key }),
        2 => (key(), any::<bool>()).prop_map(|(key, same)| Step::Confirm { key, same }),
        3 => (0_u64..30).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Expire),
        1 => prop_oneof![8 => Just(Purge::Idle), 8 => Just(Purge::Half), 1 => Just(Purge::All)]
            .prop_map(|level| Step::Purge { level }),
        1 => Just(Step::Reopen),
    ]
}

fn sorted(reasons: &[Eviction]) -> Vec<&'static str> {
    let mut names: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..200)) {
        let options = options();
        let mut store = Store::new(options.clone());
        let mut model = Model::default();
        let mut last: BTreeMap<Key, (Answer, usize)> = BTreeMap::new();
        let mut now = Instant::now();
        for (version, step) in (1..).zip(steps) {
            let mut expected: Vec<Eviction> = Vec::new();
            let mut got = Removed::default();
            match step {
                Step::Wait { seconds: wait } => now += seconds(wait),
                Step::Read { key, bytes } | Step::Write { key, bytes } => {
                    let name = secret(key.0, key.1);
                    let read = matches!(step, Step::Read { .. });
                    let held = if read { store.held(&name, now) } else { None };
                    if read {
                        let uses = model.uses + 1;
                        let there = model.find(key).map(|held| {
                            (held.used, held.read) = (uses, now);
                            held.version
                        });
                        if there.is_some() {
                            model.uses = uses;
                            model.active.insert(key.0);
                        }
                        let absent = model.absences.iter().find(|absence| absence.0 == key);
                        let absent = absent.is_some_and(|(_, sent)| now - *sent <= options.negative_age);
                        prop_assert_eq!(held.is_some(), there.is_some() || absent);
                        prop_assert_eq!(super::version(held.clone()), there);
                    }
                    if held.is_none() {
                        let answer = found(name.clone(), version, bytes, sent(now));
                        let cost = answer.found.as_ref().map_or(0, |found| found.cost());
                        let weight = cost + Contents::ENTRY_BYTES;
                        got = store.insert(&name, &answer, now);
                        let sent = answer.sent;
                        expected = model.insert(&Held { key, version, weight, sent, read: now, used: 0 });
                        last.insert(key, (answer, weight));
                    }
                }
                Step::Repeat { key } => {
                    let name = secret(key.0, key.1);
                    if let Some((answer, weight)) = last.get(&key) {
                        let known = model.find(key).is_some() || model.absences.iter().any(|absence| absence.0 == key);
                        got = store.insert(&name, answer, now);
                        if !known {
                            let version = answer.found.as_ref().map_or(0, |found| found.resource_version().number());
                            let held = Held { key, version, weight: *weight, sent: answer.sent, read: now, used: 0 };
                            expected = model.insert(&held);
                        }
                    }
                }
                Step::Absent { key } => {
                    let name = secret(key.0, key.1);
                    got = store.insert(&name, &absent(sent(now)), now);
                    model.contents.retain(|held| held.key != key);
                    model.absences.retain(|(absent, _)| *absent != key);
                    model.absences.push((key, now));
                    expected = model.shrink_absences();
                }
                Step::Confirm { key, same } => {
                    let name = secret(key.0, key.1);
                    let held = model.find(key).map(|held| held.version);
                    let asked = held.unwrap_or_default() + u64::from(!same);
                    let confirmed = store.confirm(&name, "u", ResourceVersion::new(asked), sent(now));
                    prop_assert_eq!(confirmed, held == Some(asked));
                    if let Some(held) = model.find(key).filter(|_| confirmed) {
                        held.sent.at = now;
                    }
                }
                Step::Expire => {
                    got = store.expire(now);
                    let before = model.contents.len();
                    model.contents.retain(|held| now - held.read <= options.max_idle);
                    expected.resize(before - model.contents.len(), Eviction::Idle);
                    let before = model.contents.len() + model.absences.len();
                    let limit = options.max_age + options.max_idle + options.stale_if_unavailable;
                    model.contents.retain(|held| now - held.sent.at <= limit);
                    model.absences.retain(|(_, sent)| now - *sent <= options.negative_age);
                    let gone = before - model.contents.len() - model.absences.len();
                    expected.resize(expected.len() + gone, Eviction::Age);
                }
                Step::Purge { level } => {
                    got = store.purge(level, now);
                    let (before, bytes) = model.size();
                    model.absences.clear();
                    match level {
                        Purge::Idle => model.contents.retain(|held| now - held.read <= options.max_age / 4),
                        Purge::Half => model.shrink([SECRETS, bytes / 2]),
                        Purge::All => model = Model::default(),
                    }
                    expected.resize(before - model.size().0, Eviction::Purged);
                }
                Step::Reopen => {
                    // Only now and then, or nothing ever fills up.
                    if version % 5 == 0 {
                        got = store.close();
                        expected.resize(model.size().0, Eviction::Cleared);
                        model = Model::default();
                        store.open();
                    }
                }
            }
            prop_assert_eq!(sorted(got.reasons()), sorted(&expected));
            let size = store.size();
            prop_assert_eq!((size.entries, size.bytes), model.size());
            prop_assert_eq!(store.is_empty(), size.entries == 0);
            prop_assert!(size.entries <= SECRETS && size.bytes <= BYTES);
            for held in &model.contents {
                let content = store.contents.peek(&secret(held.key.0, held.key.1));
                let content = content.map(|held| held.snapshot.resource_version().number());
                prop_assert_eq!(content, Some(held.version), "{:?}", held);
            }
        }
        prop_assert_eq!(store.close().reasons().len(), model.size().0);
        prop_assert_eq!(store.size(), CacheSize::default());
    }
}
