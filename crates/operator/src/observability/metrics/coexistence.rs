//! Beside another controller of the same services.

use prometheus_client::metrics::gauge::Gauge;

use super::{catalog::Catalog, saturating};

/// What is known of `KServe`'s controller.
#[derive(Clone)]
pub(crate) struct CoexistenceMetrics {
    running: Gauge,
    unreadable: Gauge,
    refused: Gauge,
}

impl CoexistenceMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let running = "1 where KServe's controller renews its Lease, and what it has marked is left to it";
        let unreadable =
            "1 where the last look at the Lease of KServe's controller failed; what was known of it stays so";
        let refused = "InferenceServices in the scope of leanserve that are left to KServe's controller";
        Self {
            running: catalog.gauge("leanserve_kserve_controller_running", running),
            unreadable: catalog.gauge("leanserve_kserve_lease_unreadable", unreadable),
            refused: catalog.gauge("leanserve_refused_inferenceservices", refused),
        }
    }

    pub(crate) fn running(&self, running: bool) {
        self.running.set(i64::from(running));
    }

    pub(crate) fn unreadable(&self, unreadable: bool) {
        self.unreadable.set(i64::from(unreadable));
    }

    pub(crate) fn refused(&self, services: usize) {
        self.refused.set(saturating(services));
    }
}
