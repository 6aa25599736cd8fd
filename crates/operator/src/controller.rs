//! The operator's life: how it begins, what it is put together from, and how it stops.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_secret_access::{AccessOptions, InvalidOptions, Switch};
use memory_guard::{Guard, Settings, Source};
use thiserror::Error;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    apply::Applier,
    ca_bundle::CaBundleSource,
    client::{self, Oversight},
    coexistence::Coexistence,
    concurrency::Concurrency,
    config::Config,
    events::{Events, Notice},
    health::Health,
    injection::Injection,
    leader::{self, Elector, LEASE, Leadership, Lost, clock::Clock, fence::Fence},
    memory::{
        self,
        budget::{Budget, Given},
        guard::{Teller, Watchman, look_on},
    },
    mode::{self, Governed, ModeSwitch},
    observability::{metrics::Metrics, page::OperatorPage},
    observe::{Caches, Observer},
    platform::Platform,
    policies,
    queue::Queue,
    reconcile::{PutOff, Reconciler},
    references::{self, References},
    report::Reporter,
    role::{Role, RoleError},
    secret_probe::SecretProbe,
    service_accounts::ServiceAccounts,
    stopping::DRAIN,
    triggers::Triggers,
    watches::Watches,
    workers::{Shared, Workers},
};

/// Why the operator does not run (any more).
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("built-in options are wrong: {0}")]
    Options(#[from] InvalidOptions),
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Stands by until this replica leads, then works until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> Result<(), RunError> {
    let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
    let ground = Ground::new(&config, &metrics);
    metrics.leader.leads(config.election.is_none());
    let page = Arc::new(OperatorPage {
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
        queue: Arc::clone(&ground.queue),
        services: Arc::clone(&ground.caches.inference_services),
    });
    let mut role = Role::begin(&config.common, &health, page).await?;
    let (done, queue) = (Arc::clone(&metrics), Arc::clone(&ground.queue));
    let idle_at = move || (queue.depth() == 0).then(|| done.passes.count() + done.policies.count());
    role.background.spawn(memory::give_back(idle_at));
    let clock = Clock::boot();
    let fence = Arc::new(match config.election {
        Some(_) => Fence::closed(clock),
        None => Fence::open(clock),
    });
    let oversight = Oversight {
        fence: Arc::clone(&fence),
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics.requests),
        concurrency: Some(Arc::clone(&ground.concurrency)),
    };
    let client = client::connect(&config.common, oversight)
        .await
        .map_err(RoleError::from)?;
    let mut leadership = match config.election {
        None => Leadership::alone(),
        Some(timing) => Leadership::elected(Elector::new(
            client.clone(),
            &config,
            timing,
            Arc::clone(&fence),
            Arc::clone(&health),
            Arc::clone(&metrics),
        )),
    };
    let mut standing_by = JoinSet::new();
    standing_by.spawn(look_on(
        Guard::new(ground.source.clone(), Settings::default()),
        Arc::clone(&metrics.memory),
    ));
    // Who stands by has begun nothing, so there is nothing to end.
    tokio::select! {
        () = leadership.acquire() => {}
        () = role.stop.received() => {
            // The Lease may have been taken by a request whose answer nobody waits for any more.
            leadership.release().await;
            info!("stopped");
            return Ok(());
        }
        failed = role.background.failed() => return Err(failed.into()),
    }

    drop(standing_by);
    let (events, send_events) = Events::new(client.clone(), Arc::clone(&metrics));
    let sending = tokio::spawn(send_events);
    if config.election.is_some() {
        events.send(has_become_leader(&config));
    }
    let mut watching = JoinSet::new();
    let workers = assemble(&config, client, &health, &metrics, ground, events, &mut watching)?;
    tokio::select! {
        () = role.stop.received() => {}
        () = workers.dispatch(&fence) => {}
        lost = leadership.keep() => return Err(lost.into()),
        failed = role.background.failed() => return Err(failed.into()),
        _ = watching.join_next() => return Err(RoleError::Background.into()),
    }

    health.stop();
    info!("stopping: running passes are finished, no new ones begin");
    let all_ended = tokio::select! {
        all_ended = end(workers, watching, sending) => all_ended,
        lost = leadership.keep() => return Err(lost.into()),
        () = role.stop.received() => return Err(RoleError::Impatient.into()),
    };
    // A pass that was cut off may still have a request on its way: then others wait until the Lease expires.
    if all_ended {
        leadership.release().await;
    }
    info!("stopped");
    Ok(())
}

/// Ends everything in order: passes, then watches, then Events, which are sent as long as anything could hand one in.
/// Returns whether nothing had to be cut off.
async fn end(workers: Workers, mut watching: JoinSet<()>, mut sending: JoinHandle<()>) -> bool {
    let deadline = Instant::now() + DRAIN;
    let drained = timeout_at(deadline, workers.drain()).await.is_ok();
    if !drained {
        warn!("some passes were cut off");
    }
    let ended = timeout_at(deadline, watching.shutdown()).await.is_ok();
    drop(workers);
    let sent = timeout_at(deadline, &mut sending).await.is_ok();
    if !sent {
        warn!("some Events were not sent");
        sending.abort();
    }
    drained && ended && sent
}

fn has_become_leader(config: &Config) -> Notice {
    let name = config.common.pod_name.as_deref().unwrap_or("this process");
    Notice {
        regarding: leader::reference(&config.common.namespace),
        warning: false,
        reason: "LeaderElection",
        action: "Lead",
        message: format!("{name} holds the Lease {LEASE}"),
    }
}

/// What is there before the API server is reached.
struct Ground {
    queue: Arc<Queue>,
    caches: Caches,
    concurrency: Arc<Concurrency>,
    source: Source,
    given: Given,
}

impl Ground {
    fn new(config: &Config, metrics: &Metrics) -> Self {
        let source = Source::discover(Path::new("/"));
        let given = Given {
            limit_bytes: source.least_limit_bytes(),
            passes: config.max_concurrent_reconciles,
        };
        let passes = Budget::of(given).passes;
        metrics.passes.may_run(passes);
        Self {
            queue: Arc::new(Queue::new(metrics.queue.clone())),
            caches: Caches::default(),
            concurrency: Arc::new(Concurrency::new(passes, metrics.passes_allowed.clone())),
            source,
            given,
        }
    }
}

/// What reads Secrets, and whom it tells of that.
fn switch(
    client: Client,
    options: AccessOptions,
    metrics: &Arc<Metrics>,
    events: &Events,
    config_map: &ObjectReference,
) -> Result<Switch, InvalidOptions> {
    let probe = SecretProbe {
        metrics: Arc::clone(&metrics.secrets),
        events: Some((events.clone(), config_map.clone())),
    };
    Switch::with_probe(client, options, Arc::new(probe))
}

/// Puts the parts together and starts the watches.
fn assemble(
    config: &Config,
    client: Client,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    ground: Ground,
    events: Events,
    watching: &mut JoinSet<()>,
) -> Result<Workers, RunError> {
    let Ground { queue, caches, .. } = ground;
    if config.policies {
        let namespace = &config.common.namespace;
        policies::start(&client, namespace, &metrics.policies, events.clone(), watching);
    }
    let options = mode::first_options(ground.given, config.common.request_timeout, &config.watch);
    let accounts = ServiceAccounts::new(client.clone(), options.lru.max_age, Arc::clone(&metrics.accounts));
    let accounts = Arc::new(accounts);
    let operator_config = config_map(&config.common.namespace, mode::CONFIG_MAP);
    let switch = Arc::new(switch(client.clone(), options, metrics, &events, &operator_config)?);
    let injection = Arc::new(Injection::default());
    let teller = Teller {
        metrics: Arc::clone(metrics),
        events: events.clone(),
        config_map: operator_config.clone(),
    };
    let (watchman, guard) = Watchman::new(ground.source, &switch, &ground.concurrency, teller);
    watching.spawn(watchman.watch_over());
    let governed = Governed {
        switch: Arc::clone(&switch),
        accounts: Arc::clone(&accounts),
        injection: Arc::clone(&injection),
        concurrency: Arc::clone(&ground.concurrency),
        guard,
        given: ground.given,
        namespaces: config.watch.clone(),
    };
    let mode_switch = ModeSwitch::new(
        governed,
        events.clone(),
        Arc::clone(metrics),
        config.common.request_timeout,
        operator_config.clone(),
    );
    let platform = Arc::new(Platform::new(
        events.clone(),
        Arc::clone(metrics),
        Arc::clone(health),
        config.platform_namespace.clone(),
        operator_config,
    ));
    let ca_bundle = Arc::new(CaBundleSource::new(
        config.platform_namespace.clone(),
        config.common.request_timeout,
    ));
    let begun = Arc::new(AtomicBool::new(false));
    let triggers = Triggers {
        queue: Arc::clone(&queue),
        services: Arc::clone(&caches.inference_services),
        begun: Arc::clone(&begun),
    };
    Watches {
        client: client.clone(),
        health: Arc::clone(health),
        metrics: metrics.watches.clone(),
        config,
        tasks: watching,
    }
    .start(&caches, &triggers, mode_switch, &platform, &ca_bundle);
    watching.spawn(references::follow(switch.changes(), triggers.clone()));
    watching.spawn(Arc::clone(&accounts).follow(triggers.clone()));
    let coexistence = coexistence(config, metrics);
    watching.spawn(Arc::clone(&coexistence).follow(client.clone(), triggers));
    let reporter = Reporter {
        client: client.clone(),
        cache: Arc::clone(&caches.inference_services),
        events,
        metrics: Arc::clone(metrics),
        told: crate::told::Told::default(),
    };
    let observer = Observer {
        caches,
        references: References::new(Some(Arc::clone(&switch)), Arc::clone(&accounts)),
        secrets: switch,
        accounts,
        ca_bundle,
        injection,
        cluster_domain: config.cluster_domain.clone(),
        platform_namespace: config.platform_namespace.clone(),
    };
    let applier = Applier::new(client, Arc::clone(metrics));
    let reconciler = Reconciler {
        platform,
        observer,
        applier,
        reporter,
        coexistence,
        put_off: PutOff::default(),
    };
    Ok(Workers {
        shared: Arc::new(Shared::new(
            reconciler,
            queue,
            Arc::clone(metrics),
            config.resync_period,
        )),
        health: Arc::clone(health),
        begun,
        concurrency: ground.concurrency,
    })
}

fn coexistence(config: &Config, metrics: &Metrics) -> Arc<Coexistence> {
    let namespace = config.platform_namespace.clone();
    Arc::new(Coexistence::new(namespace, metrics.coexistence.clone()))
}

fn config_map(namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}
