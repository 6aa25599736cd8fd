//! Which `InferenceServices` are to be looked at, and when.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    key::ObjectKey,
    observability::metrics::{QueueMetrics, QueueReading},
};

/// A work queue. A key is in it at most once, and is handed out to one taker at a time; so its size is bounded by the
/// number of services.
#[derive(Default)]
pub(crate) struct Queue {
    schedule: Mutex<Schedule>,
    changed: Notify,
    metrics: QueueMetrics,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(metrics: QueueMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Asks for a pass as soon as possible, unless one was asked for already.
    pub(crate) fn add(&self, key: ObjectKey) {
        if self.lock().add(key, Instant::now()) {
            self.metrics.added();
            self.changed.notify_one();
        }
    }

    /// Asks for a pass later, unless one comes sooner anyway.
    pub(crate) fn add_at(&self, key: ObjectKey, at: Instant) {
        self.lock().add_at(key, at);
        self.changed.notify_one();
    }

    /// Waits for the next key; [`Queue::done`] must be called for it. For one taker at a time.
    pub(crate) async fn next(&self) -> ObjectKey {
        loop {
            let due = {
                let (mut schedule, now) = (self.lock(), Instant::now());
                for _ in 0..schedule.promote(now) {
                    self.metrics.added();
                }
                if let Some((key, since)) = schedule.pop(now) {
                    self.metrics.waited(now - since);
                    return key;
                }
                schedule.next_due()
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The pass over a key has ended.
    pub(crate) fn done(&self, key: &ObjectKey) {
        let now = Instant::now();
        if let Some(since) = self.lock().done(key, now) {
            self.metrics.worked(now - since);
        }
        self.changed.notify_one();
    }

    /// How many keys wait for a pass now.
    pub(crate) fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// What waits and what is being worked on now.
    pub(crate) fn reading(&self) -> QueueReading {
        let (schedule, now) = (self.lock(), Instant::now());
        let running = schedule.running.values().map(|since| now - *since);
        QueueReading {
            depth: schedule.ready.len(),
            unfinished: running.clone().sum(),
            longest: running.max().unwrap_or_default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue's state, without waiting.
#[derive(Default)]
struct Schedule {
    /// Each with the time at which it was put in line.
    ready: VecDeque<(ObjectKey, Instant)>,
    due: BTreeSet<(Instant, ObjectKey)>,
    keys: HashMap<ObjectKey, State>,
    /// Those handed out, and since when.
    running: HashMap<ObjectKey, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In `ready`.
    Ready,
    /// In `due`.
    Due(Instant),
    /// Handed out.
    Running,
    /// Handed out, and asked for again meanwhile.
    RunningAgain,
}

impl Schedule {
    /// Returns whether that was news.
    fn add(&mut self, key: ObjectKey, now: Instant) -> bool {
        match self.keys.get(&key) {
            Some(State::Ready | State::RunningAgain) => false,
            Some(State::Running) => {
                self.keys.insert(key, State::RunningAgain);
                true
            }
            Some(&State::Due(at)) => {
                self.due.remove(&(at, key.clone()));
                self.push(key, now);
                true
            }
            None => {
                self.push(key, now);
                true
            }
        }
    }

    fn add_at(&mut self, key: ObjectKey, at: Instant) {
        match self.keys.get(&key) {
            None => {}
            Some(&State::Due(sooner)) if sooner <= at => return,
            Some(&State::Due(later)) => {
                self.due.remove(&(later, key.clone()));
            }
            // A pass comes sooner, and will say itself when the next one is due.
            Some(State::Ready | State::Running | State::RunningAgain) => return,
        }
        self.due.insert((at, key.clone()));
        self.keys.insert(key, State::Due(at));
    }

    /// Puts in line what is due. Returns how many that are.
    fn promote(&mut self, now: Instant) -> usize {
        let mut promoted = 0;
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((at, key)) = self.due.pop_first()
        {
            self.push(key, at);
            promoted += 1;
        }
        promoted
    }

    /// Hands out the first in line, and since when it has been there.
    fn pop(&mut self, now: Instant) -> Option<(ObjectKey, Instant)> {
        let (key, since) = self.ready.pop_front()?;
        self.keys.insert(key.clone(), State::Running);
        self.running.insert(key.clone(), now);
        Some((key, since))
    }

    /// Takes a key back. Returns since when it was handed out.
    fn done(&mut self, key: &ObjectKey, now: Instant) -> Option<Instant> {
        if let Some((key, State::RunningAgain)) = self.keys.remove_entry(key) {
            self.push(key, now);
        }
        self.running.remove(key)
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn push(&mut self, key: ObjectKey, since: Instant) {
        self.ready.push_back((key.clone(), since));
        self.keys.insert(key, State::Ready);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut schedule = Schedule::default();
        assert!(schedule.add(key("a"), now));
        assert!(!schedule.add(key("a"), later));
        assert_eq!(schedule.pop(later), Some((key("a"), now)));
        assert_eq!(schedule.pop(later), None);
        assert!(schedule.add(key("a"), later));
        assert!(!schedule.add(key("a"), later));
        assert_eq!(schedule.pop(later), None, "it is still running");
        assert_eq!(schedule.done(&key("a"), later), Some(later));
        assert_eq!(schedule.pop(later), Some((key("a"), later)));
        schedule.done(&key("a"), later);
        assert_eq!(schedule.pop(later), None);
        assert!(
            schedule.keys.is_empty() && schedule.running.is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn the_sooner_of_two_times_wins() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.add_at(key("a"), after(20));
        schedule.add_at(key("a"), after(10));
        schedule.add_at(key("a"), after(30));
        assert_eq!(schedule.next_due(), Some(after(10)));
        assert_eq!(schedule.promote(after(9)), 0);
        assert_eq!(schedule.promote(after(11)), 1);
        assert_eq!(
            schedule.pop(after(11)),
            Some((key("a"), after(10))),
            "it waits since it was due"
        );
        schedule.done(&key("a"), after(12));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_change_comes_before_the_appointed_time_and_replaces_it() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add_at(key("a"), now + Duration::from_secs(10));
        assert!(schedule.add(key("a"), now));
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.pop(now), Some((key("a"), now)));
        schedule.add_at(key("a"), now);
        assert_eq!(
            schedule.next_due(),
            None,
            "the running pass appoints the next one when it is done"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_taker_wakes_up_for_both() {
        let queue = Arc::new(Queue::default());
        let taker = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move {
                let first = queue.next().await;
                queue.done(&first);
                (first, queue.next().await)
            }
        });
        tokio::task::yield_now().await;
        queue.add_at(key("later"), Instant::now() + Duration::from_secs(3600));
        queue.add(key("now"));
        let keys = taker.await.expect("no panic");
        assert_eq!(keys, (key("now"), key("later")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_worked_on_is_told() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("b"));
        let first = queue.next().await;
        tokio::time::advance(Duration::from_secs(5)).await;
        let second = queue.next().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        let expected = QueueReading {
            depth: 0,
            unfinished: Duration::from_secs(9),
            longest: Duration::from_secs(7),
        };
        assert_eq!(queue.reading(), expected);
        queue.done(&first);
        queue.done(&second);
        assert_eq!(queue.reading(), QueueReading::default());
    }
}
