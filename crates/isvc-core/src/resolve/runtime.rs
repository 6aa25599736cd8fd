//! Which runtime serves a model.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    api::{Model, Scope, ServingRuntime, serving_runtime::SupportedModelFormat},
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
    let best = |runtimes: &[Arc<ServingRuntime>]| {
        let fit = runtimes.iter().filter(|runtime| unfit(runtime, model).is_none());
        fit.min_by_key(|runtime| order(runtime, model)).cloned()
    };
    // A name is looked up in the namespace first, also for the runtime that was just chosen in the cluster.
    let chosen = best(&observed.runtimes).or_else(|| best(&observed.cluster_runtimes));
    let chosen = chosen.map(|runtime| by_name(&runtime.meta.name, observed).cloned().unwrap_or(runtime));
    chosen.ok_or_else(|| {
        let version = model.format_version.as_deref().unwrap_or("<nil>");
        let protocol = wanted_protocol(model);
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

/// The order in which fitting runtimes of one scope are preferred: priority, protocol, the newest, the name.
fn order<'a>(runtime: &'a ServingRuntime, model: &Model) -> (Reverse<Option<i32>>, u8, Reverse<&'a str>, &'a str) {
    let lowest = runtime.protocol_versions.iter().map(|protocol| rank(protocol)).min();
    (
        Reverse(priority(runtime, &model.format)),
        lowest.unwrap_or(UNKNOWN_RANK),
        Reverse(&runtime.meta.creation_timestamp),
        &runtime.meta.name,
    )
}

fn wanted_protocol(model: &Model) -> &str {
    let given = model.protocol_version.as_deref();
    given.filter(|protocol| !protocol.is_empty()).unwrap_or("v1")
}

/// Why a runtime is not chosen automatically; none if it could be.
fn unfit(runtime: &ServingRuntime, model: &Model) -> Option<String> {
    let protocol = wanted_protocol(model);
    if runtime.disabled {
        Some("is disabled".to_owned())
    } else if runtime.multi_model {
        Some("serves many models at a time (multiModel)".to_owned())
    } else if runtime.has_worker {
        Some("runs on several nodes (workerSpec)".to_owned())
    } else if !supports_format(runtime, model, false) {
        Some(format!("does not support format {}", described(model)))
    } else if !supports_format(runtime, model, true) {
        Some(format!("supports format {} but not by autoSelect", described(model)))
    } else if !supports_protocol(runtime, protocol) {
        let offered = runtime.protocol_versions.join(", ");
        Some(format!("speaks {offered} and not {protocol}"))
    } else {
        None
    }
}

/// A runtime that could have been chosen, and why it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Whether it is the namespace's or the cluster's.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Why it was not chosen.
    pub why: String,
}

/// Why each runtime that was not chosen was passed over, in the order of preference.
pub(crate) fn passed_over(model: &Model, chosen: Option<&(Scope, String)>, observed: &Observed) -> Vec<PassedOver> {
    let explicit = model.runtime.as_deref().filter(|name| !name.is_empty());
    let mut all: Vec<_> = observed.runtimes.iter().chain(&observed.cluster_runtimes).collect();
    all.sort_by_key(|runtime| (runtime.scope, unfit(runtime, model).is_some(), order(runtime, model)));
    all.into_iter()
        .filter(|runtime| chosen != Some(&(runtime.scope, runtime.meta.name.clone())))
        .map(|runtime| PassedOver {
            scope: runtime.scope,
            name: runtime.meta.name.clone(),
            why: match (explicit, unfit(runtime, model)) {
                (Some(name), _) => format!("spec.predictor.model.runtime names {name}"),
                (None, Some(why)) => why,
                (None, None) => preferred(runtime, model, chosen, observed),
            },
        })
        .collect()
}

/// What put the chosen runtime before this one, which fits as well.
fn preferred(runtime: &ServingRuntime, model: &Model, chosen: Option<&(Scope, String)>, observed: &Observed) -> String {
    let all = observed.runtimes.iter().chain(&observed.cluster_runtimes);
    let chosen = chosen.and_then(|(scope, name)| {
        let mut all = all;
        all.find(|other| other.scope == *scope && other.meta.name == *name)
    });
    let Some(chosen) = chosen else {
        return "fits".to_owned();
    };
    let name = &chosen.meta.name;
    if chosen.scope != runtime.scope {
        return format!("fits; {name} comes first because it is the namespace's own");
    }
    let (ours, theirs) = (order(runtime, model), order(chosen, model));
    let why = if ours.0 != theirs.0 {
        let number = |priority: Option<i32>| priority.map_or("none".to_owned(), |number| number.to_string());
        format!("priority is {} and not {}", number(theirs.0.0), number(ours.0.0))
    } else if ours.1 != theirs.1 {
        "protocol comes earlier in v1, v2, grpc-v1, grpc-v2".to_owned()
    } else if ours.2 != theirs.2 {
        "creation is later".to_owned()
    } else {
        "name comes first".to_owned()
    };
    format!("fits; {name} comes first because its {why}")
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
