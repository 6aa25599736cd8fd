//! One leader among several replicas, by a Lease.
//!
//! What a look at the Lease means is decided in `leader/election.rs`; what keeps a replica from writing when it may no longer
//! lead is `leader/fence.rs`; `leader/lease.rs` has the Lease itself and the requests for it. Here is what is sent when. Why
//! it is done like this: `docs/decisions`, number 3.

pub(crate) mod clock;
mod election;
pub(crate) mod fence;
mod lease;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use self::{
    clock::Clock,
    election::{Election, Verdict},
    fence::Fence,
    lease::{Leases, record, renew},
};
pub(crate) use self::{
    election::Timing,
    lease::{LEASE, Unfenced, reference},
};
use crate::{
    config::Config,
    error::{Fault, FaultKind},
    health::Health,
    observability::metrics::Metrics,
    stopping::RELEASE,
};

/// Another replica leads.
#[derive(Debug, Error)]
#[error("lost the Lease {LEASE} to `{to}`; what is known here may be out of date, so this process ends")]
pub(crate) struct Lost {
    to: String,
}

/// Seeks, keeps and gives back the Lease; or, without an election, leads from the start and for ever.
pub(crate) struct Leadership(Option<Elector>);

impl Leadership {
    /// Leads without being asked.
    pub(crate) fn alone() -> Self {
        Self(None)
    }

    pub(crate) fn elected(elector: Elector) -> Self {
        Self(Some(elector))
    }

    /// Returns when this replica leads.
    pub(crate) async fn acquire(&mut self) {
        if let Some(elector) = &mut self.0 {
            elector.acquire().await;
        }
    }

    /// Keeps the Lease, and returns when another has it. May be dropped and called again.
    pub(crate) async fn keep(&mut self) -> Lost {
        match &mut self.0 {
            Some(elector) => elector.keep().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the Lease back if it is held, so that nobody has to wait until it expires. Nothing may be written any more.
    pub(crate) async fn release(self) {
        if let Some(elector) = self.0 {
            elector.release().await;
        }
    }
}

/// How one attempt went.
enum Standing {
    Leads,
    Waits,
    Lost(Lost),
}

/// How giving the Lease back went.
enum GivenBack {
    Done,
    NotHeld,
    Failed,
}

impl GivenBack {
    fn failed(fault: &Fault) -> Self {
        debug!(lease = LEASE, error = %fault, "not given back");
        Self::Failed
    }
}

/// One replica's part in the election.
pub(crate) struct Elector {
    leases: Leases,
    election: Election,
    clock: Clock,
    fence: Arc<Fence>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// The Lease as it was last written here.
    held: Option<Lease>,
    /// Whether writes are let through, as it was last told.
    leading: bool,
    /// Whether the last attempt failed, which is told once.
    failing: bool,
}

impl Elector {
    /// Seeks the Lease of the operator's namespace. The fence has to be a closed one.
    pub(crate) fn new(
        client: Client,
        config: &Config,
        timing: Timing,
        fence: Arc<Fence>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        health.stand_by();
        Self {
            // A deadline that leaves time for a second request.
            leases: Leases::new(client, &config.common.namespace, timing.renew_deadline / 2),
            election: Election::new(identity(config.common.pod_name.as_deref()), timing),
            clock: fence.clock(),
            fence,
            health,
            metrics,
            held: None,
            leading: false,
            failing: false,
        }
    }

    async fn acquire(&mut self) {
        info!(
            lease = LEASE,
            identity = self.election.identity(),
            "standing by until the Lease is free"
        );
        loop {
            let pause = self.pause();
            match self.attempt().await {
                // An answer may come too late to begin with.
                Some(Standing::Leads) if self.fence.check().is_ok() => break,
                Some(Standing::Lost(_)) => self.election.begins_anew(),
                Some(Standing::Leads | Standing::Waits) | None => {}
            }
            sleep(pause).await;
        }
        info!(lease = LEASE, "leading");
        self.leading = true;
        self.metrics.leader.leads(true);
        self.health.lead();
    }

    async fn keep(&mut self) -> Lost {
        loop {
            sleep(self.pause()).await;
            let standing = self.attempt().await;
            if let Some(Standing::Lost(lost)) = standing {
                self.metrics.leader.leads(false);
                return lost;
            }
            let leading = self.fence.check().is_ok();
            if leading != self.leading {
                self.leading = leading;
                self.metrics.leader.leads(leading);
                if leading {
                    info!(
                        lease = LEASE,
                        "the Lease is renewed again, and nobody had it meanwhile; writes go on"
                    );
                } else {
                    warn!(
                        lease = LEASE,
                        "the Lease could not be renewed for too long; nothing is written until it is"
                    );
                }
            }
            let suspended = "the Lease cannot be renewed; nothing is written";
            self.health.election((!leading).then(|| suspended.to_owned()));
        }
    }

    async fn release(mut self) {
        self.fence.close();
        self.metrics.leader.leads(false);
        match timeout(RELEASE, self.give_back()).await {
            Ok(GivenBack::Done) => info!(lease = LEASE, "the Lease is given back"),
            Ok(GivenBack::NotHeld) => debug!(lease = LEASE, "the Lease is not held, so it is left as it is"),
            Ok(GivenBack::Failed) | Err(_) => warn!(
                lease = LEASE,
                "the Lease could not be given back, if it was held; others wait until it expires"
            ),
        }
    }

    /// One renewal, or one look at the Lease and what follows from it; none where it failed.
    async fn attempt(&mut self) -> Option<Standing> {
        match self.round().await {
            Ok(standing) => {
                if self.failing {
                    info!(lease = LEASE, "the Lease can be used again");
                }
                self.failing = false;
                if !self.election.has_led() {
                    self.health.election(None);
                }
                Some(standing)
            }
            Err(fault) => {
                if self.failing {
                    debug!(lease = LEASE, error = %fault, "the Lease still cannot be used");
                } else {
                    warn!(lease = LEASE, error = %fault, "the Lease cannot be used; trying on");
                }
                self.failing = true;
                if !self.election.has_led() {
                    self.health.election(Some(format!("the Lease {LEASE}: {fault}")));
                }
                None
            }
        }
    }

    async fn round(&mut self) -> Result<Standing, Fault> {
        if let Some(held) = self.held.clone() {
            match self.write(held, false).await {
                // Somebody has changed or deleted it, or the answer to the last renewal was lost: a look tells.
                Err(fault) if matches!(fault.kind, FaultKind::Conflict | FaultKind::NotFound) => self.held = None,
                done => return done.map(|()| Standing::Leads),
            }
        }
        let asked = self.clock.now();
        let found = self.leases.read().await?;
        let record = found.as_ref().map(record);
        let verdict = self.election.judge(record.as_ref(), asked, self.clock.now());
        let done = match (verdict, found) {
            (Verdict::Wait, _) => return Ok(Standing::Waits),
            (Verdict::Lost { to }, _) => {
                self.fence.close();
                return Ok(Standing::Lost(Lost { to }));
            }
            (Verdict::Take, Some(lease)) => self.write(lease, true).await,
            (Verdict::Resume, Some(lease)) => self.write(lease, false).await,
            (Verdict::Create | Verdict::Take | Verdict::Resume, _) => self.create().await,
        };
        match done {
            // Another replica was faster.
            Err(fault) if fault.kind == FaultKind::Conflict && !self.election.has_led() => Ok(Standing::Waits),
            done => done.map(|()| Standing::Leads),
        }
    }

    /// Makes the Lease, unless there is one.
    async fn create(&mut self) -> Result<(), Fault> {
        let started = self.clock.now();
        let lease = self.renewed(Lease::default(), true);
        let lease = self.leases.create(lease).await?;
        self.wrote(lease, started);
        Ok(())
    }

    /// Renews or takes the Lease, unless it has changed since it was read.
    async fn write(&mut self, lease: Lease, taken: bool) -> Result<(), Fault> {
        let started = self.clock.now();
        let lease = self.renewed(lease, taken);
        let lease = self.leases.replace(&lease).await?;
        self.wrote(lease, started);
        Ok(())
    }

    /// The API server has the record that was sent after `started`. It may have had it since then, so all times count from
    /// there.
    fn wrote(&mut self, lease: Lease, started: Duration) {
        let Timing {
            lease_duration,
            renew_deadline,
            ..
        } = self.election.timing();
        self.held = Some(lease);
        self.election.leads();
        self.fence.renewed(started + renew_deadline, started + lease_duration);
    }

    fn renewed(&self, mut lease: Lease, taken: bool) -> Lease {
        let lease_duration = self.election.timing().lease_duration;
        renew(&mut lease, self.election.identity(), lease_duration, taken);
        lease
    }

    async fn give_back(&mut self) -> GivenBack {
        // A write that was cut off may have been done, and then the version is another.
        for _ in 0..3 {
            let lease = match self.held.take() {
                Some(lease) => Ok(Some(lease)),
                None => self.leases.read().await,
            };
            let mut lease = match lease {
                Ok(Some(lease)) => lease,
                Ok(None) => return GivenBack::NotHeld,
                Err(fault) => return GivenBack::failed(&fault),
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.election.identity()) {
                return GivenBack::NotHeld;
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            match self.leases.replace(&lease).await {
                Ok(_) => return GivenBack::Done,
                Err(fault) if fault.kind == FaultKind::Conflict => {}
                Err(fault) => return GivenBack::failed(&fault),
            }
        }
        GivenBack::Failed
    }

    /// Spread, so that replicas do not ask at the same time for ever.
    fn pause(&self) -> Duration {
        self.election.timing().retry_period.mul_f64(1.0 + 0.2 * fastrand::f64())
    }
}

/// Of this process alone: a restarted container has its Pod's name again, and must not take the Lease for its own.
fn identity(name: Option<&str>) -> String {
    let unique: String = std::iter::repeat_with(fastrand::alphanumeric).take(12).collect();
    format!("{}_{unique}", name.unwrap_or("leanserve"))
}

#[cfg(test)]
mod tests;
