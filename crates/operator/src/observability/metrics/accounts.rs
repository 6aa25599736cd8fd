//! How `ServiceAccounts` are read.

use super::catalog::{Catalog, CounterBy, Label};
use crate::error::FaultKind;

const FOUND: &str = "found";

const RESULT: Label = Label::closed("result", results);

fn results() -> Vec<&'static str> {
    let mut results = vec![FOUND];
    results.extend(FaultKind::ALL.map(FaultKind::as_str));
    results
}

/// Reads of `ServiceAccounts`.
pub(crate) struct AccountMetrics {
    reads: CounterBy<1>,
}

impl AccountMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let reads = catalog.counter_by(
            "leanserve_serviceaccount_reads_total",
            "ServiceAccounts asked of the API server, for passes and for looks whether they have changed, by how that ended",
            [RESULT],
        );
        // There from the start: an increase over a series that appears with its first count misses that count.
        for result in results() {
            reads.with([result]);
        }
        Self { reads }
    }

    /// The API server has answered, or has not in time.
    pub(crate) fn read(&self, end: Result<(), FaultKind>) {
        let result = match end {
            Ok(()) => FOUND,
            Err(kind) => kind.as_str(),
        };
        self.reads.with([result]).inc();
    }
}
