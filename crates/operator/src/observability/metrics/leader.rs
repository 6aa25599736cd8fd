//! Leader election, by the name that dashboards for client-go know.
//!
//! Source of name and label: `pkg/metrics/leaderelection.go` of sigs.k8s.io/controller-runtime.

use prometheus_client::metrics::gauge::Gauge;

use super::catalog::{Catalog, Label};
use crate::leader::LEASE;

const NAME: Label = Label::closed("name", || vec![LEASE]);

/// Whether this process is the one that works.
pub(crate) struct LeaderMetrics {
    leads: Gauge,
}

impl LeaderMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let leads = "1 where this process may work: it holds the Lease, or there is no leader election";
        let leads = catalog.gauge_by("leader_election_master_status", leads, [NAME]);
        Self {
            leads: leads.with([LEASE]),
        }
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }
}
