//! What the `ConfigMap` says, as far as it can be used.

use std::{collections::BTreeMap, time::Duration};

use isvc_core::{observed::StorageInjection, quantity::Quantity};
use k8s_openapi::jiff::SignedDuration;
use kube_secret_access::{AccessOptions, ClusterCountOptions, Mode};
use memory_guard::{Settings, Thresholds};

use crate::{
    config::{Namespaces, PASSES},
    error::excerpt,
    memory::budget::{Budget, Given},
};

const MODE: &str = "secretAccessMode";
const MAX_SECRETS: &str = "secretAccessMaxSecrets";
const MAX_BYTES: &str = "secretAccessMaxBytes";
const MAX_BYTES_IN_FLIGHT: &str = "secretAccessMaxBytesInFlight";
pub(super) const MAX_AGE: &str = "secretAccessMaxAge";
pub(super) const STORAGE_INJECTION: &str = "storageInjection";
const MAX_PASSES: &str = "maxConcurrentReconciles";
const MEMORY_LIMIT: &str = "memoryLimit";
const MEMORY_SHRINK: &str = "memoryShrinkPercent";
const MEMORY_PURGE: &str = "memoryPurgePercent";
const MEMORY_REFUSE: &str = "memoryRefusePercent";

/// All keys, in the order of their names.
const KEYS: [&str; 11] = [
    MAX_PASSES,
    MEMORY_LIMIT,
    MEMORY_PURGE,
    MEMORY_REFUSE,
    MEMORY_SHRINK,
    MAX_AGE,
    MAX_BYTES,
    MAX_BYTES_IN_FLIGHT,
    MAX_SECRETS,
    MODE,
    STORAGE_INJECTION,
];

pub(super) const DEPLOYMENT: &str = "deployment";
pub(super) const ANNOTATIONS: &str = "annotations";

/// Longer values are cut where they are quoted.
pub(super) const MOST_QUOTED: usize = 64;

/// However old a Secret may be, its changes are noticed within this, about.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// A lower limit is a unit forgotten: the operator alone takes about as much.
const LEAST_LIMIT: u64 = 8 << 20;

/// What the `ConfigMap` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OperatorConfig {
    pub(super) access: AccessConfig,
    pub(super) storage_injection: StorageInjection,
    pub(super) memory: Settings,
    /// At a time.
    pub(super) passes: usize,
}

/// How Secrets are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessConfig {
    pub(super) mode: Mode,
    pub(super) max_secrets: usize,
    pub(super) max_bytes: usize,
    pub(super) max_bytes_in_flight: usize,
    pub(super) max_age: Duration,
}

impl OperatorConfig {
    /// What is in force where nothing is said.
    pub(super) fn defaults(given: Given) -> Self {
        let budget = Budget::of(given);
        Self {
            access: AccessConfig {
                mode: Mode::Auto,
                max_secrets: 2000,
                max_bytes: budget.cache_bytes,
                max_bytes_in_flight: budget.bytes_in_flight,
                max_age: Duration::from_secs(60),
            },
            storage_injection: StorageInjection::default(),
            memory: Settings::default(),
            passes: budget.passes,
        }
    }

    pub(super) fn parse(data: &BTreeMap<String, String>, given: Given) -> Result<Self, Vec<Problem>> {
        let mut values = Values {
            data,
            problems: Vec::new(),
        };
        let limit = values.read(MEMORY_LIMIT, |value| {
            let limit = bytes(value).map(|bytes| bytes as u64);
            limit
                .filter(|limit| *limit >= LEAST_LIMIT)
                .ok_or("give a number of bytes such as 128Mi, 8Mi at least".to_owned())
        });
        let limit_bytes = [given.limit_bytes, limit].into_iter().flatten().min();
        let defaults = Self::defaults(Given { limit_bytes, ..given });
        let access = AccessConfig {
            mode: values
                .read(MODE, |value| {
                    let valid = || format!("valid are {}", Mode::ALL.map(Mode::as_str).join(", "));
                    value.parse().map_err(|_| valid())
                })
                .unwrap_or(defaults.access.mode),
            max_secrets: values
                .read(MAX_SECRETS, |value| {
                    value.parse().map_err(|_| "give a whole number such as 2000".to_owned())
                })
                .unwrap_or(defaults.access.max_secrets),
            max_bytes: values
                .read(MAX_BYTES, |value| {
                    bytes(value).ok_or("give a number of bytes such as 64Mi".to_owned())
                })
                .unwrap_or(defaults.access.max_bytes),
            max_bytes_in_flight: values
                .read(MAX_BYTES_IN_FLIGHT, |value| {
                    bytes(value).ok_or("give a number of bytes such as 8Mi".to_owned())
                })
                .unwrap_or(defaults.access.max_bytes_in_flight),
            max_age: values
                .read(MAX_AGE, |value| {
                    let age = value.parse::<SignedDuration>().ok();
                    let age = age.and_then(|age| Duration::try_from(age).ok());
                    age.ok_or("give a duration such as 60s".to_owned())
                })
                .unwrap_or(defaults.access.max_age),
        };
        let storage_injection = values.read(STORAGE_INJECTION, injection);
        let passes = values.read(MAX_PASSES, |value| {
            let passes = value.parse().ok().filter(|passes| PASSES.contains(passes));
            passes.ok_or(format!("give a number from {} to {}", PASSES.start(), PASSES.end()))
        });
        let thresholds = values.thresholds(defaults.memory.thresholds);
        let mut problems = values.problems;
        if problems.is_empty()
            && let Err(error) = access.options(Duration::from_secs(10), &Namespaces::All).validate()
        {
            let key = match error.field() {
                "lru.max_secrets" | "auto.max_secrets" => MAX_SECRETS,
                "lru.max_bytes" | "auto.max_bytes" => MAX_BYTES,
                "fetch.max_bytes_in_flight" => MAX_BYTES_IN_FLIGHT,
                _ => MAX_AGE,
            };
            let value = data.get(key).map_or("", String::as_str);
            problems.push(Problem::new(key, value, error.to_string()));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            access,
            storage_injection: storage_injection.unwrap_or(defaults.storage_injection),
            memory: Settings {
                thresholds,
                limit_bytes: limit,
            },
            passes: passes.unwrap_or(defaults.passes),
        })
    }
}

/// Values that are read one by one, and what is wrong with them.
struct Values<'a> {
    data: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Values<'_> {
    /// What `take` makes of a value, or none where there is no such key or the value cannot be used.
    fn read<T>(&mut self, key: &'static str, take: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.data.get(key)?;
        match take(value.trim()) {
            Ok(taken) => Some(taken),
            Err(valid) => {
                self.problems.push(Problem::new(key, value, valid));
                None
            }
        }
    }

    fn thresholds(&mut self, defaults: Thresholds) -> Thresholds {
        use memory_guard::Level::{Purge, Refuse, Shrink};

        let before = self.problems.len();
        let [shrink, purge, refuse] =
            [(MEMORY_SHRINK, Shrink), (MEMORY_PURGE, Purge), (MEMORY_REFUSE, Refuse)].map(|(key, level)| {
                let percent = self.read(key, |value| {
                    value.parse().map_err(|_| "give a whole number such as 70".to_owned())
                });
                percent.unwrap_or(defaults.percent(level))
            });
        if self.problems.len() > before {
            return defaults;
        }
        Thresholds::new(shrink, purge, refuse).unwrap_or_else(|error| {
            let keys = [MEMORY_SHRINK, MEMORY_PURGE, MEMORY_REFUSE];
            let given = keys.iter().find_map(|key| Some((*key, self.data.get(*key)?)));
            // The defaults ascend, so one of them is given.
            let (key, value) = given.map_or((MEMORY_SHRINK, ""), |(key, value)| (key, value.as_str()));
            self.problems.push(Problem::new(key, value, error.to_string()));
            defaults
        })
    }
}

/// A value that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    key: &'static str,
    value: String,
    valid: String,
}

impl Problem {
    pub(super) fn new(key: &'static str, value: &str, valid: impl Into<String>) -> Self {
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

impl AccessConfig {
    /// Options that ask for no more than these namespaces: rights that end there are denied to any wider request.
    pub(super) fn options(&self, request_timeout: Duration, namespaces: &Namespaces) -> AccessOptions {
        let options = AccessOptions::for_mode(self.mode);
        let mut options = options.with_bounds(self.max_secrets, self.max_bytes, self.max_age);
        options.fetch.deadline = request_timeout;
        options.fetch.max_bytes_in_flight = self.max_bytes_in_flight;
        // A look at the metadata proves that a copy is current: with one in each age, passes find a copy that will do.
        let changes = &mut options.changes;
        changes.poll_interval = self.max_age.clamp(changes.fast_poll_interval, LONGEST_POLL_INTERVAL);
        match namespaces {
            Namespaces::All => {
                // Without the right to list, which is not granted by default, the first count is denied and none is tried
                // for long.
                let mut cluster = ClusterCountOptions::default();
                cluster.max_secrets = u64::try_from(self.max_secrets).unwrap_or(u64::MAX);
                options.auto.cluster = Some(cluster);
            }
            // Other namespaces are none of its business, nor is how many Secrets they have.
            Namespaces::These(these) => options.watch.namespaces = these.iter().cloned().collect(),
        }
        options
    }

    /// How old a `ServiceAccount` may be: as old as a Secret.
    pub(super) fn account_age(&self) -> Duration {
        if self.mode == Mode::Direct {
            Duration::ZERO
        } else {
            self.max_age
        }
    }
}

/// A quantity of bytes.
fn bytes(value: &str) -> Option<usize> {
    let bytes = Quantity::parse(value).ok()?.value()?;
    usize::try_from(bytes).ok()
}

pub(super) fn injection(value: &str) -> Result<StorageInjection, String> {
    match value {
        DEPLOYMENT => Ok(StorageInjection::Deployment),
        ANNOTATIONS => Ok(StorageInjection::Annotations),
        _ => Err(format!("valid are {ANNOTATIONS}, {DEPLOYMENT}")),
    }
}

pub(super) fn unknown_keys(data: &BTreeMap<String, String>) -> Vec<&str> {
    data.keys()
        .map(String::as_str)
        .filter(|key| !KEYS.contains(key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: Given = Given {
        limit_bytes: None,
        passes: None,
    };

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn problems(pairs: &[(&str, &str)]) -> String {
        let problems = OperatorConfig::parse(&data(pairs), GIVEN).expect_err("invalid");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn an_empty_config_map_is_the_defaults() {
        let config = OperatorConfig::parse(&data(&[]), GIVEN).expect("valid");
        assert_eq!(config, OperatorConfig::defaults(GIVEN));
        assert_eq!((config.access.max_bytes, config.passes), (64 << 20, 8));
        assert!(
            config
                .access
                .options(Duration::from_secs(10), &Namespaces::All)
                .auto
                .watch
        );
    }

    #[test]
    fn every_key_is_read() {
        let every = data(&[
            (MODE, " lru\n"),
            (MAX_SECRETS, "50"),
            (MAX_BYTES, "8Mi"),
            (MAX_AGE, "20s"),
            (STORAGE_INJECTION, "annotations"),
            (MAX_BYTES_IN_FLIGHT, "6Mi"),
            (MAX_PASSES, "3"),
            (MEMORY_LIMIT, "100M"),
            (MEMORY_SHRINK, "60"),
            (MEMORY_PURGE, "75"),
            (MEMORY_REFUSE, "90"),
        ]);
        assert_eq!(every.len(), KEYS.len());
        assert_eq!(unknown_keys(&every), [""; 0]);
        let expected = OperatorConfig {
            access: AccessConfig {
                mode: Mode::Lru,
                max_secrets: 50,
                max_bytes: 8 << 20,
                max_bytes_in_flight: 6 << 20,
                max_age: Duration::from_secs(20),
            },
            storage_injection: StorageInjection::Annotations,
            memory: Settings {
                thresholds: Thresholds::new(60, 75, 90).expect("ascending"),
                limit_bytes: Some(100_000_000),
            },
            passes: 3,
        };
        assert_eq!(OperatorConfig::parse(&every, GIVEN), Ok(expected));
    }

    #[test]
    fn what_is_not_said_follows_from_the_memory_limit() {
        let parse = |pairs, limit_bytes| {
            let given = Given {
                limit_bytes,
                passes: None,
            };
            let config = OperatorConfig::parse(&data(pairs), given).expect("valid");
            (
                config.access.max_bytes >> 20,
                config.access.max_bytes_in_flight >> 20,
                config.passes,
            )
        };
        let found = Some(40 << 20);
        assert_eq!(parse(&[], found), (10, 5, 5));
        assert_eq!(parse(&[(MEMORY_LIMIT, "32Mi")], found), (8, 4, 4), "the lower one");
        assert_eq!(parse(&[(MEMORY_LIMIT, "1Gi")], found), (10, 5, 5), "the kernel's stays");
        assert_eq!(parse(&[(MEMORY_LIMIT, "32Mi")], None), (8, 4, 4));
        assert_eq!(parse(&[(MAX_BYTES, "20Mi"), (MAX_PASSES, "7")], found), (20, 5, 7));
    }

    #[test]
    fn changes_are_looked_for_at_the_pace_of_the_age() {
        for (age, interval) in [(1, 5), (20, 20), (60, 60), (3600, 300)] {
            let config = AccessConfig {
                max_age: Duration::from_secs(age),
                ..OperatorConfig::defaults(GIVEN).access
            };
            let options = config.options(Duration::from_secs(10), &Namespaces::All);
            assert_eq!(options.changes.poll_interval, Duration::from_secs(interval));
            assert_eq!(options.validate(), Ok(()));
        }
    }

    #[test]
    fn what_is_watched_and_counted_ends_where_the_rights_do() {
        let of = |namespaces| {
            let access = OperatorConfig::defaults(GIVEN).access;
            let options = access.options(Duration::from_secs(10), &namespaces);
            assert_eq!(options.validate(), Ok(()));
            (options.watch.namespaces, options.auto.cluster.is_some())
        };
        assert_eq!(of(Namespaces::All), (Vec::new(), true));
        // As many as the flag takes.
        let these: Vec<String> = (10..42).map(|number| format!("team-{number}")).collect();
        let served = Namespaces::These(these.iter().cloned().collect());
        assert_eq!(of(served), (these, false));
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
            (MAX_BYTES_IN_FLIGHT, "1Mi"),
            (MAX_PASSES, "0"),
            (MAX_PASSES, "257"),
            (MEMORY_LIMIT, "128"),
            (MEMORY_LIMIT, "much"),
            (MEMORY_SHRINK, "70%"),
            (MEMORY_SHRINK, "5"),
            (MEMORY_PURGE, "60"),
            (MEMORY_REFUSE, "100"),
            (MEMORY_REFUSE, "300"),
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
            ..OperatorConfig::defaults(GIVEN).access
        };
        assert_eq!(config.account_age(), Duration::ZERO);
        let cached = OperatorConfig::defaults(GIVEN).access;
        assert_eq!(cached.account_age(), Duration::from_secs(60));
    }
}
