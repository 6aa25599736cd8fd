//! The rules `KServe`'s definitions and validating webhook enforce, checked again here because a cluster may run neither.
//!
//! A rule that is broken is a [`Rejection`] with reason [`INVALID_SPEC`]: its message names the field and goes on in
//! `KServe`'s words, its event is in `KServe`'s words alone. What is accepted and has no effect is in [`warnings`].

mod canary;
mod component;
mod runtimes;
mod scaling;
mod schema;
mod storage;
mod warnings;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::{
    api::{Component, InferenceService, Meta, Object},
    named, names,
    rejection::Rejection,
    settings::DeploymentMode,
};

pub use runtimes::runtimes;
pub use warnings::warnings;

/// Reason of conditions about a specification that breaks a rule.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Reason of conditions about a field this version does not build.
pub const UNSUPPORTED: &str = "Unsupported";

/// The names of services and of their variants.
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[a-z]([-a-z0-9]*[a-z0-9])?$").expect("the pattern is constant and valid"));

/// Checks a specification whose defaults are applied. The first broken rule wins, in the order in which `KServe` looks:
/// the definition's schema, then the webhook's rules.
///
/// The one rule that needs the specification of before, that a predictor is renamed only together with its model, is in
/// our definition and not here.
///
/// # Errors
/// [`Rejection`] names the field.
pub fn validate(service: &InferenceService) -> Result<(), Rejection> {
    schema::check(service)?;
    same_mode(service)?;
    name(&service.meta.name)?;
    supported(service)?;
    autoscaler_class(&service.meta)?;
    for part in service.spec.workloads() {
        python_path(&service.meta.name, part)?;
    }
    component::predictor(&service.spec.predictor)?;
    for part in service.spec.components() {
        storage::check(part)?;
    }
    storage::confidential(&service.spec.predictor)?;
    for part in service.spec.components() {
        component::check(part)?;
        scaling::check(service.meta.annotation(names::ANNOTATION_AUTOSCALER_CLASS), part)?;
    }
    canary::check(&service.spec)
}

/// A service keeps the mode it was first deployed in. A value that is no mode at all is reported where the mode is used.
fn same_mode(service: &InferenceService) -> Result<(), Rejection> {
    let asked = service.meta.annotation(names::ANNOTATION_DEPLOYMENT_MODE);
    let (Some(deployed), Some(asked)) = (
        DeploymentMode::parse(&service.status.deployment_mode),
        asked.and_then(DeploymentMode::parse),
    ) else {
        return Ok(());
    };
    if deployed == asked {
        return Ok(());
    }
    Err(invalid(
        &format!("metadata.annotations[{}]", names::ANNOTATION_DEPLOYMENT_MODE),
        format!(
            "update rejected: deploymentMode cannot be changed from '{}' to '{}'",
            deployed.as_str(),
            asked.as_str()
        ),
    ))
}

fn name(name: &str) -> Result<(), Rejection> {
    if NAME.is_match(name) {
        return Ok(());
    }
    Err(invalid(
        "metadata.name",
        format!(
            "the InferenceService \"{name}\" is invalid: a InferenceService name must consist of lower case alphanumeric \
             characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used \
             for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        ),
    ))
}

fn supported(service: &InferenceService) -> Result<(), Rejection> {
    let Some(field) = service.spec.unsupported.first() else {
        return Ok(());
    };
    Err(Rejection::new(
        UNSUPPORTED,
        format!("{field}: not supported by this version of leanserve; remove it or let KServe's controller serve it"),
    ))
}

fn autoscaler_class(meta: &Meta) -> Result<(), Rejection> {
    let key = names::ANNOTATION_AUTOSCALER_CLASS;
    match meta.annotation(key) {
        None | Some("hpa" | "external" | "keda" | "none") => Ok(()),
        Some(class) => Err(invalid(
            &format!("metadata.annotations[{key}]"),
            format!("[{class}] is not a supported autoscaler class type"),
        )),
    }
}

/// `PYTHONPATH` could replace the server's own code.
fn python_path(service: &str, component: &Component) -> Result<(), Rejection> {
    for (field, container) in containers(component) {
        if sets(container, "PYTHONPATH") {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            return Err(invalid(
                &component.field(&format!("{field}.env")),
                format!(
                    "the InferenceService \"{service}\" is invalid: setting PYTHONPATH in container \"{name}\" is not \
                     allowed for security reasons"
                ),
            ));
        }
    }
    Ok(())
}

/// All containers a component names, each with its path below the component.
fn containers(component: &Component) -> impl Iterator<Item = (String, &Object)> {
    let model = component.model.as_ref().map(|model| ("model", &model.container));
    let art = component.art.as_ref().map(|art| ("art", &art.container));
    let own = model.into_iter().chain(art).map(|(field, it)| (field.to_owned(), it));
    let init = component.pod.get("initContainers").and_then(Value::as_array);
    let lists = [("containers", Some(&component.containers)), ("initContainers", init)];
    let listed = lists.into_iter().flat_map(|(field, list)| {
        let indexed = list.into_iter().flatten().enumerate();
        indexed.filter_map(move |(index, container)| Some((format!("{field}[{index}]"), container.as_object()?)))
    });
    own.chain(listed)
}

/// Whether a container has an environment variable of a name.
fn sets(container: &Object, variable: &str) -> bool {
    named::has(container, "env", variable)
}

fn invalid(field: &str, message: impl Into<String>) -> Rejection {
    let message = message.into();
    Rejection::new(INVALID_SPEC, format!("{field}: {message}"))
        .event(message.clone())
        .model_failure("InvalidPredictorSpec", message)
}
