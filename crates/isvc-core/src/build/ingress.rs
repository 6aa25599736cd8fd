//! The Ingress of a service.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    api::ComponentKind,
    desired::{Desired, Wanted, owner_reference},
    resolve::{Resolved, ResolvedComponent},
};

/// The Ingress, once all components are ready; one that exists stays as it is until then.
pub(super) fn wanted(resolved: &Resolved, class: Option<&str>, ready: &BTreeSet<ComponentKind>) -> Wanted {
    let all_ready = resolved.rejected.is_none() && resolved.components().all(|one| ready.contains(&one.kind));
    if !all_ready {
        return Wanted {
            objects: Vec::new(),
            kept: vec![resolved.meta.name.clone()],
        };
    }
    let mut spec = json!({"rules": rules(resolved)});
    if let Some(class) = class {
        spec["ingressClassName"] = Value::from(class);
    }
    Wanted {
        objects: vec![Desired {
            name: resolved.meta.name.clone(),
            namespace: resolved.meta.namespace.clone(),
            labels: [].into(),
            annotations: resolved.meta.annotations.clone(),
            owner: owner_reference(&resolved.meta),
            spec,
        }],
        kept: Vec::new(),
    }
}

/// The service's host leads to the component that is to see requests first, each component's host to the component.
fn rules(resolved: &Resolved) -> Vec<Value> {
    let (predictor, entry) = (&resolved.predictor, resolved.entry());
    let to = |component: &ResolvedComponent| rule(&component.host, component);
    let mut rules = vec![rule(&resolved.host, entry)];
    rules.extend(resolved.component(ComponentKind::Explainer).map(to));
    rules.extend(resolved.component(ComponentKind::Transformer).map(to));
    rules.push(to(predictor));
    rules
}

fn rule(host: &str, component: &ResolvedComponent) -> Value {
    json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": component.name, "port": {"number": 80}}}}]}})
}
