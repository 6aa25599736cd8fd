//! Playing one case.

use std::collections::BTreeSet;

use golden::{Action, Case, Difference, Step, compare::Comparison};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    cluster::{self, Cluster, Serving},
    kinds::kind,
    pods, refusal, snapshot,
    view::Namespace,
};

/// One case, and what came of it so far.
pub(super) struct Player<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    operator: &'a Serving,
    pub(super) case: &'a Case,
    comparison: Comparison,
    /// Kind and name of what the case itself has made.
    made: BTreeSet<(String, String)>,
    /// When the last request was made for it.
    acted: Instant,
    pub(super) differences: Vec<Difference>,
}

impl<'a> Player<'a> {
    pub(super) fn new(cluster: &'a Cluster<'a>, operator: &'a Serving, case: &'a Case, comparison: Comparison) -> Self {
        Self {
            cluster,
            operator,
            case,
            comparison,
            made: BTreeSet::new(),
            acted: Instant::now(),
            differences: Vec::new(),
        }
    }

    /// Plays all steps and gives every difference. A step that cannot be done is one, too.
    pub(super) async fn play(mut self) -> Vec<Difference> {
        let labels = json!(self.case.namespace_labels);
        if let Err(error) = self.cluster.namespace(&self.case.namespace, &labels).await {
            self.tell("namespace", json!("it can be made"), json!(error));
            return self.differences;
        }
        for (index, step) in self.case.steps.iter().enumerate() {
            if let Err(error) = self.step(step).await {
                self.tell(&format!("step-{}", index + 1), json!("it can be done"), json!(error));
                break;
            }
        }
        if let Err(error) = self.cluster.forget(&self.case.namespace).await {
            self.tell("namespace", json!("it can be deleted"), json!(error));
        }
        self.differences
    }

    pub(super) fn tell(&mut self, path: &str, recorded: Value, found: Value) {
        self.differences.push(Difference {
            path: path.to_owned(),
            recorded: Some(recorded),
            found: Some(found),
        });
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match (&step.action, &step.expect_rejected) {
            (Some(action), Some(file)) => refusal::expect(self, action, file).await?,
            (Some(action), None) => self.act(action).await?,
            (None, _) => {}
        }
        if let Some(wait) = step.wait {
            // The recording waited here for something that shows nowhere, such as the next second of creation times.
            sleep(wait).await;
        }
        if let Some(name) = &step.expect {
            let content = self.settle(Some(name)).await;
            let found = snapshot::of(&content, &self.made);
            let recorded = self.case.expectation(name).map_err(|error| error.to_string())?;
            self.comparison.between(name, &recorded, &found, &mut self.differences);
        } else if !step.nowait && step.expect_rejected.is_none() {
            self.settle(None).await;
        }
        Ok(())
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        let client = &self.cluster.client;
        let namespace = &self.case.namespace;
        match action {
            Action::Apply(file) => {
                for object in self.case.input(file).map_err(|error| error.to_string())? {
                    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
                    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
                    let put = cluster::put(client, namespace, object).await;
                    put.map_err(|error| format!("{kind} {name}: {error}"))?;
                    self.made.insert((kind, name));
                }
            }
            Action::Patch(patch) => {
                let api = kind(&patch.kind)?.api(client, namespace);
                let (parameters, body) = (PatchParams::default(), Patch::Merge(&patch.body));
                let patched = match &patch.subresource {
                    None => api.patch(&patch.name, &parameters, &body).await,
                    Some(part) => api.patch_subresource(part, &patch.name, &parameters, &body).await,
                };
                patched.map_err(|error| format!("{} {}: {error}", patch.kind, patch.name))?;
            }
            Action::Delete {
                kind: name,
                name: object,
            } => {
                cluster::remove(client, kind(name)?, namespace, object, &DeleteParams::background()).await?;
                self.made.remove(&(name.clone(), object.clone()));
            }
            Action::Config(file) => self.cluster.configure(file).await?,
            Action::Ready(deployments) => {
                let content = self.settle(None).await;
                for deployment in deployments {
                    pods::make_ready(client, &content, deployment).await?;
                }
            }
            Action::PodStatus { deployment, status } => {
                let content = self.settle(None).await;
                pods::set_status(client, &content, deployment, status).await?;
            }
            Action::RouteStatus(status) => {
                let content = self.settle(None).await;
                for route in &status.routes {
                    pods::set_route_status(client, &content, route, status).await?;
                }
            }
        }
        self.acted = Instant::now();
        Ok(())
    }

    /// Waits until nothing happens any more. That it does not settle is a difference of its own.
    pub(super) async fn settle(&mut self, expectation: Option<&str>) -> Namespace {
        let (view, namespace) = (&self.cluster.view, &self.case.namespace);
        match self.operator.idle.settled(view, namespace, self.acted).await {
            Ok(content) => content,
            Err(error) => {
                let path = format!("{}/settled", expectation.unwrap_or("between"));
                self.tell(&path, json!("it settles"), json!(error));
                self.cluster.view.namespace(&self.case.namespace)
            }
        }
    }

    pub(super) fn acted(&mut self) {
        self.acted = Instant::now();
    }
}
