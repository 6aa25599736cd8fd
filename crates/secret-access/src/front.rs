//! What a read goes through in every mode: the deadline, the order of versions, the probe, the change events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::access::ReadResult;
use crate::answer::{Answer, Answers, Asked, Observe, Served};
use crate::error::ReadError;
use crate::floors::{Floors, Recorded};
use crate::mode::Mode;
use crate::options::AccessOptions;
use crate::probe::{FinishedRead, Probe};
use crate::secret_ref::SecretRef;
use crate::snapshot::Source;
use crate::want::Want;

/// The fewest floors kept. A floor takes about 200 bytes with its key.
const LEAST_FLOORS: usize = 4096;

/// The part of an access that outlives its modes.
pub(crate) struct Front {
    floors: Arc<Floors>,
    observer: Arc<dyn Observe>,
    probe: Arc<dyn Probe>,
}

impl Front {
    /// Tells `observer` what API servers answered.
    pub(crate) fn new(floors: Arc<Floors>, observer: Arc<dyn Observe>, probe: Arc<dyn Probe>) -> Self {
        Self {
            floors,
            observer,
            probe,
        }
    }

    pub(crate) fn probe(&self) -> &Arc<dyn Probe> {
        &self.probe
    }

    /// The result of a read that `mode` can answer without waiting.
    pub(crate) fn at_hand(
        &self,
        mode: &dyn Answers,
        began: Instant,
        secret: &SecretRef,
        want: &Want,
    ) -> Option<ReadResult> {
        let anew = false;
        let served = mode.at_hand(secret, Asked { began, anew, want })?;
        let recorded = self.floors.pass(secret, &served.answer)?;
        self.look_at(recorded);
        Some(self.finish(mode.mode(), began, secret, Ok(served)))
    }

    /// One read through `mode`, within `deadline`.
    pub(crate) async fn read(
        &self,
        mode: &dyn Answers,
        began: Instant,
        deadline: Duration,
        secret: &SecretRef,
        want: &Want,
    ) -> ReadResult {
        let served = match timeout_at(began + deadline, self.served(mode, began, secret, want)).await {
            Ok(served) => served,
            Err(_) => Err(ReadError::Timeout {
                secret: secret.clone(),
                deadline,
            }),
        };
        if let Ok(served) = &served {
            self.look_at(self.floors.record(secret, &served.answer));
            if matches!(served.source, Source::Api | Source::Revalidated) {
                self.observer.answered(secret, &served.answer);
            }
        }
        self.finish(mode.mode(), began, secret, served)
    }

    async fn served(
        &self,
        mode: &dyn Answers,
        began: Instant,
        secret: &SecretRef,
        want: &Want,
    ) -> Result<Served, ReadError> {
        // Taken before the mode is asked: a read that ends while this one runs may return something newer.
        let floor = self.floors.floor(secret);
        let anew = false;
        let served = mode.answer(secret, Asked { began, anew, want }).await?;
        if floor.admits(&served.answer) {
            return Ok(served);
        }
        self.probe.stale_answer_refused(mode.mode());
        // Requested after the floor was set, so the floor admits it whatever it says.
        let anew = true;
        mode.answer(secret, Asked { began, anew, want }).await
    }

    fn look_at(&self, recorded: Recorded) {
        if recorded == Recorded::Rewound {
            rewound(&*self.probe);
        }
    }

    fn finish(&self, mode: Mode, began: Instant, secret: &SecretRef, served: Result<Served, ReadError>) -> ReadResult {
        let (source, age, result) = match served {
            Ok(Served { answer, source }) => {
                let age = age(&answer, began);
                let result = answer
                    .found
                    .ok_or_else(|| ReadError::NotFound { secret: secret.clone() });
                (source, age, result)
            }
            Err(error) => (Source::Api, None, Err(error)),
        };
        self.probe.read_finished(&FinishedRead {
            mode,
            source,
            error: result.as_ref().err().map(ReadError::kind),
            age,
            began,
        });
        result
    }
}

/// Reports that versions went backwards.
pub(crate) fn rewound(probe: &dyn Probe) {
    tracing::warn!("resource versions went backwards: was the cluster restored from a backup?");
    probe.cluster_rewound();
}

/// How old an answer was when the read began; zero when it was requested later.
fn age(answer: &Answer, began: Instant) -> Option<Duration> {
    let proven = answer.sent.is_proof();
    proven.then(|| began.saturating_duration_since(answer.sent.at))
}

/// How many floors go with these options: more than a cache can hold, or entries would be fetched again for want of one.
pub(crate) fn floors_for(options: &AccessOptions) -> usize {
    let held = options.lru.max_secrets + options.watch.max_secrets;
    (2 * held).max(LEAST_FLOORS)
}
