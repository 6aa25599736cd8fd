//! Whatever passes validation is built as its API takes it, or named.

use proptest::{collection, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{Autoscaler, resolve};
use crate::{
    api::{InferenceService, InferenceServiceStatus, Meta},
    settings::Settings,
    validate::validate,
};

fn target() -> impl Strategy<Value = Value> {
    let quantities = || option::of(select(vec![json!("1k"), json!("3072Mi"), json!("2.50"), json!(7)]));
    let type_ = option::weighted(0.9, select(vec!["Utilization", "Value", "AverageValue"]));
    let percent = option::of(prop_oneof![Just(0), Just(60), Just(400)]);
    (type_, percent, quantities(), quantities()).prop_map(|(type_, percent, value, average)| {
        without_null(json!({"type": type_, "averageUtilization": percent, "value": value, "averageValue": average}))
    })
}

fn metric() -> impl Strategy<Value = Value> {
    let resource = (select(vec!["cpu", "memory"]), target())
        .prop_map(|(name, target)| json!({"type": "Resource", "resource": {"name": name, "target": target}}));
    let backend = option::weighted(0.8, select(vec!["prometheus", "graphite"]));
    let query = option::weighted(0.8, select(vec!["", "sum(x)", "avg(y)"]));
    let external = (backend, query, target()).prop_map(|(backend, query, target)| {
        let metric = without_null(json!({"backend": backend, "query": query, "namespace": "n"}));
        json!({"type": "External", "external": {"metric": metric, "target": target}})
    });
    let bare = select(vec!["Resource", "External", "PodMetric"]).prop_map(|type_| json!({"type": type_}));
    prop_oneof![5 => resource, 4 => external, 1 => bare]
}

fn predictor() -> impl Strategy<Value = Value> {
    let replicas = || option::of(prop_oneof![1 => Just(-1), 9 => 0..5]);
    let scaling = option::weighted(0.8, (collection::vec(metric(), 0..3), any::<bool>()));
    let scale_metric = option::weighted(0.2, select(vec!["cpu", "memory", "rps"]));
    (replicas(), replicas(), scale_metric, option::of(-1..120), scaling).prop_map(
        |(min, max, scale_metric, scale_target, scaling)| {
            let scaling = scaling.map(|(metrics, with_behavior)| {
                let behavior = with_behavior.then(|| json!({"scaleDown": {"selectPolicy": "Min"}}));
                without_null(json!({"metrics": metrics, "behavior": behavior}))
            });
            without_null(json!({
                "model": {}, "minReplicas": min, "maxReplicas": max, "scaleMetric": scale_metric,
                "scaleTarget": scale_target, "autoScaling": scaling,
            }))
        },
    )
}

fn without_null(mut object: Value) -> Value {
    let fields = object.as_object_mut().expect("an object");
    fields.retain(|_, value| !value.is_null());
    object
}

/// The autoscaler of a class, unless validation or resolving names a field.
fn built(class: &str, predictor: &Value) -> Result<Option<Autoscaler>, TestCaseError> {
    let meta = json!({"name": "m", "annotations": {"serving.kserve.io/autoscalerClass": class}});
    let meta: Meta = serde_json::from_value(meta).expect("metadata");
    let service = InferenceService::parse(meta, json!({"predictor": predictor}), InferenceServiceStatus::default());
    let service = service.expect("a readable specification");
    let valid = validate(&service);
    let resolved = valid.and_then(|()| resolve(Some(class), &service.spec.predictor, &Settings::built_in()));
    match resolved {
        Ok(autoscaler) => Ok(Some(autoscaler)),
        Err(rejection) => {
            prop_assert!(
                rejection.message.starts_with("spec.predictor."),
                "{}",
                rejection.message
            );
            Ok(None)
        }
    }
}

proptest! {
    // One in thirty passes the rules of KEDA.
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_horizontal_pod_autoscaler_has_targets_of_one_kind(predictor in predictor()) {
        let Some(autoscaler) = built("hpa", &predictor)? else { return Ok(()) };
        let Autoscaler::Horizontal { min, max, metrics, .. } = autoscaler else {
            return Err(TestCaseError::fail("another autoscaler"));
        };
        prop_assert!(1 <= min && min <= max);
        prop_assert!(!metrics.is_empty());
        for metric in metrics {
            let target = &metric["resource"]["target"];
            let given = (target["averageUtilization"].is_i64(), target["averageValue"].is_string());
            match target["type"].as_str() {
                Some("Utilization") => prop_assert_eq!(given, (true, false)),
                Some("AverageValue") => prop_assert_eq!(given, (false, true)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_scaled_object_has_triggers_of_text(predictor in predictor()) {
        let Some(autoscaler) = built("keda", &predictor)? else { return Ok(()) };
        let Autoscaler::Keda { min, max, triggers, advanced } = autoscaler else {
            return Err(TestCaseError::fail("another autoscaler"));
        };
        prop_assert!(0 <= min && min <= max && 1 <= max);
        prop_assert!(!triggers.is_empty());
        for trigger in triggers {
            let type_ = trigger["type"].as_str().unwrap_or_default();
            prop_assert!(["cpu", "memory", "prometheus", "graphite"].contains(&type_), "{}", trigger);
            let metadata = trigger["metadata"].as_object();
            prop_assert!(metadata.is_some_and(|all| all.values().all(Value::is_string)), "{}", trigger);
            prop_assert_eq!(trigger["metricType"].is_string(), matches!(type_, "cpu" | "memory"));
        }
        let behavior = &advanced["horizontalPodAutoscalerConfig"]["behavior"];
        for direction in ["scaleUp", "scaleDown"] {
            prop_assert!(behavior[direction]["stabilizationWindowSeconds"].is_i64(), "{}", behavior);
        }
    }
}
