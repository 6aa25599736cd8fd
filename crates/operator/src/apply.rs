//! The only writer of children: makes the API server agree with what was decided.

mod refusal;

use std::{
    collections::HashSet,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use isvc_core::{
    api::Meta,
    compare::{self, Changes},
    desired::{CaBundle, ChildKind, Desired, DesiredState, Wanted},
    names,
    observed::{Live, LiveObject},
    report::{Applied, Refusal},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tracing::debug;

use self::refusal::{Classify, Stop, classified, not_installed, refused};
use crate::{
    cache::Cache,
    error::{Action, Fault, FaultKind, PassError},
    key::ObjectKey,
    observability::metrics::{Metrics, Verb},
    observe::Caches,
    stored::{
        Stored, Wire,
        child::{ChildType, KEYS, StoredChild},
        named::StoredCaBundle,
    },
};

/// A resourceVersion no object has: etcd's first write has revision 2. Server-side apply with it creates an object, and is
/// refused with a conflict where there is one of that name already.
///
/// Source: the API server's generic registry compares the version only when it updates, and does not look at it when an
/// apply creates. `tests/tests/cluster` has it from a real one.
pub(crate) const ONLY_CREATE: &str = "1";

/// Objects of others that are in our way: as many are remembered.
const MOST_FOREIGN: usize = 1000;

/// Writes children.
pub(crate) struct Applier {
    client: Client,
    metrics: Arc<Metrics>,
    /// Objects of others that were in our way. They are looked at before anything is sent, so that waiting for them to go
    /// takes no write.
    foreign: Mutex<HashSet<(ChildKind, ObjectKey)>>,
    /// Services of one namespace share a copy of the certificates; one of them at a time writes it. Namespaces are spread over
    /// a few locks.
    copying: [tokio::sync::Mutex<()>; 16],
}

/// What applying came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) applied: Applied,
    /// What was done to which child, for the log.
    pub(crate) written: Vec<String>,
}

impl Outcome {
    /// Notes a refusal and goes on; what succeeded is handed on.
    fn note<T>(&mut self, done: Result<T, Stop>) -> Result<Option<T>, PassError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Stop::Refused(refusal)) => {
                self.applied.refused.push(refusal);
                Ok(None)
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Whether an object builds on one that was refused.
    fn blocks(&self, kind: ChildKind, name: &str) -> bool {
        let builds_on = |refusal: &Refusal| refusal.name == name && refusal.kind.runs_workload();
        kind.runs_workload() && self.applied.refused.iter().any(builds_on)
    }
}

/// The children of one kind: what is to change, and where that is known.
struct Step<'a, K: ChildType> {
    cache: &'a Cache<StoredChild<K>>,
    changes: Changes<'a>,
}

impl Applier {
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            foreign: Mutex::default(),
            copying: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        }
    }

    /// Brings the children of `service` into shape: writes in the order of the fields, then deletes.
    pub(crate) async fn apply(
        &self,
        caches: &Caches,
        service: &Meta,
        live: &Live,
        desired: &DesiredState,
    ) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        self.each_kind(caches, service, live, desired, &mut outcome).await?;
        Ok(outcome)
    }

    /// What is refused is noted and does not keep the rest back, but for what builds on it: the objects of the same name that
    /// run it.
    async fn each_kind(
        &self,
        caches: &Caches,
        service: &Meta,
        live: &Live,
        desired: &DesiredState,
        outcome: &mut Outcome,
    ) -> Result<(), PassError> {
        let DesiredState {
            ca_bundle,
            services,
            deployments,
            horizontal_pod_autoscalers,
            scaled_objects,
            ingresses,
            http_routes,
        } = desired;
        let services = Step::new(&caches.services, services, &live.services, service);
        let live_deployments = live.deployments.iter().map(|deployment| &deployment.object);
        let deployments = Step::new(&caches.deployments, deployments, live_deployments, service);
        let autoscalers = Step::new(
            &caches.autoscalers,
            horizontal_pod_autoscalers,
            &live.horizontal_pod_autoscalers,
            service,
        );
        let scaled_objects = Step::new(&caches.scaled_objects, scaled_objects, &live.scaled_objects, service);
        let ingresses = Step::new(&caches.ingresses, ingresses, &live.ingresses, service);
        let live_routes = live.http_routes.iter().map(|route| &route.object);
        let http_routes = Step::new(&caches.http_routes, http_routes, live_routes, service);

        if let Some(copy) = ca_bundle.as_ref().filter(|copy| !is_copied(copy, live.ca_bundle)) {
            let copied = self.copy(&caches.ca_bundles, copy, &mut outcome.written).await;
            outcome.note(copied)?;
        }
        self.write(&services, service, outcome).await?;
        self.write(&deployments, service, outcome).await?;
        // Two autoscalers of one Deployment would fight, and KEDA's webhook refuses a ScaledObject beside an autoscaler: the old
        // one goes first, but only where the new one can come.
        let old_autoscalers = autoscalers.without_successor(&scaled_objects);
        self.delete(&autoscalers, &old_autoscalers, service, outcome).await?;
        let old_scaled_objects = scaled_objects.without_successor(&autoscalers);
        self.delete(&scaled_objects, &old_scaled_objects, service, outcome)
            .await?;
        self.write(&autoscalers, service, outcome).await?;
        self.write(&scaled_objects, service, outcome).await?;
        self.write(&ingresses, service, outcome).await?;
        self.write(&http_routes, service, outcome).await?;
        self.delete(&services, &services.changes.delete, service, outcome)
            .await?;
        self.delete(&deployments, &deployments.changes.delete, service, outcome)
            .await?;
        self.delete(&ingresses, &ingresses.changes.delete, service, outcome)
            .await?;
        self.delete(&http_routes, &http_routes.changes.delete, service, outcome)
            .await
    }

    /// Writes a namespace's copy of the certificates. It is by its name the platform's, whoever has made it.
    async fn copy(
        &self,
        cache: &Cache<StoredCaBundle>,
        copy: &CaBundle,
        written: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let key = ObjectKey::new(&copy.namespace, names::CA_BUNDLE_CONFIG_MAP);
        let spread = KEYS.hash_one(key.namespace()) % (self.copying.len() as u64);
        let lock = &self.copying[usize::try_from(spread).expect("less than the number of locks")];
        let _one_at_a_time = lock.lock().await;
        if is_copied(copy, cache.find(&key).and_then(|held| held.digest)) {
            return Ok(());
        }
        let api: Api<Wire<StoredCaBundle>> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let answer = api.patch(key.name(), &parameters, &Patch::Apply(copy.manifest())).await;
        let wire = answer.map_err(|error| classified(ChildKind::ConfigMap, Action::Apply, &key, error.into()))?;
        cache.put(wire.object);
        self.metrics.writes.child(StoredCaBundle::KIND, Verb::Apply);
        written.push(format!("updated {} {}", StoredCaBundle::KIND, key.name()));
        Ok(())
    }

    async fn write<K: ChildType>(
        &self,
        step: &Step<'_, K>,
        service: &Meta,
        outcome: &mut Outcome,
    ) -> Result<(), PassError> {
        for desired in &step.changes.apply {
            if outcome.blocks(K::KIND, &desired.name) {
                continue;
            }
            let written = self.write_one(step.cache, desired, service).await;
            if let Some(verb) = outcome.note(written)? {
                self.metrics.writes.child(K::NAME, Verb::Apply);
                debug!(
                    namespace = desired.namespace,
                    child = desired.name,
                    kind = K::NAME,
                    "{verb}"
                );
                outcome.written.push(format!("{verb} {} {}", K::NAME, desired.name));
            }
        }
        Ok(())
    }

    async fn write_one<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        desired: &Desired,
        service: &Meta,
    ) -> Result<&'static str, Stop> {
        let key = ObjectKey::new(&desired.namespace, &desired.name);
        if !cache.is_served() {
            return Err(refused(K::KIND, &key, not_installed::<K>(&key)));
        }
        if let Some(uid) = uid_of_ours(cache, &key, service) {
            self.update(cache, &key, desired, &uid).await?;
            return Ok("updated");
        }
        self.create(cache, &key, desired, service).await?;
        Ok("created")
    }

    /// Updates a child of ours.
    async fn update<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        key: &ObjectKey,
        desired: &Desired,
        uid: &str,
    ) -> Result<(), Stop> {
        let mut manifest = desired.manifest(K::KIND);
        // An object of that name that was created since is not ours: the API server refuses another uid.
        manifest["metadata"]["uid"] = json!(uid);
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let api = self.api::<K>(key.namespace());
        let answer = api.patch(key.name(), &parameters, &Patch::Apply(&manifest)).await;
        let wire = answer.map_err(|error| K::classified(Action::Apply, key, error.into()))?;
        cache.put(wire.object);
        Ok(())
    }

    /// Creates a child, and touches no object that is there already.
    async fn create<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        key: &ObjectKey,
        desired: &Desired,
        service: &Meta,
    ) -> Result<(), Stop> {
        let was_foreign = (K::KIND, key.clone());
        if self.foreign().contains(&was_foreign) {
            self.look(cache, key, service).await?;
            self.foreign().remove(&was_foreign);
        }
        let mut manifest = desired.manifest(K::KIND);
        manifest["metadata"]["resourceVersion"] = json!(ONLY_CREATE);
        let parameters = PatchParams::apply(names::FIELD_MANAGER);
        let api = self.api::<K>(key.namespace());
        match api.patch(key.name(), &parameters, &Patch::Apply(&manifest)).await {
            Ok(wire) => {
                cache.put(wire.object);
                Ok(())
            }
            Err(error) => {
                let fault = Fault::from(error);
                if fault.kind == FaultKind::Conflict {
                    self.look(cache, key, service).await?;
                }
                Err(K::classified(Action::Apply, key, fault))
            }
        }
    }

    /// Looks at the object that may be in the way of one of ours. One that is ours after all is held from now on, for the
    /// next try; one of somebody else's is never taken over.
    async fn look<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        key: &ObjectKey,
        service: &Meta,
    ) -> Result<(), Stop> {
        let found = match self
            .api::<K>(key.namespace())
            .get(key.name())
            .await
            .map_err(Fault::from)
        {
            Ok(wire) => wire.object,
            Err(fault) if fault.kind == FaultKind::NotFound => return Ok(()),
            Err(fault) => return Err(K::classified(Action::Read, key, fault)),
        };
        let (kind, name) = (K::NAME, key.name());
        let message = match found.controller() {
            Some(owner) if owner.uid == service.uid => {
                cache.put(found);
                return Ok(());
            }
            Some(owner) if owner.kind == names::INFERENCE_SERVICE_KIND && owner.name == service.name => {
                format!(
                    "{kind} {name} still belongs to a deleted InferenceService of the same name and is being removed"
                )
            }
            Some(owner) => format!(
                "{kind} {name} exists and is controlled by {} {}",
                owner.kind, owner.name
            ),
            None => format!("{kind} {name} exists and does not belong to this InferenceService; remove or rename it"),
        };
        let mut foreign = self.foreign();
        if foreign.len() < MOST_FOREIGN {
            foreign.insert((K::KIND, key.clone()));
        }
        drop(foreign);
        Err(refused(K::KIND, key, message))
    }

    fn foreign(&self) -> MutexGuard<'_, HashSet<(ChildKind, ObjectKey)>> {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete<K: ChildType>(
        &self,
        step: &Step<'_, K>,
        children: &[(&str, &str)],
        service: &Meta,
        outcome: &mut Outcome,
    ) -> Result<(), PassError> {
        for &(name, uid) in children {
            let deleted = self.delete_one(step.cache, name, uid, service).await;
            if outcome.note(deleted)? == Some(true) {
                self.metrics.writes.child(K::NAME, Verb::Delete);
                debug!(namespace = service.namespace, child = name, kind = K::NAME, "deleted");
                outcome.written.push(format!("deleted {} {name}", K::NAME));
            }
        }
        Ok(())
    }

    /// Whether there was something to delete.
    async fn delete_one<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        name: &str,
        uid: &str,
        service: &Meta,
    ) -> Result<bool, Stop> {
        let key = ObjectKey::new(&service.namespace, name);
        if cache.find(&key).is_some_and(|child| child.is_deleting()) {
            return Ok(false);
        }
        let precondition = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let parameters = DeleteParams::background().preconditions(precondition);
        let answer = self.api::<K>(&service.namespace).delete(name, &parameters).await;
        // The answer is the object where it stays for a while, because of somebody's finalizer.
        match answer
            .map(|answer| answer.left().filter(|wire| wire.object.is_deleting()))
            .map_err(Fault::from)
        {
            Ok(Some(stays)) => {
                cache.put(stays.object);
                Ok(true)
            }
            Ok(None) => {
                cache.forget(&key, uid);
                Ok(true)
            }
            Err(fault) if fault.kind == FaultKind::NotFound => {
                cache.forget(&key, uid);
                Ok(false)
            }
            Err(fault) => Err(K::classified(Action::Delete, &key, fault)),
        }
    }

    fn api<K: ChildType>(&self, namespace: &str) -> Api<Wire<StoredChild<K>>> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl<'a, K: ChildType> Step<'a, K> {
    fn new(
        cache: &'a Cache<StoredChild<K>>,
        wanted: &'a Wanted,
        live: impl IntoIterator<Item = &'a LiveObject>,
        owner: &Meta,
    ) -> Self {
        let live: Vec<_> = live.into_iter().collect();
        let changes = compare::changes(wanted, &live, &owner.uid, &*KEYS);
        for proof in &changes.proved {
            let key = ObjectKey::new(&owner.namespace, proof.name);
            cache.replace(&key, |child| child.confirmed(proof));
        }
        Self { cache, changes }
    }

    /// What is to be deleted, but for what another kind is to take the place of in a cluster that lacks it.
    fn without_successor<L: ChildType>(&self, other: &Step<'_, L>) -> Vec<(&'a str, &'a str)> {
        let succeeds = |name: &str| other.changes.apply.iter().any(|desired| desired.name == name);
        let all = self.changes.delete.iter().copied();
        all.filter(|(name, _)| other.cache.is_served() || !succeeds(name))
            .collect()
    }
}

/// The uid of the child of that name if it is known and controlled by the service.
fn uid_of_ours<K: ChildType>(cache: &Cache<StoredChild<K>>, key: &ObjectKey, service: &Meta) -> Option<String> {
    let child = cache.find(key)?;
    let is_ours = child.controller_uid() == Some(&service.uid);
    is_ours.then(|| child.head().uid.to_string())
}

/// Whether a namespace's copy, of which this digest is known, is as it should be.
fn is_copied(copy: &CaBundle, digest: Option<u64>) -> bool {
    digest == Some(CaBundle::digest(&copy.certificates))
}
