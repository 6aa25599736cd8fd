//! Tells metrics, log and cluster what happens while Secrets are read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube_secret_access::{CacheSize, Change, Eviction, FinishedRead, FinishedRequest, Mode, Probe, Transition};
use tracing::info;

use crate::{
    events::{Events, Notice},
    observability::metrics::Metrics,
};

/// The listener of the library's hooks.
pub(crate) struct SecretProbe {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    /// The `ConfigMap` that chooses the mode, for Events.
    pub(crate) config_map: ObjectReference,
}

impl Probe for SecretProbe {
    fn read_finished(&self, read: &FinishedRead) {
        self.metrics.secret_read(read.mode, read.source, read.result());
    }

    fn cache_size(&self, size: CacheSize) {
        self.metrics.secret_cache(size);
    }

    fn evicted(&self, reason: Eviction) {
        self.metrics.secret_evicted(reason);
    }

    fn transition(&self, transition: &Transition) {
        let Transition { from, to, reason, .. } = transition;
        self.metrics.secret_transition(*reason);
        info!(
            from = from.as_str(),
            to = to.as_str(),
            reason = reason.as_str(),
            "Secrets are read in another way"
        );
        self.events.send(Notice {
            regarding: self.config_map.clone(),
            warning: false,
            reason: "SecretAccessModeMoved",
            action: "ReadSecrets",
            message: format!("Secrets are read as in mode {to} from now on, as in mode {from} before: {reason}"),
        });
    }

    fn changed(&self, change: Change) {
        self.metrics.secret_changed(change);
    }

    fn poll_finished(&self, poll: &FinishedRequest) {
        self.metrics.secret_polled(poll.result());
    }

    fn tracked(&self, secrets: usize) {
        self.metrics.secrets_tracked(secrets);
    }

    fn untracked(&self, references: usize) {
        self.metrics.secrets_untracked(references);
    }

    fn switched(&self, _from: Mode, to: Mode) {
        self.metrics.mode_switched(to);
    }
}
