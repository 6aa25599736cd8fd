//! Killed without warning, the operator goes on where it was.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service, networking::v1::Ingress,
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use leanserve_tests::{Running, Scope, services};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

const SERVICES: usize = 50;

/// Every child of a namespace without what differs between two namespaces or two incarnations.
async fn children(client: &Client, namespace: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    collect::<Service>(client, namespace, &mut all).await;
    collect::<Deployment>(client, namespace, &mut all).await;
    collect::<HorizontalPodAutoscaler>(client, namespace, &mut all).await;
    collect::<Ingress>(client, namespace, &mut all).await;
    all
}

async fn collect<K>(client: &Client, namespace: &str, all: &mut BTreeMap<String, Value>)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    for object in api.list(&ListParams::default()).await.expect("listed") {
        let name = format!("{}/{}", K::kind(&()), object.name_any());
        let owners: Vec<(String, String)> = object
            .owner_references()
            .iter()
            .map(|owner| (owner.kind.clone(), owner.name.clone()))
            .collect();
        let mut value = serde_json::to_value(&object).expect("JSON");
        let spec = value["spec"].take();
        let labels = value["metadata"]["labels"].take();
        let annotations = value["metadata"]["annotations"].take();
        let mut text =
            serde_json::json!({"owners": owners, "spec": spec, "labels": labels, "annotations": annotations});
        for field in ["clusterIP", "clusterIPs"] {
            text["spec"].as_object_mut().expect("a spec").remove(field);
        }
        if let Some(annotations) = text["annotations"].as_object_mut() {
            annotations.remove("deployment.kubernetes.io/revision");
        }
        let text = text.to_string().replace(namespace, "NAMESPACE");
        all.insert(name, serde_json::from_str(&text).expect("still JSON"));
    }
}

async fn create_services(installation: &leanserve_tests::Installation<'_>, scope: &Scope) {
    let namespace = scope.name();
    let mut objects = services::s3_credentials("s3", "loader", namespace, "a secret access key");
    for index in 0..SERVICES {
        let name = format!("m{index:02}");
        objects.push(if index % 2 == 0 {
            services::sklearn(&name, namespace, Some("loader"))
        } else {
            services::custom(&name, namespace)
        });
    }
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_creating_fifty_services_it_converges_to_the_same_objects() {
    let (installation, undisturbed, client) = prepare("undisturbed").await;
    create_services(installation, &undisturbed).await;
    let running = Running::in_scope(&undisturbed, &[]).await.expect("an operator");
    services::all_ready(&services_of(&client, &undisturbed), SERVICES, DEADLINE).await;
    let expected = children(&client, undisturbed.name()).await;
    drop(running);

    let (_, scope, _) = prepare("killed").await;
    create_services(installation, &scope).await;
    // Twice in the middle of the work, wherever that is: at least one child is there and at least one is missing.
    for round in 0..2 {
        let done = if round == 0 {
            0
        } else {
            children(&client, scope.name()).await.len()
        };
        let mut running = Running::spawn_in_scope(&scope, &["--max-concurrent-reconciles", "2"]).expect("an operator");
        eventually("some more children", DEADLINE, async || {
            let count = children(&client, scope.name()).await.len();
            if count > done {
                Ok(())
            } else {
                Err(format!("{count} children"))
            }
        })
        .await;
        running.process.kill().expect("killed");
        let count = children(&client, scope.name()).await.len();
        assert!(
            count < expected.len(),
            "it was killed too late to prove anything: {count} of {}",
            expected.len()
        );
    }
    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    services::all_ready(&services_of(&client, &scope), SERVICES, DEADLINE).await;
    let found = children(&client, scope.name()).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, object) in &expected {
        assert_eq!(&found[name], object, "{name}");
    }
}
