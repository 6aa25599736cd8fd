//! The operator's Pods, looked at from outside.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Cluster, PATIENCE};
use crate::{Failure, installation::NAMESPACE, running::metric};

const SELECTOR: &str = "app.kubernetes.io/name=leanserve,app.kubernetes.io/component=controller";
/// Of the Pods of all roles.
const ALL_ROLES: &str = "app.kubernetes.io/name=leanserve";
/// Bytes in a MiB.
const MIB: f64 = 1024.0 * 1024.0;

/// The operator's Pods that are not being deleted.
///
/// # Errors
///
/// When the API server refuses.
pub async fn pods(cluster: &Cluster) -> Result<Vec<Pod>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let mut found = pods.list(&ListParams::default().labels(SELECTOR)).await?.items;
    found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(found)
}

/// The one Pod of an operator that is not replicated.
///
/// # Errors
///
/// When there is not exactly one within the usual time.
pub async fn pod(cluster: &Cluster) -> Result<String, Failure> {
    let found = testkit::try_eventually("the operator has one Pod", PATIENCE, async || {
        let found = pods(cluster).await.map_err(|error| error.to_string())?;
        match found.as_slice() {
            [pod] if is_ready(pod) => Ok(pod.name_any()),
            found => Err(format!("{} Pods", found.len())),
        }
    })
    .await?;
    Ok(found)
}

/// Whether the Pod is Ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// State of the only container.
#[must_use]
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// How often containers of the operator's Pods have been started again.
///
/// # Errors
///
/// When the API server refuses.
pub async fn restarts(cluster: &Cluster) -> Result<f64, Failure> {
    let found = pods(cluster).await?;
    Ok(found
        .iter()
        .filter_map(container)
        .map(|container| f64::from(container.restart_count))
        .sum())
}

/// How often containers of any role's Pods have been started again.
///
/// # Errors
///
/// When the API server refuses.
pub async fn restarts_of_all(cluster: &Cluster) -> Result<f64, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let found = pods.list(&ListParams::default().labels(ALL_ROLES)).await?.items;
    Ok(found
        .iter()
        .filter_map(container)
        .map(|container| f64::from(container.restart_count))
        .sum())
}

/// Everything under `/metrics` of a Pod.
///
/// # Errors
///
/// When it does not answer.
pub async fn metrics(cluster: &Cluster, pod: &str) -> Result<String, Failure> {
    cluster
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics"))
        .await
}

/// One metric of a Pod, the sum over its series that have all of these labels.
///
/// # Errors
///
/// When it does not answer.
pub async fn value(cluster: &Cluster, pod: &str, name: &str, labels: &[&str]) -> Result<f64, Failure> {
    Ok(metric(&metrics(cluster, pod).await?, name, labels))
}

/// Resident memory of a Pod's process, in MiB.
///
/// # Errors
///
/// When it does not answer.
pub async fn resident(cluster: &Cluster, pod: &str) -> Result<f64, Failure> {
    Ok(value(cluster, pod, "process_resident_memory_bytes", &[]).await? / MIB)
}

/// Memory of a Pod that counts towards its limit, in MiB.
///
/// # Errors
///
/// When it does not answer.
pub async fn used(cluster: &Cluster, pod: &str) -> Result<f64, Failure> {
    Ok(value(cluster, pod, "leanserve_memory_used_bytes", &[]).await? / MIB)
}

/// Resident memory in MiB once it has not moved by more than 2 % for three seconds.
///
/// # Errors
///
/// When the Pod does not answer.
pub async fn settled(cluster: &Cluster, pod: &str) -> Result<f64, Failure> {
    let mut last = resident(cluster, pod).await?;
    let mut calm = 0;
    // A minute; what still moves then is what there is.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = resident(cluster, pod).await?;
        calm = if (now - last).abs() <= last * 0.02 { calm + 1 } else { 0 };
        last = now;
        if calm == 3 {
            break;
        }
    }
    Ok(last)
}

/// What the Pod's container has logged.
///
/// # Errors
///
/// When the API server refuses.
pub async fn log(cluster: &Cluster, pod: &str) -> Result<String, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    Ok(pods.logs(pod, &LogParams::default()).await?)
}

/// Sets keys of the operator's `ConfigMap`; a null removes one.
///
/// # Errors
///
/// When the API server refuses.
pub async fn configure(cluster: &Cluster, data: &Value) -> Result<(), Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"data": data}));
    maps.patch("leanserve-config", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// How many Events with this reason the operator has sent, repetitions included.
///
/// # Errors
///
/// When the API server refuses.
pub async fn events(cluster: &Cluster, reason: &str) -> Result<f64, Failure> {
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(cluster.client.clone());
    let found = events
        .list(&ListParams::default().fields(&format!("reason={reason}")))
        .await?;
    let sent = found.items.iter().map(|event| {
        let series = event.series.as_ref().map_or(1, |series| series.count);
        f64::from(series)
    });
    Ok(sent.sum())
}
