//! The demo's policies: one that refuses a service, and one whose audit finds services that were there before.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::{ControlPlane, eventually::NotYet, try_eventually};

use super::cluster::NAMESPACE;
use crate::{Failure, Installation, Running, installation, report, services};

const POLICY: &str = "InferencePolicy";
/// Refuses.
pub(super) const DENIED: &str = "max-replicas";
/// Says nothing to anybody but the audit.
pub(super) const AUDITED: &str = "required-labels";
const FIELD_MANAGER: &str = "demo";
const AUDIT_ACCOUNT: &str = "leanserve-audit";

/// Policies and services on the demo's control plane.
pub(super) struct Policies {
    policies: Api<DynamicObject>,
    services: Api<DynamicObject>,
}

impl Policies {
    /// Gives the operator and the audit the rights that policies take.
    pub(super) async fn install(plane: &ControlPlane) -> Result<(), testkit::Error> {
        for file in ["policies/rbac.yaml", "audit/access.yaml", "audit/guard.yaml"] {
            let path = installation::kustomization("components").join(file);
            plane.apply_file(&path).await?;
        }
        Ok(())
    }

    pub(super) fn new(client: Client) -> Self {
        let kind = GroupVersionKind::gvk("leanserve.dev", "v1alpha1", POLICY);
        Self {
            policies: Api::all_with(client.clone(), &ApiResource::from_gvk(&kind)),
            services: services::api(client, NAMESPACE),
        }
    }

    /// Applies two of the ready-made templates and a policy of each, and waits until both are in force.
    pub(super) async fn apply(&self, plane: &ControlPlane, deadline: Duration) -> Result<(), Failure> {
        for template in [DENIED, AUDITED] {
            let file = report::workspace().join(format!("deploy/policies/{template}.yaml"));
            plane.apply_file(&file).await?;
        }
        self.policy(DENIED, &json!({"max": 4}), "deny").await?;
        self.policy(AUDITED, &json!({"labels": ["team"]}), "dryrun").await?;
        let in_force = try_eventually("the policies are in force", deadline, async || {
            for name in [DENIED, AUDITED] {
                let policy = self.policies.get(name).await.map_err(|error| error.to_string())?;
                let conditions = policy.data["status"]["conditions"].as_array();
                let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
                if !conditions.is_some_and(|conditions| conditions.iter().any(is_ready)) {
                    return Err(format!("{name}: {:?}", policy.data["status"]));
                }
            }
            Ok(())
        });
        Ok(in_force.await?)
    }

    async fn policy(&self, template: &str, parameters: &Value, action: &str) -> kube::Result<()> {
        let policy = json!({
            "apiVersion": "leanserve.dev/v1alpha1",
            "kind": POLICY,
            "metadata": {"name": template},
            "spec": {
                "templateRef": {"name": template},
                "parameters": parameters,
                "enforcementAction": action,
                "audit": true,
            },
        });
        let apply = PatchParams::apply(FIELD_MANAGER);
        self.policies.patch(template, &apply, &Patch::Apply(&policy)).await?;
        Ok(())
    }

    /// What the API server says to a service with more replicas than the policy allows.
    pub(super) async fn refusal(&self) -> Result<String, Failure> {
        let mut service = services::sklearn("greedy", NAMESPACE, None);
        service["spec"]["predictor"]["maxReplicas"] = json!(100);
        let apply = PatchParams::apply(FIELD_MANAGER);
        match self.services.patch("greedy", &apply, &Patch::Apply(&service)).await {
            Err(kube::Error::Api(status)) => Ok(status.message),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Failure::Unmet("a service that breaks a policy was stored".to_owned())),
        }
    }

    /// Starts the audit with its own account.
    pub(super) async fn audit(plane: &ControlPlane, installation: &Installation<'_>) -> Result<Running, Failure> {
        let kubeconfig = installation.kubeconfig().with_file_name("audit.kubeconfig");
        plane
            .write_service_account_kubeconfig(installation::NAMESPACE, AUDIT_ACCOUNT, &kubeconfig)
            .await?;
        Ok(Running::spawn_role("audit", &kubeconfig, &[])?)
    }

    /// Waits for the audit's result: how many services break the policy, and which.
    pub(super) async fn finding(&self, services: usize, deadline: Duration) -> Result<String, NotYet> {
        try_eventually("the audit has a result", deadline, async || {
            let policy = self.policies.get(AUDITED).await.map_err(|error| error.to_string())?;
            let audit = &policy.data["status"]["audit"];
            if audit["complete"] != true || audit["violations"] != json!(services) {
                return Err(audit.to_string());
            }
            let samples = audit["samples"].as_array().into_iter().flatten();
            let names: Vec<&str> = samples.filter_map(|sample| sample["name"].as_str()).collect();
            Ok(format!(
                "{}: {services} services, {}",
                policy.name_any(),
                names.join(", ")
            ))
        })
        .await
    }
}
