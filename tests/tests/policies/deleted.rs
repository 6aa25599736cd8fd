//! A policy does not keep a service from being deleted.

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use leanserve_tests::{Installation, compiled, services};
use serde_json::json;
use testkit::eventually;

use crate::DEADLINE;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_breaks_a_policy_can_be_deleted_and_not_changed_meanwhile() {
    let plane = Installation::shared().await.plane;
    let namespace = plane.namespace("deleted").await.expect("a namespace");
    let client = plane.client().await.expect("a client");
    let api = services::api(client.clone(), &namespace.name);
    let mut service = services::sklearn("service", &namespace.name, None);
    service["metadata"]["finalizers"] = json!(["example.com/hold"]);
    service["spec"]["predictor"]["maxReplicas"] = json!(9);
    let service: DynamicObject = serde_json::from_value(service).expect("an object");
    api.create(&PostParams::default(), &service).await.expect("a service");
    let template = json!({
        "apiVersion": "leanserve.dev/v1alpha1", "kind": "InferencePolicyTemplate", "metadata": {"name": "few"},
        "spec": {"validations": [{
            "expression": "object.spec.predictor.?maxReplicas.orValue(1) < 3", "message": "too many replicas",
        }]},
    });
    let policy = json!({
        "apiVersion": "leanserve.dev/v1alpha1", "kind": "InferencePolicy", "metadata": {"name": "few"},
        "spec": {
            "templateRef": {"name": "few"},
            "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}},
        },
    });
    compiled::enforce(&client, &template, &policy).await.expect("a policy");

    let change = async |patch: serde_json::Value| {
        let changed = api
            .patch("service", &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    };
    let mut number = 0;
    let refusal = eventually("the policy is in force", DEADLINE, async || {
        number += 1;
        let label = json!({"metadata": {"labels": {"looked": number.to_string()}}});
        change(label).await.err().ok_or("changed")
    })
    .await;
    assert!(refusal.contains("too many replicas"), "{refusal}");
    api.delete("service", &DeleteParams::default())
        .await
        .expect("deletion begins");
    let more = json!({"spec": {"predictor": {"maxReplicas": 10}}});
    let refusal = change(more).await.expect_err("its specification is not to change");
    assert!(refusal.contains("too many replicas"), "{refusal}");
    change(json!({"metadata": {"finalizers": []}}))
        .await
        .expect("the finalizer goes");
    eventually("the service is gone", DEADLINE, async || {
        match api.get_opt("service").await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
