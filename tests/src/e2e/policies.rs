//! Policies, their audit and the webhook, each as the chart installs it.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, installation::NAMESPACE, policies::ready_made::ReadyMade, report::Row};

/// Services that are there before the policies.
const SERVICES: usize = 3;

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let started = Instant::now();
    let values = json!({
        "policies": {"enabled": true},
        "audit": {"enabled": true},
        // A write that no replica answers fails.
        "webhook": {"enabled": true, "failurePolicy": "Fail"},
    });
    release::install(cluster, &values).await?;
    let installed = started.elapsed().as_secs_f64();
    let room = Room::open(cluster, "policies").await?;
    // From when this has passed the API server reaches the webhook.
    let warned = warned(cluster, &room).await?;
    room.services(SERVICES, 16, 1).await?;
    let policies = ReadyMade::new(&cluster.client, &room.name);
    let started = Instant::now();
    policies.apply(&cluster.plane, PATIENCE).await?;
    let in_force = started.elapsed().as_secs_f64();
    let refusal = policies.refusal().await?;
    let started = Instant::now();
    policies.finding(SERVICES, PATIENCE).await?;
    let found = started.elapsed().as_secs_f64();

    // Of those that are about to be replaced, too.
    let restarts = operator::restarts_of_all(cluster).await?;
    let replaced = replaced(cluster, &room).await?;
    let restarts = restarts.max(operator::restarts_of_all(cluster).await?);
    let mut rows = vec![
        Row::figure("policies: chart with all roles installed, Pods Ready", "s", installed),
        Row::figure("policies: until two are in force", "s", in_force),
        Row::figure(
            "policies: services refused that break one",
            "services",
            as_f64(usize::from(refusal.contains("denied request"))),
        )
        .at_least(1.0),
        Row::figure("audit: until it has found the services that break one", "s", found),
        Row::figure("webhook: authors told of a missing ServiceAccount", "authors", warned).at_least(1.0),
        Row::figure(
            "webhook: writes that failed while its replicas were replaced",
            "writes",
            replaced,
        )
        .at_most(0.0),
        Row::figure("roles: restarts", "restarts", restarts).at_most(0.0),
    ];
    policies.remove(&cluster.plane).await?;
    room.close().await?;
    let restarts = operator::restarts(cluster).await?;
    rows.push(Row::figure("policies: restarts of the controller", "restarts", restarts).at_most(0.0));
    release::install(cluster, &json!({})).await?;
    Ok(rows)
}

/// 1 when whoever applies a service with an account that is not there is warned.
async fn warned(cluster: &Cluster, room: &Room<'_>) -> Result<f64, Failure> {
    let service = workload::unplaced("lonely", &room.name, Some("nobody"));
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), service.to_string())?;
    let path = file.path().to_string_lossy().into_owned();
    // The API server may not know yet that the webhook is there.
    let warning = try_eventually("the author is warned", PATIENCE, async || {
        let arguments = ["apply", "--server-side", "--dry-run=server", "--filename", &path];
        let told = cluster
            .plane
            .kubectl(&arguments)
            .await
            .map_err(|error| error.to_string())?;
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        if told.contains("Warning") && told.contains("nobody") {
            Ok(())
        } else {
            Err(told)
        }
    });
    warning.await?;
    Ok(1.0)
}

/// Deletes the webhook's Pods one after the other while services are applied. Returns how many of those failed.
async fn replaced(cluster: &Cluster, room: &Room<'_>) -> Result<f64, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let of_webhook = ListParams::default().labels("app.kubernetes.io/component=webhook");
    let ready = async || {
        let found = pods.list(&of_webhook).await.map_err(|error| error.to_string())?;
        let ready = |pod: &&Pod| operator::is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        match found.items.iter().filter(ready).count() {
            2 => Ok(found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>()),
            count => Err(format!("{count} replicas are ready")),
        }
    };
    let first = try_eventually("two replicas are ready", PATIENCE, ready).await?;
    let mut failed = 0;
    let mut number = 0;
    for pod in first {
        pods.delete(&pod, &DeleteParams::default()).await?;
        let began = Instant::now();
        // Longer than the pause in which the old one goes on.
        while began.elapsed().as_secs() < 12 {
            number += 1;
            let service = workload::unplaced(&format!("during-{number}"), &room.name, Some("store-0"));
            failed += usize::from(room.apply(&[service]).await.is_err());
        }
        try_eventually("two replicas are ready again", PATIENCE, ready).await?;
    }
    Ok(as_f64(failed))
}
