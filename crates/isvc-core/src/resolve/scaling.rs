//! How many replicas, and who decides.

mod horizontal;
mod keda;

use serde_json::{Value, json};

use crate::{api::Component, rejection::Rejection, settings::Settings};

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
        /// `spec.advanced`.
        advanced: Value,
    },
}

pub(super) fn resolve(
    class: Option<&str>,
    component: &Component,
    settings: &Settings,
) -> Result<Autoscaler, Rejection> {
    match class {
        None | Some("hpa") => horizontal::resolve(component),
        Some("keda") => keda::resolve(component, settings),
        Some("external" | "none") => Ok(Autoscaler::None),
        Some(other) => Err(not_made(
            component.kind,
            format!("unknown autoscaler class type: {other}"),
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

#[cfg(test)]
mod tests;
