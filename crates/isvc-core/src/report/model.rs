//! The model's status, from the Pods that serve it.

use crate::{
    api::status::{FailureInfo, ModelCopies, ModelStates, ModelStatus},
    observed::{ContainerFacts, LivePod, Termination},
    rejection::ModelFailure,
};

const LOADED: &str = "Loaded";
const LOADING: &str = "Loading";
const PENDING: &str = "Pending";
const FAILED: &str = "FailedToLoad";
const INVALID: &str = "InvalidSpec";
const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Records an error of the specification or the runtime.
pub(super) fn fail(status: &mut ModelStatus, failure: &ModelFailure) {
    move_to(status, FAILED, INVALID);
    status.last_failure_info = Some(FailureInfo {
        reason: failure.reason.to_owned(),
        message: failure.message.clone(),
        ..FailureInfo::default()
    });
}

/// Follows the newest Pod of the component. `was_ready` is what the pass before this one reported.
pub(super) fn observe(status: &mut ModelStatus, pods: &[LivePod], app: &str, was_ready: bool) {
    let mut pods: Vec<&LivePod> = pods.iter().filter(|pod| pod.app == app).collect();
    pods.sort_by(|a, b| {
        b.creation_timestamp
            .cmp(&a.creation_timestamp)
            .then_with(|| a.name.cmp(&b.name))
    });
    let serving = pods.iter().filter(|pod| pod.phase == "Running" && pod.ready).count();
    status.copies = Some(ModelCopies {
        failed_copies: 0,
        total_copies: i32::try_from(serving).unwrap_or(i32::MAX),
    });

    let Some(newest) = pods.first() else {
        return move_to(status, PENDING, "InProgress");
    };
    if let Some(init) = &newest.storage_initializer {
        if init.running {
            // Running again after a failure keeps what was said of the failure.
            if init.last_terminated.is_none() {
                move_to(status, LOADING, "InProgress");
            }
            return;
        }
        if let Some(end) = failure(init) {
            return blocked(status, end);
        }
    }
    if was_ready {
        move_to(status, LOADED, "UpToDate");
        if let Some(states) = &mut status.states {
            LOADED.clone_into(&mut states.active_model_state);
        }
        return;
    }
    match &newest.model_container {
        Some(container) => match failure(container) {
            Some(end) => blocked(status, end),
            None => move_to(status, PENDING, "InProgress"),
        },
        // What was said stays until the kubelet reports, unless nothing was said, or of a specification that is mended.
        None if status.states.is_none() || status.transition_status == INVALID => {
            move_to(status, PENDING, "InProgress");
        }
        None => {}
    }
}

/// How a container failed, if it did. Running out of memory is a failure too, which `KServe` overlooks.
fn failure(container: &ContainerFacts) -> Option<Termination> {
    if let Some(end) = &container.terminated {
        return matches!(end.reason.as_str(), "Error" | "OOMKilled").then(|| end.clone());
    }
    (container.waiting.as_deref() == Some(CRASH_LOOP)).then(|| container.last_terminated.clone().unwrap_or_default())
}

fn blocked(status: &mut ModelStatus, end: Termination) {
    move_to(status, FAILED, "BlockedByFailedLoad");
    status.last_failure_info = Some(FailureInfo {
        reason: "ModelLoadFailed".to_owned(),
        message: end.message,
        exit_code: Some(end.exit_code),
        ..FailureInfo::default()
    });
}

fn move_to(status: &mut ModelStatus, target: &str, transition: &str) {
    let known = status.states.get_or_insert_with(ModelStates::default);
    target.clone_into(&mut known.target_model_state);
    transition.clone_into(&mut status.transition_status);
}
