//! What a [`Tracker`](super::tracker::Tracker) holds behind its lock.

use std::collections::HashMap;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::known::{Known, Observation, Seen, Verdict};
use super::pace::{Pace, asked_for};
use super::pending::Pending;
use super::places::{Place, Places};
use super::schedule::{Next, Schedule};
use super::{Changed, ObjectRef};
use crate::change::Change;
use crate::failure::Failure;
use crate::floors::Floors;
use crate::options::AccessOptions;
use crate::secret_ref::SecretRef;

pub(super) struct State {
    pub(super) options: AccessOptions,
    pub(super) entries: HashMap<SecretRef, Entry>,
    /// References beyond what may be tracked.
    pub(super) untracked: usize,
    pub(super) schedule: Schedule,
    pub(super) places: Places,
    pub(super) subscribers: HashMap<u64, Subscriber>,
    /// The background task, by its number.
    pub(super) running: Option<u64>,
    pub(super) next_number: u64,
    /// The access is gone.
    pub(super) closed: bool,
}

pub(super) struct Entry {
    /// How many references each owner holds.
    pub(super) owners: HashMap<ObjectRef, usize>,
    pub(super) known: Known,
    pub(super) pace: Pace,
    /// Whether the mode's own watch held it when that was last looked at.
    pub(super) covered: bool,
    /// What a watch told cannot be placed before or after what is known: only a request can tell.
    pub(super) in_doubt: bool,
}

#[derive(Default)]
pub(super) struct Subscriber {
    pub(super) pending: Pending,
    pub(super) waker: Option<Waker>,
}

/// What the background task does next.
pub(super) enum Step {
    /// Nothing is tracked any more: the task ends.
    End,
    /// Asks about this Secret, unless it need not be asked about while a watch holds it.
    Poll { secret: SecretRef, in_doubt: bool },
    /// Opens a watch on this Secret.
    Watch(SecretRef, Place),
    /// Waits until then, or until something happens.
    Wait(Option<Instant>),
}

impl State {
    pub(super) fn new(options: &AccessOptions) -> Self {
        Self {
            options: options.clone(),
            entries: HashMap::new(),
            untracked: 0,
            schedule: Schedule::new(&options.changes, Instant::now()),
            places: Places::default(),
            subscribers: HashMap::new(),
            running: None,
            next_number: 0,
            closed: false,
        }
    }

    /// A number that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn refer(
        &mut self,
        secret: &SecretRef,
        owner: &ObjectRef,
        floors: &Floors,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        if let Some(entry) = self.entries.get_mut(secret) {
            let references = entry.owners.entry(owner.clone()).or_default();
            *references += 1;
            // What was observed since the last read was told to those who were there.
            let missed = (*references == 1).then(|| {
                let (handed_out, _) = floors.handed_out(secret);
                Known::from_floor(handed_out).change_to(&entry.known)
            });
            if let Some(change) = missed.flatten() {
                self.tell(secret, change, wakers);
            }
            return true;
        }
        if self.entries.len() >= self.options.changes.max_tracked {
            self.untracked += 1;
            return false;
        }
        let now = Instant::now();
        let (handed_out, observed) = floors.handed_out(secret);
        let known = Known::from_floor(handed_out);
        let mut pace = Pace::calm(&self.options.changes);
        if matches!(known, Known::Absent { .. }) {
            pace.quicken(&self.options.changes, now);
        }
        let due = if observed || known == Known::Nothing {
            now
        } else {
            now + pace.first(fastrand::f64())
        };
        let entry = Entry {
            owners: HashMap::from([(owner.clone(), 1)]),
            known,
            pace,
            covered: false,
            in_doubt: false,
        };
        self.entries.insert(secret.clone(), entry);
        self.schedule.add(secret, due, now);
        self.places.wait(secret);
        true
    }

    /// Whether that was the last reference to the Secret.
    pub(super) fn forget(&mut self, secret: &SecretRef, owner: &ObjectRef) -> bool {
        let Some(entry) = self.entries.get_mut(secret) else {
            return false;
        };
        if let Some(references) = entry.owners.get_mut(owner) {
            *references -= 1;
            if *references == 0 {
                entry.owners.remove(owner);
            }
        }
        let last = entry.owners.is_empty();
        if last {
            self.entries.remove(secret);
            self.schedule.remove(secret);
            self.places.remove(secret);
            for subscriber in self.subscribers.values_mut() {
                subscriber.pending.remove(secret);
            }
        }
        last
    }

    pub(super) fn observe(&mut self, secret: &SecretRef, observation: &Observation) -> Option<Verdict> {
        let entry = self.entries.get_mut(secret)?;
        let verdict = entry.known.observe(observation);
        let now = Instant::now();
        let options = &self.options.changes;
        if matches!(verdict, Verdict::Changed(_)) || (verdict == Verdict::Baseline && observation.seen == Seen::Gone) {
            entry.pace.quicken(options, now);
        }
        if observation.sent.is_proof() {
            entry.in_doubt = false;
            let wait = entry.pace.answered(options, now, fastrand::f64());
            self.schedule
                .asked(secret, observation.sent.at, observation.sent.at + wait, now);
        }
        if verdict == Verdict::Unclear {
            entry.in_doubt = true;
            self.schedule.hasten(secret, now);
        }
        Some(verdict)
    }

    pub(super) fn tell(&mut self, secret: &SecretRef, change: Change, wakers: &mut Vec<Waker>) {
        for subscriber in self.subscribers.values_mut() {
            subscriber.pending.push(secret, change);
            wakers.extend(subscriber.waker.take());
        }
    }

    pub(super) fn next(&mut self, room: bool, now: Instant) -> Step {
        let most = self.options.changes.named_watches;
        let candidate = self.places.candidate(most, now);
        if let Some(secret) = candidate
            && self.schedule.has_time(now)
        {
            self.schedule.spend(now);
            let number = self.number();
            let stop = self.places.open(&secret, number);
            return Step::Watch(secret, Place { number, stop });
        }
        let opening = self
            .places
            .next_candidate(most, now)
            .map(|at| at.max(self.schedule.not_before()));
        if !room {
            return Step::Wait(None);
        }
        loop {
            match self.schedule.next(now) {
                Next::Poll(secret) => {
                    let in_doubt = self.entries.get(&secret).is_some_and(|entry| entry.in_doubt);
                    if in_doubt || !self.places.is_in_step(&secret) {
                        return Step::Poll { secret, in_doubt };
                    }
                    self.skip(&secret, false);
                }
                Next::Wait(at) => return Step::Wait(Some(opening.map_or(at, |opening| opening.min(at)))),
                Next::Idle => return Step::Wait(opening),
            }
        }
    }

    /// See [`Tracker::failed`](super::tracker::Tracker::failed).
    pub(super) fn failed(&mut self, secret: &SecretRef, sent: Instant, failure: Failure) {
        let now = Instant::now();
        if let Some(wait) = asked_for(failure) {
            self.schedule.pause(now + wait);
        }
        if let Some(entry) = self.entries.get_mut(secret) {
            let wait = entry.pace.failed(failure, &self.options.changes, fastrand::f64());
            self.schedule.asked(secret, sent, now + wait, now);
        }
    }

    /// What the mode's watch held before is to be looked at, unless it holds it now.
    pub(super) fn resynced(&mut self) {
        let now = Instant::now();
        for (secret, entry) in &mut self.entries {
            if std::mem::take(&mut entry.covered) {
                self.schedule.hasten(secret, now);
            }
        }
    }

    /// The next change for this subscriber, or `None` when there will be none.
    pub(super) fn poll_changed(&mut self, number: u64, waker: &Waker) -> Poll<Option<Changed>> {
        let Some(subscriber) = self.subscribers.get_mut(&number) else {
            return Poll::Ready(None);
        };
        // What nobody refers to any more was removed from what is pending.
        if let Some((secret, change)) = subscriber.pending.pop()
            && let Some(entry) = self.entries.get(&secret)
        {
            let owners = entry.owners.keys().cloned().collect();
            return Poll::Ready(Some(Changed { secret, change, owners }));
        }
        if self.closed {
            return Poll::Ready(None);
        }
        subscriber.waker = Some(waker.clone());
        Poll::Pending
    }

    /// Leaves a poll out that was due, because something else tells of changes.
    pub(super) fn skip(&mut self, secret: &SecretRef, covered: bool) {
        let now = Instant::now();
        self.schedule.unspend();
        self.schedule.ended(secret, now);
        if let Some(entry) = self.entries.get_mut(secret) {
            entry.covered = covered;
            let wait = Pace::calm(&self.options.changes).first(fastrand::f64());
            self.schedule.asked(secret, now, now + wait, now);
        }
    }

    pub(super) fn configure(&mut self, options: &AccessOptions) {
        let changed = self.options.changes != options.changes;
        self.options = options.clone();
        if !changed {
            return;
        }
        let now = Instant::now();
        self.schedule = Schedule::new(&options.changes, now);
        for (secret, entry) in &mut self.entries {
            entry.pace.adjust(&options.changes);
            let due = if entry.known == Known::Nothing {
                now
            } else {
                now + entry.pace.first(fastrand::f64())
            };
            self.schedule.add(secret, due, now);
        }
        self.places.shrink(options.changes.named_watches);
    }
}
