//! All metrics. Names that dashboards for controller-runtime know are kept; labels are closed sets, never object names.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kube_secret_access::{CacheSize, Change, Eviction, Mode, Reason, Source};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use super::process;

/// The `controller` and `name` labels of the one controller there is.
const CONTROLLER: &str = "inferenceservice";

/// Upper bounds of the buckets for the time a pass takes, in seconds.
const PASS_SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

type Label = &'static str;
type HistogramOf<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Controller {
    controller: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PassResult {
    controller: Label,
    result: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueName {
    name: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    code: String,
    method: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModeName {
    mode: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SecretRead {
    mode: Label,
    source: Label,
    result: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChangeName {
    change: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PollResult {
    result: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonName {
    reason: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConfigName {
    config: Label,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChildWrite {
    kind: Label,
    verb: Label,
}

/// How a pass ended, for `controller_runtime_reconcile_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassEnd {
    Success,
    Error,
    /// Tried again at once, because somebody else was faster.
    Requeue,
    /// Tried again later, because something is missing.
    RequeueAfter,
}

impl PassEnd {
    const ALL: [Self; 4] = [Self::Success, Self::Error, Self::Requeue, Self::RequeueAfter];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// Why a request got no status code.
const NO_ANSWER: &str = "<error>";

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    passes: Family<PassResult, Counter>,
    pass_seconds: HistogramOf<Controller>,
    workers: Family<Controller, Gauge>,
    queue_depth: Family<QueueName, Gauge>,
    queue_adds: Family<QueueName, Counter>,
    requests: Family<Request, Counter>,
    resident_bytes: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
    start_seconds: Gauge<f64, AtomicU64>,
    mode: Family<ModeName, Gauge>,
    mode_switches: Counter,
    transitions: Family<ReasonName, Counter>,
    secret_reads: Family<SecretRead, Counter>,
    secret_entries: Gauge,
    secret_bytes: Gauge,
    secret_evictions: Family<ReasonName, Counter>,
    secret_changes: Family<ChangeName, Counter>,
    secret_polls: Family<PollResult, Counter>,
    secrets_tracked: Gauge,
    secrets_untracked: Gauge,
    config_errors: Family<ConfigName, Counter>,
    config_unknown_keys: Gauge,
    child_writes: Family<ChildWrite, Counter>,
    status_writes: Counter,
    events_dropped: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            passes: Family::default(),
            pass_seconds: Family::new_with_constructor(|| Histogram::new(PASS_SECONDS)),
            workers: Family::default(),
            queue_depth: Family::default(),
            queue_adds: Family::default(),
            requests: Family::default(),
            resident_bytes: Gauge::default(),
            cpu_seconds: Counter::default(),
            start_seconds: Gauge::default(),
            mode: Family::default(),
            mode_switches: Counter::default(),
            transitions: Family::default(),
            secret_reads: Family::default(),
            secret_entries: Gauge::default(),
            secret_bytes: Gauge::default(),
            secret_evictions: Family::default(),
            secret_changes: Family::default(),
            secret_polls: Family::default(),
            secrets_tracked: Gauge::default(),
            secrets_untracked: Gauge::default(),
            config_errors: Family::default(),
            config_unknown_keys: Gauge::default(),
            child_writes: Family::default(),
            status_writes: Counter::default(),
            events_dropped: Counter::default(),
        };
        let metrics = metrics.registered();
        // Counters are there from the start: a rate over a series that appears with its first count misses that count.
        for end in PassEnd::ALL {
            drop(metrics.passes.get_or_create(&pass_result(end)));
        }
        for change in Change::ALL {
            drop(metrics.secret_changes.get_or_create(&change_name(change)));
        }
        metrics
    }

    #[expect(clippy::too_many_lines, reason = "one line for each metric, and nothing else")]
    fn registered(mut self) -> Self {
        let to = &mut self.registry;
        to.register("controller_runtime_reconcile", "Passes by result", self.passes.clone());
        to.register(
            "controller_runtime_reconcile_time_seconds",
            "Duration of a pass",
            self.pass_seconds.clone(),
        );
        to.register(
            "controller_runtime_active_workers",
            "Passes running now",
            self.workers.clone(),
        );
        to.register(
            "workqueue_depth",
            "InferenceServices waiting for a pass",
            self.queue_depth.clone(),
        );
        to.register("workqueue_adds", "Passes asked for", self.queue_adds.clone());
        to.register(
            "rest_client_requests",
            "Requests to the API server",
            self.requests.clone(),
        );
        to.register(
            "process_resident_memory_bytes",
            "Resident memory",
            self.resident_bytes.clone(),
        );
        to.register(
            "process_cpu_seconds",
            "User and system CPU time",
            self.cpu_seconds.clone(),
        );
        to.register(
            "process_start_time_seconds",
            "Start, in seconds since 1970",
            self.start_seconds.clone(),
        );
        to.register(
            "leanserve_secret_access_mode",
            "1 for the mode in force",
            self.mode.clone(),
        );
        to.register(
            "leanserve_secret_access_mode_switches",
            "Mode switches",
            self.mode_switches.clone(),
        );
        to.register(
            "leanserve_secret_access_transitions",
            "Times that mode auto has gone from caching to direct reads or back, by reason",
            self.transitions.clone(),
        );
        to.register("leanserve_secret_reads", "Secrets read", self.secret_reads.clone());
        to.register(
            "leanserve_secret_cache_entries",
            "Secrets cached",
            self.secret_entries.clone(),
        );
        to.register(
            "leanserve_secret_cache_bytes",
            "Bytes accounted to cached Secrets",
            self.secret_bytes.clone(),
        );
        to.register(
            "leanserve_secret_cache_evictions",
            "Secrets evicted",
            self.secret_evictions.clone(),
        );
        to.register(
            "leanserve_secret_changes",
            "Changes of Secrets that services refer to",
            self.secret_changes.clone(),
        );
        to.register(
            "leanserve_secret_polls",
            "Looks at the metadata of Secrets that services refer to",
            self.secret_polls.clone(),
        );
        to.register(
            "leanserve_secret_tracked",
            "Secrets that services refer to",
            self.secrets_tracked.clone(),
        );
        to.register(
            "leanserve_secret_untracked",
            "References to Secrets beyond the bound, whose changes are not noticed",
            self.secrets_untracked.clone(),
        );
        to.register(
            "leanserve_config_errors",
            "Configurations refused",
            self.config_errors.clone(),
        );
        to.register(
            "leanserve_config_unknown_keys",
            "Unknown keys in leanserve-config",
            self.config_unknown_keys.clone(),
        );
        to.register("leanserve_child_writes", "Children written", self.child_writes.clone());
        to.register(
            "leanserve_status_writes",
            "Statuses written",
            self.status_writes.clone(),
        );
        to.register(
            "leanserve_events_dropped",
            "Events not sent",
            self.events_dropped.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        to.register("leanserve_build", "Version of this program", build);
        self
    }

    /// The page for Prometheus, in the `OpenMetrics` text format.
    pub(crate) fn page(&self, queue_depth: usize) -> String {
        self.queue_depth
            .get_or_create(&QueueName { name: CONTROLLER })
            .set(saturating(queue_depth));
        if let Some(reading) = process::read() {
            self.resident_bytes
                .set(i64::try_from(reading.resident_bytes).unwrap_or(i64::MAX));
            self.cpu_seconds
                .inner()
                .store(reading.cpu_seconds.to_bits(), Ordering::Relaxed);
            self.start_seconds.set(reading.start_seconds);
        }
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }

    pub(crate) fn pass_started(&self) {
        self.workers.get_or_create(&Controller { controller: CONTROLLER }).inc();
    }

    pub(crate) fn pass_ended(&self, end: PassEnd, took: Duration) {
        self.workers.get_or_create(&Controller { controller: CONTROLLER }).dec();
        self.passes.get_or_create(&pass_result(end)).inc();
        self.pass_seconds
            .get_or_create(&Controller { controller: CONTROLLER })
            .observe(took.as_secs_f64());
    }

    /// How many passes have ended.
    pub(crate) fn passes(&self) -> u64 {
        let counts = PassEnd::ALL.map(|end| self.passes.get_or_create(&pass_result(end)).get());
        counts.iter().sum()
    }

    pub(crate) fn queue_added(&self) {
        self.queue_adds.get_or_create(&QueueName { name: CONTROLLER }).inc();
    }

    /// `code` is none where no answer came.
    pub(crate) fn request(&self, method: &http::Method, code: Option<http::StatusCode>) {
        let code = code.map_or_else(|| NO_ANSWER.to_owned(), |code| code.as_str().to_owned());
        self.requests
            .get_or_create(&Request {
                code,
                method: method_name(method),
            })
            .inc();
    }

    pub(crate) fn child_written(&self, kind: &'static str, verb: &'static str) {
        self.child_writes.get_or_create(&ChildWrite { kind, verb }).inc();
    }

    pub(crate) fn status_written(&self) {
        self.status_writes.inc();
    }

    pub(crate) fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    pub(crate) fn config_refused(&self, config: &'static str) {
        self.config_errors.get_or_create(&ConfigName { config }).inc();
    }

    pub(crate) fn config_unknown_keys(&self, number: usize) {
        self.config_unknown_keys.set(saturating(number));
    }

    pub(crate) fn secret_read(&self, mode: Mode, source: Source, result: &'static str) {
        let labels = SecretRead {
            mode: mode.as_str(),
            source: source.as_str(),
            result,
        };
        self.secret_reads.get_or_create(&labels).inc();
    }

    pub(crate) fn secret_cache(&self, size: CacheSize) {
        self.secret_entries.set(saturating(size.entries));
        self.secret_bytes.set(saturating(size.bytes));
    }

    pub(crate) fn secret_evicted(&self, reason: Eviction) {
        self.secret_evictions
            .get_or_create(&ReasonName {
                reason: reason.as_str(),
            })
            .inc();
    }

    pub(crate) fn secret_changed(&self, change: Change) {
        self.secret_changes.get_or_create(&change_name(change)).inc();
    }

    pub(crate) fn secret_polled(&self, result: &'static str) {
        self.secret_polls.get_or_create(&PollResult { result }).inc();
    }

    pub(crate) fn secrets_tracked(&self, secrets: usize) {
        self.secrets_tracked.set(saturating(secrets));
    }

    pub(crate) fn secrets_untracked(&self, references: usize) {
        self.secrets_untracked.set(saturating(references));
    }

    pub(crate) fn secret_transition(&self, reason: Reason) {
        self.transitions
            .get_or_create(&ReasonName {
                reason: reason.as_str(),
            })
            .inc();
    }

    pub(crate) fn mode_switched(&self, to: Mode) {
        self.mode_switches.inc();
        self.mode(to);
    }

    /// The mode that is in force from now on.
    pub(crate) fn mode(&self, mode: Mode) {
        for other in Mode::ALL {
            self.mode
                .get_or_create(&ModeName { mode: other.as_str() })
                .set(i64::from(other == mode));
        }
    }
}

fn pass_result(end: PassEnd) -> PassResult {
    PassResult {
        controller: CONTROLLER,
        result: end.as_str(),
    }
}

fn change_name(change: Change) -> ChangeName {
    ChangeName {
        change: change.as_str(),
    }
}

fn saturating(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn method_name(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_names_dashboards_know() {
        let metrics = Metrics::new();
        metrics.pass_started();
        metrics.pass_ended(PassEnd::Success, Duration::from_millis(3));
        metrics.request(&http::Method::GET, Some(http::StatusCode::OK));
        metrics.request(&http::Method::PATCH, None);
        metrics.mode(Mode::Lru);
        metrics.queue_added();
        metrics.child_written("Deployment", "apply");
        metrics.config_refused("leanserve-config");
        metrics.secret_changed(Change::Updated);
        metrics.secret_polled("found");
        metrics.secrets_tracked(2);
        let page = metrics.page(3);
        for line in [
            "controller_runtime_reconcile_total{controller=\"inferenceservice\",result=\"success\"} 1",
            "controller_runtime_reconcile_total{controller=\"inferenceservice\",result=\"error\"} 0",
            "controller_runtime_reconcile_time_seconds_count{controller=\"inferenceservice\"} 1",
            "controller_runtime_active_workers{controller=\"inferenceservice\"} 0",
            "workqueue_depth{name=\"inferenceservice\"} 3",
            "workqueue_adds_total{name=\"inferenceservice\"} 1",
            "rest_client_requests_total{code=\"200\",method=\"GET\"} 1",
            "rest_client_requests_total{code=\"<error>\",method=\"PATCH\"} 1",
            "leanserve_secret_access_mode{mode=\"lru\"} 1",
            "leanserve_secret_access_mode{mode=\"auto\"} 0",
            "leanserve_child_writes_total{kind=\"Deployment\",verb=\"apply\"} 1",
            "leanserve_config_errors_total{config=\"leanserve-config\"} 1",
            "leanserve_secret_changes_total{change=\"updated\"} 1",
            "leanserve_secret_changes_total{change=\"recreated\"} 0",
            "leanserve_secret_polls_total{result=\"found\"} 1",
            "leanserve_secret_tracked 2",
            "leanserve_secret_untracked 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_start_time_seconds",
        ] {
            let value = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            assert!(
                value
                    .and_then(|value| value.parse::<f64>().ok())
                    .is_some_and(|value| value >= 0.0),
                "{name}"
            );
        }
        assert!(page.contains("leanserve_build_info{version="));
        assert!(page.ends_with("# EOF\n"));
    }
}
