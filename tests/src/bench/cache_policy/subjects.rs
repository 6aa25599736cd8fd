//! The caches that are compared. Each is given the same bytes, by the same weights, and enough entries.

use std::hash::Hash;

use super::{
    load::Load,
    shares::{Grouped, Newcomer, Shares},
};

/// A cache of keys, each with a weight.
pub trait Subject {
    /// Reads a key, and keeps it if it was not there. Whether it was.
    fn read(&mut self, key: u32, weight: u32) -> bool;

    /// Entries held now.
    fn entries(&mut self) -> u64;
}

/// A subject by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The `lru` crate: who comes is let in, and the least recently used goes.
    PlainLru,
    /// What the library ships.
    Shipped,
    /// The same, each key in a group of its own.
    ShippedApart,
    /// The crate `quick_cache`.
    QuickCache,
    /// The crate `moka`.
    Moka,
}

impl Kind {
    /// All, the shipped one first.
    pub const ALL: [Self; 5] = [
        Self::Shipped,
        Self::ShippedApart,
        Self::PlainLru,
        Self::QuickCache,
        Self::Moka,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlainLru => "plain lru",
            Self::Shipped => "shipped",
            Self::ShippedApart => "shipped, a namespace each",
            Self::QuickCache => "quick_cache",
            Self::Moka => "moka",
        }
    }

    /// An empty one for so many bytes, about so many entries, and at most so many where there is such a bound.
    #[must_use]
    pub fn create(self, capacity: u64, expected: usize, most: usize) -> Box<dyn Subject> {
        match self {
            Self::PlainLru => Box::new(PlainLru::new(capacity)),
            Self::Shipped => Box::new(Shipped::<Together>::new(capacity, most)),
            Self::ShippedApart => Box::new(Shipped::<Apart>::new(capacity, most)),
            Self::QuickCache => Box::new(QuickCache::new(capacity, expected)),
            Self::Moka => Box::new(Moka::new(capacity)),
        }
    }
}

/// A value as big as what the library holds for each Secret beside its contents.
pub(super) type Value = [u64; 7];

const VALUE: Value = [0; 7];

struct PlainLru {
    entries: lru::LruCache<u32, (u32, Value)>,
    weight: u64,
    capacity: u64,
}

impl PlainLru {
    fn new(capacity: u64) -> Self {
        Self {
            entries: lru::LruCache::unbounded(),
            weight: 0,
            capacity,
        }
    }
}

impl Subject for PlainLru {
    fn read(&mut self, key: u32, weight: u32) -> bool {
        if self.entries.get(&key).is_some() {
            return true;
        }
        self.entries.put(key, (weight, VALUE));
        self.weight += u64::from(weight);
        while self.weight > self.capacity
            && let Some((_, (weight, _))) = self.entries.pop_lru()
        {
            self.weight -= u64::from(weight);
        }
        false
    }

    fn entries(&mut self) -> u64 {
        self.entries.len() as u64
    }
}

/// A key in the one namespace there is.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Together(u32);

impl From<u32> for Together {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl Grouped for Together {
    fn group(&self) -> &'static str {
        "namespace"
    }
}

/// A key in a namespace of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Apart(u32, Box<str>);

impl From<u32> for Apart {
    fn from(number: u32) -> Self {
        Self(number, number.to_string().into())
    }
}

impl Grouped for Apart {
    fn group(&self) -> &str {
        &self.1
    }
}

struct Shipped<K> {
    entries: Shares<K, Value, u64>,
    reads: u64,
}

impl<K: Grouped + Clone + Eq + Hash> Shipped<K> {
    fn new(capacity: u64, entries: usize) -> Self {
        let bounds = Load {
            entries,
            weight: usize::try_from(capacity).unwrap_or(usize::MAX),
        };
        Self {
            entries: Shares::new(bounds, 0),
            reads: 0,
        }
    }
}

impl<K: Grouped + Clone + Eq + Hash + From<u32>> Subject for Shipped<K> {
    fn read(&mut self, key: u32, weight: u32) -> bool {
        let key = K::from(key);
        self.reads += 1;
        if self.entries.get(&key).is_some() {
            return true;
        }
        self.entries.insert(Newcomer {
            key,
            value: VALUE,
            weight: weight as usize,
            asked: self.reads,
            arrived: self.reads,
        });
        false
    }

    fn entries(&mut self) -> u64 {
        self.entries.load().entries as u64
    }
}

#[derive(Clone)]
struct Weights;

impl quick_cache::Weighter<u32, (u32, Value)> for Weights {
    fn weight(&self, _: &u32, value: &(u32, Value)) -> u64 {
        u64::from(value.0)
    }
}

struct QuickCache(quick_cache::unsync::Cache<u32, (u32, Value), Weights>);

impl QuickCache {
    fn new(capacity: u64, entries: usize) -> Self {
        Self(quick_cache::unsync::Cache::with_weighter(entries, capacity, Weights))
    }
}

impl Subject for QuickCache {
    fn read(&mut self, key: u32, weight: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, (weight, VALUE));
        false
    }

    fn entries(&mut self) -> u64 {
        self.0.len() as u64
    }
}

struct Moka {
    cache: moka::sync::Cache<u32, (u32, Value)>,
    misses: u64,
}

impl Moka {
    fn new(capacity: u64) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_: &u32, value: &(u32, Value)| value.0)
            .build();
        Self { cache, misses: 0 }
    }
}

impl Subject for Moka {
    fn read(&mut self, key: u32, weight: u32) -> bool {
        if self.cache.get(&key).is_some() {
            return true;
        }
        self.cache.insert(key, (weight, VALUE));
        self.misses += 1;
        // It settles what was inserted now and then, by the clock too, which would make runs differ.
        if self.misses.is_multiple_of(16) {
            self.cache.run_pending_tasks();
        }
        false
    }

    fn entries(&mut self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }
}
