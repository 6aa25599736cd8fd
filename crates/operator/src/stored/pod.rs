//! Pods: the little that the model's status needs.

use isvc_core::{
    names,
    observed::{ContainerFacts, LivePod, Termination},
};
use k8s_openapi::NamespaceResourceScope;
use serde::Deserialize;

use super::{Head, RawMeta, Stored, text_map};
use crate::key::ObjectKey;

/// A Pod as it is kept.
pub(crate) struct StoredPod {
    head: Head,
    owner: Option<ObjectKey>,
    facts: Facts,
}

/// What decisions read, in little room: most Pods of most services have no container worth a word.
#[derive(PartialEq)]
struct Facts {
    app: Box<str>,
    creation_timestamp: Box<str>,
    phase: Box<str>,
    ready: bool,
    storage_initializer: Option<Box<ContainerFacts>>,
    model_container: Option<Box<ContainerFacts>>,
}

impl StoredPod {
    /// The Pod as a decision reads it.
    pub(crate) fn live(&self) -> LivePod {
        let facts = &self.facts;
        LivePod {
            name: self.head.key.name().to_owned(),
            app: facts.app.to_string(),
            creation_timestamp: facts.creation_timestamp.to_string(),
            phase: facts.phase.to_string(),
            ready: facts.ready,
            storage_initializer: facts.storage_initializer.as_deref().cloned(),
            model_container: facts.model_container.as_deref().cloned(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct RawPod {
    metadata: RawMeta,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    conditions: Option<Vec<RawCondition>>,
    init_container_statuses: Option<Vec<RawContainer>>,
    container_statuses: Option<Vec<RawContainer>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    name: String,
    state: RawState,
    last_state: RawState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<RawWaiting>,
    terminated: Option<Termination>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWaiting {
    reason: String,
}

impl Stored for StoredPod {
    type Raw = RawPod;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Pod";
    const PLURAL: &'static str = "pods";

    fn from_raw(mut raw: RawPod) -> Self {
        let mut labels = text_map(raw.metadata.labels.as_deref());
        let service = labels
            .remove(names::LABEL_INFERENCE_SERVICE)
            .filter(|name| !name.is_empty());
        let conditions = raw.status.conditions.unwrap_or_default();
        let facts = Facts {
            app: labels.remove(names::LABEL_APP).unwrap_or_default().into(),
            creation_timestamp: raw.metadata.creation_timestamp.take().unwrap_or_default(),
            phase: raw.status.phase.into(),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            storage_initializer: container(raw.status.init_container_statuses, names::STORAGE_INITIALIZER),
            model_container: container(raw.status.container_statuses, names::MODEL_CONTAINER),
        };
        let head = raw.metadata.head();
        let owner = service.map(|service| ObjectKey::new(head.key.namespace(), &service));
        Self { head, owner, facts }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn owner(&self) -> Option<&ObjectKey> {
        self.owner.as_ref()
    }

    fn concerns_us(&self) -> bool {
        self.owner.is_some()
    }

    fn same_facts(&self, other: &Self) -> bool {
        self.head.uid == other.head.uid && self.owner == other.owner && self.facts == other.facts
    }
}

fn container(statuses: Option<Vec<RawContainer>>, name: &str) -> Option<Box<ContainerFacts>> {
    let status = statuses?.into_iter().find(|status| status.name == name)?;
    Some(Box::new(ContainerFacts {
        running: status.state.running.is_some(),
        waiting: status.state.waiting.map(|waiting| waiting.reason),
        terminated: status.state.terminated,
        last_terminated: status.last_state.terminated,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stored::Wire;

    fn stored(value: &Value) -> StoredPod {
        let wire: Wire<StoredPod> = serde_json::from_str(&value.to_string()).expect("a Pod");
        std::sync::Arc::into_inner(wire.object).expect("nobody else has it")
    }

    #[test]
    fn keeps_the_states_of_the_two_containers() {
        let pod = stored(&json!({
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "1", "resourceVersion": "5",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": "isvc.a-predictor", "serving.kserve.io/inferenceservice": "a", "other": "x"},
            },
            "spec": {"containers": [{"name": "kserve-container"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": [{
                    "name": "storage-initializer",
                    "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no bucket"}},
                }],
                "containerStatuses": [
                    {"name": "side", "state": {"running": {}}},
                    {
                        "name": "kserve-container",
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "m"}},
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    },
                ],
            },
        }));
        assert_eq!(pod.owner(), Some(&ObjectKey::new("ns", "a")));
        let live = pod.live();
        assert_eq!(
            (&*live.app, &*live.phase, live.ready),
            ("isvc.a-predictor", "Running", true)
        );
        let initializer = live.storage_initializer.expect("reported");
        assert_eq!(initializer.terminated.expect("ended").message, "no bucket");
        let model = live.model_container.expect("reported");
        assert_eq!(model.waiting.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(model.last_terminated.expect("ended before").exit_code, 137);
        assert!(!model.running);
    }

    #[test]
    fn a_pod_without_status_or_label() {
        let pod = stored(&json!({"metadata": {"name": "p", "namespace": "ns", "uid": "1", "resourceVersion": "5"}}));
        assert!(!pod.concerns_us());
        assert_eq!(pod.live().model_container, None);
    }
}
