//! Which `InferenceServices` are to be looked at, and when.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::key::ObjectKey;

/// A work queue. A key is in it at most once, and is handed out to one taker at a time; so its size is bounded by the
/// number of services.
#[derive(Default)]
pub(crate) struct Queue {
    schedule: Mutex<Schedule>,
    changed: Notify,
}

impl Queue {
    /// Asks for a pass as soon as possible. Returns whether that was news.
    pub(crate) fn add(&self, key: ObjectKey) -> bool {
        let news = self.lock().add(key);
        if news {
            self.changed.notify_one();
        }
        news
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
                let mut schedule = self.lock();
                if let Some(key) = schedule.pop(Instant::now()) {
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
        self.lock().done(key);
        self.changed.notify_one();
    }

    /// How many keys wait for a pass now.
    pub(crate) fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue's state, without waiting.
#[derive(Default)]
struct Schedule {
    ready: VecDeque<ObjectKey>,
    due: BTreeSet<(Instant, ObjectKey)>,
    keys: HashMap<ObjectKey, State>,
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
    fn add(&mut self, key: ObjectKey) -> bool {
        match self.keys.get(&key) {
            Some(State::Ready | State::RunningAgain) => false,
            Some(State::Running) => {
                self.keys.insert(key, State::RunningAgain);
                true
            }
            Some(&State::Due(at)) => {
                self.due.remove(&(at, key.clone()));
                self.push(key);
                true
            }
            None => {
                self.push(key);
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

    fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, key)) = self.due.pop_first()
        {
            self.push(key);
        }
        let key = self.ready.pop_front()?;
        self.keys.insert(key.clone(), State::Running);
        Some(key)
    }

    fn done(&mut self, key: &ObjectKey) {
        if let Some((key, State::RunningAgain)) = self.keys.remove_entry(key) {
            self.push(key);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn push(&mut self, key: ObjectKey) {
        self.ready.push_back(key.clone());
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
        let mut schedule = Schedule::default();
        assert!(schedule.add(key("a")));
        assert!(!schedule.add(key("a")));
        assert_eq!(schedule.pop(now), Some(key("a")));
        assert_eq!(schedule.pop(now), None);
        assert!(schedule.add(key("a")));
        assert!(!schedule.add(key("a")));
        assert_eq!(schedule.pop(now), None, "it is still running");
        schedule.done(&key("a"));
        assert_eq!(schedule.pop(now), Some(key("a")));
        schedule.done(&key("a"));
        assert_eq!(schedule.pop(now), None);
        assert!(schedule.keys.is_empty(), "nothing is left behind");
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
        assert_eq!(schedule.pop(after(9)), None);
        assert_eq!(schedule.pop(after(10)), Some(key("a")));
        schedule.done(&key("a"));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_change_comes_before_the_appointed_time_and_replaces_it() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add_at(key("a"), now + Duration::from_secs(10));
        assert!(schedule.add(key("a")));
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.pop(now), Some(key("a")));
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
}
