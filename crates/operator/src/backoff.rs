//! When to try again.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    error::{Fault, FaultKind},
    key::ObjectKey,
    queue::Key,
};

/// Delays that double from try to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubling {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

/// After a failure: what went wrong may be gone at once, or last for hours.
pub(crate) const FAILURE: Doubling = Doubling {
    first: Duration::from_millis(5),
    most: Duration::from_secs(300),
};

/// While something is missing that nobody tells us about, such as a Secret: it is asked for again.
pub(crate) const WAIT: Doubling = Doubling {
    first: Duration::from_secs(10),
    most: Duration::from_secs(120),
};

/// Between tries of a watch.
const WATCH: Doubling = Doubling {
    first: Duration::from_millis(500),
    most: Duration::from_secs(30),
};

/// Between tries of a watch while the API server is away or cannot keep up, which ends by itself. A try that gets no answer,
/// or a 429, costs it next to nothing, and what changed meanwhile is not known until the watch is back.
const AWAY: Doubling = Doubling {
    first: WATCH.first,
    most: Duration::from_secs(3),
};

/// The longest `Retry-After` that is obeyed: one odd header must not silence a service for hours.
pub(crate) const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);

impl Doubling {
    /// The delay before try number `tries + 1`, between half and all of `first * 2^tries`.
    ///
    /// `chance` is a number from 0 to 1: objects that failed together must not come back together.
    pub(crate) fn delay(self, tries: u32, chance: f64) -> Duration {
        let full = 2u32
            .checked_pow(tries)
            .and_then(|factor| self.first.checked_mul(factor))
            .unwrap_or(self.most);
        let full = full.min(self.most);
        full.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

/// Counts the failures of one watch in a row, each sort by itself: what an outage has taught the watch to wait must not be
/// waited after the first answers that follow it. An API server that starts has no rules to allow anything by yet, and then
/// says that the version to go on from is too old.
#[derive(Debug, Default)]
pub(crate) struct WatchTries {
    away: u32,
    expired: u32,
    refused: u32,
}

impl WatchTries {
    /// It shows something.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing was refused since it last showed something.
    pub(crate) fn is_first_refusal(&self) -> bool {
        self.refused == 0
    }

    /// The delay after one more failure.
    pub(crate) fn failed(&mut self, fault: &Fault, chance: f64) -> Duration {
        let (count, doubling) = match fault.kind {
            FaultKind::Expired => (&mut self.expired, WATCH),
            FaultKind::Unavailable | FaultKind::Timeout | FaultKind::Throttled => (&mut self.away, AWAY),
            _ => (&mut self.refused, WATCH),
        };
        let delay = doubling.delay(*count, chance);
        *count = count.saturating_add(1);
        delay.max(fault.retry_after.unwrap_or_default().min(MOST_RETRY_AFTER))
    }

    /// The delay after one more answer that the kind does not exist.
    pub(crate) fn absent(&mut self, doubling: Doubling, chance: f64) -> Duration {
        let delay = doubling.delay(self.refused, chance);
        self.refused = self.refused.saturating_add(1);
        delay
    }
}

/// Counts the tries of each object in a row. Holds an entry only for objects that fail or wait.
#[derive(Debug)]
pub(crate) struct Tries<K = ObjectKey> {
    counts: HashMap<K, Count>,
}

impl<K> Default for Tries<K> {
    fn default() -> Self {
        Self { counts: HashMap::new() }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    waits: u32,
    /// When it is asked for again.
    ask_at: Option<Instant>,
}

impl<K: Key> Tries<K> {
    /// The delay after one more failure, or one more write in a row.
    pub(crate) fn failed(&mut self, key: &K, retry_after: Option<Duration>, chance: f64) -> Duration {
        let count = self.counts.entry(key.clone()).or_default();
        let delay = FAILURE.delay(count.failures, chance);
        count.failures = count.failures.saturating_add(1);
        delay.max(retry_after.unwrap_or_default().min(MOST_RETRY_AFTER))
    }

    /// The delay before asking again for what is missing. A pass that comes before its time, because something else has
    /// changed, does not put it off.
    pub(crate) fn waited(&mut self, key: &K, now: Instant, chance: f64) -> Duration {
        let count = self.counts.entry(key.clone()).or_default();
        count.failures = 0;
        if let Some(remaining) = count.ask_at.and_then(|at| at.checked_duration_since(now))
            && !remaining.is_zero()
        {
            return remaining;
        }
        let delay = WAIT.delay(count.waits, chance);
        count.waits = count.waits.saturating_add(1);
        count.ask_at = Some(now + delay);
        delay
    }

    /// Keeps count of no more than so many: with more that fail all counts begin anew.
    pub(crate) fn bound(&mut self, most: usize) {
        if self.counts.len() > most {
            self.counts.clear();
        }
    }

    /// The object is fine, or gone.
    pub(crate) fn forget(&mut self, key: &K) {
        self.counts.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most() {
        let full = |tries| FAILURE.delay(tries, 1.0);
        assert_eq!(full(0), Duration::from_millis(5));
        assert_eq!(full(1), Duration::from_millis(10));
        assert_eq!(full(10), Duration::from_millis(5120));
        for tries in [16, 31, 32, 33, u32::MAX] {
            assert_eq!(full(tries), Duration::from_secs(300), "{tries}");
        }
        assert_eq!(WAIT.delay(0, 1.0), Duration::from_secs(10));
        assert_eq!(WAIT.delay(4, 1.0), Duration::from_secs(120));
    }

    #[test]
    fn chance_takes_off_at_most_half() {
        for tries in 0..40 {
            let full = FAILURE.delay(tries, 1.0);
            assert_eq!(FAILURE.delay(tries, 0.0), full / 2);
            assert!(FAILURE.delay(tries, 0.5) < full);
            assert!(FAILURE.delay(tries, f64::MAX) <= full);
        }
    }

    #[test]
    fn a_watch_is_soon_back_after_an_outage() {
        let fault = |kind| Fault {
            kind,
            message: String::new(),
            retry_after: None,
        };
        let (away, expired, refused) = (
            fault(FaultKind::Unavailable),
            fault(FaultKind::Expired),
            fault(FaultKind::Forbidden),
        );
        let mut tries = WatchTries::default();
        let waits: Vec<u128> = (0..5).map(|_| tries.failed(&away, 1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 3000, 3000]);
        let busy = Fault {
            retry_after: Some(Duration::from_secs(1)),
            ..fault(FaultKind::Throttled)
        };
        assert_eq!(
            tries.failed(&busy, 1.0),
            AWAY.most,
            "storage that is not initialized yet"
        );
        assert!(tries.is_first_refusal());
        assert_eq!(tries.failed(&refused, 1.0), WATCH.first, "its first answer");
        assert!(!tries.is_first_refusal());
        assert_eq!(tries.failed(&expired, 1.0), WATCH.first, "and its second");
        let waits: Vec<u64> = (0..8).map(|_| tries.failed(&refused, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30], "a right that is missing");
        // Nothing but expired versions: each try would be a list.
        let waits: Vec<u128> = (0..3).map(|_| tries.failed(&expired, 1.0).as_millis()).collect();
        assert_eq!(waits, [1000, 2000, 4000]);
        tries.reset();
        assert_eq!(tries.failed(&away, 1.0), AWAY.first);
        let asked = Fault {
            retry_after: Some(Duration::from_secs(86_400)),
            ..away
        };
        assert_eq!(tries.failed(&asked, 1.0), MOST_RETRY_AFTER);
    }

    #[test]
    fn retry_after_is_obeyed_within_its_cap() {
        let key = ObjectKey::new("ns", "a");
        let mut tries = Tries::default();
        assert_eq!(
            tries.failed(&key, Some(Duration::from_secs(3)), 1.0),
            Duration::from_secs(3)
        );
        assert_eq!(
            tries.failed(&key, Some(Duration::from_secs(86_400)), 1.0),
            MOST_RETRY_AFTER
        );
        assert_eq!(tries.failed(&key, None, 1.0), Duration::from_millis(20));
    }

    #[test]
    fn success_starts_over_and_leaves_nothing_behind() {
        let key = ObjectKey::new("ns", "a");
        let mut tries = Tries::default();
        for _ in 0..9 {
            tries.failed(&key, None, 1.0);
        }
        let now = Instant::now();
        assert_eq!(tries.waited(&key, now, 1.0), Duration::from_secs(10));
        let sooner = now + Duration::from_secs(4);
        assert_eq!(
            tries.waited(&key, sooner, 1.0),
            Duration::from_secs(6),
            "a pass between two tries"
        );
        let again = now + Duration::from_secs(10);
        assert_eq!(tries.waited(&key, again, 1.0), Duration::from_secs(20));
        assert_eq!(
            tries.failed(&key, None, 1.0),
            Duration::from_millis(5),
            "waiting is no failure"
        );
        tries.forget(&key);
        assert!(tries.counts.is_empty());
    }
}
