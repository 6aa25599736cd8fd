//! What exists in a namespace, in the recording's form and by its names.

use std::collections::{BTreeMap, BTreeSet};

use golden::{
    Objects,
    normalize::{Suffixes, recorded_form, texts},
};
use serde_json::{Value, json};

use super::{kinds::KINDS, pods::newest_pods, view::Namespace};

/// In every namespace, by Kubernetes itself.
const ROOT_CERTIFICATES: &str = "kube-root-ca.crt";

/// Everything that is recorded, but for what the case itself has made.
pub(super) fn of(namespace: &Namespace, made: &BTreeSet<(String, String)>) -> Objects {
    let suffixes = Suffixes::of(namespace.hashes.iter().map(String::as_str));
    let mut objects = Objects::new();
    for kind in KINDS {
        let Some(prefix) = kind.recorded else { continue };
        for object in namespace.of(kind.name) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let is_service = kind.name == "InferenceService";
            let own = made.contains(&(kind.name.to_owned(), name.to_owned())) && !is_service;
            if own || name == ROOT_CERTIFICATES {
                continue;
            }
            let mut form = recorded_form(object.clone(), &suffixes);
            if is_service {
                // As the user wrote it, where the recording has what admission made of it.
                form = json!({"status": form["status"]});
            }
            objects.insert(format!("{prefix}.{name}"), form);
        }
    }
    for (name, pod) in pods(namespace) {
        objects.insert(name, recorded_form(pod.clone(), &suffixes));
    }
    objects.insert("events".to_owned(), events(namespace, &suffixes));
    objects
}

/// One Pod of each Deployment: `pod` for a predictor, `pod-transformer` and `pod-explainer`, and `pod.DEPLOYMENT` where a
/// component has several Deployments.
fn pods(namespace: &Namespace) -> Vec<(String, &Value)> {
    let mut components: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for deployment in namespace.of("Deployment") {
        let metadata = &deployment["metadata"];
        let component = metadata["labels"]["component"].as_str().unwrap_or_default();
        let name = metadata["name"].as_str().unwrap_or_default();
        components.entry(component).or_default().push(name);
    }
    let mut pods = Vec::new();
    for (component, deployments) in components {
        for deployment in &deployments {
            let Some(pod) = newest_pods(namespace, deployment).into_iter().next() else {
                continue;
            };
            let name = match (deployments.len(), component) {
                (1, "predictor") => "pod".to_owned(),
                (1, component) => format!("pod-{component}"),
                _ => format!("pod.{deployment}"),
            };
            pods.push((name, pod));
        }
    }
    pods
}

fn events(namespace: &Namespace, suffixes: &Suffixes) -> Value {
    let of_services = namespace
        .of("Event")
        .filter(|event| event["involvedObject"]["kind"] == "InferenceService");
    let events = of_services.map(|event| {
        let mut event = json!({
            "type": event["type"], "reason": event["reason"], "message": event["message"],
            "object": event["involvedObject"]["name"],
        });
        texts(&mut event, suffixes);
        event
    });
    events.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::of;
    use crate::golden::view::Namespace;

    fn namespace(objects: &[Value]) -> Namespace {
        let mut namespace = Namespace::default();
        for object in objects {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let kind = super::super::kinds::kind(&text(&object["kind"])).expect("a known kind");
            let name = text(&object["metadata"]["name"]);
            namespace.objects.insert((kind.name, name), object.clone());
        }
        namespace.hashes.insert("5d8f".to_owned());
        namespace
    }

    fn deployment(name: &str, component: &str) -> [Value; 3] {
        let (set, pod) = (format!("{name}-5d8f"), format!("{name}-5d8f-x7k2p"));
        [
            json!({"kind": "Deployment", "metadata": {"name": name, "labels": {"component": component}}}),
            json!({"kind": "ReplicaSet", "metadata": {"name": set,
                "annotations": {"deployment.kubernetes.io/revision": "1"},
                "ownerReferences": [{"kind": "Deployment", "name": name}]}}),
            json!({"kind": "Pod", "metadata": {"name": pod, "ownerReferences": [{"kind": "ReplicaSet", "name": set}]}}),
        ]
    }

    #[test]
    fn objects_have_the_recordings_names() {
        let mut objects = vec![
            json!({"kind": "InferenceService", "metadata": {"name": "m"}, "spec": {"a": 1}, "status": {"b": "m-5d8f"}}),
            json!({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}),
            json!({"kind": "ConfigMap", "metadata": {"name": "mine"}}),
            json!({"kind": "HTTPRoute", "metadata": {"name": "m"}}),
            json!({"kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "R", "message": "at m-5d8f",
                "involvedObject": {"kind": "InferenceService", "name": "m"}}),
            json!({"kind": "Event", "metadata": {"name": "f"}, "involvedObject": {"kind": "Pod", "name": "m"}}),
        ];
        objects.extend(deployment("m-predictor", "predictor"));
        objects.extend(deployment("m-transformer", "transformer"));
        let made = BTreeSet::from([
            ("ConfigMap".to_owned(), "mine".to_owned()),
            ("InferenceService".to_owned(), "m".to_owned()),
        ]);
        let found = of(&namespace(&objects), &made);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let expected = [
            "deployment.m-predictor",
            "deployment.m-transformer",
            "events",
            "httproute.m",
            "inferenceservice.m",
            "pod",
            "pod-transformer",
        ];
        assert_eq!(names, expected);
        assert_eq!(found["inferenceservice.m"], json!({"status": {"b": "m-<hash>"}}));
        assert_eq!(found["pod"]["metadata"]["name"], "m-predictor-<hash>-<suffix>");
        let event = json!({"type": "Normal", "reason": "R", "message": "at m-<hash>", "object": "m"});
        assert_eq!(found["events"], json!([event]));
    }

    #[test]
    fn pods_of_several_deployments_of_a_component_are_told_apart() {
        let objects: Vec<Value> = [
            deployment("a-predictor", "predictor"),
            deployment("b-predictor", "predictor"),
        ]
        .concat();
        let found = of(&namespace(&objects), &BTreeSet::new());
        assert!(found.contains_key("pod.a-predictor") && found.contains_key("pod.b-predictor"));
        assert!(!found.contains_key("pod"));
    }
}
