//! What the definitions of templates and policies refuse before anything is stored.

use kube::api::{DynamicObject, PostParams};
use leanserve_tests::policies::{policy, template};
use serde_json::{Value, json};

use crate::{World, control_plane};

/// An object with one field set, by its JSON pointer's parent and name.
fn with(mut object: Value, parent: &str, field: &str, value: Value) -> Value {
    object.pointer_mut(parent).expect("a field of the object")[field] = value;
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_put_in_force_is_refused_with_the_field_named() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let policies = &world.policies;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = async |object: Value| {
        let api = match object["kind"].as_str() {
            Some("InferencePolicy") => &policies.policies,
            _ => &policies.templates,
        };
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let answer = api.create(&dry_run, &object).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    };
    let selecting = |operator: &str, values: Value| {
        let mut requirement = json!({"key": "team", "operator": operator});
        if !values.is_null() {
            requirement["values"] = values;
        }
        let selector = json!({"objectSelector": {"matchExpressions": [requirement]}});
        with(policy("p", "t", 1), "/spec", "match", selector)
    };
    let values = "In and NotIn need values, Exists and DoesNotExist must have none";
    let named = |name: &str| json!([{"name": name, "expression": "1"}]);
    let cases = [
        (policy("p", "t", 1), Ok(())),
        (selecting("In", json!(["a"])), Ok(())),
        (selecting("Exists", Value::Null), Ok(())),
        (selecting("DoesNotExist", json!([])), Ok(())),
        (
            selecting("In", Value::Null),
            Err(("spec.match.objectSelector.matchExpressions", values)),
        ),
        (
            selecting("NotIn", json!([])),
            Err(("spec.match.objectSelector.matchExpressions", values)),
        ),
        (
            selecting("Exists", json!(["a"])),
            Err(("spec.match.objectSelector.matchExpressions", values)),
        ),
        (
            with(policy("p", "t", 1), "/spec", "enforcementAction", json!("refuse")),
            Err(("spec.enforcementAction", "Unsupported value")),
        ),
        (
            with(policy("p", "t", 1), "/spec/templateRef", "name", json!("")),
            Err(("spec.templateRef.name", "at least 1")),
        ),
        (template("t"), Ok(())),
        (
            with(template("t"), "/spec/parameters/0", "name", json!("in")),
            Err(("spec.parameters", "word of the expression language")),
        ),
        (
            with(template("t"), "/spec", "variables", named("params")),
            Err(("spec.variables", "must not be params")),
        ),
        (
            with(template("t"), "/spec", "validations", json!([{"expression": "true"}])),
            Err(("spec.validations", "message or a messageExpression")),
        ),
    ];
    for (object, expected) in cases {
        match (answer(object.clone()).await, expected) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err((field, text))) => {
                assert!(said.contains(field) && said.contains(text), "{object}: {said}");
            }
            (found, expected) => panic!("{object}: {found:?}, not {expected:?}"),
        }
    }
    plane.stop().await.expect("stopped");
}
