//! What is done in a case, step by step.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// One step: at most one action, then waiting, then looking.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub action: Option<Action>,
    /// How long nothing is done after that.
    pub wait: Option<Duration>,
    /// Whether the next step does not wait until everything has settled.
    pub nowait: bool,
    /// Under which name the recording has what exists then.
    pub expect: Option<String>,
    /// In which file the recording has why the action was refused.
    pub expect_rejected: Option<String>,
}

/// Something that is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the objects of a file, or replace them; live finalizers stay.
    Apply(String),
    /// A JSON merge patch.
    Patch(Patch),
    /// Delete an object and wait until it is gone.
    Delete {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Take another file of `config/` for the platform's settings.
    Config(String),
    /// Give every Pod of these Deployments' newest `ReplicaSets` the status of a healthy Pod.
    Ready(Vec<String>),
    /// Merge this status into a Deployment's first Pod.
    PodStatus {
        /// The Deployment.
        deployment: String,
        /// A part of a Pod's status.
        status: Value,
    },
    /// Give `HTTPRoutes` the status of one parent.
    RouteStatus(RouteStatus),
}

/// A JSON merge patch of an object.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The object's kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The patch.
    pub body: Value,
    /// The subresource that is patched; none is the object itself.
    #[serde(default)]
    pub subresource: Option<String>,
}

/// What a Gateway says of routes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteStatus {
    /// Names of the routes.
    pub routes: Vec<String>,
    /// Whether it accepts them.
    #[serde(default = "yes")]
    pub accepted: bool,
    /// Reason of its condition.
    #[serde(default)]
    pub reason: Option<String>,
    /// Message of its condition.
    #[serde(default)]
    pub message: Option<String>,
}

fn yes() -> bool {
    true
}

/// A step as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WrittenStep {
    apply: Option<String>,
    patch: Option<Patch>,
    delete: Option<WrittenDelete>,
    config: Option<String>,
    ready: Option<Vec<String>>,
    pod_status: Option<WrittenPodStatus>,
    route_status: Option<RouteStatus>,
    wait: Option<f64>,
    #[serde(default)]
    nowait: bool,
    expect: Option<String>,
    expect_rejected: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDelete {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPodStatus {
    deployment: String,
    status: Value,
}

impl TryFrom<WrittenStep> for Step {
    type Error = String;

    fn try_from(step: WrittenStep) -> Result<Self, String> {
        let actions = [
            step.apply.map(Action::Apply),
            step.patch.map(Action::Patch),
            step.delete
                .map(|WrittenDelete { kind, name }| Action::Delete { kind, name }),
            step.config.map(Action::Config),
            step.ready.map(Action::Ready),
            step.pod_status
                .map(|WrittenPodStatus { deployment, status }| Action::PodStatus { deployment, status }),
            step.route_status.map(Action::RouteStatus),
        ];
        let mut actions: Vec<Action> = actions.into_iter().flatten().collect();
        let action = actions.pop();
        if !actions.is_empty() {
            return Err("a step has more than one action".to_owned());
        }
        let requests = matches!(action, Some(Action::Apply(_) | Action::Patch(_)));
        if step.expect_rejected.is_some() && !requests {
            return Err("only apply and patch can be refused".to_owned());
        }
        let wait = step.wait.map(Duration::try_from_secs_f64).transpose();
        Ok(Self {
            action,
            wait: wait.map_err(|error| format!("wait: {error}"))?,
            nowait: step.nowait,
            expect: step.expect,
            expect_rejected: step.expect_rejected,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Action, Duration, Step, WrittenStep};

    fn step(value: serde_json::Value) -> Result<Step, String> {
        let written: WrittenStep = serde_json::from_value(value).map_err(|error| error.to_string())?;
        written.try_into()
    }

    #[test]
    fn a_step_is_one_action_and_what_is_looked_at_then() {
        let read = step(json!({"ready": ["m-predictor"], "wait": 1.5, "expect": "expect-2"})).expect("a step");
        assert_eq!(read.action, Some(Action::Ready(vec!["m-predictor".to_owned()])));
        assert_eq!(read.wait, Some(Duration::from_millis(1500)));
        assert_eq!(read.expect.as_deref(), Some("expect-2"));
        let routes = step(json!({"routeStatus": {"routes": ["m"]}})).expect("a step");
        let Some(Action::RouteStatus(status)) = routes.action else {
            panic!("{routes:?}")
        };
        assert!(status.accepted, "unless said otherwise");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (wrong, why) in [
            (json!({"explode": true}), "unknown field"),
            (json!({"apply": "a.yaml", "config": "b.yaml"}), "more than one action"),
            (json!({"ready": [], "expectRejected": "r.txt"}), "can be refused"),
            (json!({"wait": -1.0}), "wait"),
            (
                json!({"patch": {"kind": "Pod", "name": "m", "body": {}, "how": "merge"}}),
                "unknown field",
            ),
        ] {
            let error = step(wrong.clone()).expect_err("it is wrong");
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
