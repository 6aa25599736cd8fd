//! What is wrong becomes a condition that says so, and goes away when it is mended.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use leanserve_tests::{Running, services};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

/// Waits until a condition is False and its message contains every text; returns its reason.
pub(crate) async fn fails_with(services: &Api<DynamicObject>, name: &str, type_: &str, texts: &[&str]) -> String {
    eventually(&format!("{type_} of {name} names {texts:?}"), DEADLINE, async || {
        let service = services.get(name).await.map_err(|error| error.to_string())?;
        match services::condition(&service, type_) {
            Some((status, reason, message)) if status == "False" && texts.iter().all(|text| message.contains(text)) => {
                Ok(reason)
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_and_its_coming_is_noticed() {
    let (installation, scope, client) = prepare("missing").await;
    let namespace = scope.name().to_owned();
    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    let mut credentials = services::s3_credentials("s3", "loader", &namespace, "a secret access key");
    let account = credentials.pop().expect("a ServiceAccount");
    let mut secret = credentials.pop().expect("a Secret");
    let plane = installation.plane;
    plane
        .apply_yaml(&services::list(&[
            account,
            services::sklearn("m", &namespace, Some("loader")),
        ]))
        .await
        .expect("applied");
    let services = services_of(&client, &scope);
    let named = format!("{namespace}/s3");
    let reason = fails_with(&services, "m", "PredictorReady", &[&named, "AWS_SECRET_ACCESS_KEY"]).await;
    assert_eq!(reason, "SecretNotFound");
    fails_with(&services, "m", "Ready", &[&named]).await;

    let whole = secret["stringData"].clone();
    secret["stringData"] = json!({"AWS_SECRET_ACCESS_KEY": whole["AWS_SECRET_ACCESS_KEY"]});
    plane.apply_yaml(&secret.to_string()).await.expect("applied");
    let reason = fails_with(&services, "m", "PredictorReady", &[&named, "AWS_ACCESS_KEY_ID"]).await;
    assert_eq!(reason, "SecretKeyNotFound");

    secret["stringData"] = whole;
    plane.apply_yaml(&secret.to_string()).await.expect("applied");
    services::all_ready(&services, 1, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_specification_is_a_condition_and_a_repair_is_enough() {
    let (installation, scope, client) = prepare("invalid").await;
    let namespace = scope.name().to_owned();
    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    let mut unknown_runtime = services::sklearn("runtime", &namespace, None);
    unknown_runtime["spec"]["predictor"]["model"]["runtime"] = json!("ghost");
    let mut unsupported_uri = services::sklearn("uri", &namespace, None);
    unsupported_uri["spec"]["predictor"]["model"]["storageUri"] = json!("ftp://files/m");
    let mut several_nodes = services::custom("nodes", &namespace);
    several_nodes["spec"]["predictor"]["workerSpec"] = json!({"tensorParallelSize": 2});
    let objects = [unknown_runtime, unsupported_uri, several_nodes];
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    let services = services_of(&client, &scope);
    fails_with(
        &services,
        "runtime",
        "PredictorReady",
        &["spec.predictor.model.runtime", "ghost"],
    )
    .await;
    fails_with(
        &services,
        "uri",
        "PredictorReady",
        &["spec.predictor.model.storageUri", "ftp://files/m"],
    )
    .await;
    let reason = fails_with(&services, "nodes", "PredictorReady", &["spec.predictor.workerSpec"]).await;
    assert_eq!(reason, "Unsupported");

    // The runtime appears; nobody touches the service.
    let runtime = json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime",
        "metadata": {"name": "ghost", "namespace": namespace},
        "spec": {"supportedModelFormats": [{"name": "sklearn"}], "containers": [{"name": "kserve-container",
            "image": "example.com/ghost:1"}]},
    });
    installation
        .plane
        .apply_yaml(&runtime.to_string())
        .await
        .expect("applied");
    let body = json!({"spec": {"predictor": {"model": {"storageUri": "gs://files/m"}}}});
    services
        .patch("uri", &PatchParams::default(), &Patch::Merge(&body))
        .await
        .expect("patched");
    services
        .patch(
            "nodes",
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": {"predictor": {"workerSpec": null}}})),
        )
        .await
        .expect("patched");
    services::all_ready(&services, 3, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_somebody_else_is_left_alone() {
    let (installation, scope, client) = prepare("foreign").await;
    let namespace = scope.name().to_owned();
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "m-predictor", "namespace": namespace},
        // Without a selector, so that nothing of it contradicts what the operator would apply.
        "spec": {"ports": [{"port": 5432}]},
    });
    installation
        .plane
        .apply_yaml(&foreign.to_string())
        .await
        .expect("applied");
    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    installation
        .plane
        .apply_yaml(&services::custom("m", &namespace).to_string())
        .await
        .expect("applied");
    let services = services_of(&client, &scope);
    let reason = fails_with(&services, "m", "PredictorReady", &["Service", "m-predictor"]).await;
    assert_eq!(reason, "ReconcileFailed");
    let core: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(client.clone(), &namespace);
    let found = core.get("m-predictor").await.expect("the foreign Service");
    assert_eq!(found.metadata.owner_references, None);
    let spec = found.spec.expect("a specification");
    assert_eq!((spec.selector, spec.ports.map_or(0, |ports| ports.len())), (None, 1));

    core.delete("m-predictor", &kube::api::DeleteParams::default())
        .await
        .expect("deleted");
    services::all_ready(&services, 1, DEADLINE + Duration::from_secs(60)).await;
}
