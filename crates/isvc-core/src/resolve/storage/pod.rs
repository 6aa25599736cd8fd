//! Changes to a Pod's lists.

use serde_json::Value;

use crate::{
    api::Object,
    named::{self, has, name_of},
    names,
    rejection::{RECONCILE_FAILED, Rejection},
};

/// The containers that read the model: the server, or the worker of one elsewhere, and a transformer beside it.
pub(super) fn servers(pod: &mut Object) -> impl Iterator<Item = &mut Object> {
    let server = if has(pod, "containers", names::MODEL_CONTAINER) {
        names::MODEL_CONTAINER
    } else {
        names::WORKER_CONTAINER
    };
    pod.get_mut("containers")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter(move |container| {
            name_of(container).is_some_and(|name| name == server || name == names::TRANSFORMER_CONTAINER)
        })
        .filter_map(Value::as_object_mut)
}

/// Fails for a Pod that has no server.
pub(super) fn check_server(pod: &Object) -> Result<(), Rejection> {
    if [names::MODEL_CONTAINER, names::WORKER_CONTAINER]
        .iter()
        .any(|name| has(pod, "containers", name))
    {
        return Ok(());
    }
    Err(Rejection::new(
        RECONCILE_FAILED,
        format!(
            "Invalid configuration: cannot find container {}",
            names::MODEL_CONTAINER
        ),
    ))
}

/// Mounts a volume into the containers that read the model, unless they mount it already.
pub(super) fn mount(pod: &mut Object, mount: &Value) -> Result<(), Rejection> {
    check_server(pod)?;
    for server in servers(pod) {
        named::add(server, "volumeMounts", mount.clone());
    }
    Ok(())
}

/// Another volume that a server mounts at this path.
pub(super) fn mounted_otherwise(pod: &mut Object, volume: &str, path: &str) -> Option<String> {
    servers(pod)
        .filter_map(|server| server.get("volumeMounts")?.as_array())
        .flatten()
        .filter(|mount| mount.get("mountPath").and_then(Value::as_str) == Some(path))
        .filter_map(name_of)
        .find(|name| *name != volume)
        .map(str::to_owned)
}
