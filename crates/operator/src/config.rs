//! What was typed, turned into what is meant, in one fallible step.

use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use thiserror::Error;

use crate::{
    args::{CommonArgs, LogFormat, RunArgs},
    leader::Timing,
    selector,
};

/// Each watched namespace takes one connection for every kind; more than this many are better served by watching all.
const MOST_NAMESPACES: usize = 32;

/// How many passes may run at a time.
pub(crate) const PASSES: RangeInclusive<usize> = 1..=256;

/// Namespace of the operator when nothing says otherwise.
const DEFAULT_NAMESPACE: &str = "leanserve-system";

/// DNS domain of a cluster when nothing says otherwise.
const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// What every role has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) probes: Option<SocketAddr>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) namespace: String,
    pub(crate) request_timeout: Duration,
    /// Who this is among several replicas.
    pub(crate) pod_name: Option<String>,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
}

/// How the operator is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) common: Common,
    pub(crate) platform_namespace: String,
    pub(crate) watch: Namespaces,
    /// Labels of the services that are served; empty for all.
    pub(crate) inference_service_selector: String,
    pub(crate) cluster_domain: String,
    /// Otherwise what the memory limit allows for.
    pub(crate) max_concurrent_reconciles: Option<usize>,
    pub(crate) resync_period: Duration,
    /// How the Lease is held; none to work without one.
    pub(crate) election: Option<Timing>,
    /// Whether policies are put in force.
    pub(crate) policies: bool,
}

/// Which namespaces are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    All,
    These(BTreeSet<String>),
}

/// A flag that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("--{flag}: {problem}")]
pub(crate) struct InvalidFlag {
    flag: &'static str,
    problem: String,
}

impl Common {
    /// Reads flags, with `environment` as the fall-back for what Kubernetes conventionally sets.
    pub(crate) fn new(args: CommonArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidFlag> {
        let from_environment = |name| environment(name).filter(|value| !value.is_empty());
        let namespace = args
            .namespace
            .or_else(|| from_environment("POD_NAMESPACE"))
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        Ok(Self {
            metrics: address("metrics-bind-address", &args.metrics_bind_address)?,
            probes: address("health-probe-bind-address", &args.health_probe_bind_address)?,
            kubeconfig: args.kubeconfig,
            namespace: namespace_name("namespace", namespace)?,
            request_timeout: duration("request-timeout", &args.request_timeout, 1, 300)?,
            pod_name: from_environment("POD_NAME").or_else(|| from_environment("HOSTNAME")),
            log_format: args.log_format,
            log_level: args.log_level,
        })
    }
}

impl Config {
    /// Reads flags, with `environment` as the fall-back for what Kubernetes conventionally sets.
    pub(crate) fn new(args: RunArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidFlag> {
        let from_environment = |name| environment(name).filter(|value| !value.is_empty());
        let cluster_domain = args
            .cluster_domain
            .or_else(|| from_environment("CLUSTER_DOMAIN"))
            .unwrap_or_else(|| DEFAULT_CLUSTER_DOMAIN.to_owned());
        if args
            .max_concurrent_reconciles
            .is_some_and(|number| !PASSES.contains(&number))
        {
            return Err(invalid("max-concurrent-reconciles", "must be between 1 and 256"));
        }
        let timing = timing(
            &args.leader_elect_lease_duration,
            &args.leader_elect_renew_deadline,
            &args.leader_elect_retry_period,
        )?;
        Ok(Self {
            platform_namespace: namespace_name("platform-namespace", args.platform_namespace)?,
            watch: namespaces(args.watch_namespaces)?,
            inference_service_selector: selector::parse(&args.inference_service_selector)
                .map_err(|problem| invalid("inference-service-selector", problem))?,
            cluster_domain: domain(cluster_domain)?,
            max_concurrent_reconciles: args.max_concurrent_reconciles,
            resync_period: duration("resync-period", &args.resync_period, 1, 30 * 24 * 3600)?,
            election: args.leader_elect.then_some(timing),
            policies: args.policies,
            common: Common::new(args.common, environment)?,
        })
    }
}

pub(crate) fn invalid(flag: &'static str, problem: impl Into<String>) -> InvalidFlag {
    InvalidFlag {
        flag,
        problem: problem.into(),
    }
}

/// An address to listen on; `:8080`, as Go programs take it, means every address.
pub(crate) fn address(flag: &'static str, text: &str) -> Result<Option<SocketAddr>, InvalidFlag> {
    if text == "0" {
        return Ok(None);
    }
    let complete = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    complete.parse().map(Some).map_err(|_| {
        invalid(
            flag,
            format!("`{text}` is no address; give IP:PORT as in 0.0.0.0:8080, :PORT, or 0 to turn it off"),
        )
    })
}

/// The times of leader election, in an order in which a holder stops before others begin.
fn timing(lease: &str, deadline: &str, retry: &str) -> Result<Timing, InvalidFlag> {
    const LEASE: &str = "leader-elect-lease-duration";
    const DEADLINE: &str = "leader-elect-renew-deadline";
    let timing = Timing {
        lease_duration: duration(LEASE, lease, 2, 3600)?,
        renew_deadline: duration(DEADLINE, deadline, 1, 3600)?,
        retry_period: fraction("leader-elect-retry-period", retry, 3600)?,
    };
    if timing.lease_duration.subsec_nanos() != 0 {
        // The Lease has its duration in whole seconds.
        return Err(invalid(LEASE, format!("`{lease}` is not a number of whole seconds")));
    }
    if timing.lease_duration <= timing.renew_deadline {
        let problem = "must be longer than --leader-elect-renew-deadline, or two could write at a time";
        return Err(invalid(LEASE, problem));
    }
    if timing.renew_deadline < timing.retry_period * 2 {
        let problem = "must be at least twice --leader-elect-retry-period, or one failure would stop all writes";
        return Err(invalid(DEADLINE, problem));
    }
    Ok(timing)
}

pub(crate) fn duration(flag: &'static str, text: &str, least: u64, most: u64) -> Result<Duration, InvalidFlag> {
    let duration = parsed_duration(flag, text)?;
    if duration < Duration::from_secs(least) || duration > Duration::from_secs(most) {
        return Err(invalid(flag, format!("must be between {least} s and {most} s")));
    }
    Ok(duration)
}

/// A duration that may be less than a second.
pub(crate) fn fraction(flag: &'static str, text: &str, most: u64) -> Result<Duration, InvalidFlag> {
    let duration = parsed_duration(flag, text)?;
    if duration < Duration::from_millis(100) || duration > Duration::from_secs(most) {
        return Err(invalid(flag, format!("must be between 100 ms and {most} s")));
    }
    Ok(duration)
}

/// A duration that may be a few milliseconds.
pub(crate) fn moment(flag: &'static str, text: &str, most: u64) -> Result<Duration, InvalidFlag> {
    let duration = parsed_duration(flag, text)?;
    if duration < Duration::from_millis(1) || duration > Duration::from_secs(most) {
        return Err(invalid(flag, format!("must be between 1 ms and {most} s")));
    }
    Ok(duration)
}

fn parsed_duration(flag: &'static str, text: &str) -> Result<Duration, InvalidFlag> {
    let parsed = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| {
        invalid(
            flag,
            format!("`{text}` is no duration; write it as in 30s, 5m, 10h or 1h30m"),
        )
    })
}

fn namespaces(names: Vec<String>) -> Result<Namespaces, InvalidFlag> {
    let mut these = BTreeSet::new();
    for name in names {
        let name = name.trim();
        if !name.is_empty() {
            these.insert(namespace_name("watch-namespaces", name.to_owned())?);
        }
    }
    if these.len() > MOST_NAMESPACES {
        let problem = format!(
            "{} namespaces are too many, each takes its own watches; give at most {MOST_NAMESPACES}, or none to watch all",
            these.len()
        );
        return Err(invalid("watch-namespaces", problem));
    }
    Ok(if these.is_empty() {
        Namespaces::All
    } else {
        Namespaces::These(these)
    })
}

pub(crate) fn namespace_name(flag: &'static str, name: String) -> Result<String, InvalidFlag> {
    if is_label(&name) {
        Ok(name)
    } else {
        Err(invalid(
            flag,
            format!("`{name}` is no namespace: use at most 63 of a-z, 0-9 and -, not at the ends"),
        ))
    }
}

fn domain(name: String) -> Result<String, InvalidFlag> {
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(name)
    } else {
        Err(invalid("cluster-domain", format!("`{name}` is no DNS domain")))
    }
}

/// Whether a name is a DNS label as RFC 1123 has it.
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn config(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let args = ["leanserve", "run"].iter().chain(flags);
        let Command::Run(args) = Cli::try_parse_from(args).map_err(|error| error.to_string())?.command else {
            panic!("run was asked for");
        };
        let lookup = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::new(*args, lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = config(&[], &[]).expect("valid");
        assert_eq!(config.common.metrics.expect("on").port(), 8080);
        assert_eq!(config.common.probes.expect("on").port(), 8081);
        assert_eq!(config.common.namespace, "leanserve-system");
        assert_eq!(config.platform_namespace, "kserve");
        assert_eq!(config.cluster_domain, "cluster.local");
        assert_eq!(config.watch, Namespaces::All);
        assert_eq!(config.max_concurrent_reconciles, None);
        assert_eq!(config.resync_period, Duration::from_secs(36_000));
        assert_eq!(config.common.request_timeout, Duration::from_secs(10));
    }

    #[test]
    fn leader_election_is_asked_for_and_its_times_fit_together() {
        let election = |flags: &[&str]| config(flags, &[]).map(|config| config.election);
        assert_eq!(election(&[]), Ok(None));
        assert_eq!(election(&["--leader-elect=false"]), Ok(None));
        let defaults = Timing {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        };
        assert_eq!(election(&["--leader-elect"]), Ok(Some(defaults)));
        assert_eq!(election(&["--leader-elect=true"]), Ok(Some(defaults)));
        let quick = [
            "--leader-elect",
            "--leader-elect-lease-duration=3s",
            "--leader-elect-renew-deadline=2s",
            "--leader-elect-retry-period=500ms",
        ];
        let quick = election(&quick).expect("valid").expect("on");
        assert_eq!(quick.retry_period, Duration::from_millis(500));
        for (wrong, part) in [
            (
                "--leader-elect-lease-duration=10s",
                "longer than --leader-elect-renew-deadline",
            ),
            ("--leader-elect-lease-duration=15500ms", "whole seconds"),
            ("--leader-elect-renew-deadline=3s", "twice --leader-elect-retry-period"),
            ("--leader-elect-retry-period=0s", "between 100 ms"),
            ("--leader-elect-retry-period=often", "no duration"),
        ] {
            let error = election(&["--leader-elect", wrong]).expect_err(wrong);
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_environment_of_a_pod_is_a_fall_back() {
        let environment = [
            ("POD_NAMESPACE", "ops"),
            ("CLUSTER_DOMAIN", "corp.example"),
            ("POD_NAME", "leanserve-1"),
            ("HOSTNAME", "node"),
        ];
        let from_environment = config(&[], &environment).expect("valid");
        assert_eq!(
            (&*from_environment.common.namespace, &*from_environment.cluster_domain),
            ("ops", "corp.example")
        );
        assert_eq!(from_environment.common.pod_name.as_deref(), Some("leanserve-1"));
        let flags = ["--namespace", "mine", "--cluster-domain", "my.domain"];
        let from_flags = config(&flags, &environment).expect("valid");
        assert_eq!(
            (&*from_flags.common.namespace, &*from_flags.cluster_domain),
            ("mine", "my.domain")
        );
        let empty = config(&[], &[("POD_NAMESPACE", "")]).expect("valid");
        assert_eq!(empty.common.namespace, "leanserve-system");
    }

    #[test]
    fn addresses() {
        let metrics = |text| config(&["--metrics-bind-address", text], &[]).map(|config| config.common.metrics);
        assert_eq!(metrics("0"), Ok(None));
        assert_eq!(metrics(":9090"), Ok(Some("0.0.0.0:9090".parse().expect("valid"))));
        assert_eq!(metrics("[::1]:9090"), Ok(Some("[::1]:9090".parse().expect("valid"))));
        assert!(metrics("localhost").is_err_and(|error| error.contains("--metrics-bind-address")));
    }

    #[test]
    fn namespaces_to_watch() {
        let watch = |text| config(&["--watch-namespaces", text], &[]).map(|config| config.watch);
        assert_eq!(watch(""), Ok(Namespaces::All));
        let two = Namespaces::These(["a".to_owned(), "b".to_owned()].into());
        assert_eq!(watch("b,a,,b"), Ok(two));
        assert!(watch("Team_A").is_err());
        let many: Vec<String> = (0..33).map(|number| format!("n{number}")).collect();
        assert!(watch(&many.join(",")).is_err_and(|error| error.contains("too many")));
    }

    #[test]
    fn services_to_select() {
        let select = |text| {
            let flags = ["--inference-service-selector", text];
            config(&flags, &[]).map(|config| config.inference_service_selector)
        };
        assert_eq!(select(""), Ok(String::new()));
        assert_eq!(select("team=a, tier!=test"), Ok("team=a,tier!=test".to_owned()));
        assert!(select("team is a").is_err_and(|error| error.contains("--inference-service-selector: `team is a`")));
    }

    #[test]
    fn durations_and_bounds() {
        let resync = |text| config(&["--resync-period", text], &[]).map(|config| config.resync_period);
        assert_eq!(resync("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(resync("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "soon", "-1h", "0s", "99999h"] {
            assert!(resync(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "257"] {
            assert!(config(&["--max-concurrent-reconciles", wrong], &[]).is_err(), "{wrong}");
        }
        assert!(config(&["--cluster-domain", "a..b"], &[]).is_err());
    }
}
