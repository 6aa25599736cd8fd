//! Rules about scaling. They hold where the service itself names a class; one that a component names is not looked at,
//! as in `KServe`, and what cannot be built of it is found when it is resolved.

use std::sync::LazyLock;

use serde_json::Value;

use super::invalid;
use crate::{
    api::{
        Component,
        component::{ExternalMetric, MetricSpec, MetricTarget, ResourceMetric},
    },
    quantity::Quantity,
    rejection::Rejection,
};

const PERCENTAGE: &str = "the target utilization percentage should be a [1-100] integer";

/// The least memory KEDA may be asked to hold.
static MEBIBYTE: LazyLock<Quantity> = LazyLock::new(|| Quantity::parse("1Mi").expect("the text is a quantity"));

/// What is wrong, below the component.
type Problem = (String, String);

pub(super) fn check(class: Option<&str>, component: &Component) -> Result<(), Rejection> {
    let found = match class {
        Some("hpa") => horizontal(component),
        Some("keda") => keda(component),
        _ => Ok(()),
    };
    found.map_err(|(field, message)| invalid(&component.field(&field), message))
}

fn problem<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Problem> {
    Err((field.into(), message.into()))
}

fn metrics(component: &Component) -> impl Iterator<Item = (String, &MetricSpec)> {
    let scaling = component.auto_scaling.as_ref();
    let metrics = scaling
        .into_iter()
        .flat_map(|scaling| scaling.metrics.iter().enumerate());
    metrics.map(|(index, metric)| (format!("autoScaling.metrics[{index}]"), metric))
}

fn resource<'a>(field: &str, metric: &'a MetricSpec) -> Result<&'a ResourceMetric, Problem> {
    let missing = || {
        (
            format!("{field}.resource"),
            "metricSpec.Resource is not set for resource metric source type".to_owned(),
        )
    };
    metric.resource.as_ref().ok_or_else(missing)
}

fn horizontal(component: &Component) -> Result<(), Problem> {
    let metric = component.scale_metric.as_deref().filter(|metric| !metric.is_empty());
    let metric = metric.unwrap_or("cpu");
    if !matches!(metric, "cpu" | "memory") {
        return problem("scaleMetric", format!("[{metric}] is not a supported metric"));
    }
    match component.scale_target {
        Some(target) if metric == "memory" && target < 1 => {
            return problem("scaleTarget", "the target memory should be greater than 1 MiB");
        }
        Some(target) if !(1..=100).contains(&target) => return problem("scaleTarget", PERCENTAGE),
        _ => {}
    }
    for (field, metric) in metrics(component) {
        if metric.type_ != "Resource" {
            return problem(
                format!("{field}.type"),
                format!(
                    "invalid HPA metric source type with value [{}],valid metric source types are Resource",
                    metric.type_
                ),
            );
        }
        resource(&field, metric)?;
    }
    Ok(())
}

fn keda(component: &Component) -> Result<(), Problem> {
    if component.scale_metric.is_some() {
        return problem("scaleMetric", "ScaleMetric is not supported for KEDA");
    }
    for (field, metric) in metrics(component) {
        match metric.type_.as_str() {
            "Resource" => of_resource(&format!("{field}.resource"), resource(&field, metric)?)?,
            "External" => monitoring(&format!("{field}.external"), metric.external.as_ref())?,
            "PodMetric" => monitoring(&format!("{field}.podmetric"), metric.pod_metric.as_ref())?,
            other => {
                return problem(
                    format!("{field}.type"),
                    format!("[{other}] is not a metric source type KEDA can use; use Resource or External"),
                );
            }
        }
    }
    Ok(())
}

fn of_resource(field: &str, metric: &ResourceMetric) -> Result<(), Problem> {
    let target = &metric.target;
    let type_ = format!("{field}.target.type");
    match (metric.name.as_str(), target.type_.as_str()) {
        ("cpu" | "memory", "Utilization") => percentage(field, target),
        ("cpu", _) => problem(type_, "the cpu target value type should be Utilization"),
        ("memory", "AverageValue") => {
            let value = target.average_value.as_ref().and_then(quantity);
            if value.is_some_and(|value| value >= *MEBIBYTE) {
                return Ok(());
            }
            problem(
                format!("{field}.target.averageValue"),
                "the memory target value should be greater than 1 MiB",
            )
        }
        _ => problem(
            type_,
            "the memory target value type should be AverageValue or Utilization",
        ),
    }
}

fn percentage(field: &str, target: &MetricTarget) -> Result<(), Problem> {
    match target.average_utilization {
        Some(percent) if !(1..=100).contains(&percent) => {
            problem(format!("{field}.target.averageUtilization"), PERCENTAGE)
        }
        _ => Ok(()),
    }
}

fn monitoring(field: &str, metric: Option<&ExternalMetric>) -> Result<(), Problem> {
    let Some(metric) = metric else {
        return problem(field, "is not set although the metric's type asks for it");
    };
    if metric.metric.query.as_deref().is_none_or(str::is_empty) {
        return problem(format!("{field}.metric.query"), "the query should not be empty");
    }
    if metric.target.value.is_none() {
        return problem(
            format!("{field}.target.value"),
            "the target threshold value should not be empty",
        );
    }
    Ok(())
}

/// Reads a quantity, which is text or a bare number.
pub(super) fn quantity(value: &Value) -> Option<Quantity> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Quantity::parse(&text).ok()
}
