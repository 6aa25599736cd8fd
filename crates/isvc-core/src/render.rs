//! What a service would look like in a cluster, without one.

use serde_json::{Value, json};

use crate::{
    api::{Component, InferenceService, Scope},
    decide::{Decision, decide_completed},
    desired::{ChildKind, DesiredState, Wanted},
    manifests::Manifests,
    names,
    observed::{DeploymentCondition, Live, LiveDeployment, LiveObject, Observed},
    resolve::{PassedOver, passed_over},
    validate,
};

/// One service, resolved and built.
#[derive(Debug)]
pub struct Rendered {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub name: String,
    /// The runtime in use.
    pub runtime: Option<(Scope, String)>,
    /// The runtimes that are not in use, and why.
    pub passed_over: Vec<PassedOver>,
    /// Why nothing, or not everything, can be built: reasons and messages as in the service's conditions.
    pub problems: Vec<(String, String)>,
    /// What the specification asks for and does not get.
    pub warnings: Vec<String>,
    /// The objects in the order in which they are applied, as they are sent to the API server.
    pub objects: Vec<Value>,
}

/// Renders every service as it looks once its components are ready: its routes are there, too.
#[must_use]
pub fn render(manifests: &Manifests) -> Vec<Rendered> {
    manifests
        .services()
        .map(|service| {
            let live = all_ready(service);
            render_one(&manifests.observe(service.clone(), live))
        })
        .collect()
}

fn render_one(observed: &Observed) -> Rendered {
    let (decision, observed) = decide_completed(observed);
    let meta = &observed.service.meta;
    let mut rendered = Rendered {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        runtime: None,
        passed_over: Vec::new(),
        problems: Vec::new(),
        warnings: validate::warnings(&observed.service),
        objects: Vec::new(),
    };
    match decision {
        Decision::Ignored { why } => rendered.problems.push(("Ignored".to_owned(), why)),
        Decision::Frozen => rendered.problems.push((
            "Frozen".to_owned(),
            format!(
                "annotation {} is \"true\" and the service is Ready: it is left as it is",
                names::ANNOTATION_DISABLE_AUTO_UPDATE
            ),
        )),
        Decision::Stop { stopped, desired } => {
            rendered.objects = objects(&desired);
            rendered.runtime = stopped.runtime;
            rendered.warnings.push(format!(
                "annotation {} is \"true\": nothing runs",
                names::ANNOTATION_STOP
            ));
        }
        Decision::Reject(rejection) => {
            rendered.runtime = rejection.runtime;
            rendered.problems.push((rejection.reason.to_owned(), rejection.message));
        }
        Decision::Build { resolved, desired } => {
            rendered.objects = objects(&desired);
            let canaries = resolved.canaries.into_iter();
            let rejected = canaries.filter_map(|canary| canary.component.err());
            let rejected = rejected.chain(resolved.rejected.map(|(_, rejection)| rejection));
            rendered
                .problems
                .extend(rejected.map(|rejection| (rejection.reason.to_owned(), rejection.message)));
            rendered.runtime = resolved.runtime;
        }
    }
    if let Some(model) = &observed.service.spec.predictor.model {
        rendered.passed_over = passed_over(model, rendered.runtime.as_ref(), &observed);
    }
    rendered
}

/// What is ambiguous about the runtimes, each a sentence that names them.
#[must_use]
pub fn runtime_warnings(manifests: &Manifests) -> Vec<String> {
    let by_scope = manifests.runtimes_by_scope();
    by_scope
        .iter()
        .flat_map(|runtimes| validate::runtimes(runtimes))
        .collect()
}

/// All objects, in the order in which they are applied.
#[must_use]
pub fn objects(desired: &DesiredState) -> Vec<Value> {
    let DesiredState {
        ca_bundle,
        services,
        deployments,
        horizontal_pod_autoscalers,
        scaled_objects,
        ingresses,
        http_routes,
    } = desired;
    let mut objects: Vec<Value> = ca_bundle.iter().map(crate::desired::CaBundle::manifest).collect();
    let mut add = |kind: ChildKind, wanted: &Wanted| {
        objects.extend(wanted.objects.iter().map(|object| object.manifest(kind)));
    };
    add(ChildKind::Service, services);
    add(ChildKind::Deployment, deployments);
    add(ChildKind::HorizontalPodAutoscaler, horizontal_pod_autoscalers);
    add(ChildKind::ScaledObject, scaled_objects);
    add(ChildKind::Ingress, ingresses);
    add(ChildKind::HttpRoute, http_routes);
    objects
}

/// Deployments of all components and variants, serving.
fn all_ready(service: &InferenceService) -> Live {
    let serving = |component: &Component| LiveDeployment {
        object: LiveObject {
            name: names::component_object(
                &service.meta.name,
                component.variant.as_deref(),
                component.kind.as_str(),
            ),
            ..LiveObject::default()
        },
        observed_generation: 1,
        conditions: vec![DeploymentCondition {
            type_: "Available".to_owned(),
            status: "True".to_owned(),
            ..DeploymentCondition::default()
        }],
        owned_replicas: None,
    };
    Live {
        deployments: service.spec.workloads().map(serving).collect(),
        ..Live::default()
    }
}

impl Rendered {
    /// How the service was resolved, as data.
    #[must_use]
    pub fn resolution(&self) -> Value {
        let runtime = |(scope, name): &(Scope, String)| json!({"kind": scope.kind(), "name": name});
        json!({
            "runtime": self.runtime.as_ref().map(runtime),
            "runtimesPassedOver": self.passed_over.iter().map(|one| {
                json!({"kind": one.scope.kind(), "name": one.name, "why": one.why})
            }).collect::<Vec<_>>(),
            "problems": self.problems.iter().map(|(reason, message)| {
                json!({"reason": reason, "message": message})
            }).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}
