//! The form in which objects are compared.
//!
//! [`recorded_form`] makes of a live object what the recording made of it. [`without_defaults`] goes further, for objects
//! that never met an API server: it takes the server's defaults out.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)").expect("the pattern is constant and valid")
});

/// The metadata that differs from run to run.
const PASSING: [&str; 7] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "generateName",
    "selfLink",
];

/// Kinds whose status is not `KServe`'s doing and not of interest.
const WITHOUT_STATUS: [&str; 6] = [
    "Pod",
    "Service",
    "HorizontalPodAutoscaler",
    "Ingress",
    "ConfigMap",
    "ScaledObject",
];

/// The suffixes that Kubernetes gives `ReplicaSets` (their Pod template's hash) and Pods.
#[derive(Clone, Debug, Default)]
pub struct Suffixes {
    pattern: Option<Regex>,
}

impl Suffixes {
    /// Of these hashes, the label `pod-template-hash` of `ReplicaSets`.
    #[must_use]
    pub fn of<'a>(hashes: impl IntoIterator<Item = &'a str>) -> Self {
        let hashes: Vec<String> = hashes.into_iter().map(regex::escape).collect();
        // Pods get five characters of this alphabet. Source: k8s.io/apimachinery/pkg/util/rand.
        let pattern = format!(r"-(?:{})(-[bcdfghjklmnpqrstvwxz2456789]{{5}})?\b", hashes.join("|"));
        Self {
            pattern: Regex::new(&pattern).ok().filter(|_| !hashes.is_empty()),
        }
    }

    fn hide(&self, text: &str) -> Option<String> {
        let pattern = self.pattern.as_ref()?;
        let replaced = pattern.replace_all(text, |found: &Captures<'_>| {
            if found.get(1).is_some() {
                "-<hash>-<suffix>"
            } else {
                "-<hash>"
            }
        });
        (replaced != text).then(|| replaced.into_owned())
    }
}

/// A live object as the recording would have it.
#[must_use]
pub fn recorded_form(mut object: Value, suffixes: &Suffixes) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in PASSING {
            metadata.remove(field);
        }
        for owner in each(metadata, "ownerReferences") {
            owner.remove("uid");
        }
        for (map, key) in [
            ("labels", "pod-template-hash"),
            ("annotations", "deployment.kubernetes.io/revision"),
        ] {
            if let Some(map) = metadata.get_mut(map).and_then(Value::as_object_mut) {
                map.remove(key);
            }
            drop_if(metadata, map, &json!({}));
        }
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if WITHOUT_STATUS.contains(&kind.as_str())
        && let Some(object) = object.as_object_mut()
    {
        object.remove("status");
    }
    match kind.as_str() {
        "Service" => service_addresses(&mut object["spec"]),
        "Pod" => service_account_token(&mut object["spec"]),
        _ => {}
    }
    texts(&mut object, suffixes);
    object
}

/// Replaces what differs from run to run in every text of a document.
pub fn texts(value: &mut Value, suffixes: &Suffixes) {
    match value {
        Value::String(text) => {
            if let Some(hidden) = suffixes.hide(text) {
                *text = hidden;
            }
            if TIME.is_match(text) {
                *text = TIME.replace_all(text, "<time>").into_owned();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| texts(value, suffixes)),
        Value::Object(map) => map.values_mut().for_each(|value| texts(value, suffixes)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Applies a JSON merge patch (RFC 7386), as the API server does.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn service_addresses(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    for port in each(spec, "ports") {
        port.remove("nodePort");
    }
}

/// The volume that the API server's admission gives each Pod for its token.
fn service_account_token(spec: &mut Value) {
    let is_token = |entry: &Value| {
        entry["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let Some(spec) = spec.as_object_mut() else { return };
    let drop_tokens = |parent: &mut Map<String, Value>, field: &str| {
        if let Some(list) = parent.get_mut(field).and_then(Value::as_array_mut) {
            list.retain(|entry| !is_token(entry));
        }
        drop_if(parent, field, &json!([]));
    };
    drop_tokens(spec, "volumes");
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            drop_tokens(container, "volumeMounts");
        }
    }
}

/// An object without the API server's defaults and admission, by the name the recording gave it.
pub fn without_defaults(name: &str, object: &mut Value) {
    let spec = &mut object["spec"];
    match name.split('.').next().unwrap_or_default() {
        "pod" | "pod-transformer" | "pod-explainer" => pod_spec(spec),
        "deployment" => deployment_spec(spec),
        "service" => service_spec(spec),
        "hpa" => horizontal_pod_autoscaler_spec(spec),
        "inferenceservice" => condition_times(&mut object["status"]),
        _ => {}
    }
}

fn drop_if(map: &mut Map<String, Value>, key: &str, default: &Value) {
    if map.get(key) == Some(default) {
        map.remove(key);
    }
}

fn each<'a>(parent: &'a mut Map<String, Value>, list: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    parent
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// A core/v1 `PodSpec`, from a Pod or a template.
fn pod_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    for (key, default) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
        ("enableServiceLinks", json!(true)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("priority", json!(0)),
        ("serviceAccountName", json!("default")),
        ("initContainers", json!([])),
        ("volumes", json!([])),
    ] {
        drop_if(spec, key, &default);
    }
    spec.remove("serviceAccount");
    if let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        tolerations.retain(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            !(key == "node.kubernetes.io/not-ready" || key == "node.kubernetes.io/unreachable")
        });
    }
    drop_if(spec, "tolerations", &json!([]));
    for list in ["containers", "initContainers"] {
        for item in each(spec, list) {
            container(item);
        }
    }
    for volume in each(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
                drop_if(source, "defaultMode", &json!(420));
            }
        }
        if let Some(source) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
            drop_if(source, "type", &json!(""));
        }
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            drop_if(image, "pullPolicy", &json!("IfNotPresent"));
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    // The default depends on the image's tag. Source: Kubernetes' documentation of image pull policies.
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let latest =
        !image.contains('@') && (image.ends_with(":latest") || !image[image.rfind('/').unwrap_or(0)..].contains(':'));
    let pull = if latest { "Always" } else { "IfNotPresent" };
    for (key, default) in [
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("imagePullPolicy", json!(pull)),
        ("resources", json!({})),
        ("env", json!([])),
    ] {
        drop_if(container, key, &default);
    }
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
        requests_from_limits(resources);
    }
    for port in each(container, "ports") {
        drop_if(port, "protocol", &json!("TCP"));
    }
    for mount in each(container, "volumeMounts") {
        drop_if(mount, "readOnly", &json!(false));
    }
    for variable in each(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef"))
            && let Some(field) = field.as_object_mut()
        {
            drop_if(field, "apiVersion", &json!("v1"));
        }
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else {
            continue;
        };
        for (key, default) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            drop_if(probe, key, &json!(default));
        }
        if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
            drop_if(get, "scheme", &json!("HTTP"));
        }
    }
}

/// What is limited and not requested is requested as far as it is limited.
fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (resource, quantity) in limits {
            requests.entry(resource).or_insert(quantity);
        }
    }
}

fn deployment_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    for (key, default) in [
        ("progressDeadlineSeconds", json!(600)),
        ("revisionHistoryLimit", json!(10)),
        ("replicas", json!(1)),
    ] {
        drop_if(spec, key, &default);
    }
}

fn service_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    for (key, default) in [
        ("internalTrafficPolicy", json!("Cluster")),
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
        ("sessionAffinity", json!("None")),
        ("type", json!("ClusterIP")),
    ] {
        drop_if(spec, key, &default);
    }
    spec.remove("clusterIPs");
}

/// The behaviour the API server fills in.
fn horizontal_pod_autoscaler_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    let default = json!({
        "scaleDown": {"policies": [{"periodSeconds": 15, "type": "Percent", "value": 100}], "selectPolicy": "Max"},
        "scaleUp": {"policies": [{"periodSeconds": 15, "type": "Pods", "value": 4},
            {"periodSeconds": 15, "type": "Percent", "value": 100}],
            "selectPolicy": "Max", "stabilizationWindowSeconds": 0},
    });
    drop_if(spec, "behavior", &default);
    // What is sent, where the API server fills it in.
    drop_if(spec, "behavior", &json!({}));
}

fn condition_times(status: &mut Value) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastTransitionTime");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Suffixes, merge_patch, recorded_form, without_defaults};

    #[test]
    fn a_live_object_loses_what_differs_from_run_to_run() {
        let live = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "m-predictor-6d4cf56db6-x7k2p", "uid": "u", "resourceVersion": "7", "generateName": "m-",
                "labels": {"pod-template-hash": "6d4cf56db6"}, "annotations": {"a": "b"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "m-predictor-6d4cf56db6", "uid": "v"}],
            },
            "spec": {
                "volumes": [{"name": "kube-api-access-9f8s2"}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "kube-api-access-9f8s2"}, {"name": "x"}]}],
            },
            "status": {"phase": "Pending"},
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "m-predictor-<hash>-<suffix>", "annotations": {"a": "b"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "m-predictor-<hash>"}],
            },
            "spec": {"containers": [{"name": "c", "volumeMounts": [{"name": "x"}]}]},
        });
        assert_eq!(recorded_form(live, &Suffixes::of(["6d4cf56db6"])), expected);
    }

    #[test]
    fn times_and_hashes_are_hidden_in_messages_and_statuses_of_interest_stay() {
        let live = json!({"kind": "InferenceService", "metadata": {}, "status": {
            "time": "2026-08-01T10:00:00Z", "message": "ReplicaSet \"m-6d4cf5\" at 2026-08-01T10:00:00.5+02:00; m-6d4cf5-",
        }});
        let form = recorded_form(live, &Suffixes::of(["6d4cf5"]));
        assert_eq!(
            form["status"],
            json!({"time": "<time>", "message": "ReplicaSet \"m-<hash>\" at <time>; m-<hash>-"})
        );
        let unknown = json!({"kind": "X", "message": "m-6d4cf5"});
        assert_eq!(recorded_form(unknown.clone(), &Suffixes::default()), unknown);
    }

    #[test]
    fn service_addresses_go_unless_there_is_none() {
        let service = |address: &str| {
            let live = json!({"kind": "Service", "metadata": {},
                "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80, "nodePort": 30000}]}});
            recorded_form(live, &Suffixes::default())["spec"].clone()
        };
        assert_eq!(service("10.0.0.1"), json!({"ports": [{"port": 80}]}));
        assert_eq!(
            service("None"),
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]})
        );
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_null_removes() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge_patch(
            &mut object,
            &json!({"a": {"c": [3], "e": {"f": 1, "g": null}}, "d": null}),
        );
        assert_eq!(object, json!({"a": {"b": 1, "c": [3], "e": {"f": 1}}}));
    }

    #[test]
    fn defaults_of_the_server_are_taken_out_and_other_values_stay() {
        let mut pod = json!({"spec": {"dnsPolicy": "ClusterFirst", "containers": [
            {"image": "a:1", "imagePullPolicy": "IfNotPresent"},
            {"image": "host:5000/a", "imagePullPolicy": "Always"},
            {"image": "a:latest", "imagePullPolicy": "IfNotPresent"},
        ]}});
        without_defaults("pod-transformer", &mut pod);
        assert_eq!(
            pod,
            json!({"spec": {"containers": [
                {"image": "a:1"}, {"image": "host:5000/a"}, {"image": "a:latest", "imagePullPolicy": "IfNotPresent"},
            ]}})
        );
    }
}
