//! `InferenceService`, as far as Standard mode needs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{InferenceServiceStatus, InvalidField, Meta, Object, fields::Fields};

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

/// An `InferenceService`.
#[derive(Clone, Debug)]
pub struct InferenceService {
    /// Metadata.
    pub meta: Meta,
    /// What the user wants.
    pub spec: InferenceServiceSpec,
    /// What was last reported.
    pub status: InferenceServiceStatus,
}

/// The specification.
#[derive(Clone, Debug)]
pub struct InferenceServiceSpec {
    /// Serves the model.
    pub predictor: Component,
    /// Fields that hold something this version does not build, as paths.
    pub unsupported: Vec<String>,
}

/// Predictor, transformer or explainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentKind {
    /// Serves the model.
    Predictor,
    /// Sits before the predictor.
    Transformer,
    /// Explains predictions.
    Explainer,
}

impl ComponentKind {
    /// The component's name in labels, object names and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predictor => "predictor",
            Self::Transformer => "transformer",
            Self::Explainer => "explainer",
        }
    }

    /// The type of the condition that tells whether it is ready.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Predictor => super::status::PREDICTOR_READY,
            Self::Transformer => super::status::TRANSFORMER_READY,
            Self::Explainer => super::status::EXPLAINER_READY,
        }
    }
}

/// What predictor, transformer and explainer have in common.
#[derive(Clone, Debug, Default)]
pub struct Component {
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
    /// Request timeout in seconds, used by Gateway API routes.
    pub timeout: Option<i64>,
    /// Labels for this component's objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations for this component's objects and Pods.
    pub annotations: BTreeMap<String, String>,
    /// apps/v1 `DeploymentStrategy`, used verbatim.
    pub deployment_strategy: Option<Value>,
    /// Variant name: becomes part of object names.
    pub variant: Option<String>,
    /// The model to serve.
    pub model: Option<Model>,
    /// A framework in its old field, as (field name, content), before defaulting.
    pub legacy: Option<(&'static str, Object)>,
    /// How many implementations are given (old fields, `model`, containers named kserve-container).
    pub implementations: usize,
    /// core/v1 Containers: a custom predictor, or side containers beside `model`.
    pub containers: Vec<Value>,
    /// Name of a `ClusterStorageContainer` to use.
    pub storage_container_name: Option<String>,
    /// Every other field of the core/v1 `PodSpec`.
    pub pod: Object,
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
    /// Whether `storage` is given.
    pub has_storage: bool,
    /// Every other field of the core/v1 Container.
    pub container: Object,
}

impl InferenceService {
    /// Reads an `InferenceService`.
    ///
    /// # Errors
    /// [`InvalidField`] names the first field that cannot be read.
    pub fn parse(meta: Meta, spec: Value, status: InferenceServiceStatus) -> Result<Self, InvalidField> {
        let mut fields = Fields::new("spec", spec)?;
        let mut unsupported = Vec::new();
        for name in ["transformer", "explainer", "canary"] {
            if fields.has(name) {
                unsupported.push(fields.path(name));
            }
        }
        let predictor = fields
            .take_object("predictor")?
            .ok_or_else(|| InvalidField::new("spec.predictor", "is required"))?;
        let predictor = Component::parse(predictor, &mut unsupported)?;
        Ok(Self {
            meta,
            spec: InferenceServiceSpec { predictor, unsupported },
            status,
        })
    }
}

impl Component {
    fn parse(mut fields: Fields, unsupported: &mut Vec<String>) -> Result<Self, InvalidField> {
        for name in ["storageUris", "workerSpec", "logger", "batcher"] {
            if fields.has(name) {
                unsupported.push(fields.path(name));
                fields.take::<Value>(name)?;
            }
        }
        let mut implementations = 0;
        let mut legacy = None;
        for framework in LEGACY_FRAMEWORKS {
            if let Some(content) = fields.take_object(framework)? {
                implementations += 1;
                legacy = legacy.or(Some((framework, content.rest())));
            }
        }
        let model = match fields.take_object("model")? {
            Some(model) => {
                implementations += 1;
                Some(Model::parse(model, unsupported)?)
            }
            None => None,
        };
        let containers = fields.take_objects("containers")?;
        let named = containers
            .iter()
            .filter(|c| c.get("name").and_then(Value::as_str) == Some(crate::names::MODEL_CONTAINER));
        implementations += named.count();
        if implementations == 0 && !containers.is_empty() {
            implementations = 1;
        }
        let mut component = Self {
            min_replicas: fields.take("minReplicas")?,
            max_replicas: fields.take("maxReplicas")?,
            scale_target: fields.take("scaleTarget")?,
            scale_metric: fields.take("scaleMetric")?,
            auto_scaling: fields.take("autoScaling")?,
            timeout: fields.take("timeout")?,
            labels: fields.take("labels")?.unwrap_or_default(),
            annotations: fields.take("annotations")?.unwrap_or_default(),
            deployment_strategy: fields.take("deploymentStrategy")?,
            variant: fields.take("name")?,
            storage_container_name: fields.take("storageContainerName")?,
            model,
            legacy,
            implementations,
            containers,
            pod: Object::new(),
        };
        // Accepted and without effect in Standard mode, as in KServe.
        for name in ["scaleMetricType", "containerConcurrency", "canaryTrafficPercent"] {
            fields.take::<Value>(name)?;
        }
        component.pod = fields.rest();
        component.pod.retain(|_, value| !value.is_null());
        Ok(component)
    }
}

impl Model {
    /// Reads a framework object in its old field: the same shape without format and runtime.
    pub(crate) fn from_legacy(framework: &str, content: Object) -> Result<Self, InvalidField> {
        let fields = Fields::new(format!("spec.predictor.{framework}"), Value::Object(content))?;
        let mut model = Self::parse(fields, &mut Vec::new())?;
        framework.clone_into(&mut model.format);
        Ok(model)
    }

    fn parse(mut fields: Fields, unsupported: &mut Vec<String>) -> Result<Self, InvalidField> {
        for name in ["storage", "confidential"] {
            if fields.has(name) {
                unsupported.push(fields.path(name));
            }
        }
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
            has_storage: fields.take::<Value>("storage")?.is_some(),
            container: Object::new(),
        };
        fields.take::<Value>("confidential")?;
        model.container = fields.rest();
        model.container.retain(|_, value| !value.is_null());
        Ok(model)
    }
}
