//! `HTTPRoutes` of the Gateway API.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::service;
use crate::{
    api::ComponentKind,
    desired::{Desired, Wanted, owner_reference},
    resolve::{Resolved, ResolvedComponent, Routes},
};

/// Seconds after which a request is cut off, where a component says nothing.
const TIMEOUT: i64 = 60;

/// Every path.
const ALL: &str = r"^/.*$";
/// Explanations, below the models of the v1 protocol.
const EXPLAIN: &str = r"/v1/models/[\w-]+:explain";

/// A route for each component that is ready, in order up to the first that is not, and then the service's own. Routes of
/// what is not ready stay as they are, should they exist.
pub(super) fn wanted(resolved: &Resolved, routes: &Routes, ready: &BTreeSet<ComponentKind>) -> Wanted {
    let mut wanted = Wanted::default();
    let mut waiting = resolved.rejected.is_some();
    for component in resolved.components() {
        if waiting || !ready.contains(&component.kind) {
            waiting = true;
            wanted.kept.push(component.route.clone());
            continue;
        }
        let rules = fallback(resolved, routes, component);
        let hostnames = vec![component.route_host.clone()];
        wanted
            .objects
            .push(route(resolved, routes, component.route.clone(), &hostnames, &rules));
    }
    if let Some((kind, _)) = &resolved.rejected {
        wanted
            .kept
            .push(crate::names::component_object(&resolved.meta.name, None, kind.as_str()));
    }
    let name = resolved.meta.name.clone();
    if waiting {
        wanted.kept.push(name);
        return wanted;
    }
    let explainer = resolved.component(ComponentKind::Explainer);
    let mut rules = Vec::new();
    rules.extend(explainer.map(|explainer| {
        rule(
            resolved,
            routes,
            explainer,
            &matching(&format!("^{EXPLAIN}$")),
            &80.into(),
        )
    }));
    rules.extend(fallback(resolved, routes, resolved.entry()));
    if let Some(path) = &routes.path {
        let below = |pattern: &str| matching(&format!("{path}{pattern}"));
        rules.extend(explainer.map(|explainer| {
            rule(
                resolved,
                routes,
                explainer,
                &below(&format!("({EXPLAIN})$")),
                &80.into(),
            )
        }));
        rules.push(rule(resolved, routes, resolved.entry(), &below("/"), &80.into()));
    }
    wanted
        .objects
        .push(route(resolved, routes, name, &routes.hostnames, &rules));
    wanted
}

fn route(resolved: &Resolved, routes: &Routes, name: String, hostnames: &[String], rules: &[Value]) -> Desired {
    let gateway = &routes.gateway;
    Desired {
        name,
        namespace: resolved.meta.namespace.clone(),
        labels: routes.labels.clone(),
        annotations: routes.annotations.clone(),
        owner: owner_reference(&resolved.meta),
        spec: json!({
            "hostnames": hostnames,
            "parentRefs": [{
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "namespace": gateway.namespace,
                "name": gateway.name,
            }],
            "rules": rules,
        }),
    }
}

/// Everything to a component; where its Service has ports for gRPC and for HTTP, gRPC requests to theirs.
fn fallback(resolved: &Resolved, routes: &Routes, component: &ResolvedComponent) -> Vec<Value> {
    let spec = service::spec(component);
    let all = matching(ALL);
    let (Some(grpc), Some(http)) = service::protocols(&spec) else {
        return vec![rule(resolved, routes, component, &all, &80.into())];
    };
    let inference = json!({
        "path": {"type": "RegularExpression", "value": r"^/inference\.GRPCInferenceService/.*$"},
        "headers": [{"type": "RegularExpression", "name": "content-type", "value": "^application/grpc.*"}],
    });
    vec![
        rule(resolved, routes, component, &inference, &grpc["port"]),
        rule(resolved, routes, component, &all, &http["port"]),
    ]
}

fn matching(pattern: &str) -> Value {
    json!({"path": {"type": "RegularExpression", "value": pattern}})
}

fn rule(resolved: &Resolved, routes: &Routes, component: &ResolvedComponent, matching: &Value, port: &Value) -> Value {
    let (name, namespace) = (&resolved.meta.name, &resolved.meta.namespace);
    let mut rule = json!({
        "matches": [matching],
        "filters": [{
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [
                {"name": "KServe-Isvc-Name", "value": name},
                {"name": "KServe-Isvc-Namespace", "value": namespace},
            ]},
        }],
        "backendRefs": backends(resolved, component, port),
    });
    if routes.with_timeouts {
        let seconds = component.timeout.unwrap_or(TIMEOUT);
        rule["timeouts"] = json!({"request": format!("{seconds}s")});
    }
    rule
}

/// The Service of a component; before a predictor with variants, the Services of those that serve, each with its share.
fn backends(resolved: &Resolved, component: &ResolvedComponent, port: &Value) -> Vec<Value> {
    let to = |name: &str, weight: i32| {
        json!({"group": "", "kind": "Service", "name": name, "namespace": resolved.meta.namespace, "port": port,
            "weight": weight})
    };
    let serving = || {
        resolved
            .canaries
            .iter()
            .filter(|canary| canary.ready && canary.component.is_ok())
    };
    if component.kind != ComponentKind::Predictor || serving().next().is_none() {
        return vec![to(&component.name, 1)];
    }
    let taken: i32 = serving().map(|canary| canary.traffic_percent).sum();
    let mut backends = vec![to(&component.name, 100 - taken)];
    backends.extend(serving().map(|canary| to(&canary.object, canary.traffic_percent)));
    backends
}
