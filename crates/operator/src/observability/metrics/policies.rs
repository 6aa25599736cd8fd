//! The policy controller: its passes, what it put back, and what it cleaned up.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{
    catalog::{Catalog, CounterBy, Label},
    saturating,
};
use crate::error::FaultKind;

/// Upper bounds of the buckets for the time until policies are known to be in force, in seconds.
const SECONDS: [f64; 9] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

const RESULTS: [&str; 2] = ["error", "success"];
const VERBS: [&str; 2] = ["apply", "delete"];
const KINDS: [&str; 4] = [
    "InferencePolicy",
    "InferencePolicyTemplate",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];
const WRITTEN: [&str; 2] = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

const RESULT: Label = Label::closed("result", || RESULTS.to_vec());
const VERB: Label = Label::closed("verb", || VERBS.to_vec());
const KIND: Label = Label::closed("kind", || KINDS.to_vec());
const KIND_WRITTEN: Label = Label::closed("kind", || WRITTEN.to_vec());
const REASON: Label = Label::closed("reason", || FaultKind::ALL.map(FaultKind::as_str).to_vec());

/// What the policy controller does. Clones count together; all of it stays 0 where it is off.
#[derive(Clone)]
pub(crate) struct PolicyMetrics {
    passes: CounterBy<1>,
    sweeps: CounterBy<1>,
    writes: CounterBy<2>,
    restarts: CounterBy<2>,
    waiting: Gauge,
    orphans: Gauge,
    repairs: Counter,
    fights: Counter,
    overflows: Counter,
    barrier: Histogram,
}

impl PolicyMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let passes = "Passes over InferencePolicies and InferencePolicyTemplates that have ended, by result";
        let passes = catalog.counter_by("leanserve_policy_passes_total", passes, [RESULT]);
        let sweeps = "Searches through everything policies are made of for what nobody owns, by result";
        let sweeps = catalog.counter_by("leanserve_policy_sweeps_total", sweeps, [RESULT]);
        for result in RESULTS {
            passes.with([result]);
            sweeps.with([result]);
        }
        let writes = "ValidatingAdmissionPolicies and their bindings written or deleted; a collection counts as one";
        let writes = catalog.counter_by("leanserve_policy_writes_total", writes, [KIND_WRITTEN, VERB]);
        for kind in WRITTEN {
            for verb in VERBS {
                writes.with([kind, verb]);
            }
        }
        let restarts = "Times that a watch of the policy controller had to begin anew, by reason";
        let restarts = catalog.counter_by("leanserve_policy_watch_restarts_total", restarts, [KIND, REASON]);
        for kind in KINDS {
            restarts.with([kind, FaultKind::Unavailable.as_str()]);
            restarts.with([kind, FaultKind::Expired.as_str()]);
        }
        let waiting = "InferencePolicies and InferencePolicyTemplates that wait for a pass or have one";
        let orphans = "Bindings and admission policies whose owner is gone, and admission policies that no binding refers to, as the last \
                       search ended: anything but 0 for long is wrong";
        let repairs = "Times that something others had changed or deleted was put back";
        let fights = "Times that putting something back was put off, because others undo it again and again";
        let overflows = "Times that more had changed than is remembered, so that everything was searched";
        let barrier = "Time from asking whether everything written is in force to knowing it";
        let barrier = catalog.histogram_by("leanserve_policy_in_force_seconds", barrier, [], &SECONDS);
        Self {
            passes,
            sweeps,
            writes,
            restarts,
            waiting: catalog.gauge("leanserve_policy_queue_depth", waiting),
            orphans: catalog.gauge("leanserve_policy_orphans", orphans),
            repairs: catalog.counter("leanserve_policy_repairs_total", repairs),
            fights: catalog.counter("leanserve_policy_contested_total", fights),
            overflows: catalog.counter("leanserve_policy_queue_overflows_total", overflows),
            barrier: barrier.with([]),
        }
    }

    pub(crate) fn pass_ended(&self, succeeded: bool) {
        self.passes.with([result(succeeded)]).inc();
    }

    pub(crate) fn sweep_ended(&self, succeeded: bool) {
        self.sweeps.with([result(succeeded)]).inc();
    }

    /// How many passes and searches have ended.
    pub(crate) fn count(&self) -> u64 {
        let counts = RESULTS.map(|result| self.passes.with([result]).get() + self.sweeps.with([result]).get());
        counts.iter().sum()
    }

    pub(crate) fn applied(&self, kind: &'static str) {
        self.writes.with([kind, "apply"]).inc();
    }

    pub(crate) fn deleted(&self, kind: &'static str) {
        self.writes.with([kind, "delete"]).inc();
    }

    pub(crate) fn restarted(&self, kind: &'static str, reason: FaultKind) {
        self.restarts.with([kind, reason.as_str()]).inc();
    }

    pub(crate) fn waiting(&self, keys: usize) {
        self.waiting.set(saturating(keys));
    }

    pub(crate) fn orphans(&self, orphans: usize) {
        self.orphans.set(saturating(orphans));
    }

    pub(crate) fn repaired(&self) {
        self.repairs.inc();
    }

    pub(crate) fn contested(&self) {
        self.fights.inc();
    }

    pub(crate) fn overflowed(&self) {
        self.overflows.inc();
    }

    pub(crate) fn barrier_passed(&self, took: Duration) {
        self.barrier.observe(took.as_secs_f64());
    }
}

fn result(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "error" }
}
