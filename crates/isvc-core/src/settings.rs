//! Platform settings: the `ConfigMap` `inferenceservice-config` that platform teams share between controllers.
//!
//! Every value of the `ConfigMap` is a JSON document in a string. Field names inside a document match without regard to
//! case, because maps in the field hold both `caBundleConfigMapName` and `CaBundleConfigMapName`; where a document
//! has several spellings of one field the exact one wins. Unknown data keys, unknown fields and `_example` are
//! ignored.
//!
//! [`Settings::parse`] takes the whole `ConfigMap` or nothing, so that its caller can keep the last good settings.

use std::collections::BTreeMap;

use thiserror::Error;

mod built_in;
mod fields;
mod ingress;
mod sidecar;
mod storage;

use fields::Fields;
pub use ingress::{GatewayRef, HostError, Ingress, PathError};
pub use sidecar::{Agent, ArtExplainer, Batcher, Logger, LoggerStorage, MetricsAggregator, OpenTelemetry};
pub use storage::{Credentials, OciModelMode, S3Credentials, StorageInitializer};

/// Annotations that never reach the objects made for a service, whatever the configured list says.
///
/// They apply only where the data key `inferenceService` exists: without it nothing is filtered.
pub const DISALLOWED_ANNOTATIONS: [&str; 5] = [
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "internal.serving.kserve.io/storage-initializer-sourceuri",
    "kubectl.kubernetes.io/last-applied-configuration",
    "modelFormat",
];

/// Labels that never reach the routes made for a service; like [`DISALLOWED_ANNOTATIONS`].
pub const DISALLOWED_LABELS: [&str; 1] = ["networking.knative.dev/visibility"];

/// Why the `ConfigMap` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("ConfigMap inferenceservice-config, {}: {problem}; {remedy}", place(key, field.as_deref()))]
pub struct SettingsError {
    key: String,
    field: Option<String>,
    problem: String,
    remedy: String,
}

fn place(key: &str, field: Option<&str>) -> String {
    match field {
        Some(field) => format!("key {key}, field {field}"),
        None => format!("key {key}"),
    }
}

impl SettingsError {
    /// The key of the `ConfigMap`'s data.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The path of the field inside the JSON document, if the error is about one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What is wrong, in the words `KServe` uses where it reports the same problem.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// All platform settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Data key `deploy`.
    pub deploy: Deploy,
    /// Data key `ingress`.
    pub ingress: Ingress,
    /// Data key `storageInitializer`.
    pub storage_initializer: StorageInitializer,
    /// Data key `credentials`.
    pub credentials: Credentials,
    /// Data key `inferenceService`.
    pub inference_service: InferenceServiceDefaults,
    /// Data key `security`.
    pub security: Security,
    /// Data key `service`.
    pub service: ServiceDefaults,
    /// Data key `autoscaler`.
    pub autoscaler: Autoscaler,
    /// Data key `logger`.
    pub logger: Logger,
    /// Data key `batcher`.
    pub batcher: Batcher,
    /// Data key `agent`.
    pub agent: Agent,
    /// Data key `metricsAggregator`.
    pub metrics_aggregator: MetricsAggregator,
    /// The part `art` of data key `explainers`.
    pub art_explainer: ArtExplainer,
    /// Data key `opentelemetryCollector`.
    pub open_telemetry: OpenTelemetry,
}

/// How workloads are deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The mode of services that do not choose one.
    pub default_deployment_mode: DeploymentMode,
    /// Rolling update settings of Deployments that do not bring their own; a field that is unset here keeps the API
    /// server's default.
    pub default_rollout: Option<Rollout>,
}

/// A deployment mode. Only [`DeploymentMode::Standard`] is served by this operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentMode {
    /// Plain Deployments and Services; formerly `RawDeployment`.
    Standard,
    /// Knative Services; formerly `Serverless`.
    Knative,
    /// The multi-model server `ModelMesh`.
    ModelMesh,
}

impl DeploymentMode {
    /// Reads a mode under its present or its former name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Standard" | "RawDeployment" => Some(Self::Standard),
            "Knative" | "Serverless" => Some(Self::Knative),
            "ModelMesh" => Some(Self::ModelMesh),
            _ => None,
        }
    }

    /// The present name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "Standard",
            Self::Knative => "Knative",
            Self::ModelMesh => "ModelMesh",
        }
    }
}

/// Rolling update settings, as written: a count (`1`) or a percentage (`25%`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Pods above the wanted number during an update.
    pub max_surge: Option<String>,
    /// Pods that may be missing during an update.
    pub max_unavailable: Option<String>,
}

/// Defaults and filters for services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceServiceDefaults {
    /// Resources of model containers that set none; absent if the data key or the field is.
    pub resource: Option<OptionalResources>,
    /// Annotations of a service that its objects do not get; empty without the data key, else with
    /// [`DISALLOWED_ANNOTATIONS`] first.
    pub annotation_disallowed_list: Vec<String>,
    /// Labels of a service that its routes do not get; empty without the data key, else with [`DISALLOWED_LABELS`]
    /// first.
    pub label_disallowed_list: Vec<String>,
}

impl InferenceServiceDefaults {
    /// Whether objects of a service never get an annotation.
    #[must_use]
    pub fn disallows_annotation(&self, key: &str) -> bool {
        self.annotation_disallowed_list.iter().any(|known| known == key)
    }

    /// The annotations that objects of a service get.
    pub fn allowed_annotations(&self, map: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
        allowed(&self.annotation_disallowed_list, map)
    }

    /// The labels that routes of a service get.
    pub fn allowed_labels(&self, map: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
        allowed(&self.label_disallowed_list, map)
    }
}

fn allowed(disallowed: &[String], map: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    map.iter()
        .filter(|(key, _)| !disallowed.contains(key))
        .map(|(key, value)| (key.clone(), value.clone()))
}

/// Canonical quantities of a container, each of which may be unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionalResources {
    /// CPU request.
    pub cpu_request: Option<String>,
    /// CPU limit.
    pub cpu_limit: Option<String>,
    /// Memory request.
    pub memory_request: Option<String>,
    /// Memory limit.
    pub memory_limit: Option<String>,
}

/// Canonical quantities of a container, all set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// CPU request.
    pub cpu_request: String,
    /// CPU limit.
    pub cpu_limit: String,
    /// Memory request.
    pub memory_request: String,
    /// Memory limit.
    pub memory_limit: String,
}

/// Pod security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// Whether Pods that do not say get a `ServiceAccount` token. False when unset.
    pub auto_mount_service_account_token: bool,
}

/// Defaults for Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDefaults {
    /// Whether Services are headless.
    pub service_cluster_ip_none: bool,
}

/// Stabilisation windows of KEDA scaling, in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoscaler {
    /// Seconds to look back before scaling up; 0 when unset.
    pub scale_up_stabilization_window_seconds: i32,
    /// Seconds to look back before scaling down; 300 when unset.
    pub scale_down_stabilization_window_seconds: i32,
}

impl Settings {
    /// Reads the data of the `ConfigMap`.
    ///
    /// # Errors
    ///
    /// The first problem found, with the data key, the field and what to do about it. Nothing is taken from a
    /// `ConfigMap` with a problem.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let deploy = Fields::of(data, "deploy")?;
        let inference_service = Fields::of(data, "inferenceService")?;
        let explainers = Fields::of_or(data, "explainers", built_in::EXPLAINERS)?;
        Ok(Self {
            deploy: read_deploy(deploy.as_ref())?,
            ingress: Ingress::read(&Fields::of_or(data, "ingress", "{}")?)?,
            storage_initializer: StorageInitializer::read(&Fields::of_or(
                data,
                "storageInitializer",
                built_in::STORAGE_INITIALIZER,
            )?)?,
            credentials: Credentials::read(&Fields::of_or(data, "credentials", "{}")?)?,
            inference_service: read_inference_service(inference_service.as_ref())?,
            security: Security {
                auto_mount_service_account_token: Fields::of_or(data, "security", "{}")?
                    .flag("autoMountServiceAccountToken")?,
            },
            service: ServiceDefaults {
                service_cluster_ip_none: Fields::of_or(data, "service", "{}")?.flag("serviceClusterIPNone")?,
            },
            autoscaler: read_autoscaler(&Fields::of_or(data, "autoscaler", "{}")?)?,
            logger: Logger::read(&Fields::of_or(data, "logger", built_in::LOGGER)?)?,
            batcher: Batcher::read(&Fields::of_or(data, "batcher", built_in::BATCHER)?)?,
            agent: Agent::read(&Fields::of_or(data, "agent", built_in::AGENT)?)?,
            metrics_aggregator: MetricsAggregator::read(&Fields::of_or(data, "metricsAggregator", "{}")?)?,
            art_explainer: ArtExplainer::read(&explainers.section("art")?)?,
            open_telemetry: OpenTelemetry::read(&Fields::of_or(
                data,
                "opentelemetryCollector",
                built_in::OPEN_TELEMETRY,
            )?)?,
        })
    }

    /// The settings where there is no `ConfigMap`: the values that `KServe` ships, with deployment mode Standard and
    /// routes switched on.
    ///
    /// # Panics
    ///
    /// Never: the documents are constants that a test parses.
    #[must_use]
    pub fn built_in() -> Self {
        let data = built_in::DATA
            .iter()
            .map(|(key, json)| ((*key).to_owned(), (*json).to_owned()))
            .collect();
        Self::parse(&data).expect("the built-in documents are valid, which a test checks")
    }
}

fn read_deploy(fields: Option<&Fields<'_>>) -> Result<Deploy, SettingsError> {
    let Some(fields) = fields else {
        return Ok(Deploy {
            default_deployment_mode: DeploymentMode::Standard,
            default_rollout: None,
        });
    };
    let text = fields.text("defaultDeploymentMode")?.unwrap_or_default();
    let mode = DeploymentMode::parse(text).ok_or_else(|| {
        fields.error(
            "defaultDeploymentMode",
            "invalid deployment mode. Supported modes are Knative, Standard and ModelMesh",
            "set it to Standard",
        )
    })?;
    let strategy = fields.section("deploymentRolloutStrategy")?;
    let rollout = strategy.section("defaultRollout")?;
    let rollout = Rollout {
        max_surge: rollout_value(&rollout, "maxSurge")?,
        max_unavailable: rollout_value(&rollout, "maxUnavailable")?,
    };
    let set = rollout.max_surge.is_some() || rollout.max_unavailable.is_some();
    Ok(Deploy {
        default_deployment_mode: mode,
        default_rollout: set.then_some(rollout),
    })
}

/// A count or a percentage of Pods.
fn rollout_value(fields: &Fields<'_>, name: &str) -> Result<Option<String>, SettingsError> {
    let Some(text) = fields.text(name)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let count = text.strip_suffix('%').unwrap_or(text);
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) || count.parse::<i32>().is_err() {
        return Err(fields.error(
            name,
            &format!("{text:?} is neither a number of Pods nor a percentage"),
            "write it like \"1\" or \"25%\"",
        ));
    }
    Ok(Some(text.to_owned()))
}

fn read_inference_service(fields: Option<&Fields<'_>>) -> Result<InferenceServiceDefaults, SettingsError> {
    let Some(fields) = fields else {
        return Ok(InferenceServiceDefaults {
            resource: None,
            annotation_disallowed_list: Vec::new(),
            label_disallowed_list: Vec::new(),
        });
    };
    let with = |built_in: &[&str], configured: Vec<String>| {
        built_in
            .iter()
            .map(|name| (*name).to_owned())
            .chain(configured)
            .collect()
    };
    Ok(InferenceServiceDefaults {
        resource: if fields.has("resource")? {
            Some(fields.section("resource")?.optional_resources()?)
        } else {
            None
        },
        annotation_disallowed_list: with(
            &DISALLOWED_ANNOTATIONS,
            fields.texts("serviceAnnotationDisallowedList")?,
        ),
        label_disallowed_list: with(&DISALLOWED_LABELS, fields.texts("serviceLabelDisallowedList")?),
    })
}

fn read_autoscaler(fields: &Fields<'_>) -> Result<Autoscaler, SettingsError> {
    Ok(Autoscaler {
        scale_up_stabilization_window_seconds: window(fields, "scaleUpStabilizationWindowSeconds", 0)?,
        scale_down_stabilization_window_seconds: window(fields, "scaleDownStabilizationWindowSeconds", 300)?,
    })
}

/// A window in seconds, written as a string. autoscaling/v2 allows an hour at most.
fn window(fields: &Fields<'_>, name: &str, default: i32) -> Result<i32, SettingsError> {
    let Some(text) = fields.text(name)?.filter(|text| !text.is_empty()) else {
        return Ok(default);
    };
    text.parse()
        .ok()
        .filter(|seconds| (0..=3600).contains(seconds))
        .ok_or_else(|| {
            fields.error(
                name,
                &format!("{text:?} is not a number of seconds between 0 and 3600"),
                "write it as a string such as \"300\"",
            )
        })
}
