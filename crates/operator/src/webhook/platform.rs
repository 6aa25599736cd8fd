//! The platform's settings, as far as they say which Secrets and keys matter.
//!
//! Read by name every so often, because the webhook has no right to watch anything. Nothing depends on their being read: the
//! ones that `KServe` ships are in force until then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use isvc_core::settings::Settings;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    error::{Fault, FaultKind},
    platform::CONFIG_MAP,
};

/// How old they may be.
const AGE: Duration = Duration::from_secs(30);

/// The settings in force.
pub(crate) struct PlatformSettings {
    in_force: Mutex<Arc<Settings>>,
    namespace: String,
}

impl PlatformSettings {
    /// Of the `ConfigMap` in this namespace.
    pub(super) fn new(namespace: String) -> Self {
        Self {
            in_force: Mutex::new(Arc::new(Settings::built_in())),
            namespace,
        }
    }

    pub(super) fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads them again and again. Never ends.
    pub(super) async fn follow(&self, client: Client) {
        let api: Api<ConfigMap> = Api::namespaced(client, &self.namespace);
        let mut told = None;
        loop {
            let problem = match api.get_opt(CONFIG_MAP).await.map_err(Fault::from) {
                Ok(found) => self.take(found.and_then(|found| found.data).as_ref()).err(),
                Err(fault) if fault.kind == FaultKind::Forbidden => Some(fault.to_string()),
                // It will pass by itself.
                Err(_) => told.clone(),
            };
            if problem != told
                && let Some(problem) = &problem
            {
                warn!(
                    namespace = self.namespace,
                    configmap = CONFIG_MAP,
                    error = problem,
                    "platform settings not taken; those before stay in force"
                );
            }
            told = problem;
            sleep(AGE).await;
        }
    }

    fn take(&self, data: Option<&std::collections::BTreeMap<String, String>>) -> Result<(), String> {
        let settings = match data {
            Some(data) => Settings::parse(data).map_err(|error| error.to_string())?,
            None => Settings::built_in(),
        };
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if **in_force != settings {
            info!(configmap = CONFIG_MAP, "platform settings in force");
            *in_force = Arc::new(settings);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_a_problem_leave_those_before_in_force() {
        let settings = PlatformSettings::new("kserve".to_owned());
        let credentials = |json: &str| [("credentials".to_owned(), json.to_owned())].into();
        let data = credentials(r#"{"storageSecretNameAnnotation": "example.com/secret"}"#);
        assert_eq!(settings.take(Some(&data)), Ok(()));
        let annotation = || settings.now().credentials.storage_secret_name_annotation.clone();
        assert_eq!(annotation().as_deref(), Some("example.com/secret"));
        assert!(settings.take(Some(&credentials("{"))).is_err());
        assert_eq!(annotation().as_deref(), Some("example.com/secret"));
        assert_eq!(settings.take(None), Ok(()));
        assert_ne!(annotation().as_deref(), Some("example.com/secret"));
    }
}
