//! Who runs passes: a bounded number at a time, each followed by an appointment for the next.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info, warn};

use crate::{
    backoff::Tries,
    concurrency::{Concurrency, Permit},
    error::PassError,
    health::Health,
    key::ObjectKey,
    leader::fence::Fence,
    observability::{
        metrics::{Metrics, PassEnd},
        spans,
    },
    queue::Queue,
    reconcile::{Outcome, Reconciler},
};

/// Runs passes, a bounded number at a time.
pub(crate) struct Workers {
    pub(crate) shared: Arc<Shared>,
    pub(crate) health: Arc<Health>,
    /// Set when the first pass may begin.
    pub(crate) begun: Arc<AtomicBool>,
    pub(crate) concurrency: Arc<Concurrency>,
}

/// What all passes have in common.
pub(crate) struct Shared {
    reconciler: Reconciler,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    tries: Mutex<Tries>,
    resync_period: Duration,
}

impl Workers {
    /// Hands out work for ever. Dropping it stops that; passes already begun go on.
    pub(crate) async fn dispatch(&self, fence: &Fence) {
        self.health.until_known().await;
        self.begun.store(true, Ordering::Release);
        info!("in sync; passes begin");
        loop {
            let permit = self.concurrency.acquire().await;
            let key = self.shared.queue.next().await;
            // A pass that may not write would only fail.
            fence.until_open().await;
            tokio::spawn(Arc::clone(&self.shared).run(key, permit));
        }
    }

    /// Waits for the passes that run.
    pub(crate) async fn drain(&self) {
        self.concurrency.drained().await;
    }
}

impl Shared {
    pub(crate) fn new(
        reconciler: Reconciler,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        resync_period: Duration,
    ) -> Self {
        Self {
            reconciler,
            queue,
            metrics,
            tries: Mutex::default(),
            resync_period,
        }
    }

    /// Runs one pass and appoints the next one.
    async fn run(self: Arc<Self>, key: ObjectKey, permit: Permit) {
        let started = Instant::now();
        let span = spans::pass(&key);
        self.metrics.passes.started();
        // A panic is a bug, and one service must not take the others down with it.
        let pass = self.reconciler.pass(&key).instrument(span.clone());
        let result = AssertUnwindSafe(pass).catch_unwind().await;
        let (end, next) = match result {
            Ok(Ok(outcome)) => self.ended(&key, outcome),
            Ok(Err(error)) => self.failed(&key, &error),
            Err(_panic) => {
                error!(
                    namespace = key.namespace(),
                    name = key.name(),
                    "a pass has panicked; trying again"
                );
                (
                    PassEnd::Panic,
                    Some(self.tries(|tries| tries.failed(&key, None, fastrand::f64()))),
                )
            }
        };
        self.metrics.passes.ended(end, started.elapsed());
        spans::ended(&span, end.as_str());
        if !matches!(end, PassEnd::Success) {
            self.metrics.queue.retried();
        }
        self.queue.done(&key);
        if let Some(delay) = next {
            self.queue.add_at(key, Instant::now() + delay);
        }
        drop(permit);
    }

    fn ended(&self, key: &ObjectKey, outcome: Outcome) -> (PassEnd, Option<Duration>) {
        match outcome {
            // Soon, and less and less so, should two writers be undoing each other's work.
            Outcome::Written => (
                PassEnd::Success,
                Some(self.tries(|tries| tries.failed(key, None, fastrand::f64()))),
            ),
            Outcome::Unreported(delay) => (PassEnd::RequeueAfter, Some(delay)),
            Outcome::Settled => {
                self.tries(|tries| tries.forget(key));
                // Spread, so that services that came together do not come together for ever.
                (
                    PassEnd::Success,
                    Some(self.resync_period.mul_f64(0.8 + 0.2 * fastrand::f64())),
                )
            }
            Outcome::Waiting => {
                let delay = self.tries(|tries| tries.waited(key, Instant::now(), fastrand::f64()));
                (PassEnd::RequeueAfter, Some(delay.min(self.resync_period)))
            }
            Outcome::Gone => {
                self.tries(|tries| tries.forget(key));
                (PassEnd::Success, None)
            }
        }
    }

    fn failed(&self, key: &ObjectKey, error: &PassError) -> (PassEnd, Option<Duration>) {
        let delay = self.tries(|tries| tries.failed(key, error.retry_after(), fastrand::f64()));
        let (namespace, name) = (key.namespace(), key.name());
        if error.is_conflict() {
            debug!(namespace, name, %error, "somebody else was faster; trying again");
            return (PassEnd::Requeue, Some(delay));
        }
        let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        warn!(namespace, name, %error, error_kind = error.kind(), retry_ms, "pass failed");
        (PassEnd::Error, Some(delay))
    }

    fn tries<R>(&self, change: impl FnOnce(&mut Tries) -> R) -> R {
        change(&mut self.tries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
