//! Resolved services to objects. Cannot fail: whatever could be wrong was found while resolving.

use serde_json::{Value, json};

use crate::{
    desired::{Desired, DesiredState, Wanted, owner_reference},
    names,
    resolve::{Autoscaler, Exposure, Resolved, ResolvedComponent},
};

/// The children a service should have. `predictor_ready` tells whether the live predictor serves.
#[must_use]
pub fn build(resolved: &Resolved, predictor_ready: bool) -> DesiredState {
    if resolved.stopped {
        return DesiredState::default();
    }
    let component = &resolved.predictor;
    let autoscaler = horizontal_pod_autoscaler(component).map(|spec| desired(resolved, component, spec));
    DesiredState {
        services: Wanted {
            objects: vec![desired(resolved, component, service(component))],
            kept: Vec::new(),
        },
        deployments: Wanted {
            objects: vec![desired(resolved, component, deployment(resolved, component))],
            kept: Vec::new(),
        },
        horizontal_pod_autoscalers: Wanted {
            objects: autoscaler.into_iter().collect(),
            kept: Vec::new(),
        },
        ingresses: match resolved.exposure {
            Exposure::Ingress if predictor_ready => Wanted {
                objects: vec![ingress(resolved)],
                kept: Vec::new(),
            },
            // An Ingress that exists stays while the predictor is not ready.
            Exposure::Ingress => Wanted {
                objects: Vec::new(),
                kept: vec![resolved.meta.name.clone()],
            },
            Exposure::Nothing | Exposure::Unsupported => Wanted::default(),
        },
    }
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

fn service(component: &ResolvedComponent) -> Value {
    let containers = component
        .pod
        .get("containers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let transformer = containers
        .iter()
        .find(|container| container.get("name").and_then(Value::as_str) == Some(names::TRANSFORMER_CONTAINER));
    let source = transformer.or(containers.first());
    let declared = source
        .and_then(|container| container.get("ports"))
        .and_then(Value::as_array);
    let ports: Vec<Value> = match declared {
        Some(declared) if !declared.is_empty() => declared
            .iter()
            .enumerate()
            .map(|(index, port)| service_port(port, index == 0))
            .collect(),
        _ => vec![json!({"name": component.name, "port": 80, "targetPort": 8080, "protocol": "TCP"})],
    };
    let mut spec = json!({"selector": selector(component), "ports": ports, "type": "ClusterIP"});
    if component.headless {
        spec["clusterIP"] = json!("None");
    }
    spec
}

/// The first declared port is reached at 80, the others at their own number.
fn service_port(declared: &Value, first: bool) -> Value {
    let container_port = declared.get("containerPort").cloned().unwrap_or(Value::from(8080));
    let protocol = declared
        .get("protocol")
        .filter(|protocol| *protocol != "")
        .cloned()
        .unwrap_or(json!("TCP"));
    let mut port = json!({
        "port": if first { Value::from(80) } else { container_port.clone() },
        "targetPort": container_port,
        "protocol": protocol,
    });
    if let Some(name) = declared
        .get("name")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
    {
        port["name"] = Value::from(name);
        if name.contains("grpc") || name.contains("h2c") {
            port["appProtocol"] = json!("kubernetes.io/h2c");
        }
    }
    port
}

fn horizontal_pod_autoscaler(component: &ResolvedComponent) -> Option<Value> {
    let Autoscaler::Horizontal {
        min,
        max,
        metrics,
        behavior,
    } = &component.autoscaler
    else {
        return None;
    };
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": component.name},
        "minReplicas": min,
        "maxReplicas": max,
        "metrics": metrics,
    });
    if let Some(behavior) = behavior {
        spec["behavior"] = behavior.clone();
    }
    Some(spec)
}

fn ingress(resolved: &Resolved) -> Desired {
    let rule = |host: &str| {
        json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": resolved.predictor.name, "port": {"number": 80}}}}]}})
    };
    let mut spec = json!({"rules": [rule(&resolved.host), rule(&resolved.predictor.host)]});
    if let Some(class) = &resolved.ingress_class {
        spec["ingressClassName"] = Value::from(class.as_str());
    }
    Desired {
        name: resolved.meta.name.clone(),
        namespace: resolved.meta.namespace.clone(),
        labels: [].into(),
        annotations: resolved.meta.annotations.clone(),
        owner: owner_reference(&resolved.meta),
        spec,
    }
}
