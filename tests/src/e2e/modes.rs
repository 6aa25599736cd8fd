//! The mode of reading Secrets, changed a thousand times through the `ConfigMap` while Secrets change and are read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, Room, as_f64},
};
use crate::{Failure, report::Row, running::metric};

const SERVICES: usize = 20;
const SWITCHES: &str = "leanserve_secret_access_mode_switches_total";
const FLIPS: usize = 1_000;
/// How many versions of its Secret each service is to be built with at least while modes change, so that going back would show.
const LEAST_VERSIONS_EACH: f64 = 5.0;
const MODES: [&str; 4] = ["direct", "lru", "watch", "auto"];

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "modes").await?;
    release::install(
        cluster,
        &json!({
            "secretAccess": {"watch": true},
            // A running operator asks again for a right that it was denied only after a while.
            "podAnnotations": {"leanserve.dev/e2e": "modes"},
        }),
    )
    .await?;
    operator::configure(cluster, &json!({"secretAccessMaxAge": "5s"})).await?;
    room.services(SERVICES, 2_000, 0).await?;
    let pod = operator::pod(cluster).await?;
    let before = operator::settled(cluster, &pod).await?;

    let reads_before = operator::value(cluster, &pod, "leanserve_secret_reads_total", &[]).await?;
    let watched = Watched::start(cluster, &room);
    let writer = Writer::start(&room);
    let started = Instant::now();
    for number in 0..FLIPS {
        let mode = MODES[number % MODES.len()];
        operator::configure(cluster, &json!({"secretAccessMode": mode})).await?;
        let label = format!("mode=\"{mode}\"");
        try_eventually("the operator has changed its mode", PATIENCE, async || {
            let set = operator::value(cluster, &pod, "leanserve_secret_access_mode", &[&label]).await;
            match set.map_err(|error| error.to_string())? {
                set if set > 0.0 => Ok(()),
                _ => Err(mode.to_owned()),
            }
        })
        .await?;
    }
    let took = started.elapsed();
    let last = writer.stop().await?;
    // Before what was written last arrives, which would be enough for every service to be seen once more.
    let (seen_meanwhile, _) = watched.counts();
    let reads_meanwhile = operator::value(cluster, &pod, "leanserve_secret_reads_total", &[]).await? - reads_before;
    // What was written last arrives, whatever the mode is now.
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &room.name);
    for (number, round) in last.iter().enumerate() {
        let service = format!("model-{number}");
        try_eventually(
            "the last change arrives",
            PATIENCE,
            async || match workload::round_of(&deployments, &service).await {
                Ok(Some(seen)) if seen == *round => Ok(()),
                seen => Err(format!("{service}: {seen:?} and not {round}")),
            },
        )
        .await?;
    }
    let (_, back) = watched.counts();
    drop(watched);
    let text = operator::metrics(cluster, &pod).await?;
    let reads = metric(&text, "leanserve_secret_reads_total", &[]);
    let found = metric(&text, "leanserve_secret_reads_total", &["result=\"found\""]);
    let switches = metric(&text, SWITCHES, &["cause=\"config\""]);
    let denied = metric(&text, SWITCHES, &["cause=\"watch_denied\""]);
    operator::configure(cluster, &json!({"secretAccessMode": null, "secretAccessMaxAge": null})).await?;
    let after = operator::settled(cluster, &pod).await?;
    let rows = vec![
        Row::figure("modes: changes of the ConfigMap", "changes", as_f64(FLIPS)),
        Row::figure("modes: switches counted", "switches", switches).at_least(as_f64(FLIPS) * 0.999 - 1.0),
        Row::figure("modes: watches denied", "watches", denied).at_most(0.0),
        Row::figure("modes: until all were in force", "s", took.as_secs_f64()),
        Row::figure(
            "modes: writes of Secrets meanwhile",
            "writes",
            as_f64(last.iter().sum()),
        ),
        Row::figure("modes: reads of Secrets meanwhile", "reads", reads_meanwhile).at_least(as_f64(FLIPS)),
        Row::figure("modes: reads that failed", "reads", reads - found).at_most(0.0),
        Row::figure(
            "modes: versions seen in Deployments meanwhile",
            "versions",
            as_f64(seen_meanwhile),
        )
        .at_least(as_f64(SERVICES) * LEAST_VERSIONS_EACH),
        Row::figure(
            "modes: Deployments that went back to an older Secret",
            "times",
            as_f64(back),
        )
        .at_most(0.0),
        Row::figure("modes: resident before", "MiB", before),
        Row::figure("modes: resident after, of before", "ratio", after / before).at_most(1.2),
        Row::figure("modes: restarts", "restarts", operator::restarts(cluster).await?).at_most(0.0),
    ];
    room.close().await?;
    Ok(rows)
}

/// Changes the Secrets in turn, each change with a number greater by one.
struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Vec<usize>, kube::Error>>,
}

impl Writer {
    fn start(room: &Room<'_>) -> Self {
        let (secrets, stop) = (room.secrets(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut rounds = vec![0; SERVICES];
            while !stopped.load(Ordering::Relaxed) {
                for (number, round) in rounds.iter_mut().enumerate() {
                    let endpoint = format!("store-{}.example:9000", *round + 1);
                    let patch = json!({"metadata": {"annotations": {"serving.kserve.io/s3-endpoint": endpoint}}});
                    let name = format!("store-{number}");
                    secrets
                        .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))
                        .await?;
                    *round += 1;
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
            }
            Ok(rounds)
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<Vec<usize>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await.map_err(std::io::Error::other)??)
    }
}

/// Watches the Deployments and counts those that were built with an older Secret than before.
struct Watched {
    task: tokio::task::JoinHandle<()>,
    seen: Arc<AtomicUsize>,
    back: Arc<AtomicUsize>,
}

impl Watched {
    fn start(cluster: &Cluster, room: &Room<'_>) -> Self {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &room.name);
        let (seen, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let newest = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
        let (count, count_back) = (Arc::clone(&seen), Arc::clone(&back));
        let task = tokio::spawn(async move {
            let stream = watcher(deployments, watcher::Config::default())
                .default_backoff()
                .applied_objects();
            stream
                .for_each(|deployment| {
                    if let Ok(deployment) = deployment
                        && let Some(round) = workload::round_in(&deployment)
                    {
                        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
                        let known = newest.entry(deployment.name_any()).or_default();
                        match round.cmp(known) {
                            std::cmp::Ordering::Less => {
                                count_back.fetch_add(1, Ordering::Relaxed);
                            }
                            std::cmp::Ordering::Greater => {
                                count.fetch_add(1, Ordering::Relaxed);
                                *known = round;
                            }
                            std::cmp::Ordering::Equal => {}
                        }
                    }
                    std::future::ready(())
                })
                .await;
        });
        Self { task, seen, back }
    }

    /// How many newer and how many older versions were seen until now.
    fn counts(&self) -> (usize, usize) {
        (self.seen.load(Ordering::Relaxed), self.back.load(Ordering::Relaxed))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
