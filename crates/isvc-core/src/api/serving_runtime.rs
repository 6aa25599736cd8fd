//! `ServingRuntime` and `ClusterServingRuntime`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    InvalidField, Meta, Object,
    fields::{Fields, without_null},
};

/// Where a runtime lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A `ServingRuntime`, usable in its own namespace.
    Namespace,
    /// A `ClusterServingRuntime`.
    Cluster,
}

impl Scope {
    /// The kind of runtimes of this scope.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Namespace => "ServingRuntime",
            Self::Cluster => "ClusterServingRuntime",
        }
    }
}

/// A model format a runtime supports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SupportedModelFormat {
    /// Name, compared letter by letter.
    pub name: String,
    /// Version, compared letter by letter.
    pub version: Option<String>,
    /// Whether automatic selection may choose this entry.
    pub auto_select: Option<bool>,
    /// Higher is chosen first.
    pub priority: Option<i32>,
}

/// A `ServingRuntime` or `ClusterServingRuntime`.
#[derive(Clone, Debug)]
pub struct ServingRuntime {
    /// Metadata.
    pub meta: Meta,
    /// Which of the two kinds it is.
    pub scope: Scope,
    /// Formats, in order.
    pub supported_model_formats: Vec<SupportedModelFormat>,
    /// Protocols; empty means any.
    pub protocol_versions: Vec<String>,
    /// Disabled runtimes are never used.
    pub disabled: bool,
    /// Runtimes for many models in one server are never chosen automatically.
    pub multi_model: bool,
    /// Whether the runtime has a worker Pod for multi-node serving.
    pub has_worker: bool,
    /// Labels for the component's objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations for the component's objects and Pods.
    pub annotations: BTreeMap<String, String>,
    /// core/v1 Containers.
    pub containers: Vec<Value>,
    /// The Pod fields a runtime may set: volumes, nodeSelector, affinity, tolerations, imagePullSecrets,
    /// schedulerName, resourceClaims.
    pub pod: Object,
}

const POD_FIELDS: [&str; 7] = [
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "resourceClaims",
    "schedulerName",
    "tolerations",
    "volumes",
];

impl ServingRuntime {
    /// Reads a runtime's `spec`.
    ///
    /// # Errors
    /// [`InvalidField`] names the first field that cannot be read.
    pub fn parse(scope: Scope, meta: Meta, spec: Value) -> Result<Self, InvalidField> {
        let mut fields = Fields::new("spec", without_null(spec))?;
        let mut runtime = Self {
            meta,
            scope,
            supported_model_formats: fields.take("supportedModelFormats")?.unwrap_or_default(),
            protocol_versions: fields.take("protocolVersions")?.unwrap_or_default(),
            disabled: fields.take("disabled")?.unwrap_or_default(),
            multi_model: fields.take("multiModel")?.unwrap_or_default(),
            has_worker: fields.has("workerSpec"),
            labels: fields.take("labels")?.unwrap_or_default(),
            annotations: fields.take("annotations")?.unwrap_or_default(),
            containers: fields.take_objects("containers")?,
            pod: Object::new(),
        };
        runtime.pod = fields.rest();
        runtime
            .pod
            .retain(|name, value| POD_FIELDS.contains(&name.as_str()) && !value.is_null());
        Ok(runtime)
    }
}
