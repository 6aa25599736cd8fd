//! The agent: a container before the server that logs and batches requests.
//!
//! `KServe` adds it to Pods as they are created, after the API server's defaults. Here it is part of the Deployment's
//! template, so the defaults it depends on are filled in by [`probe`].

mod probe;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{Component, Object, component::Logger},
    named, names,
    observed::Observed,
    rejection::Rejection,
    settings,
};

use super::{credentials, env, pod};

/// Annotation that says which kind of payload goes to the log, and the prefix of its companions.
const LOGGER: &str = "internal.serving.kserve.io/logger";
/// Annotation that asks for batches, and the prefix of its companions.
const BATCHER: &str = "internal.serving.kserve.io/batcher";
/// Volume and directory of the log sink's certificate authority.
const CA_VOLUME: &str = "agent-ca-bundle";
const CA_PATH: &str = "/etc/tls/logger";

/// The annotations by which the agent is asked for.
pub(super) fn annotations(component: &Component) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    if let Some(logger) = &component.logger {
        let mut set = |suffix: &str, value: &str| annotations.insert(format!("{LOGGER}{suffix}"), value.to_owned());
        set("", "true");
        if let Some(url) = &logger.url {
            set("-sink-url", url);
        }
        set("-mode", logger.mode.as_deref().unwrap_or_default());
        for (suffix, list) in [
            ("-metadata-headers", &logger.metadata_headers),
            ("-metadata-annotations", &logger.metadata_annotations),
        ] {
            if !list.is_empty() {
                set(suffix, &list.join(","));
            }
        }
    }
    if let Some(batcher) = &component.batcher {
        annotations.insert(BATCHER.to_owned(), "true".to_owned());
        for (suffix, value) in [
            ("-max-batchsize", batcher.max_batch_size),
            ("-max-latency", batcher.max_latency),
        ] {
            if let Some(value) = value {
                annotations.insert(format!("{BATCHER}{suffix}"), value.to_string());
            }
        }
    }
    annotations
}

/// Adds the agent to a Pod, if the component logs or batches. A Pod that has one is left alone, so that this and
/// `KServe`'s Pod webhook may both run.
pub(super) fn inject(
    target: &mut Object,
    component: &Component,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    observed: &Observed,
) -> Result<(), Rejection> {
    if component.logger.is_none() && component.batcher.is_none() {
        return Ok(());
    }
    let containers = target.get("containers").and_then(Value::as_array);
    let containers = containers.map_or(&[][..], Vec::as_slice);
    let container = |name: &str| named::find(containers, name).and_then(Value::as_object);
    if container(names::AGENT_CONTAINER).is_some() {
        return Ok(());
    }
    let first = containers.first().and_then(Value::as_object);
    // Requests go to a transformer in the same Pod before they reach the model server.
    let Some(server) = container(names::TRANSFORMER_CONTAINER).or(first) else {
        return Ok(());
    };
    let settings = &observed.settings;
    let credentials = credentials::resolve(component, observed)?;
    let probe = probe::Probe::of(server);

    let mut args = Vec::new();
    if let Some(batcher) = &component.batcher {
        args.push("--enable-batcher".to_owned());
        add(&mut args, "--max-batchsize", batcher.max_batch_size);
        add(&mut args, "--max-latency", batcher.max_latency);
    }
    if let Some(logger) = &component.logger {
        let identity = Identity {
            service: &observed.service.meta.name,
            namespace: &observed.service.meta.namespace,
            endpoint: labels.get("endpoint").map_or("", String::as_str),
            component: component.kind.as_str(),
        };
        log_arguments(&mut args, logger, &settings.logger, &identity, annotations);
    }
    add(&mut args, "--component-port", Some(pod::port(server)));

    let mut variables = Vec::new();
    if let Some(text) = probe.as_ref().map(probe::Probe::text) {
        variables.push(env::value("SERVING_READINESS_PROBE", &text));
    }
    for variable in credentials.env {
        env::set(&mut variables, variable);
    }
    let (mut mounts, mut volumes) = (credentials.mounts, credentials.volumes);
    if let Some(config_map) = settings
        .logger
        .ca_bundle
        .as_ref()
        .filter(|_| component.logger.is_some())
    {
        mounts.push(json!({"name": CA_VOLUME, "mountPath": CA_PATH, "readOnly": true}));
        volumes.push(json!({"name": CA_VOLUME, "configMap": {"name": config_map, "optional": true}}));
    }
    let resources = &settings.agent.resources;
    let mut agent = json!({
        "name": names::AGENT_CONTAINER,
        "image": settings.agent.image,
        "args": args,
        "ports": [{"name": "agent-port", "containerPort": names::AGENT_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request},
            "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit},
        },
        "readinessProbe": {"httpGet": {
            "path": probe.as_ref().map_or("/", probe::Probe::path),
            "port": names::AGENT_PORT,
            // Without it the agent takes the kubelet's question for a request to the model.
            "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}],
        }},
    });
    for (field, list) in [("env", variables), ("volumeMounts", mounts)] {
        if !list.is_empty() {
            agent[field] = Value::Array(list);
        }
    }
    if let Some(context) = first.and_then(|first| first.get("securityContext")) {
        agent["securityContext"] = context.clone();
    }
    named::add(target, "containers", agent);
    for volume in volumes {
        named::add(target, "volumes", volume);
    }
    Ok(())
}

/// Who the log says a request was for.
struct Identity<'a> {
    service: &'a str,
    namespace: &'a str,
    endpoint: &'a str,
    component: &'a str,
}

fn log_arguments(
    args: &mut Vec<String>,
    logger: &Logger,
    settings: &settings::Logger,
    identity: &Identity<'_>,
    annotations: &BTreeMap<String, String>,
) {
    let url = logger.url.as_deref().unwrap_or(&settings.default_url);
    add(args, "--log-url", Some(url));
    // The Pod's own name, which no template can know; KServe leaves it empty as well.
    add(args, "--source-uri", Some(""));
    add(args, "--log-mode", Some(logger.mode.as_deref().unwrap_or_default()));
    add(args, "--inference-service", Some(identity.service));
    add(args, "--namespace", Some(identity.namespace));
    add(args, "--endpoint", Some(identity.endpoint));
    add(args, "--component", Some(identity.component));
    let (path, format) = match (&logger.storage, &settings.storage) {
        (Some(storage), _) => {
            let parameters = storage.parameters.as_ref();
            (
                &storage.path,
                parameters.and_then(|parameters| parameters.get("format")),
            )
        }
        (None, Some(storage)) => (&storage.path, storage.parameters.get("format")),
        (None, None) => (&None, None),
    };
    add(args, "--log-store-path", path.as_deref());
    add(args, "--log-store-format", format);
    let marshaller = logger.marshaller_url.as_ref().or(settings.marshaller_url.as_ref());
    add(args, "--log-marshaller-url", marshaller);
    add(args, "--log-batch-size", logger.batch_size.or(settings.batch_size));
    let interval = logger.batch_interval.as_ref().or(settings.batch_interval.as_ref());
    add(args, "--log-batch-interval", interval);
    if !logger.metadata_headers.is_empty() {
        add(args, "--metadata-headers", Some(logger.metadata_headers.join(",")));
    }
    if !logger.metadata_annotations.is_empty() {
        let known = logger
            .metadata_annotations
            .iter()
            .filter_map(|key| Some(format!("{key}={}", annotations.get(key)?)));
        add(
            args,
            "--metadata-annotations",
            Some(known.collect::<Vec<_>>().join(",")),
        );
    }
    add(args, "--logger-ca-cert-file", settings.ca_cert_file.as_ref());
    add(args, "--logger-tls-skip-verify", Some(settings.tls_skip_verify));
}

fn add(args: &mut Vec<String>, flag: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        args.extend([flag.to_owned(), value.to_string()]);
    }
}

#[cfg(test)]
mod tests;
