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
