//! Beside `KServe`'s own controller: what it serves is left to it.
//!
//! Whether it runs is seen by its Lease, which its leader renews every two seconds. Which services it serves is seen by the
//! finalizer that it puts on each of them before anything else.
//!
//! Source: `cmd/manager/main.go` (`LeaderLockName`) and `pkg/controller/v1beta1/inferenceservice/controller.go` of
//! github.com/kserve/kserve v0.17.0.

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
use tracing::{debug, info, warn};

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

/// A controller whose Lease has not changed for so long does not lead: it would have lost the Lease, which lasts 15 s.
const SILENCE: Duration = Duration::from_secs(20);

/// The most time one look may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a new service is left to `KServe`'s controller, which marks what it serves within moments.
const GRACE: Duration = Duration::from_secs(30);

/// Whether `KServe`'s controller runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Running {
    /// There is a Lease, and it has not been looked at for long enough.
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
            Running::Unknown => return Claim::Unknown,
            Running::Yes => {}
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
            "KServe's controller runs (it renews the Lease {}/{LEASE}) and has marked this service with its finalizer \
             {}, so leanserve changes nothing. Either let leanserve serve it: hand over as docs/migration.md says; or leave \
             it to KServe: keep it out of leanserve's scope with --watch-namespaces or --inference-service-selector",
            self.namespace,
            names::KSERVE_FINALIZER
        )
    }

    /// Looks at the Lease again and again. What comes of it asks for passes over all services. Never ends.
    pub(crate) async fn follow(self: Arc<Self>, client: Client, triggers: Triggers) {
        let api: Api<Lease> = Api::namespaced(client, &self.namespace);
        let (clock, mut watched, mut troubled) = (Clock::boot(), Watched::default(), false);
        loop {
            let asked = clock.now();
            let looked = timeout(DEADLINE, api.get_opt(LEASE)).await;
            let looked = looked.map_or_else(|_| Err(Fault::timeout()), |answer| answer.map_err(Fault::from));
            let running = match looked {
                Ok(lease) => {
                    troubled = false;
                    watched.judge(lease.as_ref().and_then(version), asked, clock.now())
                }
                Err(fault) => {
                    let forbidden = fault.kind == FaultKind::Forbidden;
                    if !troubled {
                        warn!(namespace = self.namespace, lease = LEASE, error = %fault,
                            "cannot tell whether KServe's controller runs");
                    }
                    troubled = true;
                    // Without the right nothing can ever be told, and nobody would be served.
                    if forbidden { Running::No } else { self.running() }
                }
            };
            if self.is(running) {
                match running {
                    Running::Yes => warn!(
                        namespace = self.namespace,
                        lease = LEASE,
                        "KServe's controller runs: services with its finalizer are left to it"
                    ),
                    Running::No => info!(
                        namespace = self.namespace,
                        lease = LEASE,
                        "KServe's controller does not run"
                    ),
                    Running::Unknown => debug!("a Lease of KServe's controller; waiting whether it is renewed"),
                }
                triggers.all(None);
            }
            sleep(INTERVAL).await;
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

/// The version of a record that somebody holds.
fn version(lease: &Lease) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let held = spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
    held.then(|| lease.metadata.resource_version.clone().unwrap_or_default())
}

/// What was seen of the Lease. Its times are those of another machine's clock and are not looked at: a Lease that changes is
/// renewed.
#[derive(Debug, Default)]
struct Watched {
    seen: Option<(String, Duration)>,
    changes: bool,
}

impl Watched {
    /// What the Lease means that was asked for at `asked` and had arrived by `now`; there is no version where nobody holds it.
    fn judge(&mut self, version: Option<String>, asked: Duration, now: Duration) -> Running {
        let Some(version) = version else {
            // The next holder is news.
            self.seen = Some((String::new(), now));
            self.changes = false;
            return Running::No;
        };
        match &self.seen {
            None => {
                self.seen = Some((version, now));
                Running::Unknown
            }
            Some((seen, since)) if *seen == version => {
                if asked.saturating_sub(*since) >= SILENCE {
                    self.changes = false;
                    Running::No
                } else if self.changes {
                    Running::Yes
                } else {
                    Running::Unknown
                }
            }
            Some(_) => {
                self.seen = Some((version, now));
                self.changes = true;
                Running::Yes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::advance;

    use super::*;
    use crate::{observability::metrics::Metrics, stored::service::tests::stored};

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks at the Lease at these seconds.
    fn check(looks: &[(u32, Option<&str>, Running)]) {
        let mut watched = Watched::default();
        for (at, version, expected) in looks {
            let at = *at * SECOND;
            let found = watched.judge(version.map(str::to_owned), at, at);
            assert_eq!(found, *expected, "at {at:?}");
        }
    }

    #[test]
    fn a_lease_that_is_renewed_means_a_controller() {
        use Running::{No, Unknown, Yes};
        check(&[(0, None, No), (5, None, No)]);
        check(&[
            (0, Some("1"), Unknown),
            (5, Some("4"), Yes),
            (10, Some("4"), Yes),
            (24, Some("4"), Yes),
            (25, Some("4"), No),
            (30, Some("4"), No),
            (35, Some("5"), Yes),
        ]);
        // Left over by one that is gone.
        check(&[
            (0, Some("1"), Unknown),
            (19, Some("1"), Unknown),
            (20, Some("1"), No),
            (60, Some("1"), No),
        ]);
        check(&[(0, None, No), (5, Some("1"), Yes), (10, None, No)]);
    }

    #[test]
    fn a_lease_that_nobody_holds_is_none() {
        let lease = |holder: &str| {
            serde_json::from_value::<Lease>(json!({
                "metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": holder},
            }))
        };
        assert_eq!(version(&lease("").expect("a Lease")), None);
        assert_eq!(version(&lease("pod_1").expect("a Lease")), Some("7".to_owned()));
    }

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
