//! Services.

use serde_json::{Value, json};

use super::selector;
use crate::{named::is_named, names, resolve::ResolvedComponent};

/// Marks ports that speak HTTP/2 without TLS.
const H2C: &str = "kubernetes.io/h2c";

pub(super) fn spec(component: &ResolvedComponent) -> Value {
    let containers = component
        .pod
        .get("containers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let transformer = containers
        .iter()
        .find(|container| is_named(container, names::TRANSFORMER_CONTAINER));
    let source = transformer.or(containers.first());
    let declared = source
        .and_then(|container| container.get("ports"))
        .and_then(Value::as_array);
    let mut ports: Vec<Value> = match declared {
        Some(declared) if !declared.is_empty() => declared
            .iter()
            .enumerate()
            .map(|(index, port)| service_port(port, index == 0))
            .collect(),
        _ => vec![json!({"name": component.name, "port": 80, "targetPort": 8080, "protocol": "TCP"})],
    };
    if component.has_agent
        && let Some(first) = ports.first_mut()
    {
        first["targetPort"] = Value::from(names::AGENT_PORT);
    }
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
            port["appProtocol"] = json!(H2C);
        }
    }
    port
}

/// The numbers of the ports for gRPC and for HTTP, of a Service as built; each the first of its kind.
pub(super) fn protocols(spec: &Value) -> (Option<&Value>, Option<&Value>) {
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    let (mut grpc, mut http) = (None, None);
    for port in ports {
        let kind = if is_grpc(port) { &mut grpc } else { &mut http };
        kind.get_or_insert(port);
    }
    (grpc, http)
}

fn is_grpc(port: &Value) -> bool {
    let text = |field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default();
    let name = text("name").to_lowercase();
    text("appProtocol") == H2C || name.contains("grpc") || name.contains("h2c")
}

/// Behind a headless Service the Pods' own port is reached: the first that is not gRPC, else 8080.
pub(crate) fn entry_port(component: &ResolvedComponent) -> u64 {
    let spec = spec(component);
    let (_, http) = protocols(&spec);
    http.and_then(|port| port.get("targetPort")?.as_u64()).unwrap_or(8080)
}
