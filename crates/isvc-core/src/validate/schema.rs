//! What the schema of `KServe`'s full definition refuses of the fields that are read here. Its minimal definition, which
//! many clusters have, accepts anything.

use serde_json::Value;

use super::{INVALID_SPEC, NAME, scaling::quantity};
use crate::{
    api::{
        Component, InferenceService,
        component::{ExternalMetric, MetricSpec, MetricTarget},
    },
    rejection::Rejection,
};

/// Longest path of a model in a Pod.
const MAX_MOUNT_PATH: usize = 255;

/// A field's path in the object and what the API server says of it.
type Problem = (String, String);

pub(super) fn check(service: &InferenceService) -> Result<(), Rejection> {
    for part in service.spec.workloads() {
        component(part).map_err(|(field, problem)| {
            let message = format!("{field}: {problem}");
            let name = &service.meta.name;
            Rejection::new(INVALID_SPEC, message.clone())
                .event(format!(
                    "InferenceService.serving.kserve.io \"{name}\" is invalid: {message}"
                ))
                .model_failure("InvalidPredictorSpec", message)
        })?;
    }
    Ok(())
}

fn component(component: &Component) -> Result<(), Problem> {
    // The name of a variant of the predictor is told of among the rules about variants.
    if let Some(variant) = component.variant.as_ref().filter(|_| component.canary.is_none())
        && !NAME.is_match(variant)
    {
        return mismatch(component.field("name"), variant, NAME.as_str());
    }
    if let Some(metric) = &component.scale_metric {
        one_of(
            component.field("scaleMetric"),
            metric,
            &["cpu", "memory", "concurrency", "rps"],
        )?;
    }
    if let Some(mode) = component.logger.as_ref().and_then(|logger| logger.mode.as_deref())
        && !mode.is_empty()
    {
        one_of(component.field("logger.mode"), mode, &["all", "request", "response"])?;
    }
    for (index, entry) in component.storage_uris.iter().enumerate() {
        let field = |name: &str| component.field(&format!("storageUris[{index}].{name}"));
        if entry.uri.is_empty() {
            let field = field("uri");
            let problem = format!("Invalid value: \"\": {field} in body should be at least 1 chars long");
            return Err((field, problem));
        }
        let Some(path) = &entry.mount_path else { continue };
        if !path.starts_with('/') {
            return mismatch(field("mountPath"), path, "^/.*");
        }
        if path.chars().count() > MAX_MOUNT_PATH {
            let problem = format!("Too long: may not be more than {MAX_MOUNT_PATH} bytes");
            return Err((field("mountPath"), problem));
        }
    }
    let scaling = component.auto_scaling.as_ref();
    for (index, found) in scaling
        .into_iter()
        .flat_map(|scaling| scaling.metrics.iter().enumerate())
    {
        metric(&component.field(&format!("autoScaling.metrics[{index}]")), found)?;
    }
    Ok(())
}

fn metric(field: &str, metric: &MetricSpec) -> Result<(), Problem> {
    one_of(
        format!("{field}.type"),
        &metric.type_,
        &["Resource", "External", "PodMetric"],
    )?;
    if let Some(resource) = &metric.resource {
        one_of(format!("{field}.resource.name"), &resource.name, &["cpu", "memory"])?;
        target(&format!("{field}.resource.target"), &resource.target)?;
    }
    for (name, found, backends) in [
        ("external", &metric.external, &["prometheus", "graphite"][..]),
        ("podmetric", &metric.pod_metric, &["opentelemetry"][..]),
    ] {
        if let Some(found) = found {
            monitoring(&format!("{field}.{name}"), found, backends)?;
        }
    }
    Ok(())
}

fn monitoring(field: &str, metric: &ExternalMetric, backends: &[&str]) -> Result<(), Problem> {
    let backend = &metric.metric.backend;
    if !backend.is_empty() {
        one_of(format!("{field}.metric.backend"), backend, backends)?;
    }
    target(&format!("{field}.target"), &metric.target)
}

fn target(field: &str, target: &MetricTarget) -> Result<(), Problem> {
    if !target.type_.is_empty() {
        let types = ["Utilization", "Value", "AverageValue"];
        one_of(format!("{field}.type"), &target.type_, &types)?;
    }
    for (name, found) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(found) = found
            && quantity(found).is_none()
        {
            let shown = shown(found);
            return Err((
                format!("{field}.{name}"),
                format!("Invalid value: {shown}: is not a quantity; write it like 500m, 2.5 or 2Gi"),
            ));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn one_of(field: String, value: &str, known: &[&str]) -> Result<(), Problem> {
    if known.contains(&value) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|value| format!("\"{value}\"")).collect();
    let problem = format!("Unsupported value: \"{value}\": supported values: {}", known.join(", "));
    Err((field, problem))
}

fn mismatch(field: String, value: &str, pattern: &str) -> Result<(), Problem> {
    let problem = format!("Invalid value: \"{value}\": {field} in body should match '{pattern}'");
    Err((field, problem))
}
