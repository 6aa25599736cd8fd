//! Passes, by the names that dashboards for controller-runtime know.
//!
//! Source of names, labels and buckets: `pkg/internal/controller/metrics` of sigs.k8s.io/controller-runtime.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{
    CONTROLLER,
    catalog::{Catalog, CounterBy, Label},
};

/// Upper bounds of the buckets for the time a pass takes, in seconds.
const SECONDS: [f64; 40] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5,
    1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
];

const RESULT: Label = Label::closed("result", || PassEnd::RESULTS.to_vec());
pub(super) const CONTROLLER_LABEL: Label = Label::closed("controller", || vec![CONTROLLER]);

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassEnd {
    Success,
    Error,
    /// It panicked, which counts as an error too.
    Panic,
    /// Tried again at once, because somebody else was faster.
    Requeue,
    /// Tried again later, because something is missing.
    RequeueAfter,
}

impl PassEnd {
    const RESULTS: [&'static str; 4] = ["error", "requeue", "requeue_after", "success"];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error | Self::Panic => "error",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// How passes begin and end.
pub(crate) struct PassMetrics {
    ended: CounterBy<2>,
    errors: Counter,
    panics: Counter,
    seconds: Histogram,
    active: Gauge,
    most: Gauge,
}

impl PassMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let ended = catalog.counter_by(
            "controller_runtime_reconcile_total",
            "Passes that have ended, by result",
            [CONTROLLER_LABEL, RESULT],
        );
        // Counters are there from the start: a rate over a series that appears with its first count misses that count.
        for result in PassEnd::RESULTS {
            ended.with([CONTROLLER, result]);
        }
        let of_controller = [CONTROLLER_LABEL];
        let errors = "Passes that have failed and are tried again; a conflict with another writer is none";
        let errors = catalog.counter_by("controller_runtime_reconcile_errors_total", errors, of_controller);
        let panics = "Passes that have panicked, which is a bug";
        let panics = catalog.counter_by("controller_runtime_reconcile_panics_total", panics, of_controller);
        let seconds = catalog.histogram_by(
            "controller_runtime_reconcile_time_seconds",
            "Duration of a pass",
            of_controller,
            &SECONDS,
        );
        let active = catalog.gauge_by("controller_runtime_active_workers", "Passes running now", of_controller);
        let most = "Passes that may run at a time";
        let most = catalog.gauge_by("controller_runtime_max_concurrent_reconciles", most, of_controller);
        Self {
            ended,
            errors: errors.with([CONTROLLER]),
            panics: panics.with([CONTROLLER]),
            seconds: seconds.with([CONTROLLER]),
            active: active.with([CONTROLLER]),
            most: most.with([CONTROLLER]),
        }
    }

    /// So many passes may run at a time from now on.
    pub(crate) fn may_run(&self, most: usize) {
        self.most.set(super::saturating(most));
    }

    pub(crate) fn started(&self) {
        self.active.inc();
    }

    pub(crate) fn ended(&self, end: PassEnd, took: Duration) {
        self.active.dec();
        self.ended.with([CONTROLLER, end.as_str()]).inc();
        match end {
            PassEnd::Panic => {
                self.panics.inc();
                self.errors.inc();
            }
            PassEnd::Error => {
                self.errors.inc();
            }
            PassEnd::Success | PassEnd::Requeue | PassEnd::RequeueAfter => {}
        }
        self.seconds.observe(took.as_secs_f64());
    }

    /// How many passes have ended.
    pub(crate) fn count(&self) -> u64 {
        let counts = PassEnd::RESULTS.map(|result| self.ended.with([CONTROLLER, result]).get());
        counts.iter().sum()
    }
}
