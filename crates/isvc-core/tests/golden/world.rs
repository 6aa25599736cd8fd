//! A cluster in plain data: what the inputs put there, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use golden::{Objects, Patch, RouteStatus, normalize::merge_patch};
use isvc_core::{
    api::InferenceServiceStatus,
    decide,
    desired::CaBundle,
    manifests::Manifests,
    observed::StorageInjection,
    report::{self, Applied, Report},
};
use serde_json::{Value, json};

use crate::{children::Children, defaulted};

const PLATFORM_NAMESPACE: &str = "kserve";

/// Kinds without a namespace.
const CLUSTER_WIDE: [&str; 2] = ["ClusterServingRuntime", "ClusterStorageContainer"];

/// The status of a service of which nothing is known settles within so many passes.
const MOST_PASSES: usize = 12;

#[derive(Clone)]
pub(crate) struct World {
    namespace: String,
    manifests: Manifests,
    clock: u32,
    /// As they were applied and patched, by kind and name.
    applied: BTreeMap<(String, String), Value>,
    /// Names of the platform's `ConfigMaps`.
    settings: BTreeSet<String>,
    services: BTreeMap<String, Service>,
    /// The namespace's copy of the platform's certificate authorities.
    ca_bundle: Option<CaBundle>,
    events: Vec<Value>,
}

/// What came of one `InferenceService`.
#[derive(Clone, Default)]
struct Service {
    status: InferenceServiceStatus,
    children: Children,
}

impl World {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            manifests: Manifests::new(PLATFORM_NAMESPACE, namespace, StorageInjection::Deployment),
            clock: 0,
            applied: BTreeMap::new(),
            settings: BTreeSet::new(),
            services: BTreeMap::new(),
            ca_bundle: None,
            events: Vec::new(),
        }
    }

    /// Brings a file of platform settings into force.
    pub(crate) fn configure(&mut self, maps: Vec<Value>) {
        for name in std::mem::take(&mut self.settings) {
            self.manifests.remove("ConfigMap", PLATFORM_NAMESPACE, &name);
        }
        for mut map in maps {
            map["metadata"]["namespace"] = json!(PLATFORM_NAMESPACE);
            let name = map["metadata"]["name"].as_str().expect("a ConfigMap has a name");
            self.settings.insert(name.to_owned());
            self.manifests.add(map).expect("the recorded configurations are valid");
        }
    }

    /// Lets a second pass, so that what is created from now on is newer.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
    }

    fn now(&self) -> String {
        format!("2026-01-01T00:{:02}:{:02}Z", self.clock / 60, self.clock % 60)
    }

    /// Creates or replaces an object; why it cannot be read, if so.
    pub(crate) fn apply(&mut self, mut object: Value) -> Result<(), String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let created = match self.applied.get(&key) {
            Some(before) => before["metadata"]["creationTimestamp"].clone(),
            None => json!(self.now()),
        };
        let metadata = &mut object["metadata"];
        metadata["creationTimestamp"] = created;
        metadata["uid"] = json!(format!("uid-{}", key.1));
        if !CLUSTER_WIDE.contains(&key.0.as_str()) {
            metadata["namespace"] = json!(self.namespace);
        }
        if key.0 == "InferenceService" {
            self.services.entry(key.1.clone()).or_default();
        }
        self.applied.insert(key, object.clone());
        self.manifests.add(object).map_err(|error| error.to_string())
    }

    /// Children edited by hand are not patched here: what we want of them does not depend on it.
    pub(crate) fn patch(&mut self, patch: &Patch) -> Result<(), String> {
        let key = (patch.kind.clone(), patch.name.clone());
        let Some(object) = self.applied.get(&key) else {
            return Ok(());
        };
        let mut object = object.clone();
        merge_patch(&mut object, &patch.body);
        self.apply(object)
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        if self.applied.remove(&(kind.to_owned(), name.to_owned())).is_some() {
            self.manifests.remove(kind, &self.namespace, name);
        }
        if kind == "InferenceService" {
            self.services.remove(name);
        }
        for service in self.services.values_mut() {
            service.children.delete(kind, name);
        }
    }

    /// Kubernetes' controllers go ahead of the operator's next pass.
    pub(crate) fn create_pods(&mut self, recorded: Option<&Objects>) {
        let now = self.now();
        for service in self.services.values_mut() {
            service.children.create_pods(recorded, &now);
        }
    }

    pub(crate) fn ready(&mut self, deployment: &str, recorded: Option<&Objects>) {
        for service in self.services.values_mut() {
            service.children.ready(deployment, recorded);
        }
    }

    pub(crate) fn pod_status(&mut self, deployment: &str, status: &Value) {
        let mut services = self.services.values_mut();
        let known = services.any(|service| service.children.pod_status(deployment, status));
        assert!(known, "Deployment {deployment} has no Pod");
    }

    pub(crate) fn route_status(&mut self, status: &RouteStatus) {
        for service in self.services.values_mut() {
            service.children.route_status(status);
        }
    }

    /// What conditions say of predictors.
    pub(crate) fn messages(&self) -> Vec<String> {
        let conditions = self.services.values().flat_map(|service| &service.status.conditions);
        let predictors = conditions.filter(|condition| condition.type_ == "PredictorReady");
        predictors.map(|condition| condition.message.clone()).collect()
    }

    /// Runs passes over every service until nothing changes, and gives what exists then.
    pub(crate) fn settle(&mut self, recorded: Option<&Objects>) -> Objects {
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in &names {
            let settled = (0..MOST_PASSES).any(|_| !self.pass(name, recorded));
            assert!(settled, "{name}: status never settles");
        }
        self.outcome(recorded)
    }

    /// One pass; whether it changed anything.
    fn pass(&mut self, name: &str, recorded: Option<&Objects>) -> bool {
        let now = self.now();
        let before = self.services[name].clone();
        let mut service = self
            .manifests
            .services()
            .find(|service| service.meta.name == name)
            .expect("it was applied")
            .clone();
        service.status.clone_from(&before.status);
        let mut after = before.clone();
        let mut observed = self.manifests.observe(service, self.live(&before));
        let decision = decide::decide(&observed);
        if let Some(desired) = decision.desired() {
            after.children.apply(desired);
            if desired.ca_bundle.is_some() {
                self.ca_bundle.clone_from(&desired.ca_bundle);
            }
            observed.live = self.live(&after);
        }
        if let Some(Report { status, events, .. }) = report::report(&observed, &decision, &Applied::default(), &now) {
            after.status = status;
            for event in events {
                let type_ = if event.warning { "Warning" } else { "Normal" };
                self.events
                    .push(json!({"type": type_, "reason": event.reason, "message": event.message, "object": name}));
            }
        }
        after.children.observe(recorded, &now);
        let changed = after.status != before.status || after.children != before.children;
        self.services.insert(name.to_owned(), after);
        changed
    }

    fn live(&self, service: &Service) -> isvc_core::observed::Live {
        let mut live = service.children.live();
        live.ca_bundle = self.ca_bundle.as_ref().map(|copy| CaBundle::digest(&copy.certificates));
        live
    }

    fn outcome(&self, recorded: Option<&Objects>) -> Objects {
        let mut objects = Objects::new();
        for (name, service) in &self.services {
            let status = serde_json::to_value(&service.status).expect("status is JSON");
            let key = format!("inferenceservice.{name}");
            let mut object = json!({"status": status});
            if let Some(recorded) = recorded.and_then(|recorded| recorded.get(&key)) {
                let written = &self.applied[&("InferenceService".to_owned(), name.clone())];
                object["spec"] = defaulted::spec(written, self.manifests.settings(), recorded);
            }
            objects.insert(key, object);
            objects.extend(service.children.recorded_form(recorded));
        }
        if let Some(copy) = &self.ca_bundle {
            let manifest = copy.manifest();
            let name = manifest["metadata"]["name"].as_str().expect("it has a name");
            objects.insert(format!("configmap.{name}"), manifest.clone());
        }
        objects.insert("events".to_owned(), Value::Array(self.events.clone()));
        objects
    }
}
