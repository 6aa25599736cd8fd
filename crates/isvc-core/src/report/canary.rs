//! What a status says about variants of the predictor.

use crate::{
    api::{
        InferenceServiceStatus,
        status::{CANARY_PREDICTOR_READY, CanaryStatus},
    },
    condition::{Conditions, Verdict},
    rejection::RECONCILE_FAILED,
    report::Applied,
    resolve::Resolved,
};

/// Reports which variants serve; returns what went wrong. A service without any has neither statuses nor the condition.
pub(super) fn report(
    status: &mut InferenceServiceStatus,
    resolved: &Resolved,
    applied: &Applied,
    now: &str,
) -> Option<String> {
    let canaries = &resolved.canaries;
    status.canary_statuses = canaries
        .iter()
        .map(|canary| CanaryStatus {
            name: canary.name.clone(),
            ready: canary.ready,
            traffic_percent: canary.traffic_percent,
            ..CanaryStatus::default()
        })
        .collect();
    let mut conditions = Conditions::new(&mut status.conditions, now);
    if canaries.is_empty() {
        conditions.remove(CANARY_PREDICTOR_READY);
        return None;
    }
    if let Some(rejection) = canaries.iter().find_map(|canary| canary.component.as_ref().err()) {
        conditions.set(
            CANARY_PREDICTOR_READY,
            Verdict::fails(rejection.reason, rejection.message.clone()),
        );
        return Some(rejection.event.clone());
    }
    let mut refused = applied.refused.iter();
    if let Some(refusal) = refused.find(|refusal| canaries.iter().any(|canary| refusal.runs(&canary.object))) {
        let message = format!("fails to reconcile canary {}: {}", refusal.name, refusal.message);
        conditions.set(
            CANARY_PREDICTOR_READY,
            Verdict::fails(RECONCILE_FAILED, message.clone()),
        );
        return Some(message);
    }
    let verdict = if canaries.iter().all(|canary| canary.ready) {
        Verdict {
            reason: "AllCanariesReady".to_owned(),
            ..Verdict::holds()
        }
    } else {
        Verdict::fails("CanariesNotReady", "")
    };
    conditions.set(CANARY_PREDICTOR_READY, verdict);
    None
}
