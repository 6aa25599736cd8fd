//! Keeps reads from going back in time, whatever mode answers them.
//!
//! For each Secret read lately this remembers the newest version handed out and when: its floor. A later read may be
//! answered with a version at least as great, or with anything requested after the floor was set, because a quorum read
//! that begins after an answer was received cannot be older than that answer.
//!
//! Floors are few bytes but many keys, so there is a bound. The floor set longest ago goes first, and what it said about
//! one Secret then holds for every Secret without a floor: nothing requested before that moment is accepted. That costs a
//! request now and then and never correctness.
//!
//! What is found out about a Secret without a read (see [`changes`](crate::changes)) raises its floor too. Beside that, the
//! floor remembers what was handed out before, because that is what whoever refers to the Secret has seen.

use std::sync::Arc;

use lru::LruCache;

use crate::answer::Answer;
use crate::moment::Moment;
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// What the answers to later reads of one Secret are measured against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Floor {
    /// This version was handed out at this moment.
    Version {
        version: ResourceVersion,
        uid: Arc<str>,
        known: Moment,
    },
    /// It was handed out at `known` that there is no such Secret; a request sent at `sent` found that out.
    Absent { sent: Moment, known: Moment },
    /// Only the moment counts.
    Moment(Moment),
}

impl Floor {
    /// Whether `answer` is certain not to be older than what set this floor.
    pub(crate) fn admits(&self, answer: &Answer) -> bool {
        let sent = answer.sent.moment;
        match *self {
            Self::Version { version, known, .. } => {
                let newer = answer
                    .found
                    .as_ref()
                    .is_some_and(|found| found.resource_version() >= version);
                newer || sent > known
            }
            // An absence has no version, so another one proves nothing unless it is the very same answer.
            Self::Absent { sent: same, known } => (answer.found.is_none() && sent == same) || sent > known,
            Self::Moment(known) => sent > known || known == Moment::START,
        }
    }

    /// This floor after `fact` was learnt at `known`.
    ///
    /// An answer requested before this floor was set belongs to a read that overlapped the one that set it. Such an answer
    /// may be older than the floor, which then stays; or nobody can tell, and then whoever reads next has to ask again.
    fn raised(&self, fact: &Fact<'_>, known: Moment) -> Raised {
        let sent = fact.sent;
        // Before anything was read, everything is later: also what is known by its version alone.
        let later = sent > self.known() || *self == Self::Moment(Moment::START);
        match (self, fact.found) {
            (Self::Version { version, .. }, Some((found, uid))) if found > *version => {
                Raised::To(Self::version(found, uid, known))
            }
            (Self::Version { version, .. }, Some((found, _))) if found == *version => Raised::Same,
            // Lower, although requested later. Versions count the revisions of one etcd, which only grow: deleting and
            // creating a Secret anew raises them too. So it takes a restored backup to get here. A quorum read is the
            // truth whatever was seen before, so it is accepted and the floor goes down.
            (Self::Version { .. }, Some(_)) if later => Raised::Rewound,
            (Self::Version { .. }, Some(_)) => Raised::Same,
            (Self::Absent { .. }, None) if !later => Raised::Same,
            (_, Some((found, uid))) if later => Raised::To(Self::version(found, uid, known)),
            (_, None) if later => Raised::To(Self::Absent { sent, known }),
            (_, Some(_) | None) => Raised::To(Self::Moment(known)),
        }
    }

    fn version(version: ResourceVersion, uid: &Arc<str>, known: Moment) -> Self {
        Self::Version {
            version,
            uid: Arc::clone(uid),
            known,
        }
    }

    fn known(&self) -> Moment {
        match self {
            Self::Version { known, .. } | Self::Absent { known, .. } | Self::Moment(known) => *known,
        }
    }
}

/// What is learnt about a Secret: its version and uid, or that there is none.
struct Fact<'a> {
    found: Option<(ResourceVersion, &'a Arc<str>)>,
    sent: Moment,
}

impl<'a> Fact<'a> {
    fn of(answer: &'a Answer) -> Self {
        let found = answer.found.as_ref();
        Self {
            found: found.map(|found| (found.resource_version(), found.shared_uid())),
            sent: answer.sent.moment,
        }
    }
}

/// What an answer does to a floor.
enum Raised {
    Same,
    To(Floor),
    Rewound,
}

/// What recording an answer revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Nothing special.
    Ordinary,
    /// A quorum read returned a lower version than an earlier one: the cluster was restored from a backup.
    Rewound,
}

/// The floors of one access.
pub(crate) struct Floors(Mutex<State>);

struct State {
    by_secret: LruCache<SecretRef, Kept>,
    max: usize,
    /// The floor of every Secret that has none of its own.
    others: Moment,
}

/// What is kept of one Secret.
struct Kept {
    floor: Floor,
    /// The floor as reads set it, where something newer was observed since.
    handed_out: Option<Box<Floor>>,
}

impl Floors {
    /// Room for `max` floors.
    pub(crate) fn new(max: usize) -> Self {
        Self(Mutex::new(State {
            by_secret: LruCache::unbounded(),
            max,
            others: Moment::START,
        }))
    }

    /// Another bound. Fewer is safe: see the module's documentation.
    pub(crate) fn resize(&self, max: usize) {
        let mut state = self.lock();
        state.max = max;
        state.shrink();
    }

    /// The floor for a read that begins now.
    pub(crate) fn floor(&self, secret: &SecretRef) -> Floor {
        let state = self.lock();
        let kept = state.by_secret.peek(secret);
        kept.map_or(Floor::Moment(state.others), |kept| kept.floor.clone())
    }

    /// What reads returned last, as far as that is remembered, and whether something newer was observed since.
    pub(crate) fn handed_out(&self, secret: &SecretRef) -> (Floor, bool) {
        let state = self.lock();
        match state.by_secret.peek(secret) {
            Some(Kept {
                handed_out: Some(handed_out),
                ..
            }) => ((**handed_out).clone(), true),
            Some(Kept { floor, .. }) => (floor.clone(), false),
            None => (Floor::Moment(state.others), false),
        }
    }

    /// Raises the floor to an answer that is about to be handed out.
    pub(crate) fn record(&self, secret: &SecretRef, answer: &Answer) -> Recorded {
        self.lock().record(secret, &Fact::of(answer), true)
    }

    /// Raises the floor to what is known about a Secret although no read returned it yet.
    pub(crate) fn observed(
        &self,
        secret: &SecretRef,
        found: Option<(ResourceVersion, &Arc<str>)>,
        sent: Moment,
    ) -> Recorded {
        self.lock().record(secret, &Fact { found, sent }, false)
    }

    /// The same for a read that began just now, unless the answer is older than the floor: then `None`.
    pub(crate) fn pass(&self, secret: &SecretRef, answer: &Answer) -> Option<Recorded> {
        let mut state = self.lock();
        // Not a use of the floor: which one goes first is decided by what API servers were asked, or each hit would move one.
        let admitted = match state.by_secret.peek(secret) {
            // What was handed out before, once more: by far the most frequent, and it changes nothing.
            Some(Kept {
                floor: Floor::Version { version, .. },
                handed_out: None,
            }) if answer
                .found
                .as_ref()
                .is_some_and(|found| found.resource_version() == *version) =>
            {
                return Some(Recorded::Ordinary);
            }
            Some(kept) => kept.floor.admits(answer),
            None => Floor::Moment(state.others).admits(answer),
        };
        admitted.then(|| state.record(secret, &Fact::of(answer), true))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement that could panic, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, secret: &SecretRef, fact: &Fact<'_>, handed_out: bool) -> Recorded {
        let known = Moment::next();
        let kept = self.by_secret.get_mut(secret);
        let raised = match &kept {
            Some(kept) => kept.floor.raised(fact, known),
            None => Floor::Moment(self.others).raised(fact, known),
        };
        match raised {
            Raised::Same => {
                if handed_out && let Some(kept) = kept {
                    kept.handed_out = None;
                }
            }
            Raised::To(floor) => {
                let before = if handed_out {
                    None
                } else {
                    let floor = Box::new(Floor::Moment(self.others));
                    Some(kept.map_or(floor, |kept| {
                        let before = kept.handed_out.take();
                        before.unwrap_or_else(|| Box::new(kept.floor.clone()))
                    }))
                };
                let handed_out = before;
                self.by_secret.put(secret.clone(), Kept { floor, handed_out });
                self.shrink();
            }
            Raised::Rewound => {
                // Whatever else was read from the lost history is as suspect.
                self.by_secret.clear();
                self.others = known;
                return Recorded::Rewound;
            }
        }
        Recorded::Ordinary
    }

    fn shrink(&mut self) {
        while self.by_secret.len() > self.max {
            let Some((_, gone)) = self.by_secret.pop_lru() else {
                return;
            };
            self.others = self.others.max(gone.floor.known());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Sent;
    use crate::snapshot::SecretSnapshot;

    fn secret(name: &str) -> SecretRef {
        SecretRef::new("ns", name).expect("valid")
    }

    /// An answer to a request that is sent now.
    fn sent() -> Sent {
        Sent::now()
    }

    fn found(version: u64, sent: Sent) -> Answer {
        let snapshot = SecretSnapshot::builder(secret("s")).resource_version(version);
        Answer {
            found: Some(Arc::new(snapshot.build())),
            sent,
        }
    }

    fn absent(sent: Sent) -> Answer {
        Answer { found: None, sent }
    }

    #[test]
    fn a_version_admits_newer_ones_and_whatever_is_asked_later() {
        let floors = Floors::new(10);
        let s = secret("s");
        let early = sent();
        assert!(floors.floor(&s).admits(&found(1, early)), "nothing was read yet");
        floors.record(&s, &found(5, sent()));
        let floor = floors.floor(&s);
        for (version, admitted) in [(4, false), (5, true), (6, true)] {
            assert_eq!(floor.admits(&found(version, early)), admitted, "{version}");
        }
        assert!(!floor.admits(&absent(early)), "an absence from before proves nothing");
        let late = sent();
        assert!(floor.admits(&found(4, late)) && floor.admits(&absent(late)));
        assert!(floors.floor(&secret("other")).admits(&found(1, early)));
    }

    #[test]
    fn a_newer_version_raises_the_floor_and_the_same_does_not_whenever_they_were_asked_for() {
        for early in [true, false] {
            let floors = Floors::new(10);
            let s = secret("s");
            let before = sent();
            floors.record(&s, &found(5, sent()));
            let asked = |early| if early { before } else { sent() };
            assert_eq!(floors.record(&s, &found(7, asked(early))), Recorded::Ordinary);
            assert!(!floors.floor(&s).admits(&found(6, before)), "7 was handed out");
            let raised = floors.floor(&s);
            assert_eq!(floors.record(&s, &found(7, asked(early))), Recorded::Ordinary);
            assert_eq!(floors.floor(&s), raised, "as known as before");
            assert!(floors.pass(&s, &found(7, asked(early))).is_some());
            assert!(floors.pass(&s, &found(6, before)).is_none());
        }
    }

    #[test]
    fn after_an_absence_only_that_answer_or_a_later_one_will_do() {
        let floors = Floors::new(10);
        let s = secret("s");
        let before = found(5, sent());
        let other = absent(sent());
        let same = absent(sent());
        floors.record(&s, &same);
        let floor = floors.floor(&s);
        assert!(floor.admits(&same), "a remembered absence stays usable");
        assert!(!floor.admits(&other) && !floor.admits(&before));
        assert!(floor.admits(&found(1, sent())) && floor.admits(&absent(sent())));
    }

    #[test]
    fn an_absence_handed_out_again_stays_usable_and_a_later_one_takes_its_place() {
        let floors = Floors::new(10);
        let s = secret("s");
        let first = absent(sent());
        for _ in 0..2 {
            assert_eq!(floors.record(&s, &first), Recorded::Ordinary);
            assert!(floors.floor(&s).admits(&first));
        }
        let between = found(5, sent());
        let second = absent(sent());
        assert_eq!(floors.record(&s, &second), Recorded::Ordinary);
        assert!(floors.floor(&s).admits(&second));
        assert!(!floors.floor(&s).admits(&between), "it was gone after that");
    }

    #[test]
    fn an_overlapping_older_answer_does_not_lower_the_floor() {
        let floors = Floors::new(10);
        let s = secret("s");
        let old = found(4, sent());
        let new = found(5, sent());
        assert_eq!(floors.record(&s, &new), Recorded::Ordinary);
        assert_eq!(floors.record(&s, &old), Recorded::Ordinary);
        assert!(!floors.floor(&s).admits(&old));
        assert!(floors.floor(&s).admits(&new));
    }

    #[test]
    fn presence_and_absence_that_overlap_leave_only_later_answers() {
        for absent_first in [true, false] {
            let floors = Floors::new(10);
            let s = secret("s");
            let there = found(5, sent());
            let gone = absent(sent());
            let (first, second) = if absent_first { (&gone, &there) } else { (&there, &gone) };
            floors.record(&s, first);
            floors.record(&s, second);
            let floor = floors.floor(&s);
            assert!(!floor.admits(&there) && !floor.admits(&gone));
            let later = found(6, sent());
            assert!(floor.admits(&later));
            floors.record(&s, &later);
            assert!(
                floors.floor(&s).admits(&later),
                "and then it is an ordinary floor again"
            );
        }
    }

    #[test]
    fn a_lower_version_asked_for_later_means_a_restored_cluster() {
        let floors = Floors::new(10);
        let (s, other) = (secret("s"), secret("other"));
        let cached = found(900, sent());
        floors.record(&other, &cached);
        floors.record(&s, &found(1000, sent()));
        let restored = found(7, sent());
        assert!(floors.floor(&s).admits(&restored));
        assert_eq!(floors.record(&s, &restored), Recorded::Rewound);
        assert!(!floors.floor(&other).admits(&cached), "the lost history is not served");
        let next = found(8, sent());
        assert!(floors.floor(&s).admits(&next));
        assert_eq!(floors.record(&s, &next), Recorded::Ordinary);
    }

    #[test]
    fn a_floor_that_had_to_go_still_holds() {
        let floors = Floors::new(2);
        let early = found(4, sent());
        for (name, version) in [("a", 5), ("b", 6), ("c", 7)] {
            floors.record(&secret(name), &found(version, sent()));
        }
        assert!(!floors.floor(&secret("a")).admits(&early), "evicted");
        assert!(
            !floors.floor(&secret("never-read")).admits(&early),
            "at the cost of others"
        );
        let held = found(6, early.sent);
        assert!(floors.floor(&secret("b")).admits(&held), "kept");
        assert!(floors.floor(&secret("a")).admits(&found(4, sent())));
        floors.resize(1);
        assert!(
            !floors.floor(&secret("b")).admits(&held),
            "evicted by the smaller bound"
        );
    }

    /// Whatever was evicted: an answer handed out to an overlapping read must not set a floor below the lost one.
    #[test]
    fn an_old_answer_does_not_undo_an_evicted_floor() {
        let floors = Floors::new(1);
        let s = secret("s");
        let old = found(4, sent());
        floors.record(&s, &found(5, sent()));
        floors.record(&secret("other"), &found(6, sent()));
        floors.record(&s, &old);
        assert!(!floors.floor(&s).admits(&old));
    }
}
