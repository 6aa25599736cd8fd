//! What a pass says about the service: status and events.

mod model;

use crate::{
    api::{
        ComponentKind, ConditionStatus, InferenceServiceStatus, InvalidField, Scope,
        status::{Address, INGRESS_READY, PREDICTOR_READY, READY, STOPPED},
    },
    condition::{Conditions, Verdict},
    decide::{Decision, live_deployment},
    desired::ChildKind,
    names,
    observed::{LiveObject, Observed},
    readiness,
    rejection::{RECONCILE_FAILED, Rejection},
    resolve::{Exposure, Resolved},
    settings::DeploymentMode,
    validate::{INVALID_SPEC, UNSUPPORTED},
};

/// What applying the children came to.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The first child the API server refused, or that is not ours; later ones were not tried.
    pub refused: Option<Refusal>,
}

/// A child that could not be brought into shape, although trying again at once would not help.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
    /// What the API server said, or that the object belongs to somebody else.
    pub message: String,
}

/// What to write about a pass.
#[derive(Clone, Debug)]
pub struct Report {
    /// The new status; write it when it differs from the stored one.
    pub status: InferenceServiceStatus,
    /// Events to send, in order.
    pub events: Vec<Event>,
}

/// An Event on the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Normal or Warning.
    pub warning: bool,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Computes status and events; `None` when the decision was not to touch the service.
///
/// `now` is an RFC 3339 time in seconds, used for conditions that change.
#[must_use]
pub fn report(observed: &Observed, decision: &Decision, applied: &Applied, now: &str) -> Option<Report> {
    let previous = &observed.service.status;
    let mut status = begin(previous, now);
    let mut problem = None;
    match decision {
        Decision::Ignored { .. } | Decision::Frozen => return None,
        Decision::Reject(rejection) => {
            reject(&mut status, rejection, now);
            problem = Some(rejection.event.clone());
        }
        Decision::Build { resolved, .. } if resolved.stopped => stop(&mut status, observed, now),
        Decision::Build { resolved, .. } => {
            name_runtime(&mut status, resolved.runtime.as_ref());
            status
                .components
                .get_or_insert_default()
                .entry(resolved.predictor.kind.as_str().to_owned())
                .or_default();
            match &applied.refused {
                Some(refusal) if refusal.kind == ChildKind::Ingress => {
                    report_predictor(&mut status, resolved, observed, now);
                    let message = format!("fails to reconcile ingress: {}", refusal.message);
                    Conditions::new(&mut status.conditions, now)
                        .set(INGRESS_READY, Verdict::fails(RECONCILE_FAILED, message.clone()));
                    problem = Some(message);
                }
                Some(refusal) => {
                    let message = format!("fails to reconcile predictor: {}", refusal.message);
                    Conditions::new(&mut status.conditions, now)
                        .set(PREDICTOR_READY, Verdict::fails(RECONCILE_FAILED, message.clone()));
                    problem = Some(message);
                }
                None => {
                    report_predictor(&mut status, resolved, observed, now);
                    report_exposure(&mut status, resolved, observed, now);
                }
            }
        }
    }
    let events = events(&observed.service.meta.name, previous, &status, problem);
    Some(Report { status, events })
}

/// The report on a service whose specification cannot even be read.
#[must_use]
pub fn report_unreadable(previous: &InferenceServiceStatus, name: &str, error: &InvalidField, now: &str) -> Report {
    let mut status = begin(previous, now);
    let message = error.to_string();
    reject(&mut status, &Rejection::new(INVALID_SPEC, message.clone()), now);
    let events = events(name, previous, &status, Some(message));
    Report { status, events }
}

fn begin(previous: &InferenceServiceStatus, now: &str) -> InferenceServiceStatus {
    let mut status = previous.clone();
    DeploymentMode::Standard
        .as_str()
        .clone_into(&mut status.deployment_mode);
    Conditions::new(&mut status.conditions, now).initialize();
    status
}

fn reject(status: &mut InferenceServiceStatus, rejection: &Rejection, now: &str) {
    if let Some(runtime) = &rejection.runtime {
        name_runtime(status, Some(runtime));
    }
    if rejection.is_of_objects() {
        status
            .components
            .get_or_insert_default()
            .entry(ComponentKind::Predictor.as_str().to_owned())
            .or_default();
    }
    if let Some(failure) = &rejection.model_failure {
        model::fail(&mut status.model_status, failure);
    }
    Conditions::new(&mut status.conditions, now).set(
        PREDICTOR_READY,
        Verdict::fails(rejection.reason, rejection.message.clone()),
    );
}

/// A stopped service keeps nothing but the fact.
fn stop(status: &mut InferenceServiceStatus, observed: &Observed, now: &str) {
    let already = status
        .condition(STOPPED)
        .is_some_and(|condition| condition.status == ConditionStatus::True);
    let ingress_was_known = !observed.live.ingresses.is_empty();
    if !already {
        *status = InferenceServiceStatus {
            deployment_mode: std::mem::take(&mut status.deployment_mode),
            ..InferenceServiceStatus::default()
        };
    }
    let mut conditions = Conditions::new(&mut status.conditions, now);
    let stopped = || Verdict::fails("Stopped", "");
    conditions.set(PREDICTOR_READY, stopped());
    conditions.set(STOPPED, Verdict::holds());
    if ingress_was_known {
        conditions.set(INGRESS_READY, stopped());
    }
}

fn name_runtime(status: &mut InferenceServiceStatus, runtime: Option<&(Scope, String)>) {
    status.serving_runtime_name.clear();
    status.cluster_serving_runtime_name.clear();
    match runtime {
        Some((Scope::Namespace, name)) => status.serving_runtime_name.clone_from(name),
        Some((Scope::Cluster, name)) => status.cluster_serving_runtime_name.clone_from(name),
        None => {}
    }
}

fn report_predictor(status: &mut InferenceServiceStatus, resolved: &Resolved, observed: &Observed, now: &str) {
    let component = &resolved.predictor;
    let was_ready = observed.service.status.is_true(READY);
    let deployment = live_deployment(&observed.live, &component.name);
    let readiness = readiness::of(deployment);
    if let Some(generation) = deployment
        .map(|deployment| deployment.observed_generation)
        .filter(|g| *g > 0)
    {
        status.observed_generation = Some(generation);
    }
    let ready = readiness.is_ready();
    let verdict = if ready {
        None
    } else {
        readiness::missing_secret(component, observed)
    };
    let mut conditions = Conditions::new(&mut status.conditions, now);
    conditions.set(component.kind.condition(), verdict.unwrap_or(readiness.0));
    conditions.set(
        STOPPED,
        Verdict {
            status: ConditionStatus::False,
            ..Verdict::default()
        },
    );
    if ready {
        let url = format!("http://{}", component.host);
        status
            .components
            .get_or_insert_default()
            .entry(component.kind.as_str().to_owned())
            .or_default()
            .url = Some(url);
    }
    model::observe(
        &mut status.model_status,
        &observed.live.pods,
        &names::app_label(&component.name),
        was_ready,
    );
}

fn report_exposure(status: &mut InferenceServiceStatus, resolved: &Resolved, observed: &Observed, now: &str) {
    let ready = status.is_true(PREDICTOR_READY);
    let mut conditions = Conditions::new(&mut status.conditions, now);
    match resolved.exposure {
        Exposure::Ingress if !ready => {
            conditions.set(INGRESS_READY, Verdict::fails("Predictor ingress not created", ""));
            return;
        }
        Exposure::Unsupported => {
            let message = "inferenceservice-config, ingress.enableGatewayApi: HTTPRoutes are not supported by this version \
                           of leanserve; set it to false or disableIngressCreation to true";
            conditions.set(INGRESS_READY, Verdict::fails(UNSUPPORTED, message));
        }
        Exposure::Ingress | Exposure::Nothing => conditions.set(INGRESS_READY, Verdict::holds()),
    }
    let entry = &resolved.predictor.name;
    let service = observed.live.services.iter().find(|service| service.name == *entry);
    let port = if resolved.predictor.headless {
        entry_port(service)
    } else {
        String::new()
    };
    let (namespace, domain) = (&resolved.meta.namespace, &observed.cluster_domain);
    status.url = Some(resolved.url.clone());
    status.address = Some(Address {
        url: Some(format!("http://{entry}.{namespace}.svc.{domain}{port}")),
    });
}

/// Behind a headless Service the Pods' own port is reached: the first that is not gRPC, else 8080.
fn entry_port(service: Option<&LiveObject>) -> String {
    let text = |port: &serde_json::Value, field: &str| {
        port.get(field)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_lowercase()
    };
    let is_grpc = |port: &&serde_json::Value| {
        let name = text(port, "name");
        text(port, "appProtocol") == "kubernetes.io/h2c" || name.contains("grpc") || name.contains("h2c")
    };
    let ports = service.and_then(|service| service.spec.get("ports")?.as_array());
    let target = ports
        .and_then(|ports| ports.iter().find(|port| !is_grpc(port)))
        .and_then(|port| port.get("targetPort")?.as_u64())
        .unwrap_or(8080);
    format!(":{target}")
}

fn events(
    name: &str,
    previous: &InferenceServiceStatus,
    status: &InferenceServiceStatus,
    problem: Option<String>,
) -> Vec<Event> {
    let mut events = Vec::new();
    // Said once, when it shows first: the condition keeps saying it.
    let is_new = [PREDICTOR_READY, INGRESS_READY].iter().any(|type_| {
        let told = |status: &InferenceServiceStatus| {
            status
                .condition(type_)
                .map(|condition| (condition.reason.clone(), condition.message.clone()))
        };
        told(previous) != told(status)
    });
    if let Some(message) = problem.filter(|_| is_new) {
        events.push(Event {
            warning: true,
            reason: "InternalError",
            message,
        });
    }
    let (was, is) = (previous.is_true(READY), status.is_true(READY));
    if is && !was {
        events.push(Event {
            warning: false,
            reason: "InferenceServiceReady",
            message: format!("InferenceService [{name}] is Ready"),
        });
    } else if was && !is {
        let failed: Vec<&str> = status
            .conditions
            .iter()
            .filter(|condition| condition.status == ConditionStatus::False)
            .map(|condition| condition.type_.as_str())
            .collect();
        events.push(Event {
            warning: true,
            reason: "InferenceServiceNotReady",
            message: format!(
                "InferenceService [{name}] is no longer Ready because of: {}",
                failed.join(", ")
            ),
        });
    }
    events
}
