//! What the operator writes, and which configuration it was given.

use isvc_core::desired::ChildKind;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::{
    catalog::{Catalog, CounterBy, GaugeBy, Label},
    saturating,
};
use crate::{mode, platform};

const KINDS: [&str; 7] = [
    ChildKind::ConfigMap.as_str(),
    ChildKind::Deployment.as_str(),
    ChildKind::HorizontalPodAutoscaler.as_str(),
    ChildKind::HttpRoute.as_str(),
    ChildKind::Ingress.as_str(),
    ChildKind::ScaledObject.as_str(),
    ChildKind::Service.as_str(),
];
const CONFIGS: [&str; 2] = [platform::CONFIG_MAP, mode::CONFIG_MAP];

const KIND: Label = Label::closed("kind", || KINDS.to_vec());
const VERB: Label = Label::closed("verb", || vec![Verb::Apply.as_str(), Verb::Delete.as_str()]);
const CONFIG: Label = Label::closed("config", || CONFIGS.to_vec());

/// What was done to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Apply,
    Delete,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Delete => "delete",
        }
    }
}

/// Writes to children, statuses and Events.
pub(crate) struct WriteMetrics {
    children: CounterBy<2>,
    statuses: Counter,
    events_dropped: Counter,
}

impl WriteMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let children = catalog.counter_by(
            "leanserve_child_writes_total",
            "Objects of services written or deleted",
            [KIND, VERB],
        );
        for kind in KINDS {
            children.with([kind, Verb::Apply.as_str()]);
            children.with([kind, Verb::Delete.as_str()]);
        }
        Self {
            children,
            statuses: catalog.counter("leanserve_status_writes_total", "Statuses of InferenceServices written"),
            events_dropped: catalog.counter("leanserve_events_dropped_total", "Events that could not be sent"),
        }
    }

    pub(crate) fn child(&self, kind: &'static str, verb: Verb) {
        self.children.with([kind, verb.as_str()]).inc();
    }

    pub(crate) fn status(&self) {
        self.statuses.inc();
    }

    pub(crate) fn event_dropped(&self) {
        self.events_dropped.inc();
    }
}

/// The two `ConfigMaps` that configure the operator, by their names.
pub(crate) struct ConfigMetrics {
    refusals: CounterBy<1>,
    refused: GaugeBy<1>,
    unknown_keys: Gauge,
}

impl ConfigMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let refusals = catalog.counter_by(
            "leanserve_config_errors_total",
            "Times that a ConfigMap was refused and what was in force before stayed so",
            [CONFIG],
        );
        let refused = catalog.gauge_by(
            "leanserve_config_refused",
            "1 while the ConfigMap as it is now is refused",
            [CONFIG],
        );
        for config in CONFIGS {
            refusals.with([config]);
            refused.with([config]);
        }
        let unknown_keys = "Keys in leanserve-config that mean nothing";
        Self {
            refusals,
            refused,
            unknown_keys: catalog.gauge("leanserve_config_unknown_keys", unknown_keys),
        }
    }

    pub(crate) fn refused(&self, config: &'static str) {
        self.refusals.with([config]).inc();
        self.refused.with([config]).set(1);
    }

    pub(crate) fn accepted(&self, config: &'static str) {
        self.refused.with([config]).set(0);
    }

    pub(crate) fn unknown_keys(&self, number: usize) {
        self.unknown_keys.set(saturating(number));
    }
}
