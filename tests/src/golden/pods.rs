//! What a kubelet and a Gateway would write, written by hand.

use golden::RouteStatus;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{kinds::kind, view::Namespace};

/// Who says so in the recordings' `HTTPRoutes`.
const GATEWAY_CONTROLLER: &str = "golden.test/gateway";

/// The newest `ReplicaSet` of a Deployment.
fn newest_replica_set<'a>(namespace: &'a Namespace, deployment: &str) -> Option<&'a Value> {
    let revision = |set: &&Value| {
        let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let sets = namespace
        .of("ReplicaSet")
        .filter(|set| is_owned_by(set, "Deployment", deployment));
    sets.max_by_key(revision)
}

/// The Pods of a Deployment's newest `ReplicaSet`, the first one first.
pub(super) fn newest_pods<'a>(namespace: &'a Namespace, deployment: &str) -> Vec<&'a Value> {
    let Some(set) = newest_replica_set(namespace, deployment) else {
        return Vec::new();
    };
    let set = set["metadata"]["name"].as_str().unwrap_or_default();
    let pods = namespace.of("Pod").filter(|pod| is_owned_by(pod, "ReplicaSet", set));
    pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect()
}

fn is_owned_by(object: &Value, kind: &str, name: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .any(|owner| owner["kind"] == kind && owner["name"] == name)
}

/// Gives every Pod of a Deployment's newest `ReplicaSet` the status of a healthy Pod.
pub(super) async fn make_ready(client: &Client, namespace: &Namespace, deployment: &str) -> Result<(), String> {
    let Some(live) = namespace.get("Deployment", deployment) else {
        return Err(format!("there is no Deployment {deployment}"));
    };
    let space = live["metadata"]["namespace"].as_str().unwrap_or_default();
    for pod in newest_pods(namespace, deployment) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        patch_status(client, "Pod", space, name, &healthy(pod)).await?;
    }
    Ok(())
}

/// Merges a status into a Deployment's first Pod.
pub(super) async fn set_status(
    client: &Client,
    namespace: &Namespace,
    deployment: &str,
    status: &Value,
) -> Result<(), String> {
    let pods = newest_pods(namespace, deployment);
    let Some(pod) = pods.first() else {
        return Err(format!("Deployment {deployment} has no Pod"));
    };
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    patch_status(client, "Pod", &text("namespace"), &text("name"), status).await
}

/// The time as Kubernetes writes it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What a kubelet reports of a Pod all is well with.
fn healthy(pod: &Value) -> Value {
    let now = now();
    let condition =
        |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now, "lastProbeTime": null});
    let entry = |container: &Value, state: Value| {
        json!({
            "name": container["name"], "image": container["image"], "imageID": "", "ready": true, "restartCount": 0,
            "started": true, "state": state,
        })
    };
    let list = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let running = || json!({"running": {"startedAt": now}});
    let completed =
        || json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    let containers: Vec<Value> = list("containers").iter().map(|one| entry(one, running())).collect();
    let first: Vec<Value> = list("initContainers")
        .iter()
        .map(|one| {
            // One that is restarted always is a sidecar, which keeps running.
            let stays = one["restartPolicy"] == "Always";
            entry(one, if stays { running() } else { completed() })
        })
        .collect();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({
        "phase": "Running",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": containers,
        "initContainerStatuses": first,
    })
}

/// Gives a route the status of one parent.
pub(super) async fn set_route_status(
    client: &Client,
    namespace: &Namespace,
    name: &str,
    wanted: &RouteStatus,
) -> Result<(), String> {
    let Some(route) = namespace.get("HTTPRoute", name) else {
        return Err(format!("there is no HTTPRoute {name}"));
    };
    let generation = &route["metadata"]["generation"];
    let condition = |type_: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": type_, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
            "lastTransitionTime": now(), "observedGeneration": generation,
        })
    };
    let reason = wanted.reason.as_deref().unwrap_or("Accepted");
    let message = wanted.message.as_deref().unwrap_or_default();
    let status = json!({"parents": [{
        "parentRef": route["spec"]["parentRefs"][0],
        "controllerName": GATEWAY_CONTROLLER,
        "conditions": [
            condition("Accepted", wanted.accepted, reason, message),
            condition("ResolvedRefs", true, "ResolvedRefs", ""),
        ],
    }]});
    let space = route["metadata"]["namespace"].as_str().unwrap_or_default();
    patch_status(client, "HTTPRoute", space, name, &status).await
}

async fn patch_status(
    client: &Client,
    kind_name: &str,
    namespace: &str,
    name: &str,
    status: &Value,
) -> Result<(), String> {
    let api = kind(kind_name)?.api(client, namespace);
    let patch = Patch::Merge(json!({"status": status}));
    let patched = api.patch_status(name, &PatchParams::default(), &patch).await;
    patched
        .map(|_| ())
        .map_err(|error| format!("status of {kind_name} {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Namespace, healthy, newest_pods};

    #[test]
    fn a_healthy_pod_has_finished_what_comes_first_but_for_sidecars() {
        let pod = json!({"spec": {
            "initContainers": [{"name": "fetch", "image": "f"}, {"name": "side", "image": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "image": "i"}],
        }});
        let status = healthy(&pod);
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        assert!(status["initContainerStatuses"][1]["state"]["running"].is_object());
        assert!(status["containerStatuses"][0]["state"]["running"].is_object());
        let conditions = status["conditions"].as_array().expect("a list");
        assert!(
            conditions
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        );
    }

    #[test]
    fn the_newest_replica_set_has_the_highest_revision() {
        let mut namespace = Namespace::default();
        let mut add = |kind: &'static str, name: &str, owner: &str, of: &str, revision: Option<&str>| {
            let metadata = json!({"name": name, "annotations": {"deployment.kubernetes.io/revision": revision},
                "ownerReferences": [{"kind": owner, "name": of}]});
            namespace
                .objects
                .insert((kind, name.to_owned()), json!({"metadata": metadata}));
        };
        add("ReplicaSet", "m-a", "Deployment", "m", Some("10"));
        add("ReplicaSet", "m-b", "Deployment", "m", Some("9"));
        add("Pod", "m-a-1", "ReplicaSet", "m-a", None);
        add("Pod", "m-b-1", "ReplicaSet", "m-b", None);
        let names: Vec<&Value> = newest_pods(&namespace, "m")
            .iter()
            .map(|pod| &pod["metadata"]["name"])
            .collect();
        assert_eq!(names, ["m-a-1"]);
        assert!(newest_pods(&namespace, "other").is_empty());
    }
}
