//! Two of the ready-made templates at work: one whose policy refuses a service, and one whose audit finds services that were
//! there before.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::{ControlPlane, eventually::NotYet, try_eventually};

use super::{Policies, is_in_force};
use crate::{Failure, report, services};

/// Refuses.
pub const DENIED: &str = "max-replicas";
/// Says nothing to anybody but the audit.
pub const AUDITED: &str = "required-labels";
const FIELD_MANAGER: &str = "leanserve-tests";

/// Policies of both, and the services of one namespace.
pub struct ReadyMade {
    policies: Api<DynamicObject>,
    services: Api<DynamicObject>,
    namespace: String,
}

impl ReadyMade {
    /// For services of this namespace.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            policies: Policies::new(client).policies,
            services: services::api(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Applies both templates and a policy of each, and waits until these are in force.
    ///
    /// # Errors
    ///
    /// When they are refused, or not in force in time.
    pub async fn apply(&self, plane: &ControlPlane, deadline: Duration) -> Result<(), Failure> {
        for template in [DENIED, AUDITED] {
            let file = report::workspace().join(format!("deploy/policies/{template}.yaml"));
            plane.apply_file(&file).await?;
        }
        self.policy(DENIED, &json!({"max": 4}), "deny").await?;
        self.policy(AUDITED, &json!({"labels": ["team"]}), "dryrun").await?;
        let in_force = try_eventually("the policies are in force", deadline, async || {
            for name in [DENIED, AUDITED] {
                let policy = self.policies.get(name).await.map_err(|error| error.to_string())?;
                if !is_in_force(&policy) {
                    return Err(format!("{name}: {}", policy.data["status"]));
                }
            }
            Ok(())
        });
        Ok(in_force.await?)
    }

    async fn policy(&self, template: &str, parameters: &Value, action: &str) -> kube::Result<()> {
        let policy = json!({
            "apiVersion": "leanserve.dev/v1alpha1",
            "kind": "InferencePolicy",
            "metadata": {"name": template},
            "spec": {
                "templateRef": {"name": template},
                "parameters": parameters,
                "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}},
                "enforcementAction": action,
                "audit": true,
            },
        });
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        self.policies.patch(template, &apply, &Patch::Apply(&policy)).await?;
        Ok(())
    }

    /// What the API server says to a service with more replicas than the policy allows.
    ///
    /// # Errors
    ///
    /// When it is not refused.
    pub async fn refusal(&self) -> Result<String, Failure> {
        let mut service = services::sklearn("greedy", &self.namespace, None);
        service["spec"]["predictor"]["maxReplicas"] = json!(100);
        let apply = PatchParams::apply(FIELD_MANAGER);
        match self.services.patch("greedy", &apply, &Patch::Apply(&service)).await {
            Err(kube::Error::Api(status)) => Ok(status.message),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Failure::Unmet("a service that breaks a policy was stored".to_owned())),
        }
    }

    /// Waits for the audit's result: how many services break the policy, and which.
    ///
    /// # Errors
    ///
    /// When there is none in time, or another.
    pub async fn finding(&self, services: usize, deadline: Duration) -> Result<String, NotYet> {
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

    /// Removes policies and templates.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn remove(&self, plane: &ControlPlane) -> Result<(), Failure> {
        for name in [DENIED, AUDITED] {
            for kind in ["inferencepolicy", "inferencepolicytemplate"] {
                plane
                    .kubectl_stdout(&["delete", kind, name, "--ignore-not-found"])
                    .await?;
            }
        }
        Ok(())
    }
}
