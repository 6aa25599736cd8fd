//! Scaling by KEDA.

use serde_json::{Map, Value, json};

use crate::{
    api::{
        Component,
        component::{ExternalMetric, MetricSpec, ResourceMetric},
    },
    rejection::Rejection,
    settings::Settings,
    validate::{INVALID_SPEC, UNSUPPORTED},
};

use super::{Autoscaler, DEFAULT_UTILIZATION};

/// The `ScaledObject` of a component.
pub(super) fn resolve(component: &Component, settings: &Settings) -> Result<Autoscaler, Rejection> {
    let min = component.min_replicas.unwrap_or(1).max(0);
    let metrics = component
        .auto_scaling
        .as_ref()
        .map_or(&[][..], |scaling| scaling.metrics.as_slice());
    if metrics.is_empty() {
        return Err(invalid(
            &component.field("autoScaling.metrics"),
            "is empty; autoscaler class keda needs at least one metric",
        ));
    }
    let triggers = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| trigger(metric, &component.field(&format!("autoScaling.metrics[{index}]"))))
        .collect::<Result<_, _>>()?;
    Ok(Autoscaler::Keda {
        min,
        // A service that may scale to zero and names no maximum must still be able to scale up.
        max: component.max_replicas.unwrap_or(0).max(min).max(1),
        triggers,
        advanced: advanced(component, settings),
    })
}

/// How fast replicas come and go: what the specification says, with the platform's windows where it is silent.
fn advanced(component: &Component, settings: &Settings) -> Value {
    let given = component
        .auto_scaling
        .as_ref()
        .and_then(|scaling| scaling.behavior.as_ref());
    let direction = |name: &str, window: i32| {
        let mut rules = given
            .and_then(|behavior| behavior.get(name))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        rules
            .entry("stabilizationWindowSeconds")
            .or_insert_with(|| Value::from(window));
        rules
    };
    let defaults = &settings.autoscaler;
    json!({
        "horizontalPodAutoscalerConfig": {
            "behavior": {
                "scaleUp": direction("scaleUp", defaults.scale_up_stabilization_window_seconds),
                "scaleDown": direction("scaleDown", defaults.scale_down_stabilization_window_seconds),
            },
        },
        "scalingModifiers": {},
    })
}

fn trigger(metric: &MetricSpec, field: &str) -> Result<Value, Rejection> {
    match metric.type_.as_str() {
        "Resource" => match &metric.resource {
            Some(resource) => of_resource(resource, field),
            None => Err(missing(field, "resource", "Resource")),
        },
        "External" => match &metric.external {
            Some(external) => of_monitoring(external, field),
            None => Err(missing(field, "external", "External")),
        },
        "PodMetric" => Err(Rejection::new(
            UNSUPPORTED,
            format!(
                "{field}.podmetric: metrics of Pods need an OpenTelemetry collector beside them, which this version of \
                 leanserve does not make; use a metric of type External, or let KServe's controller serve it"
            ),
        )),
        other => Err(invalid(
            &format!("{field}.type"),
            &format!("{other:?} is not known; use Resource or External"),
        )),
    }
}

fn of_resource(resource: &ResourceMetric, field: &str) -> Result<Value, Rejection> {
    let target = &resource.target;
    let type_ = match target.type_.as_str() {
        "" if target.average_value.is_some() => "AverageValue",
        "" => "Utilization",
        given => given,
    };
    let (name, value) = match type_ {
        "AverageValue" => ("averageValue", text(target.average_value.as_ref())),
        "Value" => ("value", text(target.value.as_ref())),
        _ => {
            let default = (resource.name == "cpu").then_some(DEFAULT_UTILIZATION);
            let percent = target.average_utilization.or(default);
            ("averageUtilization", percent.map(|percent| percent.to_string()))
        }
    };
    let value = value.ok_or_else(|| no_target(&format!("{field}.resource.target.{name}")))?;
    Ok(json!({"type": resource.name, "metricType": type_, "metadata": {"value": value}}))
}

fn of_monitoring(external: &ExternalMetric, field: &str) -> Result<Value, Rejection> {
    let query = &external.metric;
    if query.backend.is_empty() {
        return Err(invalid(
            &format!("{field}.external.metric.backend"),
            "is empty; use prometheus or graphite",
        ));
    }
    let threshold = text(external.target.value.as_ref());
    let threshold = threshold.ok_or_else(|| no_target(&format!("{field}.external.target.value")))?;
    let mut metadata = Map::new();
    let mut add = |key: &str, value: &str| metadata.insert(key.to_owned(), Value::from(value));
    add("serverAddress", query.server_address.as_deref().unwrap_or_default());
    add("query", query.query.as_deref().unwrap_or_default());
    add("threshold", &threshold);
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if query.backend == "prometheus"
        && let Some(namespace) = given(&query.namespace)
    {
        add("namespace", &namespace);
    }
    let authentication = external.authentication_ref.as_ref();
    if let Some(modes) = authentication.and_then(|authentication| given(&authentication.auth_modes)) {
        add("authModes", &modes);
    }
    let mut trigger = json!({"type": query.backend, "metadata": metadata});
    let reference = authentication.and_then(|authentication| authentication.authentication_ref.as_ref());
    if let Some(reference) = reference.filter(|reference| !reference.name.is_empty()) {
        trigger["authenticationRef"] = json!({"name": reference.name});
    }
    Ok(trigger)
}

/// A quantity as it was written: KEDA reads the text itself.
fn text(quantity: Option<&Value>) -> Option<String> {
    match quantity? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `KServe` asks KEDA for a target of 0 then, and KEDA for a `HorizontalPodAutoscaler` that the API server refuses.
fn no_target(field: &str) -> Rejection {
    invalid(field, "is not set; say what the metric is to be held at")
}

fn missing(field: &str, block: &str, type_: &str) -> Rejection {
    invalid(
        &format!("{field}.{block}"),
        &format!("is not set although the metric's type is {type_}"),
    )
}

fn invalid(field: &str, problem: &str) -> Rejection {
    Rejection::new(INVALID_SPEC, format!("{field}: {problem}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::resolve;
    use crate::{
        api::{InferenceService, InferenceServiceStatus, Meta},
        resolve::Autoscaler,
        settings::Settings,
        validate::UNSUPPORTED,
    };

    fn resolved(fields: &Value) -> Result<Autoscaler, crate::rejection::Rejection> {
        let service = InferenceService::parse(
            Meta::default(),
            json!({"predictor": fields}),
            InferenceServiceStatus::default(),
        );
        let service = service.expect("a readable specification");
        resolve(&service.spec.predictor, &Settings::built_in())
    }

    fn cpu() -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}})
    }

    #[track_caller]
    fn check(metric: &Value, expected: Value) {
        let resolved = resolved(&json!({"autoScaling": {"metrics": [metric]}}));
        let Ok(Autoscaler::Keda { triggers, .. }) = resolved else {
            panic!("{resolved:?}");
        };
        assert_eq!(triggers, [expected]);
    }

    #[track_caller]
    fn check_bounds(min: Option<i32>, max: Option<i32>, expected: (i32, i32)) {
        let fields = json!({"minReplicas": min, "maxReplicas": max, "autoScaling": {"metrics": [cpu()]}});
        let Ok(Autoscaler::Keda { min, max, .. }) = resolved(&fields) else {
            panic!("not built");
        };
        assert_eq!((min, max), expected);
    }

    #[track_caller]
    fn check_refused(fields: &Value, reason: &str, text: &str) {
        let rejection = resolved(fields).expect_err("it cannot be built");
        assert_eq!(rejection.reason, reason);
        assert!(rejection.message.contains(text), "{}", rejection.message);
    }

    #[test]
    fn resources_carry_the_text_of_their_target() {
        let resource =
            |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        let trigger = |name: &str, kind: &str, value: &str| json!({"type": name, "metricType": kind, "metadata": {"value": value}});
        check(&cpu(), trigger("cpu", "Utilization", "80"));
        check(
            &resource("cpu", json!({"type": "Utilization", "averageUtilization": 45})),
            trigger("cpu", "Utilization", "45"),
        );
        check(
            &resource("memory", json!({"type": "AverageValue", "averageValue": "3072Mi"})),
            trigger("memory", "AverageValue", "3072Mi"),
        );
        check(
            &resource("memory", json!({"averageValue": 2_000_000_000})),
            trigger("memory", "AverageValue", "2000000000"),
        );
    }

    #[test]
    fn only_prometheus_is_told_a_namespace() {
        let external = |backend: &str| {
            json!({"type": "External", "external": {
                "metric": {"backend": backend, "serverAddress": "http://m", "query": "q", "namespace": "n"},
                "target": {"type": "Value", "value": "2.50"},
            }})
        };
        check(
            &external("prometheus"),
            json!({"type": "prometheus", "metadata":
                {"serverAddress": "http://m", "query": "q", "threshold": "2.50", "namespace": "n"}}),
        );
        check(
            &external("graphite"),
            json!({"type": "graphite", "metadata": {"serverAddress": "http://m", "query": "q", "threshold": "2.50"}}),
        );
    }

    #[test]
    fn replicas_may_be_zero_but_not_for_ever() {
        check_bounds(None, None, (1, 1));
        check_bounds(Some(0), Some(6), (0, 6));
        check_bounds(Some(4), Some(2), (4, 4));
        check_bounds(Some(0), None, (0, 1));
    }

    #[test]
    fn the_given_pace_is_honoured_whole_where_kserve_takes_the_windows_only() {
        let resolved = resolved(&json!({"autoScaling": {"metrics": [cpu()], "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": 20, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]},
        }}}));
        let Ok(Autoscaler::Keda { advanced, .. }) = resolved else {
            panic!("not built");
        };
        assert_eq!(
            advanced["horizontalPodAutoscalerConfig"]["behavior"],
            json!({
                "scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": 20, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]},
            })
        );
    }

    #[test]
    fn what_keda_would_refuse_is_said_here() {
        check_refused(
            &json!({}),
            "InvalidSpec",
            "spec.predictor.autoScaling.metrics: is empty",
        );
        check_refused(
            &json!({"autoScaling": {"metrics": [cpu(), {"type": "External", "external": {"metric": {"query": "q"}}}]}}),
            "InvalidSpec",
            "spec.predictor.autoScaling.metrics[1].external.metric.backend: is empty",
        );
        check_refused(
            &json!({"autoScaling": {"metrics": [{"type": "Resource"}]}}),
            "InvalidSpec",
            "metrics[0].resource: is not set",
        );
    }

    #[test]
    fn a_metric_without_a_target_is_named_where_kserve_writes_0() {
        let metrics = "spec.predictor.autoScaling.metrics[0]";
        let check = |metric: Value, field: &str| {
            let text = format!("{metrics}.{field}: is not set");
            check_refused(&json!({"autoScaling": {"metrics": [metric]}}), "InvalidSpec", &text);
        };
        let memory = |target: Value| json!({"type": "Resource", "resource": {"name": "memory", "target": target}});
        check(memory(json!({})), "resource.target.averageUtilization");
        check(memory(json!({"type": "AverageValue"})), "resource.target.averageValue");
        check(memory(json!({"type": "Value"})), "resource.target.value");
        check(
            json!({"type": "External", "external": {"metric": {"backend": "graphite"}, "target": {}}}),
            "external.target.value",
        );
    }

    #[test]
    fn metrics_of_pods_are_not_supported_yet() {
        check_refused(
            &json!({"autoScaling": {"metrics": [{"type": "PodMetric", "podmetric": {"metric": {"backend": "opentelemetry"}}}]}}),
            UNSUPPORTED,
            "spec.predictor.autoScaling.metrics[0].podmetric: ",
        );
    }
}
