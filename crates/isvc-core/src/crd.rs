//! The `CustomResourceDefinitions` of `serving.kserve.io` and of our own `leanserve.dev`, with a description on every field.
//!
//! Structure, defaults, enums and required fields of the former follow `KServe`'s own full definitions, so what those accept is accepted
//! and stored unchanged. The descriptions are short and our own, which keeps each definition under 1 MiB: etcd refuses
//! more than 1.5 MiB. A definition of this size does not fit into the annotation of client-side `kubectl apply`; install
//! with `kubectl apply --server-side`.
//!
//! What `KServe`'s webhook checks beyond the structure is in `x-kubernetes-validations` as far as it goes there; the module
//! `rules` says how far.

mod component;
mod container;
mod definition;
mod inference_service;
mod pod;
mod policy;
mod rules;
mod schema;
mod serving_runtime;
mod storage_container;
mod volume;

use serde_json::Value;

pub use inference_service::inference_service;
pub use policy::{inference_policy, inference_policy_template};
pub use serving_runtime::{cluster_serving_runtime, serving_runtime};
pub use storage_container::cluster_storage_container;

/// All definitions, as complete manifests.
///
/// The order is stable, and so is the order of keys in each: printing them twice yields the same text.
#[must_use]
pub fn all() -> Vec<Value> {
    vec![
        inference_service(),
        serving_runtime(),
        cluster_serving_runtime(),
        cluster_storage_container(),
        inference_policy_template(),
        inference_policy(),
    ]
}

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod tests;
