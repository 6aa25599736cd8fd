//! More bytes of referred Secrets than the limit is big, changing and read all the time, by name and with the overlay `watch`, which
//! has no room to hold them; and a watch that is held while Secrets change that nobody refers to.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::try_eventually;

use super::{
    Cluster, PATIENCE, operator, release,
    workload::{self, MARK, Room, as_f64, churn},
};
use crate::{Failure, load, report::Row, running::metric, services};

const LIMIT_MIB: f64 = 40.0;
const SERVICES: usize = 500;
const SECRETS_EACH: usize = 4;
const BYTES: usize = 100_000;
const CHANGES_PER_SECOND: usize = 50;
/// Services that a watch has room for.
const WATCHED: usize = 20;
const UNRELATED: usize = 200;
const UNRELATED_PER_SECOND: usize = 1_000;
/// Fewer would prove nothing, whatever the API server bears.
const LEAST_UNRELATED_PER_SECOND: f64 = 500.0;
const LENGTH: Duration = Duration::from_secs(60);
/// Fewer looks at memory than this would miss its peak.
const LEAST_LOOKS: usize = 30;
/// Services that read their Secrets again, one after the other and from the first on again.
const READERS_PER_SECOND: usize = 25;
/// How long memory is looked at.
const LOOKED_AT: Duration = Duration::from_secs(6);
/// Twice what it takes to look at all Secrets in use once, at ten a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(400);
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// Without a read for so long, reading has ended.
const UNREAD: Duration = Duration::from_secs(1);
const UNWATCHED: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(15);

pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let mut rows = in_use(cluster).await?;
    rows.extend(unrelated(cluster).await?);
    Ok(rows)
}

fn values(watch: bool, phase: &str) -> Value {
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
}

/// Secrets that services use change, read by name and with a watch that has no room for them.
async fn in_use(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "pressure").await?;
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

    let api = room.secrets();
    let services = services::api(cluster.client.clone(), &room.name);
    let readers: Vec<String> = (0..SERVICES).map(|number| format!("model-{number}")).collect();
    let reads = Cell::new(0);
    let mut rounds = Rounds::new(secrets.len());
    let least = 0.9 * as_f64(CHANGES_PER_SECOND);
    for (name, watch) in [
        ("pressure, Secrets in use", false),
        ("pressure, Secrets in use, overlay watch", true),
    ] {
        if watch {
            release::install(cluster, &values(true, "no-room")).await?;
        }
        let pod = operator::pod(cluster).await?;
        let first = rounds.next;
        let endpoint = |number: usize| {
            let endpoint = format!("store-{}.example:9000", first + number);
            json!({"metadata": {"annotations": {"serving.kserve.io/s3-endpoint": endpoint}}})
        };
        let touch = |number: usize| json!({"metadata": {"labels": {MARK: number.to_string()}}});
        let work = async || {
            let writers = churn(&api, &secrets, CHANGES_PER_SECOND, LENGTH, endpoint);
            let readers = churn(&services, &readers, READERS_PER_SECOND, LENGTH, touch);
            let (written, passes) = tokio::try_join!(writers, readers)?;
            reads.set(passes * SECRETS_EACH);
            Ok(written)
        };
        let before = Counters::of(cluster, &pod).await?;
        let phase = phase(cluster, &pod, name, least, work).await?;
        let after = Counters::of(cluster, &pod).await?;
        rounds.made(phase.made);
        rows.extend(phase.rows);
        rows.push(
            Row::figure(
                format!("{name}: sheds of the guard"),
                "sheds",
                after.sheds - before.sheds,
            )
            .at_least(1.0),
        );
        // Changes and touches of a service that come together take one pass, and more come together on a slow machine.
        rows.push(
            Row::figure(format!("{name}: Secrets read"), "reads", after.found - before.found)
                .at_least(as_f64(reads.get()) / 4.0),
        );
        rows.push(
            Row::figure(
                format!("{name}: services built with what was written last"),
                "services",
                as_f64(rounds.arrived(cluster, &room).await?),
            )
            .at_least(as_f64(SERVICES)),
        );
        // The operator goes on reading for as long as it notices what was changed.
        unread(cluster, &pod).await?;
        rows.extend(over(cluster, &pod, name, phase.before, BACK_WITHIN.saturating_sub(UNREAD)).await?);
    }
    room.close().await?;
    Ok(rows)
}

/// Secrets that nobody uses change under a watch.
async fn unrelated(cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let unrelated = Room::open(cluster, "pressure-unrelated").await?;
    let names: Vec<String> = (0..UNRELATED).map(|number| format!("unrelated-{number}")).collect();
    load::create(&unrelated.secrets(), names.iter().map(|name| load::secret(name, 4_000))).await?;
    unrelated.services(WATCHED, 16, 0).await?;
    let others = unrelated.secrets();
    let touch = |number: usize| json!({"metadata": {"annotations": {"leanserve.dev/e2e": number.to_string()}}});
    // On two processors the API server itself is at its limit below 1,000 changes a second, and how far below varies with what
    // else the machine does. What it bears while nobody watches is measured first, once it has rested from making the objects.
    tokio::time::sleep(REST).await;
    let began = Instant::now();
    let unwatched = churn(&others, &names, UNRELATED_PER_SECOND, UNWATCHED, touch).await?;
    let unwatched = as_f64(unwatched) / began.elapsed().as_secs_f64();
    rows.push(
        Row::figure(
            "pressure, unrelated Secrets that nobody watches: changes",
            "1/s",
            unwatched,
        )
        .at_least(LEAST_UNRELATED_PER_SECOND),
    );

    release::install(cluster, &values(true, "watched")).await?;
    let pod = operator::pod(cluster).await?;
    let name = "pressure, unrelated Secrets under watch";
    let work = async || churn(&others, &names, UNRELATED_PER_SECOND, LENGTH, touch).await;
    rows.push(watched(cluster, &unrelated, &pod, &format!("{name}: before")).await?);
    let phase = phase(cluster, &pod, name, LEAST_UNRELATED_PER_SECOND, work).await?;
    rows.extend(phase.rows);
    rows.extend(over(cluster, &pod, name, phase.before, BACK_WITHIN).await?);
    rows.push(watched(cluster, &unrelated, &pod, &format!("{name}: after")).await?);
    unrelated.close().await?;
    Ok(rows)
}

/// What the operator has done since its process started.
struct Counters {
    /// How often the guard made something smaller.
    sheds: f64,
    /// Reads that found a Secret.
    found: f64,
}

impl Counters {
    async fn of(cluster: &Cluster, pod: &str) -> Result<Self, Failure> {
        let text = operator::metrics(cluster, pod).await?;
        Ok(Self {
            sheds: metric(&text, "leanserve_memory_sheds_total", &[]),
            found: metric(&text, "leanserve_secret_reads_total", &["result=\"found\""]),
        })
    }
}

/// Which round each Secret has that was changed last, so that it can be told whether a service is built with that. A round is
/// never given twice.
struct Rounds {
    of: Vec<usize>,
    next: usize,
}

impl Rounds {
    fn new(secrets: usize) -> Self {
        Self {
            of: vec![0; secrets],
            next: 1,
        }
    }

    /// So many changes were made in turn, from the first Secret on.
    fn made(&mut self, changes: usize) {
        for change in 0..changes {
            let secret = change % self.of.len();
            self.of[secret] = self.next + change;
        }
        self.next += changes;
    }

    /// Waits until every service is built with the last round of one of its Secrets, and gives how many that are.
    async fn arrived(&self, cluster: &Cluster, room: &Room<'_>) -> Result<usize, Failure> {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &room.name);
        let all = ListParams::default();
        let arrived = try_eventually("what was written last arrives", NOTICED_WITHIN, async || {
            let found = deployments.list(&all).await.map_err(|error| error.to_string())?;
            let arrived = found.iter().filter(|deployment| {
                let name = deployment.name_any();
                let number = name
                    .strip_prefix("model-")
                    .and_then(|rest| rest.strip_suffix("-predictor"));
                let number = number.and_then(|number| number.parse::<usize>().ok());
                let own = number.and_then(|number| self.of.chunks(SECRETS_EACH).nth(number));
                let round = workload::round_in(deployment);
                own.zip(round).is_some_and(|(own, round)| own.contains(&round))
            });
            match arrived.count() {
                arrived if arrived == SERVICES => Ok(arrived),
                arrived => Err(format!("{arrived} of {SERVICES} services")),
            }
        })
        .await?;
        Ok(arrived)
    }
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

/// What some work has shown.
struct Phase {
    /// How much was done.
    made: usize,
    /// Resident memory before, in MiB.
    before: f64,
    rows: Vec<Row>,
}

/// Memory before and at its peak under some work of which there must be so much a second.
async fn phase(
    cluster: &Cluster,
    pod: &str,
    name: &str,
    least: f64,
    work: impl AsyncFn() -> Result<usize, Failure>,
) -> Result<Phase, Failure> {
    operator::settled(cluster, pod).await?;
    let before = at_rest(cluster, pod).await?;
    let started = Instant::now();
    let (made, peak) = {
        let (mut peak, mut looks) = (0.0_f64, 0);
        let work = work();
        tokio::pin!(work);
        let made = loop {
            tokio::select! {
                made = &mut work => break made?,
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    // A scrape may fail for a moment on a busy machine; a Pod that is gone shows in the restarts.
                    if let Ok(now) = operator::used(cluster, pod).await {
                        peak = peak.max(now);
                        looks += 1;
                    }
                }
            }
        };
        if looks < LEAST_LOOKS {
            return Err(Failure::Unmet(format!("{name}: {pod} answered only {looks} scrapes")));
        }
        (made, peak)
    };
    let rate = as_f64(made) / started.elapsed().as_secs_f64();
    let rows = vec![
        Row::figure(format!("{name}: changes"), "1/s", rate).at_least(least),
        Row::figure(format!("{name}: resident before"), "MiB", before),
        Row::figure(format!("{name}: peak of what counts towards the limit"), "MiB", peak).at_most(LIMIT_MIB),
    ];
    Ok(Phase { made, before, rows })
}

/// Waits until no Secret was read for a second.
async fn unread(cluster: &Cluster, pod: &str) -> Result<(), Failure> {
    try_eventually("no Secret is read any more", NOTICED_WITHIN, async || {
        let found = async || Counters::of(cluster, pod).await.map_err(|error| error.to_string());
        let before = found().await?.found;
        tokio::time::sleep(UNREAD).await;
        match found().await?.found - before {
            none if none < 0.5 => Ok(()),
            reads => Err(format!("{reads} reads in a second")),
        }
    })
    .await?;
    Ok(())
}

/// Whether memory is what it was before, after as much of the 2 s as is left since the work has ended.
async fn over(cluster: &Cluster, pod: &str, name: &str, before: f64, rest: Duration) -> Result<[Row; 2], Failure> {
    tokio::time::sleep(rest).await;
    let after = at_rest(cluster, pod).await?;
    let restarts = operator::restarts(cluster).await?;
    Ok([
        Row::figure(
            format!("{name}: resident from 2 s after on, of before"),
            "ratio",
            after / before,
        )
        .at_most(1.2),
        Row::figure(format!("{name}: restarts"), "restarts", restarts).at_most(0.0),
    ])
}

/// What is resident, nine tenths of the time at most: it goes up and down with what is read.
async fn at_rest(cluster: &Cluster, pod: &str) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < LOOKED_AT {
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
