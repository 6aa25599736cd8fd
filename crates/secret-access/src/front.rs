//! What a read goes through in every mode: the deadline, the order of versions, the probe.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::access::ReadResult;
use crate::answer::{Answers, Asked, Served};
use crate::error::ReadError;
use crate::floors::{Floors, Recorded};
use crate::options::AccessOptions;
use crate::probe::{FinishedRead, Probe};
use crate::secret_ref::SecretRef;
use crate::snapshot::Source;

/// The fewest floors kept. A floor takes about 150 bytes with its key.
const LEAST_FLOORS: usize = 4096;

/// The part of an access that outlives its modes.
pub(crate) struct Front {
    floors: Floors,
    probe: Arc<dyn Probe>,
}

impl Front {
    pub(crate) fn new(max_floors: usize, probe: Arc<dyn Probe>) -> Self {
        Self {
            floors: Floors::new(max_floors),
            probe,
        }
    }

    pub(crate) fn resize(&self, max_floors: usize) {
        self.floors.resize(max_floors);
    }

    pub(crate) fn probe(&self) -> &Arc<dyn Probe> {
        &self.probe
    }

    /// One read through `mode`, within `deadline`.
    pub(crate) async fn read(&self, mode: &dyn Answers, deadline: Duration, secret: &SecretRef) -> ReadResult {
        let began = Instant::now();
        let served = match timeout_at(began + deadline, self.served(mode, began, secret)).await {
            Ok(served) => served,
            Err(_) => Err(ReadError::Timeout {
                secret: secret.clone(),
                deadline,
            }),
        };
        let (source, result) = match served {
            Ok(served) => {
                if self.floors.record(secret, &served.answer) == Recorded::Rewound {
                    tracing::warn!("resource versions went backwards: was the cluster restored from a backup?");
                    self.probe.cluster_rewound();
                }
                let result = served
                    .answer
                    .found
                    .ok_or_else(|| ReadError::NotFound { secret: secret.clone() });
                (served.source, result)
            }
            Err(error) => (Source::Api, Err(error)),
        };
        self.probe.read_finished(&FinishedRead {
            mode: mode.mode(),
            source,
            error: result.as_ref().err().map(ReadError::kind),
            elapsed: began.elapsed(),
        });
        result
    }

    async fn served(&self, mode: &dyn Answers, began: Instant, secret: &SecretRef) -> Result<Served, ReadError> {
        // Taken before the mode is asked: a read that ends while this one runs may return something newer.
        let floor = self.floors.floor(secret);
        let served = mode.answer(secret, Asked { began, anew: false }).await?;
        if floor.admits(&served.answer) {
            return Ok(served);
        }
        self.probe.stale_answer_refused(mode.mode());
        // Requested after the floor was set, so the floor admits it whatever it says.
        mode.answer(secret, Asked { began, anew: true }).await
    }
}

/// How many floors go with these options: more than a cache can hold, or entries would be fetched again for want of one.
pub(crate) fn floors_for(options: &AccessOptions) -> usize {
    (2 * options.lru.max_secrets).max(LEAST_FLOORS)
}
