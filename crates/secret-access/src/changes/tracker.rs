//! What is tracked, by whom, and who wants to know: the one place where observations become changes.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::known::{Observation, Seen, Verdict};
use super::places::Ended;
use super::state::{State, Step, Subscriber};
use super::{Changed, ObjectRef};
use crate::answer::{Answer, Observe};
use crate::failure::Failure;
use crate::floors::{Floors, Recorded};
use crate::options::AccessOptions;
use crate::probe::Probe;
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Everything about the tracked Secrets of one access.
pub(crate) struct Tracker {
    floors: Arc<Floors>,
    probe: Arc<dyn Probe>,
    state: Mutex<State>,
    wake: Notify,
}

impl Tracker {
    pub(crate) fn new(floors: Arc<Floors>, probe: Arc<dyn Probe>, options: &AccessOptions) -> Arc<Self> {
        Arc::new(Self {
            floors,
            probe,
            state: Mutex::new(State::new(options)),
            wake: Notify::new(),
        })
    }

    /// Counts a reference. Says whether the Secret is watched over, and the number of the background task to start, if it
    /// does not run.
    pub(super) fn track(&self, secret: &SecretRef, owner: &ObjectRef) -> (bool, Option<u64>) {
        let mut state = self.lock();
        let mut wakers = Vec::new();
        let tracked = state.refer(secret, owner, &self.floors, &mut wakers);
        let start = (tracked && state.running.is_none() && !state.closed).then(|| {
            let number = state.number();
            state.running = Some(number);
            number
        });
        let (secrets, untracked) = (state.entries.len(), state.untracked);
        drop(state);
        wake(wakers);
        self.wake.notify_one();
        if tracked {
            self.probe.tracked(secrets);
        } else {
            self.probe.untracked(untracked);
        }
        (tracked, start)
    }

    /// A reference ends.
    pub(super) fn release(&self, secret: &SecretRef, owner: &ObjectRef, tracked: bool) {
        let mut state = self.lock();
        if !tracked {
            state.untracked -= 1;
            let untracked = state.untracked;
            drop(state);
            self.probe.untracked(untracked);
            return;
        }
        let gone = state.forget(secret, owner);
        let secrets = state.entries.len();
        drop(state);
        if gone {
            self.wake.notify_one();
            self.probe.tracked(secrets);
        }
    }

    /// Takes in what somebody saw, and tells the subscribers if that is a change. All ways lead here.
    pub(crate) fn observe(&self, secret: &SecretRef, observation: &Observation) {
        self.take_in(secret, observation, true);
    }

    fn take_in(&self, secret: &SecretRef, observation: &Observation, raise: bool) {
        let mut state = self.lock();
        let Some(verdict) = state.observe(secret, observation) else {
            return;
        };
        let mut recorded = Recorded::Ordinary;
        let mut wakers = Vec::new();
        if raise && matches!(verdict, Verdict::Baseline | Verdict::Changed(_)) {
            // Before anybody is told: who reads because of a change must see it.
            let found = match &observation.seen {
                Seen::Present { uid, version } => Some((*version, uid)),
                Seen::Gone => None,
            };
            recorded = self.floors.observed(secret, found, observation.sent.moment);
        }
        if let Verdict::Changed(change) = verdict {
            state.tell(secret, change, &mut wakers);
        }
        drop(state);
        wake(wakers);
        self.wake.notify_one();
        if recorded == Recorded::Rewound {
            crate::front::rewound(&*self.probe);
        }
        if let Verdict::Changed(change) = verdict {
            self.probe.changed(change);
        }
    }

    /// Puts other options into force.
    pub(crate) fn configure(&self, options: &AccessOptions) {
        self.lock().configure(options);
        self.wake.notify_one();
    }

    /// The access is gone: nobody is told anything any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers = state
            .subscribers
            .values_mut()
            .filter_map(|one| one.waker.take())
            .collect();
        drop(state);
        wake(wakers);
        self.wake.notify_one();
    }

    /// The promise of [`Switch::change_delay`](crate::Switch::change_delay).
    pub(crate) fn delay(&self) -> Duration {
        let state = self.lock();
        state.schedule.window() + state.options.fetch.deadline
    }

    pub(super) fn subscribe(&self) -> u64 {
        let mut state = self.lock();
        let number = state.number();
        state.subscribers.insert(number, Subscriber::default());
        number
    }

    pub(super) fn unsubscribe(&self, number: u64) {
        self.lock().subscribers.remove(&number);
    }

    /// The next change for this subscriber, or `None` when there will be none.
    pub(super) fn poll_changed(&self, number: u64, waker: &Waker) -> Poll<Option<Changed>> {
        self.lock().poll_changed(number, waker)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent after every statement that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the watch of a mode.
impl Tracker {
    /// The mode's watch has begun anew, and told what it found: what it held before and does not hold now may be gone.
    pub(crate) fn resynced(&self) {
        self.lock().resynced();
        self.wake.notify_one();
    }
}

/// For the background task.
impl Tracker {
    /// What the task of this number does next; `room` says whether it may send one more poll.
    pub(super) fn next(&self, number: u64, room: bool) -> Step {
        let mut state = self.lock();
        if state.running != Some(number) || state.closed || state.entries.is_empty() {
            state.running = None;
            return Step::End;
        }
        state.next(room, Instant::now())
    }

    /// Until something happens that [`Tracker::next`] should know.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The mode's own watch holds this of the Secret: it need not be polled. What was told before it was tracked is taken in
    /// here.
    pub(super) fn watched(&self, secret: &SecretRef, held: &Answer) {
        self.lock().skip(secret, true);
        let (seen, as_of) = seen(held);
        self.observe(secret, &Observation::told(seen, as_of));
    }

    /// A poll brought no answer. That is no change.
    pub(super) fn failed(&self, secret: &SecretRef, sent: Instant, failure: Failure) {
        self.lock().failed(secret, sent, failure);
    }

    /// A poll has ended. If it has a result, that is told next, and says when the next one is due.
    pub(super) fn poll_ended(&self, secret: &SecretRef) {
        let mut state = self.lock();
        let due = Instant::now() + state.options.changes.fast_poll_interval;
        state.schedule.ended(secret, due);
    }

    /// A named watch is in step with the cluster (`true`), or has lost it.
    pub(super) fn in_step(&self, secret: &SecretRef, place: u64, in_step: bool) {
        let mut state = self.lock();
        let lost = state.places.in_step(secret, place, in_step);
        if lost {
            state.schedule.hasten(secret, Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A named watch has ended.
    pub(super) fn place_left(&self, secret: &SecretRef, place: u64, ended: Ended) {
        let mut state = self.lock();
        if state.places.left(secret, place, ended) {
            state.schedule.hasten(secret, Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The task of this number has ended, however that came.
    pub(super) fn stopped(&self, number: u64) {
        let mut state = self.lock();
        if state.running == Some(number) {
            state.running = None;
        }
    }
}

impl Observe for Tracker {
    fn answered(&self, secret: &SecretRef, answer: &Answer) {
        let (seen, _) = seen(answer);
        // The floor was raised when the answer was handed out.
        self.take_in(secret, &Observation::asked(seen, answer.sent), false);
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// What an answer says, and where the cluster's history stood at least.
fn seen(answer: &Answer) -> (Seen, Option<ResourceVersion>) {
    match &answer.found {
        Some(found) => {
            let version = found.resource_version();
            let uid = Arc::clone(found.shared_uid());
            (Seen::Present { uid, version }, Some(version))
        }
        None => (Seen::Gone, None),
    }
}
