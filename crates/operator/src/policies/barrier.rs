//! The barrier: how it is known that the API server acts by every policy and binding written so far.
//!
//! The API server's admission works on a list of policies and bindings that it makes anew about once a second from two
//! watches, and nothing says when it has. So there is one policy and one binding of ours that are about nothing else: they
//! refuse a Lease with a label that has a token in it, and only that. A new token is written into the policy, then into the
//! binding, and the Lease is asked for, as a dry run, until it is refused: then the list was made from both, and so from
//! everything written before, because each watch delivers in order. (Source: the sources of Kubernetes 1.36,
//! `apiserver/pkg/admission/plugin/policy/generic/policy_source.go`; seen on 1.36.3.)
//!
//! Of several API servers behind one address only the one that answers is seen. Where there may be several, a while is added
//! in which the others catch up; they make their lists as often, from watches on the same storage.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use isvc_core::{names::FIELD_MANAGER, policy::names};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Resource,
    api::{Patch, PatchParams, Request},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{kinds::Kind, requests::Requests};
use crate::{
    backoff::Doubling,
    error::{Fault, FaultKind},
    observability::metrics::PolicyMetrics,
};

/// Name of the policy, of the binding and of the Lease that is never stored.
pub(super) const BARRIER: &str = "leanserve-barrier";

/// The label that holds the token.
const LABEL: &str = "leanserve.dev/barrier";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// How long one token is looked for. The list is made about once a second; a watch of the API server's own may have to be
/// restarted in between.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long somebody waits for the barrier before their pass counts as failed.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// Between tries after a failure.
const RETRY: Doubling = Doubling {
    first: Duration::from_millis(100),
    most: Duration::from_secs(10),
};

/// What is added where several API servers may answer: the interval at which each makes its list, and as much again.
const SETTLE: Duration = Duration::from_secs(2);

/// How long it is believed how many API servers there are.
const COUNT_AGE: Duration = Duration::from_secs(60);

/// One passing serves all who asked for it before it began.
pub(super) struct Barrier {
    requests: Requests,
    namespace: String,
    metrics: PolicyMetrics,
    state: Mutex<State>,
    /// Says which passing was asked for last.
    asked: watch::Sender<u64>,
    /// Says which passing has succeeded last.
    passed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// How many passings have begun.
    begun: u64,
    /// Why the present one does not succeed.
    fault: Option<Fault>,
}

impl Barrier {
    /// `namespace` is that of the operator, where it may make Leases.
    pub(super) fn new(requests: Requests, namespace: &str, metrics: PolicyMetrics) -> Self {
        Self {
            requests,
            namespace: namespace.to_owned(),
            metrics,
            state: Mutex::default(),
            asked: watch::Sender::new(0),
            passed: watch::Sender::new(0),
        }
    }

    /// Waits until every policy and binding whose write was answered before this call is in force.
    pub(super) async fn pass(&self) -> Result<(), Fault> {
        let wanted = {
            let state = self.lock();
            let wanted = state.begun + 1;
            self.asked.send_if_modified(|asked| {
                let more = *asked < wanted;
                *asked = wanted.max(*asked);
                more
            });
            wanted
        };
        let mut passed = self.passed.subscribe();
        let end = timeout(MOST_WAIT, passed.wait_for(|passed| *passed >= wanted)).await;
        match end {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.lock().fault.clone().unwrap_or_else(Fault::timeout)),
        }
    }

    /// Passes the barrier whenever somebody asks. Never ends.
    pub(super) async fn serve(self: Arc<Self>) {
        let mut asked = self.asked.subscribe();
        let mut servers = Servers::default();
        let mut settling = JoinSet::new();
        loop {
            let before = self.lock().begun;
            if asked.wait_for(|asked| *asked > before).await.is_err() {
                return;
            }
            let epoch = {
                let mut state = self.lock();
                state.begun += 1;
                state.begun
            };
            let began = Instant::now();
            let mut tries = 0;
            while let Err(fault) = self.try_to_pass().await {
                let delay = RETRY
                    .delay(tries, fastrand::f64())
                    .max(fault.retry_after.unwrap_or_default().min(RETRY.most));
                if tries == 3 {
                    warn!(error = %fault, "it cannot be seen whether policies are in force; trying again");
                }
                self.lock().fault = Some(fault);
                tries = tries.saturating_add(1);
                sleep(delay).await;
            }
            self.lock().fault = None;
            let several = servers.may_be_several(&self.requests).await;
            let barrier = Arc::clone(&self);
            // The next passing need not wait for what this one waits for.
            settling.spawn(async move {
                if several {
                    sleep(SETTLE).await;
                }
                barrier.has_passed(epoch, began);
            });
            while settling.try_join_next().is_some() {}
        }
    }

    fn has_passed(&self, epoch: u64, began: Instant) {
        self.metrics.barrier_passed(began.elapsed());
        debug!(elapsed_ms = began.elapsed().as_millis(), "policies are in force");
        self.passed.send_if_modified(|passed| {
            let later = epoch > *passed;
            *passed = epoch.max(*passed);
            later
        });
    }

    async fn try_to_pass(&self) -> Result<(), Fault> {
        let token = format!("{:016x}", fastrand::u64(..));
        let (policy, binding, lease) = self.objects(&token);
        self.requests
            .apply::<IgnoredAny>(Kind::ValidatingAdmissionPolicy, &policy, false)
            .await?;
        self.requests
            .apply::<IgnoredAny>(Kind::ValidatingAdmissionPolicyBinding, &binding, false)
            .await?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.is_refused(&lease).await? {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(Fault::timeout())
    }

    /// Whether our policy refuses the Lease.
    async fn is_refused(&self, lease: &Value) -> Result<bool, Fault> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER).force();
        parameters.dry_run = true;
        // By apply, because that asks for the right to create with the object's name.
        let path = Request::new(Lease::url_path(&(), Some(&self.namespace)));
        let request = path.patch(BARRIER, &parameters, &Patch::Apply(lease));
        match self.requests.send::<IgnoredAny>(request).await {
            Ok(_) => Ok(false),
            Err(fault) if is_our_refusal(&fault) => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    fn objects(&self, token: &str) -> (Value, Value, Value) {
        let metadata = json!({
            "name": BARRIER,
            "labels": {"app.kubernetes.io/component": "barrier"},
            "annotations": {"leanserve.dev/description":
                "Shows leanserve when policies are in force. Refuses nothing but one Lease, which is never stored."},
        });
        let policy = json!({
            "apiVersion": names::ADMISSION_API_VERSION,
            "kind": names::ADMISSION_POLICY_KIND,
            "metadata": metadata,
            "spec": {
                "failurePolicy": "Ignore",
                "matchConstraints": {
                    "matchPolicy": "Exact",
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                    "objectSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]},
                    "resourceRules": [{
                        "apiGroups": [Lease::group(&())],
                        "apiVersions": [Lease::version(&())],
                        "resources": [Lease::plural(&())],
                        "resourceNames": [BARRIER],
                        "operations": ["CREATE"],
                        "scope": "Namespaced",
                    }],
                },
                "validations": [{
                    "expression": format!("object.metadata.labels['{LABEL}'] != '{token}'"),
                    "message": "in force",
                }],
            },
        });
        let binding = json!({
            "apiVersion": names::ADMISSION_API_VERSION,
            "kind": names::BINDING_KIND,
            "metadata": metadata,
            "spec": {
                "policyName": BARRIER,
                "validationActions": ["Deny"],
                "matchResources": {
                    "matchPolicy": "Exact",
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                    "objectSelector": {"matchLabels": {LABEL: token}},
                },
            },
        });
        let lease = json!({
            "apiVersion": Lease::api_version(&()),
            "kind": Lease::kind(&()),
            "metadata": {"name": BARRIER, "namespace": self.namespace, "labels": {LABEL: token}},
        });
        (policy, binding, lease)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The API server names the policy that refuses; the words around it may change.
fn is_our_refusal(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Invalid | FaultKind::Forbidden)
        && fault.message.contains(names::ADMISSION_POLICY_KIND)
        && fault.message.contains(BARRIER)
        && fault.message.contains("denied request")
}

/// How many API servers there are.
#[derive(Default)]
struct Servers {
    known: Option<(Instant, bool)>,
}

impl Servers {
    /// Whether requests may be answered by more than one API server: those of a high-availability control plane keep a list
    /// of themselves. Several where that cannot be told.
    async fn may_be_several(&mut self, requests: &Requests) -> bool {
        if let Some((since, several)) = self.known
            && since.elapsed() < COUNT_AGE
        {
            return several;
        }
        let path = Request::new("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
        let request = path.get("kubernetes", &kube::api::GetParams::default());
        let several = match requests.send::<EndpointSlice>(request).await {
            Ok(slice) => {
                slice
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint.addresses.len())
                    .sum::<usize>()
                    > 1
            }
            Err(fault) => {
                debug!(error = %fault, "the number of API servers is not known, so it is taken for more than one");
                true
            }
        };
        self.known = Some((Instant::now(), several));
        several
    }
}

#[derive(Deserialize)]
struct EndpointSlice {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<IgnoredAny>,
}
