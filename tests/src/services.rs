//! `InferenceServices` for tests, and ways to look at them.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use testkit::eventually;

/// `InferenceServices` of a namespace.
#[must_use]
pub fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("serving.kserve.io", "v1beta1", "InferenceService");
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind))
}

/// A service that loads a scikit-learn model from S3 with the credentials of a `ServiceAccount`.
#[must_use]
pub fn sklearn(name: &str, namespace: &str, service_account: Option<&str>) -> Value {
    let mut service = json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"predictor": {"model": {
            "modelFormat": {"name": "sklearn"},
            "storageUri": format!("s3://models/{name}"),
        }}},
    });
    if let Some(account) = service_account {
        service["spec"]["predictor"]["serviceAccountName"] = json!(account);
    }
    service
}

/// A service that runs a container of the user's.
#[must_use]
pub fn custom(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"predictor": {"containers": [{
            "name": "kserve-container",
            "image": "example.com/models/echo:1",
            "ports": [{"containerPort": 8080}],
        }]}},
    })
}

/// A Secret with S3 keys and a `ServiceAccount` that lists it.
#[must_use]
pub fn s3_credentials(secret: &str, account: &str, namespace: &str, secret_access_key: &str) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": secret, "namespace": namespace,
                "annotations": {"serving.kserve.io/s3-endpoint": "minio.store:9000", "serving.kserve.io/s3-usehttps": "0"}},
            "stringData": {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": secret_access_key},
        }),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace},
            "secrets": [{"name": secret}],
        }),
    ]
}

/// One document from many objects, for `apply_yaml`.
#[must_use]
pub fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// A condition of a service, as (status, reason, message).
#[must_use]
pub fn condition(service: &DynamicObject, type_: &str) -> Option<(String, String, String)> {
    let conditions = service.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == type_)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until every service of a namespace is Ready; how many there are.
///
/// # Panics
///
/// At the deadline, with the services that are not.
pub async fn all_ready(services: &Api<DynamicObject>, expected: usize, deadline: Duration) -> Vec<DynamicObject> {
    eventually(&format!("{expected} services are Ready"), deadline, async || {
        ready(services, expected).await
    })
    .await
}

/// The services of a namespace, if there are so many and all of them are Ready.
///
/// # Errors
///
/// What is there instead.
pub async fn ready(services: &Api<DynamicObject>, expected: usize) -> Result<Vec<DynamicObject>, String> {
    let found = services
        .list(&kube::api::ListParams::default())
        .await
        .map_err(|error| error.to_string())?
        .items;
    let waiting: Vec<String> = found
        .iter()
        .filter(|service| condition(service, "Ready").is_none_or(|(status, ..)| status != "True"))
        .map(|service| {
            let conditions = service.data.pointer("/status/conditions").cloned().unwrap_or_default();
            format!("{}: {conditions}", service.name_any())
        })
        .collect();
    match (found.len(), waiting.first()) {
        (count, None) if count == expected => Ok(found),
        (count, None) => Err(format!("{count} services")),
        (_, Some(first)) => Err(format!("{} of {expected} not Ready, the first {first}", waiting.len())),
    }
}
