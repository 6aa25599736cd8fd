//! `leanserve webhook`: an admission webhook that tells, before an `InferenceService` is stored, which `ServiceAccounts`,
//! Secrets and keys it refers to are not there.
//!
//! It watches nothing, keeps nothing but what it has just looked up, and is bounded in everything: see `limits.rs`. What it
//! cannot check it says it did not check.

mod authority;
mod check;
mod gate;
mod keeper;
mod limits;
mod mounted;
mod platform;
mod review;
mod reviews;
mod server;
mod tls;

use std::{net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use kube_secret_access::{AccessOptions, InvalidOptions, Mode, SecretRef, Switch};
use memory_guard::{Guard, Settings, Source};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use self::{
    authority::Plan,
    check::Checker,
    gate::Gate,
    keeper::Keeper,
    limits::Limits,
    platform::PlatformSettings,
    reviews::Reviews,
    server::{Phase, Server},
    tls::{Offers, Served, TlsError},
};
use crate::{
    args::{EnforcementAction, WebhookArgs},
    config::{Common, InvalidFlag, address, duration, fraction, invalid, moment, namespace_name},
    health::Health,
    http::ListenError,
    memory::{self, guard::look_on, shedders},
    observability::metrics::WebhookMetrics,
    role::{self, Role, RoleError},
    secret_probe::SecretProbe,
    service_accounts::ServiceAccounts,
};

/// How old what was looked up may be. What is missing is looked up again in any case.
const AGE: Duration = Duration::from_secs(10);

/// How long what was begun may take to end, once nobody is let in any more.
const DRAIN: Duration = Duration::from_secs(15);

/// How many reviews may be served at a time.
const PERMITS: std::ops::RangeInclusive<usize> = 1..=1024;

/// The longest that a certificate is made for, in seconds.
const TEN_YEARS: u64 = 10 * 366 * 24 * 3600;

/// What answers are made of.
type ResponseBody = Full<Bytes>;

/// How the webhook is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookConfig {
    pub(crate) common: Common,
    bind: SocketAddr,
    action: EnforcementAction,
    permits: Option<usize>,
    max_wait: Duration,
    platform_namespace: String,
    certificates: Origin,
    client_ca_file: Option<PathBuf>,
    shutdown_delay: Duration,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// Somebody else puts them into this directory.
    Mounted(PathBuf),
    /// The webhook makes them.
    Own {
        secret: SecretRef,
        configuration: String,
        plan: Plan,
    },
}

impl WebhookConfig {
    /// Reads flags, with `environment` as the fall-back for what Kubernetes conventionally sets.
    pub(crate) fn new(args: WebhookArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidFlag> {
        let common = Common::new(args.common.clone(), environment)?;
        let bind = address("webhook-bind-address", &args.webhook_bind_address)?;
        let bind = bind.ok_or_else(|| invalid("webhook-bind-address", "without an address there is no webhook"))?;
        if args
            .max_serving_threads
            .is_some_and(|number| !PERMITS.contains(&number))
        {
            return Err(invalid("max-serving-threads", "must be between 1 and 1024"));
        }
        let certificates = match &args.cert_dir {
            Some(directory) => Origin::Mounted(directory.clone()),
            None => own(&args, &common.namespace)?,
        };
        Ok(Self {
            bind,
            action: args.enforcement_action,
            permits: args.max_serving_threads,
            max_wait: moment("max-wait-duration", &args.max_wait_duration, 30)?,
            platform_namespace: namespace_name("platform-namespace", args.platform_namespace)?,
            certificates,
            client_ca_file: args.client_ca_file,
            // Kubernetes kills after 30 s by default, and what was begun has to end as well.
            shutdown_delay: fraction("shutdown-delay-duration", &args.shutdown_delay_duration, 600)?,
            common,
        })
    }
}

fn own(args: &WebhookArgs, namespace: &str) -> Result<Origin, InvalidFlag> {
    let secret = SecretRef::new(namespace, &args.cert_secret);
    let configuration = &args.webhook_configuration;
    if SecretRef::new(namespace, configuration).is_err() {
        let problem = format!("`{configuration}` is no name of an object");
        return Err(invalid("webhook-configuration", problem));
    }
    let mut hosts = vec![format!("{}.{namespace}.svc", args.webhook_service)];
    let further = args.webhook_hosts.iter().map(|host| host.trim().to_owned());
    hosts.extend(further.filter(|host| !host.is_empty()));
    if let Some(wrong) = hosts.iter().find(|host| !authority::is_host(host)) {
        return Err(invalid(
            "webhook-hosts",
            format!("`{wrong}` is no DNS name or IP address"),
        ));
    }
    let plan = Plan {
        hosts,
        authority: duration("cert-authority-duration", &args.cert_authority_duration, 10, TEN_YEARS)?,
        certificate: duration("cert-duration", &args.cert_duration, 10, TEN_YEARS)?,
        settle: duration("cert-settle-duration", &args.cert_settle_duration, 1, 24 * 3600)?,
    };
    if plan.certificate < plan.settle * 6 {
        let problem = "must be at least six times --cert-settle-duration, or it could expire before another is in use";
        return Err(invalid("cert-duration", problem));
    }
    if plan.authority < plan.certificate * 2 {
        return Err(invalid(
            "cert-authority-duration",
            "must be at least twice --cert-duration",
        ));
    }
    Ok(Origin::Own {
        secret: secret.map_err(|error| invalid("cert-secret", error.to_string()))?,
        configuration: configuration.clone(),
        plan,
    })
}

/// Why the webhook does not run (any more).
#[derive(Debug, Error)]
pub(crate) enum WebhookError {
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("built-in options are wrong: {0}")]
    Options(#[from] InvalidOptions),
}

/// Serves reviews until SIGTERM or SIGINT.
pub(crate) async fn run(config: WebhookConfig) -> Result<(), WebhookError> {
    let (health, metrics) = (Arc::new(Health::without_watches()), Arc::new(WebhookMetrics::new()));
    health.lacks(mounted::CERTIFICATE, Some("none is in use yet".to_owned()));
    let page = Arc::clone(&metrics);
    let mut role = Role::begin(&config.common, &health, page).await?;
    let client = role::connect(&config.common, &health, &metrics.requests).await;
    let client = client.map_err(RoleError::from)?;

    let source = Source::discover(Path::new("/"));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limits = Limits::of(source.least_limit_bytes(), cpus, config.permits);
    let probe = SecretProbe {
        metrics: Arc::clone(&metrics.secrets),
        events: None,
    };
    let options = options(&limits, config.common.request_timeout);
    let secrets = Arc::new(Switch::with_probe(client.clone(), options, Arc::new(probe))?);
    metrics.secrets.mode(Mode::Lru);
    let gate = Arc::new(Gate::new(&limits, Arc::clone(&metrics)));
    let platform = Arc::new(PlatformSettings::new(config.platform_namespace.clone()));
    let reviews = Arc::new(Reviews {
        gate: Arc::clone(&gate),
        checker: Checker {
            secrets: Arc::clone(&secrets) as _,
            accounts: ServiceAccounts::new(client.clone(), AGE, Arc::clone(&metrics.accounts)),
        },
        platform: Arc::clone(&platform),
        action: config.action,
        max_wait: config.max_wait,
        metrics: Arc::clone(&metrics),
    });

    let mut guard = Guard::new(source, Settings::default());
    guard.register(Arc::new(gate::Reviews(Arc::clone(&gate))));
    guard.register(Arc::new(shedders::Secrets::new(Arc::clone(&secrets))));
    guard.register(Arc::new(shedders::Pages));
    role.background.spawn(look_on(guard, Arc::clone(&metrics.memory)));
    let (done, idle) = (Arc::clone(&metrics), gate);
    let idle_at = move || idle.is_idle().then(|| done.count());
    role.background.spawn(memory::give_back(idle_at));
    let follower = client.clone();
    role.background.spawn(async move { platform.follow(follower).await });

    let served = Arc::new(Served::new(metrics));
    let offers = Offers::new(Arc::clone(&served), config.client_ca_file.as_deref())?;
    match config.certificates {
        Origin::Mounted(directory) => {
            let health = Arc::clone(&health);
            role.background
                .spawn(async move { mounted::follow(&directory, &served, &health).await });
        }
        Origin::Own {
            secret,
            configuration,
            plan,
        } => {
            let keeper = Keeper {
                client,
                secrets,
                secret,
                configuration,
                plan,
                served,
                health: Arc::clone(&health),
            };
            role.background.spawn(keeper.keep());
        }
    }
    let (tell, phase) = watch::channel(Phase::Serving);
    let https = Server::new(config.bind, offers, reviews, &limits, phase).await?;
    info!(
        permits = limits.permits,
        waiting = limits.waiting,
        connections = limits.connections,
        enforcement_action = ?config.action,
        "bounds configured"
    );
    let mut serving = tokio::spawn(https.serve());

    tokio::select! {
        () = role.stop.received() => {}
        failed = role.background.failed() => return Err(failed.into()),
        _ = &mut serving => return Err(RoleError::Background.into()),
    }
    health.stop();
    info!("stopping: reviews are still served, until nobody sends any here");
    tell.send_replace(Phase::Leaving);
    let ended = async {
        sleep(config.shutdown_delay).await;
        tell.send_replace(Phase::Ending);
        timeout(DRAIN, &mut serving).await.is_ok()
    };
    tokio::select! {
        ended = ended => if !ended {
            warn!("some reviews were cut off");
        },
        () = role.stop.received() => return Err(RoleError::Impatient.into()),
    }
    info!("stopped");
    Ok(())
}

fn options(limits: &Limits, request_timeout: Duration) -> AccessOptions {
    let defaults = AccessOptions::for_mode(Mode::Lru);
    let most = defaults.lru.max_secrets;
    let mut options = defaults.with_bounds(most, limits.cache_bytes, AGE);
    options.fetch.deadline = request_timeout;
    // The author waits: whoever asks may ask again.
    options.fetch.retry.max_retries = 1;
    options
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn config(flags: &[&str]) -> Result<WebhookConfig, String> {
        let args = ["leanserve", "webhook"].iter().chain(flags);
        let Command::Webhook(args) = Cli::try_parse_from(args).map_err(|error| error.to_string())?.command else {
            panic!("webhook was asked for");
        };
        WebhookConfig::new(*args, |_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = config(&[]).expect("valid");
        assert_eq!(config.bind.port(), 9443);
        assert_eq!(config.action, EnforcementAction::Warn);
        assert_eq!(config.max_wait, Duration::from_millis(25));
        let Origin::Own { secret, plan, .. } = config.certificates else {
            panic!("it makes its own");
        };
        assert_eq!(secret.to_string(), "leanserve-system/leanserve-webhook-cert");
        assert_eq!(plan.hosts, ["leanserve-webhook.leanserve-system.svc"]);
        assert_eq!(plan.certificate, Duration::from_secs(90 * 24 * 3600));
        let options = options(&Limits::of(None, 4, None), Duration::from_secs(10));
        assert_eq!(options.validate(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (flags, part) in [
            (&["--webhook-bind-address", "0"][..], "no webhook"),
            (&["--max-serving-threads", "0"], "between 1 and 1024"),
            (&["--max-wait-duration", "0s"], "between 1 ms and 30 s"),
            (&["--webhook-hosts", "a b"], "`a b`"),
            (&["--cert-secret", "A"], "--cert-secret"),
            (&["--webhook-configuration", "a/b"], "--webhook-configuration"),
            (&["--cert-duration", "30m"], "six times"),
            (&["--cert-authority-duration", "2000h"], "twice"),
        ] {
            let error = config(flags).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        let mounted = config(&["--cert-dir", "/certs"]).expect("valid");
        assert_eq!(mounted.certificates, Origin::Mounted("/certs".into()));
    }
}
