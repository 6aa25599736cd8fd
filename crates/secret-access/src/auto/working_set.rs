//! How many distinct Secrets were read lately, and their bytes. Pure, and itself bounded.

use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::secret_ref::SecretRef;

/// Secrets by when they were read last.
///
/// One more than the threshold is enough to know that it is crossed, so no more are remembered. From there on the numbers
/// are lower bounds.
pub(super) struct WorkingSet {
    /// The most recently read first.
    read: LruCache<SecretRef, LastRead>,
    bytes: usize,
    max: usize,
    window: Duration,
}

#[derive(Debug, Clone, Copy)]
struct LastRead {
    at: Instant,
    bytes: usize,
}

impl WorkingSet {
    /// Remembers the reads of the last `window`, of at most `threshold` + 1 Secrets.
    pub(super) fn new(threshold: usize, window: Duration) -> Self {
        Self {
            read: LruCache::unbounded(),
            bytes: 0,
            max: threshold + 1,
            window,
        }
    }

    /// Counts a read of a Secret that takes this many bytes.
    pub(super) fn record(&mut self, secret: &SecretRef, bytes: usize, at: Instant) {
        if let Some(before) = self.read.put(secret.clone(), LastRead { at, bytes }) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        self.forget_before(at);
        while self.read.len() > self.max {
            self.pop();
        }
    }

    pub(super) fn secrets(&self) -> usize {
        self.read.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads are recorded in about the order of their times, so the oldest are at one end: what leaves the window is found
    /// without looking at the rest.
    fn forget_before(&mut self, now: Instant) {
        while self
            .read
            .peek_lru()
            .is_some_and(|(_, last)| now.saturating_duration_since(last.at) > self.window)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, last)) = self.read.pop_lru() {
            self.bytes -= last.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list of all reads.
        #[test]
        fn counts_like_a_list_of_all_reads(
            reads in prop::collection::vec((0_u64..30, 0_usize..20, 0_usize..1000), 1..200),
            threshold in 1_usize..25,
        ) {
            let window = Duration::from_secs(60);
            let mut now = Instant::now();
            let mut set = WorkingSet::new(threshold, window);
            let mut all: Vec<(Instant, SecretRef, usize)> = Vec::new();
            for (pause, name, bytes) in reads {
                now += Duration::from_secs(pause);
                let secret = SecretRef::new("ns", &format!("s{name}")).expect("valid");
                set.record(&secret, bytes, now);
                all.push((now, secret, bytes));
                let last: HashMap<_, _> = all
                    .iter()
                    .filter(|(at, ..)| now.duration_since(*at) <= window)
                    .map(|(_, secret, bytes)| (secret, *bytes))
                    .collect();
                prop_assert_eq!(set.secrets(), last.len().min(threshold + 1));
                if last.len() <= threshold {
                    prop_assert_eq!(set.bytes(), last.values().sum::<usize>());
                } else {
                    prop_assert!(set.bytes() <= last.values().sum::<usize>());
                }
            }
        }
    }
}
