use proptest::prelude::*;
use serde_json::json;

use super::*;

const TABLE: &str = include_str!("../../tests/oracle/merge.jsonl");

/// Merges as strategic merge alone does, without the rules of this project.
fn strategic(kind: &str, base: &Value, patch: &Value) -> Value {
    let kind = schema::Type::named(kind);
    assert!(kind.is_some(), "the table names known types");
    let patch = typed(kind, object(patch));
    Value::Object(merge_struct(kind, typed(kind, object(base)), &patch))
}

#[test]
fn agrees_with_the_recorded_table() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).expect("the table holds JSON");
        let kind = row["kind"].as_str().expect("each row has a kind");
        count += 1;
        let merged = strategic(kind, &row["base"], &row["patch"]);
        // What the Go types write although it is empty is in the recording and is absent here.
        let expected = Value::Object(typed(schema::Type::named(kind), object(&row["merged"])));
        if merged != expected {
            wrong.push(format!("{line}\n    got {merged}"));
        }
    }
    assert!(count > 400, "only {count} rows");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n")
    );
}

/// Checks one container merge.
fn container(base: &Value, patch: &Value, expected: &Value) {
    assert_eq!(merge_container(base, patch), *expected, "{base} with {patch}");
}

/// Names of the merged env of containers with these env names.
fn env_order(base: &[&str], patch: &[&str]) -> Vec<String> {
    let env = |names: &[&str]| {
        names
            .iter()
            .map(|name| json!({"name": name, "value": "v"}))
            .collect::<Vec<_>>()
    };
    let merged = merge_container(&json!({"env": env(base)}), &json!({"env": env(patch)}));
    let names = merged["env"].as_array().into_iter().flatten();
    names
        .map(|entry| entry["name"].as_str().expect("entries have names").to_owned())
        .collect()
}

#[test]
fn lists_are_interleaved() {
    assert_eq!(env_order(&["A", "B"], &["C"]), ["C", "A", "B"]);
    assert_eq!(env_order(&["A", "B"], &["B", "C"]), ["A", "B", "C"]);
    assert_eq!(env_order(&["foo", "aaa"], &["foo", "xxx"]), ["foo", "xxx", "aaa"]);
    assert_eq!(env_order(&["A", "B", "C"], &["C", "A"]), ["B", "C", "A"]);
    assert_eq!(env_order(&["A"], &[]), ["A"]);
    assert_eq!(env_order(&[], &["B", "A", "B"]), ["B", "A", "B"]);
}

#[test]
fn ports_keep_the_recorded_order() {
    container(
        &json!({"ports": [{"containerPort": 8080, "protocol": "TCP"}, {"containerPort": 9000, "name": "h2c"}]}),
        &json!({"ports": [{"containerPort": 8080, "name": "http1"}, {"containerPort": 9100, "name": "metrics"}]}),
        &json!({"ports": [
            {"containerPort": 8080, "name": "http1", "protocol": "TCP"},
            {"containerPort": 9100, "name": "metrics"},
            {"containerPort": 9000, "name": "h2c"},
        ]}),
    );
}

#[test]
fn args_are_concatenated_and_command_is_replaced() {
    container(
        &json!({"args": ["a", "b"], "command": ["run", "it"]}),
        &json!({"args": ["b", "c"], "command": ["go"]}),
        &json!({"args": ["a", "b", "b", "c"], "command": ["go"]}),
    );
    container(&json!({"args": ["a"]}), &json!({}), &json!({"args": ["a"]}));
    container(&json!({}), &json!({"args": ["a"]}), &json!({"args": ["a"]}));
}

#[test]
fn the_name_is_the_base_s_unless_the_patch_has_one() {
    container(
        &json!({"name": "kserve-container"}),
        &json!({}),
        &json!({"name": "kserve-container"}),
    );
    container(
        &json!({"name": "kserve-container"}),
        &json!({"name": ""}),
        &json!({"name": "kserve-container"}),
    );
    container(
        &json!({"name": "kserve-container"}),
        &json!({"name": "own"}),
        &json!({"name": "own"}),
    );
}

#[test]
fn an_env_entry_keeps_the_patch_s_kind() {
    let source = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    container(
        &json!({"env": [{"name": "A", "value": "literal"}]}),
        &json!({"env": [{"name": "A", "valueFrom": source}]}),
        &json!({"env": [{"name": "A", "valueFrom": source}]}),
    );
    container(
        &json!({"env": [{"name": "A", "valueFrom": source}]}),
        &json!({"env": [{"name": "A", "value": "literal"}]}),
        &json!({"env": [{"name": "A", "value": "literal"}]}),
    );
    // Of two entries with one name the last decides, as it does in the container.
    container(
        &json!({"env": [{"name": "A", "value": "base"}]}),
        &json!({"env": [{"name": "A", "valueFrom": source}, {"name": "A", "value": "last"}]}),
        &json!({"env": [{"name": "A", "value": "last"}]}),
    );
    // An empty value is the same as none to the typed API, so the base's stays.
    container(
        &json!({"env": [{"name": "A", "valueFrom": source}, {"name": "B", "value": "b"}]}),
        &json!({"env": [{"name": "A", "value": ""}, {"name": "B", "value": ""}]}),
        &json!({"env": [{"name": "A", "valueFrom": source}, {"name": "B", "value": "b"}]}),
    );
}

#[test]
fn resources_and_security_merge_key_by_key() {
    container(
        &json!({
            "resources": {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1"}},
            "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
        }),
        &json!({
            "resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}},
            "securityContext": {"runAsNonRoot": false, "runAsUser": 0, "capabilities": {"drop": ["NET_RAW"]}},
        }),
        &json!({
            "resources": {"limits": {"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "1"}},
            "securityContext": {"runAsNonRoot": false, "runAsUser": 0, "capabilities": {"drop": ["NET_RAW"]}},
        }),
    );
}

#[test]
fn null_and_unwritten_zero_values_of_a_patch_change_nothing() {
    let base = json!({"image": "a:1", "tty": true, "command": ["x"], "workingDir": "/w", "env": [{"name": "A", "value": "a"}]});
    for patch in [
        json!({"image": null, "tty": null, "env": null}),
        json!({"image": "", "tty": false, "command": [], "workingDir": "", "env": []}),
    ] {
        container(&base, &patch, &base);
    }
}

#[test]
fn a_probe_s_handler_is_replaced_by_another() {
    container(
        &json!({"readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}}),
        &json!({"readinessProbe": {"exec": {"command": ["check"]}, "failureThreshold": 9}}),
        &json!({"readinessProbe": {"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 9}}),
    );
    // The same handler merges, and a patch without one leaves the base's.
    container(
        &json!({"readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}),
        &json!({"readinessProbe": {"httpGet": {"port": 9090}, "periodSeconds": 5}}),
        &json!({"readinessProbe": {"httpGet": {"path": "/ready", "port": 9090}, "periodSeconds": 5}}),
    );
    container(
        &json!({"livenessProbe": {"tcpSocket": {"port": 8080}}}),
        &json!({"livenessProbe": {"periodSeconds": 5}}),
        &json!({"livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5}}),
    );
}

#[test]
fn other_unions_take_the_patch_s_member_too() {
    container(
        &json!({"lifecycle": {"preStop": {"exec": {"command": ["bye"]}}, "postStart": {"sleep": {"seconds": 1}}}}),
        &json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}),
        &json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"sleep": {"seconds": 1}}}}),
    );
    container(
        &json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        &json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}),
        &json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}),
    );
    container(
        &json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}}),
        &json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}),
        &json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}),
    );
}

#[test]
fn long_lists_keep_every_element() {
    // More entries than an object of the API server's size limit can hold.
    let env = |prefix: &str| {
        let entry = |i: u32| json!({"name": format!("{prefix}{i}"), "value": "v"});
        (0..30_000).map(entry).collect::<Vec<_>>()
    };
    let merged = merge_container(&json!({"env": env("A")}), &json!({"env": env("B")}));
    let names = merged["env"].as_array().expect("env is a list");
    assert_eq!(names.len(), 60_000);
    assert_eq!(
        (&names[0]["name"], &names[30_000]["name"]),
        (&json!("B0"), &json!("A0"))
    );
}

#[test]
fn elements_without_their_key_are_kept() {
    container(
        &json!({"env": [{"value": "base"}, {"name": "A", "value": "a"}]}),
        &json!({"env": [{"value": "patch"}, "text"]}),
        &json!({"env": [{"name": "A", "value": "a"}, {"value": "base"}, {"value": "patch"}, "text"]}),
    );
}

#[test]
fn fields_unknown_to_the_schema_merge_as_plain_json() {
    container(
        &json!({"futureField": {"a": 1, "b": [1]}, "other": 1}),
        &json!({"futureField": {"b": [2]}, "other": {"x": 1}}),
        &json!({"futureField": {"a": 1, "b": [2]}, "other": {"x": 1}}),
    );
}

#[test]
fn what_is_no_object_counts_as_empty() {
    assert_eq!(
        merge_container(&Value::Null, &json!({"image": "a"})),
        json!({"image": "a"})
    );
    assert_eq!(
        merge_container(&json!({"image": "a"}), &json!([1])),
        json!({"image": "a"})
    );
}

#[test]
fn a_pod_takes_only_some_fields_of_the_runtime() {
    let runtime = json!({
        "containers": [{"name": "kserve-container"}],
        "hostIPC": true,
        "nodeSelector": {"disk": "ssd", "zone": "a"},
        "tolerations": [{"key": "gpu"}],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "cfg", "configMap": {"name": "c"}}],
        "imagePullSecrets": [{"name": "one"}],
        "schedulerName": "own",
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}},
    });
    let service = json!({
        "containers": [{"name": "side"}],
        "nodeSelector": {"zone": "b"},
        "tolerations": [{"key": "spot"}],
        "volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "cfg", "secret": {"secretName": "s"}}],
        "imagePullSecrets": [{"name": "two"}],
        "schedulerName": "",
        "serviceAccountName": "sa",
        "initContainers": [{"name": "init"}],
    });
    assert_eq!(
        merge_pod(&runtime, &service),
        json!({
            "nodeSelector": {"disk": "ssd", "zone": "b"},
            "tolerations": [{"key": "spot"}],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                {"name": "cfg", "secret": {"secretName": "s"}},
            ],
            "imagePullSecrets": [{"name": "two"}, {"name": "one"}],
            "schedulerName": "own",
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}},
            "serviceAccountName": "sa",
            "initContainers": [{"name": "init"}],
        }),
    );
}

prop_compose! {
    /// Containers of plain values with a few env entries, mounts and nested structs.
    fn containers()(
        image in prop::option::of("[a-z]{1,3}"),
        args in prop::collection::vec("[a-z]", 0..3),
        env in prop::collection::vec(("[A-D]", "[a-z]{0,2}"), 0..5),
        mounts in prop::collection::vec(("/[a-c]", any::<bool>()), 0..4),
        cpu in prop::option::of("[1-9]"),
        period in 0..3_i32,
    ) -> Value {
        let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mounts: Vec<Value> =
            mounts.into_iter().map(|(path, ro)| json!({"mountPath": path, "name": "v", "readOnly": ro})).collect();
        json!({
            "image": image, "args": args, "env": env, "volumeMounts": mounts, "resources": {"limits": {"cpu": cpu}},
            "livenessProbe": {"periodSeconds": period, "tcpSocket": {"port": 8080}},
        })
    }
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(base in containers()) {
        let base = Value::Object(typed(schema::Type::named("Container"), object(&base)));
        prop_assert_eq!(merge_container(&base, &json!({})), base);
    }

    #[test]
    fn a_patch_over_nothing_is_the_patch(patch in containers()) {
        let patch = Value::Object(typed(schema::Type::named("Container"), object(&patch)));
        prop_assert_eq!(merge_container(&json!({}), &patch), patch);
    }

    #[test]
    fn what_the_patch_sets_is_in_the_result(base in containers(), patch in containers()) {
        let merged = merge_container(&base, &patch);
        if let Some(image) = patch["image"].as_str() {
            prop_assert_eq!(&merged["image"], image);
        }
        let entries = |value: &Value| value["env"].as_array().cloned().unwrap_or_default();
        let last = |name: &Value| entries(&patch).into_iter().rfind(|e| e["name"] == *name && e["value"] != "");
        for entry in entries(&patch) {
            let found = entries(&merged).into_iter().find(|e| e["name"] == entry["name"]);
            prop_assert!(found.is_some(), "{} is lost", entry["name"]);
            // Without duplicates in the base there is one entry for a name, with the last value set.
            let (found, last) = (found.expect("found above"), last(&entry["name"]));
            if let Some(last) = last.filter(|_| entries(&base).iter().any(|e| e["name"] == entry["name"])) {
                prop_assert_eq!(&found["value"], &last["value"]);
            }
        }
    }
}
