//! `leanserve audit`: finds `InferenceServices` that already break a policy, by asking the API server about each.
//!
//! Every service is patched in a dry run that adds one label. Bindings that select this label warn, and the warnings name the
//! policies that the service breaks. So the API server's own evaluation is the verdict, nothing is stored, and what is held
//! here is a page of names and what was found: it does not grow with the services.
//!
//! A run asks about every service that is there from its beginning to its end. It is complete if each was evaluated; of
//! a policy, if in addition it was in force, unchanged, from the beginning to the end. Several auditors at a time do no
//! harm: they ask the same and write the same.

mod answer;
mod ask;
mod changes;
mod findings;
mod policies;
mod requests;
mod services;
mod warnings;

use std::{path::Path, sync::Arc, time::Duration};

use kube::Client;
use memory_guard::{Guard, Settings, Source};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

pub(crate) use self::findings::Totals;
use self::{
    changes::Changes,
    findings::{Findings, Room},
    policies::{InForce, Policies},
    requests::Requests,
    services::{Next, Services},
};
use crate::{
    args::AuditArgs,
    client::ConnectError,
    config::{self, Common, InvalidFlag},
    health::Health,
    memory::{self, guard::look_on, shedders},
    observability::metrics::AuditMetrics,
    role::{self, Role, RoleError},
};

/// After a run that was not complete: soon enough to matter, late enough for an API server in trouble.
const AGAIN: Duration = Duration::from_secs(300);

/// So many services in a row that cannot be evaluated say that no other can be.
const IN_A_ROW: u32 = 20;

/// What the auditor lacks when they cannot be listed.
const POLICIES: &str = "policies";

/// How the auditor is to run.
#[derive(Clone, Debug)]
pub(crate) struct AuditConfig {
    pub(crate) common: Common,
    /// From the end of a run to the next one without cause.
    interval: Duration,
    /// One run and no more.
    once: bool,
    /// Most requests a second.
    qps: u32,
    /// Objects in an answer to a list.
    page_size: u32,
}

/// Why the auditor ended.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the run was not complete: {0}")]
    Incomplete(String),
}

/// What came of a run.
#[derive(Debug, Default)]
struct Run {
    /// Services that were evaluated.
    services: u64,
    /// Services that were not.
    not_evaluated: u64,
    /// Why the run is not complete; none if it is.
    incomplete: Option<String>,
}

impl AuditConfig {
    /// Reads flags, with `environment` as the fall-back for what Kubernetes conventionally sets.
    pub(crate) fn new(args: AuditArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidFlag> {
        if !(1..=1000).contains(&args.qps) {
            return Err(config::invalid("qps", "must be between 1 and 1000"));
        }
        if !(1..=1000).contains(&args.page_size) {
            return Err(config::invalid("page-size", "must be between 1 and 1000"));
        }
        Ok(Self {
            common: Common::new(args.common, environment)?,
            interval: config::duration("interval", &args.interval, 60, 30 * 24 * 3600)?,
            once: args.once,
            qps: args.qps,
            page_size: args.page_size,
        })
    }
}

/// Audits until it is told to stop, or once.
pub(crate) async fn run(config: AuditConfig) -> Result<(), AuditError> {
    let health = Arc::new(Health::without_watches());
    let metrics = Arc::new(AuditMetrics::new());
    if !config.once {
        metrics.runs_every(config.interval);
    }
    let mut role = Role::begin(&config.common, &health, Arc::clone(&metrics) as _).await?;
    let client = role::connect(&config.common, &health, &metrics.requests).await?;
    let room = Room::default();
    let mut guard = Guard::new(Source::discover(Path::new("/")), Settings::default());
    guard.register(Arc::new(room.clone()));
    guard.register(Arc::new(shedders::Pages));
    role.background.spawn(look_on(guard, Arc::clone(&metrics.memory)));
    // The number of runs changes when one ends, and nothing is done then.
    let done = Arc::clone(&metrics);
    role.background.spawn(memory::give_back(move || Some(done.count())));
    let auditor = Auditor {
        policies: Policies::new(config.page_size),
        page_size: config.page_size,
        requests: Requests::new(client.clone(), config.qps),
        room,
        health,
        metrics,
    };
    tokio::select! {
        () = role.stop.received() => {
            info!("told to stop");
            Ok(())
        }
        failed = role.background.failed() => Err(failed.into()),
        ended = work(auditor, &config, client) => ended,
    }
}

async fn work(mut auditor: Auditor, config: &AuditConfig, client: Client) -> Result<(), AuditError> {
    if config.once {
        return match auditor.run().await.1.incomplete {
            None => Ok(()),
            Some(reason) => Err(AuditError::Incomplete(reason)),
        };
    }
    let mut changes = Changes::watch(client);
    loop {
        let (in_force, run) = auditor.run().await;
        let pause = match run.incomplete {
            None => config.interval,
            Some(_) => config.interval.min(AGAIN),
        };
        let due = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep(due.saturating_duration_since(Instant::now())) => break,
                () = changes.settled() => {
                    // Most changes are of statuses, the auditor's own among them, and change nothing about services.
                    match auditor.policies.in_force(&mut auditor.requests).await {
                        Ok(now) if in_force.as_ref() == Some(&now) => {}
                        Ok(_) => {
                            info!("policies have changed");
                            break;
                        }
                        Err(fault) => warn!(error = %fault, "policies cannot be listed"),
                    }
                }
            }
        }
    }
}

/// Makes runs, one after the other.
struct Auditor {
    policies: Policies,
    page_size: u32,
    requests: Requests,
    room: Room,
    health: Arc<Health>,
    metrics: Arc<AuditMetrics>,
}

impl Auditor {
    /// One run, with the policies that were in force when it began.
    async fn run(&mut self) -> (Option<InForce>, Run) {
        let began = Instant::now();
        let in_force = match self.policies.in_force(&mut self.requests).await {
            Ok(in_force) => in_force,
            Err(fault) => {
                self.health.lacks(POLICIES, Some(fault.to_string()));
                let run = Run {
                    incomplete: Some(format!("policies cannot be listed: {fault}")),
                    ..Run::default()
                };
                self.ended(&run, &Findings::default(), began);
                return (None, run);
            }
        };
        self.health.lacks(POLICIES, None);
        let mut findings = Findings::within(self.room.clone());
        let mut run = if in_force.is_empty() {
            Run::default()
        } else {
            self.evaluate(&mut findings).await
        };
        let reported = self
            .policies
            .report(&mut self.requests, &in_force, &findings, run.incomplete.as_deref())
            .await;
        if let Err(problem) = reported {
            run.incomplete.get_or_insert(problem);
        }
        self.ended(&run, &findings, began);
        (Some(in_force), run)
    }

    /// Asks about every service.
    async fn evaluate(&mut self, findings: &mut Findings) -> Run {
        let mut run = Run::default();
        let mut services = Services::new(self.page_size);
        let mut in_a_row = 0;
        loop {
            let service = match services.next(&mut self.requests).await {
                Next::Service(service) => service,
                Next::End => break,
                Next::Failed(fault) => {
                    run.incomplete = Some(format!("services cannot be listed: {fault}"));
                    break;
                }
            };
            match ask::about(&mut self.requests, &service).await {
                Ok(None) => {}
                Ok(Some(broken)) => {
                    in_a_row = 0;
                    run.services += 1;
                    findings.add(&service, broken);
                }
                Err(unasked) => {
                    run.not_evaluated += 1;
                    warn!(namespace = service.namespace, name = service.name, reason = %unasked.reason, "not evaluated");
                    run.incomplete.get_or_insert_with(|| {
                        format!(
                            "{}/{} was not evaluated: {}",
                            service.namespace, service.name, unasked.reason
                        )
                    });
                    in_a_row += 1;
                    if unasked.hopeless || in_a_row >= IN_A_ROW {
                        break;
                    }
                }
            }
        }
        run
    }

    fn ended(&self, run: &Run, findings: &Findings, began: Instant) {
        let complete = run.incomplete.is_none();
        let seconds = began.elapsed().as_secs_f64();
        let totals = findings.totals();
        self.metrics
            .ended(run.services, run.not_evaluated, &totals, complete, seconds);
        info!(
            complete,
            services = run.services,
            not_evaluated = run.not_evaluated,
            violations = totals.violations,
            policies_violated = totals.policies,
            seconds,
            reason = run.incomplete.as_deref().unwrap_or_default(),
            "audit run ended"
        );
    }
}
