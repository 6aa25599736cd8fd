//! How many passes run at a time: at most as many as configured, as the API server bears, and as there is memory for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::Notify, time::Instant};

use crate::pace::{Answer, Pace};

/// Hands out the right to run a pass.
pub(crate) struct Concurrency {
    state: Mutex<State>,
    changed: Notify,
    /// Shows how many may run.
    shown: Gauge,
}

struct State {
    running: usize,
    most: usize,
    pace: Pace,
    share: Share,
}

/// What the memory guard leaves of the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Half,
    One,
}

impl Share {
    fn of(self, most: usize) -> usize {
        match self {
            Self::All => most,
            Self::Half => (most / 2).max(1),
            Self::One => 1,
        }
    }
}

/// The right to run a pass, given back when dropped.
pub(crate) struct Permit(Arc<Concurrency>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.change(|state| state.running -= 1);
    }
}

impl Concurrency {
    /// At most so many, and at least one. `shown` is kept up to date.
    pub(crate) fn new(most: usize, shown: Gauge) -> Self {
        let most = most.max(1);
        shown.set(as_shown(most));
        Self {
            state: Mutex::new(State {
                running: 0,
                most,
                pace: Pace::new(most),
                share: Share::All,
            }),
            changed: Notify::new(),
            shown,
        }
    }

    /// Waits until one more pass may run. For one taker at a time.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Permit {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if state.running < state.allowed() {
                    state.running += 1;
                    return Permit(Arc::clone(self));
                }
            }
            changed.await;
        }
    }

    /// Waits until no pass runs.
    pub(crate) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().running == 0 {
                return;
            }
            changed.await;
        }
    }

    /// How many may run at a time now. Passes beyond that, which began before, go on.
    #[cfg(test)]
    pub(crate) fn allowed(&self) -> usize {
        self.lock().allowed()
    }

    /// At most so many from now on.
    pub(crate) fn set_most(&self, most: usize) {
        self.change(|state| {
            state.most = most.max(1);
            state.pace.set_most(most);
        });
    }

    /// Memory leaves so much of the most.
    pub(crate) fn share(&self, share: Share) {
        self.change(|state| state.share = share);
    }

    /// A request to the API server was answered, or given up.
    pub(crate) fn answered(&self, sent: Instant, now: Instant, answer: Answer) {
        self.change(|state| state.pace.answered(sent, now, answer));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.shown.set(as_shown(state.allowed()));
        drop(state);
        // The one who waits for a permit, and the one who waits for the end.
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_shown(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl State {
    fn allowed(&self) -> usize {
        self.pace.allowed().min(self.share.of(self.most))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn take(concurrency: &Arc<Concurrency>) -> Option<Permit> {
        concurrency.acquire().now_or_never()
    }

    #[test]
    fn never_more_than_allowed() {
        let concurrency = Arc::new(Concurrency::new(2, Gauge::default()));
        let first = take(&concurrency).expect("free");
        let second = take(&concurrency).expect("free");
        assert!(take(&concurrency).is_none());
        drop(first);
        let third = take(&concurrency).expect("given back");
        concurrency.set_most(1);
        drop(second);
        assert!(take(&concurrency).is_none(), "one runs, and one is the most");
        drop(third);
        assert!(take(&concurrency).is_some());
        concurrency.set_most(0);
        assert_eq!(concurrency.allowed(), 1, "none at all would be the end");
    }

    #[test]
    fn memory_and_the_api_server_both_have_a_say() {
        let shown = Gauge::default();
        let concurrency = Concurrency::new(8, shown.clone());
        for (share, expected) in [(Share::Half, 4), (Share::One, 1), (Share::All, 8)] {
            concurrency.share(share);
            assert_eq!(concurrency.allowed(), expected, "{share:?}");
            assert_eq!(shown.get(), as_shown(expected));
        }
        let now = Instant::now();
        concurrency.answered(now, now, Answer::Throttled);
        let later = now + std::time::Duration::from_millis(1);
        concurrency.answered(later, later, Answer::Throttled);
        for (share, expected) in [(Share::All, 2), (Share::Half, 2), (Share::One, 1)] {
            concurrency.share(share);
            assert_eq!(concurrency.allowed(), expected, "{share:?}: the lesser of both");
        }
        concurrency.share(Share::Half);
        concurrency.set_most(3);
        assert_eq!(concurrency.allowed(), 1);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let concurrency = Arc::new(Concurrency::new(1, Gauge::default()));
        let permit = concurrency.acquire().await;
        let (waiting, ending) = (Arc::clone(&concurrency), Arc::clone(&concurrency));
        let next = tokio::spawn(async move { waiting.acquire().await });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        concurrency.set_most(2);
        let next = next.await.expect("no panic");
        let end = tokio::spawn(async move { ending.drained().await });
        tokio::task::yield_now().await;
        drop(permit);
        tokio::task::yield_now().await;
        assert!(!end.is_finished());
        drop(next);
        end.await.expect("no panic");
    }
}
