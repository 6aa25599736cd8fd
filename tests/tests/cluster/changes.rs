//! A Secret or `ServiceAccount` that appears, changes or goes is noticed with the right to `get` alone, by the services that
//! refer to it and by no others, and owes nothing to a resync.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use leanserve_tests::{Running, services};
use serde_json::{Value, json};
use testkit::eventually;

use crate::{DEADLINE, conditions::fails_with, prepare, services_of};

async fn metric(running: &Running, name: &str, labels: &[&str]) -> f64 {
    running.metric(name, labels).await.expect("metrics")
}

/// Waits until a metric is at least `least`.
async fn reaches(running: &Running, name: &str, labels: &[&str], least: f64) {
    eventually(&format!("{name} {labels:?} reaches {least}"), DEADLINE, async || {
        let now = running.metric(name, labels).await.map_err(|error| error.to_string())?;
        if now >= least { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

/// The passes asked for so far, once no more are asked for while Secrets are looked at several times.
async fn quiet(running: &Running) -> f64 {
    let mut before = (
        asked_for(running).await,
        metric(running, "leanserve_secret_polls_total", &[]).await,
    );
    eventually("no more passes are asked for", DEADLINE, async || {
        let polls = running.metric("leanserve_secret_polls_total", &[]).await;
        let polls = polls.map_err(|error| error.to_string())?;
        if polls < before.1 + 4.0 {
            return Err(format!("{polls} polls"));
        }
        let adds = asked_for(running).await;
        let earlier = std::mem::replace(&mut before, (adds, polls));
        if (earlier.0 - adds).abs() < f64::EPSILON {
            Ok(adds)
        } else {
            Err(format!("{adds} passes asked for, {} before", earlier.0))
        }
    })
    .await
}

async fn asked_for(running: &Running) -> f64 {
    metric(running, "workqueue_adds_total", &[]).await
}

async fn merge(client: &Client, namespace: &str, secret: &str, patch: &Value) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let patched = secrets
        .patch(secret, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.expect("patched");
}

/// Waits until the Pods of a service are to be made with this text somewhere.
async fn built_with(client: &Client, namespace: &str, service: &str, text: &str) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{service} is built with {text}"), DEADLINE, async || {
        let deployment = deployments.get(&format!("{service}-predictor")).await;
        let deployment = deployment.map_err(|error| error.to_string())?;
        let template = deployment.spec.map(|spec| spec.template);
        let template = serde_json::to_string(&template).map_err(|error| error.to_string())?;
        if template.contains(text) { Ok(()) } else { Err(template) }
    })
    .await;
}

async fn is_ready(client: &Client, scope: &leanserve_tests::Scope, name: &str) {
    let services = services_of(client, scope);
    eventually(&format!("{name} is Ready"), DEADLINE, async || {
        let service = services.get(name).await.map_err(|error| error.to_string())?;
        match services::condition(&service, "Ready") {
            Some((status, ..)) if status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Two services with a Secret each, one of which is missing at first.
async fn changes_are_noticed(mode: &str) {
    let (installation, scope, client) = prepare(&format!("changes-{mode}")).await;
    let namespace = scope.name().to_owned();
    let mut first = services::s3_credentials("first", "first", &namespace, "a secret access key");
    let (account, missing) = (first.pop().expect("an account"), first.pop().expect("a Secret"));
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "leanserve-config", "namespace": namespace},
            "data": {"secretAccessMode": mode, "secretAccessMaxAge": "10s"},
        }),
        account,
        services::sklearn("first", &namespace, Some("first")),
        services::sklearn("second", &namespace, Some("second")),
    ];
    objects.extend(services::s3_credentials("second", "second", &namespace, "another key"));
    let running = Running::in_scope(&scope, &["--resync-period", "10h"])
        .await
        .expect("an operator");
    let plane = installation.plane;
    plane.apply_yaml(&services::list(&objects)).await.expect("applied");
    let services = services_of(&client, &scope);
    let named = format!("{namespace}/first");
    assert_eq!(
        fails_with(&services, "first", "PredictorReady", &[&named]).await,
        "SecretNotFound"
    );
    is_ready(&client, &scope, "second").await;
    reaches(&running, "leanserve_secret_tracked", &[], 2.0).await;

    // It appears.
    plane.apply_yaml(&missing.to_string()).await.expect("applied");
    is_ready(&client, &scope, "first").await;
    reaches(&running, "leanserve_secret_changes_total", &["change=\"created\""], 1.0).await;

    // A change of each that leaves nothing to do asks for one pass of one service.
    let before = quiet(&running).await;
    for (number, secret) in (1_u8..).zip(["first", "second"]) {
        merge(
            &client,
            &namespace,
            secret,
            &json!({"stringData": {"AWS_SECRET_ACCESS_KEY": "rotated"}}),
        )
        .await;
        let updated = ["change=\"updated\""];
        reaches(&running, "leanserve_secret_changes_total", &updated, f64::from(number)).await;
        reaches(&running, "workqueue_adds_total", &[], before + f64::from(number)).await;
    }
    let after = quiet(&running).await;
    assert!((after - before - 2.0).abs() < f64::EPSILON, "{} passes", after - before);

    // One that matters reaches the Pods, although a copy is held that would do for the mode.
    let endpoint = json!({"metadata": {"annotations": {"serving.kserve.io/s3-endpoint": "other.store:9000"}}});
    merge(&client, &namespace, "first", &endpoint).await;
    built_with(&client, &namespace, "first", "other.store:9000").await;

    // It goes.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    secrets
        .delete("first", &DeleteParams::default())
        .await
        .expect("deleted");
    fails_with(&services, "first", "PredictorReady", &[&named]).await;

    // A service that is gone refers to nothing.
    services
        .delete("first", &DeleteParams::default())
        .await
        .expect("deleted");
    eventually("one Secret is tracked", DEADLINE, async || {
        let tracked = metric(&running, "leanserve_secret_tracked", &[]).await;
        if (tracked - 1.0).abs() < f64::EPSILON {
            Ok(())
        } else {
            Err(tracked.to_string())
        }
    })
    .await;
    let failed = metric(&running, "leanserve_secret_polls_total", &["result=\"forbidden\""]).await;
    assert!(failed.abs() < f64::EPSILON, "the rights of deploy/ do not cover polls");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_secrets_are_noticed_in_mode_direct() {
    changes_are_noticed("direct").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_secrets_are_noticed_in_mode_lru() {
    changes_are_noticed("lru").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_secrets_are_noticed_in_mode_auto() {
    changes_are_noticed("auto").await;
}

/// With the rights of the overlay `watch`, what is selected is watched and not polled.
async fn changes_are_told_by_a_watch(mode: &str) {
    let (installation, scope, client) = prepare(&format!("watched-{mode}")).await;
    installation.grant_overlay(&scope, "watch").await.expect("granted");
    let plane = installation.plane;
    let namespace = scope.name().to_owned();
    let mut objects = services::s3_credentials("late", "late", &namespace, "a secret access key");
    let (account, missing) = (objects.pop().expect("an account"), objects.pop().expect("a Secret"));
    objects.push(account);
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "leanserve-config", "namespace": namespace},
        "data": {"secretAccessMode": mode},
    }));
    objects.push(services::sklearn("m", &namespace, Some("late")));
    let mark = match plane.audit() {
        Some(audit) => Some(audit.mark().await.expect("a mark in the audit log")),
        None => None,
    };
    let running = Running::in_scope(&scope, &["--resync-period", "10h"])
        .await
        .expect("an operator");
    plane.apply_yaml(&services::list(&objects)).await.expect("applied");
    let named = format!("{namespace}/late");
    fails_with(&services_of(&client, &scope), "m", "PredictorReady", &[&named]).await;
    plane.apply_yaml(&missing.to_string()).await.expect("applied");
    is_ready(&client, &scope, "m").await;
    let endpoint = json!({"metadata": {"annotations": {"serving.kserve.io/s3-endpoint": "other.store:9000"}}});
    merge(&client, &namespace, "late", &endpoint).await;
    built_with(&client, &namespace, "m", "other.store:9000").await;
    reaches(&running, "leanserve_secret_reads_total", &["source=\"watch\""], 1.0).await;

    if let (Some(audit), Some(mark)) = (plane.audit(), mark) {
        let entries = audit.since(&mark).await.expect("the audit log");
        let entries = entries.by_service_account(&namespace, "leanserve");
        let of_secrets: Vec<_> = entries.iter().filter(|entry| entry.resource == "secrets").collect();
        assert!(of_secrets.iter().any(|entry| entry.verb == "watch"), "{mode} watches");
        let denied = of_secrets.iter().find(|entry| entry.code == 403);
        assert!(denied.is_none(), "the overlay's rights are enough: {denied:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_secrets_are_told_by_a_watch_in_mode_watch() {
    changes_are_told_by_a_watch("watch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_secrets_are_told_by_a_watch_in_mode_auto() {
    changes_are_told_by_a_watch("auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_appears_and_changes_is_noticed() {
    let (installation, scope, client) = prepare("changes-account").await;
    let namespace = scope.name().to_owned();
    let mut objects = services::s3_credentials("s3", "late", &namespace, "a secret access key");
    let account = objects.pop().expect("an account");
    let mut other = objects[0].clone();
    other["metadata"]["name"] = json!("other");
    other["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"] = json!("other.store:9000");
    objects.push(other);
    objects.push(services::sklearn("m", &namespace, Some("late")));
    let _running = Running::in_scope(&scope, &["--resync-period", "10h"])
        .await
        .expect("an operator");
    let plane = installation.plane;
    plane.apply_yaml(&services::list(&objects)).await.expect("applied");
    fails_with(&services_of(&client, &scope), "m", "PredictorReady", &["late"]).await;
    plane.apply_yaml(&account.to_string()).await.expect("applied");
    is_ready(&client, &scope, "m").await;
    built_with(&client, &namespace, "m", "minio.store:9000").await;

    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({"secrets": [{"name": "other"}]});
    let patched = accounts
        .patch("late", &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched.expect("patched");
    built_with(&client, &namespace, "m", "other.store:9000").await;
}
