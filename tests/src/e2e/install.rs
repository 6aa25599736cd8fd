//! Installed by chart: services become Ready and answer; an upgrade of the operator touches nothing they are made of.

use std::{collections::BTreeMap, time::Instant};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, installation::USER, report::Row, services};

const SERVICES: usize = 3;
/// What the names of the services begin with, and those of their children.
const OF_OURS: &str = "model-";

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    release::uninstall(cluster).await?;
    let started = Instant::now();
    release::install(cluster, &json!({})).await?;
    let installed = started.elapsed();
    let room = Room::open(cluster, "install").await?;
    let secret = vec!["store".to_owned()];
    let mut objects = vec![
        workload::credentials(&secret[0], &room.name, 16, 1),
        workload::account("store", &room.name, &secret),
    ];
    for number in 0..SERVICES {
        objects.push(workload::serving(&name(number), &room.name, Some("store")));
    }
    let started = Instant::now();
    room.apply(&objects).await?;
    let api = services::api(cluster.client.clone(), &room.name);
    let what = format!("{SERVICES} services are Ready");
    try_eventually(&what, PATIENCE, async || services::ready(&api, SERVICES).await).await?;
    let ready = started.elapsed();

    let mut answered = 0;
    for number in 0..SERVICES {
        let name = name(number);
        let path = format!(
            "/api/v1/namespaces/{}/services/{name}-predictor:80/proxy/v1/models/{name}",
            room.name
        );
        let answer = cluster.get(&path).await?;
        // The file that the init container left is in it.
        answered += usize::from(answer.contains(&name) && answer.contains("\"bytes\""));
    }
    let pod = operator::pod(cluster).await?;
    let mut rows = vec![
        Row::figure("install: chart installed, Pod Ready", "s", installed.as_secs_f64()),
        Row::figure("install: services Ready", "services", as_f64(SERVICES)).at_least(as_f64(SERVICES)),
        Row::figure("install: until all are Ready", "s", ready.as_secs_f64()),
        Row::figure(
            "install: Services that answered a request",
            "services",
            as_f64(answered),
        )
        .at_least(as_f64(SERVICES)),
        Row::figure(
            "install: a Pod reaches a Service by its DNS name",
            "answers",
            by_name(&room, cluster).await?,
        )
        .at_least(1.0),
        Row::figure("install: resident", "MiB", operator::settled(cluster, &pod).await?),
        Row::figure("install: restarts", "restarts", operator::restarts(cluster).await?).at_most(0.0),
    ];
    rows.extend(upgrade(cluster, &room).await?);
    room.close().await?;
    Ok(rows)
}

fn name(number: usize) -> String {
    format!("{OF_OURS}{number}")
}

/// 1 when a Pod got an answer from a service by its name.
async fn by_name(room: &Room<'_>, cluster: &Cluster) -> Result<f64, Failure> {
    let host = format!("{}-predictor.{}.svc.cluster.local", name(0), room.name);
    room.apply(&[json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": room.name},
        "spec": {"restartPolicy": "OnFailure", "containers": [{
            "name": "client",
            "image": workload::MODEL_SERVER,
            "imagePullPolicy": "IfNotPresent",
            "args": [format!("--fetch=http://{host}/v1/models/{}", name(0))],
        }]},
    })])
    .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &room.name);
    try_eventually("the client has its answer", PATIENCE, async || {
        let pod = pods.get("client").await.map_err(|error| error.to_string())?;
        match pod.status.and_then(|status| status.phase) {
            Some(phase) if phase == "Succeeded" => Ok(1.0),
            phase => Err(format!("{phase:?}")),
        }
    })
    .await
    .map_err(Failure::from)
}

/// What an upgrade must not touch: Deployments by generation, because their status changes with their Pods, Services by every
/// write, Pods by uid and restarts.
async fn children(cluster: &Cluster, room: &Room<'_>) -> Result<BTreeMap<String, String>, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &room.name);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &room.name);
    let mut seen = BTreeMap::new();
    for deployment in deployments.list(&ListParams::default()).await? {
        let generation = deployment.metadata.generation.unwrap_or_default();
        seen.insert(format!("Deployment {}", deployment.name_any()), generation.to_string());
    }
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &room.name);
    for service in services.list(&ListParams::default()).await? {
        let version = service.resource_version().unwrap_or_default();
        seen.insert(format!("Service {}", service.name_any()), version);
    }
    for pod in pods.list(&ListParams::default()).await? {
        let restarts = operator::container(&pod).map_or(0, |container| container.restart_count);
        let uid = pod.uid().unwrap_or_default();
        seen.insert(format!("Pod {}", pod.name_any()), format!("{uid}, {restarts} restarts"));
    }
    Ok(seen)
}

/// Another revision of the release and back, with services running.
async fn upgrade(cluster: &Cluster, room: &Room<'_>) -> Result<Vec<Row>, Failure> {
    let before = children(cluster, room).await?;
    let values = json!({"log": {"format": "json"}, "podAnnotations": {"leanserve.dev/e2e": "next"}});
    let upgrade = async || release::install(cluster, &values).await;
    let mut rows = revision(cluster, room, &before, "upgrade", upgrade).await?;
    let roll_back = async || release::roll_back(cluster).await;
    rows.extend(revision(cluster, room, &before, "rollback", roll_back).await?);
    Ok(rows)
}

/// What another operator does about services that are there when it starts, and whether it builds a new one.
async fn revision(
    cluster: &Cluster,
    room: &Room<'_>,
    before: &BTreeMap<String, String>,
    name: &str,
    change: impl AsyncFn() -> Result<(), Failure>,
) -> Result<Vec<Row>, Failure> {
    let mark = match cluster.audit() {
        Some(audit) => Some(audit.mark().await?),
        None => None,
    };
    change().await?;
    let pod = operator::pod(cluster).await?;
    try_eventually("the new operator has looked at every service", PATIENCE, async || {
        let passes = operator::value(cluster, &pod, "controller_runtime_reconcile_total", &[]).await;
        match passes.map_err(|error| error.to_string())? {
            passes if passes >= as_f64(SERVICES) => Ok(()),
            passes => Err(format!("{passes} passes")),
        }
    })
    .await?;
    let new = format!("after-{name}");
    room.apply(&[workload::serving(&new, &room.name, None)]).await?;
    let api = services::api(cluster.client.clone(), &room.name);
    try_eventually("a service of the new operator is Ready", PATIENCE, async || {
        let service = api.get(&new).await.map_err(|error| error.to_string())?;
        match services::condition(&service, "Ready") {
            Some((status, ..)) if status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let changed = changed(before, &children(cluster, room).await?);
    let title = format!("{name}: children changed, Pods restarted");
    let mut rows = vec![Row::figure(title, "objects", changed).at_most(0.0)];
    let title = format!("{name}: writes of services that were there, and of their children");
    rows.push(match (cluster.audit(), mark) {
        (Some(audit), Some(mark)) => {
            let writes = audit.since(&mark).await?.without_leases_and_events().writes();
            let writes = writes.filtered(|entry| {
                entry.user == USER && entry.namespace == room.name && entry.name.starts_with(OF_OURS)
            });
            let row = Row::figure(title, "writes", as_f64(writes.len())).at_most(0.0);
            row.because((!writes.is_empty()).then(|| writes.to_string()))
        }
        _ => Row::inapplicable(title, "the API server keeps no record for us"),
    });
    Ok(rows)
}

/// How many of the earlier objects are not as they were.
fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> f64 {
    let changed = before.iter().filter(|(name, state)| after.get(*name) != Some(*state));
    as_f64(changed.count())
}
