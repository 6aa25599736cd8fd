//! Tells metrics, log and cluster what happens while Secrets are read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube_secret_access::{CacheSize, Change, Eviction, FinishedRead, FinishedRequest, Mode, Probe, Transition};
use tracing::{info, warn};

use crate::{
    events::{Events, Notice},
    observability::metrics::SecretMetrics,
};

/// The listener of the library's hooks.
pub(crate) struct SecretProbe {
    pub(crate) metrics: Arc<SecretMetrics>,
    /// Where to, and about the `ConfigMap` that chooses the mode, Events are sent, where any are.
    pub(crate) events: Option<(Events, ObjectReference)>,
}

impl Probe for SecretProbe {
    fn read_finished(&self, read: &FinishedRead) {
        self.metrics.read(read);
    }

    fn flight_joined(&self, _mode: Mode) {
        self.metrics.joined();
    }

    fn stale_answer_refused(&self, _mode: Mode) {
        self.metrics.refused_as_stale();
    }

    fn cluster_rewound(&self) {
        warn!("resource versions went backwards, as after restoring the cluster from a backup; Secrets are read again");
        self.metrics.rewound();
    }

    fn cache_size(&self, size: CacheSize) {
        self.metrics.cache(size);
    }

    fn evicted(&self, reason: Eviction) {
        self.metrics.evicted(reason);
    }

    fn transition(&self, transition: &Transition) {
        let Transition { from, to, reason, .. } = transition;
        self.metrics.moved(*reason);
        info!(
            from = from.as_str(),
            to = to.as_str(),
            reason = reason.as_str(),
            "Secrets are read in another way"
        );
        let Some((events, config_map)) = &self.events else {
            return;
        };
        events.send(Notice {
            regarding: config_map.clone(),
            warning: false,
            reason: "SecretAccessModeMoved",
            action: "ReadSecrets",
            message: format!("Secrets are read as in mode {to} from now on, as in mode {from} before: {reason}"),
        });
    }

    fn changed(&self, change: Change) {
        self.metrics.changed(change);
    }

    fn poll_finished(&self, poll: &FinishedRequest) {
        self.metrics.polled(poll.result());
    }

    fn tracked(&self, secrets: usize) {
        self.metrics.tracked(secrets);
    }

    fn untracked(&self, references: usize) {
        self.metrics.untracked(references);
    }

    fn switched(&self, _from: Mode, to: Mode) {
        self.metrics.switched(to);
    }
}
