//! The operator's page for scrapers.

use std::sync::Arc;

use super::metrics::{Format, Metrics, QueueReading, Sights, Tally, WatchState};
use crate::{cache::Cache, health::Health, http::MetricsPage, queue::Queue, stored::service::StoredService};

/// The metrics, and what is looked at when the page is asked for.
pub(crate) struct OperatorPage {
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) services: Arc<Cache<StoredService>>,
}

impl MetricsPage for OperatorPage {
    fn page(&self, format: Format) -> String {
        self.metrics.page(format, self)
    }
}

impl Sights for OperatorPage {
    fn queue(&self) -> QueueReading {
        self.queue.reading()
    }

    fn services(&self) -> Tally {
        let mut tally = Tally::default();
        self.services.visit(|service| {
            if let Some((readiness, since)) = service.readiness() {
                tally.count(readiness, since);
            }
        });
        tally
    }

    fn watches(&self, state: WatchState) -> usize {
        self.health.watches(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::ObjectKey, stored::service::tests::stored};

    fn pages() -> OperatorPage {
        OperatorPage {
            health: Arc::new(Health::new()),
            metrics: Arc::new(Metrics::new()),
            queue: Arc::new(Queue::default()),
            services: Arc::default(),
        }
    }

    #[test]
    fn services_are_counted_by_what_their_status_says() {
        let pages = pages();
        let service = |name: &str, status: serde_json::Value| {
            pages.services.put(stored(&serde_json::json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1",
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": status,
            })));
        };
        let ready = |status: &str, reason: &str| {
            serde_json::json!({"conditions": [
                {"type": "PredictorReady", "status": "False", "reason": "Other"},
                {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:10Z"},
            ]})
        };
        service("a", ready("True", ""));
        service("b", ready("False", "SecretNotFound"));
        service("c", ready("Unknown", ""));
        service("new", serde_json::Value::Null);
        service("foreign", ready("False", "SecretNotFound"));
        let foreign = pages
            .services
            .find(&ObjectKey::new("ns", "foreign"))
            .expect("it is there");
        foreign.is_foreign(true);
        let page = pages.page(Format::Prometheus);
        for line in [
            "leanserve_inferenceservices{ready=\"true\",reason=\"\"} 1",
            "leanserve_inferenceservices{ready=\"false\",reason=\"reference\"} 1",
            "leanserve_inferenceservices{ready=\"unknown\",reason=\"pending\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let longest = page.lines().find_map(|line| {
            line.strip_prefix("leanserve_inferenceservices_longest_not_ready_seconds{reason=\"reference\"} ")
        });
        let longest: f64 = longest.and_then(|value| value.parse().ok()).expect("a number");
        assert!(longest > 1e5, "{longest}");
    }
}
