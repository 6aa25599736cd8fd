//! The rights that `deploy/` gives for policies are enough, whatever happens.

use std::collections::BTreeSet;

use kube::api::DeleteParams;
use leanserve_tests::{installation::USER, policies};

use crate::{DEADLINE, World, control_plane};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_the_controller_asks_for_is_refused() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let Some(audit) = plane.audit() else {
        println!("not our own API server: its audit log is not looked at");
        return;
    };
    let _running = world.operator().await;
    world.kept_and_gone(30).await;
    world.apply(&policies::policy("kept", "kept", 4)).await;
    world.policy_says("kept", "Ready", ("True", "InForce")).await;
    let delete = DeleteParams::default();
    world.policies.policies.delete("kept", &delete).await.expect("deleted");
    world.policies.templates.delete("gone", &delete).await.expect("deleted");
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    world.policy_says("p0000", "TemplateFound", ("False", "Missing")).await;

    let all = audit.all().await.expect("the log").by_user(USER);
    let concerned = [
        "leanserve.dev",
        "admissionregistration.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
    ];
    let used: BTreeSet<(String, String)> = all
        .iter()
        .filter(|entry| concerned.contains(&entry.group.as_str()))
        .map(|entry| (format!("{}/{}", entry.resource, entry.subresource), entry.verb.clone()))
        .collect();
    println!("asked for: {used:?}");
    let refused: Vec<String> = all
        .iter()
        .filter(|entry| entry.code == 403 && concerned.contains(&entry.group.as_str()))
        .map(ToString::to_string)
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}
