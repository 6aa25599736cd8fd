//! The values that `KServe` ships, as documents in the `ConfigMap`'s own form.
//!
//! Facts from the manifests of `KServe`'s release line v0.20. A data key that is absent from the platform's `ConfigMap`
//! and whose fields have no usable default (quantities must be set) takes its document from here too.

/// Data key `storageInitializer`.
pub(super) const STORAGE_INITIALIZER: &str = r#"{
    "image": "kserve/storage-initializer:latest",
    "memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1",
    "caBundleConfigMapName": "", "caBundleVolumeMountPath": "/etc/ssl/custom-certs",
    "enableModelcar": true, "cpuModelcar": "10m", "memoryModelcar": "15Mi", "uidModelcar": 1010
}"#;

/// Data key `logger`.
pub(super) const LOGGER: &str = r#"{
    "image": "kserve/agent:latest",
    "memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1",
    "defaultUrl": "http://default-broker"
}"#;

/// Data key `batcher`.
pub(super) const BATCHER: &str = r#"{
    "image": "kserve/agent:latest",
    "memoryRequest": "1Gi", "memoryLimit": "1Gi", "cpuRequest": "1", "cpuLimit": "1",
    "maxBatchSize": "32", "maxLatency": "5000"
}"#;

/// Data key `agent`.
pub(super) const AGENT: &str = r#"{
    "image": "kserve/agent:latest",
    "memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"
}"#;

/// Data key `explainers`.
pub(super) const EXPLAINERS: &str = r#"{"art": {"image": "kserve/art-explainer", "defaultImageVersion": "latest"}}"#;

/// Data key `opentelemetryCollector`.
pub(super) const OPEN_TELEMETRY: &str = r#"{
    "scrapeInterval": "5s",
    "metricReceiverEndpoint": "keda-otel-scaler.keda.svc:4317",
    "metricScalerEndpoint": "keda-otel-scaler.keda.svc:4318"
}"#;

/// The whole `ConfigMap`.
pub(super) const DATA: [(&str, &str); 13] = [
    ("deploy", r#"{"defaultDeploymentMode": "Standard"}"#),
    ("ingress", r#"{"disableIngressCreation": false}"#),
    ("storageInitializer", STORAGE_INITIALIZER),
    (
        "credentials",
        r#"{
            "storageSpecSecretName": "storage-config",
            "storageSecretNameAnnotation": "serving.kserve.io/storageSecretName",
            "gcs": {"gcsCredentialFileName": "gcloud-application-credentials.json"},
            "s3": {"s3AccessKeyIDName": "AWS_ACCESS_KEY_ID", "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY"}
        }"#,
    ),
    (
        "inferenceService",
        r#"{"resource": {"cpuLimit": "1", "memoryLimit": "2Gi", "cpuRequest": "1", "memoryRequest": "2Gi"}}"#,
    ),
    ("security", r#"{"autoMountServiceAccountToken": true}"#),
    (
        "autoscaler",
        r#"{"scaleUpStabilizationWindowSeconds": "0", "scaleDownStabilizationWindowSeconds": "300"}"#,
    ),
    ("logger", LOGGER),
    ("batcher", BATCHER),
    ("agent", AGENT),
    (
        "metricsAggregator",
        r#"{"enableMetricAggregation": "false", "enablePrometheusScraping": "false"}"#,
    ),
    ("explainers", EXPLAINERS),
    ("opentelemetryCollector", OPEN_TELEMETRY),
];
