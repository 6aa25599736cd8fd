//! The mode `auto`.

mod working_set;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use self::working_set::WorkingSet;
use crate::access::{BoxFuture, ReadResult, SecretAccess};
use crate::answer::{Answers, Asked, Served};
use crate::direct::DirectReads;
use crate::error::{ReadError, ReadErrorKind};
use crate::fetch::{Failure, Fetcher};
use crate::flight::Flights;
use crate::front::{Front, floors_for};
use crate::lru::LruReads;
use crate::mode::Mode;
use crate::options::{AccessOptions, AutoOptions, InvalidOptions};
use crate::probe::{ClusterCount, Probe, Transition};
use crate::route::{self, Reason, Route, Sizes};
use crate::secret_ref::SecretRef;

/// Caches like [`Lru`](crate::Lru) while few Secrets are read, and reads like [`Direct`](crate::Direct) while many are.
///
/// With the right to `get` alone, the size of things is the working set: the distinct Secrets read within
/// [`window`](AutoOptions::window) and the bytes they take. When either crosses its threshold, the cache is emptied and
/// reads become direct at once. When all sizes have stayed below
/// [`return_below_percent`](AutoOptions::return_below_percent) of their thresholds for
/// [`return_after`](AutoOptions::return_after), caching begins again. Keeping count takes the names of at most one Secret
/// more than the threshold.
///
/// With the right to `list` and [`AutoOptions::cluster`] set, the number of Secrets in the cluster is a third size.
///
/// Each change is reported through [`Probe::transition`] with the threshold that was crossed.
pub struct Auto {
    front: Front,
    reads: AutoReads,
    deadline: Duration,
}

impl Auto {
    /// Reads with the identity of `client`, which must not retry: see [`client`](crate::client). Of `options`, the field
    /// [`mode`](AccessOptions::mode) is not used.
    ///
    /// # Errors
    ///
    /// The first option that is out of its range.
    pub fn new(client: Client, options: &AccessOptions, probe: Arc<dyn Probe>) -> Result<Self, InvalidOptions> {
        options.validate()?;
        let front = Front::new(floors_for(options), Arc::clone(&probe));
        let flights = Flights::new(Fetcher::new(client, options.fetch.clone()), Arc::clone(&probe));
        Ok(Self {
            front,
            reads: AutoReads::new(&flights, options, probe),
            deadline: options.fetch.deadline,
        })
    }
}

impl SecretAccess for Auto {
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        Box::pin(self.front.read(&self.reads, self.deadline, secret))
    }
}

impl fmt::Debug for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auto").finish_non_exhaustive()
    }
}

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

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked) -> BoxFuture<'a, Result<Served, ReadError>> {
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

impl Failure {
    /// The variant alone, where there is no Secret to name.
    fn kind(self) -> ReadErrorKind {
        match self {
            Self::NotFound => ReadErrorKind::NotFound,
            Self::Forbidden => ReadErrorKind::Forbidden,
            Self::Unauthorized => ReadErrorKind::Unauthorized,
            Self::Throttled(_) => ReadErrorKind::Throttled,
            Self::TooLarge(_) => ReadErrorKind::TooLarge,
            Self::Malformed(_) => ReadErrorKind::Malformed,
            Self::Unavailable(..) => ReadErrorKind::Unavailable,
            Self::Timeout(_) => ReadErrorKind::Timeout,
        }
    }
}
