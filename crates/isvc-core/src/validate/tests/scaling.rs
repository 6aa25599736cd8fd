//! Rules of the autoscaler classes.

use serde_json::{Value, json};

use super::{check_accepted, check_class, predictor};

#[test]
fn the_class_hpa() {
    let percentage = "the target utilization percentage should be a [1-100] integer";
    for (fields, field, text) in [
        (
            json!({"scaleMetric": "rps"}),
            "scaleMetric",
            "[rps] is not a supported metric",
        ),
        (json!({"scaleTarget": 101}), "scaleTarget", percentage),
        (json!({"scaleTarget": 0}), "scaleTarget", percentage),
        (
            json!({"scaleTarget": 200, "scaleMetric": "memory"}),
            "scaleTarget",
            percentage,
        ),
        (
            json!({"scaleTarget": 0, "scaleMetric": "memory"}),
            "scaleTarget",
            "the target memory should be greater than 1 MiB",
        ),
        (
            json!({"autoScaling": {"metrics": [{"type": "External"}]}}),
            "autoScaling.metrics[0].type",
            "invalid HPA metric source type with value [External],valid metric source types are Resource",
        ),
        (
            json!({"autoScaling": {"metrics": [{"type": "Resource"}]}}),
            "autoScaling.metrics[0].resource",
            "metricSpec.Resource is not set for resource metric source type",
        ),
    ] {
        // Nobody looks where no class is named.
        check_accepted(None, predictor(&fields));
        check_class(
            Some("hpa"),
            predictor(&fields),
            &format!("spec.predictor.{field}"),
            text,
        );
    }
    for (name, target) in [
        ("cpu", json!({"type": "Utilization", "averageUtilization": 400})),
        ("memory", json!({"type": "AverageValue", "averageValue": "1k"})),
    ] {
        let metric = json!({"type": "Resource", "resource": {"name": name, "target": target}});
        check_accepted(Some("hpa"), predictor(&json!({"autoScaling": {"metrics": [metric]}})));
    }
}

#[test]
fn the_class_keda() {
    let metrics = "spec.predictor.autoScaling.metrics[0]";
    let resource =
        |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
    let external = |query: &str, target: Value| {
        let metric = json!({"backend": "prometheus", "serverAddress": "x", "query": query});
        json!({"type": "External", "external": {"metric": metric, "target": target}})
    };
    check_class(
        Some("keda"),
        predictor(&json!({"scaleMetric": "cpu"})),
        "spec.predictor.scaleMetric",
        "ScaleMetric is not supported for KEDA",
    );
    for (metric, field, text) in [
        (
            resource("cpu", json!({"type": "AverageValue", "averageValue": "1"})),
            "resource.target.type",
            "the cpu target value type should be Utilization",
        ),
        (
            resource("cpu", json!({"type": "Utilization", "averageUtilization": 101})),
            "resource.target.averageUtilization",
            "the target utilization percentage should be a [1-100] integer",
        ),
        (
            resource("memory", json!({"type": "AverageValue", "averageValue": "1k"})),
            "resource.target.averageValue",
            "the memory target value should be greater than 1 MiB",
        ),
        (
            resource("memory", json!({"type": "Value", "value": "1Gi"})),
            "resource.target.type",
            "the memory target value type should be AverageValue or Utilization",
        ),
        (
            external("", json!({"type": "Value", "value": "1"})),
            "external.metric.query",
            "the query should not be empty",
        ),
        (
            external("q", json!({"type": "Value"})),
            "external.target.value",
            "the target threshold value should not be empty",
        ),
        (
            json!({"type": "PodMetric", "podmetric": {"metric": {"query": "q"}, "target": {}}}),
            "podmetric.target.value",
            "the target threshold value should not be empty",
        ),
    ] {
        let spec = predictor(&json!({"autoScaling": {"metrics": [metric]}}));
        check_class(Some("keda"), spec, &format!("{metrics}.{field}"), text);
    }
    for metric in [
        resource("memory", json!({"type": "AverageValue", "averageValue": "1Mi"})),
        resource("cpu", json!({"type": "Utilization"})),
        external("q", json!({"type": "Value", "value": 7})),
    ] {
        check_accepted(Some("keda"), predictor(&json!({"autoScaling": {"metrics": [metric]}})));
    }
}
