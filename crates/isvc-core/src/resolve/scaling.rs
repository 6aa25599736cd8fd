//! How many replicas, and who decides.

use serde_json::{Value, json};

use crate::{
    api::{Component, component::MetricTarget},
    observed::Observed,
    quantity,
    rejection::Rejection,
    settings::Settings,
    validate::UNSUPPORTED,
};

use super::not_made;

const DEFAULT_UTILIZATION: i32 = 80;

/// Who scales a component.
#[derive(Clone, Debug, PartialEq)]
pub enum Autoscaler {
    /// Nobody, or something outside.
    None,
    /// A `HorizontalPodAutoscaler`.
    Horizontal {
        /// Least number of replicas.
        min: i32,
        /// Largest number of replicas.
        max: i32,
        /// autoscaling/v2 metrics.
        metrics: Vec<Value>,
        /// autoscaling/v2 behaviour, when the specification has any.
        behavior: Option<Value>,
    },
    /// A KEDA `ScaledObject`.
    Keda {
        /// Least number of replicas; 0 scales to zero.
        min: i32,
        /// Largest number of replicas.
        max: i32,
        /// keda.sh/v1alpha1 triggers, in order.
        triggers: Vec<Value>,
        /// `spec.advanced`, when anything sets it.
        advanced: Option<Value>,
    },
}

pub(super) fn resolve(
    class: Option<&str>,
    component: &Component,
    _name: &str,
    _observed: &Observed,
) -> Result<Autoscaler, Rejection> {
    match class {
        None | Some("hpa") => horizontal(component),
        Some("external" | "none") => Ok(Autoscaler::None),
        Some("keda") => Err(Rejection::new(
            UNSUPPORTED,
            "annotation serving.kserve.io/autoscalerClass: keda is not supported by this version of leanserve; use hpa, \
             external or none",
        )),
        Some(other) => Err(not_made(
            component.kind,
            format!("unknown autoscaler class type: {other}"),
        )),
    }
}

fn horizontal(component: &Component) -> Result<Autoscaler, Rejection> {
    let min = component.min_replicas.unwrap_or(1).max(1);
    let max = component.max_replicas.unwrap_or(0).max(min);
    let metrics = match &component.auto_scaling {
        Some(scaling) => scaling
            .metrics
            .iter()
            .enumerate()
            .filter_map(|(index, metric)| Some((index, metric.resource.as_ref()?)))
            .map(|(index, resource)| {
                Ok(metric(
                    &resource.name,
                    &target(&resource.name, &resource.target, index)?,
                ))
            })
            .collect::<Result<_, Rejection>>()?,
        None => match component.scale_metric.as_deref() {
            None | Some("" | "cpu") => {
                vec![metric(
                    "cpu",
                    &utilization(component.scale_target.unwrap_or(DEFAULT_UTILIZATION)),
                )]
            }
            Some("memory") => component
                .scale_target
                .map(|percent| metric("memory", &utilization(percent)))
                .into_iter()
                .collect(),
            // concurrency and rps have no metric here; the API server falls back to cpu at 80 %.
            Some(_) => vec![metric("cpu", &utilization(DEFAULT_UTILIZATION))],
        },
    };
    // An empty list means cpu at 80 % to the API server; said outright, a steady pass has nothing to correct.
    let metrics = if metrics.is_empty() {
        vec![metric("cpu", &utilization(DEFAULT_UTILIZATION))]
    } else {
        metrics
    };
    let behavior = component
        .auto_scaling
        .as_ref()
        .and_then(|scaling| scaling.behavior.clone());
    Ok(Autoscaler::Horizontal {
        min,
        max,
        metrics,
        behavior,
    })
}

fn metric(name: &str, target: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": target}})
}

fn utilization(percent: i32) -> Value {
    json!({"type": "Utilization", "averageUtilization": percent})
}

fn target(name: &str, target: &MetricTarget, index: usize) -> Result<Value, Rejection> {
    match (name, target.type_.as_str()) {
        ("memory", "AverageValue") => {
            let mut value = target.average_value.clone().unwrap_or(Value::Null);
            quantity::canonicalize_value(&mut value).map_err(|error| {
                Rejection::new(
                    crate::validate::INVALID_SPEC,
                    format!("spec.predictor.autoScaling.metrics[{index}].resource.target.averageValue: {error}"),
                )
            })?;
            Ok(json!({"type": "AverageValue", "averageValue": value}))
        }
        ("memory", "Utilization") => Ok(target
            .average_utilization
            .map_or_else(|| json!({"type": "Utilization"}), utilization)),
        ("cpu", _) => Ok(utilization(target.average_utilization.unwrap_or(DEFAULT_UTILIZATION))),
        (_, other) => Err(Rejection::new(
            crate::validate::INVALID_SPEC,
            format!(
                "spec.predictor.autoScaling.metrics[{index}].resource.target.type: {other:?} does not fit resource \
                 {name:?}; use Utilization or AverageValue"
            ),
        )),
    }
}

/// The Deployment's strategy: the specification's verbatim, else rolling with the platform's numbers.
pub(super) fn strategy(given: Option<&Value>, settings: &Settings) -> Value {
    if let Some(given) = given {
        return given.clone();
    }
    let (mut max_unavailable, mut max_surge) = (Value::from("25%"), Value::from("25%"));
    if let Some(rollout) = &settings.deploy.default_rollout
        && settings.deploy.default_deployment_mode == crate::settings::DeploymentMode::Standard
    {
        for (text, value) in [
            (&rollout.max_unavailable, &mut max_unavailable),
            (&rollout.max_surge, &mut max_surge),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                // KServe sends a bare number as text, which the API server refuses.
                *value = text.parse::<i32>().map_or_else(|_| Value::from(text), Value::from);
            }
        }
    }
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max_unavailable, "maxSurge": max_surge}})
}
