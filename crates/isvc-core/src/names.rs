//! Every name the core derives or looks for: objects, labels, annotations, containers, volumes, field managers.
//!
//! Names of `KServe`'s own API are kept letter by letter, because users, dashboards and the storage-initializer
//! depend on them.

/// The field manager of every server-side apply, and the source of every Event.
pub const FIELD_MANAGER: &str = "leanserve";

/// API version of an `InferenceService`.
pub const INFERENCE_SERVICE_API_VERSION: &str = "serving.kserve.io/v1beta1";
/// Kind of an `InferenceService`.
pub const INFERENCE_SERVICE_KIND: &str = "InferenceService";
/// The finalizer that `KServe`'s controller adds. We never add it; we remove it when the service is deleted,
/// because nobody else would.
pub const KSERVE_FINALIZER: &str = "inferenceservice.finalizers";

/// Label on every child and Pod: the name of its `InferenceService`.
pub const LABEL_INFERENCE_SERVICE: &str = "serving.kserve.io/inferenceservice";
/// Label on every child and Pod: predictor, transformer or explainer.
pub const LABEL_COMPONENT: &str = "component";
/// Label on every child and Pod, and the selector of Deployments and Services.
pub const LABEL_APP: &str = "app";
/// Label with which a user keeps a service inside the cluster.
pub const LABEL_VISIBILITY: &str = "networking.kserve.io/visibility";
/// Value of [`LABEL_VISIBILITY`] that keeps a service inside the cluster.
pub const VISIBILITY_CLUSTER_LOCAL: &str = "cluster-local";
/// Label set in memory for `MLServer` runtimes, so that their placeholders find it.
pub const LABEL_MODEL_CLASS: &str = "modelClass";
/// Label set in memory for `TorchServe` runtimes, so that their placeholders find it.
pub const LABEL_SERVICE_ENVELOPE: &str = "serviceEnvelope";

/// Annotation: deployment mode (Standard, Knative, `ModelMesh` and their legacy names).
pub const ANNOTATION_DEPLOYMENT_MODE: &str = "serving.kserve.io/deploymentMode";
/// Annotation: who scales a component.
pub const ANNOTATION_AUTOSCALER_CLASS: &str = "serving.kserve.io/autoscalerClass";
/// Annotation: "true" stops the service and deletes its children.
pub const ANNOTATION_STOP: &str = "serving.kserve.io/stop";
/// Annotation: "true" freezes a Ready service.
pub const ANNOTATION_DISABLE_AUTO_UPDATE: &str = "serving.kserve.io/disable-auto-update";
/// Annotation: "false" mounts the model writable.
pub const ANNOTATION_STORAGE_READONLY: &str = "storage.kserve.io/readonly";
/// Annotation of a runtime: what kind of server it runs.
pub const ANNOTATION_SERVER_TYPE: &str = "serving.kserve.io/server-type";
/// Annotation that defaulting writes: the model format's name.
pub const ANNOTATION_MODEL_FORMAT: &str = "modelFormat";
/// Internal annotation on Pods: the URI the storage-initializer loads.
pub const ANNOTATION_SOURCE_URI: &str = "internal.serving.kserve.io/storage-initializer-sourceuri";
/// Internal annotation on Pods: the `ClusterStorageContainer` that was asked for.
pub const ANNOTATION_STORAGE_CONTAINER: &str = "internal.serving.kserve.io/storage-container-name";
/// Internal annotation on Pods: "true" when the model is described by `storage`.
pub const ANNOTATION_STORAGE_SPEC: &str = "internal.serving.kserve.io/storage-spec";
/// Internal annotation on Pods: the entry of the storage Secret.
pub const ANNOTATION_STORAGE_SPEC_KEY: &str = "internal.serving.kserve.io/storage-spec-key";
/// Internal annotation on Pods: the parameters of `storage`, as JSON.
pub const ANNOTATION_STORAGE_SPEC_PARAM: &str = "internal.serving.kserve.io/storage-spec-param";
/// Internal annotation on Pods: "true" when the model is encrypted.
pub const ANNOTATION_CONFIDENTIAL: &str = "internal.serving.kserve.io/confidential-enabled";
/// Internal annotation on Pods: where the key of an encrypted model is.
pub const ANNOTATION_CONFIDENTIAL_RESOURCE: &str = "internal.serving.kserve.io/confidential-resource-id";
/// Internal annotation on Pods: an agent of the old multi-model servers pulls the models.
pub const ANNOTATION_PULLING_AGENT: &str = "internal.serving.kserve.io/agent";
/// Annotation: the user the storage-initializer runs as, which Istio's CNI plugin needs to be the sidecar's.
pub const ANNOTATION_INITIALIZER_UID: &str = "serving.kserve.io/storage-initializer-uid";
/// Annotation on a `ServiceAccount`: the AWS role its Pods assume.
pub const ANNOTATION_ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
/// Annotation on Pods: whether metrics of all containers are collected in one place.
pub const ANNOTATION_METRIC_AGGREGATION: &str = "serving.kserve.io/enable-metric-aggregation";
/// Annotation on Pods: whether Prometheus annotations are wanted.
pub const ANNOTATION_PROMETHEUS_SCRAPING: &str = "serving.kserve.io/enable-prometheus-scraping";
/// Annotation of a runtime: the port of its metrics.
pub const ANNOTATION_METRICS_PORT: &str = "prometheus.kserve.io/port";
/// Annotation of a runtime: the path of its metrics.
pub const ANNOTATION_METRICS_PATH: &str = "prometheus.kserve.io/path";

/// The container that runs the model server.
pub const MODEL_CONTAINER: &str = "kserve-container";
/// A transformer that shares the predictor's Pod.
pub const TRANSFORMER_CONTAINER: &str = "transformer-container";
/// The container that logs and batches requests.
pub const AGENT_CONTAINER: &str = "agent";
/// The init container that downloads the model.
pub const STORAGE_INITIALIZER: &str = "storage-initializer";
/// The container of a node that works for the server on another one.
pub const WORKER_CONTAINER: &str = "worker-container";
/// The container that holds a model image's files open.
pub const MODELCAR: &str = "modelcar";
/// The init container that pulls a model image before the server starts.
pub const MODELCAR_INIT: &str = "modelcar-init";
/// The volume the storage-initializer fills.
pub const PROVISION_VOLUME: &str = "kserve-provision-location";
/// The volume of a `pvc://` model.
pub const PVC_VOLUME: &str = "kserve-pvc-source";
/// The volume of certificate authorities that storage is trusted by.
pub const CA_BUNDLE_VOLUME: &str = "cabundle-cert";
/// The volume with the credentials of the registry a model image is fetched from.
pub const OCI_FETCH_AUTH_VOLUME: &str = "kserve-oci-fetch-docker-config";
/// Stands for the scheme of a model that `storage` describes, until the storage Secret's entry tells it.
pub const SCHEME_PLACEHOLDER: &str = "<scheme-placeholder>";
/// Where containers find the model.
pub const MODEL_PATH: &str = "/mnt/models";
/// Environment variable that carries a custom container's model URI.
pub const ENV_STORAGE_URI: &str = "STORAGE_URI";
/// Environment variable with the service's name, on every predictor container.
pub const ENV_INFERENCE_SERVICE_NAME: &str = "INFERENCE_SERVICE_NAME";

/// Port at which the agent takes requests.
pub const AGENT_PORT: u16 = 9081;
/// The `ConfigMap` with certificate authorities in the namespaces of services.
pub const CA_BUNDLE_CONFIG_MAP: &str = "global-ca-bundle";
/// The key of its content, there and in the platform's own `ConfigMap`.
pub const CA_BUNDLE_KEY: &str = "cabundle.crt";

/// Name of the objects of one component: `<service>-predictor`, or `<service>-<variant>-predictor`.
#[must_use]
pub fn component_object(service: &str, variant: Option<&str>, component: &str) -> String {
    match variant {
        Some(variant) if !variant.is_empty() => format!("{service}-{variant}-{component}"),
        _ => format!("{service}-{component}"),
    }
}

/// Value of [`LABEL_APP`] for the objects named `object`.
#[must_use]
pub fn app_label(object: &str) -> String {
    format!("isvc.{object}")
}
