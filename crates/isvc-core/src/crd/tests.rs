//! What holds for every definition, and the facts of single fields that users depend on.

use serde_json::{Value, json};

use super::{
    all, cluster_serving_runtime, cluster_storage_container, inference_policy, inference_policy_template,
    inference_service, serving_runtime,
};
use crate::{
    api::{InferenceService, InferenceServiceStatus},
    defaults,
    settings::Settings,
    validate::validate,
};

/// Bound on a definition's compact JSON. etcd refuses requests over 1.5 MiB; metadata and growth need room too.
const MAX_BYTES: usize = 1024 * 1024;

fn name(definition: &Value) -> &str {
    definition["metadata"]["name"].as_str().expect("a name")
}

/// Whether the kind is our own, and not `KServe`'s.
fn is_ours(definition: &Value) -> bool {
    definition["spec"]["group"] == "leanserve.dev"
}

fn root(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Follows a path such as `spec.predictor.containers[].env`; `[]` is a list's element, `{}` a map's value.
fn at<'a>(definition: &'a Value, path: &str) -> &'a Value {
    let mut node = root(definition);
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let field = part.trim_end_matches("[]").trim_end_matches("{}");
        node = &node["properties"][field];
        if part.ends_with("[]") {
            node = &node["items"];
        } else if part.ends_with("{}") {
            node = &node["additionalProperties"];
        }
        assert!(node.is_object(), "{path}: nothing at {part}");
    }
    node
}

/// Calls `visit` for every node of the schema with its path.
fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    if let Some(properties) = node["properties"].as_object() {
        for (name, child) in properties {
            walk(child, &format!("{path}.{name}"), visit);
        }
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[]"), visit);
    }
    if node["additionalProperties"].is_object() {
        walk(&node["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

#[test]
fn every_property_says_what_it_is() {
    for definition in all() {
        let mut properties = 0;
        walk(root(&definition), "", &mut |path, node| {
            // Elements are described by their list; metadata by the API server, which refuses a description here.
            if path.ends_with("[]") || path.ends_with("{}") || path == ".metadata" {
                return;
            }
            properties += 1;
            let description = node["description"].as_str().unwrap_or_default();
            let at = format!("{}{path}", name(&definition));
            assert!(description.len() >= 5, "{at}: no description");
            assert!(description.ends_with('.'), "{at}: {description:?} is no sentence");
            assert!(description.len() <= 120, "{at}: {description:?} is long");
            assert!(!description.contains('\n'), "{at}: {description:?} has several lines");
        });
        let fewest = if is_ours(&definition) { 20 } else { 200 };
        assert!(
            properties > fewest,
            "{}: only {properties} properties",
            name(&definition)
        );
    }
}

#[test]
fn every_definition_fits_into_etcd() {
    for definition in all() {
        let bytes = definition.to_string().len();
        assert!(bytes <= MAX_BYTES, "{}: {bytes} bytes", name(&definition));
    }
}

/// The rules a structural schema must keep, as far as this vocabulary could break them: every node has one type or is
/// int-or-string; required names exist; map keys are required or have a default, and are scalars.
#[test]
fn every_schema_is_structural() {
    for definition in all() {
        walk(root(&definition), "", &mut |path, node| {
            let at = format!("{}{path}", name(&definition));
            let int_or_string = node["x-kubernetes-int-or-string"] == json!(true);
            // The one node of ours without a type keeps whatever it gets.
            let anything = is_ours(&definition) && node["x-kubernetes-preserve-unknown-fields"] == json!(true);
            assert!(node["type"].is_string() != int_or_string || anything, "{at}: type");
            assert!(
                !(node["properties"].is_object() && node["additionalProperties"].is_object()),
                "{at}: both properties and additionalProperties"
            );
            for needed in node["required"].as_array().into_iter().flatten() {
                let needed = needed.as_str().expect("a string");
                assert!(
                    node["properties"][needed].is_object(),
                    "{at}: requires unknown {needed}"
                );
            }
            if let Some(default) = node.get("default")
                && let Some(values) = node["enum"].as_array()
            {
                assert!(values.contains(default), "{at}: default {default} is not in the enum");
            }
            for key in node["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                let element = &node["items"];
                let key = key.as_str().expect("a string");
                let property = &element["properties"][key];
                let needed = element["required"]
                    .as_array()
                    .is_some_and(|all| all.contains(&json!(key)));
                assert!(
                    property["type"] == "string" || property["type"] == "integer",
                    "{at}: key {key}"
                );
                assert!(
                    needed || property.get("default").is_some(),
                    "{at}: key {key} may be absent"
                );
            }
        });
    }
}

#[test]
fn the_frame_of_each_kind() {
    let cases = [
        (
            inference_service(),
            "inferenceservices",
            "Namespaced",
            "v1beta1",
            json!({"status": {}}),
        ),
        (
            serving_runtime(),
            "servingruntimes",
            "Namespaced",
            "v1alpha1",
            Value::Null,
        ),
        (
            cluster_serving_runtime(),
            "clusterservingruntimes",
            "Cluster",
            "v1alpha1",
            Value::Null,
        ),
        (
            cluster_storage_container(),
            "clusterstoragecontainers",
            "Cluster",
            "v1alpha1",
            Value::Null,
        ),
        (
            inference_policy_template(),
            "inferencepolicytemplates",
            "Cluster",
            "v1alpha1",
            json!({"status": {}}),
        ),
        (
            inference_policy(),
            "inferencepolicies",
            "Cluster",
            "v1alpha1",
            json!({"status": {}}),
        ),
    ];
    assert_eq!(cases.len(), all().len());
    for (definition, plural, scope, version, subresources) in cases {
        let group = if is_ours(&definition) {
            "leanserve.dev"
        } else {
            "serving.kserve.io"
        };
        assert_eq!(name(&definition), format!("{plural}.{group}"));
        let spec = &definition["spec"];
        assert_eq!(spec["group"], group, "{plural}");
        assert_eq!(spec["names"]["plural"], plural);
        assert_eq!(spec["scope"], scope, "{plural}");
        assert_eq!(spec["versions"].as_array().map(Vec::len), Some(1), "{plural}");
        assert_eq!(spec["versions"][0]["name"], version, "{plural}");
        assert_eq!(spec["versions"][0]["subresources"], subresources, "{plural}");
        for field in ["apiVersion", "kind", "spec"] {
            assert!(at(&definition, field)["description"].is_string(), "{plural}: {field}");
        }
        assert_eq!(at(&definition, "metadata"), &json!({"type": "object"}), "{plural}");
    }
    assert_eq!(inference_service()["spec"]["names"]["shortNames"], json!(["isvc"]));
}

#[test]
fn the_printer_columns_of_an_inference_service() {
    let definition = inference_service();
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
    let columns: Vec<String> = columns
        .expect("columns")
        .iter()
        .map(|column| {
            let text = |key: &str| column[key].as_str().expect("a string").to_owned();
            [text("name"), text("type"), text("jsonPath")].join(" ")
        })
        .collect();
    let traffic = ".status.components.predictor.traffic";
    assert_eq!(
        columns,
        [
            "URL string .status.url".to_owned(),
            "Ready string .status.conditions[?(@.type=='Ready')].status".to_owned(),
            format!("Prev integer {traffic}[?(@.tag=='prev')].percent"),
            format!("Latest integer {traffic}[?(@.latestRevision==true)].percent"),
            format!("PrevRolledoutRevision string {traffic}[?(@.tag=='prev')].revisionName"),
            format!("LatestReadyRevision string {traffic}[?(@.latestRevision==true)].revisionName"),
            "Age date .metadata.creationTimestamp".to_owned(),
        ]
    );
}

#[test]
fn what_is_demanded_and_what_is_not() {
    let isvc = inference_service();
    let runtime = serving_runtime();
    let container = cluster_storage_container();
    let template = inference_policy_template();
    let policy = inference_policy();
    for (definition, path, needed) in [
        (&isvc, "spec", json!(["predictor"])),
        (&isvc, "spec.predictor", Value::Null),
        (&isvc, "spec.predictor.model", Value::Null),
        (&isvc, "spec.predictor.sklearn", Value::Null),
        (&isvc, "spec.explainer.art", Value::Null),
        (&isvc, "spec.predictor.model.modelFormat", json!(["name"])),
        (&isvc, "spec.predictor.containers[]", Value::Null),
        (&isvc, "spec.predictor.initContainers[]", json!(["name"])),
        (&isvc, "spec.predictor.containers[].readinessProbe.httpGet", Value::Null),
        (
            &isvc,
            "spec.predictor.containers[].startupProbe.httpGet",
            json!(["port"]),
        ),
        (
            &isvc,
            "spec.predictor.initContainers[].readinessProbe.httpGet",
            json!(["port"]),
        ),
        (&isvc, "spec.predictor.storageUris[]", json!(["uri"])),
        (&isvc, "spec.predictor.workerSpec", Value::Null),
        (&isvc, "spec.canary[]", json!(["predictor", "trafficPercent"])),
        (&isvc, "spec.canary[].predictor.model", Value::Null),
        (&isvc, "status.modelStatus", json!(["transitionStatus"])),
        (&runtime, "spec", json!(["containers"])),
        (&runtime, "spec.containers[]", json!(["name"])),
        (&runtime, "spec.supportedModelFormats[]", json!(["name"])),
        (&container, "spec", json!(["container", "supportedUriFormats"])),
        (&template, "", json!(["spec"])),
        (&template, "spec", json!(["validations"])),
        (&template, "spec.parameters[]", json!(["name", "type"])),
        (&policy, "", json!(["spec"])),
        (&policy, "spec", json!(["templateRef"])),
        (&policy, "spec.parameters", Value::Null),
    ] {
        assert_eq!(at(definition, path)["required"], needed, "{path}");
    }
}

#[test]
fn defaults_that_the_api_server_fills_in() {
    let isvc = inference_service();
    let container = cluster_storage_container();
    for (definition, path, default) in [
        (&isvc, "status.modelStatus.transitionStatus", json!("UpToDate")),
        (&isvc, "status.modelStatus.states.activeModelState", json!("Pending")),
        (&isvc, "status.modelStatus.states.targetModelState", json!("")),
        (&isvc, "status.modelStatus.copies.failedCopies", json!(0)),
        (&isvc, "spec.predictor.storageUris[].mountPath", json!("/mnt/models")),
        (&isvc, "spec.predictor.model.ports[].protocol", json!("TCP")),
        (
            &isvc,
            "spec.predictor.containers[].env[].valueFrom.secretKeyRef.name",
            json!(""),
        ),
        (&container, "spec.workloadType", json!("initContainer")),
        (&container, "spec.supportsMultiModelDownload", json!(false)),
    ] {
        assert_eq!(at(definition, path)["default"], default, "{path}");
    }
}

#[test]
fn text_of_quantities_and_ports_is_kept_as_written() {
    let isvc = inference_service();
    for path in [
        "spec.predictor.model.resources.limits{}",
        "spec.predictor.autoScaling.metrics[].external.target.value",
        "spec.predictor.containers[].livenessProbe.httpGet.port",
        "spec.predictor.deploymentStrategy.rollingUpdate.maxSurge",
    ] {
        assert_eq!(at(&isvc, path)["x-kubernetes-int-or-string"], true, "{path}");
    }
}

#[test]
fn the_yaml_of_a_definition_reads_back_equal() {
    for definition in all() {
        let yaml = serde_saphyr::to_string(&definition).expect("a definition is plain data");
        let read: Value = serde_saphyr::from_str(&yaml).expect("valid YAML");
        assert_eq!(read, definition, "{}", name(&definition));
    }
}

/// What the API server says where a rule is broken, of the node and those below it.
fn messages(definition: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(at(definition, path), path, &mut |_, node| {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().or_else(|| rule["messageExpression"].as_str());
            found.push(message.expect("every rule says something").to_owned());
        }
    });
    found
}

#[test]
fn rules_say_what_validation_says() {
    let definition = inference_service();
    let spec = |fields: Value| {
        let mut spec = json!({"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m"}}});
        for (name, content) in fields.as_object().expect("components") {
            for (field, value) in content.as_object().expect("fields") {
                spec[name][field] = value.clone();
            }
        }
        spec
    };
    let container = json!([{"image": "i"}]);
    let broken = [
        ("spec.predictor", spec(json!({"predictor": {"sklearn": {}}}))),
        ("spec.predictor", spec(json!({"predictor": {"model": {"name": "x"}}}))),
        (
            "spec.predictor",
            spec(json!({"predictor": {"storageUris": [{"uri": "s3://b/m"}]}})),
        ),
        (
            "spec.predictor",
            spec(json!({"predictor": {"model": {"confidential": {"enabled": true}}}})),
        ),
        (
            "spec.predictor",
            spec(json!({"predictor": {"model": {}, "storageUris": [{"uri": "s3://b/m", "mountPath": "/"}]}})),
        ),
        ("spec.transformer", spec(json!({"transformer": {"labels": {}}}))),
        ("spec.explainer", spec(json!({"explainer": {"labels": {}}}))),
        ("spec.predictor", spec(json!({"predictor": {"minReplicas": -1}}))),
        ("spec.predictor", spec(json!({"predictor": {"maxReplicas": -1}}))),
        (
            "spec.transformer",
            spec(json!({"transformer": {"containers": container, "minReplicas": 2, "maxReplicas": 1}})),
        ),
        (
            "spec.explainer",
            spec(json!({"explainer": {"containers": container, "containerConcurrency": -1}})),
        ),
        ("spec.predictor", spec(json!({"predictor": {"logger": {}}}))),
        (
            "spec.predictor",
            spec(json!({"predictor": {"logger": {"mode": "all", "storage": {}}}})),
        ),
    ];
    for (path, spec) in broken {
        let meta = serde_json::from_value(json!({"name": "m"})).expect("metadata");
        let service = InferenceService::parse(meta, spec.clone(), InferenceServiceStatus::default());
        let mut service = service.expect("a readable specification");
        defaults::apply(&mut service, &Settings::built_in()).expect("readable old fields");
        let said = validate(&service).expect_err("it breaks a rule").event;
        assert!(messages(&definition, path).contains(&said), "{spec}: {said}");
    }
}

/// A rule inside the elements of a list would be multiplied by as many as fit into a request.
#[test]
fn no_rule_is_inside_a_list() {
    for definition in all() {
        walk(root(&definition), "", &mut |path, node| {
            assert!(
                !path.contains("[]") || node["x-kubernetes-validations"].is_null(),
                "{}{path}",
                name(&definition)
            );
        });
    }
}
