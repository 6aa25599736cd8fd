//! The webhook's own metrics, and its page.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    AccountMetrics, Format, MemoryMetrics, RequestMetrics, SecretMetrics, build_info,
    catalog::{Catalog, CounterBy, HistogramBy, Label},
    encoded,
    process::ProcessMetrics,
};
use crate::{http::MetricsPage, memory::shedders};

/// Upper bounds of the buckets for what a review takes, in seconds; an API server waits for 30 s at most.
const SECONDS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const OUTCOME: Label = Label::closed("outcome", || Outcome::ALL.map(Outcome::as_str).to_vec());
const REASON: Label = Label::closed("reason", || Shed::ALL.map(Shed::as_str).to_vec());
const STAGE: Label = Label::closed("stage", || STAGES.to_vec());

const LOOKUP: &str = "lookup";
const SERVE: &str = "serve";
const WAIT: &str = "wait";
const STAGES: [&str; 3] = [LOOKUP, SERVE, WAIT];

/// What became of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is missing.
    Allowed,
    /// Something is missing, and the write was refused.
    Denied,
    /// It was no review.
    Invalid,
    /// It was not let in.
    Shed,
    /// It was let in and could not be checked, because a look-up failed.
    Unchecked,
    /// Something is missing, and the author was warned.
    Warned,
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Denied,
        Self::Invalid,
        Self::Shed,
        Self::Unchecked,
        Self::Warned,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Shed => "shed",
            Self::Unchecked => "unchecked",
            Self::Warned => "warned",
        }
    }
}

/// Why a review was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// Memory is short.
    Memory,
    /// As many wait as may.
    QueueFull,
    /// It is bigger than what is taken.
    TooLarge,
    /// Its turn did not come in time.
    Waited,
}

impl Shed {
    const ALL: [Self; 4] = [Self::Memory, Self::QueueFull, Self::TooLarge, Self::Waited];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::Waited => "waited",
        }
    }
}

/// How long the parts of a review took that was let in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// For its turn.
    pub(crate) wait: Duration,
    /// For the API server.
    pub(crate) lookup: Duration,
    /// All together, from the head of the request.
    pub(crate) total: Duration,
}

/// Every metric of `leanserve webhook`.
pub(crate) struct WebhookMetrics {
    registry: Registry,
    process: ProcessMetrics,
    pub(crate) accounts: Arc<AccountMetrics>,
    pub(crate) memory: Arc<MemoryMetrics>,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) secrets: Arc<SecretMetrics>,
    reviews: CounterBy<1>,
    sheds: CounterBy<1>,
    stages: HistogramBy<1>,
    total: Histogram,
    pub(crate) waiting: Gauge,
    pub(crate) serving: Gauge,
    pub(crate) permits: Gauge,
    pub(crate) connections: Gauge,
    certificate_expiry: Gauge,
}

impl WebhookMetrics {
    pub(crate) fn new() -> Self {
        Self::described(Catalog::default()).0
    }

    pub(super) fn described(mut catalog: Catalog) -> (Self, Catalog) {
        let to = &mut catalog;
        build_info(to);
        let metrics = Self {
            registry: Registry::default(),
            requests: Arc::new(RequestMetrics::new(to)),
            secrets: Arc::new(SecretMetrics::new(to)),
            accounts: Arc::new(AccountMetrics::new(to)),
            memory: Arc::new(MemoryMetrics::new(to, &shedders::OF_THE_WEBHOOK)),
            process: ProcessMetrics::new(to),
            reviews: to.counter_by(
                "leanserve_webhook_reviews_total",
                "Reviews, by what became of them",
                [OUTCOME],
            ),
            sheds: to.counter_by(
                "leanserve_webhook_sheds_total",
                "Reviews that were answered without a check, by why they were not let in",
                [REASON],
            ),
            stages: to.histogram_by(
                "leanserve_webhook_stage_seconds",
                "How long reviews that were let in waited for their turn, looked things up, and were served otherwise",
                [STAGE],
                &SECONDS,
            ),
            total: to.histogram(
                "leanserve_webhook_review_seconds",
                "From the head of a request to its answer, of reviews that were let in",
                &SECONDS,
            ),
            waiting: to.gauge("leanserve_webhook_waiting", "Reviews that wait for their turn"),
            serving: to.gauge("leanserve_webhook_serving", "Reviews that are served at the moment"),
            permits: to.gauge("leanserve_webhook_permits", "Reviews that may be served at a time"),
            connections: to.gauge("leanserve_webhook_connections", "Open connections to the webhook"),
            certificate_expiry: to.gauge(
                "leanserve_webhook_certificate_expiry_timestamp_seconds",
                "When the certificate that is served expires, in seconds since 1970; 0 before there is one",
            ),
        };
        for outcome in Outcome::ALL {
            metrics.reviews.with([outcome.as_str()]);
        }
        for shed in Shed::ALL {
            metrics.sheds.with([shed.as_str()]);
        }
        for stage in STAGES {
            metrics.stages.with([stage]);
        }
        let registry = catalog.take_registry();
        (Self { registry, ..metrics }, catalog)
    }

    /// A review has ended like this.
    pub(crate) fn ended(&self, outcome: Outcome) {
        self.reviews.with([outcome.as_str()]).inc();
    }

    /// A review was not let in.
    pub(crate) fn shed(&self, reason: Shed) {
        self.sheds.with([reason.as_str()]).inc();
    }

    /// A review that was let in took so long.
    pub(crate) fn took(&self, times: Times) {
        let Times { wait, lookup, total } = times;
        let serve = total.saturating_sub(wait).saturating_sub(lookup);
        for (stage, took) in [(WAIT, wait), (LOOKUP, lookup), (SERVE, serve)] {
            self.stages.with([stage]).observe(took.as_secs_f64());
        }
        self.total.observe(total.as_secs_f64());
    }

    /// How many reviews have been answered.
    pub(crate) fn count(&self) -> u64 {
        let counts = Outcome::ALL
            .iter()
            .map(|outcome| self.reviews.with([outcome.as_str()]).get());
        counts.sum()
    }

    /// The certificate that is served expires then, in seconds since 1970.
    pub(crate) fn certificate(&self, not_after: i64) {
        self.certificate_expiry.set(not_after);
    }
}

impl MetricsPage for WebhookMetrics {
    fn page(&self, format: Format) -> String {
        self.process.read();
        encoded(&self.registry, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_outcome_from_the_start() {
        let metrics = WebhookMetrics::new();
        metrics.ended(Outcome::Warned);
        metrics.shed(Shed::QueueFull);
        metrics.took(Times {
            wait: Duration::from_millis(2),
            lookup: Duration::from_millis(30),
            total: Duration::from_millis(40),
        });
        assert_eq!(metrics.count(), 1);
        let page = metrics.page(Format::Prometheus);
        for line in [
            "leanserve_webhook_reviews_total{outcome=\"warned\"} 1",
            "leanserve_webhook_reviews_total{outcome=\"denied\"} 0",
            "leanserve_webhook_sheds_total{reason=\"queue_full\"} 1",
            "leanserve_webhook_sheds_total{reason=\"memory\"} 0",
            "leanserve_webhook_stage_seconds_bucket{le=\"0.01\",stage=\"serve\"} 1",
            "leanserve_webhook_stage_seconds_bucket{le=\"0.005\",stage=\"serve\"} 0",
            "leanserve_memory_sheds_total{shedder=\"reviews\",level=\"purge\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("controller_runtime"), "that is the operator's");
    }
}
