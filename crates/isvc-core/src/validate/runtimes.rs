//! What `KServe`'s webhook for runtimes would refuse. A runtime that exists is used all the same, so these are warnings.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::sets;
use crate::api::{Scope, ServingRuntime, serving_runtime::SupportedModelFormat};

/// What is ambiguous or forbidden in the runtimes of one namespace, or of the cluster; each a sentence that names them.
///
/// Automatic selection goes by priority, so two runtimes of the same priority for a format leave the choice to their age.
#[must_use]
pub fn runtimes(runtimes: &[Arc<ServingRuntime>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut first: BTreeMap<Rank<'_>, &str> = BTreeMap::new();
    for runtime in runtimes.iter().filter(|runtime| !runtime.disabled) {
        found.extend(python_path(runtime));
        found.extend(two_priorities(runtime));
        for (format, priority) in choosable(runtime) {
            let mut clash = None;
            for protocol in &runtime.protocol_versions {
                let rank = Rank {
                    format: format.name.to_lowercase(),
                    version: format.version.as_deref(),
                    priority,
                    protocol,
                    multi_model: runtime.multi_model,
                };
                let known = *first.entry(rank).or_insert(&runtime.meta.name);
                if known != runtime.meta.name {
                    clash = Some(known);
                }
            }
            found.extend(clash.map(|other| same_priority(runtime, other, format)));
        }
    }
    found
}

/// What two runtimes must not have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    format: String,
    version: Option<&'a str>,
    priority: i32,
    protocol: &'a str,
    multi_model: bool,
}

/// The formats a runtime is chosen by, with the priorities that are given.
fn choosable(runtime: &ServingRuntime) -> impl Iterator<Item = (&SupportedModelFormat, i32)> {
    let formats = runtime.supported_model_formats.iter();
    formats
        .filter(|format| format.auto_select == Some(true))
        .filter_map(|format| Some((format, format.priority?)))
}

fn same_priority(runtime: &ServingRuntime, other: &str, format: &SupportedModelFormat) -> String {
    let (name, format) = (&runtime.meta.name, &format.name);
    match runtime.scope {
        Scope::Namespace => format!(
            "same priority assigned for the model format {format} in the servingruntimes {name} and {other} in namespace {}",
            runtime.meta.namespace
        ),
        Scope::Cluster => {
            format!(
                "same priority assigned for the model format {format} in the clusterservingruntimes {name} and {other}"
            )
        }
    }
}

fn two_priorities(runtime: &ServingRuntime) -> Option<String> {
    let mut priorities = BTreeMap::new();
    let kind = match runtime.scope {
        Scope::Namespace => "servingruntime",
        Scope::Cluster => "clusterservingruntime",
    };
    choosable(runtime)
        .find(|(format, priority)| *priorities.entry(&format.name).or_insert(*priority) != *priority)
        .map(|(format, _)| {
            format!(
                "different priorities assigned for the model format {} under the {kind} {}",
                format.name, runtime.meta.name
            )
        })
}

fn python_path(runtime: &ServingRuntime) -> Option<String> {
    let container = runtime
        .containers
        .iter()
        .filter_map(Value::as_object)
        .find(|container| sets(container, "PYTHONPATH"))?;
    let container = container.get("name").and_then(Value::as_str).unwrap_or_default();
    let kind = match runtime.scope {
        Scope::Namespace => "ServingRuntime",
        Scope::Cluster => "ClusterServingRuntime",
    };
    Some(format!(
        "the {kind} \"{}\" is invalid: setting PYTHONPATH in container \"{container}\" is not allowed for security reasons",
        runtime.meta.name
    ))
}
