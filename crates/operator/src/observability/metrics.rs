//! All metrics. Names that dashboards for controller-runtime know are kept; labels are closed sets, never object names.
//!
//! Each file below describes and registers its own metrics with the [`Catalog`]; `docs/metrics.md` is made of that.

mod accounts;
mod audit;
pub(crate) mod catalog;
mod coexistence;
mod leader;
mod memory;
mod passes;
mod policies;
mod process;
mod queue;
#[cfg(test)]
mod reference;
mod requests;
mod secrets;
mod services;
mod text;
mod watches;
mod webhook;
mod writes;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{encoding, metrics::gauge::Gauge, registry::Registry};

use crate::memory::shedders;

pub(crate) use self::{
    accounts::AccountMetrics,
    audit::AuditMetrics,
    coexistence::CoexistenceMetrics,
    memory::MemoryMetrics,
    passes::PassEnd,
    policies::PolicyMetrics,
    queue::{QueueMetrics, QueueReading},
    requests::RequestMetrics,
    secrets::SecretMetrics,
    services::{NotReady, Readiness, Tally},
    text::Format,
    watches::{WatchMetrics, WatchState},
    webhook::{Outcome, Shed, Times, WebhookMetrics},
    writes::Verb,
};
use self::{
    catalog::{Catalog, Label},
    leader::LeaderMetrics,
    passes::PassMetrics,
    process::ProcessMetrics,
    services::ServiceMetrics,
    writes::{ConfigMetrics, WriteMetrics},
};

/// The `controller` and `name` labels of the one controller there is.
const CONTROLLER: &str = "inferenceservice";

const VERSION: Label = Label::constant("version", "version of the program");

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    process: ProcessMetrics,
    services: ServiceMetrics,
    pub(crate) accounts: Arc<AccountMetrics>,
    pub(crate) config: ConfigMetrics,
    pub(crate) coexistence: CoexistenceMetrics,
    pub(crate) leader: LeaderMetrics,
    pub(crate) memory: Arc<MemoryMetrics>,
    /// How many passes may run at a time as things stand.
    pub(crate) passes_allowed: Gauge,
    pub(crate) passes: PassMetrics,
    pub(crate) policies: PolicyMetrics,
    pub(crate) queue: QueueMetrics,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) secrets: Arc<SecretMetrics>,
    pub(crate) watches: WatchMetrics,
    pub(crate) writes: WriteMetrics,
}

/// What is looked at when the page is asked for, because nobody says so before.
pub(crate) trait Sights {
    fn queue(&self) -> QueueReading;
    fn services(&self) -> Tally;
    /// How many watches are in a state.
    fn watches(&self, state: WatchState) -> usize;
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self::described(Catalog::default()).0
    }

    fn described(mut catalog: Catalog) -> (Self, Catalog) {
        let to = &mut catalog;
        build_info(to);
        let metrics = Self {
            registry: Registry::default(),
            passes: PassMetrics::new(to),
            queue: QueueMetrics::new(to),
            requests: Arc::new(RequestMetrics::new(to)),
            leader: LeaderMetrics::new(to),
            memory: Arc::new(MemoryMetrics::new(to, &shedders::OF_THE_OPERATOR)),
            passes_allowed: to.gauge(
                "leanserve_passes_allowed",
                "Passes that may run at a time as things stand: as configured, or fewer while memory is short or the API server busy",
            ),
            coexistence: CoexistenceMetrics::new(to),
            services: ServiceMetrics::new(to),
            writes: WriteMetrics::new(to),
            watches: WatchMetrics::new(to),
            config: ConfigMetrics::new(to),
            policies: PolicyMetrics::new(to),
            secrets: Arc::new(SecretMetrics::new(to)),
            accounts: Arc::new(AccountMetrics::new(to)),
            process: ProcessMetrics::new(to),
        };
        let registry = catalog.take_registry();
        (Self { registry, ..metrics }, catalog)
    }

    /// The page for scrapers.
    pub(crate) fn page(&self, format: Format, sights: &impl Sights) -> String {
        self.queue.read(sights.queue());
        self.watches.read(|state| sights.watches(state));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.services.read(&sights.services(), now.as_secs_f64());
        self.process.read();
        encoded(&self.registry, format)
    }
}

fn build_info(to: &mut Catalog) {
    let version = env!("CARGO_PKG_VERSION");
    to.info("leanserve_build_info", "Version of this program", [(VERSION, version)]);
}

/// The page of a registry.
fn encoded(registry: &Registry, format: Format) -> String {
    let mut page = String::new();
    encoding::text::encode(&mut page, registry).expect("writing to a string cannot fail");
    match format {
        Format::OpenMetrics => page,
        Format::Prometheus => text::to_prometheus(&page),
    }
}

fn saturating(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use kube_secret_access::{Change, Mode};

    use super::*;
    use crate::error::FaultKind;

    /// Nothing to be seen.
    pub(crate) struct Blind;

    impl Sights for Blind {
        fn queue(&self) -> QueueReading {
            QueueReading {
                depth: 3,
                ..QueueReading::default()
            }
        }

        fn services(&self) -> Tally {
            Tally::default()
        }

        fn watches(&self, _: WatchState) -> usize {
            0
        }
    }

    /// The page in the older format, of metrics with nothing to look at.
    pub(crate) fn page(metrics: &Metrics) -> String {
        metrics.page(Format::Prometheus, &Blind)
    }

    #[test]
    fn the_page_has_the_names_dashboards_know() {
        let metrics = Metrics::new();
        metrics.requests.host_is("10.0.0.1:443");
        metrics.passes.may_run(8);
        metrics.passes.started();
        metrics.passes.ended(PassEnd::Success, Duration::from_millis(3));
        metrics.passes.started();
        metrics.passes.ended(PassEnd::Panic, Duration::from_millis(3));
        let took = Duration::from_millis(20);
        metrics
            .requests
            .ended(&http::Method::GET, Some(http::StatusCode::OK), took);
        metrics.requests.ended(&http::Method::PATCH, None, took);
        metrics.secrets.mode(Mode::Lru);
        metrics.queue.added();
        metrics.writes.child("Deployment", Verb::Apply);
        metrics.config.refused("leanserve-config");
        metrics.secrets.changed(Change::Updated);
        metrics.secrets.polled("found");
        metrics.secrets.tracked(2);
        metrics.accounts.read(Err(FaultKind::Forbidden));
        metrics.leader.leads(true);
        let page = page(&metrics);
        for line in [
            "controller_runtime_reconcile_total{controller=\"inferenceservice\",result=\"success\"} 1",
            "controller_runtime_reconcile_total{controller=\"inferenceservice\",result=\"error\"} 1",
            "controller_runtime_reconcile_errors_total{controller=\"inferenceservice\"} 1",
            "controller_runtime_reconcile_panics_total{controller=\"inferenceservice\"} 1",
            "controller_runtime_reconcile_time_seconds_count{controller=\"inferenceservice\"} 2",
            "controller_runtime_active_workers{controller=\"inferenceservice\"} 0",
            "controller_runtime_max_concurrent_reconciles{controller=\"inferenceservice\"} 8",
            "workqueue_depth{controller=\"inferenceservice\",name=\"inferenceservice\"} 3",
            "workqueue_adds_total{controller=\"inferenceservice\",name=\"inferenceservice\"} 1",
            "rest_client_requests_total{code=\"200\",method=\"GET\",host=\"10.0.0.1:443\"} 1",
            "rest_client_requests_total{code=\"<error>\",method=\"PATCH\",host=\"10.0.0.1:443\"} 1",
            "rest_client_request_duration_seconds_bucket{le=\"0.025\",verb=\"GET\",host=\"10.0.0.1:443\"} 1",
            "leader_election_master_status{name=\"leanserve-controller\"} 1",
            "leanserve_secret_access_mode{mode=\"lru\"} 1",
            "leanserve_secret_access_mode{mode=\"auto\"} 0",
            "leanserve_child_writes_total{kind=\"Deployment\",verb=\"apply\"} 1",
            "leanserve_config_errors_total{config=\"leanserve-config\"} 1",
            "leanserve_config_refused{config=\"leanserve-config\"} 1",
            "leanserve_secret_changes_total{change=\"updated\"} 1",
            "leanserve_secret_changes_total{change=\"recreated\"} 0",
            "leanserve_secret_polls_total{result=\"found\"} 1",
            "leanserve_secret_reads_total{mode=\"auto\",source=\"api\",result=\"forbidden\"} 0",
            "leanserve_secret_tracked 2",
            "leanserve_secret_untracked 0",
            "leanserve_serviceaccount_reads_total{result=\"found\"} 0",
            "leanserve_serviceaccount_reads_total{result=\"forbidden\"} 1",
            "leanserve_inferenceservices{ready=\"true\",reason=\"\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.contains("leanserve_build_info{version="));
    }

    /// What is described and what is served are the same.
    #[test]
    fn the_page_has_exactly_what_is_described() {
        let (metrics, catalog) = Metrics::described(Catalog::default());
        metrics.secrets.mode(Mode::Auto);
        // Without an observation there is no series.
        metrics.memory.seen(&memory::stalled(), None);
        metrics
            .requests
            .ended(&http::Method::GET, Some(http::StatusCode::OK), Duration::ZERO);
        let page = page(&metrics);
        let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let served: BTreeSet<(&str, String)> = typed
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| (name, kind.to_owned()))
            .collect();
        let described = catalog.descriptions.iter();
        let described: BTreeSet<(&str, String)> = described
            .map(|described| (described.name, format!("{:?}", described.kind).to_lowercase()))
            .collect();
        assert_eq!(served, described);
        assert_eq!(served.len(), catalog.descriptions.len(), "each name is there once");
    }

    #[test]
    fn both_formats_end_as_they_should() {
        let metrics = Metrics::new();
        let open = metrics.page(Format::OpenMetrics, &Blind);
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE workqueue_adds counter\n"));
        let older = metrics.page(Format::Prometheus, &Blind);
        assert!(!older.contains("# EOF") && older.contains("# TYPE workqueue_adds_total counter\n"));
    }
}
