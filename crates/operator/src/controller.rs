//! The operator's life: what is watched, how many passes run, and how it stops.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_secret_access::{InvalidOptions, Switch};
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
    time::{Instant, interval, timeout_at},
};
use tracing::{debug, error, info, warn};

use crate::{
    apply::Applier,
    backoff::Tries,
    ca_bundle::CaBundleSource,
    client::{self, ConnectError},
    config::Config,
    error::PassError,
    events::{Events, Notice},
    health::Health,
    http::{self, ListenError, Pages, Site},
    injection::Injection,
    key::ObjectKey,
    leader::{self, Elector, LEASE, Leadership, Lost, clock::Clock, fence::Fence},
    memory,
    mode::{self, ModeSwitch},
    observability::metrics::{Metrics, PassEnd},
    observe::{Caches, Observer},
    platform::{self, Platform},
    queue::Queue,
    reconcile::{Outcome, PutOff, Reconciler},
    references::{self, References},
    report::Reporter,
    secret_probe::SecretProbe,
    service_accounts::ServiceAccounts,
    triggers::Triggers,
    watches::Watches,
};

/// From the signal to the end. Kubernetes kills after 30 s by default.
const DRAIN: Duration = Duration::from_secs(25);

/// Why the operator does not run (any more).
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
    #[error("built-in options are wrong: {0}")]
    Options(#[from] InvalidOptions),
    #[error("a background task has ended")]
    Background,
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("told to stop a second time; ended at once")]
    Impatient,
}

/// Stands by until this replica leads, then works until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> Result<(), RunError> {
    let mut stop = StopSignals::listen()?;
    let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
    let queue = Arc::new(Queue::new(metrics.queue.clone()));
    let caches = Caches::default();
    metrics.leader.leads(config.election.is_none());
    metrics.passes.may_run(config.max_concurrent_reconciles);
    let mut background = JoinSet::new();
    let pages = Arc::new(Pages {
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
        queue: Arc::clone(&queue),
        services: Arc::clone(&caches.inference_services),
    });
    for (address, site) in [(config.probes, Site::Probes), (config.metrics, Site::Metrics)] {
        if let Some(address) = address {
            background.spawn(http::serve(http::listen(address).await?, site, Arc::clone(&pages)));
        }
    }
    background.spawn(beat(Arc::clone(&health)));
    background.spawn(memory::give_back(Arc::clone(&metrics), Arc::clone(&queue)));

    info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = config.namespace,
        "starting"
    );
    let clock = Clock::boot();
    let fence = Arc::new(match config.election {
        Some(_) => Fence::closed(clock),
        None => Fence::open(clock),
    });
    let client = client::connect(
        config.kubeconfig.as_deref(),
        config.request_timeout,
        config.pod_name.as_deref(),
        Arc::clone(&fence),
        Arc::clone(&health),
        Arc::clone(&metrics),
    )
    .await?;
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
    // Who stands by has begun nothing, so there is nothing to end.
    tokio::select! {
        () = leadership.acquire() => {}
        () = stop.received() => {
            info!("stopped");
            return Ok(());
        }
        _ = background.join_next() => return Err(RunError::Background),
    }

    let (events, send_events) = Events::new(client.clone(), Arc::clone(&metrics));
    let sending = tokio::spawn(send_events);
    if config.election.is_some() {
        events.send(has_become_leader(&config));
    }
    let mut watching = JoinSet::new();
    let workers = assemble(
        &config,
        client,
        &health,
        &metrics,
        (queue, caches),
        events,
        &mut watching,
    )?;
    tokio::select! {
        () = stop.received() => {}
        () = workers.dispatch(&fence) => {}
        lost = leadership.keep() => return Err(lost.into()),
        _ = background.join_next() => return Err(RunError::Background),
        _ = watching.join_next() => return Err(RunError::Background),
    }

    health.stop();
    info!("stopping: running passes are finished, no new ones begin");
    let all_ended = tokio::select! {
        all_ended = end(workers, watching, sending) => all_ended,
        lost = leadership.keep() => return Err(lost.into()),
        () = stop.received() => return Err(RunError::Impatient),
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
    watching.shutdown().await;
    drop(workers);
    let sent = timeout_at(deadline, &mut sending).await.is_ok();
    if !sent {
        warn!("some Events were not sent");
        sending.abort();
    }
    drained && sent
}

fn has_become_leader(config: &Config) -> Notice {
    let name = config.pod_name.as_deref().unwrap_or("this process");
    Notice {
        regarding: leader::reference(&config.namespace),
        warning: false,
        reason: "LeaderElection",
        action: "Lead",
        message: format!("{name} holds the Lease {LEASE}"),
    }
}

/// Puts the parts together and starts the watches.
fn assemble(
    config: &Config,
    client: Client,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    (queue, caches): (Arc<Queue>, Caches),
    events: Events,
    watching: &mut JoinSet<()>,
) -> Result<Workers, RunError> {
    let options = mode::first_options(config.request_timeout);
    let accounts = Arc::new(ServiceAccounts::new(client.clone(), options.lru.max_age));
    let operator_config = config_map(&config.namespace, mode::CONFIG_MAP);
    let probe = SecretProbe {
        metrics: Arc::clone(metrics),
        events: events.clone(),
        config_map: operator_config.clone(),
    };
    let switch = Arc::new(Switch::with_probe(client.clone(), options, Arc::new(probe))?);
    let injection = Arc::new(Injection::default());
    let mode_switch = ModeSwitch::new(
        Arc::clone(&switch),
        Arc::clone(&accounts),
        Arc::clone(&injection),
        events.clone(),
        Arc::clone(metrics),
        config.request_timeout,
        operator_config,
    );
    let platform = Arc::new(Platform::new(
        events.clone(),
        Arc::clone(metrics),
        Arc::clone(health),
        config_map(&config.platform_namespace, platform::CONFIG_MAP),
    ));
    let ca_bundle = Arc::new(CaBundleSource::new(
        config.platform_namespace.clone(),
        config.request_timeout,
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
    watching.spawn(Arc::clone(&accounts).follow(triggers));
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
    Ok(Workers {
        shared: Arc::new(Shared {
            reconciler: Reconciler {
                platform,
                observer,
                applier,
                reporter,
                put_off: PutOff::default(),
            },
            queue,
            metrics: Arc::clone(metrics),
            tries: Mutex::default(),
            resync_period: config.resync_period,
        }),
        health: Arc::clone(health),
        begun,
        most: config.max_concurrent_reconciles,
        permits: Arc::new(Semaphore::new(config.max_concurrent_reconciles)),
    })
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

/// Shows that the executor runs tasks.
async fn beat(health: Arc<Health>) {
    let mut beats = interval(Duration::from_secs(1));
    loop {
        beats.tick().await;
        health.beat();
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::Signal);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs passes, a bounded number at a time.
struct Workers {
    shared: Arc<Shared>,
    health: Arc<Health>,
    begun: Arc<AtomicBool>,
    most: usize,
    permits: Arc<Semaphore>,
}

struct Shared {
    reconciler: Reconciler,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    tries: Mutex<Tries>,
    resync_period: Duration,
}

impl Workers {
    /// Hands out work for ever. Dropping it stops that; passes already begun go on.
    async fn dispatch(&self, fence: &Fence) {
        self.health.until_known().await;
        self.begun.store(true, Ordering::Release);
        info!("in sync; passes begin");
        loop {
            let permits = Arc::clone(&self.permits);
            let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            let key = self.shared.queue.next().await;
            // A pass that may not write would only fail.
            fence.until_open().await;
            tokio::spawn(Arc::clone(&self.shared).run(key, permit));
        }
    }

    /// Waits for the passes that run: all permits are back when there are none.
    async fn drain(&self) {
        let most = u32::try_from(self.most).expect("the configuration bounds it by 256");
        let _all = self.permits.acquire_many(most).await;
    }
}

impl Shared {
    /// Runs one pass and appoints the next one.
    async fn run(self: Arc<Self>, key: ObjectKey, permit: OwnedSemaphorePermit) {
        let started = Instant::now();
        self.metrics.passes.started();
        // A panic is a bug, and one service must not take the others down with it.
        let result = AssertUnwindSafe(self.reconciler.pass(&key)).catch_unwind().await;
        let (end, next) = match result {
            Ok(Ok(outcome)) => self.ended(&key, outcome),
            Ok(Err(error)) => self.failed(&key, &error),
            Err(_panic) => {
                error!(
                    namespace = key.namespace(),
                    name = key.name(),
                    "a pass has panicked; trying again"
                );
                (
                    PassEnd::Panic,
                    Some(self.tries(|tries| tries.failed(&key, None, fastrand::f64()))),
                )
            }
        };
        self.metrics.passes.ended(end, started.elapsed());
        if !matches!(end, PassEnd::Success) {
            self.metrics.queue.retried();
        }
        self.queue.done(&key);
        if let Some(delay) = next {
            self.queue.add_at(key, Instant::now() + delay);
        }
        drop(permit);
    }

    fn ended(&self, key: &ObjectKey, outcome: Outcome) -> (PassEnd, Option<Duration>) {
        match outcome {
            // Soon, and less and less so, should two writers be undoing each other's work.
            Outcome::Written => (
                PassEnd::Success,
                Some(self.tries(|tries| tries.failed(key, None, fastrand::f64()))),
            ),
            Outcome::Unreported(delay) => (PassEnd::RequeueAfter, Some(delay)),
            Outcome::Settled => {
                self.tries(|tries| tries.forget(key));
                // Spread, so that services that came together do not come together for ever.
                (
                    PassEnd::Success,
                    Some(self.resync_period.mul_f64(0.8 + 0.2 * fastrand::f64())),
                )
            }
            Outcome::Waiting => {
                let delay = self.tries(|tries| tries.waited(key, Instant::now(), fastrand::f64()));
                (PassEnd::RequeueAfter, Some(delay.min(self.resync_period)))
            }
            Outcome::Gone => {
                self.tries(|tries| tries.forget(key));
                (PassEnd::Success, None)
            }
        }
    }

    fn failed(&self, key: &ObjectKey, error: &PassError) -> (PassEnd, Option<Duration>) {
        let delay = self.tries(|tries| tries.failed(key, error.retry_after(), fastrand::f64()));
        let (namespace, name) = (key.namespace(), key.name());
        if error.is_conflict() {
            debug!(namespace, name, %error, "somebody else was faster; trying again");
            return (PassEnd::Requeue, Some(delay));
        }
        let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        warn!(namespace, name, %error, kind = error.kind(), retry_ms, "pass failed");
        (PassEnd::Error, Some(delay))
    }

    fn tries<R>(&self, change: impl FnOnce(&mut Tries) -> R) -> R {
        change(&mut self.tries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
