//! `InferenceServices`.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
};

use isvc_core::{
    api::{InferenceService, InferenceServiceStatus, InvalidField, Meta, OwnerReference},
    names,
};
use k8s_openapi::{NamespaceResourceScope, jiff::Timestamp};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Head, RawMeta, Stored, text_map};
use crate::observability::metrics::{NotReady, Readiness};

/// An `InferenceService` as it is kept.
pub(crate) struct StoredService {
    head: Head,
    generation: i64,
    creation_timestamp: Option<Box<str>>,
    deletion_timestamp: Option<Box<str>>,
    labels: Option<Box<RawValue>>,
    annotations: Option<Box<RawValue>>,
    finalizers: Box<[String]>,
    owner_references: Box<[OwnerReference]>,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    /// What the status says, and since when, in seconds since 1970.
    readiness: (Readiness, u32),
    /// Whether the last pass found that somebody else serves it.
    foreign: AtomicBool,
}

#[derive(Deserialize)]
pub(crate) struct RawService {
    metadata: RawMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl Stored for StoredService {
    type Raw = RawService;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = "serving.kserve.io";
    const VERSION: &'static str = "v1beta1";
    const KIND: &'static str = names::INFERENCE_SERVICE_KIND;
    const PLURAL: &'static str = "inferenceservices";
    const CUSTOM: bool = true;
    const OPTIONAL: bool = false;

    fn from_raw(mut raw: RawService) -> Self {
        Self {
            readiness: readiness(raw.status.as_deref(), raw.metadata.creation_timestamp.as_deref()),
            foreign: AtomicBool::new(false),
            head: raw.metadata.head(),
            generation: raw.metadata.generation,
            annotations: raw.metadata.take_annotations(),
            creation_timestamp: raw.metadata.creation_timestamp,
            deletion_timestamp: raw.metadata.deletion_timestamp,
            labels: raw.metadata.labels,
            finalizers: raw.metadata.finalizers.unwrap_or_default().into(),
            owner_references: raw.metadata.owner_references.unwrap_or_default().into(),
            spec: raw.spec,
            status: raw.status,
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn follow(&mut self, old: &Self) {
        *self.foreign.get_mut() = old.foreign.load(Ordering::Relaxed);
    }

    /// Every new version is looked at: even a status somebody else has written must be put right.
    fn same_facts(&self, other: &Self) -> bool {
        self.head.uid == other.head.uid && self.head.version == other.head.version
    }
}

impl StoredService {
    /// Whether its deletion was asked for.
    pub(crate) fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Whether it is Ready and since when, in seconds since 1970; none where that is nothing of ours, or does not matter
    /// any more.
    pub(crate) fn readiness(&self) -> Option<(Readiness, u32)> {
        let counts = !self.is_deleting() && !self.foreign.load(Ordering::Relaxed);
        counts.then_some(self.readiness)
    }

    /// A pass has found whether somebody else serves it.
    pub(crate) fn is_foreign(&self, foreign: bool) {
        self.foreign.store(foreign, Ordering::Relaxed);
    }

    pub(crate) fn finalizers(&self) -> &[String] {
        &self.finalizers
    }

    pub(crate) fn meta(&self) -> Meta {
        Meta {
            name: self.head.key.name().to_owned(),
            namespace: self.head.key.namespace().to_owned(),
            uid: self.head.uid.to_string(),
            resource_version: self.head.version.to_string(),
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.as_deref().unwrap_or_default().to_owned(),
            deletion_timestamp: self.deletion_timestamp.as_deref().map(str::to_owned),
            labels: text_map(self.labels.as_deref()),
            annotations: text_map(self.annotations.as_deref()),
            finalizers: self.finalizers.to_vec(),
            owner_references: self.owner_references.to_vec(),
        }
    }

    /// The status; one that cannot be read counts as none and is written anew.
    pub(crate) fn status(&self) -> InferenceServiceStatus {
        self.status
            .as_ref()
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }

    /// The service as a decision reads it.
    pub(crate) fn parse(&self) -> Result<InferenceService, InvalidField> {
        let spec = self
            .spec
            .as_ref()
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or(Value::Null);
        InferenceService::parse(self.meta(), spec, self.status())
    }
}

/// What the condition Ready says, and since when, in seconds since 1970.
fn readiness(status: Option<&RawValue>, created: Option<&str>) -> (Readiness, u32) {
    /// A part of the status; what is not read is not allocated.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status<'a> {
        #[serde(borrow)]
        conditions: Vec<Condition<'a>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Condition<'a> {
        #[serde(rename = "type", borrow)]
        type_: Cow<'a, str>,
        #[serde(borrow)]
        status: Cow<'a, str>,
        #[serde(borrow)]
        reason: Cow<'a, str>,
        #[serde(borrow)]
        last_transition_time: Cow<'a, str>,
    }
    let status: Status = status
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let since = ready.map(|ready| &*ready.last_transition_time);
    let since = since.filter(|since| !since.is_empty()).or(created);
    let since = since.and_then(|since| since.parse::<Timestamp>().ok());
    let since = since.and_then(|since| u32::try_from(since.as_second()).ok());
    let readiness = match ready.map(|ready| (&*ready.status, NotReady::of(&ready.reason))) {
        Some(("True", _)) => Readiness::Ready,
        Some(("False", reason)) => Readiness::NotReady(reason),
        Some((_, reason)) => Readiness::Unknown(reason),
        None => Readiness::Unknown(NotReady::Pending),
    };
    (readiness, since.unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::stored::Wire;

    /// A service as the API server would send it.
    pub(crate) fn stored(value: &Value) -> Arc<StoredService> {
        serde_json::from_str::<Wire<StoredService>>(&value.to_string())
            .expect("an InferenceService")
            .object
    }

    #[test]
    fn a_wrong_specification_is_kept_and_says_what_is_wrong() {
        let service = stored(&json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": "1", "resourceVersion": "7"},
            "spec": {"predictor": {"minReplicas": "three"}},
            "status": {"conditions": "none"},
        }));
        let error = service.parse().expect_err("minReplicas is a number");
        assert_eq!(error.path, "spec.predictor.minReplicas");
        assert_eq!(service.status(), InferenceServiceStatus::default());
    }

    #[test]
    fn metadata_comes_back() {
        let service = stored(&json!({
            "metadata": {
                "name": "a", "namespace": "ns", "uid": "1", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": {"l": "1"}, "annotations": {"a": "2"}, "finalizers": ["f"],
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}},
        }));
        let meta = service.meta();
        assert_eq!(
            (&*meta.name, &*meta.namespace, &*meta.uid, &*meta.resource_version),
            ("a", "ns", "1", "7")
        );
        assert_eq!(meta.generation, 3);
        assert_eq!(meta.labels["l"], "1");
        assert_eq!(meta.annotations["a"], "2");
        assert_eq!(meta.finalizers, ["f"]);
        assert!(service.is_deleting());
        assert!(service.parse().is_ok());
    }
}
