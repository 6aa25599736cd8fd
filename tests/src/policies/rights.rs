//! The rights that `leanserve run --policies` needs beside those of the operator.

use serde_json::{Value, json};

use crate::installation::NAMESPACE;

/// Roles and bindings for the operator's account in its namespace.
#[must_use]
pub fn objects() -> Vec<Value> {
    let subjects = json!([{"kind": "ServiceAccount", "name": "leanserve", "namespace": NAMESPACE}]);
    let rules = json!([
        {"apiGroups": ["leanserve.dev"],
         "resources": ["inferencepolicies", "inferencepolicytemplates"],
         "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["leanserve.dev"],
         "resources": ["inferencepolicies/status", "inferencepolicytemplates/status"],
         "verbs": ["patch"]},
        {"apiGroups": ["admissionregistration.k8s.io"],
         "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
         "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"]},
        {"apiGroups": ["admissionregistration.k8s.io"],
         "resources": ["validatingadmissionpolicies"],
         "verbs": ["deletecollection"]},
    ]);
    let in_namespace = |name: &str, namespace: &str, rules: Value| {
        let metadata = json!({"name": name, "namespace": namespace});
        vec![
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": subjects,
            }),
        ]
    };
    let mut objects = vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "leanserve-test-policies"},
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "leanserve-test-policies"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "leanserve-test-policies",
            },
            "subjects": subjects,
        }),
    ];
    let barrier = json!([{
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["leanserve-barrier"],
        "verbs": ["create", "patch"],
    }]);
    let servers = json!([{
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "resourceNames": ["kubernetes"],
        "verbs": ["get"],
    }]);
    objects.extend(in_namespace("leanserve-test-barrier", NAMESPACE, barrier));
    objects.extend(in_namespace("leanserve-test-servers", "default", servers));
    objects
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
