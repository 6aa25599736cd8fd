//! What was written here a moment ago: so that our own writes, which the watches show us, lead to no work.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

/// How many writes are remembered, as eight bytes each.
const MOST: usize = 4096;

/// Remembers versions of objects. What it has forgotten, or never saw, is looked at once more than needed, and that is all.
#[derive(Default)]
pub(super) struct Recent {
    keys: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    digests: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// This version of the object with this uid is ours; no version for the object's end.
    pub(super) fn wrote(&self, uid: &str, version: &str) {
        let digest = self.keys.hash_one((uid, version));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.digests.insert(digest) {
            return;
        }
        seen.order.push_back(digest);
        if seen.order.len() > MOST
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.digests.remove(&oldest);
        }
    }

    /// It was not written after all.
    pub(super) fn forget(&self, uid: &str, version: &str) {
        let digest = self.keys.hash_one((uid, version));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Its place in the order stays: should it be written again meanwhile, it is forgotten sooner, which does no harm.
        seen.digests.remove(&digest);
    }

    /// Whether that version is ours.
    pub(super) fn is_ours(&self, uid: &str, version: &str) -> bool {
        let digest = self.keys.hash_one((uid, version));
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.digests.contains(&digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let recent = Recent::default();
        for number in 0..2 * MOST {
            recent.wrote("uid", &number.to_string());
            recent.wrote("uid", &number.to_string());
        }
        assert!(recent.is_ours("uid", &(2 * MOST - 1).to_string()));
        assert!(recent.is_ours("uid", &MOST.to_string()));
        assert!(!recent.is_ours("uid", &(MOST - 1).to_string()));
        assert!(!recent.is_ours("uid", ""));
        recent.forget("uid", &MOST.to_string());
        assert!(!recent.is_ours("uid", &MOST.to_string()));
        for number in 0..2 * MOST {
            recent.wrote("again", "");
            recent.forget("again", "");
            recent.wrote("uid", &number.to_string());
        }
        assert!(!recent.is_ours("again", ""));
        let seen = recent.seen.lock().expect("no panic");
        assert!(seen.digests.len() <= MOST && seen.order.len() == MOST);
    }
}
