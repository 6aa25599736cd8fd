//! `InferenceService` status, in the shape `KServe` writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything is in order.
pub const READY: &str = "Ready";
/// The predictor serves.
pub const PREDICTOR_READY: &str = "PredictorReady";
/// The transformer serves.
pub const TRANSFORMER_READY: &str = "TransformerReady";
/// The explainer serves.
pub const EXPLAINER_READY: &str = "ExplainerReady";
/// Routes from outside are in place, or none are wanted.
pub const INGRESS_READY: &str = "IngressReady";
/// All variants of the predictor serve.
pub const CANARY_PREDICTOR_READY: &str = "CanaryPredictorReady";
/// The service is stopped by its annotation.
pub const STOPPED: &str = "Stopped";
/// False where another controller serves the service. It is never True, and goes once leanserve serves it.
pub const SERVED_BY_LEANSERVE: &str = "ServedByLeanserve";

/// Status of an `InferenceService`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferenceServiceStatus {
    /// In-cluster address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Unused; kept as found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// The runtime in use, when it is a `ClusterServingRuntime`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_serving_runtime_name: String,
    /// What is known of each variant of the predictor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canary_statuses: Vec<CanaryStatus>,
    /// What is known of each component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<BTreeMap<String, ComponentStatus>>,
    /// Conditions, sorted by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Always `Standard` once reported.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deployment_mode: String,
    /// What is known of the model.
    pub model_status: ModelStatus,
    /// The last component Deployment's observed generation, as in `KServe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The runtime in use, when it is a `ServingRuntime`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serving_runtime_name: String,
    /// URL from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// Its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Status of one component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComponentStatus {
    /// URL of the component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Fields only other modes fill; kept as found.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Status of one variant of the predictor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStatus {
    /// Always empty but for the field that is always written, as in `KServe`.
    pub model_status: ModelStatus,
    /// Name of the variant.
    pub name: String,
    /// Whether it serves.
    pub ready: bool,
    /// Share of the requests it is meant to take, in percent.
    pub traffic_percent: i32,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    #[default]
    Unknown,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// RFC 3339 time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `Info` for conditions that do not count for Ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
}

/// What is known of the model.
///
/// `transitionStatus` is always written, even empty: the full CRD's default would change it otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelStatus {
    /// How many Pods serve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<ModelCopies>,
    /// The last failure; never cleared, as in `KServe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_info: Option<FailureInfo>,
    /// Which state it is in and moves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<ModelStates>,
    /// Empty, `UpToDate`, `InProgress`, `BlockedByFailedLoad` or `InvalidSpec`.
    pub transition_status: String,
}

/// How many Pods serve a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelCopies {
    /// Always 0 in Standard mode; always written.
    pub failed_copies: i32,
    /// Running and ready Pods; left out when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_copies: i32,
}

/// States of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelStates {
    /// State of what serves now; always written, because the CRD's default is not empty.
    pub active_model_state: String,
    /// State of what is wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_model_state: String,
}

/// Why a model failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailureInfo {
    /// Exit code of the failed container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Unused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Unused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model_revision_name: String,
    /// One of the reasons the CRD lists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde's skip_serializing_if asks for"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl InferenceServiceStatus {
    /// The condition of a type, if it is there.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the condition of a type is there and True.
    #[must_use]
    pub fn is_true(&self, type_: &str) -> bool {
        self.condition(type_)
            .is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}
