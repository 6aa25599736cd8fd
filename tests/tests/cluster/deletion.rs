//! A deleted service takes its children along, by owner references alone.

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service, networking::v1::Ingress,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use leanserve_tests::{Running, services};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

#[tokio::test(flavor = "multi_thread")]
async fn deletion_leaves_nothing_and_does_not_hang_on_kserves_finalizer() {
    let (installation, scope, client) = prepare("deletion").await;
    let namespace = scope.name().to_owned();
    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    let objects = [
        services::custom("plain", &namespace),
        services::custom("from-kserve", &namespace),
    ];
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    let services = services_of(&client, &scope);
    let found = services::all_ready(&services, 2, DEADLINE).await;
    assert!(
        found.iter().all(|service| service.metadata.finalizers.is_none()),
        "no finalizer of ours"
    );
    let finalizer = json!({"metadata": {"finalizers": ["inferenceservice.finalizers"]}});
    services
        .patch("from-kserve", &PatchParams::default(), &Patch::Merge(&finalizer))
        .await
        .expect("patched");
    for name in ["plain", "from-kserve"] {
        services
            .delete(name, &DeleteParams::background())
            .await
            .expect("deleted");
    }
    eventually("services and children are gone", DEADLINE, async || {
        let all = ListParams::default();
        let count = async || -> Result<usize, kube::Error> {
            let names = services.list(&all).await?.items.len();
            let deployments = Api::<Deployment>::namespaced(client.clone(), &namespace)
                .list(&all)
                .await?
                .items
                .len();
            let core = Api::<Service>::namespaced(client.clone(), &namespace)
                .list(&all)
                .await?
                .items
                .len();
            let scalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &namespace);
            let ingresses = Api::<Ingress>::namespaced(client.clone(), &namespace);
            let others = scalers.list(&all).await?.items.len() + ingresses.list(&all).await?.items.len();
            Ok(names + deployments + core + others)
        };
        match count().await.map_err(|error| error.to_string())? {
            0 => Ok(()),
            left => Err(format!("{left} objects are left")),
        }
    })
    .await;
}
