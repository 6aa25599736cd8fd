//! Policies on a real API server, put in force and audited by the operator's binary.

mod audit;
mod change;
mod cleanup;
mod definitions;
mod deleted;
mod drift;
mod lifecycle;
mod memory;
mod parameters;
mod rights;
mod templates;

use std::{path::Path, time::Duration};

use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, PostParams},
};
use leanserve_tests::{
    Installation, Running,
    installation::NAMESPACE,
    policies::{self, Policies, condition},
    services,
};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options, eventually};

/// The most anything may take here on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// A control plane of one test, because policies are of the whole cluster.
async fn control_plane() -> ControlPlane {
    ControlPlane::start(Options::bare()).await.expect("a control plane")
}

/// An installation with the rights that policies need.
struct World<'a> {
    installation: Installation<'a>,
    client: Client,
    policies: Policies,
}

impl<'a> World<'a> {
    async fn on(plane: &'a ControlPlane) -> Self {
        let installation = Installation::on(plane).await.expect("installed");
        let mut objects = policies::rights::objects();
        objects.push(policies::rights::one_api_server());
        plane.apply_yaml(&services::list(&objects)).await.expect("applied");
        let client = plane.client().await.expect("a client");
        Self {
            installation,
            policies: Policies::new(&client),
            client,
        }
    }

    async fn operator(&self) -> Running {
        let mut running = spawn(&self.installation.kubeconfig());
        running.ready().await;
        running
    }

    async fn apply(&self, object: &Value) {
        self.policies.apply(object).await.expect("applied");
    }

    /// Makes so many policies with twenty different parameters, of a template that is there, and waits until they are in force.
    async fn many_in_force(&self, template: &str, count: usize) {
        let policies = &self.policies;
        policies.create_many(template, count, 20).await.expect("created");
        policies.all_in_force(count, 4 * DEADLINE).await.expect("in force");
    }

    /// Makes two templates, `kept` with a policy of this name and `gone` with so many, each with parameters of its own, and
    /// waits until all are in force.
    async fn kept_and_gone(&self, gone: usize) {
        for template in ["kept", "gone"] {
            self.apply(&policies::template(template)).await;
        }
        self.policies.create_many("gone", gone, gone).await.expect("created");
        self.apply(&policies::policy("kept", "kept", 3)).await;
        self.policies.all_in_force(gone + 1, DEADLINE).await.expect("in force");
    }

    /// Names of everything that the operator has made.
    async fn made(&self) -> Vec<String> {
        let made = ListParams::default().labels("app.kubernetes.io/managed-by=leanserve");
        let mut names = Vec::new();
        for api in [&self.policies.bindings, &self.policies.admission] {
            names.extend(api.list(&made).await.expect("listed").iter().map(ResourceExt::name_any));
        }
        names
    }

    /// Waits until nothing is left of what the operator made.
    async fn nothing_is_left(&self) {
        eventually("nothing of it is left", DEADLINE, async || {
            let left = self.made().await;
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }

    /// Waits until a condition of a policy is as it should be, and returns its message.
    async fn policy_says(&self, name: &str, type_: &str, expected: (&str, &str)) -> String {
        says(&self.policies.policies, name, type_, expected).await
    }

    /// Makes or changes a policy of the template `replicas` and waits until it is in force.
    async fn enforce(&self, name: &str, max_replicas: u32) {
        self.apply(&policies::policy(name, "replicas", max_replicas)).await;
        self.policy_says(name, "Ready", ("True", "InForce")).await;
    }

    /// What the API server says to a service with so many replicas, of which nothing is kept.
    async fn answer(&self, max_replicas: u32) -> Result<(), String> {
        answer(&services::api(self.client.clone(), "default"), max_replicas).await
    }
}

/// Starts an operator that reaches the API server by a kubeconfig.
fn spawn(kubeconfig: &Path) -> Running {
    let arguments = [
        "--policies",
        "--namespace",
        NAMESPACE,
        "--log-level",
        "info,leanserve::policies=debug",
    ];
    Running::spawn_role("run", kubeconfig, &arguments).expect("an operator")
}

/// Waits until the operator has searched everything once.
async fn searched(running: &Running) {
    eventually("everything was searched", DEADLINE, async || {
        match running.metric("leanserve_policy_sweeps_total", &["success"]).await {
            Ok(sweeps) if sweeps >= 1.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn answer(services: &Api<DynamicObject>, max_replicas: u32) -> Result<(), String> {
    let mut service = services::sklearn("probe", "default", None);
    service["spec"]["predictor"]["minReplicas"] = json!(1);
    service["spec"]["predictor"]["maxReplicas"] = json!(max_replicas);
    let service = serde_json::from_value(service).expect("a service is an object");
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = services.create(&parameters, &service).await;
    answer.map(drop).map_err(|error| error.to_string())
}

async fn says(api: &Api<DynamicObject>, name: &str, type_: &str, (status, reason): (&str, &str)) -> String {
    eventually(
        &format!("{type_} of {name} is {status} ({reason})"),
        DEADLINE,
        async || {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            if object.data["status"]["observedGeneration"].as_i64() != object.metadata.generation {
                return Err("the status is about an older generation".to_owned());
            }
            match condition(&object, type_) {
                Some((found, why, message)) if found == status && why == reason => Ok(message),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
}
