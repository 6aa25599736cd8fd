//! Watches: how far they have come, and how often they had to begin anew.

use isvc_core::{desired::ChildKind, names};

use super::{
    catalog::{Catalog, CounterBy, GaugeBy, Label},
    saturating,
};
use crate::error::FaultKind;

/// Kinds that are watched.
const KINDS: [&str; 12] = [
    "ClusterServingRuntime",
    "ClusterStorageContainer",
    ChildKind::ConfigMap.as_str(),
    ChildKind::Deployment.as_str(),
    ChildKind::HorizontalPodAutoscaler.as_str(),
    ChildKind::HttpRoute.as_str(),
    names::INFERENCE_SERVICE_KIND,
    ChildKind::Ingress.as_str(),
    "Pod",
    ChildKind::ScaledObject.as_str(),
    ChildKind::Service.as_str(),
    "ServingRuntime",
];

const KIND: Label = Label::closed("kind", || KINDS.to_vec());
const REASON: Label = Label::closed("reason", || FaultKind::ALL.map(FaultKind::as_str).to_vec());
const STATE: Label = Label::closed("state", || WatchState::ALL.map(WatchState::as_str).to_vec());

/// How far a watch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchState {
    /// Its first list is not complete.
    Listing,
    Synced,
    /// Its kind does not exist in the cluster.
    Absent,
}

impl WatchState {
    pub(crate) const ALL: [Self; 3] = [Self::Absent, Self::Listing, Self::Synced];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Synced => "synced",
            Self::Absent => "absent",
        }
    }
}

/// All watches.
#[derive(Clone)]
pub(crate) struct WatchMetrics {
    watches: GaugeBy<1>,
    restarts: CounterBy<2>,
}

impl WatchMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let watches = catalog.gauge_by("leanserve_watches", "Watches, by how far they have come", [STATE]);
        let restarts = catalog.counter_by(
            "leanserve_watch_restarts_total",
            "Times that a watch or its list failed and began anew, by kind and what was wrong",
            [KIND, REASON],
        );
        for kind in KINDS {
            restarts.with([kind, FaultKind::Unavailable.as_str()]);
        }
        Self { watches, restarts }
    }

    pub(crate) fn restarted(&self, kind: &'static str, reason: FaultKind) {
        self.restarts.with([kind, reason.as_str()]).inc();
    }

    /// So many watches are in each state.
    pub(super) fn read(&self, count: impl Fn(WatchState) -> usize) {
        for state in WatchState::ALL {
            self.watches.with([state.as_str()]).set(saturating(count(state)));
        }
    }
}
