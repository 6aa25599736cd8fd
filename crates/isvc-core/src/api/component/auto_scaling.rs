//! What a component scales by.

use serde::Deserialize;
use serde_json::Value;

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
