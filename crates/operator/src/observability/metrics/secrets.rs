//! How Secrets are read.

use kube_secret_access::{CacheSize, Change, Eviction, FinishedRead, Mode, ReadErrorKind, Reason, Source};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::{
    catalog::{Catalog, CounterBy, GaugeBy, HistogramBy, Label},
    saturating,
};

/// Upper bounds of the buckets for the age of what was read, in seconds.
const AGE_SECONDS: [f64; 9] = [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 3600.0];

/// A switch that the `ConfigMap` asked for, beside the library's own reasons.
const CONFIGURED: &str = "config";
const FOUND: &str = "found";

const MODE: Label = Label::closed("mode", || Mode::ALL.map(Mode::as_str).to_vec());
const SOURCE: Label = Label::closed("source", || Source::ALL.map(Source::as_str).to_vec());
const RESULT: Label = Label::closed("result", results);
const CAUSE: Label = Label::closed("cause", || {
    let mut causes = vec![CONFIGURED];
    causes.extend(Reason::NAMES);
    causes
});
const EVICTION: Label = Label::closed("reason", || Eviction::ALL.map(Eviction::as_str).to_vec());
const CHANGE: Label = Label::closed("change", || Change::ALL.map(Change::as_str).to_vec());

fn results() -> Vec<&'static str> {
    let mut results = vec![FOUND];
    results.extend(ReadErrorKind::ALL.map(ReadErrorKind::as_str));
    results
}

/// Reads, cache, changes and modes.
pub(crate) struct SecretMetrics {
    mode: GaugeBy<1>,
    switches: CounterBy<1>,
    reads: CounterBy<3>,
    age: HistogramBy<1>,
    joined: Counter,
    refused_as_stale: Counter,
    rewinds: Counter,
    hits: Counter,
    misses: Counter,
    entries: Gauge,
    bytes: Gauge,
    evictions: CounterBy<1>,
    changes: CounterBy<1>,
    polls: CounterBy<1>,
    tracked: Gauge,
    untracked: Gauge,
}

impl SecretMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let metrics = Self {
            mode: catalog.gauge_by(
                "leanserve_secret_access_mode",
                "1 for the mode that is configured, 0 for the others",
                [MODE],
            ),
            switches: catalog.counter_by(
                "leanserve_secret_access_mode_switches_total",
                "Times that Secrets have come to be read in another way: by the ConfigMap, or because of a threshold or a right",
                [CAUSE],
            ),
            reads: catalog.counter_by(
                "leanserve_secret_reads_total",
                "Secrets read, by the mode in force, where the answer came from and how it ended",
                [MODE, SOURCE, RESULT],
            ),
            age: catalog.histogram_by(
                "leanserve_secret_age_seconds",
                "How old what a read returned was when the read began",
                [MODE],
                &AGE_SECONDS,
            ),
            joined: catalog.counter(
                "leanserve_secret_reads_joined_total",
                "Reads that shared a request another read had begun",
            ),
            refused_as_stale: catalog.counter(
                "leanserve_secret_stale_answers_total",
                "Answers that were older than what was read before, and were not used",
            ),
            rewinds: catalog.counter(
                "leanserve_cluster_rewinds_total",
                "Times that resource versions went backwards, as after restoring the cluster from a backup",
            ),
            hits: catalog.counter(
                "leanserve_secret_cache_hits_total",
                "Secrets read whose content was in memory, revalidated ones included",
            ),
            misses: catalog.counter(
                "leanserve_secret_cache_misses_total",
                "Secrets read whose content had to be fetched, in modes that keep any",
            ),
            entries: catalog.gauge(
                "leanserve_secret_cache_entries",
                "Secrets in the cache, remembered absences included",
            ),
            bytes: catalog.gauge("leanserve_secret_cache_bytes", "Bytes accounted to the cache of Secrets"),
            evictions: catalog.counter_by(
                "leanserve_secret_cache_evictions_total",
                "Secrets that left the cache or were not taken into it",
                [EVICTION],
            ),
            changes: catalog.counter_by(
                "leanserve_secret_changes_total",
                "Changes seen of Secrets that services refer to",
                [CHANGE],
            ),
            polls: catalog.counter_by(
                "leanserve_secret_polls_total",
                "Looks at the metadata of Secrets that services refer to",
                [RESULT],
            ),
            tracked: catalog.gauge("leanserve_secret_tracked", "Secrets that services refer to"),
            untracked: catalog.gauge(
                "leanserve_secret_untracked",
                "References to Secrets beyond the bound, whose changes are not noticed",
            ),
        };
        metrics.create();
        metrics
    }

    /// Makes the counters that are there from the start.
    fn create(&self) {
        for change in Change::ALL {
            self.changes.with([change.as_str()]);
        }
        for reason in Eviction::ALL {
            self.evictions.with([reason.as_str()]);
        }
        for cause in [CONFIGURED].into_iter().chain(Reason::NAMES) {
            self.switches.with([cause]);
        }
        for result in results() {
            self.polls.with([result]);
        }
        for mode in Mode::ALL {
            self.age.with([mode.as_str()]);
            for result in results() {
                self.reads.with([mode.as_str(), Source::Api.as_str(), result]);
            }
        }
    }

    pub(crate) fn read(&self, read: &FinishedRead) {
        let mode = read.mode.as_str();
        self.reads.with([mode, read.source.as_str(), read.result()]).inc();
        if let Some(age) = read.age {
            self.age.with([mode]).observe(age.as_secs_f64());
        }
        match (read.source, read.mode) {
            (Source::Api, Mode::Direct) => {}
            (Source::Api, _) => {
                self.misses.inc();
            }
            (Source::Cache | Source::Revalidated | Source::Stale | Source::Watch, _) => {
                self.hits.inc();
            }
        }
    }

    pub(crate) fn joined(&self) {
        self.joined.inc();
    }

    pub(crate) fn refused_as_stale(&self) {
        self.refused_as_stale.inc();
    }

    pub(crate) fn rewound(&self) {
        self.rewinds.inc();
    }

    pub(crate) fn cache(&self, size: CacheSize) {
        self.entries.set(saturating(size.entries));
        self.bytes.set(saturating(size.bytes));
    }

    pub(crate) fn evicted(&self, reason: Eviction) {
        self.evictions.with([reason.as_str()]).inc();
    }

    pub(crate) fn changed(&self, change: Change) {
        self.changes.with([change.as_str()]).inc();
    }

    /// `result` is that of `FinishedRequest::result`.
    pub(crate) fn polled(&self, result: &'static str) {
        self.polls.with([result]).inc();
    }

    pub(crate) fn tracked(&self, secrets: usize) {
        self.tracked.set(saturating(secrets));
    }

    pub(crate) fn untracked(&self, references: usize) {
        self.untracked.set(saturating(references));
    }

    /// Secrets are read in another way within the mode that is configured.
    pub(crate) fn moved(&self, reason: Reason) {
        self.switches.with([reason.as_str()]).inc();
    }

    /// Another mode is configured from now on.
    pub(crate) fn switched(&self, to: Mode) {
        self.switches.with([CONFIGURED]).inc();
        self.mode(to);
    }

    /// The mode that is configured.
    pub(crate) fn mode(&self, mode: Mode) {
        for other in Mode::ALL {
            self.mode.with([other.as_str()]).set(i64::from(other == mode));
        }
    }
}
