//! Which runtime serves a model.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    api::{Model, ServingRuntime, serving_runtime::SupportedModelFormat},
    observed::Observed,
    rejection::Rejection,
};

/// Reason of conditions about a runtime that is not there, not enabled or not suitable.
const RUNTIME_NOT_USABLE: &str = "RuntimeNotUsable";

/// Chooses the runtime: the named one, or the best of those that may be chosen automatically.
pub(super) fn select(model: &Model, observed: &Observed) -> Result<Arc<ServingRuntime>, Rejection> {
    match model.runtime.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => explicit(name, model, observed),
        None => automatic(model, observed),
    }
}

/// A runtime by name: the namespace's before the cluster's.
fn by_name<'a>(name: &str, observed: &'a Observed) -> Option<&'a Arc<ServingRuntime>> {
    observed
        .runtimes
        .iter()
        .chain(&observed.cluster_runtimes)
        .find(|runtime| runtime.meta.name == name)
}

fn explicit(name: &str, model: &Model, observed: &Observed) -> Result<Arc<ServingRuntime>, Rejection> {
    const FIELD: &str = "spec.predictor.model.runtime";
    let reject = |event: String, advice: &str, reason, failure: &str| {
        Err(
            Rejection::new(RUNTIME_NOT_USABLE, format!("{FIELD}: {event}; {advice}"))
                .event(event)
                .model_failure(reason, failure),
        )
    };
    let Some(runtime) = by_name(name, observed) else {
        return reject(
            format!("No ServingRuntimes or ClusterServingRuntimes with the name: {name}"),
            "create it, or name one that exists",
            "RuntimeNotRecognized",
            "Waiting for runtime to become available",
        );
    };
    if runtime.disabled {
        return reject(
            format!("specified runtime {name} is disabled"),
            "enable it, or name another",
            "RuntimeDisabled",
            "Specified runtime is disabled",
        );
    }
    if let Some(protocol) = model
        .protocol_version
        .as_deref()
        .filter(|protocol| !protocol.is_empty())
        && !supports_protocol(runtime, protocol)
    {
        return reject(
            format!("specified runtime {name} does not support specified protocol version"),
            &format!(
                "protocolVersion is {protocol}, the runtime has {}",
                runtime.protocol_versions.join(", ")
            ),
            "NoSupportingRuntime",
            "Specified runtime does not support specified protocol version",
        );
    }
    if !supports_format(runtime, model, false) {
        return reject(
            format!("specified runtime {name} does not support specified framework/version"),
            &format!("modelFormat is {}", described(model)),
            "NoSupportingRuntime",
            "Specified runtime does not support specified framework/version",
        );
    }
    Ok(Arc::clone(runtime))
}

fn automatic(model: &Model, observed: &Observed) -> Result<Arc<ServingRuntime>, Rejection> {
    let protocol = model
        .protocol_version
        .as_deref()
        .filter(|protocol| !protocol.is_empty())
        .unwrap_or("v1");
    let best = |runtimes: &[Arc<ServingRuntime>]| {
        runtimes
            .iter()
            .filter(|runtime| {
                !runtime.disabled
                    && !runtime.multi_model
                    && !runtime.has_worker
                    && supports_protocol(runtime, protocol)
                    && supports_format(runtime, model, true)
            })
            .min_by_key(|runtime| {
                (
                    Reverse(priority(runtime, &model.format)),
                    runtime
                        .protocol_versions
                        .iter()
                        .map(|protocol| rank(protocol))
                        .min()
                        .unwrap_or(UNKNOWN_RANK),
                    Reverse(runtime.meta.creation_timestamp.clone()),
                    runtime.meta.name.clone(),
                )
            })
            .cloned()
    };
    // A name is looked up in the namespace first, also for the runtime that was just chosen in the cluster.
    let chosen = best(&observed.runtimes).or_else(|| best(&observed.cluster_runtimes));
    let chosen = chosen.map(|runtime| by_name(&runtime.meta.name, observed).cloned().unwrap_or(runtime));
    chosen.ok_or_else(|| {
        let version = model.format_version.as_deref().unwrap_or("<nil>");
        Rejection::new(
            RUNTIME_NOT_USABLE,
            format!(
                "spec.predictor.model.modelFormat: no enabled ServingRuntime of the namespace and no \
                 ClusterServingRuntime selects automatically for format {} with protocol {protocol}; create one, or name \
                 one in spec.predictor.model.runtime",
                described(model)
            ),
        )
        .event(format!("no runtime found to support predictor with model type: {{{} {version}}}", model.format))
        .model_failure("NoSupportingRuntime", "No runtime found to support specified framework/version")
    })
}

fn described(model: &Model) -> String {
    match &model.format_version {
        Some(version) => format!("\"{}\" version \"{version}\"", model.format),
        None => format!("\"{}\"", model.format),
    }
}

fn supports_protocol(runtime: &ServingRuntime, protocol: &str) -> bool {
    runtime.protocol_versions.is_empty() || runtime.protocol_versions.iter().any(|known| known == protocol)
}

/// Names and versions are compared letter by letter: "1" is not "1.0".
fn supports_format(runtime: &ServingRuntime, model: &Model, automatic: bool) -> bool {
    let usable = |entry: &&SupportedModelFormat| !automatic || entry.auto_select == Some(true);
    runtime.supported_model_formats.iter().filter(usable).any(|entry| {
        entry.name == model.format
            && model
                .format_version
                .as_ref()
                .is_none_or(|version| entry.version.as_ref() == Some(version))
    })
}

/// Priority of the first entry with the format's name, whatever its version. None sorts below every number.
fn priority(runtime: &ServingRuntime, format: &str) -> Option<i32> {
    runtime
        .supported_model_formats
        .iter()
        .find(|entry| entry.name == format)
        .and_then(|entry| entry.priority)
}

const UNKNOWN_RANK: u8 = 5;

fn rank(protocol: &str) -> u8 {
    match protocol {
        "v1" => 1,
        "v2" => 2,
        "grpc-v1" => 3,
        "grpc-v2" => 4,
        _ => UNKNOWN_RANK,
    }
}

/// The protocol a runtime speaks when the model names none.
pub(super) fn lowest_protocol(runtime: &ServingRuntime) -> String {
    runtime
        .protocol_versions
        .iter()
        .min_by_key(|protocol| rank(protocol))
        .cloned()
        .unwrap_or_default()
}
