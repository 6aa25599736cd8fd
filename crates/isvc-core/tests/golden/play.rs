//! Playing one case on plain data.

use golden::{
    Action, Case, Difference, Objects, Recording, Step,
    compare::{Comparison, Containers},
};
use serde_json::json;

use crate::world::World;

const COMPARISON: Comparison = Comparison {
    ignore_defaults: true,
    containers: Containers::Pods,
};

/// Plays all steps and returns every difference found.
pub(crate) fn play(recording: &Recording, case: &Case) -> Vec<Difference> {
    let config = recording.config(&case.config).expect("the configuration is readable");
    let mut world = World::new(&case.namespace);
    world.configure(config);
    for document in recording.cluster().expect("the cluster-wide objects are readable") {
        world.apply(document).expect("the cluster-wide objects are valid");
    }
    let mut differences = Vec::new();
    for (index, step) in case.steps.iter().enumerate() {
        if let Some(file) = &step.expect_rejected {
            let refusal = case.refusal(file).expect("every refusal is recorded");
            let path = file.trim_end_matches(".txt");
            differences.extend(expect_refusal(recording, case, &world, step, path, &refusal));
            continue;
        }
        let expected = step
            .expect
            .as_deref()
            .map(|name| (name, case.expectation(name).expect("the expectation is readable")));
        let recorded = expected.as_ref().map(|(_, objects)| objects);
        if let Err(error) = act(recording, case, &mut world, step, recorded) {
            differences.push(Difference {
                path: format!("step-{}", index + 1),
                recorded: Some(json!("it can be done")),
                found: Some(json!(error)),
            });
            break;
        }
        if let Some((name, recorded)) = &expected {
            let found = world.settle(Some(recorded));
            COMPARISON.between(name, recorded, &found, &mut differences);
        }
    }
    differences
}

/// Does what a step says; why the core cannot even read it, if so.
fn act(
    recording: &Recording,
    case: &Case,
    world: &mut World,
    step: &Step,
    recorded: Option<&Objects>,
) -> Result<(), String> {
    match &step.action {
        Some(Action::Apply(file)) => {
            world.tick();
            for document in case.input(file).expect("the input is readable") {
                world.apply(document)?;
            }
        }
        Some(Action::Patch(patch)) => world.patch(patch)?,
        Some(Action::Delete { kind, name }) => world.delete(kind, name),
        Some(Action::Config(file)) => {
            world.configure(recording.config(file).expect("the configuration is readable"));
        }
        Some(Action::Ready(deployments)) => {
            world.create_pods(recorded);
            for name in deployments {
                world.ready(name, recorded);
            }
        }
        Some(Action::PodStatus { deployment, status }) => {
            world.create_pods(recorded);
            world.pod_status(deployment, status);
        }
        Some(Action::RouteStatus(status)) => world.route_status(status),
        None => {}
    }
    // Children and Pods exist from here on, as far as the recording has them.
    world.settle(recorded);
    Ok(())
}

/// What the webhook refused must be refused here in words that hold the webhook's. What the API server refused by its
/// schema does not reach the core.
fn expect_refusal(
    recording: &Recording,
    case: &Case,
    world: &World,
    step: &Step,
    path: &str,
    refusal: &str,
) -> Option<Difference> {
    let (_, words) = refusal.split_once(" denied the request: ")?;
    let mut world = world.clone();
    let said = match act(recording, case, &mut world, step, None) {
        Ok(()) => world.messages(),
        Err(error) => vec![error],
    };
    let refused = said.iter().any(|message| message.contains(words));
    (!refused).then(|| Difference {
        path: path.to_owned(),
        recorded: Some(json!(words)),
        found: Some(json!(format!("PredictorReady: {}", said.join("; ")))),
    })
}
