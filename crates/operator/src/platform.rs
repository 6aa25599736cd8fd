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
/// A `ConfigMap` with a problem leaves the last good settings in force. Where there were none, no pass begins: built-in
/// settings in place of the platform's would rebuild every service.
pub(crate) struct Platform {
    settings: Mutex<Option<Arc<Settings>>>,
    events: Events,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    config_map: ObjectReference,
}

impl Platform {
    pub(crate) fn new(events: Events, metrics: Arc<Metrics>, health: Arc<Health>, config_map: ObjectReference) -> Self {
        Self {
            settings: Mutex::new(None),
            events,
            metrics,
            health,
            config_map,
        }
    }

    /// The settings in force, if there are any.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The `ConfigMap` has changed, or is not there (any more). Returns whether other settings are in force now.
    pub(crate) fn apply(&self, data: Option<&BTreeMap<String, String>>) -> bool {
        let parsed = match data {
            None => Ok(Settings::built_in()),
            Some(data) => Settings::parse(data),
        };
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        match parsed {
            Ok(parsed) => {
                let source = if data.is_some() { "ConfigMap" } else { "built in" };
                let changed = settings.as_deref() != Some(&parsed);
                if changed {
                    info!(configmap = CONFIG_MAP, source, "platform settings in force");
                    *settings = Some(Arc::new(parsed));
                }
                drop(settings);
                self.health.settings(None);
                changed
            }
            Err(error) => {
                let consequence = match *settings {
                    Some(_) => "the settings before it stay in force",
                    None => "no InferenceService is reconciled until it is put right",
                };
                if settings.is_none() {
                    self.health.settings(Some(error.to_string()));
                }
                drop(settings);
                self.metrics.config_refused(CONFIG_MAP);
                warn!(configmap = CONFIG_MAP, %error, "ConfigMap refused; {consequence}");
                self.events.send(Notice {
                    regarding: self.config_map.clone(),
                    warning: true,
                    reason: "ConfigInvalid",
                    action: "Configure",
                    message: format!("{error}; {consequence}"),
                });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> (Platform, Arc<Health>) {
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
        let client = crate::tests::unreachable_client();
        let (events, _not_run) = Events::new(client, Arc::clone(&metrics));
        let reference = ObjectReference::default();
        (Platform::new(events, metrics, Arc::clone(&health), reference), health)
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
        assert!(platform.apply(None), "built-in settings differ");
    }
}
