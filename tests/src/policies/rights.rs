//! The rights that `leanserve run --policies` has beside those of the operator.

use std::fs;

use serde_json::{Value, json};

use crate::installation::kustomization;

/// The roles and bindings of `deploy/`, for the operator's account in its namespace.
///
/// # Panics
///
/// When `deploy/` is not what it should be.
#[must_use]
pub fn objects() -> Vec<Value> {
    let path = kustomization("components/policies").join("rbac.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What an API server keeps of itself in a cluster where others reach it, and not on loopback: that there is one.
#[must_use]
pub fn one_api_server() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": "IPv4",
        // A network for documentation (RFC 5737).
        "endpoints": [{"addresses": ["192.0.2.1"]}],
    })
}
