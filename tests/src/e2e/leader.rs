//! Two replicas: the leader killed, frozen for longer than its Lease, and drained while it writes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, installation::NAMESPACE, load, report::Row, services};

const LEASE: &str = "leanserve-controller";
/// Lease duration, one retry, and what an API server and a first list take on a busy machine.
const TAKEOVER_BAR: f64 = 25.0;
/// With the Lease given back nobody has to wait for it to expire.
const HANDOVER_BAR: f64 = 10.0;
/// What the chart gives a Pod to end.
const GRACE: f64 = 30.0;
/// More than an operator builds while it is told to end.
const BURST: usize = 150;

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "leader").await?;
    release::install(cluster, &json!({"replicas": 2, "leaderElection": {"enabled": true}})).await?;
    room.apply(&[workload::unplaced("first", &room.name, None)]).await?;
    room.deployments(1).await?;
    let mut rows = killed(cluster, &room).await?;
    rows.extend(frozen(cluster, &room).await?);
    rows.extend(drained(cluster, &room).await?);
    room.close().await?;
    Ok(rows)
}

/// The Pod that holds the Lease.
async fn leader(cluster: &Cluster) -> Result<String, Failure> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let found = try_eventually("a replica leads", PATIENCE, async || {
        let lease = leases.get(LEASE).await.map_err(|error| error.to_string())?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        match holder.rsplit_once('_') {
            Some((pod, _)) => Ok(pod.to_owned()),
            None => Err("nobody".to_owned()),
        }
    })
    .await?;
    Ok(found)
}

/// Waits until another Pod than `before` leads; gives it and how long after `since` that was.
async fn another_leads(cluster: &Cluster, before: &str, since: Instant) -> Result<(String, f64), Failure> {
    let next = try_eventually("another replica leads", PATIENCE, async || {
        match leader(cluster).await.map_err(|error| error.to_string())? {
            pod if pod != before => Ok(pod),
            pod => Err(pod),
        }
    })
    .await?;
    Ok((next, since.elapsed().as_secs_f64()))
}

/// Waits until another Pod than `before` leads and works; gives it and how long after `since` that was.
async fn taken_over(
    cluster: &Cluster,
    room: &Room<'_>,
    before: &str,
    since: Instant,
    service: &str,
    deployments: usize,
) -> Result<(String, f64), Failure> {
    room.apply(&[workload::unplaced(service, &room.name, None)]).await?;
    let (next, _) = another_leads(cluster, before, since).await?;
    room.deployments(deployments).await?;
    Ok((next, since.elapsed().as_secs_f64()))
}

async fn killed(cluster: &Cluster, room: &Room<'_>) -> Result<Vec<Row>, Failure> {
    let name = "leader killed: until another works";
    both_ready(cluster).await?;
    let pod = leader(cluster).await?;
    let Some(pid) = process_of(cluster, &pod).await? else {
        return Ok(vec![Row::inapplicable(
            name,
            "the node's processes are not ours to kill",
        )]);
    };
    // The kubelet would start the container again, and that could be the one that leads next.
    schedulable(cluster, false).await?;
    let seconds = without(cluster, room, &pod, pid).await;
    schedulable(cluster, true).await?;
    Ok(vec![Row::figure(name, "s", seconds?).at_most(TAKEOVER_BAR)])
}

/// Kills the leader and its Pod for good, until the other replica works.
async fn without(cluster: &Cluster, room: &Room<'_>, pod: &str, pid: Pid) -> Result<f64, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let started = Instant::now();
    send(pid, Signal::KILL)?;
    pods.delete(pod, &DeleteParams::default().grace_period(0)).await?;
    let (_, seconds) = taken_over(cluster, room, pod, started, "after-kill", 2).await?;
    Ok(seconds)
}

/// Whether new Pods may be placed on the nodes.
async fn schedulable(cluster: &Cluster, may: bool) -> Result<(), Failure> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": !may}}));
        nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

async fn frozen(cluster: &Cluster, room: &Room<'_>) -> Result<Vec<Row>, Failure> {
    let name = "leader frozen: until another works";
    both_ready(cluster).await?;
    let pod = leader(cluster).await?;
    let (Some(pid), Some(audit)) = (process_of(cluster, &pod).await?, cluster.audit()) else {
        return Ok(vec![Row::inapplicable(
            name,
            "the node's processes are not ours to stop",
        )]);
    };
    let started = Instant::now();
    send(pid, Signal::STOP)?;
    // The work that the frozen one would do first when it goes on.
    let outcome = taken_over(cluster, room, &pod, started, "after-freeze", 3).await;
    let mark = audit.mark().await?;
    send(pid, Signal::CONT)?;
    let (next, seconds) = outcome?;
    // Something to do for both, if both did it.
    for round in 0..10 {
        let touch = json!({"metadata": {"annotations": {"leanserve.dev/e2e": round.to_string()}}});
        let api = services::api(cluster.client.clone(), &room.name);
        api.patch("first", &PatchParams::default(), &Patch::Merge(touch))
            .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    room.apply(&[workload::unplaced("after-thaw", &room.name, None)])
        .await?;
    room.deployments(4).await?;
    let writes = audit.since(&mark).await?.without_leases_and_events().writes();
    let by_frozen = writes.clone().filtered(|entry| entry.pod == pod);
    let by_next = writes.filtered(|entry| entry.pod == next);
    let mut row = Row::figure(
        "leader thawed: writes of the former leader",
        "writes",
        as_f64(by_frozen.len()),
    )
    .at_most(0.0);
    if !by_frozen.is_empty() {
        row = row.because(Some(by_frozen.to_string()));
    }
    Ok(vec![
        Row::figure(name, "s", seconds).at_most(TAKEOVER_BAR),
        row,
        Row::figure(
            "leader thawed: writes of the new leader",
            "writes",
            as_f64(by_next.len()),
        )
        .at_least(1.0),
    ])
}

async fn drained(cluster: &Cluster, room: &Room<'_>) -> Result<Vec<Row>, Failure> {
    both_ready(cluster).await?;
    let pod = leader(cluster).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    // Fewer where the node's processes are not ours to kill and to stop.
    let before = room.count_deployments().await?;
    let ended = tokio::spawn(exit_code(pods.clone(), pod.clone()));
    let burst = (0..BURST).map(|number| workload::unplaced(&format!("burst-{number}"), &room.name, None));
    let burst: Vec<DynamicObject> = burst
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()
        .map_err(std::io::Error::from)?;
    let services = services::api(cluster.client.clone(), &room.name);
    let (created, evicted) = tokio::join!(load::create(&services, burst.into_iter()), async {
        // In the middle: some Deployments are there and others are not.
        room.deployments(before + 2).await?;
        let built = room.count_deployments().await? - before;
        let started = Instant::now();
        pods.evict(&pod, &EvictParams::default()).await?;
        let (_, led) = another_leads(cluster, &pod, started).await?;
        Ok::<_, Failure>((started, built, led))
    });
    created?;
    let (started, built, led) = evicted?;
    let (_, seconds) = taken_over(cluster, room, &pod, started, "after-drain", before + BURST + 1).await?;
    let told = told(cluster, room).await?;
    let (code, ended_after) = tokio::time::timeout(PATIENCE, ended)
        .await
        .map_err(std::io::Error::other)?
        .map_err(std::io::Error::other)?
        .map(|(code, at)| (code, (at - started).as_secs_f64()))
        .ok_or_else(|| Failure::Unmet(format!("Pod {pod} went without saying how it ended")))?;
    let left = as_f64(BURST.saturating_sub(built));
    Ok(vec![
        Row::figure(
            "leader drained: services not yet built at that moment",
            "services",
            left,
        )
        .at_least(1.0),
        Row::figure("leader drained: until another leads", "s", led).at_most(HANDOVER_BAR),
        // Most of it is work: making the services that go on being made meanwhile, and all they become.
        Row::figure("leader drained: until another has done all work", "s", seconds).at_most(TAKEOVER_BAR),
        Row::figure(
            "leader drained: services with all children and a status",
            "services",
            as_f64(told),
        )
        .at_least(as_f64(BURST)),
        Row::figure("leader drained: exit code", "", f64::from(code)).at_most(0.0),
        Row::figure("leader drained: until it ended", "s", ended_after).at_most(GRACE),
    ])
}

/// Waits until every service of the burst has a Service too and a status, and gives how many that are: a pass that was cut off
/// after the Deployment is to be done again by whoever leads next.
async fn told(cluster: &Cluster, room: &Room<'_>) -> Result<usize, Failure> {
    let services = services::api(cluster.client.clone(), &room.name);
    let children: Api<Service> = Api::namespaced(cluster.client.clone(), &room.name);
    let all = ListParams::default();
    let done = try_eventually("all work of the burst is done", PATIENCE, async || {
        let children = children.list_metadata(&all).await.map_err(|error| error.to_string())?;
        let children: BTreeSet<String> = children.iter().map(ResourceExt::name_any).collect();
        let services = services.list(&all).await.map_err(|error| error.to_string())?;
        let done = services.iter().filter(|service| {
            let name = service.name_any();
            let has_all = children.contains(&format!("{name}-predictor"));
            name.starts_with("burst-") && has_all && services::condition(service, "PredictorReady").is_some()
        });
        match done.count() {
            done if done == BURST => Ok(done),
            done => Err(format!("{done} of {BURST}")),
        }
    })
    .await?;
    Ok(done)
}

async fn both_ready(cluster: &Cluster) -> Result<(), Failure> {
    try_eventually("both replicas are Ready", PATIENCE, async || {
        let found = operator::pods(cluster).await.map_err(|error| error.to_string())?;
        let ready = found.iter().filter(|pod| operator::is_ready(pod)).count();
        if ready == 2 {
            Ok(())
        } else {
            Err(format!("{ready} Ready"))
        }
    })
    .await?;
    Ok(())
}

/// How the container of a Pod ended, and when that was seen.
async fn exit_code(pods: Api<Pod>, name: String) -> Option<(i32, Instant)> {
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher(pods, one).default_backoff().touched_objects();
    let mut stream = std::pin::pin!(stream);
    while let Some(pod) = stream.next().await {
        let Ok(pod) = pod else { continue };
        let state = operator::container(&pod).and_then(|container| container.state.as_ref());
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            return Some((ended.exit_code, Instant::now()));
        }
    }
    None
}

/// The operator's process in a Pod, as the machine numbers it; `None` where the node is not on this machine.
async fn process_of(cluster: &Cluster, pod: &str) -> Result<Option<Pid>, Failure> {
    if !cluster.is_own() {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let pod = pods.get(pod).await?;
    let id = operator::container(&pod).and_then(|container| container.container_id.as_deref());
    let id = id.and_then(|id| id.rsplit_once('/')).map(|(_, id)| id.to_owned());
    let id = id.ok_or_else(|| Failure::Unmet(format!("Pod {} has no container", pod.name_any())))?;
    // In cgroup v1 every controller has it; memory is one that a limit needs.
    let roots = [Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup")];
    let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
    let found = root.and_then(|root| find(root, &id, 5));
    let processes = found
        .map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")))
        .transpose()?;
    let pid = processes.and_then(|processes| processes.lines().next()?.parse().ok());
    let pid = pid.and_then(Pid::from_raw);
    pid.map(Some)
        .ok_or_else(|| Failure::Unmet(format!("container {id} has no process in the cgroups")))
}

fn find(directory: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let directories = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path());
    let directories: Vec<PathBuf> = directories.collect();
    if let Some(found) = directories.iter().find(|path| path.ends_with(name)) {
        return Some(found.clone());
    }
    let next = depth.checked_sub(1)?;
    directories.iter().find_map(|path| find(path, name, next))
}

fn send(pid: Pid, signal: Signal) -> Result<(), Failure> {
    kill_process(pid, signal).map_err(|error| Failure::Io(error.into()))
}
