//! A cluster to audit.

use kube::{
    Client,
    api::{DynamicObject, ListParams, PostParams},
};
use leanserve_tests::{Installation, Running, compiled, installation::kustomization, services};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options, eventually};

use crate::DEADLINE;

pub(super) const NAMESPACE: &str = "leanserve-system";
pub(super) const ACCOUNT: &str = "leanserve-audit";

/// A cluster of its own, because an audit is about a whole cluster.
pub(super) struct Cluster {
    pub(super) plane: ControlPlane,
    pub(super) client: Client,
    directory: tempfile::TempDir,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let plane = ControlPlane::start(Options::bare()).await.expect("a control plane");
        Installation::on(&plane).await.expect("an installation");
        for file in ["access.yaml", "guard.yaml"] {
            let path = kustomization("components/audit").join(file);
            plane.apply_file(&path).await.expect("the auditor's rights");
        }
        let client = plane.client().await.expect("a client");
        let directory = tempfile::tempdir().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        plane
            .write_service_account_kubeconfig(NAMESPACE, ACCOUNT, &kubeconfig)
            .await
            .expect("the auditor's kubeconfig");
        Self {
            plane,
            client,
            directory,
        }
    }

    /// The controller, as admin.
    pub(super) async fn controller(&self) -> Running {
        let arguments = ["--policies", "--namespace", NAMESPACE];
        let mut running =
            Running::spawn_role("run", self.plane.kubeconfig_path(), &arguments).expect("the controller starts");
        running.ready().await;
        running
    }

    pub(super) fn auditor(&self, arguments: &[&str]) -> Running {
        let kubeconfig = self.directory.path().join("kubeconfig");
        Running::spawn_role("audit", &kubeconfig, arguments).expect("the auditor starts")
    }

    /// Whether a run was complete.
    pub(super) async fn audit_once(&self, arguments: &[&str]) -> bool {
        let mut all = vec!["--once", "--qps", "1000"];
        all.extend(arguments);
        let mut running = self.auditor(&all);
        ended(&mut running).await
    }

    pub(super) async fn make_namespace(&self, name: &str) {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}});
        self.plane
            .apply_yaml(&services::list(&[object]))
            .await
            .expect("a namespace");
    }

    pub(super) async fn create(&self, namespace: &str, service: &Value) {
        let service: DynamicObject = serde_json::from_value(service.clone()).expect("an object");
        let created = services::api(self.client.clone(), namespace)
            .create(&PostParams::default(), &service)
            .await;
        created.expect("a service");
    }

    /// Waits until every policy says that it is in force.
    pub(super) async fn all_in_force(&self) {
        let policies = compiled::policies(&self.client);
        eventually("all policies are in force", DEADLINE, async || {
            let list = policies.list(&ListParams::default()).await;
            for policy in list.map_err(|error| error.to_string())? {
                let status = &policy.data["status"];
                let ready = status["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
                if !ready || status["observedGeneration"] != json!(policy.metadata.generation) {
                    return Err(format!("{:?}: {status}", policy.metadata.name));
                }
            }
            Ok(())
        })
        .await;
    }

    /// What a policy's status says of the last audit.
    pub(super) async fn audited(&self, policy: &str) -> Value {
        let policy = compiled::policies(&self.client).get(policy).await.expect("the policy");
        policy.data["status"]["audit"].clone()
    }
}

/// Waits for the auditor's end: whether its run was complete.
pub(super) async fn ended(running: &mut Running) -> bool {
    let status = eventually("the auditor has ended", DEADLINE, async || {
        running.process.exited().ok_or_else(|| running.process.log())
    })
    .await;
    match status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("{other:?}: {}", running.process.log()),
    }
}
