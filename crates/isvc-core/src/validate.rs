//! The rules `KServe`'s validating webhook enforces, checked again here because a cluster may not run it.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::{api::Component, names, observed::Observed, rejection::Rejection};

/// Reason of conditions about a specification that breaks a rule.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Reason of conditions about a field this version does not build.
pub const UNSUPPORTED: &str = "Unsupported";

static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[a-z]([-a-z0-9]*[a-z0-9])?$").expect("the pattern is constant and valid"));

/// Checks a specification whose defaults are applied. The first broken rule wins, in the webhook's order.
///
/// # Errors
/// [`Rejection`] names the field.
pub fn validate(observed: &Observed) -> Result<(), Rejection> {
    let service = &observed.service;
    let name = &service.meta.name;
    if !NAME.is_match(name) {
        return Err(invalid(
            "metadata.name",
            format!(
                "the InferenceService \"{name}\" is invalid: a InferenceService name must consist of lower case \
                 alphanumeric characters or '-', and must start with alphabetical character"
            ),
        ));
    }
    if let Some(field) = service.spec.unsupported.first() {
        return Err(Rejection::new(
            UNSUPPORTED,
            format!(
                "{field}: not supported by this version of leanserve; remove it or let KServe's controller serve it"
            ),
        ));
    }
    let predictor = &service.spec.predictor;
    for (key, value) in service.meta.annotations.iter().chain(&predictor.annotations) {
        if key == names::ANNOTATION_AUTOSCALER_CLASS && !matches!(value.as_str(), "hpa" | "external" | "keda" | "none")
        {
            return Err(invalid(
                &format!("metadata.annotations[{key}]"),
                format!("[{value}] is not a supported autoscaler class type; use hpa, external or none"),
            ));
        }
    }
    python_path(name, predictor)?;
    if predictor
        .model
        .as_ref()
        .is_some_and(|model| model.container.get("name").is_some_and(|name| name != ""))
    {
        return Err(invalid(
            "spec.predictor.model.name",
            "the 'name' field is not allowed in standard predictor".into(),
        ));
    }
    if predictor.implementations != 1 {
        return Err(invalid(
            "spec.predictor",
            format!(
                "exactly one implementation must be given, as model, as one framework or as containers; found {}",
                predictor.implementations
            ),
        ));
    }
    replicas(predictor)
}

/// `PYTHONPATH` could replace the server's own code.
fn python_path(service: &str, predictor: &Component) -> Result<(), Rejection> {
    let lists = [
        Some(&predictor.containers),
        predictor.pod.get("initContainers").and_then(Value::as_array),
    ];
    let model = predictor.model.as_ref().map(|model| &model.container);
    let containers = lists
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(Value::as_object)
        .chain(model);
    for container in containers {
        let env = container.get("env").and_then(Value::as_array).into_iter().flatten();
        if env
            .clone()
            .any(|variable| variable.get("name").and_then(Value::as_str) == Some("PYTHONPATH"))
        {
            let container = container.get("name").and_then(Value::as_str).unwrap_or_default();
            return Err(invalid(
                "spec.predictor",
                format!(
                    "the InferenceService \"{service}\" is invalid: setting PYTHONPATH in container \"{container}\" is \
                     not allowed for security reasons"
                ),
            ));
        }
    }
    Ok(())
}

fn replicas(predictor: &Component) -> Result<(), Rejection> {
    let min = predictor.min_replicas.unwrap_or(1);
    let max = predictor.max_replicas.unwrap_or(0);
    if min < 0 {
        return Err(invalid(
            "spec.predictor.minReplicas",
            "'MinReplicas' cannot be less than 0".into(),
        ));
    }
    if max < 0 {
        return Err(invalid(
            "spec.predictor.maxReplicas",
            "'MaxReplicas' cannot be less than 0".into(),
        ));
    }
    if max != 0 && min > max {
        return Err(invalid(
            "spec.predictor.minReplicas",
            "'MinReplicas' cannot be greater than MaxReplicas".into(),
        ));
    }
    Ok(())
}

fn invalid(field: &str, message: String) -> Rejection {
    Rejection::new(INVALID_SPEC, format!("{field}: {message}"))
        .event(message.clone())
        .model_failure("InvalidPredictorSpec", message)
}
