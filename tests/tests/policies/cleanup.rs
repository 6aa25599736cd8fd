//! What belongs to nobody goes, whatever goes wrong meanwhile, and nothing else goes with it.

use std::{path::Path, time::Duration};

use leanserve_tests::policies::{self, struck::Struck};
use serde_json::json;
use testkit::eventually;
use tokio::time::Instant;

use crate::{DEADLINE, World, control_plane, searched, spawn};

const POLICIES: usize = 1000;
const HELD: &str = "leanserve-policy-held";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_policies_deleted_at_once_leave_nothing_behind() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.many_in_force("replicas", POLICIES).await;
    let began = Instant::now();
    world.policies.delete_all().await.expect("deleted");
    let deleted = Instant::now();
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    println!(
        "{POLICIES} policies deleted within {:?}; nothing left {:?} later",
        deleted.duration_since(began),
        deleted.elapsed()
    );
    eventually("the operator knows", DEADLINE, async || {
        match running.metric("leanserve_policy_orphans", &[]).await {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_faults_and_kills_nothing_is_left_and_nothing_is_deleted_wrongly() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let spawn = |kubeconfig: &Path| Ok(spawn(kubeconfig));
    let struck = Struck::new(&world.installation.kubeconfig(), &world.policies, spawn).await;
    let mut struck = struck.expect("an operator behind a proxy");
    world.apply(&policies::template("replicas")).await;
    world.apply(&policies::template("gone")).await;
    world.many_in_force("replicas", POLICIES).await;
    let cleaned_up = struck.clean_up(&plane, "replicas", POLICIES, DEADLINE).await;
    let cleaned_up = cleaned_up.expect("cleaned up");
    println!(
        "killed after {:?}; nothing left after {:?}, {} faults",
        cleaned_up.killed, cleaned_up.took, cleaned_up.faults
    );
    let again = cleaned_up.made_again;
    world
        .policies
        .all_in_force(again.len(), DEADLINE)
        .await
        .expect("those made again are in force");
    struck.faults.strike(false);
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    let bindings = world.policies.owners_of_bindings().await.expect("listed");
    for (name, uid) in &again {
        for prefix in ["leanserve-policy", "leanserve-audit"] {
            let binding = bindings.get(&format!("{prefix}-{name}"));
            assert_eq!(binding, Some(uid), "the binding of the policy that was made again");
        }
    }
    assert_eq!(bindings.len(), 2 * again.len(), "and no other");
    assert!(cleaned_up.faults > 100, "{}: too few to tell", cleaned_up.faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_garbage_collection_was_faster_with_leaves_nothing_behind() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.kept_and_gone(3).await;
    // The search at the start is over: what is found now is found because of what happens now.
    searched(&running).await;
    running.process.pause();
    let delete = kube::api::DeleteParams::default();
    for policy in ["p0000", "p0001", "p0002"] {
        world.policies.policies.delete(policy, &delete).await.expect("deleted");
    }
    eventually("their bindings are gone", DEADLINE, async || {
        match world.policies.bindings_of_policies().await.expect("listed") {
            2 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    running.process.resume();
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    assert!(world.answer(4).await.is_err(), "the other one is in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_goes_takes_what_was_made_of_it() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let _running = world.operator().await;
    world.kept_and_gone(60).await;
    plane
        .stop_component(testkit::assets::Component::KubeControllerManager)
        .await
        .expect("stopped");
    let delete = kube::api::DeleteParams::default();
    world.policies.templates.delete("gone", &delete).await.expect("deleted");
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    world.policy_says("p0000", "TemplateFound", ("False", "Missing")).await;
    eventually(
        "what is made of the other template stays",
        Duration::from_secs(60),
        async || {
            let bindings = world.policies.owners_of_bindings().await.expect("listed");
            let left: Vec<&String> = bindings.keys().collect();
            if left == ["leanserve-audit-kept", "leanserve-policy-kept"] {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    )
    .await;
    assert!(world.answer(4).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_holds_with_a_finalizer_is_not_deleted_again_and_again() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.apply(&policies::policy("held", "replicas", 3)).await;
    world.policies.all_in_force(1, DEADLINE).await.expect("in force");
    drop(running);
    let (bindings, merge) = (&world.policies.bindings, kube::api::PatchParams::default());
    let finalizers = |finalizers: &[&str]| kube::api::Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let held = bindings.patch(HELD, &merge, &finalizers(&["example.com/hold"])).await;
    held.expect("held");
    let delete = kube::api::DeleteParams::default();
    world.policies.policies.delete("held", &delete).await.expect("deleted");
    eventually("garbage collection has asked for its deletion", DEADLINE, async || {
        let binding = bindings.get(HELD).await.map_err(|error| error.to_string())?;
        binding
            .metadata
            .deletion_timestamp
            .map(drop)
            .ok_or("not yet".to_owned())
    })
    .await;

    let running = world.operator().await;
    searched(&running).await;
    let sweeps = async || {
        running
            .metric("leanserve_policy_sweeps_total", &["success"])
            .await
            .expect("metrics")
    };
    let orphans = async || running.metric("leanserve_policy_orphans", &[]).await.expect("metrics");
    assert!((orphans().await - 1.0).abs() < f64::EPSILON, "it is told");
    let before = sweeps().await;
    world.apply(&policies::policy("meanwhile", "replicas", 4)).await;
    world.policies.all_in_force(1, DEADLINE).await.expect("in force");
    let after = sweeps().await;
    assert!(after - before < 3.0, "{before} and then {after} searches");
    bindings.patch(HELD, &merge, &finalizers(&[])).await.expect("let go");
    eventually("nothing is left", DEADLINE, async || {
        let orphans = orphans().await;
        if orphans < 0.5 {
            Ok(())
        } else {
            Err(orphans.to_string())
        }
    })
    .await;
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
}
