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

/// The user name of the installed operator in the audit log and for `--as`.
pub const USER: &str = "system:serviceaccount:leanserve-system:leanserve";

/// On a busy machine.
const ESTABLISHED: Duration = Duration::from_secs(120);

/// CRDs, rights, settings and runtimes of `deploy/` on a control plane.
#[derive(Debug)]
pub struct Installation<'a> {
    /// The control plane.
    pub plane: &'a ControlPlane,
    directory: TempDir,
    /// The operator's account, and whatever of `deploy/` gives it rights.
    identity: Vec<Value>,
}

/// A namespace of one test: an operator has its account and its own `ConfigMap` in it.
#[derive(Debug)]
pub struct Scope {
    /// The namespace; deleted when this is dropped.
    pub namespace: TestNamespace,
    kubeconfig: PathBuf,
}

impl Scope {
    /// The operator's user name in the audit log. No other test's operator has it.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{SERVICE_ACCOUNT}", self.name())
    }

    /// Kubeconfig of the operator's account.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

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
    /// Installs leanserve with its own CRDs and the runtimes of `deploy/`.
    ///
    /// # Errors
    ///
    /// When something is refused.
    ///
    /// # Panics
    ///
    /// When `deploy/` is not what it should be.
    pub async fn on(plane: &'a ControlPlane) -> Result<Self, Error> {
        let installation = Self::install(plane, rendered(plane, "base").await?).await?;
        apply(plane, &rendered(plane, "runtimes").await?).await?;
        Ok(installation)
    }

    /// Installs leanserve with these CRDs in place of its own, and without any runtime.
    ///
    /// # Errors
    ///
    /// When something is refused.
    ///
    /// # Panics
    ///
    /// When `deploy/` is not what it should be.
    pub async fn with_definitions(plane: &'a ControlPlane, definitions: Vec<Value>) -> Result<Self, Error> {
        let mut base = rendered(plane, "base").await?;
        base.retain(|object| object["kind"] != "CustomResourceDefinition");
        base.extend(definitions);
        Self::install(plane, base).await
    }

    async fn install(plane: &'a ControlPlane, base: Vec<Value>) -> Result<Self, Error> {
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
        let identity = base
            .into_iter()
            .filter(|object| match object["kind"].as_str().unwrap_or_default() {
                "ClusterRoleBinding" => true,
                "ServiceAccount" | "Role" | "RoleBinding" => object["metadata"]["namespace"] == NAMESPACE,
                _ => false,
            })
            .collect();
        let directory = tempfile::tempdir().map_err(|source| Error::Io {
            what: "making a directory".into(),
            source,
        })?;
        let installation = Self {
            plane,
            directory,
            identity,
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

    /// A namespace for one test, with an account that has the rights `deploy/` gives the operator, in this namespace what
    /// it has in its own. So each test has settings of its own, and an identity of its own in the audit log.
    ///
    /// # Errors
    ///
    /// When something is refused.
    pub async fn scope(&self, prefix: &str) -> Result<Scope, Error> {
        let namespace = self.plane.namespace(prefix).await?;
        let mut identity = self.identity.clone();
        for object in &mut identity {
            if object["metadata"]["namespace"].is_string() {
                object["metadata"]["namespace"] = json!(namespace.name);
            } else {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                object["metadata"]["name"] = json!(format!("{name}-{}", namespace.name));
            }
            let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
            for subject in subjects.into_iter().flatten() {
                subject["namespace"] = json!(namespace.name);
            }
        }
        apply(self.plane, &identity).await?;
        let kubeconfig = self.directory.path().join(format!("{}.kubeconfig", namespace.name));
        self.plane
            .write_service_account_kubeconfig(&namespace.name, SERVICE_ACCOUNT, &kubeconfig)
            .await?;
        Ok(Scope { namespace, kubeconfig })
    }
}

impl Installation<'_> {
    /// Gives the account of a scope the rights on credentials that an overlay of `deploy/kustomize/overlays` has, in all
    /// namespaces as the overlay does.
    ///
    /// # Errors
    ///
    /// When something is refused.
    ///
    /// # Panics
    ///
    /// When the overlay has no such rights.
    pub async fn grant_overlay(&self, scope: &Scope, overlay: &str) -> Result<(), Error> {
        let objects = rendered(self.plane, &format!("overlays/{overlay}")).await?;
        let mut role = objects
            .into_iter()
            .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "leanserve-credentials")
            .unwrap_or_else(|| panic!("overlays/{overlay} has no ClusterRole leanserve-credentials"));
        let name = format!("leanserve-credentials-{overlay}-{}", scope.name());
        role["metadata"]["name"] = json!(name);
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": scope.name()}],
        });
        apply(self.plane, &[role, binding]).await
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
