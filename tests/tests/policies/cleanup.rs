//! What belongs to nobody goes, whatever goes wrong meanwhile, and nothing else goes with it.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    api::{DynamicObject, ListParams, PartialObjectMeta, PostParams},
};
use leanserve_tests::{
    Failure,
    policies::{
        self,
        faults::{Faults, Rates},
    },
};
use testkit::eventually;
use tokio::time::Instant;

use crate::{DEADLINE, World, control_plane, spawn};

const POLICIES: usize = 1000;

/// Of the bindings, that enforce and for audits.
const BINDINGS: usize = 2 * POLICIES;

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

/// Kills the operator when so many of a hundred bindings are gone, and starts another one.
async fn killed_at(
    world: &World<'_>,
    running: &mut leanserve_tests::Running,
    kubeconfig: &std::path::Path,
    percent: usize,
) {
    eventually(&format!("{percent} % are gone"), DEADLINE, async || {
        let left = world.orphaned_bindings().await;
        if left * 100 <= BINDINGS * (100 - percent) {
            Ok(())
        } else {
            Err(format!("{left} left"))
        }
    })
    .await;
    running.process.kill().expect("killed");
    *running = spawn(kubeconfig);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_faults_and_kills_nothing_is_left_and_nothing_is_deleted_wrongly() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let rates = Rates {
        conflict: 30,
        throttled: 30,
        error: 5,
        reset: 3,
    };
    let faults = Faults::before(&world.installation.kubeconfig(), rates)
        .await
        .expect("a proxy");
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("kubeconfig");
    faults.write_kubeconfig(&kubeconfig).expect("written");
    let mut running = spawn(&kubeconfig);
    running.ready().await;
    world.apply(&policies::template("replicas")).await;
    world.apply(&policies::template("gone")).await;
    world.many_in_force("replicas", POLICIES).await;
    // Garbage collection would do some of the work, and hide what this is about.
    plane
        .stop_component(testkit::assets::Component::KubeControllerManager)
        .await
        .expect("stopped");

    // All at once, as the operator sees it.
    running.process.pause();
    world.policies.delete_all().await.expect("deleted");
    faults.strike(true);
    let began = Instant::now();
    running.process.resume();
    // Every tenth is made again under its name, while the operator cleans up.
    let again: Vec<String> = (0..POLICIES)
        .step_by(10)
        .map(|number| format!("p{number:04}"))
        .collect();
    let recreate = async {
        let create = async |name: &String| {
            let object: DynamicObject =
                serde_json::from_value(policies::policy(name, "replicas", 7)).map_err(std::io::Error::other)?;
            let made = world.policies.policies.create(&PostParams::default(), &object).await?;
            Ok::<_, Failure>((name.clone(), made.uid().unwrap_or_default()))
        };
        stream::iter(again.iter().map(create))
            .buffer_unordered(4)
            .try_collect::<BTreeMap<_, _>>()
            .await
            .expect("created")
    };
    let kill = async {
        for percent in [10, 50, 90] {
            killed_at(&world, &mut running, &kubeconfig, percent).await;
            println!(
                "killed at {percent} % after {:?}, {} faults",
                began.elapsed(),
                faults.struck()
            );
        }
    };
    let (made, ()) = tokio::join!(recreate, kill);
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    println!("nothing left after {:?}, {} faults", began.elapsed(), faults.struck());
    world
        .policies
        .all_in_force(again.len(), DEADLINE)
        .await
        .expect("those made again are in force");
    faults.strike(false);
    world.policies.nothing_left_behind(DEADLINE).await.expect("cleaned up");
    let bindings = world.bindings().await;
    for (name, uid) in &made {
        for prefix in ["leanserve-policy", "leanserve-audit"] {
            let binding = bindings.get(&format!("{prefix}-{name}"));
            assert_eq!(binding, Some(uid), "the binding of the policy that was made again");
        }
    }
    assert_eq!(bindings.len(), 2 * again.len(), "and no other");
    assert!(faults.struck() > 100, "{}: too few to tell", faults.struck());
}

impl World<'_> {
    /// All bindings of policies, with the uid of their owner.
    async fn bindings(&self) -> BTreeMap<String, String> {
        let made = ListParams::default().labels("app.kubernetes.io/managed-by=leanserve");
        let bindings = self.policies.bindings.list_metadata(&made).await.expect("listed");
        let owner = |binding: &PartialObjectMeta<DynamicObject>| {
            let owner = binding.owner_references().first().map(|owner| owner.uid.clone());
            (binding.name_any(), owner.unwrap_or_default())
        };
        bindings.iter().map(owner).collect()
    }

    async fn orphaned_bindings(&self) -> usize {
        let bindings = self.bindings().await;
        let policies = self
            .policies
            .policies
            .list_metadata(&ListParams::default())
            .await
            .expect("listed");
        let alive: std::collections::BTreeSet<String> = policies.iter().filter_map(ResourceExt::uid).collect();
        bindings.values().filter(|owner| !alive.contains(*owner)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_goes_takes_what_was_made_of_it() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let _running = world.operator().await;
    for template in ["kept", "gone"] {
        world.apply(&policies::template(template)).await;
    }
    world.policies.create_many("gone", 60, 60).await.expect("created");
    world.apply(&policies::policy("kept", "kept", 3)).await;
    world.policies.all_in_force(61, DEADLINE).await.expect("in force");
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
            let bindings = world.bindings().await;
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
