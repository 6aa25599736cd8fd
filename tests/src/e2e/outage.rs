//! The API server restarted, the rights on Secrets taken away and given back; a real Prometheus looks on.

use std::time::{Duration, Instant};

use k8s_openapi::{api::rbac::v1::ClusterRole, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use testkit::{audit::AuditEntries, try_eventually};

use super::{
    Cluster, PATIENCE, operator,
    prometheus::Scrape,
    release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, installation::NAMESPACE, report::Row, services};

/// How long the API server is away: longer than a request of the operator may take.
const AWAY: Duration = Duration::from_secs(20);
/// Seconds from the operator's first request that gets through to the Deployment of a service that it could not know of.
/// How long none gets through is not the operator's: kube-proxy takes up to a minute to find the API server again.
const RECOVERY_BAR: f64 = 10.0;
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
    let Some(audit) = cluster.audit() else {
        return Ok(vec![Row::inapplicable(name, "the API server is not ours to stop")]);
    };
    let mark = audit.mark().await?;
    cluster.order("stop", "kube-apiserver").await?;
    tokio::time::sleep(AWAY).await;
    let back = Timestamp::now();
    cluster.order("start", "kube-apiserver").await?;
    let started = Instant::now();
    let service = "after-outage";
    try_eventually("the API server takes a service", PATIENCE, async || {
        let applied = room
            .apply(&[workload::unplaced(service, &room.name, Some("store"))])
            .await;
        applied.map_err(|error| error.to_string())
    })
    .await?;
    room.deployments(2).await?;
    let seconds = started.elapsed().as_secs_f64();
    let asked = audit.since(&mark).await?.by_service_account(NAMESPACE, "leanserve");
    let recovery = recovery(&asked, back, service)?;
    operator::pod(cluster).await?;
    Ok(vec![
        Row::figure(name, "s", seconds),
        Row::figure(
            "API server away: from the operator's first answer until then",
            "s",
            recovery,
        )
        .at_most(RECOVERY_BAR),
        Row::figure(
            "API server away: restarts",
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    ])
}

/// Seconds from the first request after `back` to the one that makes the service's Deployment.
fn recovery(asked: &AuditEntries, back: Timestamp, service: &str) -> Result<f64, Failure> {
    let (mut first, mut built) = (None::<Timestamp>, None::<Timestamp>);
    for entry in asked.iter() {
        let received: Timestamp = entry
            .received
            .parse()
            .map_err(|error| Failure::Unmet(format!("{entry}: no time: {error}")))?;
        if received < back {
            continue;
        }
        first = Some(first.map_or(received, |first| first.min(received)));
        if entry.is_write() && entry.resource == "deployments" && entry.name.starts_with(service) {
            built = Some(built.map_or(received, |built| built.min(received)));
        }
    }
    match (first, built) {
        (Some(first), Some(built)) => Ok(built.duration_since(first).as_secs_f64()),
        missing => Err(Failure::Unmet(format!(
            "the audit log lacks the operator's first request or that for {service}: {missing:?}"
        ))),
    }
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
