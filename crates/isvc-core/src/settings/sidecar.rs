//! Containers and values that serve a model without being its server: agent, logger, batcher, explainer, telemetry.

use std::collections::BTreeMap;

use super::{OptionalResources, Resources, SettingsError, fields::Fields};

const AGENT_IMAGE: &str = "kserve/agent:latest";

/// The agent sidecar. Its image and resources also serve logging and batching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its image; `kserve/agent:latest` when unset.
    pub image: String,
    /// Its resources.
    pub resources: Resources,
}

impl Agent {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            image: fields.text_or("image", AGENT_IMAGE)?,
            resources: fields.resources()?,
        })
    }
}

/// Payload logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logger {
    /// Image; `kserve/agent:latest` when unset. The agent's settings decide what runs.
    pub image: String,
    /// Resources; the agent's settings decide what runs.
    pub resources: Resources,
    /// Sink of services that name none.
    pub default_url: String,
    /// `ConfigMap` with the sink's certificate authority.
    pub ca_bundle: Option<String>,
    /// File in that `ConfigMap`.
    pub ca_cert_file: Option<String>,
    /// Whether the sink's certificate is taken unseen.
    pub tls_skip_verify: bool,
    /// Storage for payloads of services that name none.
    pub storage: Option<LoggerStorage>,
    /// Service that turns payloads into files.
    pub marshaller_url: Option<String>,
    /// Payloads in one batch.
    pub batch_size: Option<i64>,
    /// Longest wait for a batch, a duration such as `3s`.
    pub batch_interval: Option<String>,
}

/// Where payloads are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerStorage {
    /// Path in the bucket.
    pub path: Option<String>,
    /// Parameters of the storage back end.
    pub parameters: BTreeMap<String, String>,
    /// Entry of the storage Secret.
    pub key: Option<String>,
    /// `ServiceAccount` whose credentials are used.
    pub service_account_name: Option<String>,
}

impl Logger {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        let storage = if fields.has("storage")? {
            let storage = fields.section("storage")?;
            Some(LoggerStorage {
                path: storage.some_text("path")?,
                parameters: storage.text_map("parameters")?,
                key: storage.some_text("key")?,
                service_account_name: storage.some_text("serviceAccountName")?,
            })
        } else {
            None
        };
        Ok(Self {
            image: fields.text_or("image", AGENT_IMAGE)?,
            resources: fields.resources()?,
            default_url: fields.text_or("defaultUrl", "")?,
            ca_bundle: fields.some_text("caBundle")?,
            ca_cert_file: fields.some_text("caCertFile")?,
            tls_skip_verify: fields.flag("tlsSkipVerify")?,
            storage,
            marshaller_url: fields.some_text("marshallerUrl")?,
            batch_size: fields.integer("batchSize")?,
            batch_interval: fields.some_text("batchInterval")?,
        })
    }
}

/// Request batching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batcher {
    /// Image; `kserve/agent:latest` when unset. The agent's settings decide what runs.
    pub image: String,
    /// Resources; the agent's settings decide what runs.
    pub resources: Resources,
    /// Largest batch. Has no effect in Standard mode.
    pub max_batch_size: Option<String>,
    /// Longest wait in milliseconds. Has no effect in Standard mode.
    pub max_latency: Option<String>,
}

impl Batcher {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            image: fields.text_or("image", AGENT_IMAGE)?,
            resources: fields.resources()?,
            max_batch_size: fields.some_text("maxBatchSize")?,
            max_latency: fields.some_text("maxLatency")?,
        })
    }
}

/// Metrics annotations of Pods that bring none. The texts are written as they are, the empty text included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsAggregator {
    /// Value of `serving.kserve.io/enable-metric-aggregation`.
    pub enable_metric_aggregation: String,
    /// Value of `serving.kserve.io/enable-prometheus-scraping`.
    pub enable_prometheus_scraping: String,
}

impl MetricsAggregator {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            enable_metric_aggregation: fields.text_or("enableMetricAggregation", "")?,
            enable_prometheus_scraping: fields.text_or("enablePrometheusScraping", "")?,
        })
    }
}

/// The image of ART explainers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtExplainer {
    /// Image without tag; `kserve/art-explainer` when unset.
    pub image: String,
    /// Tag of explainers that name none; `latest` when unset.
    pub default_image_version: String,
}

impl ArtExplainer {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            image: fields.text_or("image", "kserve/art-explainer")?,
            default_image_version: fields.text_or("defaultImageVersion", "latest")?,
        })
    }
}

/// The OpenTelemetry collector that feeds scaling by model metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// Time between scrapes; `5s` when unset.
    pub scrape_interval: String,
    /// Where metrics are sent to.
    pub metric_receiver_endpoint: String,
    /// Where the scaler asks for metrics.
    pub metric_scaler_endpoint: String,
    /// Resources of the collector.
    pub resource: OptionalResources,
}

impl OpenTelemetry {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            scrape_interval: fields.text_or("scrapeInterval", "5s")?,
            metric_receiver_endpoint: fields.text_or("metricReceiverEndpoint", "keda-otel-scaler.keda.svc:4317")?,
            metric_scaler_endpoint: fields.text_or("metricScalerEndpoint", "keda-otel-scaler.keda.svc:4318")?,
            resource: fields.section("resource")?.optional_resources()?,
        })
    }
}
