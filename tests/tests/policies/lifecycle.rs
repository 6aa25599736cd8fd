//! What becomes of a policy and its template is in their conditions.

use std::collections::BTreeMap;

use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use leanserve_tests::{policies, services};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, World, control_plane, says, searched};

#[tokio::test(flavor = "multi_thread")]
async fn conditions_say_what_is_missing_and_what_was_in_force_before_stays() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let _running = world.operator().await;
    world.apply(&policies::policy("few", "replicas", 3)).await;
    let message = world.policy_says("few", "TemplateFound", ("False", "Missing")).await;
    assert!(message.contains("InferencePolicyTemplate replicas"), "{message}");
    world.policy_says("few", "Ready", ("False", "TemplateMissing")).await;

    world.apply(&policies::template("replicas")).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
    assert!(world.answer(4).await.is_err());
    assert_eq!(world.answer(3).await, Ok(()));
    let templates = &world.policies.templates;
    says(templates, "replicas", "Compiled", ("True", "Accepted")).await;
    says(templates, "replicas", "TypeChecked", ("True", "NoWarnings")).await;
    eventually("the template counts its policy", DEADLINE, async || {
        let template = templates.get("replicas").await.map_err(|error| error.to_string())?;
        match &template.data["status"]["policies"] {
            count if *count == 1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;

    // Parameters that do not fit: what was in force stays so.
    let mut wrong = policies::policy("few", "replicas", 3);
    wrong["spec"]["parameters"] = json!({"maxReplicas": "many", "other": 1});
    world.apply(&wrong).await;
    let message = world.policy_says("few", "ParametersValid", ("False", "Invalid")).await;
    assert!(
        message.contains("spec.parameters.maxReplicas") && message.contains("spec.parameters.other"),
        "all problems at once: {message}"
    );
    world.policy_says("few", "Ready", ("False", "ParametersInvalid")).await;
    assert!(world.answer(4).await.is_err());
    let mut right = policies::policy("few", "replicas", 6);
    right["spec"]["enforcementAction"] = json!("deny");
    world.apply(&right).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
    assert_eq!(world.answer(6).await, Ok(()));
    assert!(world.answer(7).await.is_err());

    // Rules that the API server refuses: its words, and what was in force stays so.
    let mut broken = policies::template("replicas");
    broken["spec"]["validations"][0]["expression"] = json!("object.spec.predictor.maxReplicas <= )");
    world.apply(&broken).await;
    let message = says(templates, "replicas", "Compiled", ("False", "Refused")).await;
    assert!(message.contains("Syntax error"), "{message}");
    let message = world.policy_says("few", "Ready", ("False", "Refused")).await;
    assert!(message.contains("Syntax error"), "{message}");
    assert!(world.answer(7).await.is_err(), "the last good one is in force");

    // Rules that compile and are wrong about types.
    let mut odd = policies::template("replicas");
    odd["spec"]["validations"][0]["expression"] = json!("!has(object.spec.predictor.maxReplica)");
    world.apply(&odd).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
    let message = says(templates, "replicas", "TypeChecked", ("False", "Warnings")).await;
    assert!(message.contains("maxReplica"), "{message}");

    // Without its template a policy is nothing.
    world.apply(&policies::template("replicas")).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
    templates
        .delete("replicas", &DeleteParams::default())
        .await
        .expect("deleted");
    world.policy_says("few", "TemplateFound", ("False", "Missing")).await;
    world.nothing_is_left().await;
    world.apply(&policies::template("replicas")).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
    assert!(world.answer(7).await.is_err());

    world
        .policies
        .policies
        .delete("few", &DeleteParams::default())
        .await
        .expect("deleted");
    world.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_policies_share_and_a_restart_writes_nothing() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.policies.create_many("replicas", 12, 3).await.expect("created");
    world.policies.all_in_force(12, DEADLINE).await.expect("in force");
    let all = ListParams::default().labels("app.kubernetes.io/managed-by=leanserve");
    let admission = world.policies.admission.list(&all).await.expect("listed");
    assert_eq!(admission.items.len(), 3, "one for each set of parameters");
    let enforcing = ListParams::default().labels("leanserve.dev/binding=enforce");
    let bindings = world.policies.bindings.list(&enforcing).await.expect("listed");
    assert_eq!(bindings.items.len(), 12, "one for each policy");
    for action in ["warn", "dryrun"] {
        let change = json!({"spec": {"enforcementAction": action}});
        let policies = &world.policies.policies;
        policies
            .patch("p0000", &PatchParams::default(), &Patch::Merge(&change))
            .await
            .expect("patched");
        world.policy_says("p0000", "Ready", ("True", "InForce")).await;
        let binding = world
            .policies
            .bindings
            .get("leanserve-policy-p0000")
            .await
            .expect("there");
        let expected = if action == "warn" { "Warn" } else { "Audit" };
        assert_eq!(binding.data["spec"]["validationActions"], json!([expected]));
    }
    eventually("the template is told of all", DEADLINE, async || {
        let template = world.policies.templates.get("replicas").await;
        let template = template.map_err(|error| error.to_string())?;
        let count = &template.data["status"]["policies"];
        if *count == 12 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    says(
        &world.policies.templates,
        "replicas",
        "TypeChecked",
        ("True", "NoWarnings"),
    )
    .await;
    drop(running);

    let Some(audit) = plane.audit() else {
        println!("not our own API server: its audit log is not looked at");
        return;
    };
    let mark = audit.mark().await.expect("a mark");
    let running = world.operator().await;
    searched(&running).await;
    // A policy that is made now gets its pass after all that the search has found to do.
    world.enforce("last", 1).await;
    let written: Vec<String> = audit
        .since(&mark)
        .await
        .expect("the log")
        .by_service_account("leanserve-system", "leanserve")
        .writes()
        .without_leases_and_events()
        .iter()
        .filter(|entry| !entry.name.contains("leanserve-barrier") && !entry.name.ends_with("last"))
        .filter(|entry| entry.resource != "inferencepolicytemplates")
        .map(ToString::to_string)
        .collect();
    assert_eq!(written, Vec::<String>::new(), "all of it was as it should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_are_put_in_force_and_cleaned_up() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    let stem = "x".repeat(230);
    for end in ["c", "a", "b"] {
        let name = format!("{stem}.{end}");
        world.apply(&policies::policy(&name, "replicas", 2)).await;
    }
    // Cut names come after this one in the order of bindings, and before it in that of policies.
    let before = "a".repeat(80);
    let late = format!("{before}-1");
    for tail in ["x", "y", "z"] {
        let cut = format!("{before}-0{}", tail.repeat(20));
        world.apply(&policies::policy(&cut, "replicas", 2)).await;
    }
    world.apply(&policies::policy(&late, "replicas", 2)).await;
    world.policies.all_in_force(7, DEADLINE).await.expect("in force");
    let own = world.policies.owners_of_bindings().await.expect("listed");
    let binding = format!("leanserve-policy-{late}");
    let whole = world.policies.bindings.get(&binding).await.expect("there").uid();
    drop(running);
    let gone = format!("{stem}.a");
    let policies = &world.policies.policies;
    policies.delete(&gone, &DeleteParams::default()).await.expect("deleted");
    let _running = world.operator().await;
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    let enforcing = ListParams::default().labels("leanserve.dev/binding=enforce");
    let bindings = world.policies.bindings.list(&enforcing).await.expect("listed");
    let mut owners: Vec<String> = bindings
        .iter()
        .flat_map(|binding| binding.owner_references().to_vec())
        .map(|owner| owner.name)
        .collect();
    owners.retain(|owner| owner.starts_with(&stem));
    owners.sort();
    assert_eq!(owners, [format!("{stem}.b"), format!("{stem}.c")]);
    let left = world.policies.owners_of_bindings().await.expect("listed");
    let of_these = |owners: BTreeMap<String, String>| -> Vec<_> {
        let these = owners.into_iter().filter(|(binding, _)| binding.contains(&before));
        these.collect()
    };
    assert_eq!(
        of_these(left),
        of_these(own),
        "nobody's binding went with another one's"
    );
    let now = world.policies.bindings.get(&binding).await.expect("there").uid();
    assert_eq!(now, whole, "it was never away");
    let answers = services::api(world.client.clone(), "default");
    assert!(crate::answer(&answers, 3).await.is_err());
}
