//! Pure: which tracked Secrets have a watch of their own. First come, first served.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::secret_ref::SecretRef;

/// The places for watches on single Secrets, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_secret: HashMap<SecretRef, Standing>,
    /// In the order of coming. May name Secrets that do not wait any more.
    waiting: VecDeque<SecretRef>,
    /// Those that wait for their rights, by the time of the next try.
    resting: BTreeSet<(Instant, SecretRef)>,
    open: usize,
}

#[derive(Debug)]
enum Standing {
    Waiting,
    Resting(Instant),
    Open {
        number: u64,
        in_step: bool,
        /// Dropped when the watch should end.
        _stop: oneshot::Sender<()>,
    },
}

/// What the task of a watch gets.
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) stop: Stop,
}

/// Ends when the watch should.
pub(super) type Stop = oneshot::Receiver<()>;

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is not allowed, or not needed: tried again then.
    Until(Instant),
    /// By accident: tried again when its turn comes.
    Lost,
}

impl Places {
    /// A Secret is tracked, and would like a place.
    pub(super) fn wait(&mut self, secret: &SecretRef) {
        self.by_secret.insert(secret.clone(), Standing::Waiting);
        self.queue(secret);
    }

    /// A Secret is not tracked any more.
    pub(super) fn remove(&mut self, secret: &SecretRef) {
        match self.by_secret.remove(secret) {
            Some(Standing::Open { .. }) => self.open -= 1,
            Some(Standing::Resting(until)) => {
                self.resting.remove(&(until, secret.clone()));
            }
            Some(Standing::Waiting) | None => {}
        }
    }

    /// Whose turn it is.
    pub(super) fn candidate(&mut self, most: usize, now: Instant) -> Option<SecretRef> {
        if self.open >= most {
            return None;
        }
        while let Some((until, secret)) = self.resting.first().filter(|(until, _)| *until <= now).cloned() {
            self.resting.remove(&(until, secret.clone()));
            self.by_secret.insert(secret.clone(), Standing::Waiting);
            self.waiting.push_back(secret);
        }
        while let Some(secret) = self.waiting.front() {
            if matches!(self.by_secret.get(secret), Some(Standing::Waiting)) {
                return Some(secret.clone());
            }
            self.waiting.pop_front();
        }
        None
    }

    /// When there may be a candidate.
    pub(super) fn next_candidate(&self, most: usize, now: Instant) -> Option<Instant> {
        if self.open >= most {
            return None;
        }
        if !self.waiting.is_empty() {
            return Some(now);
        }
        self.resting.first().map(|(until, _)| *until)
    }

    /// Gives a place to a candidate.
    pub(super) fn open(&mut self, secret: &SecretRef, number: u64) -> Stop {
        let (keep, stop) = oneshot::channel();
        let standing = Standing::Open {
            number,
            in_step: false,
            _stop: keep,
        };
        self.by_secret.insert(secret.clone(), standing);
        self.open += 1;
        stop
    }

    /// Whether a watch tells of all changes of this Secret.
    pub(super) fn is_in_step(&self, secret: &SecretRef) -> bool {
        matches!(self.by_secret.get(secret), Some(Standing::Open { in_step: true, .. }))
    }

    /// Whether that watch is in step with the cluster. Returns whether it was and is not any more.
    pub(super) fn in_step(&mut self, secret: &SecretRef, place: u64, now: bool) -> bool {
        match self.by_secret.get_mut(secret) {
            Some(Standing::Open { number, in_step, .. }) if *number == place => std::mem::replace(in_step, now) && !now,
            _ => false,
        }
    }

    /// A watch has ended. Returns whether it had a place.
    pub(super) fn left(&mut self, secret: &SecretRef, place: u64, ended: Ended) -> bool {
        if !matches!(self.by_secret.get(secret), Some(Standing::Open { number, .. }) if *number == place) {
            return false;
        }
        self.open -= 1;
        match ended {
            Ended::Until(until) => {
                self.by_secret.insert(secret.clone(), Standing::Resting(until));
                self.resting.insert((until, secret.clone()));
            }
            Ended::Lost => self.wait(secret),
        }
        true
    }

    /// Closes watches until no more than `most` are left.
    pub(super) fn shrink(&mut self, most: usize) {
        let open = self
            .by_secret
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Open { .. }));
        let surplus: Vec<_> = open.map(|(secret, _)| secret.clone()).skip(most).collect();
        for secret in surplus {
            self.open -= 1;
            self.wait(&secret);
        }
    }

    fn queue(&mut self, secret: &SecretRef) {
        // Those that left the queue by not being tracked any more are only marked.
        if self.waiting.len() > 2 * self.by_secret.len() + 16 {
            let by_secret = &self.by_secret;
            let mut seen = std::collections::HashSet::new();
            self.waiting.retain(|secret| {
                matches!(by_secret.get(secret), Some(Standing::Waiting)) && seen.insert(secret.clone())
            });
        }
        self.waiting.push_back(secret.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(number: usize) -> SecretRef {
        SecretRef::new("ns", &format!("s{number}")).expect("valid")
    }

    fn stopped(stop: &mut Stop) -> bool {
        stop.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn first_come_first_served_and_a_place_left_goes_to_the_next() {
        let now = Instant::now();
        let mut places = Places::default();
        for number in 1..=3 {
            places.wait(&secret(number));
        }
        assert_eq!(places.candidate(0, now), None);
        assert_eq!(places.candidate(1, now), Some(secret(1)));
        let mut stop = places.open(&secret(1), 7);
        assert_eq!(places.candidate(1, now), None);
        assert_eq!(places.next_candidate(1, now), None);
        assert!(!places.is_in_step(&secret(1)));
        assert!(!places.in_step(&secret(1), 7, true) && places.is_in_step(&secret(1)));
        assert!(
            !places.in_step(&secret(1), 6, false) && places.is_in_step(&secret(1)),
            "an older watch"
        );
        assert!(places.in_step(&secret(1), 7, false), "lost");
        places.remove(&secret(1));
        places.remove(&secret(2));
        assert!(stopped(&mut stop));
        assert_eq!(places.candidate(1, now), Some(secret(3)), "the second is gone");
    }

    #[test]
    fn a_denied_one_rests_and_does_not_hold_its_place() {
        let now = Instant::now();
        let later = now + Duration::from_secs(300);
        let mut places = Places::default();
        places.wait(&secret(1));
        let _stop = places.open(&secret(1), 1);
        assert!(places.left(&secret(1), 1, Ended::Until(later)));
        assert!(!places.left(&secret(1), 1, Ended::Lost), "once");
        assert_eq!(places.candidate(1, now), None);
        assert_eq!(places.next_candidate(1, now), Some(later));
        assert_eq!(places.candidate(1, later), Some(secret(1)));
        places.remove(&secret(1));
        assert_eq!(places.candidate(1, later), None);
        assert!(places.by_secret.is_empty() && places.resting.is_empty());
    }

    #[test]
    fn a_lost_one_waits_again_and_fewer_places_close_watches() {
        let now = Instant::now();
        let mut places = Places::default();
        let mut stops = Vec::new();
        for number in 0..4 {
            places.wait(&secret(number));
            stops.push(places.open(&secret(number), number as u64));
        }
        assert!(places.left(&secret(0), 0, Ended::Lost));
        assert!(stopped(&mut stops[0]));
        places.shrink(1);
        assert_eq!(
            stops.iter_mut().filter_map(|stop| stopped(stop).then_some(())).count(),
            3
        );
        assert_eq!(places.open, 1);
        assert!(places.candidate(2, now).is_some());
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let mut places = Places::default();
        for number in 0..10_000 {
            places.wait(&secret(number % 3));
            places.remove(&secret(number % 3));
        }
        assert!(places.waiting.len() < 100, "{}", places.waiting.len());
    }
}
