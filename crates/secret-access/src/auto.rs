//! The mode `auto`: caches like `lru` while few Secrets are read, and reads like `direct` while many are.
//!
//! With the right to `get` alone, the size of things is the working set: the distinct Secrets read within a window and the
//! bytes they take. When either crosses its threshold, the cache is emptied and reads become direct at once. When all sizes
//! have stayed well below their thresholds for a while, caching begins again. Keeping count takes the names of at most one
//! Secret more than the threshold. With the right to `list`, the number of Secrets in the cluster is a third size.
//!
//! Where the rights allow it, a watch stands before all that: see [`watch`](crate::watch).

mod working_set;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use self::working_set::WorkingSet;
use crate::access::BoxFuture;
use crate::answer::{Answers, Asked, Sent, Served};
use crate::direct::DirectReads;
use crate::error::ReadError;
use crate::failure::Failure;
use crate::flight::Flights;
use crate::lru::LruReads;
use crate::mode::Mode;
use crate::options::{AccessOptions, AutoOptions};
use crate::probe::{CacheSize, ClusterCount, Probe, Transition};
use crate::purge::{Purge, Purged};
use crate::route::{self, Reason, Route, Sizes};
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;

/// The mode itself.
pub(crate) struct AutoReads {
    cached: LruReads,
    direct: DirectReads,
    flights: Arc<Flights>,
    options: AutoOptions,
    state: Arc<Mutex<State>>,
    probe: Arc<dyn Probe>,
}

struct State {
    route: Route,
    working_set: WorkingSet,
    cluster: Option<u64>,
    /// When the cluster may be counted next; `None` while a count is on its way.
    count_at: Option<Instant>,
}

impl AutoReads {
    pub(crate) fn new(flights: &Arc<Flights>, options: &AccessOptions, probe: Arc<dyn Probe>) -> Self {
        Self {
            cached: LruReads::new(Arc::clone(flights), options.lru.clone(), Arc::clone(&probe)),
            direct: DirectReads::new(Arc::clone(flights)),
            flights: Arc::clone(flights),
            options: options.auto.clone(),
            state: Arc::new(Mutex::new(State {
                route: Route::Cached,
                working_set: WorkingSet::new(options.auto.max_secrets, options.auto.window),
                cluster: None,
                count_at: Some(Instant::now()),
            })),
            probe,
        }
    }

    /// Counts a read, and changes the route if that crosses a threshold.
    fn account(&self, secret: &SecretRef, served: &Served) {
        let bytes = served.answer.found.as_ref().map_or(0, |found| found.cost());
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.working_set.record(secret, bytes, now);
        let sizes = Sizes {
            secrets: state.working_set.secrets(),
            bytes: state.working_set.bytes(),
            cluster: state.cluster,
        };
        let (next, reason) = route::next(state.route, sizes, &self.options, now);
        state.route = next;
        let Some(reason) = reason else {
            return;
        };
        let (from, to) = match next {
            Route::Cached => {
                self.cached.open();
                (Mode::Direct, Mode::Lru)
            }
            Route::Direct { .. } => {
                // Under the lock, so that a return to the cache cannot be overtaken by this.
                self.cached.close();
                (Mode::Lru, Mode::Direct)
            }
        };
        drop(state);
        self.report(from, to, reason);
    }

    fn report(&self, from: Mode, to: Mode, reason: Reason) {
        tracing::info!(%from, %to, %reason, "reading Secrets in another mode");
        self.probe.transition(&Transition { from, to, reason });
    }

    /// Begins to count the cluster's Secrets if that is wanted and due. The read that brought it up does not wait.
    fn count_if_due(&self) {
        let Some(options) = &self.options.cluster else {
            return;
        };
        let now = Instant::now();
        let mut state = lock(&self.state);
        if state.count_at.is_none_or(|due| now < due) {
            return;
        }
        state.count_at = None;
        drop(state);
        let counting = Counting {
            state: Arc::clone(&self.state),
            next: now + options.interval,
        };
        let flights = Arc::clone(&self.flights);
        let probe = Arc::clone(&self.probe);
        let options = options.clone();
        tokio::spawn(async move {
            let mut counting = counting;
            let result = flights.fetcher().count().await;
            let count = match result {
                Ok(count) => ClusterCount::Counted(count),
                Err(Failure::Forbidden) => ClusterCount::Denied,
                Err(failure) => ClusterCount::Failed(failure.kind()),
            };
            match count {
                ClusterCount::Counted(count) => lock(&counting.state).cluster = Some(count),
                ClusterCount::Denied => {
                    // What was counted before the right was taken away says nothing about now.
                    lock(&counting.state).cluster = None;
                    counting.next = Instant::now() + options.retry_denied_after;
                    tracing::info!("not allowed to list Secrets: auto decides without the cluster's size");
                }
                ClusterCount::Failed(_) => {}
            }
            probe.cluster_count(count);
            drop(counting);
        });
    }
}

impl Answers for AutoReads {
    fn mode(&self) -> Mode {
        Mode::Auto
    }

    fn at_hand(&self, secret: &SecretRef, asked: Asked<'_>) -> Option<Served> {
        let route = lock(&self.state).route;
        match route {
            Route::Cached => {
                let served = self.cached.at_hand(secret, asked)?;
                self.account(secret, &served);
                Some(served)
            }
            Route::Direct { .. } => None,
        }
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked<'a>) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            self.count_if_due();
            let route = lock(&self.state).route;
            let served = match route {
                Route::Cached => self.cached.answer(secret, asked).await?,
                Route::Direct { .. } => self.direct.answer(secret, asked).await?,
            };
            self.account(secret, &served);
            Ok(served)
        })
    }

    fn purge(&self, level: Purge) -> Purged {
        self.cached.purge(level)
    }

    fn squeeze(&self, max_bytes: usize) -> Purged {
        self.cached.squeeze(max_bytes)
    }

    fn held(&self) -> CacheSize {
        self.cached.held()
    }

    fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        self.cached.confirm(secret, uid, version, sent);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Consistent after every statement that could panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the next count happen, however the task of this one ends.
struct Counting {
    state: Arc<Mutex<State>>,
    next: Instant,
}

impl Drop for Counting {
    fn drop(&mut self) {
        lock(&self.state).count_at = Some(self.next);
    }
}
