//! What a specification says without effect.

use std::collections::BTreeMap;

use crate::{
    api::{Component, InferenceService},
    names,
    resolve::specified_uri,
};

/// Annotations that older samples carry and nothing reads in Standard mode.
const DEAD_ANNOTATIONS: [(&str, &str); 3] = [
    ("serving.kserve.io/metrics", "set scaleMetric or autoScaling instead"),
    (
        "serving.kserve.io/targetUtilizationPercentage",
        "set scaleTarget or autoScaling instead",
    ),
    (
        "serving.kserve.io/enable-tag-routing",
        "Standard mode has no routes by tag",
    ),
];

/// What is accepted, as `KServe` accepts it, and does nothing in Standard mode; each a sentence that names the field.
#[must_use]
pub fn warnings(service: &InferenceService) -> Vec<String> {
    let mut found = dead("metadata.annotations", &service.meta.annotations);
    // Of a variant only what its entry says: what it takes over from the predictor is told there.
    let variants = service.spec.canaries.iter().map(|canary| &canary.given);
    for component in service.spec.components().chain(variants) {
        found.extend(dead(&component.field("annotations"), &component.annotations));
        found.extend(fields(component));
        found.extend(metric(service, component));
    }
    found.extend(confidential(&service.spec.predictor));
    found
}

fn dead(field: &str, annotations: &BTreeMap<String, String>) -> Vec<String> {
    DEAD_ANNOTATIONS
        .iter()
        .filter(|(key, _)| annotations.contains_key(*key))
        .map(|(key, instead)| format!("{field}[{key}]: has no effect in Standard mode; {instead}"))
        .collect()
}

/// Fields that nothing reads.
fn fields(component: &Component) -> impl Iterator<Item = String> {
    let timeout = component.batcher.as_ref().and_then(|batcher| batcher.timeout);
    let storage = component.art.as_ref().and_then(|art| art.storage.as_ref());
    [
        (
            component.canary_traffic_percent.is_some(),
            "canaryTrafficPercent",
            "has no effect in Standard mode; all traffic goes to the latest specification",
        ),
        (
            component.scale_metric_type.is_some(),
            "scaleMetricType",
            "has no effect in Standard mode; say the type in autoScaling.metrics",
        ),
        (
            timeout.is_some(),
            "batcher.timeout",
            "has no effect; maxLatency says how long a batch may wait",
        ),
        (
            storage.is_some(),
            "art.storage",
            "has no effect; set storageUri instead",
        ),
    ]
    .into_iter()
    .filter(|(given, ..)| *given)
    .map(|(_, field, problem)| format!("{}: {problem}", component.field(field)))
}

/// The `HorizontalPodAutoscaler` knows nothing of requests.
fn metric(service: &InferenceService, component: &Component) -> Option<String> {
    let key = names::ANNOTATION_AUTOSCALER_CLASS;
    let of_component = component.annotations.get(key).map(String::as_str);
    let class = of_component.or_else(|| service.meta.annotation(key)).unwrap_or("hpa");
    let metric = component.scale_metric.as_deref()?;
    let counts = class == "hpa" && component.auto_scaling.is_none();
    (counts && matches!(metric, "concurrency" | "rps")).then(|| {
        format!(
            "{}: {metric} has no effect in Standard mode; replicas follow cpu at 80 %",
            component.field("scaleMetric")
        )
    })
}

fn confidential(predictor: &Component) -> Option<String> {
    let confidential = predictor.model.as_ref()?.confidential.as_ref()?;
    let uri = specified_uri(predictor)?;
    let unread = uri.starts_with("oci") || uri.starts_with("pvc://");
    (confidential.enabled && unread).then(|| {
        format!(
            "{}: the model at {uri} is mounted as it is; only a model that is downloaded is decrypted",
            predictor.field("model.confidential")
        )
    })
}
