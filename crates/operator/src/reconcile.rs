//! One pass over one service: observe, decide, apply, report.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use isvc_core::{
    api::{InferenceService, InferenceServiceSpec, InvalidField},
    decide::{Decision, decide, is_ours},
    observed::{ByName, LiveDeployment, Lookup, Observed},
    rejection::WaitsFor,
    report::{Applied, report, report_unreadable},
    settings::Settings,
};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::{
    apply::Applier,
    coexistence::{Claim, Coexistence, Running},
    error::PassError,
    key::ObjectKey,
    observe::Observer,
    platform::Platform,
    report::{Reporter, now},
    stored::{Stored, service::StoredService},
};

/// What a pass needs, each part behind the one module that may use it.
pub(crate) struct Reconciler {
    pub(crate) platform: Arc<Platform>,
    pub(crate) observer: Observer,
    pub(crate) applier: Applier,
    pub(crate) reporter: Reporter,
    pub(crate) coexistence: Arc<Coexistence>,
    pub(crate) put_off: PutOff,
}

/// How long the first status of a service may wait for the controller of its Deployments. That looks at a new Deployment
/// within this on most clusters, and the status would be written again when it has.
const FIRST_STATUS: Duration = Duration::from_secs(1);

/// Services whose first status waits, and until when.
#[derive(Default)]
pub(crate) struct PutOff(Mutex<HashMap<ObjectKey, Instant>>);

impl PutOff {
    /// How long the status may still wait; none when it is to be written now.
    fn remaining(&self, key: &ObjectKey, may_wait: bool) -> Option<Duration> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !may_wait {
            until.remove(key);
            return None;
        }
        // Kept until there is a status: one that cannot be written at once must not wait anew.
        let until = *until
            .entry(key.clone())
            .or_insert_with(|| Instant::now() + FIRST_STATUS);
        until
            .checked_duration_since(Instant::now())
            .filter(|remaining| !remaining.is_zero())
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something was written. What a status says may depend on the one before it, so the pass after this one has to show
    /// that nothing is left to write.
    Written,
    /// The children are written, and the status is to be; or it is to be seen whose the service is: after this time, or when
    /// something happens before.
    Unreported(Duration),
    /// Nothing had to be written, and what the service may wait for is watched.
    Settled,
    /// Something is missing that nobody tells us about.
    Waiting,
    /// There is no such service.
    Gone,
}

impl Reconciler {
    /// Runs one pass. It does not matter why.
    pub(crate) async fn pass(&self, key: &ObjectKey) -> Result<Outcome, PassError> {
        let Some(stored) = self.observer.caches.inference_services.find(key) else {
            self.observer.references.forget(key);
            self.put_off.remaining(key, false);
            self.coexistence.forget(key);
            return Ok(Outcome::Gone);
        };
        // Passes begin when there are settings, and settings never go away.
        let Some(settings) = self.platform.settings() else {
            return Ok(Outcome::Settled);
        };
        if let Some(outcome) = self.leave_to_others(&stored, &settings).await? {
            self.observer.references.forget(key);
            self.put_off.remaining(key, false);
            return Ok(outcome);
        }
        if stored.is_deleting() {
            self.observer.references.forget(key);
            return self.release(&stored, &settings).await;
        }
        let service = match stored.parse() {
            Ok(service) => service,
            Err(error) => {
                self.observer.references.forget(key);
                return self.report_unreadable(&stored, &settings, &error).await;
            }
        };
        // Boxed: a service is big, and both futures hold it.
        let mut observed = Box::pin(self.observer.observe(service, settings)).await?;
        let decision = decide(&observed);
        stored.is_foreign(matches!(decision, Decision::Ignored { .. }));
        let mut applied = Applied::default();
        let mut written = Vec::new();
        if let Some(desired) = decision.desired() {
            let meta = &observed.service.meta;
            // Boxed: it has the futures of all kinds, and most passes write none.
            let applying = self.applier.apply(&self.observer.caches, meta, &observed.live, desired);
            let outcome = Box::pin(applying).await?;
            (applied, written) = (outcome.applied, outcome.written);
            if !written.is_empty() {
                observed.live = self.observer.live(&observed.service.meta);
            }
        }
        if let Some(remaining) = self.put_off.remaining(key, may_wait(&observed, &decision, &applied)) {
            log(key, &decision, &applied, &written, false);
            return Ok(Outcome::Unreported(remaining));
        }
        let mut reported = false;
        if let Some(report) = report(&observed, &decision, &applied, &now()) {
            reported = self.reporter.report(&stored, report).await?;
        }
        log(key, &decision, &applied, &written, reported);
        Ok(if reported || !written.is_empty() {
            Outcome::Written
        } else if waits(
            &decision,
            &applied,
            &observed.by_name,
            self.observer.references.are_watched_over(key),
        ) {
            Outcome::Waiting
        } else {
            Outcome::Settled
        })
    }

    /// How a pass ends that must not touch the service, because another controller serves it; none where it is ours.
    async fn leave_to_others(&self, stored: &StoredService, settings: &Settings) -> Result<Option<Outcome>, PassError> {
        if self.coexistence.running() == Running::No {
            return Ok(None);
        }
        let key = &stored.head().key;
        if !is_ours(&without_spec(stored), settings) {
            self.coexistence.forget(key);
            return Ok(None);
        }
        Ok(match self.coexistence.claim(stored) {
            Claim::Free => None,
            // Whoever finds out asks for a pass.
            Claim::Unknown => Some(Outcome::Settled),
            Claim::After(delay) => Some(Outcome::Unreported(delay)),
            // Its controller takes its finalizer away.
            Claim::KServe if stored.is_deleting() => Some(Outcome::Settled),
            Claim::KServe => {
                stored.is_foreign(true);
                let written = self.reporter.refuse(stored, self.coexistence.refusal()).await?;
                Some(if written { Outcome::Written } else { Outcome::Settled })
            }
        })
    }

    /// Children of a deleted service go by their owner references.
    async fn release(&self, stored: &StoredService, settings: &Settings) -> Result<Outcome, PassError> {
        if is_ours(&without_spec(stored), settings) {
            self.reporter.release(stored).await?;
        }
        Ok(Outcome::Settled)
    }

    async fn report_unreadable(
        &self,
        stored: &StoredService,
        settings: &Settings,
        error: &InvalidField,
    ) -> Result<Outcome, PassError> {
        if is_ours(&without_spec(stored), settings) {
            let key = &stored.head().key;
            let report = report_unreadable(&stored.status(), key.name(), error, &now());
            if self.reporter.report(stored, report).await? {
                info!(namespace = key.namespace(), name = key.name(), %error, "specification refused");
                return Ok(Outcome::Written);
            }
        }
        Ok(Outcome::Settled)
    }
}

/// Whether there is nothing to say of a service yet but that it was built: it has no status, and the controller of its
/// Deployments has not looked at them.
fn may_wait(observed: &Observed, decision: &Decision, applied: &Applied) -> bool {
    let Decision::Build { resolved, .. } = decision else {
        return false;
    };
    let is_new = |deployment: &LiveDeployment| deployment.observed_generation == 0;
    observed.service.status.conditions.is_empty()
        && resolved.rejected.is_none()
        && applied.refused.is_empty()
        && observed.live.deployments.iter().any(is_new)
}

/// The service with an empty specification: enough to tell whose it is.
fn without_spec(stored: &StoredService) -> InferenceService {
    let spec = InferenceServiceSpec::default();
    InferenceService {
        meta: stored.meta(),
        spec,
        status: stored.status(),
    }
}

/// Whether the pass depends on something that nobody tells of when it changes: what is read by name and not watched over, or
/// must not be read, and what the API server refuses.
fn waits(decision: &Decision, applied: &Applied, by_name: &ByName, watched_over: bool) -> bool {
    let ByName {
        service_accounts,
        secrets,
        ca_bundle: _,
    } = by_name;
    let untold = service_accounts
        .values()
        .any(|account| is_untold(account, watched_over))
        || secrets.values().any(|secret| is_untold(secret, watched_over));
    match decision {
        Decision::Ignored { .. } | Decision::Frozen => false,
        Decision::Reject(rejection) => rejection.waits_for == WaitsFor::ReadByName && (untold || !watched_over),
        Decision::Stop { .. } => !applied.refused.is_empty(),
        Decision::Build { resolved, .. } => {
            let canaries = resolved
                .canaries
                .iter()
                .filter_map(|canary| canary.component.as_ref().err());
            let mut rejected = canaries.chain(resolved.rejected.as_ref().map(|(_, rejection)| rejection));
            let waits = rejected.any(|rejection| rejection.waits_for == WaitsFor::ReadByName);
            !applied.refused.is_empty() || untold || (waits && !watched_over)
        }
    }
}

/// Whether nobody tells when this is there. A right that is granted is no change of what it is for.
fn is_untold<T>(lookup: &Lookup<T>, watched_over: bool) -> bool {
    match lookup {
        Lookup::Found(_) => false,
        Lookup::Missing => !watched_over,
        Lookup::Unreadable(_) => true,
    }
}

fn log(key: &ObjectKey, decision: &Decision, applied: &Applied, children: &[String], status: bool) {
    let (namespace, name) = (key.namespace(), key.name());
    match decision {
        Decision::Ignored { why } => debug!(namespace, name, why, "not ours"),
        Decision::Frozen => debug!(namespace, name, "frozen by its annotation"),
        Decision::Reject(rejection) if status => {
            info!(
                namespace,
                name,
                reason = rejection.reason,
                detail = rejection.message,
                "cannot be built"
            );
        }
        Decision::Build { .. } | Decision::Stop { .. } if !children.is_empty() || status => {
            let refused = applied.refused.first().map(|refusal| refusal.message.as_str());
            info!(
                namespace,
                name,
                children = children.join(", "),
                status_written = status,
                refused,
                "reconciled"
            );
        }
        Decision::Reject(_) | Decision::Build { .. } | Decision::Stop { .. } => debug!(namespace, name, "steady"),
    }
}
