//! The API server restarted, the rights on Secrets taken away and given back; a real Prometheus looks on.

use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator,
    prometheus::Scrape,
    release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, report::Row, services};

/// How long the API server is away: longer than a request of the operator may take.
const AWAY: Duration = Duration::from_secs(20);
const CREDENTIALS: &str = "leanserve-credentials";
const ALERT: &str = "LeanserveSecretReadsFailing";

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "outage").await?;
    release::install(cluster, &json!({})).await?;
    operator::configure(cluster, &json!({"secretAccessMaxAge": "5s"})).await?;
    let secret = vec!["store".to_owned()];
    room.apply(&[
        workload::credentials("store", &room.name, 16, 1),
        workload::account("store", &room.name, &secret),
        workload::unplaced("before", &room.name, Some("store")),
    ])
    .await?;
    room.deployments(1).await?;
    let pod = operator::pod(cluster).await?;
    let mut rows = api_server(cluster, &room).await?;
    rows.extend(rights(cluster, &room, &pod).await?);
    operator::configure(cluster, &json!({"secretAccessMaxAge": null})).await?;
    room.close().await?;
    Ok(rows)
}

async fn api_server(cluster: &Cluster, room: &Room<'_>) -> Result<Vec<Row>, Failure> {
    let name = "API server away for 20 s: until a service is built again";
    if !cluster.is_own() {
        return Ok(vec![Row::inapplicable(name, "the API server is not ours to stop")]);
    }
    cluster.order("stop", "kube-apiserver").await?;
    tokio::time::sleep(AWAY).await;
    cluster.order("start", "kube-apiserver").await?;
    let started = Instant::now();
    try_eventually("the API server takes a service", PATIENCE, async || {
        let applied = room
            .apply(&[workload::unplaced("after-outage", &room.name, Some("store"))])
            .await;
        applied.map_err(|error| error.to_string())
    })
    .await?;
    room.deployments(2).await?;
    let seconds = started.elapsed().as_secs_f64();
    operator::pod(cluster).await?;
    Ok(vec![
        Row::figure(name, "s", seconds),
        Row::figure(
            "API server away: restarts",
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    ])
}

async fn rights(cluster: &Cluster, room: &Room<'_>, pod: &str) -> Result<Vec<Row>, Failure> {
    let scrape = Scrape::start(cluster, pod).await?;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    // As helm, which would refuse to change what another has changed.
    let without = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": CREDENTIALS},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}],
    });
    roles
        .patch(CREDENTIALS, &PatchParams::apply("helm").force(), &Patch::Apply(without))
        .await?;
    // A Secret that was never read: nothing of it is known.
    room.apply(&[
        workload::credentials("fresh", &room.name, 16, 1),
        workload::account("fresh", &room.name, &["fresh".to_owned()]),
        workload::unplaced("without-rights", &room.name, Some("fresh")),
    ])
    .await?;
    let api = services::api(cluster.client.clone(), &room.name);
    let told = try_eventually("the service says what is missing", PATIENCE, async || {
        let service = api.get("without-rights").await.map_err(|error| error.to_string())?;
        match services::condition(&service, "PredictorReady") {
            Some((status, _, message))
                if status == "False" && message.contains("fresh") && message.to_lowercase().contains("forbidden") =>
            {
                Ok(1.0)
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let fired = scrape.until(ALERT, true).await?;
    release::install(cluster, &json!({})).await?;
    let started = Instant::now();
    room.deployments(3).await?;
    let seconds = started.elapsed().as_secs_f64();
    let cleared = scrape.until(ALERT, false).await?;
    Ok(vec![
        Row::figure("rights on Secrets revoked: services that say so", "services", told).at_least(as_f64(1)),
        Row::figure(
            "rights on Secrets revoked: the alert fires, its times shortened",
            "s",
            fired,
        ),
        Row::figure("rights on Secrets granted: until the service is built", "s", seconds),
        Row::figure(
            "rights on Secrets granted: the alert clears, its times shortened",
            "s",
            cleared,
        ),
        Row::figure(
            "rights on Secrets: restarts",
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    ])
}
