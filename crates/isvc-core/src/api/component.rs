//! A component of an `InferenceService`: predictor, transformer or explainer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{ComponentKind, InvalidField, Object, fields::Fields};

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
    /// Least number of replicas.
    pub min_replicas: Option<i32>,
    /// Largest number of replicas; 0 or absent means the least number.
    pub max_replicas: Option<i32>,
    /// Target of the one metric, in percent.
    pub scale_target: Option<i32>,
    /// The one metric: cpu, memory, concurrency or rps.
    pub scale_metric: Option<String>,
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
    /// How many implementations are given (old fields, `model`, `art`, containers named kserve-container).
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

/// `autoScaling`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoScaling {
    /// What to scale on, in order.
    pub metrics: Vec<MetricSpec>,
    /// autoscaling/v2 behaviour.
    pub behavior: Option<Value>,
}

/// One entry of `autoScaling.metrics`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSpec {
    /// Resource, External or `PodMetric`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The resource metric.
    pub resource: Option<ResourceMetric>,
    /// The metric of a monitoring system.
    pub external: Option<ExternalMetric>,
    /// The metric of the Pods themselves.
    #[serde(rename = "podmetric")]
    pub pod_metric: Option<ExternalMetric>,
}

/// A resource metric.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceMetric {
    /// cpu or memory.
    pub name: String,
    /// What to hold it at.
    pub target: MetricTarget,
}

/// A metric of a monitoring system or of the Pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalMetric {
    /// What is asked, and of whom.
    pub metric: MetricQuery,
    /// How to prove who asks.
    pub authentication_ref: Option<MetricAuthentication>,
    /// What to hold it at.
    pub target: MetricTarget,
}

/// What is asked for a metric, and of whom.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricQuery {
    /// prometheus, graphite or opentelemetry.
    pub backend: String,
    /// Address of the monitoring system.
    pub server_address: Option<String>,
    /// Names of metrics, for opentelemetry.
    pub metric_names: Vec<String>,
    /// The query.
    pub query: Option<String>,
    /// How values of a period are combined, for opentelemetry.
    pub operation_over_time: Option<String>,
    /// Namespace of the query, for prometheus.
    pub namespace: Option<String>,
}

/// `authenticationRef` of a metric.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricAuthentication {
    /// The `TriggerAuthentication`.
    pub authentication_ref: Option<NameReference>,
    /// Comma-separated modes.
    pub auth_modes: Option<String>,
}

/// A reference by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NameReference {
    /// The name.
    pub name: String,
}

/// A metric's target.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricTarget {
    /// Utilization, Value or `AverageValue`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Percent of the requested resource.
    pub average_utilization: Option<i32>,
    /// Quantity per Pod.
    pub average_value: Option<Value>,
    /// Quantity in total.
    pub value: Option<Value>,
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
        let named = containers
            .iter()
            .filter(|c| c.get("name").and_then(Value::as_str) == Some(crate::names::MODEL_CONTAINER));
        implementations += named.count();
        if implementations == 0 && !containers.is_empty() {
            implementations = 1;
        }
        let mut component = Self {
            kind,
            min_replicas: fields.take("minReplicas")?,
            max_replicas: fields.take("maxReplicas")?,
            scale_target: fields.take("scaleTarget")?,
            scale_metric: fields.take("scaleMetric")?,
            auto_scaling: fields.take("autoScaling")?,
            container_concurrency: fields.take("containerConcurrency")?,
            timeout: fields.take("timeout")?,
            labels: fields.take("labels")?.unwrap_or_default(),
            annotations: fields.take("annotations")?.unwrap_or_default(),
            deployment_strategy: fields.take("deploymentStrategy")?,
            logger: fields.take("logger")?,
            batcher: fields.take("batcher")?,
            variant: None,
            storage_uris: fields.take("storageUris")?.unwrap_or_default(),
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
        // Accepted and without effect in Standard mode, as in KServe.
        for name in ["scaleMetricType", "canaryTrafficPercent"] {
            fields.take::<Value>(name)?;
        }
        component.pod = without_null(fields.rest());
        Ok(component)
    }

    /// Path of one of its fields in the object, as in `spec.predictor.minReplicas`.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.kind.field())
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
        model.container = without_null(fields.rest());
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
            runtime_version: fields.take("runtimeVersion")?,
            config: fields.take("config")?.unwrap_or_default(),
            container: Object::new(),
        };
        fields.take::<Value>("storage")?;
        art.container = without_null(fields.rest());
        Ok(art)
    }
}

fn without_null(mut object: Object) -> Object {
    object.retain(|_, value| !value.is_null());
    object
}
