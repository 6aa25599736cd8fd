//! The only writer of the parent: its status, its Events, and the finalizer nobody else would remove.

use std::sync::Arc;

use isvc_core::{
    api::{
        InferenceServiceStatus,
        status::{Condition, SERVED_BY_LEANSERVE},
    },
    names,
    report::{Event, Report},
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, Request},
};
use serde_json::json;
use tracing::{info, warn};

use crate::{
    cache::Cache,
    error::{Action, Fault, FaultKind, PassError},
    events::{Events, Notice},
    observability::metrics::Metrics,
    stored::{Stored, Wire, service::StoredService},
    told::Told,
};

/// Why a service is left alone: in its Event and its condition.
const REFUSED: &str = "KServeControllerRuns";

/// Writes `InferenceServices`.
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache<StoredService>>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) told: Told,
}

/// The time as conditions have it: RFC 3339, in whole seconds.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Reporter {
    /// Writes the status if it is news, then sends the Events. Returns whether the status was written.
    pub(crate) async fn report(&self, service: &StoredService, report: Report) -> Result<bool, PassError> {
        let news = report.status != service.status();
        if news {
            self.write_status(service, &report.status).await?;
        }
        for event in report.events {
            self.events.send(notice(service, event));
        }
        if self.told.is_news(&service.head().uid, &report.warnings) {
            let event = Event {
                warning: true,
                reason: "NoEffect",
                message: report.warnings.join("; "),
            };
            self.events.send(notice(service, event));
        }
        Ok(news)
    }

    async fn write_status(&self, service: &StoredService, status: &InferenceServiceStatus) -> Result<(), PassError> {
        let head = service.head();
        let api = self.api(service);
        // uid and resourceVersion let the API server refuse what was computed from another version of the service.
        let body = json!({
            "apiVersion": names::INFERENCE_SERVICE_API_VERSION,
            "kind": names::INFERENCE_SERVICE_KIND,
            "metadata": {
                "name": head.key.name(),
                "namespace": head.key.namespace(),
                "uid": head.uid,
                "resourceVersion": head.version.to_string(),
            },
            "status": status,
        });
        let request = replace_status(&api, head.key.name(), &body);
        let answer: Result<Wire<StoredService>, kube::Error> = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        match answer.map_err(Fault::from) {
            Ok(wire) => {
                self.cache.put(wire.object);
                self.metrics.writes.status();
                Ok(())
            }
            // Deleted meanwhile: there is nobody to tell.
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(()),
            Err(fault) => {
                if fault.kind == FaultKind::Conflict {
                    self.refresh(&api, service).await;
                }
                let action = Action::WriteStatus;
                Err(PassError::Api {
                    action,
                    kind: StoredService::KIND,
                    key: head.key.clone(),
                    fault,
                })
            }
        }
    }

    /// Reads the service anew, so that the next try is not based on the same old version. The watch would bring it too.
    async fn refresh(&self, api: &Api<Wire<StoredService>>, service: &StoredService) {
        if let Ok(wire) = api.get(service.head().key.name()).await {
            self.cache.put(wire.object);
        }
    }

    /// Says that another controller serves the service: by an Event, once, and by a condition beside those of the other, once
    /// there are any. Returns whether the condition was written.
    pub(crate) async fn refuse(&self, service: &StoredService, message: String) -> Result<bool, PassError> {
        let head = service.head();
        let conditions = service.status().conditions;
        if self.told.is_news(&head.uid, std::slice::from_ref(&message)) {
            let (namespace, name) = (head.key.namespace(), head.key.name());
            warn!(namespace, name, reason = REFUSED, "left to KServe's controller");
            let event = Event {
                warning: true,
                reason: REFUSED,
                message: message.clone(),
            };
            self.events.send(notice(service, event));
        }
        let said = |condition: &Condition| condition.type_ == SERVED_BY_LEANSERVE && condition.message == message;
        if conditions.is_empty() || conditions.iter().any(said) {
            return Ok(false);
        }
        let at = conditions
            .iter()
            .position(|condition| condition.type_ == SERVED_BY_LEANSERVE);
        let (op, place) = at.map_or_else(
            || ("add", "/status/conditions/-".to_owned()),
            |at| ("replace", format!("/status/conditions/{at}")),
        );
        let condition = json!({
            "type": SERVED_BY_LEANSERVE,
            "status": "False",
            // Conditions that are not for information count for Ready when KServe's controller looks at them.
            "severity": "Info",
            "reason": REFUSED,
            "message": message,
            "lastTransitionTime": now(),
        });
        // All the rest of the status stays as the other has written it.
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": head.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": head.version.to_string()},
            {"op": op, "path": place, "value": condition},
        ]);
        let patch = serde_json::from_value(patch).expect("the three operations above are a JSON patch");
        let api = self.api(service);
        let answer = api
            .patch_status(head.key.name(), &parameters(), &Patch::<()>::Json(patch))
            .await;
        let written = self.patched(service, answer, Action::WriteStatus).await?;
        if written {
            self.metrics.writes.status();
        }
        Ok(written)
    }

    /// Removes the finalizer that `KServe`'s controller left on a service that is being deleted. We never add one.
    pub(crate) async fn release(&self, service: &StoredService) -> Result<bool, PassError> {
        let finalizers = service.finalizers();
        if !finalizers.iter().any(|finalizer| finalizer == names::KSERVE_FINALIZER) {
            return Ok(false);
        }
        let head = service.head();
        let left: Vec<_> = finalizers
            .iter()
            .filter(|finalizer| *finalizer != names::KSERVE_FINALIZER)
            .collect();
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": head.uid},
            {"op": "test", "path": "/metadata/finalizers", "value": finalizers},
            {"op": "replace", "path": "/metadata/finalizers", "value": left},
        ]);
        let patch = serde_json::from_value(patch).expect("the three operations above are a JSON patch");
        let api = self.api(service);
        let answer = api
            .patch(head.key.name(), &parameters(), &Patch::<()>::Json(patch))
            .await;
        let removed = self.patched(service, answer, Action::RemoveFinalizer).await?;
        if removed {
            let (namespace, name) = (head.key.namespace(), head.key.name());
            info!(namespace, name, "finalizer removed");
        }
        Ok(removed)
    }

    /// Takes in the answer to a JSON patch. Returns whether it was done: not where the service is gone.
    async fn patched(
        &self,
        service: &StoredService,
        answer: Result<Wire<StoredService>, kube::Error>,
        action: Action,
    ) -> Result<bool, PassError> {
        match answer.map_err(Fault::from) {
            Ok(wire) => {
                self.cache.put(wire.object);
                Ok(true)
            }
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(false),
            Err(mut fault) => {
                // The API server answers 422 where a test of a JSON patch fails: somebody else was faster.
                if fault.kind == FaultKind::Invalid {
                    fault.kind = FaultKind::Conflict;
                    self.refresh(&self.api(service), service).await;
                }
                Err(PassError::Api {
                    action,
                    kind: StoredService::KIND,
                    key: service.head().key.clone(),
                    fault,
                })
            }
        }
    }

    fn api(&self, service: &StoredService) -> Api<Wire<StoredService>> {
        Api::namespaced(self.client.clone(), service.head().key.namespace())
    }
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The request that replaces a status. kube's own method would need the whole object, which is not kept.
fn replace_status(
    api: &Api<Wire<StoredService>>,
    name: &str,
    body: &serde_json::Value,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let parameters = kube::api::PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        dry_run: false,
    };
    let body = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let request = Request::new(api.resource_url()).replace_subresource("status", name, &parameters, body);
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("replace_status");
    Ok(request)
}

fn notice(service: &StoredService, event: Event) -> Notice {
    let head = service.head();
    let regarding = ObjectReference {
        api_version: Some(names::INFERENCE_SERVICE_API_VERSION.to_owned()),
        kind: Some(names::INFERENCE_SERVICE_KIND.to_owned()),
        namespace: Some(head.key.namespace().to_owned()),
        name: Some(head.key.name().to_owned()),
        uid: Some(head.uid.to_string()),
        resource_version: Some(head.version.to_string()),
        field_path: None,
    };
    Notice {
        regarding,
        warning: event.warning,
        reason: event.reason,
        action: "Reconcile",
        message: event.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds() {
        let now = now();
        assert_eq!(now.len(), "2026-01-01T00:00:00Z".len(), "{now}");
        assert!(now.ends_with('Z') && now.parse::<Timestamp>().is_ok(), "{now}");
    }
}
