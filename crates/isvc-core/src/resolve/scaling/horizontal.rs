//! Scaling by a `HorizontalPodAutoscaler`.

use serde_json::{Value, json};

use crate::{
    api::{Component, component::ResourceMetric},
    quantity,
    rejection::Rejection,
    validate::INVALID_SPEC,
};

use super::{Autoscaler, DEFAULT_UTILIZATION};

/// The `HorizontalPodAutoscaler` of a component.
pub(super) fn resolve(component: &Component) -> Result<Autoscaler, Rejection> {
    let min = component.min_replicas.unwrap_or(1).max(1);
    let max = component.max_replicas.unwrap_or(0).max(min);
    let metrics = match &component.auto_scaling {
        Some(scaling) => scaling
            .metrics
            .iter()
            .enumerate()
            .filter_map(|(index, metric)| Some((index, metric.resource.as_ref()?)))
            .map(|(index, resource)| Ok(metric(&resource.name, &target(component, resource, index)?)))
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

fn target(component: &Component, resource: &ResourceMetric, index: usize) -> Result<Value, Rejection> {
    let target = &resource.target;
    let invalid = |field: &str, problem: String| {
        let field = component.field(&format!("autoScaling.metrics[{index}].resource.target.{field}"));
        Rejection::new(INVALID_SPEC, format!("{field}: {problem}"))
    };
    match (resource.name.as_str(), target.type_.as_str()) {
        ("cpu", _) => Ok(utilization(target.average_utilization.unwrap_or(DEFAULT_UTILIZATION))),
        ("memory", "AverageValue") => {
            let mut value = target.average_value.clone().unwrap_or(Value::Null);
            quantity::canonicalize_value(&mut value).map_err(|error| invalid("averageValue", error.to_string()))?;
            Ok(json!({"type": "AverageValue", "averageValue": value}))
        }
        ("memory", "Utilization") => target
            .average_utilization
            .map(utilization)
            .ok_or_else(|| invalid("averageUtilization", "is not set".to_owned())),
        // KServe sends an empty target, which the API server refuses.
        (name, other) => Err(invalid(
            "type",
            format!("{other:?} does not fit resource {name:?}; use Utilization or AverageValue"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::resolve;
    use crate::{
        api::{InferenceService, InferenceServiceStatus, Meta},
        resolve::Autoscaler,
    };

    fn resolved(fields: &Value) -> Result<Autoscaler, String> {
        let service = InferenceService::parse(
            Meta::default(),
            json!({"predictor": fields}),
            InferenceServiceStatus::default(),
        );
        let service = service.expect("a readable specification");
        resolve(&service.spec.predictor).map_err(|rejection| rejection.message)
    }

    #[track_caller]
    fn check(target: &Value, expected: &Result<Value, &str>) {
        let metric = json!({"type": "Resource", "resource": {"name": "memory", "target": target}});
        match (resolved(&json!({"autoScaling": {"metrics": [metric]}})), expected) {
            (Ok(Autoscaler::Horizontal { metrics, .. }), Ok(expected)) => {
                assert_eq!(metrics[0]["resource"]["target"], *expected);
            }
            (Err(message), Err(expected)) => assert!(message.contains(*expected), "{message}"),
            (other, expected) => panic!("{other:?}, not {expected:?}"),
        }
    }

    #[test]
    fn targets_the_api_server_would_refuse_are_named_here() {
        let field = "spec.predictor.autoScaling.metrics[0].resource.target";
        check(
            &json!({"type": "AverageValue", "averageValue": "3072Mi"}),
            &Ok(json!({"type": "AverageValue", "averageValue": "3Gi"})),
        );
        check(
            &json!({"type": "Value", "value": "2Gi"}),
            &Err(&format!("{field}.type: \"Value\"")),
        );
        check(
            &json!({"type": "Utilization"}),
            &Err(&format!("{field}.averageUtilization: is not set")),
        );
        check(
            &json!({"type": "AverageValue"}),
            &Err(&format!("{field}.averageValue: ")),
        );
    }

    #[test]
    fn the_given_behaviour_is_honoured_where_kserve_ignores_it() {
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 20}});
        let resolved = resolved(&json!({"autoScaling": {"metrics": [], "behavior": behavior}}));
        let Ok(Autoscaler::Horizontal { behavior: found, .. }) = resolved else {
            panic!("{resolved:?}");
        };
        assert_eq!(found, Some(behavior));
    }
}
