//! The work queue, by the names that dashboards for client-go know.
//!
//! Source of names, labels and buckets: `pkg/metrics/workqueue.go` of sigs.k8s.io/controller-runtime.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{
    CONTROLLER,
    catalog::{Catalog, FloatGauge, Label},
    passes::CONTROLLER_LABEL,
};

/// Upper bounds of the buckets for times, in seconds.
const SECONDS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

const NAME: Label = Label::closed("name", || vec![CONTROLLER]);

/// What a queue tells of itself at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueReading {
    /// Keys waiting for a pass.
    pub(crate) depth: usize,
    /// How long the keys that are handed out have been so, all together.
    pub(crate) unfinished: Duration,
    /// The longest of these.
    pub(crate) longest: Duration,
}

/// What happens in a queue. Clones count together.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    waited: Histogram,
    worked: Histogram,
    unfinished: FloatGauge,
    longest: FloatGauge,
}

impl Default for QueueMetrics {
    /// Metrics of no registry.
    fn default() -> Self {
        Self::new(&mut Catalog::default())
    }
}

impl QueueMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let labels = [CONTROLLER_LABEL, NAME];
        let values = [CONTROLLER, CONTROLLER];
        let depth = "InferenceServices that wait for a pass";
        let adds = "Times that an InferenceService was put in line for a pass";
        let retries = "Passes that have to be repeated: they failed, met another writer, or something is missing";
        let waited = "Time from being put in line to the start of the pass";
        let worked = "Time from the start of a pass to its end";
        let unfinished = "How long the running passes have been running, all together";
        let longest = "How long the longest running pass has been running";
        Self {
            depth: catalog.gauge_by("workqueue_depth", depth, labels).with(values),
            adds: catalog.counter_by("workqueue_adds_total", adds, labels).with(values),
            retries: catalog
                .counter_by("workqueue_retries_total", retries, labels)
                .with(values),
            waited: catalog
                .histogram_by("workqueue_queue_duration_seconds", waited, labels, &SECONDS)
                .with(values),
            worked: catalog
                .histogram_by("workqueue_work_duration_seconds", worked, labels, &SECONDS)
                .with(values),
            unfinished: catalog
                .float_gauge_by("workqueue_unfinished_work_seconds", unfinished, labels)
                .with(values),
            longest: catalog
                .float_gauge_by("workqueue_longest_running_processor_seconds", longest, labels)
                .with(values),
        }
    }

    pub(crate) fn added(&self) {
        self.adds.inc();
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// A key is handed out after this time in line.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    /// The work on a key has taken this time.
    pub(crate) fn worked(&self, time: Duration) {
        self.worked.observe(time.as_secs_f64());
    }

    pub(super) fn read(&self, reading: QueueReading) {
        self.depth.set(super::saturating(reading.depth));
        self.unfinished.set(reading.unfinished.as_secs_f64());
        self.longest.set(reading.longest.as_secs_f64());
    }
}
