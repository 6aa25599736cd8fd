//! The auditor's own metrics, and its page.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::{
    Format, MemoryMetrics, RequestMetrics, build_info,
    catalog::{Catalog, CounterBy, FloatGauge, Label},
    encoded,
    process::ProcessMetrics,
};
use crate::{audit::Totals, http::MetricsPage, memory::shedders};

const RESULTS: [&str; 2] = [COMPLETE, INCOMPLETE];
const COMPLETE: &str = "complete";
const INCOMPLETE: &str = "incomplete";
const RESULT: Label = Label::closed("result", || RESULTS.to_vec());

/// Every metric of `leanserve audit`.
pub(crate) struct AuditMetrics {
    registry: Registry,
    process: ProcessMetrics,
    pub(crate) memory: Arc<MemoryMetrics>,
    pub(crate) requests: Arc<RequestMetrics>,
    runs: CounterBy<1>,
    seconds: FloatGauge,
    last_complete: FloatGauge,
    interval: FloatGauge,
    services: Gauge,
    not_evaluated: Gauge,
    violations: Gauge,
    policies: Gauge,
}

impl AuditMetrics {
    pub(crate) fn new() -> Self {
        Self::described(Catalog::default()).0
    }

    pub(super) fn described(mut catalog: Catalog) -> (Self, Catalog) {
        let to = &mut catalog;
        build_info(to);
        let metrics = Self {
            registry: Registry::default(),
            memory: Arc::new(MemoryMetrics::new(to, &shedders::OF_THE_AUDIT)),
            requests: Arc::new(RequestMetrics::new(to)),
            runs: to.counter_by(
                "leanserve_audit_runs_total",
                "Runs of the auditor, by whether every service was evaluated and every result written",
                [RESULT],
            ),
            seconds: to.float_gauge("leanserve_audit_run_duration_seconds", "How long the last run took"),
            last_complete: to.float_gauge(
                "leanserve_audit_last_complete_timestamp_seconds",
                "When the last complete run ended, in Unix time; 0 before the first",
            ),
            interval: to.float_gauge(
                "leanserve_audit_interval_seconds",
                "From the end of a complete run to the next one, when no policy changes: --interval; 0 with --once",
            ),
            services: to.gauge(
                "leanserve_audit_services",
                "InferenceServices that were evaluated in the last run",
            ),
            not_evaluated: to.gauge(
                "leanserve_audit_services_not_evaluated",
                "InferenceServices that could not be evaluated in the last run",
            ),
            violations: to.gauge(
                "leanserve_audit_violations",
                "Pairs of an InferenceService and a policy that it breaks, in the last run",
            ),
            policies: to.gauge(
                "leanserve_audit_policies_violated",
                "Policies that some InferenceService breaks, in the last run",
            ),
            process: ProcessMetrics::new(to),
        };
        for result in RESULTS {
            metrics.runs.with([result]);
        }
        let registry = catalog.take_registry();
        (Self { registry, ..metrics }, catalog)
    }

    /// How often there is a run without cause.
    pub(crate) fn runs_every(&self, interval: Duration) {
        self.interval.set(interval.as_secs_f64());
    }

    /// How many runs have ended.
    pub(crate) fn count(&self) -> u64 {
        RESULTS.map(|result| self.runs.with([result]).get()).iter().sum()
    }

    /// A run has ended.
    pub(crate) fn ended(&self, services: u64, not_evaluated: u64, totals: &Totals, complete: bool, seconds: f64) {
        let result = if complete { COMPLETE } else { INCOMPLETE };
        self.runs.with([result]).inc();
        self.seconds.set(seconds);
        for (gauge, number) in [
            (&self.services, services),
            (&self.not_evaluated, not_evaluated),
            (&self.violations, totals.violations),
            (&self.policies, totals.policies),
        ] {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        if complete {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_complete.set(now.as_secs_f64());
        }
    }
}

impl MetricsPage for AuditMetrics {
    fn page(&self, format: Format) -> String {
        self.process.read();
        encoded(&self.registry, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_and_only_a_complete_one_moves_the_time() {
        let metrics = AuditMetrics::new();
        let totals = Totals {
            violations: 3,
            policies: 2,
        };
        metrics.ended(10, 1, &totals, false, 1.5);
        let page = metrics.page(Format::Prometheus);
        for line in [
            "leanserve_audit_runs_total{result=\"incomplete\"} 1",
            "leanserve_audit_runs_total{result=\"complete\"} 0",
            "leanserve_audit_run_duration_seconds 1.5",
            "leanserve_audit_last_complete_timestamp_seconds 0",
            "leanserve_audit_services 10",
            "leanserve_audit_services_not_evaluated 1",
            "leanserve_audit_violations 3",
            "leanserve_audit_policies_violated 2",
        ] {
            assert!(page.lines().any(|found| found.starts_with(line)), "{line}\n{page}");
        }
        metrics.ended(11, 0, &totals, true, 1.0);
        assert!(metrics.last_complete.get() > 1.7e9);
    }
}
