//! Which objects are to be looked at, and when.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    key::ObjectKey,
    observability::metrics::{QueueMetrics, QueueReading},
};

/// What a queue holds: something that names an object.
pub(crate) trait Key: Clone + Eq + Hash + Ord {}

impl<T: Clone + Eq + Hash + Ord> Key for T {}

/// A work queue. A key is in it at most once, and is handed out to one taker at a time; so its size is bounded by the
/// number of objects, which are all in a cache anyway, or by [`Queue::bounded`].
pub(crate) struct Queue<K = ObjectKey> {
    schedule: Mutex<Schedule<K>>,
    changed: Notify,
    /// There may be room now.
    taken: Notify,
    /// Something that is being worked on was asked for again.
    asked_again: Notify,
    /// How many wait for room.
    waiting: AtomicUsize,
    most: usize,
    metrics: QueueMetrics,
}

impl<K: Key> Default for Queue<K> {
    fn default() -> Self {
        Self::bounded(usize::MAX)
    }
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(metrics: QueueMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }
}

impl<K: Key> Queue<K> {
    /// An empty queue that takes no more than so many keys by [`try_add_at`](Self::try_add_at), without metrics.
    pub(crate) fn bounded(most: usize) -> Self {
        Self {
            schedule: Mutex::default(),
            changed: Notify::new(),
            taken: Notify::new(),
            asked_again: Notify::new(),
            waiting: AtomicUsize::new(0),
            most,
            metrics: QueueMetrics::default(),
        }
    }

    /// Asks for a pass as soon as possible, unless one was asked for already.
    pub(crate) fn add(&self, key: K) {
        let mut schedule = self.lock();
        if schedule.add(key, Instant::now()) {
            self.metrics.added();
            self.was_added(schedule);
        }
    }

    /// Asks for a pass later, unless one comes sooner anyway; after the present one, should one be running. Returns whether
    /// the queue had room for that: those who wait for room come first.
    pub(crate) fn try_add_at(&self, key: K, at: Instant) -> bool {
        self.try_add_to(key, at, self.most.saturating_sub(self.waiting.load(Ordering::Relaxed)))
    }

    /// As [`try_add_at`](Self::try_add_at), once there is room.
    pub(crate) async fn add_with_room(&self, key: K, at: Instant) {
        let mut waiting = None;
        loop {
            let taken = self.taken.notified();
            if self.try_add_to(key.clone(), at, self.most) {
                return;
            }
            waiting.get_or_insert_with(|| Waiting::of(&self.waiting));
            taken.await;
        }
    }

    /// Asks for a pass later, unless one comes sooner anyway.
    pub(crate) fn add_at(&self, key: K, at: Instant) {
        self.lock().add_at(key, at);
        self.changed.notify_one();
    }

    /// Waits for the next key; [`Queue::done`] must be called for it. For one taker at a time.
    pub(crate) async fn next(&self) -> K {
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
    pub(crate) fn done(&self, key: &K) {
        self.ended(key, None);
    }

    /// As [`done`](Self::done); the key is to be handed out again later, and keeps its place.
    pub(crate) fn done_until(&self, key: &K, at: Instant) {
        self.ended(key, Some(at));
    }

    fn ended(&self, key: &K, again: Option<Instant>) {
        let now = Instant::now();
        if let Some(since) = self.lock().done(key, again, now) {
            self.metrics.worked(now - since);
        }
        self.changed.notify_one();
        self.taken.notify_waiters();
    }

    /// Asks for another pass after the present one, if there is one. Returns whether there is.
    pub(crate) fn again_if_running(&self, key: &K) -> bool {
        let mut schedule = self.lock();
        match schedule.keys.get(key) {
            Some(State::Running) => schedule.ask_again(key.clone()),
            Some(State::RunningAgain) => {}
            _ => return false,
        }
        self.was_added(schedule);
        true
    }

    /// Waits until another pass than the present one is asked for.
    pub(crate) async fn until_asked_again(&self, key: &K) {
        loop {
            // It hears of what happens from here on.
            let asked = self.asked_again.notified();
            if self.lock().keys.get(key) == Some(&State::RunningAgain) {
                return;
            }
            asked.await;
        }
    }

    fn try_add_to(&self, key: K, at: Instant, most: usize) -> bool {
        let mut schedule = self.lock();
        let added = schedule.try_add_at(key, at, most);
        self.was_added(schedule);
        added
    }

    /// Wakes up whom an addition concerns.
    fn was_added(&self, mut schedule: MutexGuard<'_, Schedule<K>>) {
        let asked_again = mem::take(&mut schedule.asked_again);
        drop(schedule);
        self.changed.notify_one();
        if asked_again {
            self.asked_again.notify_waiters();
        }
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many keys are in it, those that are being worked on and those that are due later too.
    pub(crate) fn len(&self) -> usize {
        self.lock().keys.len()
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

    fn lock(&self) -> MutexGuard<'_, Schedule<K>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for room as long as this is held.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queue's state, without waiting.
struct Schedule<K> {
    /// Each with the time at which it was put in line.
    ready: VecDeque<(K, Instant)>,
    due: BTreeSet<(Instant, K)>,
    keys: HashMap<K, State>,
    /// Those handed out, and since when.
    running: HashMap<K, Instant>,
    /// One of those was asked for again, and whoever works on it is to be told.
    asked_again: bool,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            keys: HashMap::new(),
            running: HashMap::new(),
            asked_again: false,
        }
    }
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

impl<K: Key> Schedule<K> {
    /// Returns whether that was news.
    fn add(&mut self, key: K, now: Instant) -> bool {
        match self.keys.get(&key) {
            Some(State::Ready | State::RunningAgain) => false,
            Some(State::Running) => {
                self.ask_again(key);
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

    fn add_at(&mut self, key: K, at: Instant) {
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

    fn try_add_at(&mut self, key: K, at: Instant, most: usize) -> bool {
        match self.keys.get(&key) {
            Some(State::Running) => {
                self.ask_again(key);
            }
            None if self.keys.len() >= most => return false,
            None | Some(State::Ready | State::Due(_) | State::RunningAgain) => self.add_at(key, at),
        }
        true
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
    fn pop(&mut self, now: Instant) -> Option<(K, Instant)> {
        let (key, since) = self.ready.pop_front()?;
        self.keys.insert(key.clone(), State::Running);
        self.running.insert(key.clone(), now);
        Some((key, since))
    }

    /// Takes a key back, unless it is due again. Returns since when it was handed out.
    fn done(&mut self, key: &K, again: Option<Instant>, now: Instant) -> Option<Instant> {
        if let Some((key, state)) = self.keys.remove_entry(key) {
            if state == State::RunningAgain {
                self.push(key, now);
            } else if let Some(at) = again {
                self.add_at(key, at);
            }
        }
        self.running.remove(key)
    }

    fn ask_again(&mut self, key: K) {
        self.keys.insert(key, State::RunningAgain);
        self.asked_again = true;
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn push(&mut self, key: K, since: Instant) {
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
        let mut schedule = Schedule::<ObjectKey>::default();
        assert!(schedule.add(key("a"), now));
        assert!(!schedule.add(key("a"), later));
        assert_eq!(schedule.pop(later), Some((key("a"), now)));
        assert_eq!(schedule.pop(later), None);
        assert!(schedule.add(key("a"), later));
        assert!(!schedule.add(key("a"), later));
        assert_eq!(schedule.pop(later), None, "it is still running");
        assert_eq!(schedule.done(&key("a"), None, later), Some(later));
        assert_eq!(schedule.pop(later), Some((key("a"), later)));
        schedule.done(&key("a"), None, later);
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
        let mut schedule = Schedule::<ObjectKey>::default();
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
        schedule.done(&key("a"), None, after(12));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_change_comes_before_the_appointed_time_and_replaces_it() {
        let now = Instant::now();
        let mut schedule = Schedule::<ObjectKey>::default();
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
        let queue = Arc::new(Queue::<ObjectKey>::default());
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
    async fn a_bounded_queue_says_when_it_is_full_and_when_it_is_not() {
        let queue = Arc::new(Queue::bounded(2));
        let now = Instant::now();
        assert!(queue.try_add_at("a", now) && queue.try_add_at("b", now));
        assert!(!queue.try_add_at("c", now));
        assert!(queue.try_add_at("a", now), "it is in there already");
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.add_with_room("d", now).await }
        });
        let first = queue.next().await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "what is worked on counts too");
        assert!(queue.try_add_at(first, now), "once more, when the present pass is over");
        queue.done(&first);
        assert_eq!(queue.next().await, "b");
        queue.done(&"b");
        assert!(!queue.try_add_at("b", now), "who waits for room comes first");
        waiting.await.expect("no panic");
        assert_eq!(queue.next().await, first);
        assert_eq!(queue.next().await, "d");
        queue.done(&first);
        assert!(queue.try_add_at("b", now), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_again_keeps_its_place() {
        let queue = Queue::bounded(1);
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(9));
        assert!(queue.try_add_at("a", now));
        assert!(!queue.again_if_running(&"a"), "it has not begun");
        let first = queue.next().await;
        queue.done_until(&first, later);
        assert!(!queue.try_add_at("b", now));
        assert_eq!(queue.next().await, first);
        assert_eq!(Instant::now(), later);
        assert!(queue.again_if_running(&first) && queue.again_if_running(&first));
        queue.done_until(&first, later + Duration::from_secs(9));
        assert_eq!(queue.next().await, first);
        assert_eq!(Instant::now(), later, "sooner than it wanted to");
        queue.done(&first);
        assert_eq!((queue.len(), queue.lock().running.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_on_it_hears_when_it_is_asked_for_again() {
        let queue = Arc::new(Queue::bounded(2));
        let asks: [fn(&Queue<&'static str>); 3] = [
            |queue| queue.add("a"),
            |queue| assert!(queue.try_add_at("a", Instant::now())),
            |queue| assert!(queue.again_if_running(&"a")),
        ];
        for ask in asks {
            queue.add("a");
            let first = queue.next().await;
            let heard = tokio::spawn({
                let queue = Arc::clone(&queue);
                async move { queue.until_asked_again(&first).await }
            });
            tokio::task::yield_now().await;
            queue.asked_again.notify_waiters();
            queue.add("b");
            tokio::task::yield_now().await;
            assert!(!heard.is_finished(), "that was another one");
            ask(&queue);
            heard.await.expect("no panic");
            queue.until_asked_again(&first).await;
            queue.done(&first);
            for _ in 0..2 {
                let next = queue.next().await;
                queue.done(&next);
            }
            assert_eq!(queue.len(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_no_longer_holds_no_room() {
        let queue = Queue::bounded(1);
        let now = Instant::now();
        assert!(queue.try_add_at("a", now));
        let given_up = tokio::time::timeout(Duration::from_secs(1), queue.add_with_room("b", now));
        assert!(given_up.await.is_err());
        let first = queue.next().await;
        queue.done(&first);
        assert!(queue.try_add_at("c", now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_worked_on_is_told() {
        let queue = Queue::<ObjectKey>::default();
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
