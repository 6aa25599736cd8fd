//! What is not refused but told: specifications without effect, runtimes that leave a choice open.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{parsed, predictor};
use crate::{
    api::{Scope, ServingRuntime},
    validate::{runtimes, warnings},
};

/// The fields that warnings are about.
#[track_caller]
fn check_warnings(meta: Value, spec: Value, expected: &[&str]) {
    let found = warnings(&parsed(meta, spec, ""));
    let fields: Vec<&str> = found.iter().filter_map(|warning| warning.split(": ").next()).collect();
    assert_eq!(fields, expected, "{found:?}");
}

#[test]
fn what_has_no_effect_is_said() {
    let meta = json!({"name": "m"});
    check_warnings(meta.clone(), predictor(&json!({})), &[]);
    check_warnings(
        json!({"name": "m", "annotations": {
            "serving.kserve.io/metrics": "cpu", "serving.kserve.io/targetUtilizationPercentage": "60"}}),
        predictor(&json!({"canaryTrafficPercent": 0, "annotations": {"serving.kserve.io/metrics": "cpu"}})),
        &[
            "metadata.annotations[serving.kserve.io/metrics]",
            "metadata.annotations[serving.kserve.io/targetUtilizationPercentage]",
            "spec.predictor.annotations[serving.kserve.io/metrics]",
            "spec.predictor.canaryTrafficPercent",
        ],
    );
    check_warnings(
        meta.clone(),
        predictor(&json!({"scaleMetric": "rps"})),
        &["spec.predictor.scaleMetric"],
    );
    check_warnings(
        json!({"name": "m", "annotations": {"serving.kserve.io/autoscalerClass": "none"}}),
        predictor(&json!({"scaleMetric": "rps"})),
        &[],
    );
    check_warnings(
        meta.clone(),
        predictor(&json!({"scaleMetricType": "Utilization", "batcher": {"maxBatchSize": 4, "timeout": 30}})),
        &["spec.predictor.scaleMetricType", "spec.predictor.batcher.timeout"],
    );
    let confidential = |uri: &str| predictor(&json!({"model": {"storageUri": uri, "confidential": {"enabled": true}}}));
    check_warnings(
        meta.clone(),
        confidential("pvc://c/m"),
        &["spec.predictor.model.confidential"],
    );
    check_warnings(meta, confidential("s3://b/m"), &[]);
}

#[test]
fn what_has_no_effect_on_an_explainer_is_said() {
    let mut spec = predictor(&json!({}));
    spec["explainer"] = json!({"art": {"type": "SquareAttack", "storage": {"key": "k", "path": "p"}}});
    check_warnings(json!({"name": "m"}), spec, &["spec.explainer.art.storage"]);
}

#[test]
fn of_a_variant_only_what_its_entry_says_is_told() {
    let mut spec = predictor(&json!({"batcher": {"timeout": 30}, "canaryTrafficPercent": 5}));
    let variant = |name: &str, batcher: Value| {
        json!({"trafficPercent": 10, "predictor": {"name": name, "batcher": batcher,
            "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/n"}}})
    };
    spec["canary"] = json!([variant("a", Value::Null), variant("b", json!({"timeout": 5}))]);
    check_warnings(
        json!({"name": "m"}),
        spec,
        &[
            "spec.predictor.canaryTrafficPercent",
            "spec.predictor.batcher.timeout",
            "spec.canary[1].predictor.batcher.timeout",
        ],
    );
}

fn runtime(scope: Scope, name: &str, spec: Value) -> Arc<ServingRuntime> {
    let meta = json!({"name": name, "namespace": "n"});
    let meta = serde_json::from_value(meta).expect("readable metadata");
    Arc::new(ServingRuntime::parse(scope, meta, spec).expect("a readable runtime"))
}

/// A runtime with formats given as (name, priority), each chosen automatically.
fn choosable(scope: Scope, name: &str, formats: &[(&str, i32)]) -> Arc<ServingRuntime> {
    let formats: Vec<Value> = formats
        .iter()
        .map(|(name, priority)| json!({"name": name, "priority": priority, "autoSelect": true}))
        .collect();
    let spec = json!({"supportedModelFormats": formats, "protocolVersions": ["v1", "v2"], "containers": []});
    runtime(scope, name, spec)
}

#[track_caller]
fn check_runtimes(list: &[Arc<ServingRuntime>], expected: &[&str]) {
    assert_eq!(runtimes(list), expected);
}

#[test]
fn runtimes_that_leave_the_choice_open() {
    let (namespaced, cluster) = (Scope::Namespace, Scope::Cluster);
    check_runtimes(
        &[
            choosable(namespaced, "a", &[("sklearn", 1)]),
            choosable(namespaced, "b", &[("SKLearn", 1), ("xgboost", 1)]),
            choosable(namespaced, "c", &[("xgboost", 2)]),
        ],
        &["same priority assigned for the model format SKLearn in the servingruntimes b and a in namespace n"],
    );
    check_runtimes(
        &[
            choosable(cluster, "a", &[("onnx", 3)]),
            choosable(cluster, "b", &[("onnx", 3)]),
        ],
        &["same priority assigned for the model format onnx in the clusterservingruntimes b and a"],
    );
    check_runtimes(
        &[choosable(namespaced, "a", &[("onnx", 3), ("onnx", 4)])],
        &["different priorities assigned for the model format onnx under the servingruntime a"],
    );
}

#[test]
fn runtimes_that_cannot_be_mistaken_for_each_other() {
    let spec = |extra: Value| {
        let mut spec = json!({
            "supportedModelFormats": [{"name": "onnx", "priority": 1, "autoSelect": true}],
            "protocolVersions": ["v2"],
            "containers": [],
        });
        for (name, value) in extra.as_object().expect("fields") {
            spec[name] = value.clone();
        }
        spec
    };
    let with = |name: &str, extra: Value| runtime(Scope::Cluster, name, spec(extra));
    check_runtimes(
        &[
            with("a", json!({})),
            with("disabled", json!({"disabled": true})),
            with("many", json!({"multiModel": true})),
            with("other-protocol", json!({"protocolVersions": ["grpc-v2"]})),
            with(
                "no-priority",
                json!({"supportedModelFormats": [{"name": "onnx", "autoSelect": true}]}),
            ),
            with(
                "by-name",
                json!({"supportedModelFormats": [{"name": "onnx", "priority": 1}]}),
            ),
            with(
                "version",
                json!({"supportedModelFormats": [{"name": "onnx", "version": "1", "priority": 1, "autoSelect": true}]}),
            ),
        ],
        &[],
    );
}

#[test]
fn runtimes_that_could_replace_the_server_s_code() {
    let containers = json!([{"name": "kserve-container", "env": [{"name": "PYTHONPATH", "value": "/x"}]}]);
    check_runtimes(
        &[runtime(Scope::Cluster, "a", json!({"containers": containers}))],
        &[
            "the ClusterServingRuntime \"a\" is invalid: setting PYTHONPATH in container \"kserve-container\" is not allowed for \
           security reasons",
        ],
    );
}
