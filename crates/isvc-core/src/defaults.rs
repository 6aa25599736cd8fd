//! The defaults `KServe`'s admission webhook writes into an `InferenceService`, applied in memory.
//!
//! The stored object stays as the user wrote it, so tools that compare it with a repository see no difference.

use serde_json::{Value, json};

use crate::{
    api::{Component, ComponentKind, InferenceService, InvalidField, Model, Object},
    names,
    settings::{DeploymentMode, OptionalResources, Settings},
};

/// Applies the defaults of admission. Doing it again changes nothing.
///
/// # Errors
/// [`InvalidField`] when a framework's old field cannot be read.
pub fn apply(service: &mut InferenceService, settings: &Settings) -> Result<(), InvalidField> {
    let annotations = &mut service.meta.annotations;
    let mode = annotations.get(names::ANNOTATION_DEPLOYMENT_MODE).map(String::as_str);
    let mode = match mode {
        Some("RawDeployment") => Some(DeploymentMode::Standard),
        Some("Serverless") => Some(DeploymentMode::Knative),
        Some(_) => None,
        None => Some(settings.deploy.default_deployment_mode).filter(|default| *default != DeploymentMode::Knative),
    };
    if let Some(mode) = mode {
        annotations.insert(names::ANNOTATION_DEPLOYMENT_MODE.to_owned(), mode.as_str().to_owned());
    }

    for component in service.spec.workloads_mut() {
        default_model(component)?;
    }
    if let Some(model) = &service.spec.predictor.model {
        annotations
            .entry(names::ANNOTATION_MODEL_FORMAT.to_owned())
            .or_insert_with(|| model.format.clone());
    }
    for component in service.spec.workloads_mut() {
        if component.model.is_none() {
            default_custom(component, settings);
        }
        if !settings.security.auto_mount_service_account_token {
            component
                .pod
                .entry("automountServiceAccountToken")
                .or_insert(Value::Bool(false));
        }
    }
    Ok(())
}

/// A framework in its old field becomes a `model`, and models that speak v2 only say so.
fn default_model(predictor: &mut Component) -> Result<(), InvalidField> {
    if let Some((framework, content)) = predictor.legacy.take() {
        // A `model` beside an old field is refused by validation; it is not overwritten here.
        if predictor.model.is_none() {
            let mut model = Model::from_legacy(framework, content)?;
            if model.protocol_version.is_none() && matches!(framework, "triton" | "onnx" | "huggingface") {
                model.protocol_version = Some("v2".to_owned());
            }
            predictor.model = Some(model);
        }
    }
    if let Some(model) = &mut predictor.model
        && model.protocol_version.is_none()
        && matches!(model.format.as_str(), "triton" | "vLLM")
    {
        model.protocol_version = Some("v2".to_owned());
    }
    Ok(())
}

/// The first container of a custom component gets the server's name and default resources. A predictor's name is only
/// filled in where it says nothing.
fn default_custom(component: &mut Component, settings: &Settings) {
    let defaults = settings.inference_service.resource.as_ref();
    if let Some(art) = &mut component.art {
        if let Some(defaults) = defaults {
            fill_resources(&mut art.container, defaults);
        }
        return;
    }
    let alone = component.containers.len() == 1;
    let Some(first) = component.containers.first_mut().and_then(Value::as_object_mut) else {
        return;
    };
    let unnamed = first.get("name").and_then(Value::as_str).is_none_or(str::is_empty);
    if alone || unnamed || component.kind != ComponentKind::Predictor {
        first.insert("name".to_owned(), Value::from(names::MODEL_CONTAINER));
    }
    if let Some(defaults) = defaults {
        fill_resources(first, defaults);
    }
}

/// Fills cpu and memory where they are absent; never overwrites.
fn fill_resources(container: &mut Object, defaults: &OptionalResources) {
    let entries = [
        ("requests", "cpu", &defaults.cpu_request),
        ("requests", "memory", &defaults.memory_request),
        ("limits", "cpu", &defaults.cpu_limit),
        ("limits", "memory", &defaults.memory_limit),
    ];
    for (kind, resource, quantity) in entries {
        let Some(quantity) = quantity else { continue };
        let resources = container.entry("resources").or_insert_with(|| json!({}));
        let Some(resources) = resources.as_object_mut() else {
            return;
        };
        let map = resources.entry(kind).or_insert_with(|| json!({}));
        if let Some(map) = map.as_object_mut() {
            map.entry(resource).or_insert_with(|| Value::from(quantity.as_str()));
        }
    }
}
