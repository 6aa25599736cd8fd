//! More bytes of referred Secrets than the limit is big, changing all the time, read by name and with the overlay `watch`, which has
//! no room to hold them; and a watch that is held while Secrets change that nobody refers to.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, MARK, Room, as_f64, churn},
};
use crate::{Failure, load, report::Row, services};

const LIMIT_MIB: f64 = 40.0;
const SERVICES: usize = 500;
const SECRETS_EACH: usize = 4;
const BYTES: usize = 100_000;
const CHANGES_PER_SECOND: usize = 50;
/// Services that a watch has room for.
const WATCHED: usize = 20;
const UNRELATED: usize = 200;
const UNRELATED_PER_SECOND: usize = 1_000;
const LENGTH: Duration = Duration::from_secs(60);
/// All Secrets in use are read again in this time.
const READ_AGAIN: Duration = Duration::from_secs(6);
const BACK_WITHIN: Duration = Duration::from_secs(2);
const UNWATCHED: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(15);

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "pressure").await?;
    let values = |watch: bool, phase: &str| {
        json!({
            "secretAccess": {"watch": watch},
            // A new process each time: one that found too much rests from watching for minutes.
            "podAnnotations": {MARK: format!("pressure-{phase}")},
            // Bounds that the limit has no room for: what is derived from the limit would never need the guard.
            "config": {
                "secretAccessMode": "auto",
                "secretAccessMaxAge": "5s",
                "secretAccessMaxBytes": "512Mi",
                "secretAccessMaxSecrets": "100000",
            },
            "resources": {"limits": {"memory": format!("{LIMIT_MIB}Mi")}},
        })
    };
    release::install(cluster, &values(false, "by-name")).await?;
    let secrets: Vec<String> = (0..SERVICES * SECRETS_EACH)
        .map(|number| format!("store-{number}"))
        .collect();
    for some in secrets.chunks(100) {
        let objects: Vec<_> = some
            .iter()
            .map(|name| workload::credentials(name, &room.name, BYTES, 0))
            .collect();
        room.apply(&objects).await?;
    }
    let mut objects = Vec::new();
    for (number, own) in secrets.chunks(SECRETS_EACH).enumerate() {
        let account = format!("account-{number}");
        objects.push(workload::account(&account, &room.name, own));
        objects.push(workload::unplaced(
            &format!("model-{number}"),
            &room.name,
            Some(&account),
        ));
    }
    room.apply(&objects).await?;
    room.deployments(SERVICES).await?;
    let mut rows = Vec::new();

    let pod = operator::pod(cluster).await?;
    let api = room.secrets();
    let endpoint = |number: usize| {
        let endpoint = format!("store-{}.example:9000", number + 1);
        json!({"metadata": {"annotations": {"serving.kserve.io/s3-endpoint": endpoint}}})
    };
    let in_use = async || churn(&api, &secrets, CHANGES_PER_SECOND, LENGTH, endpoint).await;
    let changes = as_f64(CHANGES_PER_SECOND);
    rows.extend(phase(cluster, &pod, "pressure, Secrets in use", changes, in_use).await?);
    rows.push(sheds(cluster, &pod, "pressure, Secrets in use").await?);

    release::install(cluster, &values(true, "no-room")).await?;
    let pod = operator::pod(cluster).await?;
    let name = "pressure, Secrets in use, overlay watch";
    rows.extend(phase(cluster, &pod, name, changes, in_use).await?);
    rows.push(sheds(cluster, &pod, name).await?);
    room.close().await?;

    let unrelated = Room::open(cluster, "pressure-unrelated").await?;
    let names: Vec<String> = (0..UNRELATED).map(|number| format!("unrelated-{number}")).collect();
    load::create(&unrelated.secrets(), names.iter().map(|name| load::secret(name, 4_000))).await?;
    unrelated.services(WATCHED, 16, 0).await?;
    let others = unrelated.secrets();
    let touch = |number: usize| json!({"metadata": {"annotations": {"leanserve.dev/e2e": number.to_string()}}});
    // On two processors the API server itself is at its limit below 1,000 changes a second. So what it bears while nobody watches
    // is measured first, once it has rested from making them, and a watch must leave as much of it.
    tokio::time::sleep(REST).await;
    let unwatched = churn(&others, &names, UNRELATED_PER_SECOND, UNWATCHED, touch).await?;
    let unwatched = as_f64(unwatched) / UNWATCHED.as_secs_f64();
    rows.push(Row::figure(
        "pressure, unrelated Secrets that nobody watches: changes",
        "1/s",
        unwatched,
    ));

    release::install(cluster, &values(true, "watched")).await?;
    let pod = operator::pod(cluster).await?;
    let name = "pressure, unrelated Secrets under watch";
    let least = unwatched.min(as_f64(UNRELATED_PER_SECOND));
    let work = async || churn(&others, &names, UNRELATED_PER_SECOND, LENGTH, touch).await;
    rows.push(watched(cluster, &unrelated, &pod, &format!("{name}: before")).await?);
    rows.extend(phase(cluster, &pod, name, least, work).await?);
    rows.push(watched(cluster, &unrelated, &pod, &format!("{name}: after")).await?);
    unrelated.close().await?;
    Ok(rows)
}

/// How often the guard made something smaller since the process started: the first list of a watch is a part of it.
async fn sheds(cluster: &Cluster, pod: &str, name: &str) -> Result<Row, Failure> {
    let shed = operator::value(cluster, pod, "leanserve_memory_sheds_total", &[]).await?;
    Ok(Row::figure(format!("{name}: sheds of the guard"), "sheds", shed).at_least(1.0))
}

/// How many reads of Secrets the watch answers when something about each of the services changes: none when it is not held.
async fn watched(cluster: &Cluster, room: &Room<'_>, pod: &str, name: &str) -> Result<Row, Failure> {
    let services = services::api(cluster.client.clone(), &room.name);
    let answered = async || operator::value(cluster, pod, "leanserve_secret_reads_total", &["source=\"watch\""]).await;
    let before = answered().await?;
    let least = as_f64(WATCHED);
    let touched = Cell::new(0_u32);
    let answers = try_eventually("the watch answers", PATIENCE, async || {
        touched.set(touched.get() + 1);
        let touch = Patch::Merge(json!({"metadata": {"labels": {MARK: touched.get().to_string()}}}));
        for number in 0..WATCHED {
            let patched = services
                .patch(&format!("model-{number}"), &PatchParams::default(), &touch)
                .await;
            patched.map_err(|error| error.to_string())?;
        }
        match answered().await.map_err(|error| error.to_string())? - before {
            enough if enough >= least => Ok(enough),
            answers => Err(format!("{answers} reads")),
        }
    })
    .await?;
    Ok(Row::figure(format!("{name}: reads that the watch answers"), "reads", answers).at_least(least))
}

/// Memory before, at its peak and after some work of which there should be so much a second.
async fn phase(
    cluster: &Cluster,
    pod: &str,
    name: &str,
    per_second: f64,
    work: impl AsyncFn() -> Result<usize, Failure>,
) -> Result<Vec<Row>, Failure> {
    operator::settled(cluster, pod).await?;
    let before = at_rest(cluster, pod).await?;
    let started = Instant::now();
    let (made, peak) = {
        let mut peak = 0.0_f64;
        let work = work();
        tokio::pin!(work);
        let made = loop {
            tokio::select! {
                made = &mut work => break made?,
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    // A scrape may fail for a moment on a busy machine; a Pod that is gone shows in the restarts.
                    if let Ok(now) = operator::used(cluster, pod).await {
                        peak = peak.max(now);
                    }
                }
            }
        };
        (made, peak)
    };
    let rate = as_f64(made) / started.elapsed().as_secs_f64();
    tokio::time::sleep(BACK_WITHIN).await;
    let after = at_rest(cluster, pod).await?;
    Ok(vec![
        Row::figure(format!("{name}: changes"), "1/s", rate).at_least(per_second * 0.9),
        Row::figure(format!("{name}: resident before"), "MiB", before),
        Row::figure(format!("{name}: peak of what counts towards the limit"), "MiB", peak).at_most(LIMIT_MIB),
        Row::figure(
            format!("{name}: resident from 2 s after on, of before"),
            "ratio",
            after / before,
        )
        .at_most(1.2),
        Row::figure(
            format!("{name}: restarts"),
            "restarts",
            operator::restarts(cluster).await?,
        )
        .at_most(0.0),
    ])
}

/// What is resident, nine tenths of the time at most, while all Secrets in use are read once more, as they are all the time: it
/// goes up and down with that.
async fn at_rest(cluster: &Cluster, pod: &str) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < READ_AGAIN {
        // A scrape may fail for a moment on a busy machine.
        if let Ok(now) = operator::resident(cluster, pod).await {
            seen.push(now);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seen.sort_by(f64::total_cmp);
    let most = seen.get(seen.len() * 9 / 10).copied();
    most.ok_or_else(|| Failure::Unmet(format!("{pod} answers no scrape")))
}
