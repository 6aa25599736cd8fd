//! The only writer of children: makes the API server agree with what was decided.

use std::sync::Arc;

use isvc_core::{
    api::Meta,
    compare::{self, Changes},
    desired::{DesiredState, Wanted},
    names,
    observed::{Live, LiveObject},
    report::{Applied, Refusal},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tracing::debug;

use crate::{
    cache::Cache,
    error::{Action, Fault, FaultKind, PassError},
    key::ObjectKey,
    observability::metrics::Metrics,
    observe::Caches,
    stored::{
        Stored, Wire,
        child::{ChildType, StoredChild},
    },
};

/// Writes children.
pub(crate) struct Applier {
    pub(crate) client: Client,
    pub(crate) metrics: Arc<Metrics>,
}

/// What applying came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) applied: Applied,
    /// What was done to which child, for the log.
    pub(crate) written: Vec<String>,
}

/// Why applying stops before its end.
enum Stop {
    /// Another try would be refused as well.
    Refused(Refusal),
    Failed(PassError),
}

/// The children of one kind: what is to change, and where that is known.
struct Step<'a, K> {
    cache: &'a Cache<StoredChild<K>>,
    changes: Changes<'a>,
}

impl Applier {
    /// Brings the children of `service` into shape: writes in the order of the fields, then deletes.
    pub(crate) async fn apply(
        &self,
        caches: &Caches,
        service: &Meta,
        live: &Live,
        desired: &DesiredState,
    ) -> Result<Outcome, PassError> {
        let DesiredState {
            ca_bundle: _,
            services,
            deployments,
            horizontal_pod_autoscalers,
            scaled_objects: _,
            ingresses,
            http_routes: _,
        } = desired;
        let live_deployments: Vec<_> = live
            .deployments
            .iter()
            .map(|deployment| deployment.object.clone())
            .collect();
        let owner = service.uid.as_str();
        let services = Step::new(&caches.services, services, &live.services, owner);
        let deployments = Step::new(&caches.deployments, deployments, &live_deployments, owner);
        let autoscalers = Step::new(
            &caches.autoscalers,
            horizontal_pod_autoscalers,
            &live.horizontal_pod_autoscalers,
            owner,
        );
        let ingresses = Step::new(&caches.ingresses, ingresses, &live.ingresses, owner);

        let mut outcome = Outcome::default();
        let steps = async {
            let written = &mut outcome.written;
            self.write(&services, service, written).await?;
            self.write(&deployments, service, written).await?;
            self.write(&autoscalers, service, written).await?;
            self.write(&ingresses, service, written).await?;
            self.delete(&services, service, written).await?;
            self.delete(&deployments, service, written).await?;
            self.delete(&autoscalers, service, written).await?;
            self.delete(&ingresses, service, written).await
        };
        match steps.await {
            Ok(()) => {}
            Err(Stop::Refused(refusal)) => outcome.applied.refused = Some(refusal),
            Err(Stop::Failed(error)) => return Err(error),
        }
        Ok(outcome)
    }

    async fn write<K: ChildType>(
        &self,
        step: &Step<'_, K>,
        service: &Meta,
        written: &mut Vec<String>,
    ) -> Result<(), Stop> {
        for desired in &step.changes.apply {
            let key = ObjectKey::new(&desired.namespace, &desired.name);
            let ours = self.ours(step.cache, &key, service).await?;
            let mut manifest = desired.manifest(K::KIND);
            if let Some(uid) = &ours {
                // An object of that name that was created since is not ours: the API server refuses another uid.
                manifest["metadata"]["uid"] = json!(uid);
            }
            let mut parameters = PatchParams::apply(names::FIELD_MANAGER);
            parameters.force = ours.is_some();
            let api = self.api::<K>(&desired.namespace);
            let answer = api.patch(&desired.name, &parameters, &Patch::Apply(&manifest)).await;
            let wire = answer.map_err(|error| classified::<K>(Action::Apply, &key, error.into()))?;
            step.cache.put(wire.object);
            self.metrics.child_written(K::NAME, "apply");
            let verb = if ours.is_some() { "updated" } else { "created" };
            debug!(
                namespace = desired.namespace,
                child = desired.name,
                kind = K::NAME,
                "{verb}"
            );
            written.push(format!("{verb} {} {}", K::NAME, desired.name));
        }
        Ok(())
    }

    /// The uid of the object of that name if it is controlled by the service; none if there is no such object.
    ///
    /// Refuses to go on when the object belongs to somebody else: it is never taken over.
    async fn ours<K: ChildType>(
        &self,
        cache: &Cache<StoredChild<K>>,
        key: &ObjectKey,
        service: &Meta,
    ) -> Result<Option<String>, Stop> {
        if let Some(child) = cache.find(key)
            && child.controller_uid() == Some(&service.uid)
        {
            return Ok(Some(child.head().uid.to_string()));
        }
        let found = self.api::<K>(key.namespace()).get_metadata(key.name()).await;
        let found = match found.map_err(Fault::from) {
            Ok(found) => found,
            Err(fault) if fault.kind == FaultKind::NotFound => return Ok(None),
            Err(fault) => return Err(classified::<K>(Action::Read, key, fault)),
        };
        let controller = found
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        match controller {
            Some(owner) if owner.uid == service.uid => Ok(found.uid()),
            Some(owner) if owner.kind == names::INFERENCE_SERVICE_KIND && owner.name == service.name => {
                let message = format!(
                    "{} {} still belongs to a deleted InferenceService of the same name and is being removed",
                    K::NAME,
                    key.name()
                );
                Err(refused::<K>(key, message))
            }
            Some(owner) => {
                let message = format!(
                    "{} {} exists and is controlled by {} {}",
                    K::NAME,
                    key.name(),
                    owner.kind,
                    owner.name
                );
                Err(refused::<K>(key, message))
            }
            None => {
                let message = format!(
                    "{} {} exists and does not belong to this InferenceService; remove or rename it",
                    K::NAME,
                    key.name()
                );
                Err(refused::<K>(key, message))
            }
        }
    }

    async fn delete<K: ChildType>(
        &self,
        step: &Step<'_, K>,
        service: &Meta,
        written: &mut Vec<String>,
    ) -> Result<(), Stop> {
        for &(name, uid) in &step.changes.delete {
            let key = ObjectKey::new(&service.namespace, name);
            if step.cache.find(&key).is_some_and(|child| child.is_deleting()) {
                continue;
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
                    step.cache.put(stays.object);
                }
                Ok(None) => {
                    step.cache.forget(&key, uid);
                }
                Err(fault) if fault.kind == FaultKind::NotFound => {
                    step.cache.forget(&key, uid);
                    continue;
                }
                Err(fault) => return Err(classified::<K>(Action::Delete, &key, fault)),
            }
            self.metrics.child_written(K::NAME, "delete");
            debug!(namespace = service.namespace, child = name, kind = K::NAME, "deleted");
            written.push(format!("deleted {} {name}", K::NAME));
        }
        Ok(())
    }

    fn api<K: ChildType>(&self, namespace: &str) -> Api<Wire<StoredChild<K>>> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl<'a, K> Step<'a, K> {
    fn new(cache: &'a Cache<StoredChild<K>>, wanted: &'a Wanted, live: &'a [LiveObject], owner: &str) -> Self {
        Self {
            cache,
            changes: compare::changes(wanted, live, owner),
        }
    }
}

fn classified<K: ChildType>(action: Action, key: &ObjectKey, fault: Fault) -> Stop {
    if fault.kind.is_refusal() {
        return refused::<K>(key, fault.message);
    }
    Stop::Failed(PassError::Api {
        action,
        kind: K::NAME,
        key: key.clone(),
        fault,
    })
}

fn refused<K: ChildType>(key: &ObjectKey, message: String) -> Stop {
    Stop::Refused(Refusal {
        kind: K::KIND,
        name: key.name().to_owned(),
        message,
    })
}
