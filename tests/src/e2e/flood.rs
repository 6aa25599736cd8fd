//! Thousands of Secrets that nobody refers to, and a limit of 64 MiB. The naive controller beside the operator shows that
//! the limit bites.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE,
    cluster::NAIVE_IMAGE,
    operator, release,
    workload::{self, MARK, Room, as_f64},
};
use crate::{Failure, load, report::Row};

const LIMIT: &str = "64Mi";
const UNRELATED: usize = 8_000;
const BYTES: usize = 4_000;
const REFERENCED: usize = 100;
const THRESHOLD: usize = 2_000;

/// How a fall-back shows in the metrics.
const SWITCHES: &str = "leanserve_secret_access_mode_switches_total";
const CAUSE: [&str; 1] = ["too_many"];

fn values(watch: bool) -> Value {
    json!({
        "secretAccess": {"watch": watch},
        // A running operator asks again for a right that it was denied only after a while.
        "podAnnotations": {"leanserve.dev/e2e": format!("flood-{watch}")},
        "config": {"secretAccessMode": "auto", "secretAccessMaxSecrets": THRESHOLD.to_string()},
        "resources": {"limits": {"memory": LIMIT}},
    })
}

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "flood").await?;
    release::install(cluster, &values(true)).await?;
    room.services(REFERENCED, 16, 1).await?;
    let pod = operator::pod(cluster).await?;
    let before = operator::settled(cluster, &pod).await?;
    let events = operator::events(cluster, "SecretAccessModeMoved").await?;

    let unrelated = Room::open(cluster, "flood-unrelated").await?;
    let secrets = (0..UNRELATED).map(|number| load::secret(&format!("unrelated-{number}"), BYTES));
    load::create(&unrelated.secrets(), secrets).await?;
    let fallen = try_eventually("the operator falls back", PATIENCE, async || {
        let fallen = operator::value(cluster, &pod, SWITCHES, &CAUSE).await;
        match fallen.map_err(|error| error.to_string())? {
            fallen if fallen > 0.0 => Ok(fallen),
            fallen => Err(format!("{fallen} fall-backs")),
        }
    })
    .await?;
    let sent = try_eventually("an Event tells of it", PATIENCE, async || {
        let sent = operator::events(cluster, "SecretAccessModeMoved").await;
        match sent.map_err(|error| error.to_string())? - events {
            sent if sent > 0.0 => Ok(sent),
            sent => Err(format!("{sent} Events")),
        }
    })
    .await?;
    let log = operator::log(cluster, &pod).await?;
    let logged = log
        .lines()
        .filter(|line| line.contains("another way") && line.contains("too_many"));
    let logged = as_f64(logged.count());
    // Work goes on.
    room.apply(&[workload::unplaced("after-the-flood", &room.name, Some("store-0"))])
        .await?;
    room.deployments(REFERENCED + 1).await?;
    let after = operator::settled(cluster, &pod).await?;
    let mut rows = vec![
        Row::figure("flood, overlay watch: resident before", "MiB", before),
        Row::figure(
            format!("flood, overlay watch: resident with {UNRELATED} Secrets"),
            "MiB",
            after,
        )
        .at_most(64.0),
        Row::figure("flood, overlay watch: fall-backs in the metric", "fall-backs", fallen).at_least(1.0),
        Row::figure("flood, overlay watch: fall-backs as Events", "Events", sent).at_least(1.0),
        Row::figure("flood, overlay watch: fall-backs in the log", "lines", logged).at_least(1.0),
        Row::figure(
            "flood, overlay watch: restarts",
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    ];
    rows.push(naive(cluster, &room).await?);

    rows.extend(default_rights(cluster, &room, unrelated).await?);
    room.close().await?;
    Ok(rows)
}

/// The same with the default rights: what is not referred to costs nothing.
async fn default_rights(cluster: &Cluster, room: &Room<'_>, unrelated: Room<'_>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    // A new process, with the flood already there.
    release::install(cluster, &values(false)).await?;
    let pod = operator::pod(cluster).await?;
    room.apply(&[workload::unplaced("default-rights", &room.name, Some("store-1"))])
        .await?;
    room.deployments(REFERENCED + 2).await?;
    let with = operator::settled(cluster, &pod).await?;
    rows.push(
        Row::figure(
            "flood, default rights: fall-backs",
            "fall-backs",
            operator::value(cluster, &pod, SWITCHES, &CAUSE).await?,
        )
        .at_most(0.0),
    );
    // Of the Pod that saw the flood; the next one replaces it.
    rows.push(
        Row::figure(
            "flood, default rights: restarts",
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    );
    unrelated.close().await?;
    // A new process again, without the flood.
    let mut restarted = values(false);
    restarted["podAnnotations"] = json!({"leanserve.dev/e2e": "without-flood"});
    release::install(cluster, &restarted).await?;
    let pod = operator::pod(cluster).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let without = operator::settled(cluster, &pod).await?;
    rows.push(Row::figure(
        format!("flood, default rights: resident with {UNRELATED} Secrets"),
        "MiB",
        with,
    ));
    rows.push(Row::figure(
        "flood, default rights: resident without them",
        "MiB",
        without,
    ));
    rows.push(Row::figure("flood, default rights: difference", "MiB", with - without).at_most(1.5));
    Ok(rows)
}

/// How often the kernel ended a kube-rs reflector of all Secrets with the same limit.
async fn naive(cluster: &Cluster, room: &Room<'_>) -> Result<Row, Failure> {
    let (name, namespace) = ("naive-controller", room.name.as_str());
    let labels = json!({"app": name});
    room.apply(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {MARK: "true"}},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": {MARK: "true"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"serviceAccountName": name, "containers": [{
                        "name": name,
                        "image": NAIVE_IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {"limits": {"memory": LIMIT}},
                    }]},
                },
            },
        }),
    ])
    .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let killed = try_eventually("the kernel ends the naive controller", PATIENCE, async || {
        let selected = ListParams::default().labels(&format!("app={name}"));
        let found = pods.list(&selected).await.map_err(|error| error.to_string())?;
        let ended = found.iter().filter_map(operator::container).filter_map(|container| {
            let now = container.state.as_ref()?.terminated.as_ref();
            let last = container
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            now.or(last)
        });
        let reasons: Vec<_> = ended.map(|ended| (ended.reason.clone(), ended.exit_code)).collect();
        match reasons.first() {
            Some((Some(reason), 137)) if reason == "OOMKilled" => Ok(1.0),
            _ => Err(format!("{} {reasons:?}", workload::names(&found.items))),
        }
    })
    .await?;
    for kind in ["clusterrolebinding", "clusterrole"] {
        cluster.plane.kubectl_stdout(&["delete", kind, name]).await?;
    }
    cluster
        .plane
        .kubectl_stdout(&["delete", "deployment", name, "-n", namespace])
        .await?;
    Ok(Row::figure(
        "flood: a reflector of all Secrets beside it, OOMKilled",
        "kills",
        killed,
    )
    .at_least(1.0))
}
