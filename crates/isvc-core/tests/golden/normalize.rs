//! Takes out of both sides what the API server's defaults and admission add, and what differs from run to run.

use serde_json::{Map, Value, json};

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
pub(crate) fn pod_spec(spec: &mut Value) {
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
    }
}

fn container(container: &mut Map<String, Value>) {
    for (key, default) in [
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("imagePullPolicy", json!("IfNotPresent")),
        ("resources", json!({})),
        ("env", json!([])),
    ] {
        drop_if(container, key, &default);
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

/// A Deployment's spec without its template.
pub(crate) fn deployment_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    spec.remove("template");
    for (key, default) in [
        ("progressDeadlineSeconds", json!(600)),
        ("revisionHistoryLimit", json!(10)),
        ("replicas", json!(1)),
    ] {
        drop_if(spec, key, &default);
    }
}

/// A core/v1 `ServiceSpec`.
pub(crate) fn service_spec(spec: &mut Value) {
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

/// An autoscaling/v2 `HorizontalPodAutoscalerSpec`: the behaviour the API server fills in.
pub(crate) fn horizontal_pod_autoscaler_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    let default = json!({
        "scaleDown": {"policies": [{"periodSeconds": 15, "type": "Percent", "value": 100}], "selectPolicy": "Max"},
        "scaleUp": {"policies": [{"periodSeconds": 15, "type": "Pods", "value": 4},
            {"periodSeconds": 15, "type": "Percent", "value": 100}],
            "selectPolicy": "Max", "stabilizationWindowSeconds": 0},
    });
    drop_if(spec, "behavior", &default);
    drop_if(spec, "behavior", &json!({}));
}

/// An `InferenceService` status: times differ, Go pointers in texts too.
pub(crate) fn status(status: &mut Value) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastTransitionTime");
    }
}
