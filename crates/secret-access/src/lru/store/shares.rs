//! A bounded map whose keys belong to groups that cannot push each other out.
//!
//! Generic and pure, and free of the rest of the crate, because a benchmark compiles this file by itself.
//!
//! Three rules, each for one way in which plain LRU fails:
//!
//! - **Order.** Each group has its entries in the order of their use. What goes first is what was not used for longest.
//! - **Admission.** In a full map, a newcomer displaces only what was not used for longer than itself: the time since its own
//!   last use is compared with the time since theirs. A loop over more keys than fit finds the same ones held each time around
//!   instead of none, and what is read once displaces nothing. Where one newcomer needs the room of several entries, the
//!   squares of the quotients of these times add up: many that are in use outweigh it, many that are not do not. What was
//!   refused or displaced is remembered for this as a hash and a time, in a table of fixed size. What the table forgets counts
//!   as never used.
//! - **Shares.** With `k` groups active, none loses an entry, or is refused one, while it has at most the `k`-th part of each
//!   bound. Only groups beyond their share make room.
//!
//! Time is counted in uses of the map.

use std::collections::HashMap;
use std::hash::Hash;

use ::lru::LruCache;

use super::active::Active;
use super::load::{Bound, Load, Share};
use super::past::{Past, Use};

/// A key that belongs to a group.
pub(crate) trait Grouped {
    /// The group's name.
    fn group(&self) -> &str;
}

/// What is to be held. `S` orders events: when an entry was asked for, and when another was refused.
pub(crate) struct Newcomer<K, V, S> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) weight: usize,
    /// When it was asked for.
    pub(crate) asked: S,
    /// Now.
    pub(crate) arrived: S,
}

/// What became of a newcomer.
pub(crate) struct Outcome<V> {
    /// What was held under the same key.
    pub(crate) replaced: Option<V>,
    /// What made room, and for which bound.
    pub(crate) evicted: Vec<(V, Bound)>,
    /// The newcomer, if it is not held.
    pub(crate) refused: Option<(V, Refusal)>,
}

/// Why a newcomer is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What it would displace is used more often, or is within its group's share.
    Outweighed,
    /// It was asked for before the same key was refused or displaced, so this is no further use of it.
    Repeated,
}

/// The map.
pub(crate) struct Shares<K, V, S> {
    groups: HashMap<Box<str>, Group<K, V>, ::lru::DefaultHasher>,
    load: Load,
    bounds: Load,
    /// What a group weighs beside its entries.
    group_weight: usize,
    /// Uses so far. It wraps: what was not used for 2^32 uses seems recent once, which is harmless.
    uses: u32,
    active: Active,
    past: Past<S>,
}

struct Group<K, V> {
    entries: LruCache<K, Node<V>>,
    load: Load,
    /// When the entry was used that was not used for longest: here, so that looking for it follows no pointers.
    oldest: u32,
    mark: usize,
}

impl<K: Hash + Eq, V> Group<K, V> {
    fn note_oldest(&mut self) {
        if let Some((_, node)) = self.entries.peek_lru() {
            self.oldest = node.used;
        }
    }
}

struct Node<V> {
    value: V,
    weight: usize,
    used: u32,
}

impl<K: Grouped + Hash + Eq + Clone, V, S: Copy + PartialOrd> Shares<K, V, S> {
    /// What an entry takes beside its value's contents: the list's node with its two links, and its part of the hash table,
    /// which is between 7/16 and 7/8 full and has 17 bytes for each place.
    pub(crate) const ENTRY_BYTES: usize = Self::NODE_BYTES + 32;
    const NODE_BYTES: usize = size_of::<K>() + size_of::<Node<V>>() + 2 * size_of::<usize>();
    /// What a group takes beside its entries: its place in the table of groups, the two ends of its list, the smallest hash
    /// table, and its name, about.
    pub(crate) const GROUP_BYTES: usize = 2 * size_of::<(Box<str>, Group<K, V>)>() + 2 * Self::NODE_BYTES + 96 + 32;

    /// An empty map within these bounds; `group_weight` is added to the weight for each group that has entries.
    pub(crate) fn new(bounds: Load, group_weight: usize) -> Self {
        Self {
            groups: HashMap::default(),
            load: Load::default(),
            bounds,
            group_weight,
            uses: 0,
            active: Active::new(bounds.entries),
            past: Past::new(bounds.entries),
        }
    }

    /// What is held.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// The value, which is hereby used.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let group = self.groups.get_mut(key.group())?;
        let uses = self.uses.wrapping_add(1);
        // Only the use of the oldest makes another one the oldest.
        if group.entries.peek_lru().is_some_and(|(oldest, _)| oldest == key) {
            group.entries.get_mut(key)?.used = uses;
            group.note_oldest();
        }
        let node = group.entries.get_mut(key)?;
        node.used = uses;
        self.uses = uses;
        self.active.record(group.mark);
        Some(&mut node.value)
    }

    /// The value, which is not used by that.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        let node = self.groups.get(key.group())?.entries.peek(key)?;
        Some(&node.value)
    }

    /// The value, which is not used by that.
    pub(crate) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        let node = self.groups.get_mut(key.group())?.entries.peek_mut(key)?;
        Some(&mut node.value)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.take(key).map(|node| node.value)
    }

    /// Takes everything out, and gives all memory back.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = V> + use<K, V, S> {
        let emptied = std::mem::replace(self, Self::new(self.bounds, self.group_weight));
        let groups = emptied.groups.into_values();
        groups.flat_map(|group| group.entries.into_iter().map(|(_, node)| node.value))
    }

    /// Holds `newcomer` if there is room or it may displace others. One that takes the place of an older value under the
    /// same key need not be used more often than others.
    pub(crate) fn insert(&mut self, newcomer: Newcomer<K, V, S>) -> Outcome<V> {
        let Newcomer {
            key,
            value,
            weight,
            asked,
            arrived,
        } = newcomer;
        self.uses = self.uses.wrapping_add(1);
        self.active.record(Active::mark(key.group()));
        let mut outcome = Outcome {
            replaced: self.remove(&key),
            evicted: Vec::new(),
            refused: None,
        };
        let used = self.uses;
        if self.with(key.group(), weight).total.beyond(self.bounds).is_some() {
            let earlier = self.past.recall(&key);
            let claim = match (&outcome.replaced, earlier) {
                (Some(_), _) => Claim::Held,
                (None, Some(earlier)) if asked < earlier.stamp => {
                    outcome.refused = Some((value, Refusal::Repeated));
                    return outcome;
                }
                (None, Some(earlier)) => Claim::After(self.age(earlier.used)),
                (None, None) => Claim::Unknown,
            };
            let Some(displaced) = self.make_room(key.group(), weight, claim) else {
                self.past.record(&key, Use { used, stamp: arrived }, used);
                outcome.refused = Some((value, Refusal::Outweighed));
                return outcome;
            };
            self.past.forget(&key);
            for (key, node, bound) in displaced {
                let last = Use {
                    used: node.used,
                    stamp: arrived,
                };
                self.past.record(&key, last, used);
                outcome.evicted.push((node.value, bound));
            }
        }
        self.put(key, Node { value, weight, used });
        outcome
    }

    /// Keeps within other bounds from now on. Takes out what is beyond them, in the order in which it would make room.
    pub(crate) fn set_bounds(&mut self, bounds: Load) -> Vec<V> {
        self.bounds = bounds;
        self.shrink(bounds)
    }

    /// Takes entries out until what is left is within `bounds`, in the order in which they would make room.
    pub(crate) fn shrink(&mut self, bounds: Load) -> Vec<V> {
        let mut removed = Vec::new();
        while let Some(bound) = self.load.beyond(bounds) {
            let share = Share {
                bound,
                bounds,
                groups: self.active_groups(None),
            };
            let Some((key, _)) = self.oldest(&share, None) else {
                break;
            };
            removed.extend(self.remove(&key));
        }
        removed
    }

    /// Takes out of each group the entries that were not used for longest, as long as they are `gone`.
    pub(crate) fn trim(&mut self, gone: impl Fn(&V) -> bool) -> Vec<V> {
        let mut removed = Vec::new();
        for group in self.groups.values_mut() {
            while let Some((_, node)) = group.entries.peek_lru()
                && gone(&node.value)
                && let Some((_, node)) = group.entries.pop_lru()
            {
                group.load.subtract(1, node.weight);
                self.load.subtract(1, node.weight);
                removed.push(node.value);
            }
            group.note_oldest();
        }
        self.drop_empty_groups();
        removed
    }

    /// Takes out all entries that are `gone`. Looks at each.
    pub(crate) fn extract(&mut self, mut gone: impl FnMut(&V) -> bool) -> Vec<V> {
        let all = self.groups.values().flat_map(|group| group.entries.iter());
        let keys: Vec<K> = all
            .filter(|(_, node)| gone(&node.value))
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Room for one more entry of this weight in this group, at the cost of entries that are used less often; `None` if that
    /// cannot be, and then nothing changes.
    fn make_room(&mut self, name: &str, weight: usize, claim: Claim) -> Option<Vec<(K, Node<V>, Bound)>> {
        let alone = Load {
            entries: 1,
            weight: weight + self.group_weight,
        };
        if alone.beyond(self.bounds).is_some() {
            return None;
        }
        let mut displaced = Vec::new();
        let mut loss = 0.0;
        loop {
            let prospect = self.with(name, weight);
            let Some(bound) = prospect.total.beyond(self.bounds) else {
                return Some(displaced);
            };
            let share = Share {
                bound,
                bounds: self.bounds,
                groups: self.active_groups(Some(name)),
            };
            if let Some((key, used)) = self.oldest(&share, Some((name, prospect.own))) {
                let admitted = match claim {
                    _ if !share.exceeded_by(prospect.own) => true,
                    Claim::Held => true,
                    Claim::After(uses) => {
                        loss += (f64::from(uses) / f64::from(self.age(used))).powi(2);
                        loss < 1.0
                    }
                    Claim::Unknown => false,
                };
                if admitted {
                    displaced.extend(self.take(&key).map(|node| (key, node, bound)));
                    continue;
                }
            }
            for (key, node, _) in displaced.into_iter().rev() {
                self.put_oldest(&key, node);
            }
            return None;
        }
    }

    /// The entry that was not used for longest, of all in groups beyond their share; and when it was used.
    fn oldest(&self, share: &Share, newcomer: Option<(&str, Load)>) -> Option<(K, u32)> {
        let newcomer = newcomer.map(|(name, load)| (name, Active::mark(name), load));
        let mut oldest: Option<&Group<K, V>> = None;
        for (name, group) in &self.groups {
            if oldest.is_some_and(|oldest| self.age(oldest.oldest) >= self.age(group.oldest)) {
                continue;
            }
            let load = match newcomer {
                // The mark first, because the name is behind a pointer.
                Some((own, mark, load)) if mark == group.mark && own == name.as_ref() => load,
                _ => group.load,
            };
            if share.exceeded_by(load) && !group.entries.is_empty() {
                oldest = Some(group);
            }
        }
        let (key, node) = oldest?.entries.peek_lru()?;
        Some((key.clone(), node.used))
    }

    fn age(&self, used: u32) -> u32 {
        self.uses.wrapping_sub(used)
    }

    /// How many groups share the bounds.
    fn active_groups(&self, newcomer: Option<&str>) -> usize {
        let new = newcomer.is_some_and(|group| !self.groups.contains_key(group));
        (self.groups.len() + usize::from(new)).max(self.active.count())
    }

    /// What would be held with one more entry.
    fn with(&self, group: &str, weight: usize) -> Prospect {
        let held = self.groups.get(group).map(|group| group.load);
        let before = held.unwrap_or_default();
        let mut own = held.unwrap_or(Load {
            entries: 0,
            weight: self.group_weight,
        });
        own.add(1, weight);
        let mut total = self.load;
        total.subtract(before.entries, before.weight);
        total.add(own.entries, own.weight);
        Prospect { total, own }
    }

    fn put(&mut self, key: K, node: Node<V>) {
        if !self.groups.contains_key(key.group()) {
            self.load.add(0, self.group_weight);
        }
        let group = self.groups.entry(key.group().into()).or_insert_with(|| Group {
            entries: LruCache::unbounded(),
            load: Load {
                entries: 0,
                weight: self.group_weight,
            },
            oldest: node.used,
            mark: Active::mark(key.group()),
        });
        group.load.add(1, node.weight);
        self.load.add(1, node.weight);
        group.entries.put(key, node);
        group.note_oldest();
    }

    fn put_oldest(&mut self, key: &K, node: Node<V>) {
        self.put(key.clone(), node);
        if let Some(group) = self.groups.get_mut(key.group()) {
            group.entries.demote(key);
            group.note_oldest();
        }
    }

    fn take(&mut self, key: &K) -> Option<Node<V>> {
        let group = self.groups.get_mut(key.group())?;
        let node = group.entries.pop(key)?;
        group.note_oldest();
        group.load.subtract(1, node.weight);
        self.load.subtract(1, node.weight);
        if group.entries.is_empty() {
            self.groups.remove(key.group());
            self.load.subtract(0, self.group_weight);
            self.shrink_groups();
        }
        Some(node)
    }

    fn drop_empty_groups(&mut self) {
        let before = self.groups.len();
        self.groups.retain(|_, group| !group.entries.is_empty());
        self.load.subtract(0, (before - self.groups.len()) * self.group_weight);
        self.shrink_groups();
    }

    /// Groups that there is room for without growing.
    #[cfg(test)]
    pub(crate) fn room_for_groups(&self) -> usize {
        self.groups.capacity()
    }

    /// A hash table does not give memory back by itself.
    fn shrink_groups(&mut self) {
        if self.groups.capacity() > 64 && self.groups.len() < self.groups.capacity() / 4 {
            self.groups.shrink_to(2 * self.groups.len());
        }
    }
}

struct Prospect {
    total: Load,
    own: Load,
}

/// What a newcomer has to say for itself.
#[derive(Clone, Copy)]
enum Claim {
    /// It was held until now, in another version.
    Held,
    /// It is used again, after so many uses of others.
    After(u32),
    /// It was never used, or that is forgotten.
    Unknown,
}
