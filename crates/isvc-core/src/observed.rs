//! All facts a decision may use, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{InferenceService, OwnerReference, ServingRuntime, StorageContainer},
    credential::CredentialFacts,
    settings::Settings,
};

/// Everything one pass knows.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The service, as stored.
    pub service: InferenceService,
    /// Platform settings in force.
    pub settings: Arc<Settings>,
    /// `ServingRuntimes` of the service's namespace.
    pub runtimes: Vec<Arc<ServingRuntime>>,
    /// `ClusterServingRuntimes`.
    pub cluster_runtimes: Vec<Arc<ServingRuntime>>,
    /// `ClusterStorageContainers`.
    pub storage_containers: Vec<Arc<StorageContainer>>,
    /// What was read by name.
    pub by_name: ByName,
    /// The service's children as the API server has them.
    pub live: Live,
    /// DNS domain of the cluster, `cluster.local` as a rule.
    pub cluster_domain: String,
}

/// Objects that are read by name, never listed.
#[derive(Clone, Debug, Default)]
pub struct ByName {
    /// The `ServiceAccount` of the Pods, if anything asked for it.
    pub service_account: Option<Lookup<ServiceAccountFacts>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Lookup<CredentialFacts>>,
}

/// Answer to a read by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// It is not.
    Missing,
    /// It cannot be read, and asking again at once would not help; why, without content.
    Unreadable(String),
}

/// What decisions know of a `ServiceAccount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountFacts {
    /// Names in `secrets`, in order.
    pub secrets: Vec<String>,
    /// Annotations that describe storage, see [`crate::credential::is_storage_annotation`].
    pub annotations: BTreeMap<String, String>,
}

/// The children of one service.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// apps/v1 Deployments.
    pub deployments: Vec<LiveDeployment>,
    /// core/v1 Services.
    pub services: Vec<LiveObject>,
    /// autoscaling/v2 `HorizontalPodAutoscalers`.
    pub horizontal_pod_autoscalers: Vec<LiveObject>,
    /// networking.k8s.io/v1 Ingresses.
    pub ingresses: Vec<LiveObject>,
    /// Pods of all components.
    pub pods: Vec<LivePod>,
}

/// A child as the API server has it.
#[derive(Clone, Debug, Default)]
pub struct LiveObject {
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// The owner that controls it.
    pub controller: Option<OwnerReference>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The specification with the API server's defaults.
    pub spec: Value,
    /// The fields our field manager owns (`fieldsV1`), if it has applied the object.
    pub owned: Option<Value>,
}

/// A Deployment and what its controller says of it.
#[derive(Clone, Debug, Default)]
pub struct LiveDeployment {
    /// The object.
    pub object: LiveObject,
    /// Generation its controller has seen.
    pub observed_generation: i64,
    /// Its conditions.
    pub conditions: Vec<DeploymentCondition>,
}

/// One condition of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DeploymentCondition {
    /// Available, Progressing or `ReplicaFailure`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A Pod, as far as the model's status needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePod {
    /// Name.
    pub name: String,
    /// The `app` label: which component's Deployment it belongs to.
    pub app: String,
    /// RFC 3339; as text it sorts by time.
    pub creation_timestamp: String,
    /// Phase.
    pub phase: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// State of the storage-initializer, if the kubelet has reported it.
    pub storage_initializer: Option<ContainerFacts>,
    /// State of the kserve-container, if the kubelet has reported it.
    pub model_container: Option<ContainerFacts>,
}

/// State of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Running now.
    pub running: bool,
    /// Waiting, and why.
    pub waiting: Option<String>,
    /// Ended, and how.
    pub terminated: Option<Termination>,
    /// How the run before this one ended.
    pub last_terminated: Option<Termination>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Termination {
    /// Completed, Error, `OOMKilled` and others.
    pub reason: String,
    /// What the container left as its last words.
    pub message: String,
    /// Its exit code.
    pub exit_code: i32,
}

/// The names one pass wants to read, found out before anything is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The `ServiceAccount` whose Secrets hold the storage credentials.
    pub service_account: Option<String>,
    /// Secrets that are named without a `ServiceAccount`'s help.
    pub secrets: BTreeSet<String>,
    /// Whether the Secrets listed by the `ServiceAccount` are wanted as well.
    pub secrets_of_service_account: bool,
}
