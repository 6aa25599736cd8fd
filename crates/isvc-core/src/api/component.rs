//! A component of an `InferenceService`: predictor, transformer or explainer.

mod auto_scaling;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use auto_scaling::{
    AutoScaling, ExternalMetric, MetricAuthentication, MetricQuery, MetricSpec, MetricTarget, NameReference,
    ResourceMetric,
};

use super::{ComponentKind, InvalidField, Object, fields::Fields};
use crate::{named::is_named, names};

/// The frameworks that once had a field of their own, in the order in which they are looked for.
pub const LEGACY_FRAMEWORKS: [&str; 10] = [
    "sklearn",
    "tensorflow",
    "xgboost",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
];

/// What predictor, transformer and explainer have in common, and what only one of them has.
#[derive(Clone, Debug, Default)]
pub struct Component {
    /// Which one it is.
    pub kind: ComponentKind,
    /// Index in `spec.canary`, if it is a variant of the predictor.
    pub canary: Option<usize>,
    /// Least number of replicas.
    pub min_replicas: Option<i32>,
    /// Largest number of replicas; 0 or absent means the least number.
    pub max_replicas: Option<i32>,
    /// Target of the one metric, in percent.
    pub scale_target: Option<i32>,
    /// The one metric: cpu, memory, concurrency or rps.
    pub scale_metric: Option<String>,
    /// How the one metric is meant; without effect in Standard mode, as in `KServe`.
    pub scale_metric_type: Option<String>,
    /// Several metrics, and the autoscaler's behaviour.
    pub auto_scaling: Option<AutoScaling>,
    /// Requests one container works on at a time; only transformer and explainer are told.
    pub container_concurrency: Option<i64>,
    /// Request timeout in seconds, used by Gateway API routes.
    pub timeout: Option<i64>,
    /// Labels for this component's objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations for this component's objects and Pods.
    pub annotations: BTreeMap<String, String>,
    /// Share of the traffic for the latest specification; without effect in Standard mode.
    pub canary_traffic_percent: Option<i64>,
    /// apps/v1 `DeploymentStrategy`, used verbatim.
    pub deployment_strategy: Option<Value>,
    /// Payload logging.
    pub logger: Option<Logger>,
    /// Request batching.
    pub batcher: Option<Batcher>,
    /// Variant name: becomes part of object names. Predictor only.
    pub variant: Option<String>,
    /// The model to serve. Predictor only.
    pub model: Option<Model>,
    /// A framework in its old field, as (field name, content), before defaulting. Predictor only.
    pub legacy: Option<(&'static str, Object)>,
    /// The adversarial robustness toolbox. Explainer only.
    pub art: Option<Art>,
    /// How many implementations are given: old fields, `model`, `art`, containers named kserve-container of a predictor,
    /// the list of containers of others.
    pub implementations: usize,
    /// core/v1 Containers: a custom component, or side containers beside `model`.
    pub containers: Vec<Value>,
    /// Several models, each with its place.
    pub storage_uris: Vec<StorageUri>,
    /// Name of a `ClusterStorageContainer` to use. Predictor only.
    pub storage_container_name: Option<String>,
    /// Every other field of the core/v1 `PodSpec`.
    pub pod: Object,
}

/// One entry of `storageUris`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageUri {
    /// Where the model is.
    pub uri: String,
    /// Where containers find it; `/mnt/models` when absent.
    pub mount_path: Option<String>,
}

/// `storage`: a model described by an entry of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageSpec {
    /// Path in the bucket or file system.
    pub path: Option<String>,
    /// What overrides the entry.
    pub parameters: Option<BTreeMap<String, String>>,
    /// Name of the entry.
    pub key: Option<String>,
}

/// `confidential`: an encrypted model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Confidential {
    /// Whether the model is encrypted.
    pub enabled: bool,
    /// Where its key is.
    pub resource_id: Option<String>,
}

/// Payload logging.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logger {
    /// Where payloads are sent to.
    pub url: Option<String>,
    /// all, request or response.
    pub mode: Option<String>,
    /// Headers sent along.
    pub metadata_headers: Vec<String>,
    /// Annotations sent along.
    pub metadata_annotations: Vec<String>,
    /// Where payloads are stored instead.
    pub storage: Option<LoggerStorage>,
    /// Service that turns payloads into files.
    pub marshaller_url: Option<String>,
    /// Payloads in one batch.
    pub batch_size: Option<i64>,
    /// Longest wait for a batch, a duration.
    pub batch_interval: Option<String>,
}

/// Where payloads are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggerStorage {
    /// Path in the bucket.
    pub path: Option<String>,
    /// Parameters of the storage back end.
    pub parameters: Option<BTreeMap<String, String>>,
    /// Entry of the storage Secret.
    pub key: Option<String>,
    /// `ServiceAccount` whose credentials are used.
    pub service_account_name: Option<String>,
}

/// Request batching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Batcher {
    /// Largest batch.
    pub max_batch_size: Option<i64>,
    /// Longest wait in milliseconds.
    pub max_latency: Option<i64>,
    /// Without effect, as in `KServe`.
    pub timeout: Option<i64>,
}

/// `predictor.model`.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Format name; empty when the object has none.
    pub format: String,
    /// Format version.
    pub format_version: Option<String>,
    /// Explicitly chosen runtime.
    pub runtime: Option<String>,
    /// Tag of the runtime's image.
    pub runtime_version: Option<String>,
    /// v1, v2, grpc-v1 or grpc-v2.
    pub protocol_version: Option<String>,
    /// Where the model is.
    pub storage_uri: Option<String>,
    /// Where the model is, by an entry of a Secret.
    pub storage: Option<StorageSpec>,
    /// Whether the model is encrypted.
    pub confidential: Option<Confidential>,
    /// Every other field of the core/v1 Container.
    pub container: Object,
}

/// `explainer.art`.
#[derive(Clone, Debug, Default)]
pub struct Art {
    /// Kind of attack.
    pub type_: String,
    /// Where the explainer's model is.
    pub storage_uri: Option<String>,
    /// An entry of a Secret that describes a storage; without effect, as in `KServe`.
    pub storage: Option<StorageSpec>,
    /// Tag of the image.
    pub runtime_version: Option<String>,
    /// Further arguments.
    pub config: BTreeMap<String, String>,
    /// Every other field of the core/v1 Container.
    pub container: Object,
}

impl Component {
    pub(super) fn parse(
        kind: ComponentKind,
        mut fields: Fields,
        unsupported: &mut Vec<String>,
    ) -> Result<Self, InvalidField> {
        if fields.has("workerSpec") {
            unsupported.push(fields.path("workerSpec"));
        }
        fields.take::<Value>("workerSpec")?;
        let mut implementations = 0;
        let (mut legacy, mut model, mut art) = (None, None, None);
        match kind {
            ComponentKind::Predictor => {
                for framework in LEGACY_FRAMEWORKS {
                    if let Some(content) = fields.take_object(framework)? {
                        implementations += 1;
                        legacy = legacy.or(Some((framework, content.rest())));
                    }
                }
                model = fields.take_object("model")?.map(Model::parse).transpose()?;
            }
            ComponentKind::Explainer => art = fields.take_object("art")?.map(Art::parse).transpose()?,
            ComponentKind::Transformer => {}
        }
        implementations += usize::from(model.is_some()) + usize::from(art.is_some());
        let containers = fields.take_objects("containers")?;
        let is_server = |container: &&Value| is_named(container, names::MODEL_CONTAINER);
        implementations += match kind {
            ComponentKind::Predictor => containers.iter().filter(is_server).count(),
            ComponentKind::Transformer | ComponentKind::Explainer => usize::from(!containers.is_empty()),
        };
        if implementations == 0 && !containers.is_empty() {
            implementations = 1;
        }
        let mut component = Self {
            kind,
            canary: None,
            min_replicas: fields.take("minReplicas")?,
            max_replicas: fields.take("maxReplicas")?,
            scale_target: fields.take("scaleTarget")?,
            scale_metric: fields.take("scaleMetric")?,
            scale_metric_type: fields.take("scaleMetricType")?,
            auto_scaling: fields.take("autoScaling")?,
            container_concurrency: fields.take("containerConcurrency")?,
            timeout: fields.take("timeout")?,
            labels: fields.take("labels")?.unwrap_or_default(),
            annotations: fields.take("annotations")?.unwrap_or_default(),
            canary_traffic_percent: fields.take("canaryTrafficPercent")?,
            deployment_strategy: fields.take("deploymentStrategy")?,
            logger: fields.take("logger")?,
            batcher: fields.take("batcher")?,
            variant: None,
            storage_uris: storage_uris(&mut fields)?,
            storage_container_name: None,
            model,
            legacy,
            art,
            implementations,
            containers,
            pod: Object::new(),
        };
        if kind == ComponentKind::Predictor {
            component.variant = fields.take("name")?;
            component.storage_container_name = fields.take("storageContainerName")?;
        }
        component.pod = fields.rest();
        Ok(component)
    }

    /// Path of one of its fields in the object, as in `spec.predictor.minReplicas`.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path())
    }

    /// Path of the component in the object, as in `spec.predictor`.
    #[must_use]
    pub fn path(&self) -> String {
        match self.canary {
            Some(index) => format!("spec.canary[{index}].predictor"),
            None => self.kind.field().to_owned(),
        }
    }
}

impl Model {
    /// Reads a framework object in its old field: the same shape without format and runtime.
    pub(crate) fn from_legacy(framework: &str, content: Object) -> Result<Self, InvalidField> {
        let fields = Fields::new(format!("spec.predictor.{framework}"), Value::Object(content))?;
        let mut model = Self::parse(fields)?;
        framework.clone_into(&mut model.format);
        Ok(model)
    }

    fn parse(mut fields: Fields) -> Result<Self, InvalidField> {
        let (format, format_version) = match fields.take_object("modelFormat")? {
            Some(mut format) => (format.take("name")?.unwrap_or_default(), format.take("version")?),
            None => (String::new(), None),
        };
        let mut model = Self {
            format,
            format_version,
            runtime: fields.take("runtime")?,
            runtime_version: fields.take("runtimeVersion")?,
            protocol_version: fields.take("protocolVersion")?,
            storage_uri: fields.take("storageUri")?,
            storage: fields.take("storage")?,
            confidential: fields.take("confidential")?,
            container: Object::new(),
        };
        model.container = fields.rest();
        Ok(model)
    }

    /// Whether it says nowhere where the model is.
    #[must_use]
    pub fn is_without_storage(&self) -> bool {
        self.storage_uri.is_none() && self.storage.is_none()
    }
}

impl Art {
    fn parse(mut fields: Fields) -> Result<Self, InvalidField> {
        let mut art = Self {
            type_: fields.take("type")?.unwrap_or_default(),
            storage_uri: fields.take("storageUri")?,
            storage: fields.take("storage")?,
            runtime_version: fields.take("runtimeVersion")?,
            config: fields.take("config")?.unwrap_or_default(),
            container: Object::new(),
        };
        art.container = fields.rest();
        Ok(art)
    }
}

/// Reads `storageUris`. The schema of `KServe`'s full definition refuses an empty list; its words are kept.
fn storage_uris(fields: &mut Fields) -> Result<Vec<StorageUri>, InvalidField> {
    let given: Option<Vec<StorageUri>> = fields.take("storageUris")?;
    if given.as_ref().is_some_and(Vec::is_empty) {
        let path = fields.path("storageUris");
        let problem = format!("Invalid value: 0: {path} in body should have at least 1 items");
        return Err(InvalidField::new(path, problem));
    }
    Ok(given.unwrap_or_default())
}
