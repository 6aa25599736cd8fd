//! The `ConfigMap` `leanserve-config`: how Secrets are read and where models are brought into Pods, switched while the
//! operator runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use isvc_core::{observed::StorageInjection, quantity::Quantity};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::SignedDuration};
use kube_secret_access::{AccessOptions, ClusterCountOptions, Mode, Switch};
use tracing::{info, warn};

use crate::{
    error::excerpt,
    events::{Events, Notice},
    injection::Injection,
    observability::metrics::Metrics,
    service_accounts::ServiceAccounts,
};

/// Name of the `ConfigMap`, in the operator's namespace.
pub(crate) const CONFIG_MAP: &str = "leanserve-config";

const MODE: &str = "secretAccessMode";
const MAX_SECRETS: &str = "secretAccessMaxSecrets";
const MAX_BYTES: &str = "secretAccessMaxBytes";
const MAX_AGE: &str = "secretAccessMaxAge";
const STORAGE_INJECTION: &str = "storageInjection";
const DEPLOYMENT: &str = "deployment";
const ANNOTATIONS: &str = "annotations";

/// Longer values are cut where they are quoted.
const MOST_QUOTED: usize = 64;

/// However old a Secret may be, its changes are noticed within this, about.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// More unknown keys are not named.
const MOST_NAMED: usize = 10;

/// What the `ConfigMap` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OperatorConfig {
    access: AccessConfig,
    storage_injection: StorageInjection,
}

/// How Secrets are read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AccessConfig {
    mode: Mode,
    max_secrets: usize,
    max_bytes: usize,
    max_age: Duration,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            max_secrets: 2000,
            max_bytes: 64 * 1024 * 1024,
            max_age: Duration::from_secs(60),
        }
    }
}

/// A value that cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    key: &'static str,
    value: String,
    valid: String,
}

impl Problem {
    fn new(key: &'static str, value: &str, valid: impl Into<String>) -> Self {
        Self {
            key,
            value: excerpt(value, MOST_QUOTED),
            valid: valid.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}` is not valid; {}", self.key, self.value, self.valid)
    }
}

impl OperatorConfig {
    fn parse(data: &BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        let mut whole = Self::default();
        let (config, whole_injection) = (&mut whole.access, &mut whole.storage_injection);
        let mut problems = Vec::new();
        let mut read = |key: &'static str, take: &mut dyn FnMut(&str) -> Result<(), String>| {
            if let Some(value) = data.get(key)
                && let Err(valid) = take(value.trim())
            {
                problems.push(Problem::new(key, value, valid));
            }
        };
        read(MODE, &mut |value| {
            let valid = || format!("valid are {}", Mode::ALL.map(Mode::as_str).join(", "));
            config.mode = value.parse().map_err(|_| valid())?;
            Ok(())
        });
        read(MAX_SECRETS, &mut |value| {
            config.max_secrets = value.parse().map_err(|_| "give a whole number such as 2000")?;
            Ok(())
        });
        read(MAX_BYTES, &mut |value| {
            let bytes = Quantity::parse(value).ok().and_then(|quantity| quantity.value());
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
            config.max_bytes = bytes.ok_or("give a number of bytes such as 64Mi")?;
            Ok(())
        });
        read(MAX_AGE, &mut |value| {
            let age = value
                .parse::<SignedDuration>()
                .ok()
                .and_then(|age| Duration::try_from(age).ok());
            config.max_age = age.ok_or("give a duration such as 60s")?;
            Ok(())
        });
        read(STORAGE_INJECTION, &mut |value| {
            *whole_injection = injection(value)?;
            Ok(())
        });
        if problems.is_empty()
            && let Err(error) = config.options(Duration::from_secs(10)).validate()
        {
            let key = match error.field() {
                "lru.max_secrets" | "auto.max_secrets" => MAX_SECRETS,
                "lru.max_bytes" | "auto.max_bytes" => MAX_BYTES,
                _ => MAX_AGE,
            };
            problems.push(Problem::new(
                key,
                data.get(key).map_or("", String::as_str),
                error.to_string(),
            ));
        }
        if problems.is_empty() { Ok(whole) } else { Err(problems) }
    }
}

impl AccessConfig {
    fn options(&self, request_timeout: Duration) -> AccessOptions {
        let options = AccessOptions::for_mode(self.mode);
        let mut options = options.with_bounds(self.max_secrets, self.max_bytes, self.max_age);
        options.fetch.deadline = request_timeout;
        // A look at the metadata proves that a copy is current: with one in each age, passes find a copy that will do.
        let changes = &mut options.changes;
        changes.poll_interval = self.max_age.clamp(changes.fast_poll_interval, LONGEST_POLL_INTERVAL);
        // Without the right to list, which is not granted by default, the first count is denied and none is tried for long.
        let mut cluster = ClusterCountOptions::default();
        cluster.max_secrets = u64::try_from(self.max_secrets).unwrap_or(u64::MAX);
        options.auto.cluster = Some(cluster);
        options
    }

    /// How old a `ServiceAccount` may be: as old as a Secret.
    fn account_age(&self) -> Duration {
        if self.mode == Mode::Direct {
            Duration::ZERO
        } else {
            self.max_age
        }
    }
}

/// The options before the `ConfigMap` is read: mode auto, without trying to watch what another mode would never watch.
pub(crate) fn first_options(request_timeout: Duration) -> AccessOptions {
    let mut options = AccessConfig::default().options(request_timeout);
    options.auto.watch = false;
    options
}

fn injection(value: &str) -> Result<StorageInjection, String> {
    match value {
        DEPLOYMENT => Ok(StorageInjection::Deployment),
        ANNOTATIONS => Ok(StorageInjection::Annotations),
        _ => Err(format!("valid are {ANNOTATIONS}, {DEPLOYMENT}")),
    }
}

fn unknown_keys(data: &BTreeMap<String, String>) -> Vec<&str> {
    let known = [MODE, MAX_SECRETS, MAX_BYTES, MAX_AGE, STORAGE_INJECTION];
    data.keys()
        .map(String::as_str)
        .filter(|key| !known.contains(key))
        .collect()
}

/// Puts the `ConfigMap` into force.
pub(crate) struct ModeSwitch {
    pub(crate) switch: Arc<Switch>,
    pub(crate) accounts: Arc<ServiceAccounts>,
    pub(crate) injection: Arc<Injection>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) request_timeout: Duration,
    /// The `ConfigMap`, for Events.
    pub(crate) config_map: ObjectReference,
    current: Option<OperatorConfig>,
    unknown: Vec<String>,
}

impl ModeSwitch {
    pub(crate) fn new(
        switch: Arc<Switch>,
        accounts: Arc<ServiceAccounts>,
        injection: Arc<Injection>,
        events: Events,
        metrics: Arc<Metrics>,
        request_timeout: Duration,
        config_map: ObjectReference,
    ) -> Self {
        metrics.secrets.mode(switch.mode());
        Self {
            switch,
            accounts,
            injection,
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
                    ..OperatorConfig::default()
                })
            }
            Some(data) => OperatorConfig::parse(data),
        };
        let put = parsed.and_then(|config| {
            self.access(&config.access)?;
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
        if let Err(error) = self.switch.set(config.options(self.request_timeout)) {
            return Err(vec![Problem::new(MAX_AGE, "", error.to_string())]);
        }
        self.accounts.set_max_age(config.account_age());
        info!(
            mode = config.mode.as_str(),
            max_secrets = config.max_secrets,
            max_bytes = config.max_bytes,
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

    /// Puts into force where models are brought into Pods. Returns whether that is news.
    fn inject(&self, injection: StorageInjection) -> bool {
        let news = self.injection.set(injection);
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
            problems, "ConfigMap refused; {kept} stays in force"
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

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn problems(pairs: &[(&str, &str)]) -> String {
        let problems = OperatorConfig::parse(&data(pairs)).expect_err("invalid");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn an_empty_config_map_is_the_defaults() {
        assert_eq!(OperatorConfig::parse(&data(&[])), Ok(OperatorConfig::default()));
        let first = first_options(Duration::from_secs(10));
        assert!(first.validate().is_ok() && !first.auto.watch);
        assert!(AccessConfig::default().options(Duration::from_secs(10)).auto.watch);
    }

    #[test]
    fn every_key_is_read() {
        let config = OperatorConfig::parse(&data(&[
            (MODE, " lru\n"),
            (MAX_SECRETS, "50"),
            (MAX_BYTES, "8Mi"),
            (MAX_AGE, "20s"),
            (STORAGE_INJECTION, "annotations"),
        ]));
        let expected = OperatorConfig {
            access: AccessConfig {
                mode: Mode::Lru,
                max_secrets: 50,
                max_bytes: 8 << 20,
                max_age: Duration::from_secs(20),
            },
            storage_injection: StorageInjection::Annotations,
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn changes_are_looked_for_at_the_pace_of_the_age() {
        for (age, interval) in [(1, 5), (20, 20), (60, 60), (3600, 300)] {
            let config = AccessConfig {
                max_age: Duration::from_secs(age),
                ..AccessConfig::default()
            };
            let options = config.options(Duration::from_secs(10));
            assert_eq!(options.changes.poll_interval, Duration::from_secs(interval));
            assert_eq!(options.validate(), Ok(()));
        }
    }

    #[test]
    fn problems_name_key_value_and_what_is_valid() {
        assert_eq!(
            problems(&[(MODE, "fastest")]),
            "secretAccessMode: `fastest` is not valid; valid are auto, direct, lru, watch"
        );
        let two = problems(&[(MAX_BYTES, "much"), (STORAGE_INJECTION, "pods")]);
        assert!(
            two.contains("secretAccessMaxBytes: `much`") && two.contains("valid are annotations, deployment"),
            "{two}"
        );
        for (key, value) in [
            (MAX_SECRETS, "0"),
            (MAX_SECRETS, "-1"),
            (MAX_BYTES, "-5"),
            (MAX_AGE, "never"),
        ] {
            assert!(problems(&[(key, value)]).contains(key), "{key}={value}");
        }
    }

    #[test]
    fn a_huge_value_is_not_repeated() {
        let huge = "x".repeat(900_000);
        assert!(problems(&[(MODE, &huge)]).len() < 200);
    }

    #[test]
    fn unknown_keys_are_found() {
        assert_eq!(
            unknown_keys(&data(&[(MODE, "lru"), ("secretAccesMode", "lru")])),
            ["secretAccesMode"]
        );
    }

    #[test]
    fn accounts_are_not_kept_in_mode_direct() {
        let config = AccessConfig {
            mode: Mode::Direct,
            ..AccessConfig::default()
        };
        assert_eq!(config.account_age(), Duration::ZERO);
        assert_eq!(AccessConfig::default().account_age(), Duration::from_secs(60));
    }
}
