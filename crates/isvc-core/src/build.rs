//! Resolved services to objects. Cannot fail: whatever could be wrong was found while resolving.

mod ingress;
mod route;
mod scaler;
mod service;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(crate) use service::entry_port;

use crate::{
    api::ComponentKind,
    desired::{Desired, DesiredState, Wanted, owner_reference},
    names,
    observed::{Live, LiveObject},
    report::unaccepted,
    resolve::{Exposure, Resolved, ResolvedComponent},
};

/// The children a service should have. `ready` are the components whose live Deployments serve.
#[must_use]
pub fn build(resolved: &Resolved, ready: &BTreeSet<ComponentKind>) -> DesiredState {
    let (ingresses, http_routes) = match &resolved.exposure {
        Exposure::Ingress { class } => (ingress::wanted(resolved, class.as_deref(), ready), Wanted::default()),
        Exposure::Routes(routes) => (Wanted::default(), route::wanted(resolved, routes, ready)),
        Exposure::Nothing => <_>::default(),
    };
    DesiredState {
        ca_bundle: resolved.ca_bundle.clone(),
        services: each(resolved, |component| Some(service::spec(component))),
        deployments: each(resolved, |component| Some(deployment(resolved, component))),
        horizontal_pod_autoscalers: each(resolved, scaler::horizontal_pod_autoscaler),
        scaled_objects: each(resolved, scaler::scaled_object),
        ingresses,
        http_routes,
    }
}

/// Goes on saying how many replicas there are to be where we said so before and an autoscaler decides from now on: a field
/// that we drop falls back to 1. The autoscaler's first change makes the field its own, and then we are silent.
pub(crate) fn hand_over_replicas(desired: &mut DesiredState, live: &Live) {
    for deployment in &mut desired.deployments.objects {
        let known = live.deployments.iter().find(|live| live.object.name == deployment.name);
        if let Some(replicas) = known.and_then(|live| live.owned_replicas)
            && deployment.spec.get("replicas").is_none()
        {
            deployment.spec["replicas"] = Value::from(replicas);
        }
    }
}

/// Leaves in place what requests still come through: the old kind of way from outside until the new one leads somewhere, and
/// whatever ways that stay as they are may lead to. What nothing leads to any more goes in a later pass.
pub(crate) fn keep_the_way(desired: &mut DesiredState, resolved: &Resolved, live: &Live) {
    let route_names = || live.http_routes.iter().map(|route| route.object.name.clone());
    let ingress_names = || live.ingresses.iter().map(|ingress| ingress.name.clone());
    match resolved.exposure {
        Exposure::Ingress { .. } if !ingress_names().any(|name| name == resolved.meta.name) => {
            desired.http_routes.kept.extend(route_names());
        }
        Exposure::Routes(_) if unaccepted(resolved, live).is_some() => {
            desired.ingresses.kept.extend(ingress_names());
        }
        Exposure::Ingress { .. } | Exposure::Routes(_) | Exposure::Nothing => {}
    }
    let is_kept = |wanted: &Wanted, name: &String| wanted.kept.contains(name);
    if !ingress_names().any(|name| is_kept(&desired.ingresses, &name))
        && !route_names().any(|name| is_kept(&desired.http_routes, &name))
    {
        return;
    }
    let names = |objects: &[LiveObject]| objects.iter().map(|object| object.name.clone()).collect::<Vec<_>>();
    desired.services.kept.extend(names(&live.services));
    let deployments = live.deployments.iter().map(|deployment| deployment.object.name.clone());
    desired.deployments.kept.extend(deployments);
    // Of what is still wanted, the autoscaler may have changed its kind.
    let old = |name: &String| resolved.workloads().all(|workload| workload.name != *name);
    let autoscalers = names(&live.horizontal_pod_autoscalers).into_iter().filter(old);
    desired.horizontal_pod_autoscalers.kept.extend(autoscalers);
    let scaled_objects = names(&live.scaled_objects).into_iter().filter(old);
    desired.scaled_objects.kept.extend(scaled_objects);
}

/// One object of a kind for each component that wants it.
fn each(resolved: &Resolved, spec: impl Fn(&ResolvedComponent) -> Option<Value>) -> Wanted {
    let objects = resolved
        .workloads()
        .filter_map(|component| Some(desired(resolved, component, spec(component)?)))
        .collect();
    let broken = resolved.canaries.iter().filter(|canary| canary.component.is_err());
    // What a component that cannot be built has is left as it is.
    let rejected = resolved.rejected.as_ref().map(|(kind, _)| *kind);
    let kept = [ComponentKind::Transformer, ComponentKind::Explainer]
        .into_iter()
        .filter(|kind| rejected.is_some_and(|rejected| *kind >= rejected))
        .map(|kind| names::component_object(&resolved.meta.name, None, kind.as_str()))
        .chain(broken.map(|canary| canary.object.clone()))
        .collect();
    Wanted { objects, kept }
}

fn desired(resolved: &Resolved, component: &ResolvedComponent, spec: Value) -> Desired {
    Desired {
        name: component.name.clone(),
        namespace: resolved.meta.namespace.clone(),
        labels: component.labels.clone(),
        annotations: component.annotations.clone(),
        owner: owner_reference(&resolved.meta),
        spec,
    }
}

fn selector(component: &ResolvedComponent) -> Value {
    json!({names::LABEL_APP: names::app_label(&component.name)})
}

fn deployment(resolved: &Resolved, component: &ResolvedComponent) -> Value {
    let mut annotations = component.annotations.clone();
    annotations.extend(component.pod_annotations.clone());
    let mut metadata = json!({
        "name": component.name,
        "namespace": resolved.meta.namespace,
        "labels": component.labels,
    });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let mut spec = json!({
        "selector": {"matchLabels": selector(component)},
        "strategy": component.strategy,
        "template": {"metadata": metadata, "spec": component.pod},
    });
    if let Some(replicas) = component.replicas {
        spec["replicas"] = Value::from(replicas);
    }
    spec
}
