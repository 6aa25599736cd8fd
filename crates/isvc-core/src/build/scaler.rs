//! What scales a component.

use serde_json::{Value, json};

use crate::resolve::{Autoscaler, ResolvedComponent};

pub(super) fn horizontal_pod_autoscaler(component: &ResolvedComponent) -> Option<Value> {
    let Autoscaler::Horizontal {
        min,
        max,
        metrics,
        behavior,
    } = &component.autoscaler
    else {
        return None;
    };
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": component.name},
        "minReplicas": min,
        "maxReplicas": max,
        "metrics": metrics,
        // Empty, it lets the API server fill in its defaults; left out, it does not.
        "behavior": behavior.clone().unwrap_or_else(|| json!({})),
    });
    Some(spec)
}

pub(super) fn scaled_object(component: &ResolvedComponent) -> Option<Value> {
    let Autoscaler::Keda {
        min,
        max,
        triggers,
        advanced,
    } = &component.autoscaler
    else {
        return None;
    };
    Some(json!({
        "scaleTargetRef": {"name": component.name},
        "minReplicaCount": min,
        "maxReplicaCount": max,
        "triggers": triggers,
        "advanced": advanced,
    }))
}
