//! leanserve as a user installs it, but for the operator's Pod: its binary runs beside the tests.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Error, TestNamespace, try_eventually};
use tokio::sync::OnceCell;

/// Namespace and name of the operator's `ServiceAccount` in `deploy/`.
pub const NAMESPACE: &str = "leanserve-system";
const SERVICE_ACCOUNT: &str = "leanserve";
/// On a busy machine.
const ESTABLISHED: Duration = Duration::from_secs(120);

/// The user name of the operator in the audit log.
pub const USER: &str = "system:serviceaccount:leanserve-system:leanserve";

/// CRDs, rights, settings and runtimes of `deploy/` on a control plane.
#[derive(Debug)]
pub struct Installation<'a> {
    /// The control plane.
    pub plane: &'a ControlPlane,
    directory: TempDir,
    own_rights: Vec<Value>,
}

/// A namespace of one test, in which an operator finds its own `ConfigMap`.
#[derive(Debug)]
pub struct Scope {
    /// The namespace; deleted when this is dropped.
    pub namespace: TestNamespace,
}

impl Scope {
    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.namespace.name
    }
}

/// A folder of `deploy/kustomize`.
#[must_use]
pub fn kustomization(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/kustomize")
        .join(name)
}

impl Installation<'static> {
    /// The installation on the control plane that the tests of one process share.
    ///
    /// # Panics
    ///
    /// When it cannot be made; every test would fail the same way.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Installation<'static>> = OnceCell::const_new();
        let make = async || {
            let installed = Installation::on(ControlPlane::shared().await).await;
            installed.unwrap_or_else(|error| panic!("installing leanserve: {error}"))
        };
        SHARED.get_or_init(make).await
    }
}

impl<'a> Installation<'a> {
    /// Installs leanserve with its own CRDs.
    ///
    /// # Errors
    ///
    /// When something is refused.
    ///
    /// # Panics
    ///
    /// When `deploy/` is not what it should be.
    pub async fn on(plane: &'a ControlPlane) -> Result<Self, Error> {
        let base = rendered(plane, "base").await?;
        // The binary runs beside the tests; a Pod that only pretends to run would confuse whoever looks.
        let (operator, base): (Vec<_>, Vec<_>) = base.into_iter().partition(|object| object["kind"] == "Deployment");
        assert_eq!(
            operator.len(),
            1,
            "deploy/kustomize/base has one Deployment, the operator"
        );
        apply(plane, &base).await?;
        let definitions: Vec<String> = base
            .iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .map(|object| format!("crd/{}", object["metadata"]["name"].as_str().unwrap_or_default()))
            .collect();
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(definitions.iter().map(String::as_str));
        // It fails at once where the API server has not written any condition yet.
        try_eventually("the definitions are established", ESTABLISHED, async || {
            let waited = plane.kubectl_stdout(&wait).await;
            waited.map_err(|error| error.to_string())
        })
        .await?;
        apply(plane, &rendered(plane, "runtimes").await?).await?;
        let own_rights = base
            .into_iter()
            .filter(|object| {
                let kind = object["kind"].as_str().unwrap_or_default();
                matches!(kind, "Role" | "RoleBinding") && object["metadata"]["namespace"] == NAMESPACE
            })
            .collect();
        let directory = tempfile::tempdir().map_err(|source| Error::Io {
            what: "making a directory".into(),
            source,
        })?;
        let installation = Self {
            plane,
            directory,
            own_rights,
        };
        plane
            .write_service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT, &installation.kubeconfig())
            .await?;
        Ok(installation)
    }

    /// Kubeconfig of the operator's `ServiceAccount`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("operator.kubeconfig")
    }

    /// A namespace for one test. The operator has in it the rights that `deploy/` gives it in its own namespace, so each
    /// test can have settings of its own.
    ///
    /// # Errors
    ///
    /// When something is refused.
    pub async fn scope(&self, prefix: &str) -> Result<Scope, Error> {
        let namespace = self.plane.namespace(prefix).await?;
        let mut rights = self.own_rights.clone();
        for object in &mut rights {
            object["metadata"]["namespace"] = json!(namespace.name);
        }
        apply(self.plane, &rights).await?;
        Ok(Scope { namespace })
    }
}

async fn rendered(plane: &ControlPlane, name: &str) -> Result<Vec<Value>, Error> {
    let folder = kustomization(name);
    let text = plane.kubectl_stdout(&["kustomize", &folder.to_string_lossy()]).await?;
    Ok(serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display())))
}

async fn apply(plane: &ControlPlane, objects: &[Value]) -> Result<(), Error> {
    plane
        .apply_yaml(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
        .await
}
