//! The `ConfigMap` `leanserve-config`: how Secrets are read, where models are brought into Pods and what memory may be used,
//! switched while the operator runs.

mod config;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use isvc_core::observed::StorageInjection;
use k8s_openapi::api::core::v1::ObjectReference;
use kube_secret_access::{AccessOptions, Switch};
use memory_guard::Settings;
use tokio::sync::watch;
use tracing::{info, warn};

use self::config::{
    ANNOTATIONS, AccessConfig, DEPLOYMENT, MAX_AGE, MOST_QUOTED, OperatorConfig, Problem, STORAGE_INJECTION, injection,
    unknown_keys,
};

use crate::{
    concurrency::Concurrency,
    config::Namespaces,
    error::excerpt,
    events::{Events, Notice},
    injection::Injection,
    memory::budget::Given,
    observability::metrics::Metrics,
    service_accounts::ServiceAccounts,
};

/// Name of the `ConfigMap`, in the operator's namespace.
pub(crate) const CONFIG_MAP: &str = "leanserve-config";

/// More unknown keys are not named.
const MOST_NAMED: usize = 10;

/// What the `ConfigMap` governs.
pub(crate) struct Governed {
    pub(crate) switch: Arc<Switch>,
    pub(crate) accounts: Arc<ServiceAccounts>,
    pub(crate) injection: Arc<Injection>,
    pub(crate) concurrency: Arc<Concurrency>,
    /// What the memory guard goes by.
    pub(crate) guard: watch::Sender<Settings>,
    /// What bounds follow from where the `ConfigMap` has none.
    pub(crate) given: Given,
    /// Where Secrets are watched, if they are.
    pub(crate) namespaces: Namespaces,
}

/// The options before the `ConfigMap` is read: mode auto, without trying to watch what another mode would never watch.
pub(crate) fn first_options(given: Given, request_timeout: Duration, namespaces: &Namespaces) -> AccessOptions {
    let mut options = OperatorConfig::defaults(given)
        .access
        .options(request_timeout, namespaces);
    options.auto.watch = false;
    options
}

/// Puts the `ConfigMap` into force.
pub(crate) struct ModeSwitch {
    governed: Governed,
    events: Events,
    metrics: Arc<Metrics>,
    request_timeout: Duration,
    /// The `ConfigMap`, for Events.
    config_map: ObjectReference,
    current: Option<OperatorConfig>,
    unknown: Vec<String>,
}

impl ModeSwitch {
    pub(crate) fn new(
        governed: Governed,
        events: Events,
        metrics: Arc<Metrics>,
        request_timeout: Duration,
        config_map: ObjectReference,
    ) -> Self {
        metrics.secrets.mode(governed.switch.mode());
        Self {
            governed,
            events,
            metrics,
            request_timeout,
            config_map,
            current: None,
            unknown: Vec::new(),
        }
    }

    /// The `ConfigMap` has changed, or is not there (any more). Returns whether services look different from now on.
    pub(crate) fn apply(&mut self, data: Option<&BTreeMap<String, String>>) -> bool {
        self.report_unknown(data);
        let parsed = match data {
            None => {
                info!(configmap = CONFIG_MAP, "no ConfigMap; defaults are in force");
                // Where models are brought in stays as it was: another place means other Pods everywhere.
                let before = self.current.as_ref().map(|before| before.storage_injection);
                Ok(OperatorConfig {
                    storage_injection: before.unwrap_or_default(),
                    ..OperatorConfig::defaults(self.governed.given)
                })
            }
            Some(data) => OperatorConfig::parse(data, self.governed.given),
        };
        let put = parsed.and_then(|config| {
            self.access(&config.access)?;
            self.bounds(&config);
            Ok(config)
        });
        match put {
            Ok(config) => {
                self.metrics.config.accepted(CONFIG_MAP);
                let other = self.inject(config.storage_injection);
                self.current = Some(config);
                other
            }
            Err(problems) => {
                self.refuse(&problems);
                // At the start a problem with another key must not move injection, for the same reason.
                let given = data.and_then(|data| injection(data.get(STORAGE_INJECTION)?.trim()).ok());
                let first = given.filter(|_| self.current.is_none());
                first.is_some_and(|injection| self.inject(injection))
            }
        }
    }

    /// Puts into force how Secrets are read.
    fn access(&self, config: &AccessConfig) -> Result<(), Vec<Problem>> {
        let before = self.current.as_ref().map(|before| &before.access);
        if before == Some(config) {
            return Ok(());
        }
        let options = config.options(self.request_timeout, &self.governed.namespaces);
        if let Err(error) = self.governed.switch.set(options) {
            return Err(vec![Problem::new(MAX_AGE, "", error.to_string())]);
        }
        self.governed.accounts.set_max_age(config.account_age());
        info!(
            mode = config.mode.as_str(),
            max_secrets = config.max_secrets,
            max_bytes = config.max_bytes,
            max_bytes_in_flight = config.max_bytes_in_flight,
            max_age_seconds = config.max_age.as_secs(),
            "secret access configured"
        );
        if let Some(before) = before.map(|before| before.mode)
            && before != config.mode
        {
            let message = format!("Secrets are read in mode {} from now on; it was {before}", config.mode);
            self.event(false, "SecretAccessModeChanged", message);
        }
        Ok(())
    }

    /// Puts into force what memory may be used, and how many passes may run.
    fn bounds(&self, config: &OperatorConfig) {
        let before = self.current.as_ref().map(|before| (before.memory, before.passes));
        if before == Some((config.memory, config.passes)) {
            return;
        }
        self.governed.guard.send_replace(config.memory);
        self.governed.concurrency.set_most(config.passes);
        self.metrics.passes.may_run(config.passes);
        info!(
            max_concurrent_reconciles = config.passes,
            memory_limit_bytes = config.memory.limit_bytes,
            "bounds configured"
        );
    }

    /// Puts into force where models are brought into Pods. Returns whether that is news.
    fn inject(&self, injection: StorageInjection) -> bool {
        let news = self.governed.injection.set(injection);
        if news {
            let to = match injection {
                StorageInjection::Deployment => DEPLOYMENT,
                StorageInjection::Annotations => ANNOTATIONS,
            };
            info!(storage_injection = to, "storage injection configured");
            if self.current.is_some() {
                let message = format!("Storage is injected by way of {to} from now on");
                self.event(false, "StorageInjectionChanged", message);
            }
        }
        news
    }

    fn refuse(&self, problems: &[Problem]) {
        self.metrics.config.refused(CONFIG_MAP);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let problems = problems.join("; ");
        let kept = if self.current.is_some() {
            "the configuration before it"
        } else {
            "the default configuration"
        };
        warn!(
            configmap = CONFIG_MAP,
            error = problems,
            "ConfigMap refused; {kept} stays in force"
        );
        self.event(true, "ConfigInvalid", format!("{problems}; {kept} stays in force"));
    }

    fn report_unknown(&mut self, data: Option<&BTreeMap<String, String>>) {
        let unknown = data.map(unknown_keys).unwrap_or_default();
        self.metrics.config.unknown_keys(unknown.len());
        if unknown != self.unknown {
            let named: Vec<_> = unknown
                .iter()
                .take(MOST_NAMED)
                .map(|key| excerpt(key, MOST_QUOTED))
                .collect();
            if !named.is_empty() {
                warn!(
                    configmap = CONFIG_MAP,
                    keys = named.join(", "),
                    number = unknown.len(),
                    "unknown keys ignored"
                );
            }
            self.unknown = unknown.into_iter().map(str::to_owned).collect();
        }
    }

    fn event(&self, warning: bool, reason: &'static str, message: String) {
        let regarding = self.config_map.clone();
        self.events.send(Notice {
            regarding,
            warning,
            reason,
            action: "Configure",
            message,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_options_watch_nothing() {
        let first = first_options(Given::default(), Duration::from_secs(10), &Namespaces::All);
        assert!(first.validate().is_ok() && !first.auto.watch);
    }
}
