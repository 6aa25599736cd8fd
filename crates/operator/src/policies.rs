//! The policy controller: `InferencePolicies` are compiled into policies of the API server, which then evaluates them.
//!
//! No policy, template or binding is kept in memory: a pass reads what it needs, and a search reads everything page by page.
//! What ten thousand policies cost here is the eight bytes each that a search remembers while it runs.
//!
//! | module | what it is |
//! |---|---|
//! | `watches`, `triggers` | what has changed, and what that leads to |
//! | `pass`, `templates` | one policy, one template: from what is written to what is in force |
//! | `barrier` | how it is known that something is in force |
//! | `sweep`, `cleaner` | what nobody owns any more, found and deleted |
//! | `rounds` | what was changed or deleted unseen |
//! | `repairs` | who undoes whose work |
//! | `requests`, `lane`, `kinds` | how the API server is asked, how fast, and about what |

mod barrier;
mod cleaner;
mod in_use;
mod kinds;
mod lane;
mod meant;
mod pass;
mod recent;
mod repairs;
mod requests;
mod rounds;
mod sweep;
mod templates;
mod triggers;
mod watches;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use isvc_core::policy::{Policy, names, status};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::{debug, error, warn};

use self::{
    barrier::Barrier,
    cleaner::Cleaner,
    in_use::InUse,
    kinds::{Child, Kind, Parent},
    lane::Lane,
    pass::End,
    recent::Recent,
    repairs::Repairs,
    requests::{Form, Requests},
    triggers::{Triggers, Work},
    watches::Watches,
};
use crate::{
    backoff::Tries,
    error::{Fault, FaultKind},
    events::{Events, Notice},
    observability::metrics::PolicyMetrics,
    queue::Queue,
};

/// Passes that have begun, most of which wait for the barrier.
const PASSES: usize = 256;

/// Passes that read or write at a time.
const ACTIVE: usize = 64;

/// Passes over templates at a time. Each goes through all policies.
const TEMPLATES: usize = 4;

/// Requests of passes and searches at a time.
const REQUESTS: usize = 16;

/// How often a request of a pass is repeated.
const REPEATS: u32 = 6;

/// The longest wait before a failed pass is tried again: what is missing is enforcement.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// How many failures are kept count of.
const MOST_TRIES: usize = 2000;

/// Until a template is looked at for what its policies have changed of it.
const TEMPLATE_PAUSE: Duration = Duration::from_secs(3);

/// What passes and searches have in common.
struct Enforcer {
    requests: Requests,
    cleaner: Cleaner,
    barrier: Arc<Barrier>,
    triggers: Arc<Triggers>,
    recent: Arc<Recent>,
    in_use: Arc<InUse>,
    active: Semaphore,
    repairs: Mutex<Repairs>,
    tries: Mutex<Tries<Work>>,
    events: Events,
    metrics: PolicyMetrics,
}

/// Starts the policy controller; `namespace` is the operator's own. Its tasks end when they are dropped.
pub(crate) fn start(
    client: &Client,
    namespace: &str,
    metrics: &PolicyMetrics,
    events: Events,
    tasks: &mut JoinSet<()>,
) {
    let requests = Requests::new(client.clone(), Arc::new(Lane::new(REQUESTS))).repeating(REPEATS);
    // Deletions have a lane of their own: they go on while the API server asks for fewer requests, and so slow down alone.
    let deletions = Arc::new(Lane::limited(cleaner::MOST_AT_A_TIME, cleaner::PER_SECOND));
    let deletions = Requests::new(client.clone(), deletions);
    // So does the barrier, which everything waits for.
    let looks = Requests::new(client.clone(), Arc::new(Lane::new(1))).repeating(REPEATS);
    let recent = Arc::new(Recent::default());
    let triggers = Arc::new(Triggers::new(Arc::clone(&recent), metrics.clone()));
    let enforcer = Arc::new(Enforcer {
        cleaner: Cleaner::new(deletions, requests.clone(), Arc::clone(&recent), metrics.clone()),
        barrier: Arc::new(Barrier::new(looks, namespace, metrics.clone())),
        triggers: Arc::clone(&triggers),
        recent,
        in_use: Arc::default(),
        active: Semaphore::new(ACTIVE),
        repairs: Mutex::default(),
        tries: Mutex::default(),
        events,
        metrics: metrics.clone(),
        requests: requests.clone(),
    });
    let watches = Arc::new(Watches {
        requests,
        triggers,
        metrics: metrics.clone(),
    });
    for kind in Kind::ALL {
        tasks.spawn(Arc::clone(&watches).follow(kind));
    }
    tasks.spawn(Arc::clone(&enforcer.barrier).serve());
    tasks.spawn(Arc::clone(&enforcer).sweep_for_ever());
    tasks.spawn(Arc::clone(&enforcer).rounds_for_ever());
    tasks.spawn(Arc::clone(&enforcer).dispatch(|triggers| &triggers.templates, TEMPLATES));
    tasks.spawn(enforcer.dispatch(|triggers| &triggers.policies, PASSES));
}

impl Enforcer {
    /// Hands out the work of a queue for ever, so much at a time. Dropped, it ends what it has begun.
    async fn dispatch(self: Arc<Self>, queue: fn(&Triggers) -> &Queue<Work>, most: usize) {
        let mut running = JoinSet::new();
        loop {
            while running.len() >= most {
                running.join_next().await;
            }
            let work = tokio::select! {
                work = queue(&self.triggers).next() => work,
                Some(_) = running.join_next() => continue,
            };
            running.spawn(Arc::clone(&self).run(work));
        }
    }

    async fn run(self: Arc<Self>, work: Work) {
        self.metrics.waiting(self.triggers.waiting());
        // A panic is a bug, and one policy must not take the others down with it.
        let ended = AssertUnwindSafe(self.work_on(&work)).catch_unwind().await;
        let has_failed = !matches!(ended, Ok(Ok(_)));
        let next = match ended {
            Ok(Ok(end)) => {
                self.tries(|tries| tries.forget(&work));
                match end {
                    End::Settled => None,
                    End::Again(after) => Some(after),
                }
            }
            Ok(Err(fault)) => Some(self.failed(&work, &fault)),
            Err(_panic) => {
                error!(
                    kind = work.kind().as_str(),
                    name = work.name(),
                    "a pass has panicked; trying again"
                );
                Some(self.tries(|tries| tries.failed(&work, None, fastrand::f64())))
            }
        };
        self.metrics.pass_ended(!has_failed);
        match next {
            Some(after) => self.triggers.again(&work, after, has_failed),
            None => self.triggers.queue(&work).done(&work),
        }
        self.metrics.waiting(self.triggers.waiting());
    }

    async fn work_on(&self, work: &Work) -> Result<End, Fault> {
        match work {
            Work::Policy(name) => self.pass(name).await,
            Work::Template(name) => Box::pin(self.template(name)).await,
            Work::Users(hash) => self.look_at_users_of(hash).await,
        }
    }

    /// An admission policy was changed or deleted: a pass over a policy that uses it puts it back. One is enough, of a policy
    /// that is enforced by it: others may be about to use another one. One that is fought over repairs less and less often, and so
    /// comes last. What nobody uses is deleted.
    async fn look_at_users_of(&self, hash: &str) -> Result<End, Fault> {
        let labels = format!("{}={hash}", names::LABEL_POLICY_HASH);
        let mut token = String::new();
        let (mut is_used, mut fought_over) = (false, None);
        loop {
            let kind = Kind::ValidatingAdmissionPolicyBinding;
            let users = self
                .requests
                .page::<Child>(kind, &labels, &token, Form::Metadata)
                .await?;
            for user in users.items {
                is_used = true;
                let Some(owner) = user.metadata.owner(Kind::InferencePolicy) else {
                    continue;
                };
                let work = Work::Policy(Arc::from(&*owner.name));
                // A pass that goes on now may have looked before the change, and its status does not tell yet what it does. Asked
                // before the status is read, which is that of the last one if there is none.
                self.triggers.policies.again_if_running(&work);
                let policy = self
                    .requests
                    .read::<Parent>(Kind::InferencePolicy, &owner.name, Form::Whole)
                    .await?;
                let Some(policy) = policy.filter(|policy| policy.is_enforced_by(hash)) else {
                    continue;
                };
                if policy.holds(status::CONTESTED) {
                    fought_over.get_or_insert(work);
                } else {
                    self.triggers.put_back(work, Duration::ZERO);
                    return Ok(End::Settled);
                }
            }
            token = users.metadata.token;
            if token.is_empty() {
                break;
            }
        }
        if let Some(work) = fought_over {
            self.triggers.put_back(work, Duration::ZERO);
        } else if !is_used && !self.try_retire(hash).await? {
            return Ok(End::Again(TEMPLATE_PAUSE));
        }
        Ok(End::Settled)
    }

    fn failed(&self, work: &Work, fault: &Fault) -> Duration {
        let delay = self.tries(|tries| {
            tries.bound(MOST_TRIES);
            tries.failed(work, fault.retry_after, fastrand::f64()).min(MOST_WAIT)
        });
        match fault.kind {
            FaultKind::Conflict | FaultKind::NotLeading => {
                debug!(kind = work.kind().as_str(), name = work.name(), error = %fault, "trying again");
            }
            _ => {
                let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                warn!(kind = work.kind().as_str(), name = work.name(), error = %fault, error_kind = fault.kind.as_str(), retry_ms, "pass failed");
            }
        }
        delay
    }

    fn tell_repair(&self, policy: &Policy, contested: bool) {
        self.metrics.repaired();
        let (reason, message) = if contested {
            self.metrics.contested();
            let message = "What the policy compiles to was changed or deleted again and again by somebody else; it is put \
                           back more and more slowly.";
            ("Contested", message)
        } else {
            (
                "Repaired",
                "What the policy compiles to was changed or deleted by somebody else, and is put back.",
            )
        };
        warn!(kind = names::POLICY_KIND, name = policy.name, "{message}");
        self.tell(
            Kind::InferencePolicy,
            &policy.name,
            &policy.uid,
            reason,
            message.to_owned(),
        );
    }

    fn tell_refusal(&self, policy: &Policy, fault: &Fault) {
        warn!(kind = names::POLICY_KIND, name = policy.name, error = %fault, "the API server refuses what a policy compiles to");
        self.tell(
            Kind::InferencePolicy,
            &policy.name,
            &policy.uid,
            "Refused",
            fault.message.clone(),
        );
    }

    fn tell_refused_template(&self, name: &str, uid: &str, text: &str) {
        warn!(
            kind = names::TEMPLATE_KIND,
            name,
            error = text,
            "the API server refuses the rules of a template"
        );
        self.tell(Kind::InferencePolicyTemplate, name, uid, "Refused", text.to_owned());
    }

    fn tell(&self, kind: Kind, name: &str, uid: &str, reason: &'static str, message: String) {
        self.events.send(Notice {
            regarding: ObjectReference {
                api_version: Some(kind.api_version().to_owned()),
                kind: Some(kind.as_str().to_owned()),
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            warning: true,
            reason,
            action: "Enforce",
            message,
        });
    }

    fn repairs(&self) -> MutexGuard<'_, Repairs> {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tries<R>(&self, change: impl FnOnce(&mut Tries<Work>) -> R) -> R {
        change(&mut self.tries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
