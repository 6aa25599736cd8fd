//! The Pod of a predictor: runtime and service merged, placeholders replaced, defaults filled in.

use serde_json::{Value, json};

use crate::{
    api::{Component, ComponentKind, Meta, Model, Object, ServingRuntime, component::Art},
    merge,
    named::{self, is_named},
    names, quantity,
    rejection::Rejection,
    settings::Settings,
    template::{self, Flavour},
};

use super::{env, merge_containers, server, storage::specified_uri};

/// Reason of conditions about a Pod that cannot be put together.
const INVALID_POD: &str = "InvalidPredictorSpec";

/// A Pod before storage is brought in.
pub(super) struct Parts {
    pub(super) pod: Object,
    pub(super) storage_uri: Option<String>,
}

/// Merges a model with its runtime.
pub(super) fn of_model(
    model: &Model,
    predictor: &Component,
    meta: &Meta,
    runtime: &ServingRuntime,
) -> Result<Parts, Rejection> {
    let reject = |message: &str| {
        Rejection::new(INVALID_POD, format!("ServingRuntime {}: {message}", runtime.meta.name))
            .event(message)
            .model_failure("InvalidPredictorSpec", message)
    };
    if runtime.containers.is_empty() {
        return Err(reject("no container configuration found in selected serving runtime"));
    }
    let of_runtime = |name: &str| named::find(&runtime.containers, name);
    let base = of_runtime(names::MODEL_CONTAINER)
        .ok_or_else(|| reject("failed to find kserve-container in ServingRuntime containers"))?;
    let mut patch = model.container.clone();
    if patch.get("name").is_some_and(|name| name == "") {
        patch.remove("name");
    }
    let render = |container: &Value| {
        template::render_json(container, &context(meta), Flavour::Html).map_err(|error| {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let message = format!(
                "failed to replace placeholders in serving runtime {} Container {name}",
                runtime.meta.name
            );
            Rejection::new(
                INVALID_POD,
                format!("ServingRuntime {}: {message}: {error}", runtime.meta.name),
            )
            .event(message.clone())
            .model_failure("InvalidPredictorSpec", message)
        })
    };
    let mut server = render(&merge_containers(base, &Value::Object(patch)))?;
    if let Some(server) = server.as_object_mut() {
        server::adjust_image(server, model.runtime_version.as_deref(), server::server_type(runtime));
    }
    let mut containers = vec![server];

    let beside = named::find(&predictor.containers, names::TRANSFORMER_CONTAINER);
    match (of_runtime(names::TRANSFORMER_CONTAINER), beside) {
        (Some(base), Some(patch)) => containers.push(render(&merge_containers(base, patch))?),
        (Some(only), None) | (None, Some(only)) => containers.push(render(only)?),
        (None, None) => {}
    }
    let others = |container: &&Value| {
        !is_named(container, names::MODEL_CONTAINER) && !is_named(container, names::TRANSFORMER_CONTAINER)
    };
    containers.extend(runtime.containers.iter().filter(others).cloned());
    containers.extend(
        predictor
            .containers
            .iter()
            .filter(|c| !is_named(c, names::TRANSFORMER_CONTAINER))
            .cloned(),
    );

    let merged = merge::merge_pod(
        &Value::Object(runtime.pod.clone()),
        &Value::Object(predictor.pod.clone()),
    );
    let mut pod = match merged {
        Value::Object(pod) => pod,
        _ => Object::new(),
    };
    pod.insert("containers".to_owned(), Value::Array(containers));
    name_service(&mut pod, &meta.name);
    Ok(Parts {
        pod,
        storage_uri: model.storage_uri.clone(),
    })
}

/// A custom predictor: its containers with the server first.
pub(super) fn of_custom(predictor: &Component, meta: &Meta) -> Parts {
    let mut containers = predictor.containers.clone();
    // KServe would leave the server at its place as well, and the Deployment would be refused.
    if let Some(index) = containers
        .iter()
        .position(|container| is_named(container, names::MODEL_CONTAINER))
    {
        let server = containers.remove(index);
        containers.insert(0, server);
    } else if let Some(first) = containers.first_mut().and_then(Value::as_object_mut) {
        // KServe fails here without a word. The first container serves, as when it has no name.
        first.insert("name".to_owned(), Value::from(names::MODEL_CONTAINER));
    }
    let mut pod = predictor.pod.clone();
    pod.insert("containers".to_owned(), Value::Array(containers));
    name_service(&mut pod, &meta.name);
    let storage_uri = specified_uri(predictor).map(str::to_owned);
    Parts { pod, storage_uri }
}

/// A transformer or explainer: its first container is the server and is told where the predictor is.
pub(super) fn beside(
    component: &Component,
    predictor: &str,
    meta: &Meta,
    settings: &Settings,
) -> Result<Parts, Rejection> {
    let host = format!("{predictor}.{}", meta.namespace);
    let mut containers = component.containers.clone();
    if let Some(art) = &component.art {
        containers.insert(0, Value::Object(art_server(art, component, &host, meta, settings)));
    } else {
        let Some(server) = containers.first_mut().and_then(Value::as_object_mut) else {
            let field = component.field("containers");
            return Err(Rejection::new(
                INVALID_POD,
                format!("{field}: is empty; give the container that serves"),
            ));
        };
        add_arguments(server, component, &host, meta);
        if component.kind == ComponentKind::Transformer {
            env::set(
                env::list_of(server),
                env::value(names::ENV_INFERENCE_SERVICE_NAME, &meta.name),
            );
        }
    }
    let mut pod = component.pod.clone();
    pod.insert("containers".to_owned(), Value::Array(containers));
    let storage_uri = specified_uri(component).map(str::to_owned);
    Ok(Parts { pod, storage_uri })
}

/// Adds the arguments every server beside a predictor understands, unless they are given.
fn add_arguments(server: &mut Object, component: &Component, predictor_host: &str, meta: &Meta) {
    let args = server.entry("args").or_insert_with(|| json!([]));
    let Some(args) = args.as_array_mut() else { return };
    let mut add = |flag: &str, value: &str, always: bool| {
        let given = |arg: &Value| {
            arg.as_str()
                .is_some_and(|arg| arg == flag || arg.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
        };
        if always || !args.iter().any(given) {
            args.extend([Value::from(flag), Value::from(value)]);
        }
    };
    add("--model_name", &meta.name, false);
    add("--predictor_host", predictor_host, false);
    add("--http_port", "8080", component.kind == ComponentKind::Explainer);
    if let Some(workers) = component.container_concurrency.filter(|workers| *workers > 0) {
        add("--workers", &workers.to_string(), false);
    }
}

/// The container of the adversarial robustness toolbox.
fn art_server(art: &Art, component: &Component, predictor_host: &str, meta: &Meta, settings: &Settings) -> Object {
    let mut args: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("--model_name", &meta.name);
    add("--http_port", "8080");
    add("--predictor_host", predictor_host);
    if let Some(workers) = component.container_concurrency.filter(|workers| *workers > 0) {
        add("--workers", &workers.to_string());
    }
    if art.storage_uri.is_some() {
        add("--storage_uri", names::MODEL_PATH);
    }
    add("--adversary_type", &art.type_);
    for (name, value) in &art.config {
        add(&format!("--{name}"), value);
    }
    let mut server = art.container.clone();
    let given = server.remove("args");
    let mut args: Vec<Value> = args.into_iter().map(Value::from).collect();
    args.extend(given.as_ref().and_then(Value::as_array).into_iter().flatten().cloned());
    server.insert("args".to_owned(), Value::Array(args));
    server.insert("name".to_owned(), Value::from(names::MODEL_CONTAINER));
    let defaults = &settings.art_explainer;
    let version = art
        .runtime_version
        .as_deref()
        .unwrap_or(&defaults.default_image_version);
    server
        .entry("image")
        .or_insert_with(|| Value::from(format!("{}:{version}", defaults.image)));
    server
}

/// What placeholders may refer to.
fn context(meta: &Meta) -> Value {
    json!({
        "Name": meta.name,
        "Namespace": meta.namespace,
        "Labels": meta.labels,
        "Annotations": meta.annotations,
    })
}

fn containers_of<'a>(pod: &'a mut Object, list: &str) -> impl Iterator<Item = &'a mut Object> {
    pod.get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Every container learns which service it belongs to.
fn name_service(pod: &mut Object, service: &str) {
    for container in containers_of(pod, "containers") {
        env::set(
            env::list_of(container),
            env::value(names::ENV_INFERENCE_SERVICE_NAME, service),
        );
    }
}

/// Fills in what `KServe` sets where the Pod says nothing, and writes quantities as the API server will.
///
/// Most are the API server's own defaults. They are said outright so that they are ours, and a hand that changes them in the
/// Deployment is noticed.
pub(super) fn complete(pod: &mut Object) {
    for (field, default) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        pod.entry(field).or_insert(default);
    }
    for container in containers_of(pod, "containers") {
        for (field, default) in [
            ("terminationMessagePath", "/dev/termination-log"),
            ("terminationMessagePolicy", "File"),
        ] {
            container.entry(field).or_insert_with(|| Value::from(default));
        }
        let policy = container
            .entry("imagePullPolicy")
            .or_insert_with(|| json!("IfNotPresent"));
        if policy == "" {
            *policy = json!("IfNotPresent");
        }
        let name = container.get("name").and_then(Value::as_str);
        if matches!(name, Some(names::MODEL_CONTAINER | names::TRANSFORMER_CONTAINER))
            && !container.contains_key("readinessProbe")
        {
            let probe = default_probe(container);
            container.insert("readinessProbe".to_owned(), probe);
        }
    }
    for list in ["containers", "initContainers"] {
        for container in containers_of(pod, list) {
            canonicalize_resources(container);
            let env = container.get_mut("env").and_then(Value::as_array_mut);
            for variable in env.into_iter().flatten() {
                if let Some(divisor) = variable.pointer_mut("/valueFrom/resourceFieldRef/divisor") {
                    canonicalize(divisor);
                }
            }
        }
    }
    canonicalize_map(pod.get_mut("overhead"));
    let volumes = pod.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if let Some(limit) = volume.pointer_mut("/emptyDir/sizeLimit") {
            canonicalize(limit);
        }
        if let Some(claim) = volume
            .pointer_mut("/ephemeral/volumeClaimTemplate/spec")
            .and_then(Value::as_object_mut)
        {
            canonicalize_resources(claim);
        }
    }
}

/// The readiness probe of a server that brings none: its first port takes connections.
pub(super) fn default_probe(server: &Object) -> Value {
    json!({"tcpSocket": {"port": port(server)}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
        "failureThreshold": 3})
}

/// The first port a container declares.
pub(super) fn port(container: &Object) -> i64 {
    let declared = container.get("ports").and_then(|ports| ports.get(0));
    declared
        .and_then(|port| port.get("containerPort")?.as_i64())
        .unwrap_or(8080)
}

fn canonicalize_resources(holder: &mut Object) {
    if let Some(resources) = holder.get_mut("resources").and_then(Value::as_object_mut) {
        for kind in ["requests", "limits"] {
            canonicalize_map(resources.get_mut(kind));
        }
    }
}

fn canonicalize_map(map: Option<&mut Value>) {
    for quantity in map
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|map| map.values_mut())
    {
        canonicalize(quantity);
    }
}

/// A quantity that cannot be read is left for the API server to refuse: its message names the field.
fn canonicalize(value: &mut Value) {
    let _ = quantity::canonicalize_value(value);
}
