//! What the controllers of the recording made of the children of one service.

use std::collections::{BTreeMap, BTreeSet};

use golden::{Objects, RouteStatus};
use isvc_core::{
    desired::{ChildKind, Desired, DesiredState, Wanted},
    observed::{ContainerFacts, Live, LiveDeployment, LiveObject, LivePod, LiveRoute, RouteCondition, Termination},
};
use serde_json::{Value, json};

/// Where a kind is in what is wanted.
type Field = fn(&DesiredState) -> &Wanted;

/// The kinds of children, by the recording's names.
const KINDS: [(&str, ChildKind, Field); 6] = [
    ("service", ChildKind::Service, |desired| &desired.services),
    ("deployment", ChildKind::Deployment, |desired| &desired.deployments),
    ("hpa", ChildKind::HorizontalPodAutoscaler, |desired| {
        &desired.horizontal_pod_autoscalers
    }),
    ("scaledobject", ChildKind::ScaledObject, |desired| {
        &desired.scaled_objects
    }),
    ("ingress", ChildKind::Ingress, |desired| &desired.ingresses),
    ("httproute", ChildKind::HttpRoute, |desired| &desired.http_routes),
];

/// The children of one service.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Children {
    /// What exists, by kind and name.
    objects: BTreeMap<(ChildKind, String), Desired>,
    /// Statuses of Deployments.
    statuses: BTreeMap<String, Value>,
    /// The template each Deployment's newest Pods were made of, and their names.
    templates: BTreeMap<String, (Value, BTreeSet<String>)>,
    pods: Vec<LivePod>,
    /// What a Gateway said of routes: whether it refused one, and why.
    routes: BTreeMap<String, Option<RouteCondition>>,
}

impl Children {
    /// Brings what exists into the wanted shape, as `apply` does.
    pub(crate) fn apply(&mut self, desired: &DesiredState) {
        let mut objects = BTreeMap::new();
        for (_, kind, field) in KINDS {
            let Wanted { objects: wanted, kept } = field(desired);
            for name in kept {
                if let Some(object) = self.objects.get(&(kind, name.clone())) {
                    objects.insert((kind, name.clone()), object.clone());
                }
            }
            for object in wanted {
                objects.insert((kind, object.name.clone()), object.clone());
            }
        }
        self.objects = objects;
        let exists = |kind, name: &String| self.objects.contains_key(&(kind, name.clone()));
        self.statuses.retain(|name, _| exists(ChildKind::Deployment, name));
        self.templates.retain(|name, _| exists(ChildKind::Deployment, name));
        self.routes.retain(|name, _| exists(ChildKind::HttpRoute, name));
        self.pods
            .retain(|pod| exists(ChildKind::Deployment, &pod.app.trim_start_matches("isvc.").to_owned()));
    }

    /// An object was deleted by hand.
    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        self.objects
            .retain(|(known, object), _| !(known.as_str() == kind && object == name));
        if kind == "Deployment" {
            self.statuses.remove(name);
            self.templates.remove(name);
            self.pods.retain(|pod| pod.app != app(name));
        }
    }

    /// What the Deployment controller reports, as far as the recording shows it.
    pub(crate) fn observe(&mut self, recorded: Option<&Objects>, now: &str) {
        self.create_pods(recorded, now);
        for name in self.templates.keys() {
            if let Some(recorded) = recorded.and_then(|recorded| recorded.get(&format!("deployment.{name}"))) {
                self.statuses.insert(name.clone(), recorded["status"].clone());
            }
        }
    }

    /// What the `ReplicaSet` controller creates, as far as the recording shows it.
    pub(crate) fn create_pods(&mut self, recorded: Option<&Objects>, now: &str) {
        let deployments: Vec<Desired> = self.of(ChildKind::Deployment).cloned().collect();
        for deployment in deployments {
            let recorded = recorded.and_then(|recorded| recorded.get(&format!("deployment.{}", deployment.name)));
            let wanted = recorded
                .and_then(|recorded| recorded["spec"]["replicas"].as_u64())
                .unwrap_or(1);
            let refused = recorded.is_some_and(|recorded| recorded["status"]["replicas"].is_null());
            let mut missing = usize::try_from(wanted).expect("a handful of replicas");
            let template = &deployment.spec["template"];
            let (known, newest) = self.templates.entry(deployment.name.clone()).or_default();
            if known != template {
                known.clone_from(template);
                newest.clear();
            }
            missing = missing.saturating_sub(newest.len());
            for _ in 0..if refused { 0 } else { missing } {
                let count = self.pods.len();
                let pod = LivePod {
                    name: format!("{}-{now}-{count}", deployment.name),
                    app: app(&deployment.name),
                    creation_timestamp: format!("{now}-{count:03}"),
                    phase: "Pending".to_owned(),
                    ..LivePod::default()
                };
                newest.insert(pod.name.clone());
                self.pods.insert(0, pod);
            }
        }
    }

    /// Every container of every newest Pod of a Deployment is well; older Pods are gone then.
    pub(crate) fn ready(&mut self, deployment: &str, recorded: Option<&Objects>) {
        let newest = self.templates.get(deployment).map(|(_, newest)| newest);
        let is_newest = |pod: &LivePod| newest.is_some_and(|newest| newest.contains(&pod.name));
        self.pods.retain(|pod| pod.app != app(deployment) || is_newest(pod));
        for pod in self.pods.iter_mut().filter(|pod| pod.app == app(deployment)) {
            "Running".clone_into(&mut pod.phase);
            pod.ready = true;
            pod.model_container = Some(ContainerFacts {
                running: true,
                ..ContainerFacts::default()
            });
            pod.storage_initializer = Some(ContainerFacts {
                terminated: Some(Termination {
                    reason: "Completed".into(),
                    ..Termination::default()
                }),
                ..ContainerFacts::default()
            });
        }
        let exists = self
            .objects
            .contains_key(&(ChildKind::Deployment, deployment.to_owned()));
        if recorded.is_none() && exists {
            let status = json!({"observedGeneration": 1, "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
                 "message": "Deployment has minimum availability."},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
                 "message": format!("ReplicaSet \"{deployment}-<hash>\" has successfully progressed.")},
            ]});
            self.statuses.insert(deployment.to_owned(), status);
        }
    }

    /// A hand-written status of a Deployment's first Pod; whether there is one.
    pub(crate) fn pod_status(&mut self, deployment: &str, status: &Value) -> bool {
        let Some(pod) = self.pods.iter_mut().find(|pod| pod.app == app(deployment)) else {
            return false;
        };
        let find = |list: &str, name: &str| {
            let list = status[list].as_array()?;
            Some(container_facts(list.iter().find(|entry| entry["name"] == name)?))
        };
        if let Some(phase) = status["phase"].as_str() {
            phase.clone_into(&mut pod.phase);
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        for condition in conditions.filter(|condition| condition["type"] == "Ready") {
            pod.ready = condition["status"] == "True";
        }
        if let Some(facts) = find("initContainerStatuses", "storage-initializer") {
            pod.storage_initializer = Some(facts);
        }
        if let Some(facts) = find("containerStatuses", "kserve-container") {
            pod.model_container = Some(facts);
        }
        true
    }

    /// What a Gateway says of routes.
    pub(crate) fn route_status(&mut self, status: &RouteStatus) {
        for name in &status.routes {
            if self.objects.contains_key(&(ChildKind::HttpRoute, name.clone())) {
                let refused = (!status.accepted).then(|| RouteCondition {
                    reason: status.reason.clone().unwrap_or_default(),
                    message: status.message.clone().unwrap_or_default(),
                });
                self.routes.insert(name.clone(), refused);
            }
        }
    }

    /// As the operator observes them.
    pub(crate) fn live(&self) -> Live {
        let objects = |kind| -> Vec<LiveObject> { self.of(kind).map(live_object).collect() };
        let deployments = self.of(ChildKind::Deployment).map(|deployment| {
            let status = self.statuses.get(&deployment.name).unwrap_or(&Value::Null);
            LiveDeployment {
                object: live_object(deployment),
                observed_generation: status["observedGeneration"].as_i64().unwrap_or_default(),
                conditions: serde_json::from_value(status["conditions"].clone()).unwrap_or_default(),
                owned_replicas: None,
            }
        });
        let routes = self.of(ChildKind::HttpRoute).map(|route| {
            let said = self.routes.get(&route.name);
            LiveRoute {
                object: live_object(route),
                has_parents: said.is_some(),
                refused: said.cloned().flatten(),
            }
        });
        Live {
            deployments: deployments.collect(),
            services: objects(ChildKind::Service),
            horizontal_pod_autoscalers: objects(ChildKind::HorizontalPodAutoscaler),
            scaled_objects: objects(ChildKind::ScaledObject),
            ingresses: objects(ChildKind::Ingress),
            http_routes: routes.collect(),
            pods: self.pods.clone(),
            ..Live::default()
        }
    }

    /// By the recording's names. A Deployment's template is its Pods', as far as any were recorded.
    pub(crate) fn recorded_form(&self, recorded: Option<&Objects>) -> Objects {
        let mut found = Objects::new();
        for (prefix, kind, _) in KINDS {
            for object in self.of(kind) {
                let mut manifest = object.manifest(kind);
                let owners = manifest["metadata"]["ownerReferences"].as_array_mut();
                for owner in owners.into_iter().flatten().filter_map(Value::as_object_mut) {
                    owner.remove("uid");
                }
                found.insert(format!("{prefix}.{}", object.name), manifest);
            }
        }
        let deployments: Vec<&Desired> = self.of(ChildKind::Deployment).collect();
        for deployment in &deployments {
            let component = |one: &Desired| one.labels.get("component").cloned().unwrap_or_default();
            let of_component = component(deployment);
            let alone = deployments
                .iter()
                .filter(|other| component(other) == of_component)
                .count()
                == 1;
            let name = match (alone, of_component.as_str()) {
                (true, "predictor") => "pod".to_owned(),
                (true, other) => format!("pod-{other}"),
                (false, _) => format!("pod.{}", deployment.name),
            };
            // Pods that the recording's webhook or API server refused cannot be compared, nor those of no replicas.
            let full = format!("pod.{}", deployment.name);
            let Some(name) = [name, full]
                .into_iter()
                .find(|name| recorded.is_some_and(|recorded| recorded.contains_key(name)))
            else {
                continue;
            };
            let template = &deployment.spec["template"];
            found.insert(
                name,
                json!({"metadata": template["metadata"], "spec": template["spec"]}),
            );
        }
        found
    }

    fn of(&self, kind: ChildKind) -> impl Iterator<Item = &Desired> {
        let of_kind = self.objects.iter().filter(move |((known, _), _)| *known == kind);
        of_kind.map(|(_, object)| object)
    }
}

fn app(deployment: &str) -> String {
    format!("isvc.{deployment}")
}

fn live_object(desired: &Desired) -> LiveObject {
    LiveObject {
        name: desired.name.clone(),
        uid: desired.name.clone(),
        controller: Some(desired.owner.clone()),
        labels: desired.labels.clone(),
        annotations: desired.annotations.clone(),
        spec: desired.spec.clone(),
        ..LiveObject::default()
    }
}

fn container_facts(status: &Value) -> ContainerFacts {
    let termination = |value: &Value| serde_json::from_value(value.clone()).ok().filter(|_| value.is_object());
    ContainerFacts {
        running: status["state"]["running"].is_object(),
        waiting: status["state"]["waiting"]["reason"].as_str().map(str::to_owned),
        terminated: termination(&status["state"]["terminated"]),
        last_terminated: termination(&status["lastState"]["terminated"]),
    }
}
