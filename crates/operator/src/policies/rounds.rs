//! A pass over every policy: finds what was changed or deleted while nobody watched.
//!
//! A steady pass reads and writes nothing. The search of `sweep` looks at metadata alone, and does not see that a binding says
//! something else, that an admission policy was emptied, or that a new version of the operator compiles to something else.

use std::{sync::Arc, time::Duration};

use super::{
    Enforcer, Work,
    cleaner::Waits,
    kinds::{Child, Kind},
    requests::Form,
};
use crate::error::{Fault, FaultKind};

/// Between rounds without cause.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Between rounds, whatever their cause.
const PAUSE: Duration = Duration::from_secs(10);

impl Enforcer {
    /// Goes through all policies at the start, whenever changes may have gone by unseen, and every hour. Never ends.
    pub(super) async fn rounds_for_ever(self: Arc<Self>) {
        loop {
            self.triggers.round_is_due(INTERVAL).await;
            let (mut waits, mut last) = (Waits::default(), Box::default());
            while let Err(fault) = self.round(&mut last).await {
                match fault.kind {
                    // There is nothing to go through.
                    FaultKind::NotFound => break,
                    // Passes took longer than the API server keeps what was listed: goes on behind the last one.
                    FaultKind::Expired => {}
                    _ => waits.after("go through all policies", &fault).await,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for a pass over every policy whose name comes after `last`, which is then the name of the last one.
    async fn round(&self, last: &mut Box<str>) -> Result<(), Fault> {
        let kind = Kind::InferencePolicy;
        let mut token = String::new();
        loop {
            let page = self.requests.page::<Child>(kind, "", &token, Form::Metadata).await?;
            for policy in page.items {
                // Lists come in the order of names.
                let name = policy.metadata.name;
                if name > *last {
                    self.triggers.with_room(Work::Policy(Arc::from(&*name))).await;
                    *last = name;
                }
            }
            token = page.metadata.token;
            if token.is_empty() {
                return Ok(());
            }
        }
    }
}
