//! What a pass says about the service: status and events.

mod canary;
mod exposure;
mod model;

pub(crate) use exposure::unaccepted;

use crate::{
    api::{
        ComponentKind, ConditionStatus, InferenceServiceSpec, InferenceServiceStatus, InvalidField, Scope,
        status::{
            CANARY_PREDICTOR_READY, ComponentStatus, EXPLAINER_READY, INGRESS_READY, PREDICTOR_READY, READY,
            SERVED_BY_LEANSERVE, STOPPED, TRANSFORMER_READY,
        },
    },
    condition::{Conditions, Verdict, keep_times},
    decide::{Decision, Stopped, live_deployment},
    desired::ChildKind,
    names,
    observed::Observed,
    readiness,
    rejection::{RECONCILE_FAILED, Rejection},
    resolve::{Resolved, ResolvedComponent, can_be_split},
    settings::DeploymentMode,
    validate::{self, INVALID_SPEC},
};

/// What applying the children came to.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The children the API server refused, or that are not ours.
    pub refused: Vec<Refusal>,
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

impl Refusal {
    /// Whether the child belongs to a component.
    fn is_of(&self, component: &ResolvedComponent) -> bool {
        self.runs(&component.name) || (self.kind == ChildKind::ConfigMap && component.kind == ComponentKind::Predictor)
    }

    /// Whether the child is a way to the service from outside.
    fn is_way(&self) -> bool {
        matches!(self.kind, ChildKind::Ingress | ChildKind::HttpRoute)
    }

    /// Whether the child is one of those that run what is called `name`, and not the way to it from outside.
    fn runs(&self, name: &str) -> bool {
        self.kind.runs_workload() && self.name == name
    }
}

/// What to write about a pass.
#[derive(Clone, Debug)]
pub struct Report {
    /// The new status; write it when it differs from the stored one.
    pub status: InferenceServiceStatus,
    /// Events to send, in order.
    pub events: Vec<Event>,
    /// What the specification asks for and does not get, as sentences; to be told once.
    pub warnings: Vec<String>,
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
    let problem = match decision {
        Decision::Ignored { .. } | Decision::Frozen => return None,
        Decision::Reject(rejection) => {
            resume(&mut status, now);
            reject(&mut status, rejection, now);
            Some(rejection.event.clone())
        }
        Decision::Stop { stopped, .. } => {
            stop(&mut status, stopped, now);
            report_refused(&mut status, applied, now)
        }
        Decision::Build { resolved, .. } => report_build(&mut status, resolved, observed, applied, now),
    };
    keep_times(&previous.conditions, &mut status.conditions);
    let events = events(&observed.service.meta.name, previous, &status, problem);
    let mut warnings = validate::warnings(&observed.service);
    if !observed.service.spec.canaries.is_empty() && !can_be_split(observed) {
        warnings.push(
            "spec.canary: gets no requests here; they are split by HTTPRoutes of a service without a transformer"
                .to_owned(),
        );
    }
    Some(Report {
        status,
        events,
        warnings,
    })
}

/// The report on a service whose specification cannot even be read.
#[must_use]
pub fn report_unreadable(previous: &InferenceServiceStatus, name: &str, error: &InvalidField, now: &str) -> Report {
    let mut status = begin(previous, now);
    let message = error.to_string();
    reject(&mut status, &Rejection::new(INVALID_SPEC, message.clone()), now);
    keep_times(&previous.conditions, &mut status.conditions);
    let events = events(name, previous, &status, Some(message));
    Report {
        status,
        events,
        warnings: Vec::new(),
    }
}

fn begin(previous: &InferenceServiceStatus, now: &str) -> InferenceServiceStatus {
    let mut status = previous.clone();
    DeploymentMode::Standard
        .as_str()
        .clone_into(&mut status.deployment_mode);
    let mut conditions = Conditions::new(&mut status.conditions, now);
    conditions.remove(SERVED_BY_LEANSERVE);
    conditions.initialize();
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

/// A stopped service keeps nothing but the fact, and the runtime it would use.
fn stop(status: &mut InferenceServiceStatus, stopped: &Stopped, now: &str) {
    if !status.is_true(STOPPED) {
        *status = InferenceServiceStatus {
            deployment_mode: std::mem::take(&mut status.deployment_mode),
            ..InferenceServiceStatus::default()
        };
    }
    if stopped.runtime.is_some() {
        name_runtime(status, stopped.runtime.as_ref());
    }
    let mut conditions = Conditions::new(&mut status.conditions, now);
    let verdict = || Verdict::fails("Stopped", "");
    for kind in &stopped.components {
        conditions.set(kind.condition(), verdict());
    }
    if stopped.has_canaries {
        conditions.set(CANARY_PREDICTOR_READY, verdict());
    }
    conditions.set(STOPPED, Verdict::holds());
    if stopped.was_exposed {
        conditions.set(INGRESS_READY, verdict());
    }
}

/// What could not be written for a service of which nothing else is to exist.
fn report_refused(status: &mut InferenceServiceStatus, applied: &Applied, now: &str) -> Option<String> {
    let refusal = applied.refused.first()?;
    let message = format!(
        "fails to reconcile {} {}: {}",
        refusal.kind.as_str(),
        refusal.name,
        refusal.message
    );
    Conditions::new(&mut status.conditions, now)
        .set(PREDICTOR_READY, Verdict::fails(RECONCILE_FAILED, message.clone()));
    Some(message)
}

/// A service that runs, or should, is not stopped any more.
fn resume(status: &mut InferenceServiceStatus, now: &str) {
    if status.is_true(STOPPED) {
        Conditions::new(&mut status.conditions, now).set(STOPPED, not_stopped());
    }
}

fn not_stopped() -> Verdict {
    Verdict {
        status: ConditionStatus::False,
        ..Verdict::default()
    }
}

/// What is not in the specification any more is not in the status either.
fn forget_components(status: &mut InferenceServiceStatus, spec: &InferenceServiceSpec) {
    for kind in [ComponentKind::Transformer, ComponentKind::Explainer] {
        if spec.components().all(|component| component.kind != kind) {
            status
                .conditions
                .retain(|condition| condition.type_ != kind.condition());
            if let Some(components) = &mut status.components {
                components.remove(kind.as_str());
            }
        }
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

/// The status of a service whose objects were applied; returns what went wrong.
fn report_build(
    status: &mut InferenceServiceStatus,
    resolved: &Resolved,
    observed: &Observed,
    applied: &Applied,
    now: &str,
) -> Option<String> {
    // A service that turned to a container of its own keeps the name of the runtime it had, as in KServe.
    if resolved.runtime.is_some() {
        name_runtime(status, resolved.runtime.as_ref());
    }
    resume(status, now);
    forget_components(status, &observed.service.spec);
    let was_ready = observed.service.status.is_true(READY);
    let problem_of_canary = canary::report(status, resolved, applied, now);
    let mut problem = None;
    for component in resolved.components() {
        component_status(status, component.kind);
        let Some(refusal) = applied.refused.iter().find(|refusal| refusal.is_of(component)) else {
            report_component(status, component, observed, was_ready, now);
            continue;
        };
        let message = format!("fails to reconcile {}: {}", component.kind.as_str(), refusal.message);
        Conditions::new(&mut status.conditions, now).set(
            component.kind.condition(),
            Verdict::fails(RECONCILE_FAILED, message.clone()),
        );
        problem.get_or_insert(message);
    }
    if let Some((kind, rejection)) = &resolved.rejected {
        component_status(status, *kind);
        Conditions::new(&mut status.conditions, now).set(
            kind.condition(),
            Verdict::fails(rejection.reason, rejection.message.clone()),
        );
        problem.get_or_insert_with(|| rejection.event.clone());
    }
    // As in KServe, which goes no further then.
    if problem.is_some() {
        return problem;
    }
    let mut conditions = Conditions::new(&mut status.conditions, now);
    conditions.set(STOPPED, not_stopped());
    if let Some(refusal) = applied.refused.iter().find(|refusal| refusal.is_way()) {
        let message = format!("fails to reconcile ingress: {}", refusal.message);
        conditions.set(INGRESS_READY, Verdict::fails(RECONCILE_FAILED, message.clone()));
        return Some(message);
    }
    exposure::report(status, resolved, observed, now);
    problem_of_canary
}

fn component_status(status: &mut InferenceServiceStatus, kind: ComponentKind) -> &mut ComponentStatus {
    let components = status.components.get_or_insert_default();
    components.entry(kind.as_str().to_owned()).or_default()
}

fn report_component(
    status: &mut InferenceServiceStatus,
    component: &ResolvedComponent,
    observed: &Observed,
    was_ready: bool,
    now: &str,
) {
    let deployment = live_deployment(&observed.live, &component.name);
    let readiness = readiness::of(deployment);
    if let Some(generation) = deployment
        .map(|deployment| deployment.observed_generation)
        .filter(|generation| *generation > 0)
    {
        status.observed_generation = Some(generation);
    }
    let ready = readiness.is_ready();
    let missing = (!ready)
        .then(|| readiness::missing_secret(component, observed))
        .flatten();
    let verdict = missing.unwrap_or(readiness.0);
    Conditions::new(&mut status.conditions, now).set(component.kind.condition(), verdict);
    if ready {
        component_status(status, component.kind).url = Some(format!("http://{}", component.host));
    }
    if component.kind == ComponentKind::Predictor {
        let app = names::app_label(&component.name);
        model::observe(&mut status.model_status, &observed.live.pods, &app, was_ready);
    }
}

fn events(
    name: &str,
    previous: &InferenceServiceStatus,
    status: &InferenceServiceStatus,
    problem: Option<String>,
) -> Vec<Event> {
    let mut events = Vec::new();
    // Said once, when it shows first: the condition keeps saying it.
    let is_new = [
        CANARY_PREDICTOR_READY,
        PREDICTOR_READY,
        INGRESS_READY,
        TRANSFORMER_READY,
        EXPLAINER_READY,
    ]
    .iter()
    .any(|type_| {
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
