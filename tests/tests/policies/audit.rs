//! `leanserve audit` finds exactly what the API server refuses, and stores nothing.

mod brute_force;
mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use isvc_core::policy::{self, names};
use k8s_openapi::api::rbac::v1::ClusterRole;
use std::time::Duration;

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use leanserve_tests::{Running, compiled, services};
use serde_json::json;
use testkit::{assets::Component, audit::Mark, eventually};

use self::{
    brute_force::{by_brute_force, policies, policy, services_of_the_test, templates},
    cluster::{ACCOUNT, Cluster, NAMESPACE, ended},
};
use crate::DEADLINE;

async fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for (namespace, service) in services_of_the_test() {
        let name = service["metadata"]["name"].as_str().expect("a name");
        let stored = services::api(cluster.client.clone(), &namespace)
            .get_metadata(name)
            .await;
        let version = stored.expect("a service").metadata.resource_version.expect("a version");
        versions.insert(format!("{namespace}/{name}"), version);
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_what_the_api_server_refuses_and_stores_nothing() {
    let cluster = Cluster::start().await;
    for namespace in ["audit-a", "audit-b", "audit-c"] {
        cluster.make_namespace(namespace).await;
    }
    for (namespace, service) in services_of_the_test() {
        cluster.create(&namespace, &service).await;
    }
    let expected = by_brute_force(&cluster).await;
    let worst = expected
        .values()
        .filter(|broken| broken.contains("audit-a/worst"))
        .count();
    assert!(worst > 35, "it breaks {worst}");

    for template in templates() {
        compiled::apply(&compiled::templates(&cluster.client), &template)
            .await
            .expect("a template");
    }
    for policy in policies() {
        compiled::apply(&compiled::policies(&cluster.client), &policy)
            .await
            .expect("a policy");
    }
    let _controller = cluster.controller().await;
    cluster.all_in_force().await;
    let before = versions(&cluster).await;
    let log = cluster.plane.audit().expect("its audit log");
    let mark = log.mark().await.expect("a mark");
    assert!(cluster.audit_once(&["--page-size", "7"]).await, "it is complete");

    for (policy, broken) in &expected {
        let audit = cluster.audited(policy).await;
        assert_eq!(audit["complete"], true, "{policy}: {audit}");
        assert_eq!(
            audit["violations"],
            json!(broken.len()),
            "{policy}: {audit:#} {broken:?}"
        );
        let samples = audit["samples"].as_array().cloned().unwrap_or_default();
        assert_eq!(samples.len(), broken.len().min(20), "{policy}");
        for sample in samples {
            let text = |field: &str| sample[field].as_str().expect("text").to_owned();
            assert!(
                broken.contains(&format!("{}/{}", text("namespace"), text("name"))),
                "{policy}: {sample}"
            );
            assert!(!text("message").is_empty(), "{policy}: {sample}");
        }
    }
    assert_eq!(versions(&cluster).await, before, "nothing is stored");
    let asked = log
        .since(&mark)
        .await
        .expect("its entries")
        .by_service_account(NAMESPACE, ACCOUNT);
    let writes: Vec<_> = asked.clone().writes().iter().cloned().collect();
    assert!(writes.len() > 31 + 39, "{}", writes.len());
    for write in &writes {
        let dry_run = write.resource == "inferenceservices" && write.uri.contains("dryRun=All");
        let result = write.resource == "inferencepolicies" && write.subresource == "status";
        assert!(dry_run || result, "{write}");
    }
    let used: BTreeSet<String> = asked
        .iter()
        .map(|entry| format!("{} {}/{}", entry.verb, entry.resource, entry.subresource))
        .collect();
    let needed = [
        "list inferencepolicies/",
        "list inferenceservices/",
        "patch inferencepolicies/status",
        "patch inferenceservices/",
    ];
    assert_eq!(used, needed.map(str::to_owned).into(), "what it needs rights for");
}

/// A cluster with thirty services that break three policies, and its controller.
async fn thirty_services() -> (Cluster, Running) {
    let cluster = Cluster::start().await;
    cluster.make_namespace("audit-a").await;
    for number in 0..30 {
        let mut service = services::sklearn(&format!("service-{number:02}"), "audit-a", None);
        service["spec"]["predictor"]["maxReplicas"] = json!(9);
        cluster.create("audit-a", &service).await;
    }
    let template = &templates()[0];
    compiled::apply(&compiled::templates(&cluster.client), template)
        .await
        .expect("a template");
    for name in ["changed", "deleted", "kept"] {
        let policy = policy(
            name,
            "replicas",
            &json!({"max": 3}),
            &json!({"enforcementAction": "dryrun"}),
        );
        compiled::apply(&compiled::policies(&cluster.client), &policy)
            .await
            .expect("a policy");
    }
    let controller = cluster.controller().await;
    cluster.all_in_force().await;
    (cluster, controller)
}

/// Waits until a run that was begun after the mark has asked about a service.
async fn on_its_way(cluster: &Cluster, mark: &Mark) {
    let log = cluster.plane.audit().expect("its audit log");
    eventually("the run is on its way", DEADLINE, async || {
        let entries = log.since(mark).await.map_err(|error| error.to_string())?;
        let asked = entries.by_service_account(NAMESPACE, ACCOUNT).with_verb("patch");
        if asked.on_resource("inferenceservices").is_empty() {
            return Err("nothing was asked".to_owned());
        }
        Ok(())
    })
    .await;
}

async fn mark(cluster: &Cluster) -> Mark {
    let log = cluster.plane.audit().expect("its audit log");
    log.mark().await.expect("a mark")
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_go_or_change_during_a_run_are_not_said_to_be_checked() {
    let (cluster, _controller) = thirty_services().await;
    let policies = compiled::policies(&cluster.client);
    let begin = mark(&cluster).await;
    let mut running = cluster.auditor(&["--once", "--qps", "3"]);
    on_its_way(&cluster, &begin).await;
    policies
        .delete("deleted", &DeleteParams::default())
        .await
        .expect("deleted");
    let change = json!({"spec": {"parameters": {"max": 20}}});
    let changed = policies
        .patch("changed", &PatchParams::default(), &Patch::Merge(&change))
        .await;
    changed.expect("changed");
    assert!(ended(&mut running).await, "{}", running.process.log());
    let kept = cluster.audited("kept").await;
    assert_eq!(
        (&kept["complete"], &kept["violations"]),
        (&json!(true), &json!(30)),
        "{kept}"
    );
    let changed = cluster.audited("changed").await;
    assert_eq!(changed["complete"], false, "{changed}");
    assert!(policies.get_opt("deleted").await.expect("an answer").is_none());

    // The next run is about it as it is now.
    cluster.all_in_force().await;
    assert!(cluster.audit_once(&[]).await);
    let changed = cluster.audited("changed").await;
    assert_eq!(
        (&changed["complete"], &changed["violations"]),
        (&json!(true), &json!(0)),
        "{changed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_does_not_claim_to_be_complete() {
    let (cluster, _controller) = thirty_services().await;
    assert!(cluster.audit_once(&[]).await);
    let before = cluster.audited("kept").await;
    assert_eq!(
        (&before["complete"], &before["violations"]),
        (&json!(true), &json!(30)),
        "{before}"
    );

    // The API server goes in the middle of a run, and comes back.
    let begin = mark(&cluster).await;
    let mut running = cluster.auditor(&["--once", "--qps", "3", "--request-timeout", "1s"]);
    on_its_way(&cluster, &begin).await;
    cluster
        .plane
        .pause_component(Component::KubeApiserver)
        .await
        .expect("paused");
    running.process.wait_for_log("not evaluated", DEADLINE).await;
    cluster
        .plane
        .resume_component(Component::KubeApiserver)
        .await
        .expect("resumed");
    assert!(!ended(&mut running).await, "{}", running.process.log());
    let log = running.process.log();
    assert!(log.contains("complete=false"), "{log}");
    let audit = eventually("the API server answers", DEADLINE, async || {
        let kept = compiled::policies(&cluster.client).get("kept").await;
        kept.map(|kept| kept.data["status"]["audit"].clone())
    })
    .await;
    // Its result may not have been written, and then is the one of before.
    assert!(audit["complete"] == false || audit == before, "{audit}");

    // Without the right to ask, nothing is evaluated.
    let resource = ApiResource::erase::<ClusterRole>(&());
    let roles: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let fewer = json!([
        {"op": "test", "path": "/rules/0/resources/0", "value": "inferenceservices"},
        {"op": "replace", "path": "/rules/0/verbs", "value": ["list"]},
    ]);
    let fewer = Patch::<()>::Json(serde_json::from_value(fewer).expect("a patch"));
    roles
        .patch(ACCOUNT, &PatchParams::default(), &fewer)
        .await
        .expect("fewer rights");
    eventually("the right is gone and said to be", DEADLINE, async || {
        if cluster.audit_once(&[]).await {
            return Err("complete".to_owned());
        }
        let kept = cluster.audited("kept").await;
        let message = kept["message"].as_str().unwrap_or_default();
        if kept["complete"] == false && message.contains("cannot patch") {
            return Ok(());
        }
        Err(kept.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_policy_begins_a_run_and_its_result_begins_none() {
    let (cluster, _controller) = thirty_services().await;
    let policies = compiled::policies(&cluster.client);
    let mut running = cluster.auditor(&["--qps", "1000"]);
    running.ready().await;
    let violations = async |expected: u64| {
        eventually(&format!("{expected} violations are found"), DEADLINE, async || {
            let audit = cluster.audited("changed").await;
            if audit["complete"] == true && audit["violations"] == expected {
                return Ok(());
            }
            Err(audit.to_string())
        })
        .await;
    };
    violations(30).await;
    let change = json!({"spec": {"parameters": {"max": 20}}});
    let changed = policies
        .patch("changed", &PatchParams::default(), &Patch::Merge(&change))
        .await;
    changed.expect("changed");
    violations(0).await;
    let back = json!({"spec": {"parameters": {"max": 3}}});
    policies
        .patch("changed", &PatchParams::default(), &Patch::Merge(&back))
        .await
        .expect("changed back");
    violations(30).await;
    // What is written into the status is a change of the policy, too. It is looked at three seconds later; by then everything that
    // comes of the change above is over.
    let runs = async || {
        running
            .metric("leanserve_audit_runs_total", &[])
            .await
            .expect("a number")
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = runs().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = runs().await;
    assert!(
        (after - before).abs() < 0.5,
        "{before}, {after}: {}",
        running.process.log()
    );
    let (status, _) = running.process.terminate(DEADLINE).await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_lets_the_auditor_ask_and_nothing_else() {
    let cluster = Cluster::start().await;
    cluster.make_namespace("audit-a").await;
    cluster
        .create("audit-a", &services::sklearn("service", "audit-a", None))
        .await;
    let template = &templates()[0];
    compiled::apply(&compiled::templates(&cluster.client), template)
        .await
        .expect("a template");
    let asked = policy("policy", "replicas", &json!({"max": 3}), &json!({}));
    compiled::apply(&compiled::policies(&cluster.client), &asked)
        .await
        .expect("a policy");
    let auditor = cluster
        .plane
        .service_account_client(NAMESPACE, ACCOUNT)
        .await
        .expect("a client");
    let services = services::api(auditor.clone(), "audit-a");
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    eventually("the guard is in force", DEADLINE, async || {
        let stored = services.patch("service", &PatchParams::default(), &label).await;
        let refused = stored.err().ok_or("stored")?;
        assert!(
            refused
                .to_string()
                .contains("may change nothing but the status of policies"),
            "{refused}"
        );
        Ok::<_, &str>(())
    })
    .await;
    let asking = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    services.patch("service", &asking, &label).await.expect("a dry run");
    let policies = compiled::policies(&auditor);
    let status = policy::status::patch(names::POLICY_KIND, "policy", &json!({"audit": {"complete": true}}));
    let parameters = PatchParams::apply(names::AUDIT_FIELD_MANAGER).force();
    policies
        .patch_status("policy", &parameters, &Patch::Apply(&status))
        .await
        .expect("the status of a policy");
}
