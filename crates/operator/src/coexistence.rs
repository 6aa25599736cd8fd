//! Beside `KServe`'s own controller: what it serves is left to it.
//!
//! Whether it runs is seen by its Lease, which its leader renews every two seconds. Which services it serves is seen by the
//! finalizer that it puts on each of them before anything else.
//!
//! Source: `cmd/manager/main.go` (`LeaderLockName`) and `pkg/controller/v1beta1/inferenceservice/controller.go` of
//! github.com/kserve/kserve v0.17.0.

mod watched;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use isvc_core::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::watched::{Look, PARKED, SILENCE, Sight, Watched};
use crate::{
    error::{Fault, FaultKind},
    key::ObjectKey,
    leader::clock::Clock,
    observability::metrics::CoexistenceMetrics,
    stored::{Stored, service::StoredService},
    triggers::Triggers,
};

/// Name of the Lease of `KServe`'s controller, in the platform's namespace.
pub(crate) const LEASE: &str = "kserve-controller-manager-leader-lock";

/// How often the Lease is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// The most time one look may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a new service is left to `KServe`'s controller, which marks what it serves within moments.
const GRACE: Duration = Duration::from_secs(30);

/// Whether `KServe`'s controller runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Running {
    /// The Lease could not be looked at, or not for long enough.
    #[default]
    Unknown,
    Yes,
    No,
}

/// Whose a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody else serves it.
    Free,
    /// It is not known yet; a change of that asks for a pass.
    Unknown,
    /// It is known after this time.
    After(Duration),
    /// `KServe`'s controller runs and has marked it.
    KServe,
}

/// What is known of the other controller.
pub(crate) struct Coexistence {
    namespace: String,
    running: watch::Sender<Running>,
    services: Mutex<HashMap<ObjectKey, Seen>>,
    metrics: CoexistenceMetrics,
}

/// A service that was looked at while the other controller ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It had no mark; since when.
    Unmarked(Instant),
    Refused,
}

impl Coexistence {
    /// `namespace` is where `KServe` runs, if it does.
    pub(crate) fn new(namespace: String, metrics: CoexistenceMetrics) -> Self {
        Self {
            namespace,
            running: watch::Sender::default(),
            services: Mutex::default(),
            metrics,
        }
    }

    /// The Lease has shown this.
    pub(crate) fn is(&self, running: Running) -> bool {
        let news = self.running.send_if_modified(|state| {
            let news = *state != running;
            *state = running;
            news
        });
        if news {
            self.metrics.running(running == Running::Yes);
            if running == Running::No {
                self.services().clear();
                self.metrics.refused(0);
            }
        }
        news
    }

    pub(crate) fn running(&self) -> Running {
        *self.running.borrow()
    }

    /// Whose a service is that is otherwise ours to serve.
    pub(crate) fn claim(&self, service: &StoredService) -> Claim {
        match self.running() {
            Running::No => return Claim::Free,
            Running::Unknown if is_marked(service) => return Claim::Unknown,
            Running::Unknown | Running::Yes => {}
        }
        let key = &service.head().key;
        let mut services = self.services();
        let claim = if is_marked(service) {
            services.insert(key.clone(), Seen::Refused);
            Claim::KServe
        } else {
            let now = Instant::now();
            let seen = services.entry(key.clone()).or_insert(Seen::Unmarked(now));
            // Its mark was taken away, by whoever wants it to be served here.
            if *seen == Seen::Refused {
                *seen = Seen::Unmarked(now);
            }
            match *seen {
                Seen::Unmarked(since) if now < since + GRACE => Claim::After(since + GRACE - now),
                Seen::Unmarked(_) | Seen::Refused => Claim::Free,
            }
        };
        self.count(&services);
        claim
    }

    /// The service is gone, or nothing that could be claimed.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        let mut services = self.services();
        if services.remove(key).is_some() {
            self.count(&services);
        }
    }

    /// What is said to those whose services are refused.
    pub(crate) fn refusal(&self) -> String {
        format!(
            "KServe's controller runs (it has lately renewed the Lease {}/{LEASE}) and has marked this service with its finalizer \
             {}, so leanserve changes nothing. Either let leanserve serve it: hand over as docs/migration.md says; or leave \
             it to KServe: keep it out of leanserve's scope with --watch-namespaces or --inference-service-selector",
            self.namespace,
            names::KSERVE_FINALIZER
        )
    }

    /// Looks at the Lease again and again. What comes of it asks for passes over all services. Never ends.
    pub(crate) async fn follow(self: Arc<Self>, client: Client, triggers: Triggers) {
        let api: Api<Lease> = Api::namespaced(client, &self.namespace);
        let (clock, mut watched) = (Clock::boot(), Watched::default());
        let (mut troubled, mut said) = (false, None);
        loop {
            let asked = clock.now();
            let looked = timeout(DEADLINE, api.get_opt(LEASE)).await;
            let looked = looked.map_or_else(|_| Err(Fault::timeout()), |answer| answer.map_err(Fault::from));
            let look = match &looked {
                Ok(lease) => Look::Lease(Sight::of(lease.as_ref())),
                Err(fault) if fault.kind == FaultKind::Forbidden => Look::Forbidden,
                Err(_) => Look::Failed,
            };
            if let Err(fault) = &looked
                && !troubled
            {
                warn!(namespace = self.namespace, lease = LEASE, error = %fault,
                    "cannot tell whether KServe's controller runs; what is known of it stays as it is");
            }
            troubled = looked.is_err();
            self.metrics.unreadable(troubled);
            let running = watched.judge(look, asked, clock.now());
            // Before the first answer there is nothing to say.
            if said != Some(running) && !(troubled && running == Running::Unknown) {
                said = Some(running);
                self.say(running, troubled);
            }
            if self.is(running) {
                triggers.all(None);
            }
            sleep(INTERVAL).await;
        }
    }

    fn say(&self, running: Running, troubled: bool) {
        let (namespace, silence) = (&self.namespace, SILENCE.as_secs());
        match running {
            Running::Yes => warn!(
                namespace,
                lease = LEASE,
                "KServe's controller runs: services with its finalizer are left to it"
            ),
            Running::No if troubled => warn!(
                namespace,
                lease = LEASE,
                "the right to look at the Lease is missing; KServe's controller is taken not to run"
            ),
            Running::No => info!(namespace, lease = LEASE, "KServe's controller does not run"),
            Running::Unknown => info!(
                namespace,
                lease = LEASE,
                "there is a Lease of KServe's controller: services with its finalizer are left alone until it has been silent \
                 for {silence} s, or is deleted, or held by {PARKED}"
            ),
        }
    }

    fn count(&self, services: &HashMap<ObjectKey, Seen>) {
        let refused = services.values().filter(|seen| **seen == Seen::Refused).count();
        self.metrics.refused(refused);
    }

    fn services(&self) -> MutexGuard<'_, HashMap<ObjectKey, Seen>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `KServe`'s controller has taken the service in hand, now or before.
pub(crate) fn is_marked(service: &StoredService) -> bool {
    let finalizers = service.finalizers();
    finalizers.iter().any(|finalizer| finalizer == names::KSERVE_FINALIZER)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::advance;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::{observability::metrics::Metrics, observe::Caches, queue::Queue, stored::service::tests::stored};

    const SECOND: Duration = Duration::from_secs(1);

    fn service(finalizers: &[&str]) -> Arc<StoredService> {
        stored(&json!({
            "metadata": {"name": "iris", "namespace": "ns", "uid": "u", "resourceVersion": "1", "finalizers": finalizers},
            "spec": {},
        }))
    }

    fn gauge(metrics: &Metrics, name: &str) -> String {
        let page = crate::observability::metrics::tests::page(metrics);
        let found = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("{name} is not in\n{page}")).to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn what_kserve_has_marked_is_its_own_while_it_runs() {
        let metrics = Metrics::new();
        let coexistence = Coexistence::new("kserve".into(), metrics.coexistence.clone());
        let (marked, unmarked) = (service(&[names::KSERVE_FINALIZER]), service(&["other"]));
        assert_eq!(coexistence.claim(&marked), Claim::Unknown);
        assert_eq!(
            coexistence.claim(&unmarked),
            Claim::After(GRACE),
            "as beside a controller"
        );
        coexistence.forget(&marked.head().key);
        assert!(coexistence.is(Running::Yes) && !coexistence.is(Running::Yes));
        assert_eq!(coexistence.claim(&marked), Claim::KServe);
        assert_eq!(gauge(&metrics, "leanserve_refused_inferenceservices"), "1");
        assert_eq!(gauge(&metrics, "leanserve_kserve_controller_running"), "1");
        coexistence.forget(&marked.head().key);
        assert_eq!(gauge(&metrics, "leanserve_refused_inferenceservices"), "0");
        assert_eq!(coexistence.claim(&unmarked), Claim::After(GRACE));
        advance(20 * SECOND).await;
        assert_eq!(coexistence.claim(&unmarked), Claim::After(10 * SECOND));
        assert_eq!(coexistence.claim(&marked), Claim::KServe, "marked meanwhile");
        assert_eq!(
            coexistence.claim(&unmarked),
            Claim::After(GRACE),
            "the mark was taken away"
        );
        advance(GRACE).await;
        assert_eq!(coexistence.claim(&unmarked), Claim::Free, "it had time enough");
        assert_eq!(coexistence.claim(&marked), Claim::KServe);
        assert!(coexistence.is(Running::No));
        assert_eq!(coexistence.claim(&marked), Claim::Free);
        assert_eq!(gauge(&metrics, "leanserve_refused_inferenceservices"), "0");
        assert_eq!(gauge(&metrics, "leanserve_kserve_controller_running"), "0");
    }

    /// An API server that answers for the Lease with these, and with the last for ever.
    fn server(answers: Vec<(u16, Value)>) -> Client {
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let service = service_fn(move |_: http::Request<Body>| {
            let mut answers = answers.lock().expect("no panic");
            let (code, body) = answers.front().cloned().expect("never empty");
            if answers.len() > 1 {
                answers.pop_front();
            }
            let body = Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body);
            async move { Ok::<_, BoxError>(answer?) }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_refuses_for_a_while_hands_nothing_over() {
        let renewed = |version: &str| {
            let lease = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": "pod_1"}});
            (200, lease)
        };
        let refusal =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403});
        let client = server(vec![renewed("1"), renewed("2"), (403, refusal)]);
        let metrics = Arc::new(Metrics::new());
        let coexistence = Arc::new(Coexistence::new("kserve".into(), metrics.coexistence.clone()));
        let triggers = Triggers {
            queue: Arc::new(Queue::new(metrics.queue.clone())),
            services: Arc::clone(&Caches::default().inference_services),
            begun: Arc::default(),
        };
        let following = tokio::spawn(Arc::clone(&coexistence).follow(client, triggers));
        let marked = service(&[names::KSERVE_FINALIZER]);
        sleep(7 * SECOND).await;
        assert_eq!(coexistence.claim(&marked), Claim::KServe);
        assert_eq!(gauge(&metrics, "leanserve_kserve_lease_unreadable"), "0");
        sleep(3600 * SECOND).await;
        assert_eq!(coexistence.claim(&marked), Claim::KServe);
        assert_eq!(gauge(&metrics, "leanserve_kserve_lease_unreadable"), "1");
        following.abort();
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let text = Coexistence::new("kserve".into(), Metrics::new().coexistence.clone()).refusal();
        for part in [
            LEASE,
            "docs/migration.md",
            "--watch-namespaces",
            "--inference-service-selector",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.len() < 1024, "Events hold no more");
    }
}
