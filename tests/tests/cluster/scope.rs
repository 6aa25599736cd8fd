//! What is outside of the operator's scope is not touched.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use leanserve_tests::{Running, services};
use serde_json::json;
use testkit::{audit::AuditEntries, eventually};

use crate::{DEADLINE, prepare, services_of};

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_not_selected_are_not_touched_and_left_as_they_are_when_they_leave() {
    let (installation, scope, client) = prepare("selector").await;
    let audit = installation.plane.audit().expect("an audit log");
    let mut inside = services::custom("inside", scope.name());
    inside["metadata"]["labels"] = json!({"team": "a"});
    let objects = services::list(&[inside, services::custom("outside", scope.name())]);
    installation.plane.apply_yaml(&objects).await.expect("applied");
    let mark = audit.mark().await.expect("a mark");
    let operator = Running::in_scope(&scope, &["--inference-service-selector", "team in (a, b)"]);
    let _operator = operator.await.expect("an operator");
    let services = services_of(&client, &scope);
    let ready = async |name: &str| {
        eventually(&format!("{name} is Ready"), DEADLINE, async || {
            let service = services.get(name).await.map_err(|error| error.to_string())?;
            match services::condition(&service, "Ready") {
                Some((status, ..)) if status == "True" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    ready("inside").await;

    let asked = audit.since(&mark).await.expect("the log").by_user(&scope.user());
    let watches = asked.clone().on_resource("inferenceservices");
    let watches = watches.filtered(|entry| matches!(entry.verb.as_str(), "list" | "watch"));
    assert!(!watches.is_empty());
    for entry in watches.iter() {
        assert!(
            entry.uri.contains("labelSelector=team+in"),
            "the API server selects: {entry}"
        );
    }
    let touched = about(asked, "outside");
    assert!(touched.is_empty(), "{touched}");

    // It leaves, and another one comes: once that is served, the operator has seen both.
    let labels = |team: Option<&str>| Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), scope.name());
    let before = deployments.get("inside-predictor").await.expect("a Deployment");
    let parameters = PatchParams::default();
    let left = services.patch("inside", &parameters, &labels(None)).await;
    left.expect("patched");
    let mark = audit.mark().await.expect("a mark");
    let came = services.patch("outside", &parameters, &labels(Some("b"))).await;
    came.expect("patched");
    ready("outside").await;
    let names = deployments.list(&ListParams::default()).await.expect("listed");
    let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["inside-predictor", "outside-predictor"]);
    let after = deployments.get("inside-predictor").await.expect("a Deployment");
    assert_eq!((after.metadata.uid, after.spec), (before.metadata.uid, before.spec));
    let touched = about(
        audit.since(&mark).await.expect("the log").by_user(&scope.user()),
        "inside",
    );
    assert!(touched.is_empty(), "{touched}");
}

/// Writes to a service and its objects.
fn about(entries: AuditEntries, name: &str) -> AuditEntries {
    let child = format!("{name}-");
    let entries = entries.writes().without_leases_and_events();
    entries.filtered(|entry| entry.name == name || entry.name.starts_with(&child))
}
