//! What is remembered of keys that are not held.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

/// Slots that a key may be in.
const BUCKET: usize = 4;

/// The tag of a slot without a key.
const EMPTY: u32 = 0;

/// The last use of something that is not held.
#[derive(Clone, Copy)]
pub(crate) struct Use<S> {
    pub(crate) used: u32,
    /// When it was refused or displaced.
    pub(crate) stamp: S,
}

/// What is remembered of keys that are not held: a hash table without growth, in buckets, where the new displaces the oldest.
/// Two keys with the same hash are taken for one, and then one of them may be let in once too often.
pub(crate) struct Past<S> {
    slots: Vec<Slot<S>>,
    buckets: u64,
}

#[derive(Clone, Copy)]
struct Slot<S> {
    tag: u32,
    // As in `Use`, which would take 8 bytes more here.
    used: u32,
    stamp: S,
}

impl<S: Copy> Slot<S> {
    fn new(tag: u32, last: Use<S>) -> Self {
        let Use { used, stamp } = last;
        Self { tag, used, stamp }
    }

    fn last(&self) -> Use<S> {
        let Self { used, stamp, .. } = *self;
        Use { used, stamp }
    }
}

impl<S: Copy> Past<S> {
    /// Remembers four keys for each entry held, between 1,024 and 65,536, in 16 bytes each.
    pub(crate) fn new(entries: usize) -> Self {
        let slots = entries.saturating_mul(4).clamp(1 << 10, 1 << 16);
        Self {
            slots: Vec::new(),
            buckets: (slots / BUCKET) as u64,
        }
    }

    pub(crate) fn recall(&self, key: &impl Hash) -> Option<Use<S>> {
        let (tag, start) = self.place(key);
        let bucket = self.slots.get(start..start + BUCKET)?;
        bucket.iter().find(|slot| slot.tag == tag).map(Slot::last)
    }

    /// Remembers the last use of a key, at the cost of what was not used for longest in its bucket as of `now`.
    pub(crate) fn record(&mut self, key: &impl Hash, last: Use<S>, now: u32) {
        let (tag, start) = self.place(key);
        if self.slots.is_empty() {
            let slots = usize::try_from(self.buckets).unwrap_or_default() * BUCKET;
            self.slots = vec![Slot::new(EMPTY, last); slots];
        }
        let bucket = self.slots.get_mut(start..start + BUCKET).unwrap_or_default();
        let worth = |slot: &Slot<S>| match slot.tag {
            same if same == tag => (2, 0),
            EMPTY => (1, 0),
            _ => (0, now.wrapping_sub(slot.used)),
        };
        if let Some(slot) = bucket.iter_mut().max_by_key(|slot| worth(slot)) {
            *slot = Slot::new(tag, last);
        }
    }

    pub(crate) fn forget(&mut self, key: &impl Hash) {
        let (tag, start) = self.place(key);
        let bucket = self.slots.get_mut(start..start + BUCKET).unwrap_or_default();
        for slot in bucket.iter_mut().filter(|slot| slot.tag == tag) {
            slot.tag = EMPTY;
        }
    }

    /// What tells keys in a bucket apart, and where the bucket begins. The hash is not keyed: whoever makes keys collide makes
    /// them forgotten, and gains nothing.
    fn place(&self, key: &impl Hash) -> (u32, usize) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let tag = u32::try_from(hash >> 32).unwrap_or_default().max(1);
        let bucket = usize::try_from((hash & u64::from(u32::MAX)) % self.buckets).unwrap_or_default();
        (tag, bucket * BUCKET)
    }
}
