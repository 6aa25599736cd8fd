//! What others change or delete is put back, and a fight is told and backed off from.

use isvc_core::policy::names;
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    rbac::v1::{PolicyRule, Role},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use leanserve_tests::{installation::NAMESPACE, policies};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::time::Instant;

use crate::{DEADLINE, World, control_plane};

const BINDING: &str = "leanserve-policy-few";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_or_deleted_by_hand_is_put_back() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    for policy in ["few", "shared"] {
        world.enforce(policy, 3).await;
    }
    let (bindings, admission) = (&world.policies.bindings, &world.policies.admission);
    let meant = bindings.get(BINDING).await.expect("there");
    let shared = meant.data["spec"]["policyName"].as_str().expect("a name").to_owned();

    let edits = [
        json!({"spec": {"validationActions": ["Audit"]}}),
        json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"nowhere": "at-all"}}}}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}, "ownerReferences": null}}),
    ];
    for edit in edits {
        let changed = bindings
            .patch(BINDING, &PatchParams::default(), &Patch::Merge(&edit))
            .await;
        changed.expect("changed");
        let began = Instant::now();
        eventually(&format!("{edit} is undone"), DEADLINE, async || {
            let live = bindings.get(BINDING).await.map_err(|error| error.to_string())?;
            let same = live.data["spec"] == meant.data["spec"]
                && live.metadata.labels == meant.metadata.labels
                && live.metadata.owner_references == meant.metadata.owner_references;
            if same { Ok(()) } else { Err(format!("{:?}", live.data)) }
        })
        .await;
        println!("an edited binding was back after {:?}", began.elapsed());
    }
    bindings
        .delete(BINDING, &DeleteParams::default())
        .await
        .expect("deleted");
    let began = Instant::now();
    eventually("the binding is back", DEADLINE, async || {
        bindings.get(BINDING).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    println!("a deleted binding was back after {:?}", began.elapsed());
    let repairs = running
        .metric("leanserve_policy_repairs_total", &[])
        .await
        .expect("metrics");
    assert!(repairs >= 4.0, "{repairs}");

    let hollow = json!({"spec": {"validations": [{"expression": "true"}]}});
    let spec = admission.get(&shared).await.expect("there").data["spec"].clone();
    let hollowed = admission
        .patch(&shared, &PatchParams::default(), &Patch::Merge(&hollow))
        .await;
    assert_ne!(hollowed.expect("changed").data["spec"], spec);
    eventually("the admission policy is as it was", DEADLINE, async || {
        let live = admission.get(&shared).await.map_err(|error| error.to_string())?;
        if live.data["spec"] == spec {
            Ok(())
        } else {
            Err(live.data["spec"].to_string())
        }
    })
    .await;
    admission
        .delete(&shared, &DeleteParams::default())
        .await
        .expect("deleted");
    eventually("the admission policy is back", DEADLINE, async || {
        admission
            .get(&shared)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
    // By its labels it is found.
    let unlabelled = json!({"metadata": {"labels": {names::LABEL_POLICY_HASH: null}}});
    let changed = admission
        .patch(&shared, &PatchParams::default(), &Patch::Merge(&unlabelled))
        .await;
    assert!(
        !changed
            .expect("changed")
            .labels()
            .contains_key(names::LABEL_POLICY_HASH)
    );
    eventually("the label is back", DEADLINE, async || {
        let live = admission.get(&shared).await.map_err(|error| error.to_string())?;
        let hash = live
            .labels()
            .get(names::LABEL_POLICY_HASH)
            .filter(|hash| shared.ends_with(*hash));
        hash.map(drop).ok_or(format!("{:?}", live.labels()))
    })
    .await;
    world.policy_says("shared", "Ready", ("True", "InForce")).await;
    eventually("it is enforced", DEADLINE, async || {
        let answer = world.answer(4).await;
        answer.err().map(drop).ok_or("admitted")
    })
    .await;
}

/// Nothing can be seen in force in between, so what is put back first waits for that all the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_again_at_once_is_put_back_at_once() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.enforce("few", 3).await;
    let failed = async || {
        let failed = running.metric("leanserve_policy_passes_total", &["error"]).await;
        failed.expect("metrics")
    };
    let failed_before = failed().await;
    let roles = Api::<Role>::namespaced(world.client.clone(), NAMESPACE);
    let role = roles.get("leanserve-policies").await.expect("there");
    let set_rules = async |rules: &Option<Vec<PolicyRule>>| {
        let patch = Patch::Merge(json!({"rules": rules}));
        let changed = roles.patch("leanserve-policies", &PatchParams::default(), &patch).await;
        changed.expect("changed");
    };
    set_rules(&Some(Vec::new())).await;
    eventually("the Lease is not to be made any more", DEADLINE, async || {
        let review = serde_json::from_value(json!({"spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:leanserve"),
            "resourceAttributes": {
                "group": "coordination.k8s.io", "resource": "leases", "verb": "patch",
                "namespace": NAMESPACE, "name": "leanserve-barrier",
            },
        }}));
        let review: SubjectAccessReview = review.expect("a review");
        let reviews = Api::<SubjectAccessReview>::all(world.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        match answer.map_err(|error| error.to_string())?.status {
            Some(status) if !status.allowed => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let bindings = &world.policies.bindings;
    let meant = bindings.get(BINDING).await.expect("there");
    let weaker = json!({"spec": {"validationActions": ["Audit"]}});
    let elsewhere = json!({"spec": {"policyName": "nothing"}});
    for edit in [Some(weaker), None, Some(elsewhere)] {
        if let Some(edit) = edit {
            let changed = bindings
                .patch(BINDING, &PatchParams::default(), &Patch::Merge(&edit))
                .await;
            changed.expect("changed");
        } else {
            let gone = bindings.delete(BINDING, &DeleteParams::default()).await;
            gone.map(drop).expect("deleted");
        }
        eventually("the binding is back", DEADLINE, async || {
            let live = bindings.get(BINDING).await.map_err(|error| error.to_string())?;
            if live.data["spec"] == meant.data["spec"] {
                Ok(())
            } else {
                Err(live.data["spec"].to_string())
            }
        })
        .await;
    }
    let failed = failed().await - failed_before;
    assert!(failed < 1.0, "{failed} passes have waited to their end before");
    world.policy_says("few", "Ready", ("False", "Settling")).await;
    set_rules(&role.rules).await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_while_a_policy_is_switched_to_it_is_put_back() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let _running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.enforce("few", 3).await;
    let (bindings, admission) = (&world.policies.bindings, &world.policies.admission);
    let first = bindings.get(BINDING).await.expect("there").data["spec"]["policyName"].clone();
    let hollow = json!({"spec": {"validations": [{"expression": "true"}]}});
    // While a policy is being switched to another one its status is still about what was before.
    world.apply(&policies::policy("few", "replicas", 5)).await;
    let switched = eventually("the binding is switched", DEADLINE, async || {
        let live = bindings.get(BINDING).await.map_err(|error| error.to_string())?;
        let now = live.data["spec"]["policyName"].as_str().unwrap_or_default();
        if first == now {
            Err("not yet".to_owned())
        } else {
            Ok(now.to_owned())
        }
    })
    .await;
    let hollowed = admission
        .patch(&switched, &PatchParams::default(), &Patch::Merge(&hollow))
        .await;
    hollowed.expect("changed");
    eventually("the new one is as it was", DEADLINE, async || {
        let live = admission.get(&switched).await.map_err(|error| error.to_string())?;
        if live.data["spec"]["validations"] == hollow["spec"]["validations"] {
            Err("hollow")
        } else {
            Ok(())
        }
        .map_err(str::to_owned)
    })
    .await;
    world.policy_says("few", "Ready", ("True", "InForce")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_or_deleted_while_nobody_looked_is_put_back() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    for (policy, most) in [("few", 3), ("audited", 4), ("hollow", 5), ("gone", 6)] {
        world.apply(&policies::policy(policy, "replicas", most)).await;
    }
    world.policies.all_in_force(4, DEADLINE).await.expect("in force");
    let (bindings, admission) = (&world.policies.bindings, &world.policies.admission);
    let used = async |policy: &str| {
        let binding = bindings
            .get(&format!("leanserve-policy-{policy}"))
            .await
            .expect("there");
        let used = binding.data["spec"]["policyName"].as_str();
        used.expect("a name").to_owned()
    };
    let (hollow, gone) = (used("hollow").await, used("gone").await);
    let specs = async || {
        let mut specs = Vec::new();
        for (api, names) in [
            (bindings, vec![BINDING, "leanserve-audit-audited"]),
            (admission, vec![hollow.as_str(), gone.as_str()]),
        ] {
            for name in names {
                let object = api.get(name).await.map_err(|error| error.to_string())?;
                specs.push(object.data["spec"].clone());
            }
        }
        Ok::<_, String>(specs)
    };
    let meant = specs().await.expect("all are there");
    drop(running);

    let merge = PatchParams::default();
    let weaken = Patch::Merge(json!({"spec": {"validationActions": ["Audit"]}}));
    bindings.patch(BINDING, &merge, &weaken).await.expect("changed");
    let delete = DeleteParams::default();
    let deleted = bindings.delete("leanserve-audit-audited", &delete).await;
    deleted.expect("deleted");
    let empty = Patch::Merge(json!({"spec": {"validations": [{"expression": "true"}]}}));
    admission.patch(&hollow, &merge, &empty).await.expect("changed");
    admission.delete(&gone, &delete).await.expect("deleted");

    let _running = world.operator().await;
    eventually("everything is as it was", DEADLINE, async || match specs().await {
        Ok(specs) if specs == meant => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.policies.all_in_force(4, DEADLINE).await.expect("in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fight_becomes_a_condition_and_is_backed_off_from() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.enforce("few", 3).await;
    let (bindings, admission) = (&world.policies.bindings, &world.policies.admission);
    let binding = bindings.get(BINDING).await.expect("there");
    let used = binding.data["spec"]["policyName"].as_str().expect("a name").to_owned();
    let weaken = json!({"spec": {"validationActions": ["Audit"]}});
    fight(&world, "few", (bindings, BINDING), &weaken).await;
    // What the policy says anew is nobody's repair.
    world.enforce("few", 5).await;
    assert!(world.answer(6).await.is_err());
    let repairs = async || {
        running
            .metric("leanserve_policy_repairs_total", &[])
            .await
            .expect("metrics")
    };
    let counted = repairs().await;
    assert!((counted - 5.0).abs() < f64::EPSILON, "{counted}");
    // An admission policy may have several users: it is any one of them that repairs.
    world.enforce("shared", 3).await;
    assert!(admission.get(&used).await.is_ok(), "it is used again");
    let empty = json!({"spec": {"validations": [{"expression": "true"}]}});
    fight(&world, "shared", (admission, &used), &empty).await;
    let counted = repairs().await;
    assert!((counted - 10.0).abs() < f64::EPSILON, "{counted}");
}

/// Does the same to an object of a policy again and again, until that is left as it is.
async fn fight(world: &World<'_>, policy: &str, (api, name): (&Api<DynamicObject>, &str), weaken: &Value) {
    let merge = PatchParams::default();
    let meant = api.get(name).await.expect("there").data["spec"].clone();
    let weakened = async || api.patch(name, &merge, &Patch::Merge(weaken)).await.expect("changed");
    for round in 1..=5 {
        assert_ne!(weakened().await.data["spec"], meant);
        eventually(&format!("round {round}: it is undone"), DEADLINE, async || {
            let live = api.get(name).await.map_err(|error| error.to_string())?;
            if live.data["spec"] == meant {
                Ok(())
            } else {
                Err("weak")
            }
            .map_err(str::to_owned)
        })
        .await;
    }
    let told = ("True", "RepairedTooOften");
    let message = world.policy_says(policy, "Contested", told).await;
    assert!(message.contains("somebody else"), "{message}");
    let weakened = weakened().await;
    // It is seen, said, and left for a while.
    world.policy_says(policy, "Ready", ("False", "Settling")).await;
    let live = api.get(name).await.expect("there");
    let generations = (live.metadata.generation, weakened.metadata.generation);
    assert_eq!(generations.0, generations.1, "nothing was put back");
}
