//! What the agent is told, and when it is there at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{super::fixture::observed, annotations, inject};
use crate::settings::Settings;

/// The Pod's containers after the agent was added.
fn injected(fields: &Value, containers: &Value, settings: Settings) -> Vec<Value> {
    let observed = observed(fields, settings);
    let Value::Object(mut pod) = json!({"containers": containers}) else {
        unreachable!("it is an object");
    };
    let component = &observed.service.spec.predictor;
    let annotations = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    inject(&mut pod, component, &BTreeMap::new(), &annotations, &observed).expect("nothing is missing");
    pod["containers"].as_array().cloned().expect("a list")
}

/// The arguments after `flag`, up to the next one that is named.
#[track_caller]
fn check_argument(fields: &Value, containers: &Value, flag: &str, expected: Option<&str>) {
    let containers = injected(fields, containers, Settings::built_in());
    let args = containers.last().expect("an agent")["args"].clone();
    let args: Vec<String> = serde_json::from_value(args).expect("arguments are text");
    let found = args
        .iter()
        .position(|arg| arg == flag)
        .map(|index| args[index + 1].as_str());
    assert_eq!(found, expected, "{args:?}");
}

fn server() -> Value {
    json!([{"name": "kserve-container", "securityContext": {"runAsUser": 7}}])
}

#[test]
fn it_is_there_only_when_asked_for_and_once() {
    assert_eq!(injected(&json!({}), &server(), Settings::built_in()).len(), 1);
    assert_eq!(
        injected(&json!({"batcher": {}}), &server(), Settings::built_in()).len(),
        2
    );
    let with_agent = json!([{"name": "kserve-container"}, {"name": "agent", "image": "theirs"}]);
    let containers = injected(&json!({"batcher": {}}), &with_agent, Settings::built_in());
    assert_eq!(json!(containers), with_agent);
}

#[test]
fn an_empty_batcher_leaves_the_sizes_to_the_agent() {
    let containers = injected(&json!({"batcher": {"timeout": 9}}), &server(), Settings::built_in());
    assert_eq!(
        containers[1]["args"],
        json!(["--enable-batcher", "--component-port", "8080"])
    );
    assert_eq!(containers[1]["securityContext"], json!({"runAsUser": 7}));
}

#[test]
fn requests_go_to_the_transformer_of_the_same_pod() {
    let pod = json!([
        {"name": "kserve-container", "ports": [{"containerPort": 9000}], "readinessProbe": {"exec": {}}},
        {"name": "transformer-container", "ports": [{"containerPort": 7000}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 7000}}},
    ]);
    check_argument(&json!({"batcher": {}}), &pod, "--component-port", Some("7000"));
    let containers = injected(&json!({"batcher": {}}), &pod, Settings::built_in());
    assert_eq!(containers[2]["readinessProbe"]["httpGet"]["path"], "/ready");
}

#[test]
fn metadata_is_sent_along_where_it_is_known() {
    let fields =
        json!({"logger": {"mode": "all", "metadataHeaders": ["A", "B"], "metadataAnnotations": ["team", "none"]}});
    check_argument(&fields, &server(), "--metadata-headers", Some("A,B"));
    check_argument(&fields, &server(), "--metadata-annotations", Some("team=blue"));
    check_argument(&fields, &server(), "--log-url", Some("http://default-broker"));
}

#[test]
fn the_service_s_own_log_settings_win_over_the_platform_s() {
    let mut settings = Settings::built_in();
    settings.logger.batch_size = Some(5);
    settings.logger.batch_interval = Some("3s".to_owned());
    let fields = json!({"logger": {"mode": "all", "batchSize": 9}});
    let containers = injected(&fields, &server(), settings);
    let args = containers[1]["args"].as_array().expect("a list");
    for (flag, value) in [("--log-batch-size", "9"), ("--log-batch-interval", "3s")] {
        let index = args.iter().position(|arg| arg == flag).expect(flag);
        assert_eq!(args[index + 1], value, "{flag}");
    }
}

#[test]
fn annotations_say_what_was_asked_for() {
    let fields = json!({
        "logger": {"mode": "request", "url": "http://sink", "metadataAnnotations": ["a", "b"]},
        "batcher": {"maxLatency": 250},
    });
    let observed = observed(&fields, Settings::built_in());
    let expected = [
        ("batcher", "true"),
        ("batcher-max-latency", "250"),
        ("logger", "true"),
        ("logger-metadata-annotations", "a,b"),
        ("logger-mode", "request"),
        ("logger-sink-url", "http://sink"),
    ];
    let expected = expected.map(|(key, value)| (format!("internal.serving.kserve.io/{key}"), value.to_owned()));
    assert_eq!(annotations(&observed.service.spec.predictor), BTreeMap::from(expected));
}
