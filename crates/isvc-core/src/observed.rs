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
    /// Namespace of the platform settings.
    pub platform_namespace: String,
    /// Where models are brought into Pods.
    pub storage_injection: StorageInjection,
}

/// Where models and sidecars are brought into Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageInjection {
    /// In the Deployment's Pod template.
    #[default]
    Deployment,
    /// By `KServe`'s Pod webhook, which finds annotations.
    Annotations,
}

/// Objects that are read by name, never listed.
#[derive(Clone, Debug, Default)]
pub struct ByName {
    /// `ServiceAccounts` by name.
    pub service_accounts: BTreeMap<String, Lookup<ServiceAccountFacts>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Lookup<CredentialFacts>>,
    /// The `ConfigMap` with certificate authorities that the settings name; none when they name none.
    pub ca_bundle: Option<Lookup<CaBundleSource>>,
}

/// What decisions know of the `ConfigMap` with certificate authorities in the platform's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaBundleSource {
    /// The content of its key `cabundle.crt`, if it has the key.
    pub certificates: Option<Arc<str>>,
}

/// Answer to a read by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// It is not.
    Missing,
    /// It cannot be read, and asking again at once would not help; why, without content.
    Unreadable(String),
}

/// What decisions know of a `ServiceAccount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// keda.sh/v1alpha1 `ScaledObjects`.
    pub scaled_objects: Vec<LiveObject>,
    /// networking.k8s.io/v1 Ingresses.
    pub ingresses: Vec<LiveObject>,
    /// gateway.networking.k8s.io/v1 `HTTPRoutes`.
    pub http_routes: Vec<LiveRoute>,
    /// Digest of the namespace's copy of the certificate authorities, see
    /// [`CaBundle::digest`](crate::desired::CaBundle::digest); none when there is no copy.
    pub ca_bundle: Option<u64>,
    /// Pods of all components.
    pub pods: Vec<LivePod>,
}

/// A child as the API server has it.
///
/// What a child holds need not be kept for ever: once it was compared with a desired object and found to be as it should
/// be, [`confirmed`](Self::confirmed) says so, and the fields from [`labels`](Self::labels) on are empty.
#[derive(Clone, Debug, Default)]
pub struct LiveObject {
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// The owner that controls it; of one that is confirmed only the uid.
    pub controller: Option<OwnerReference>,
    /// Digest of everything that is compared; it differs after any change of it.
    pub facts: u64,
    /// Digest of the desired object that it was found to be as, with these facts.
    pub confirmed: Option<u64>,
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
    /// How many replicas it is to have, where our field manager owns that field.
    pub owned_replicas: Option<i32>,
}

/// An `HTTPRoute` and what Gateways say of it.
#[derive(Clone, Debug, Default)]
pub struct LiveRoute {
    /// The object.
    pub object: LiveObject,
    /// Whether any Gateway has said anything: `status.parents` is not empty.
    pub has_parents: bool,
    /// The first condition of any parent that is False.
    pub refused: Option<RouteCondition>,
}

/// A condition of an `HTTPRoute`'s parent that is False.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteCondition {
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
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
    /// The `ServiceAccounts` whose Secrets hold storage credentials.
    pub service_accounts: BTreeSet<String>,
    /// Secrets that are named without a `ServiceAccount`'s help.
    pub secrets: BTreeSet<String>,
    /// Those of `secrets` that are read as the storage Secret: what their entries say of storage is wanted, see
    /// [`storage_entry`](crate::credential::storage_entry).
    pub storage_secrets: BTreeSet<String>,
    /// Those of them whose listed Secrets are wanted as well.
    pub secrets_of: BTreeSet<String>,
}
