//! `ServiceAccounts` that read Secrets, and clients fit for the library.

use kube::Client;
use serde_json::json;
use testkit::ControlPlane;

/// Manifests of a `ServiceAccount` with these rules in its namespace: each in YAML's flow style, such as
/// `{apiGroups: [""], resources: [secrets], verbs: [get]}`.
#[must_use]
pub fn account(namespace: &str, name: &str, rules: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}, namespace: {namespace}}}
rules: [{rules}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}
subjects: [{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}]
"
    )
}

/// A client with this token that retries nothing.
///
/// # Panics
///
/// When the control plane's kubeconfig cannot be used.
pub async fn client(plane: &ControlPlane, token: &str) -> Client {
    let mut config = plane.config().await.expect("a configuration");
    config.auth_info = serde_json::from_value(json!({ "token": token })).expect("a token is all it needs");
    kube_secret_access::client(config).expect("a client")
}

/// A client of a `ServiceAccount` that retries nothing.
///
/// # Panics
///
/// When there is no such account.
pub async fn client_of(plane: &ControlPlane, namespace: &str, account: &str) -> Client {
    let token = plane.service_account_token(namespace, account).await.expect("a token");
    client(plane, &token).await
}
