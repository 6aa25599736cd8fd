//! Platform settings: `KServe`'s `ConfigMap` where it is, built-in ones otherwise, followed while running.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use leanserve_tests::{Running, services};
use serde_json::{Value, json};
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

async fn set(client: &Client, namespace: &str, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = "inferenceservice-config";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&map))
        .await
        .expect("applied");
}

/// Waits for the storage-initializer's image of a service's Deployment.
async fn image(client: &Client, namespace: &str, wanted: &str) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("image {wanted}"), DEADLINE, async || {
        let deployment = deployments
            .get("m-predictor")
            .await
            .map_err(|error| error.to_string())?;
        let pod = deployment.spec.and_then(|spec| spec.template.spec);
        let init = pod.and_then(|pod| pod.init_containers).unwrap_or_default();
        match init.first().and_then(|container| container.image.as_deref()) {
            Some(image) if image == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn storage_initializer(image: &str) -> Value {
    let settings =
        json!({"image": image, "memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"});
    json!({
        "deploy": "{\"defaultDeploymentMode\": \"Standard\"}",
        "storageInitializer": settings.to_string(),
        "ingress": "{\"ingressGateway\": \"a/b\", \"ingressDomain\": \"models.test\"}",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_reach_services_and_bad_ones_do_not() {
    let (installation, scope, client) = prepare("settings").await;
    let namespace = scope.name().to_owned();
    let running = Running::in_scope(&scope, &["--platform-namespace", &namespace])
        .await
        .expect("an operator");
    // file:// is brought by no ClusterStorageContainer, so the platform's image is used.
    let mut service = services::sklearn("m", &namespace, None);
    service["spec"]["predictor"]["model"]["storageUri"] = json!("file:///models/m");
    installation
        .plane
        .apply_yaml(&service.to_string())
        .await
        .expect("applied");
    image(&client, &namespace, "kserve/storage-initializer:latest").await;

    set(&client, &namespace, storage_initializer("registry.test/fetcher:1")).await;
    image(&client, &namespace, "registry.test/fetcher:1").await;

    let mut broken = storage_initializer("registry.test/fetcher:2");
    broken["ingress"] = json!("{not json");
    set(&client, &namespace, broken).await;
    eventually("the error is counted", DEADLINE, async || {
        let errors = running
            .metric("leanserve_config_errors_total", &[])
            .await
            .map_err(|error| error.to_string())?;
        if errors >= 1.0 {
            Ok(())
        } else {
            Err("no error yet".to_owned())
        }
    })
    .await;
    assert!(running.process.log().contains("ingress"), "the log names the key");
    image(&client, &namespace, "registry.test/fetcher:1").await;

    set(&client, &namespace, storage_initializer("registry.test/fetcher:3")).await;
    image(&client, &namespace, "registry.test/fetcher:3").await;
    let found = services::all_ready(&services_of(&client, &scope), 1, DEADLINE).await;
    let url = found[0].data.pointer("/status/url").and_then(Value::as_str);
    assert_eq!(url, Some(format!("http://m-{namespace}.models.test").as_str()));
}
