//! A cluster in plain data: what the inputs put there, and what the controllers of the recording made of our children.

use std::{collections::BTreeMap, sync::Arc};

use isvc_core::{
    api::{InferenceService, InferenceServiceStatus, Meta, Scope, ServingRuntime, StorageContainer},
    credential::{self, CredentialFacts},
    decide::{self, Decision},
    desired::{ChildKind, Desired, DesiredState},
    observed::{
        ByName, ContainerFacts, Live, LiveDeployment, LiveObject, LivePod, Lookup, Observed, ServiceAccountFacts,
        StorageInjection,
    },
    report::{self, Applied},
    settings::Settings,
};
use serde_json::{Value, json};

/// What exists after a step, by the names the recordings use.
pub(crate) struct Outcome {
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) events: Value,
}

pub(crate) struct World {
    namespace: String,
    settings: Arc<Settings>,
    clock: u32,
    secrets: BTreeMap<String, CredentialFacts>,
    accounts: BTreeMap<String, ServiceAccountFacts>,
    runtimes: BTreeMap<String, Arc<ServingRuntime>>,
    cluster_runtimes: BTreeMap<String, Arc<ServingRuntime>>,
    storage_containers: BTreeMap<String, Arc<StorageContainer>>,
    services: BTreeMap<String, Service>,
}

/// One `InferenceService` and all that hangs on it.
struct Service {
    object: Value,
    status: InferenceServiceStatus,
    desired: DesiredState,
    deployment_status: Value,
    pods: Vec<LivePod>,
    template: Value,
    events: Vec<Value>,
}

impl World {
    pub(crate) fn new(namespace: &str, config: &Value) -> Self {
        let data: BTreeMap<String, String> =
            serde_json::from_value(config["data"].clone()).expect("a ConfigMap holds text");
        Self {
            namespace: namespace.to_owned(),
            settings: Arc::new(Settings::parse(&data).expect("the recorded configurations are valid")),
            clock: 0,
            secrets: BTreeMap::new(),
            accounts: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            cluster_runtimes: BTreeMap::new(),
            storage_containers: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// Lets a second pass, so that what is created from now on is newer.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
    }

    fn now(&self) -> String {
        format!("2026-01-01T00:{:02}:{:02}Z", self.clock / 60, self.clock % 60)
    }

    fn meta(&self, object: &Value) -> Meta {
        let mut meta: Meta = serde_json::from_value(object["metadata"].clone())
            .unwrap_or_else(|error| panic!("metadata {}: {error}", object["metadata"]));
        meta.namespace.clone_from(&self.namespace);
        meta.uid = format!("uid-{}", meta.name);
        meta.creation_timestamp = self.now();
        meta
    }

    pub(crate) fn apply(&mut self, object: Value) {
        let meta = self.meta(&object);
        let name = meta.name.clone();
        let spec = object["spec"].clone();
        match object["kind"].as_str().unwrap_or_default() {
            "Secret" => {
                self.secrets.insert(name, credential_facts(&object, &meta));
            }
            "ServiceAccount" => {
                let secrets = object["secrets"].as_array().into_iter().flatten();
                let secrets = secrets
                    .filter_map(|secret| secret["name"].as_str().map(str::to_owned))
                    .collect();
                self.accounts.insert(
                    name,
                    ServiceAccountFacts {
                        secrets,
                        annotations: storage_annotations(&meta),
                    },
                );
            }
            "ServingRuntime" => {
                let runtime = ServingRuntime::parse(Scope::Namespace, meta, spec).expect("a readable runtime");
                self.runtimes.insert(name, Arc::new(runtime));
            }
            "ClusterServingRuntime" => {
                let runtime = ServingRuntime::parse(Scope::Cluster, meta, spec).expect("a readable runtime");
                self.cluster_runtimes.insert(name, Arc::new(runtime));
            }
            "ClusterStorageContainer" => {
                let container = StorageContainer::parse(meta, spec, object["disabled"].as_bool()).expect("readable");
                self.storage_containers.insert(name, Arc::new(container));
            }
            "InferenceService" => {
                let service = Service {
                    object: object.clone(),
                    status: InferenceServiceStatus::default(),
                    desired: DesiredState::default(),
                    deployment_status: json!({}),
                    pods: Vec::new(),
                    template: Value::Null,
                    events: Vec::new(),
                };
                self.services.entry(name).or_insert(service).object = object;
            }
            // Objects that no decision reads.
            "ConfigMap" | "PersistentVolumeClaim" | "Namespace" => {}
            other => panic!("kind {other} is not known here"),
        }
    }

    /// A JSON merge patch. Children edited by hand are not patched here: what we want of them does not depend on it.
    pub(crate) fn patch(&mut self, patch: &Value) {
        if patch["kind"] == "InferenceService" {
            let name = patch["name"].as_str().expect("a name");
            let service = self.services.get_mut(name).expect("the patched service exists");
            merge_patch(&mut service.object, &patch["body"]);
        }
    }

    /// Every container of every Pod of a Deployment is well.
    pub(crate) fn ready(&mut self, deployment: &str) {
        let app = format!("isvc.{deployment}");
        for pod in self
            .services
            .values_mut()
            .flat_map(|service| &mut service.pods)
            .filter(|pod| pod.app == app)
        {
            "Running".clone_into(&mut pod.phase);
            pod.ready = true;
            pod.model_container = Some(ContainerFacts {
                running: true,
                ..ContainerFacts::default()
            });
            pod.storage_initializer = Some(ContainerFacts {
                terminated: Some(isvc_core::observed::Termination {
                    reason: "Completed".into(),
                    ..Default::default()
                }),
                ..ContainerFacts::default()
            });
        }
    }

    /// A hand-written status of a Deployment's first Pod.
    pub(crate) fn pod_status(&mut self, step: &Value) {
        let app = format!("isvc.{}", step["deployment"].as_str().expect("a Deployment's name"));
        let status = &step["status"];
        let pod = self
            .services
            .values_mut()
            .flat_map(|service| &mut service.pods)
            .find(|pod| pod.app == app);
        let pod = pod.expect("the Deployment has a Pod");
        let find = |list: &str, name: &str| {
            let list = status[list].as_array()?;
            Some(container_facts(list.iter().find(|entry| entry["name"] == name)?))
        };
        if let Some(phase) = status["phase"].as_str() {
            phase.clone_into(&mut pod.phase);
        }
        if let Some(facts) = find("initContainerStatuses", "storage-initializer") {
            pod.storage_initializer = Some(facts);
        }
        if let Some(facts) = find("containerStatuses", "kserve-container") {
            pod.model_container = Some(facts);
        }
    }

    /// Runs passes over every service until nothing changes.
    pub(crate) fn settle(&mut self, expected: Option<&BTreeMap<String, Value>>) -> Outcome {
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in &names {
            for round in 0.. {
                assert!(round < 10, "{name}: status never settles");
                if !self.pass(name, expected) {
                    break;
                }
            }
        }
        self.outcome()
    }

    /// One pass; whether it changed anything.
    fn pass(&mut self, name: &str, expected: Option<&BTreeMap<String, Value>>) -> bool {
        let now = self.now();
        let service = &self.services[name];
        let meta = self.meta(&service.object);
        let parsed = InferenceService::parse(meta, service.object["spec"].clone(), service.status.clone());
        let parsed = parsed.expect("readable inputs");
        let live = live(service);
        let wanted = decide::wanted(&parsed, &self.settings, StorageInjection::Deployment, &live);
        let find_account = |name: &String| match self.accounts.get(name) {
            Some(account) => Lookup::Found(account.clone()),
            None => Lookup::Missing,
        };
        let accounts = wanted.service_accounts.iter();
        let service_accounts: BTreeMap<_, _> = accounts.map(|name| (name.clone(), find_account(name))).collect();
        let mut secrets = wanted.secrets.clone();
        secrets.extend(
            service_accounts
                .values()
                .flat_map(|account| decide::secrets_of(&wanted, account)),
        );
        let secrets = secrets.into_iter().map(|name| {
            let found = self.secrets.get(&name).cloned().map_or(Lookup::Missing, Lookup::Found);
            (name, found)
        });
        let observed = Observed {
            service: parsed,
            settings: Arc::clone(&self.settings),
            runtimes: self.runtimes.values().cloned().collect(),
            cluster_runtimes: self.cluster_runtimes.values().cloned().collect(),
            storage_containers: self.storage_containers.values().cloned().collect(),
            by_name: ByName {
                service_accounts,
                secrets: secrets.collect(),
                ca_bundle: None,
            },
            live,
            cluster_domain: "cluster.local".to_owned(),
            platform_namespace: "kserve".to_owned(),
            storage_injection: StorageInjection::Deployment,
        };
        let decision = decide::decide(&observed);
        let report = report::report(&observed, &decision, &Applied::default(), &now);
        let service = self.services.get_mut(name).expect("it was there a moment ago");
        let mut changed = false;
        if let Decision::Build { desired, .. } = decision {
            changed |= service.desired != *desired;
            service.desired = *desired;
        }
        if let Some(report) = report {
            changed |= service.status != report.status;
            service.status = report.status;
            for event in report.events {
                let type_ = if event.warning { "Warning" } else { "Normal" };
                let event = json!({"type": type_, "reason": event.reason, "message": event.message, "object": name});
                if !service.events.contains(&event) {
                    service.events.push(event);
                }
            }
        }
        changed |= service.observe_deployment(expected, &now);
        changed
    }

    fn outcome(&self) -> Outcome {
        let mut objects = BTreeMap::new();
        let mut events = Vec::new();
        for (name, service) in &self.services {
            let status = serde_json::to_value(&service.status).expect("status is JSON");
            objects.insert(format!("inferenceservice.{name}"), json!({"status": status}));
            let DesiredState {
                services,
                deployments,
                horizontal_pod_autoscalers,
                ingresses,
                ..
            } = &service.desired;
            let mut add = |prefix: &str, kind: ChildKind, list: &[Desired]| {
                for desired in list {
                    let mut manifest = desired.manifest(kind);
                    for owner in manifest["metadata"]["ownerReferences"]
                        .as_array_mut()
                        .into_iter()
                        .flatten()
                    {
                        owner
                            .as_object_mut()
                            .expect("an owner reference is a map")
                            .remove("uid");
                    }
                    objects.insert(format!("{prefix}.{}", desired.name), manifest);
                }
            };
            add("service", ChildKind::Service, &services.objects);
            add("deployment", ChildKind::Deployment, &deployments.objects);
            add(
                "hpa",
                ChildKind::HorizontalPodAutoscaler,
                &horizontal_pod_autoscalers.objects,
            );
            add("ingress", ChildKind::Ingress, &ingresses.objects);
            events.extend(service.events.iter().cloned());
        }
        let key = |event: &Value| (event["object"].to_string(), event["message"].to_string());
        events.sort_by_key(key);
        Outcome {
            objects,
            events: Value::Array(events),
        }
    }
}

impl Service {
    /// What the Deployment controller and the `ReplicaSet` controller do, as far as the recording shows it.
    fn observe_deployment(&mut self, expected: Option<&BTreeMap<String, Value>>, now: &str) -> bool {
        let Some(deployment) = self.desired.deployments.objects.first() else {
            return false;
        };
        let recorded = expected.and_then(|expected| expected.get(&format!("deployment.{}", deployment.name)));
        let status = recorded.map_or(json!({}), |recorded| recorded["status"].clone());
        let mut changed = self.deployment_status != status;
        self.deployment_status = status;
        let template = &deployment.spec["template"];
        let wanted = recorded
            .and_then(|recorded| recorded["spec"]["replicas"].as_u64())
            .unwrap_or(1);
        let wanted = usize::try_from(wanted).expect("a handful of replicas");
        let refused = recorded.is_some_and(|recorded| recorded["status"]["replicas"].is_null());
        let missing = if self.template == *template {
            wanted.saturating_sub(self.pods.len())
        } else {
            self.template = template.clone();
            wanted
        };
        for _ in 0..if refused { 0 } else { missing } {
            let count = self.pods.len();
            self.pods.insert(
                0,
                LivePod {
                    name: format!("{}-{count}", deployment.name),
                    app: format!("isvc.{}", deployment.name),
                    creation_timestamp: format!("{now}-{count:03}"),
                    phase: "Pending".to_owned(),
                    ..LivePod::default()
                },
            );
            changed = true;
        }
        changed
    }
}

fn live(service: &Service) -> Live {
    let objects = |list: &[Desired]| -> Vec<LiveObject> {
        list.iter()
            .map(|desired| LiveObject {
                name: desired.name.clone(),
                uid: desired.name.clone(),
                controller: Some(desired.owner.clone()),
                labels: desired.labels.clone(),
                annotations: desired.annotations.clone(),
                spec: desired.spec.clone(),
                owned: None,
            })
            .collect()
    };
    let status = &service.deployment_status;
    Live {
        deployments: objects(&service.desired.deployments.objects)
            .into_iter()
            .map(|object| LiveDeployment {
                object,
                observed_generation: status["observedGeneration"].as_i64().unwrap_or_default(),
                conditions: serde_json::from_value(status["conditions"].clone()).unwrap_or_default(),
            })
            .collect(),
        services: objects(&service.desired.services.objects),
        horizontal_pod_autoscalers: objects(&service.desired.horizontal_pod_autoscalers.objects),
        ingresses: objects(&service.desired.ingresses.objects),
        pods: service.pods.clone(),
        ..Live::default()
    }
}

fn storage_annotations(meta: &Meta) -> BTreeMap<String, String> {
    let kept = meta
        .annotations
        .iter()
        .filter(|(key, _)| credential::is_storage_annotation(key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn credential_facts(object: &Value, meta: &Meta) -> CredentialFacts {
    let data = object["stringData"].as_object().cloned().unwrap_or_default();
    let literal = |key: &&str| Some(((**key).to_owned(), data.get(*key)?.as_str()?.to_owned()));
    CredentialFacts {
        keys: data.keys().cloned().collect(),
        annotations: storage_annotations(meta),
        literals: credential::LITERAL_KEYS.iter().filter_map(literal).collect(),
        storage_entries: data
            .iter()
            .map(|(key, value)| {
                let text = value.as_str().expect("Secrets are given as text");
                (key.clone(), credential::storage_entry(text.as_bytes()))
            })
            .collect(),
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

fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("it was made an object just above");
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
