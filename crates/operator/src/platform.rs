//! The `ConfigMap` `inferenceservice-config`: settings that the platform team makes for all services.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use isvc_core::settings::Settings;
use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{info, warn};

use crate::{
    events::{Events, Notice},
    health::Health,
    observability::metrics::Metrics,
};

/// Name of the `ConfigMap`, in the platform namespace.
pub(crate) const CONFIG_MAP: &str = "inferenceservice-config";

/// The settings in force; none until the first good ones.
///
/// A `ConfigMap` with a problem, or one that is gone, leaves the last good settings in force. Where there were none, no pass begins: built-in
/// settings in place of the platform's would rebuild every service.
pub(crate) struct Platform {
    settings: Mutex<InForce>,
    events: Events,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    namespace: String,
    operator_config: ObjectReference,
}

#[derive(Default)]
struct InForce {
    settings: Option<Arc<Settings>>,
    /// Whether they come from the `ConfigMap`, and not from here.
    from_map: bool,
}

impl Platform {
    /// `namespace` is where the `ConfigMap` is. Events are on the operator's own, `operator_config`: the right to make them may
    /// be missing in another namespace.
    pub(crate) fn new(
        events: Events,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        namespace: String,
        operator_config: ObjectReference,
    ) -> Self {
        Self {
            settings: Mutex::default(),
            events,
            metrics,
            health,
            namespace,
            operator_config,
        }
    }

    /// The settings in force, if there are any.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        let in_force = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.settings.clone()
    }

    /// The `ConfigMap` has changed, or is not there (any more). Returns whether other settings are in force now.
    pub(crate) fn apply(&self, data: Option<&BTreeMap<String, String>>) -> bool {
        let mut in_force = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let parsed = match data {
            // Built-in settings in place of the platform's would rebuild every service.
            None if in_force.from_map => {
                drop(in_force);
                self.refuse(
                    "the ConfigMap is gone; create it again, or restart the operator to use the built-in settings",
                    "the settings it had stay in force",
                );
                return false;
            }
            None => Ok(Settings::built_in()),
            Some(data) => Settings::parse(data),
        };
        match parsed {
            Ok(parsed) => {
                let source = if data.is_some() { "ConfigMap" } else { "built in" };
                let changed = in_force.settings.as_deref() != Some(&parsed);
                if changed {
                    info!(configmap = CONFIG_MAP, source, "platform settings in force");
                    in_force.settings = Some(Arc::new(parsed));
                }
                in_force.from_map = data.is_some();
                drop(in_force);
                self.metrics.config.accepted(CONFIG_MAP);
                self.health.settings(None);
                changed
            }
            Err(error) => {
                let consequence = match in_force.settings {
                    Some(_) => "the settings before it stay in force",
                    None => "no InferenceService is reconciled until it is put right",
                };
                if in_force.settings.is_none() {
                    self.health.settings(Some(error.to_string()));
                }
                drop(in_force);
                self.refuse(&error.to_string(), consequence);
                false
            }
        }
    }

    fn refuse(&self, problem: &str, consequence: &str) {
        self.metrics.config.refused(CONFIG_MAP);
        warn!(
            namespace = self.namespace,
            configmap = CONFIG_MAP,
            error = problem,
            "ConfigMap refused; {consequence}"
        );
        self.events.send(Notice {
            regarding: self.operator_config.clone(),
            warning: true,
            reason: "ConfigInvalid",
            action: "Configure",
            message: format!("ConfigMap {}/{CONFIG_MAP}: {problem}; {consequence}", self.namespace),
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use kube::{Client, client::Body};
    use tower::{BoxError, service_fn};

    use super::*;

    fn platform() -> (Platform, Arc<Health>) {
        let (platform, health, _not_sent) = platform_of(crate::tests::unreachable_client());
        (platform, health)
    }

    /// With what sends its Events.
    fn platform_of(client: Client) -> (Platform, Arc<Health>, impl Future<Output = ()> + Send) {
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
        let (events, sending) = Events::new(client, Arc::clone(&metrics));
        let reference = ObjectReference {
            kind: Some("ConfigMap".to_owned()),
            namespace: Some("leanserve-system".to_owned()),
            name: Some("leanserve-config".to_owned()),
            ..ObjectReference::default()
        };
        let platform = Platform::new(events, metrics, Arc::clone(&health), "kserve".to_owned(), reference);
        (platform, health, sending)
    }

    fn bad() -> BTreeMap<String, String> {
        [("ingress".to_owned(), "{".to_owned())].into()
    }

    #[tokio::test]
    async fn a_bad_map_at_the_start_means_no_settings() {
        let (platform, health) = platform();
        assert!(!platform.apply(Some(&bad())));
        assert!(platform.settings().is_none());
        let missing = health.ready().expect_err("not ready").join("\n");
        assert!(
            missing.contains("inferenceservice-config") && missing.contains("ingress"),
            "{missing}"
        );
        assert!(platform.apply(None));
        assert!(health.is_known());
    }

    #[tokio::test]
    async fn a_bad_map_later_keeps_the_last_good_settings() {
        let (platform, health) = platform();
        let good = [(
            "ingress".to_owned(),
            r#"{"ingressDomain": "models.example"}"#.to_owned(),
        )]
        .into();
        assert!(platform.apply(Some(&good)));
        let before = platform.settings().expect("good");
        assert!(!platform.apply(Some(&bad())));
        assert_eq!(platform.settings().expect("kept"), before);
        assert!(health.is_known());
        assert!(!platform.apply(Some(&good)), "nothing new");
        assert!(!platform.apply(None), "built-in settings would rebuild every service");
        assert_eq!(platform.settings().expect("kept"), before);
    }
    #[tokio::test]
    async fn a_bad_map_is_told_where_the_operator_may_make_events() {
        let made = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&made);
        let service = service_fn(move |request: http::Request<Body>| {
            let kept = Arc::clone(&kept);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let event: serde_json::Value = serde_json::from_slice(&body)?;
                kept.lock().expect("no panic").push((path, event));
                Ok::<_, BoxError>(http::Response::new(Body::from(body.to_vec())))
            }
        });
        let (platform, _health, sending) = platform_of(Client::new(service, "default"));
        assert!(!platform.apply(Some(&bad())));
        drop(platform);
        sending.await;
        let made = made.lock().expect("no panic");
        let [(path, event)] = made.as_slice() else {
            panic!("one Event: {made:?}")
        };
        assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/leanserve-system/events");
        assert_eq!(event["regarding"]["name"], "leanserve-config");
        let note = event["note"].as_str().expect("a text");
        assert!(
            note.contains("kserve/inferenceservice-config") && note.contains("ingress"),
            "{note}"
        );
    }
}
