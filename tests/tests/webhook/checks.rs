//! What is told of services whose references are there, and of others.

use std::collections::BTreeSet;

use kube::Client;
use leanserve_tests::{
    services,
    webhook::{FailurePolicy, Replica, Site},
};
use serde_json::json;
use testkit::audit::AuditEntries;

use crate::{create, patch, plane, port, reviews, secret, service};

const PLANTED: &str = "planted-webhook-5150";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_warned_of_and_named() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Fail).await.expect("installed");
    let audit = plane.audit().expect("an audit log");
    let mark = audit.mark().await.expect("a mark");
    // TRACE of every crate, to look for values in.
    let everything = "trace,kube_client::client=trace,hyper=trace,h2=trace,rustls=trace";
    let replica = site.replica(site.address, &["--log-level", everything]).await;
    let replica = replica.expect("a replica");
    let tenant = site.tenant.name.as_str();
    let mut objects = services::s3_credentials("s3", "loader", tenant, PLANTED);
    objects.push(secret("tokens", tenant, "hf", PLANTED));
    plane.apply_yaml(&services::list(&objects)).await.expect("applied");
    let client = plane.client().await.expect("a client");

    let good = create(&client, tenant, &service("good", "tokens", "hf")).await;
    assert_eq!(
        (good.code, good.warnings.len()),
        (201, 0),
        "{} {:?}",
        good.body,
        good.warnings
    );

    let key = create(&client, tenant, &service("key", "tokens", "other")).await;
    let expected =
        format!("leanserve: Secret {tenant}/tokens has no key other (env TOKEN of container kserve-container); add it");
    assert_eq!(key.code, 201);
    assert!(
        key.warnings.iter().any(|warning| warning.contains(&expected)),
        "{:?}",
        key.warnings
    );

    let mut account = services::sklearn("account", tenant, Some("nobody"));
    account["metadata"]["namespace"] = json!(null);
    let account = create(&client, tenant, &account).await;
    let expected = format!("spec.predictor.serviceAccountName: ServiceAccount {tenant}/nobody not found");
    assert!(
        account.warnings.iter().any(|warning| warning.contains(&expected)),
        "{:?}",
        account.warnings
    );

    let loaded = create(&client, tenant, &services::sklearn("loaded", tenant, Some("loader"))).await;
    assert_eq!((loaded.code, loaded.warnings.len()), (201, 0), "{:?}", loaded.warnings);

    // Made a moment after it was missed: that is known at once.
    let missed = create(&client, tenant, &service("missed", "late", "hf")).await;
    assert!(
        missed.warnings.iter().any(|warning| warning.contains("late not found")),
        "{:?}",
        missed.warnings
    );
    let late = services::list(&[secret("late", tenant, "hf", PLANTED)]);
    plane.apply_yaml(&late).await.expect("applied");
    let found = create(&client, tenant, &service("found", "late", "hf")).await;
    assert_eq!(found.warnings, Vec::<String>::new());

    nothing_new_is_not_reviewed(&client, tenant, &replica).await;
    let asked = audit.since(&mark).await.expect("the log").by_user(&site.user());
    rights_are_those_it_used(&asked, &[site.home.name.as_str(), tenant, "kserve", ""]);
    nothing_is_shown(&replica).await;
}

/// Where nothing new is referred to nothing is reviewed.
async fn nothing_new_is_not_reviewed(client: &Client, tenant: &str, replica: &Replica) {
    let before = reviews(replica).await;
    for (name, change) in [
        ("key/status", json!({"status": {"url": "http://x.example"}})),
        ("key", json!({"metadata": {"labels": {"team": "a"}}})),
        ("key", json!({"metadata": {"finalizers": ["example.com/wait"]}})),
    ] {
        let patched = patch(client, tenant, name, &change).await;
        assert_eq!(
            (patched.code, patched.warnings.len()),
            (200, 0),
            "{name} {change}: {}",
            patched.body
        );
    }
    let request = http::Request::delete(format!("{}/key", crate::path(tenant))).body(Vec::new());
    assert_eq!(crate::write(client, request.expect("valid")).await.code, 200);
    let unpinned = patch(client, tenant, "key", &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(unpinned.code, 200, "{}", unpinned.body);
    assert!((reviews(replica).await - before).abs() < 0.5, "no review was asked for");
    let other = json!({"spec": {"predictor": {"serviceAccountName": "nobody"}}});
    let changed = patch(client, tenant, "good", &other).await;
    assert!(
        changed
            .warnings
            .iter()
            .any(|warning| warning.contains("nobody not found")),
        "{:?}",
        changed.warnings
    );
}

/// Its rights are those it used, and no others.
fn rights_are_those_it_used(asked: &AuditEntries, places: &[&str]) {
    let used: BTreeSet<String> = asked
        .iter()
        .map(|entry| format!("{} {}", entry.verb, entry.resource))
        .collect();
    let rights = [
        "get configmaps",
        "get secrets",
        "get serviceaccounts",
        "get validatingwebhookconfigurations",
        "patch secrets",
        "patch validatingwebhookconfigurations",
    ];
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), rights);
    for entry in asked.iter() {
        assert!(
            places.contains(&entry.namespace.as_str()),
            "outside of its business: {entry}"
        );
        assert_ne!(entry.code, 403, "a right is missing: {entry}");
    }
}

/// No value of a Secret, and no key of a certificate.
async fn nothing_is_shown(replica: &Replica) {
    let log = replica.process.log();
    assert!(log.contains("TRACE"), "the log is complete");
    let metrics = replica.metrics().await.expect("metrics");
    // Base64 of its first bytes, as the API server sends it.
    for planted in [PLANTED, "cGxhbnRlZC13ZWJob29r", "PRIVATE KEY"] {
        for (place, text) in [("the log", &log), ("metrics", &metrics)] {
            assert!(!text.contains(planted), "{planted} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_refused_where_that_is_asked_for() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Fail).await.expect("installed");
    let replica = site.replica(site.address, &["--enforcement-action", "deny"]).await;
    let _replica = replica.expect("a replica");
    let tenant = site.tenant.name.as_str();
    let client = plane.client().await.expect("a client");
    let refused = create(&client, tenant, &service("m", "tokens", "hf")).await;
    let message = refused.body["message"].as_str().unwrap_or_default();
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(
        message.contains(&format!("Secret {tenant}/tokens not found (env TOKEN")),
        "{message}"
    );
    let tokens = services::list(&[secret("tokens", tenant, "hf", PLANTED)]);
    plane.apply_yaml(&tokens).await.expect("applied");
    let allowed = create(&client, tenant, &service("m", "tokens", "hf")).await;
    assert_eq!(allowed.code, 201, "{}", allowed.body);
}

/// A Secret behind the last that is looked up is not missing, although nothing is known of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_looked_up_is_not_refused() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Fail).await.expect("installed");
    let replica = site.replica(site.address, &["--enforcement-action", "deny"]).await;
    let _replica = replica.expect("a replica");
    let tenant = site.tenant.name.as_str();
    // The one with the credentials is the last by name, and the first that is taken.
    let mut objects = services::s3_credentials("z-s3", "crowded", tenant, PLANTED);
    let others: Vec<String> = (1..70).map(|number| format!("other-{number}")).collect();
    for account in objects.iter_mut().filter(|object| object["kind"] == "ServiceAccount") {
        let listed = account["secrets"].as_array_mut().expect("a list");
        listed.extend(others.iter().map(|name| json!({"name": name})));
    }
    objects.extend(others.iter().map(|name| secret(name, tenant, "key", PLANTED)));
    plane.apply_yaml(&services::list(&objects)).await.expect("applied");
    let client = plane.client().await.expect("a client");
    let admitted = create(&client, tenant, &services::sklearn("m", tenant, Some("crowded"))).await;
    assert_eq!(admitted.code, 201, "{}", admitted.body);
    let expected = [
        "71 ServiceAccounts and Secrets are referred to; 64 of them were looked up".to_owned(),
        format!("Secret {tenant}/z-s3 cannot be read (ServiceAccount crowded lists it): it was not looked up"),
    ];
    for expected in expected {
        let told = admitted.warnings.iter().any(|warning| warning.contains(&expected));
        assert!(told, "{expected} is not in {:?}", admitted.warnings);
    }
}

/// The API server cannot be asked because the right is missing: nothing is claimed, and clients try again.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_checked_is_told_so() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Fail).await.expect("installed");
    let replica = site.replica(site.address, &["--enforcement-action", "deny"]).await;
    let _replica = replica.expect("a replica");
    let binding = format!("clusterrolebinding/{}", site.configuration());
    plane.kubectl_stdout(&["delete", &binding]).await.expect("deleted");
    let tenant = site.tenant.name.as_str();
    let client = plane.client().await.expect("a client");
    // Until the API server knows that the right is gone, the Secret is found missing.
    let what = "the Secret cannot be read";
    testkit::eventually(what, crate::DEADLINE, async || {
        let written = create(&client, tenant, &service("m", "tokens", "hf")).await;
        let warned = written
            .warnings
            .iter()
            .any(|warning| warning.contains("cannot be read"));
        match (written.code, warned) {
            (201, true) => Ok(()),
            _ => Err(format!("{} {:?} {}", written.code, written.warnings, written.body)),
        }
    })
    .await;
}
