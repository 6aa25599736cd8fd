//! Rules about one component: what implements it, how often it runs, what it logs.

use serde_json::Value;

use super::{invalid, sets};
use crate::{
    api::{Component, ComponentKind},
    named, names,
    rejection::Rejection,
    resolve::env,
};

/// Rules only a predictor has.
pub(super) fn predictor(component: &Component) -> Result<(), Rejection> {
    for (index, container) in component.containers.iter().enumerate() {
        let is_transformer = named::is_named(container, names::TRANSFORMER_CONTAINER);
        if is_transformer && container.as_object().is_some_and(|it| sets(it, names::ENV_STORAGE_URI)) {
            return Err(invalid(
                &component.field(&format!("containers[{index}].env[{}]", names::ENV_STORAGE_URI)),
                "storage uri should not be specified in transformer container",
            ));
        }
    }
    let name = component.model.as_ref().and_then(|model| model.container.get("name"));
    if name.is_some_and(|name| name != "") {
        return Err(invalid(
            &component.field("model.name"),
            "the 'name' field is not allowed in standard predictor",
        ));
    }
    Ok(())
}

/// Rules every component has.
pub(super) fn check(component: &Component) -> Result<(), Rejection> {
    exactly_one(component)?;
    protocol(component)?;
    replicas(component)?;
    logger(component)
}

fn exactly_one(component: &Component) -> Result<(), Rejection> {
    if component.implementations == 1 {
        return Ok(());
    }
    let (fields, type_) = match component.kind {
        ComponentKind::Predictor => (
            "Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, Paddle, Model, \
             StorageUris, StorageContainerName, WorkerSpec, PodSpec",
            "PredictorSpec",
        ),
        ComponentKind::Transformer => ("PodSpec, ComponentExtensionSpec", "TransformerSpec"),
        ComponentKind::Explainer => ("ART, PodSpec, ComponentExtensionSpec", "ExplainerSpec"),
    };
    Err(invalid(
        &component.path(),
        format!("exactly one of [{fields}] must be specified in {type_}"),
    ))
}

/// A custom predictor may say which protocol it speaks.
fn protocol(component: &Component) -> Result<(), Rejection> {
    if component.kind != ComponentKind::Predictor || component.model.is_some() {
        return Ok(());
    }
    let env = component.containers.first().and_then(|server| server.get("env"));
    let protocol = env
        .and_then(Value::as_array)
        .and_then(|env| env::literal(env, "PROTOCOL"));
    match protocol {
        None | Some("" | "v1" | "v2") => Ok(()),
        // KServe has the two lists in each other's place. Its words are kept, and explained.
        Some(other) => {
            let theirs = format!("invalid protocol v1, v2. Must be one of [{other}]");
            let explained = format!("{theirs} (that is: {other} is invalid, v1 and v2 are valid)");
            Err(invalid(&component.field("containers[0].env[PROTOCOL]"), explained).event(theirs))
        }
    }
}

fn replicas(component: &Component) -> Result<(), Rejection> {
    let refuse = |field: &str, message: &str| Err(invalid(&component.field(field), message));
    if component.container_concurrency.is_some_and(|workers| workers < 0) {
        return refuse("containerConcurrency", "parallelism cannot be less than 0");
    }
    let min = component.min_replicas.unwrap_or(1);
    let max = component.max_replicas.unwrap_or(0);
    if min < 0 {
        return refuse("minReplicas", "'MinReplicas' cannot be less than 0");
    }
    if max < 0 {
        return refuse("maxReplicas", "'MaxReplicas' cannot be less than 0");
    }
    if max != 0 && min > max {
        return refuse("minReplicas", "'MinReplicas' cannot be greater than MaxReplicas");
    }
    Ok(())
}

fn logger(component: &Component) -> Result<(), Rejection> {
    let Some(logger) = &component.logger else {
        return Ok(());
    };
    if !matches!(logger.mode.as_deref(), Some("all" | "request" | "response")) {
        return Err(invalid(&component.field("logger.mode"), "invalid logger type"));
    }
    if let Some(storage) = &logger.storage
        && (storage.path.is_none() || storage.parameters.is_none() || storage.key.is_none())
    {
        return Err(invalid(
            &component.field("logger.storage"),
            "invalid logger storage configuration",
        ));
    }
    Ok(())
}
