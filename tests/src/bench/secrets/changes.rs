//! How soon a change of a Secret is told, and what it costs to look out for changes.

use std::{io, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use kube_secret_access::{
    AccessOptions, Changes, Mode, ObjectRef, SecretAccess, SecretRef, Source, Switch, TrackGuard, Want,
};
use serde_json::json;
use testkit::{ControlPlane, try_eventually};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::runs::Runs;
use crate::{Failure, report::Row};

/// Secrets tracked.
pub(super) const TRACKED: usize = 100;
/// Changes in each run, one after the other, with a watch.
const WATCHED_CHANGES: usize = 40;
/// How soon a watch tells of each of them, in milliseconds.
const WATCHED_BAR: f64 = 250.0;
/// A tenth of what a hundred Secrets at rest may cost, in requests a second.
const REST_BAR: f64 = 0.2;
/// How long requests are counted in each run: as long as the library waits between polls of one Secret.
const WINDOW: Duration = Duration::from_secs(60);
/// Tracking begins with a poll of each Secret, ten a second: that is not rest.
const START: Duration = Duration::from_secs(15);
/// Between changes that are made for their own sake.
const PACE: Duration = Duration::from_millis(200);
/// On a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of one run.
pub(super) struct Delays {
    half: Duration,
    longest: Duration,
    promised: Duration,
}

impl Delays {
    fn of(mut delays: Vec<Duration>, promised: Duration) -> Result<Self, Failure> {
        delays.sort_unstable();
        let half = delays.get(delays.len() / 2).copied();
        let both = half.zip(delays.last().copied());
        let (half, longest) = both.ok_or_else(|| io::Error::other("no changes"))?;
        Ok(Self {
            half,
            longest,
            promised,
        })
    }
}

/// An access that tracks Secrets.
struct Tracking {
    access: Switch,
    changes: Changes,
    _guards: Vec<TrackGuard>,
}

impl Tracking {
    async fn of(plane: &ControlPlane, options: AccessOptions, secrets: &[SecretRef]) -> Result<Self, Failure> {
        let client = kube_secret_access::client(plane.config().await?)?;
        let access = Switch::new(client, options).map_err(io::Error::other)?;
        let changes = access.changes();
        let guards = secrets.iter().map(|secret| {
            let owner = ObjectRef::new("InferenceService", "models", secret.name());
            access.track(secret.clone(), owner)
        });
        Ok(Self {
            _guards: guards.collect(),
            changes,
            access,
        })
    }

    /// Waits for the next change and says of which Secret it is.
    async fn next(&mut self, deadline: Instant) -> Result<SecretRef, Failure> {
        let changed = timeout_at(deadline, self.changes.next())
            .await
            .map_err(io::Error::other)?;
        let changed = changed.ok_or_else(|| io::Error::other("changes have ended"))?;
        Ok(changed.secret)
    }
}

/// Changes Secrets that a watch holds. The time runs from before the write is sent.
pub(super) async fn watched(plane: &ControlPlane, client: &Client, secrets: &[SecretRef]) -> Result<Delays, Failure> {
    let mut options = AccessOptions::for_mode(Mode::Watch);
    options.watch.namespaces = secrets
        .iter()
        .take(1)
        .map(|secret| secret.namespace().to_owned())
        .collect();
    let mut tracking = Tracking::of(plane, options, secrets).await?;
    for secret in secrets {
        let held = try_eventually("the watch holds the Secret", PATIENCE, async || {
            match tracking.access.read(secret, Want::cached()).await {
                Ok(read) if read.source() == Source::Watch => Ok(()),
                Ok(read) => Err(format!("it came from {}", read.source().as_str())),
                Err(error) => Err(error.to_string()),
            }
        });
        held.await?;
    }
    let mut delays = Vec::with_capacity(WATCHED_CHANGES);
    for secret in secrets.iter().cycle().take(WATCHED_CHANGES) {
        let began = Instant::now();
        change(client, secret).await?;
        let told = tracking.next(began + PATIENCE).await?;
        if told != *secret {
            return Err(io::Error::other(format!("a change of {told} was told, and not of {secret}")).into());
        }
        delays.push(began.elapsed());
    }
    Delays::of(delays, tracking.access.change_delay())
}

/// Secrets that are polled, in as many runs as wanted at the same time: each tracks all, and waits for changes of its part.
pub(super) async fn polled(
    plane: &ControlPlane,
    client: &Client,
    secrets: &[SecretRef],
    wanted: usize,
) -> Runs<Delays> {
    let parts = secrets.chunks(secrets.len().div_ceil(wanted.max(1))).take(wanted);
    let measured = join_all(parts.map(|part| polled_once(plane, client, secrets, part))).await;
    let mut runs = Runs::new(wanted);
    for run in measured {
        runs.add(run);
    }
    runs
}

async fn polled_once(
    plane: &ControlPlane,
    client: &Client,
    secrets: &[SecretRef],
    part: &[SecretRef],
) -> Result<Delays, Failure> {
    let mut tracking = Tracking::of(plane, AccessOptions::for_mode(Mode::Lru), secrets).await?;
    sleep_until(Instant::now() + START).await;
    let promised = tracking.access.change_delay();
    let start = Instant::now();
    // One change after the other, over the time that polls of one Secret are apart.
    let pause = WINDOW / u32::try_from(part.len()).map_err(io::Error::other)?;
    let mut waiting: Vec<(&SecretRef, Instant)> = Vec::new();
    let mut delays = Vec::with_capacity(part.len());
    let mut left = part.iter();
    let mut due = start;
    while delays.len() < part.len() {
        let told = tokio::select! {
            told = tracking.next(start + WINDOW + 2 * promised) => told?,
            () = sleep_until(due), if !left.as_slice().is_empty() => {
                if let Some(secret) = left.next() {
                    waiting.push((secret, Instant::now()));
                    change(client, secret).await?;
                }
                due += pause;
                continue;
            }
        };
        waiting.retain(|(secret, began)| {
            let other = **secret != told;
            if !other {
                delays.push(began.elapsed());
            }
            other
        });
    }
    Delays::of(delays, promised)
}

/// Requests a second that tracking takes while nothing changes.
pub(super) async fn at_rest(plane: &ControlPlane, secrets: &[SecretRef], wanted: usize) -> Runs<f64> {
    let mut runs = Runs::new(wanted);
    if wanted == 0 {
        return runs;
    }
    let tracking = match Tracking::of(plane, AccessOptions::for_mode(Mode::Lru), secrets).await {
        Ok(tracking) => tracking,
        Err(failure) => {
            runs.add(Err(failure));
            return runs;
        }
    };
    sleep_until(Instant::now() + START).await;
    for _ in 0..wanted {
        runs.add(requests_a_second(plane, secrets).await);
    }
    drop(tracking);
    runs
}

async fn requests_a_second(plane: &ControlPlane, secrets: &[SecretRef]) -> Result<f64, Failure> {
    let audit = plane.audit().ok_or_else(|| io::Error::other("there is no audit log"))?;
    let namespace = secrets.first().map_or("", SecretRef::namespace);
    let began = Instant::now();
    let mark = audit.mark().await?;
    sleep_until(began + WINDOW).await;
    let requests = audit.since(&mark).await?.on_resource("secrets").in_namespace(namespace);
    let elapsed = began.elapsed().as_secs_f64();
    Ok(u32::try_from(requests.len()).map_or(f64::MAX, f64::from) / elapsed)
}

/// Changes each of these, over a time in which an allocator gives back what is not used: jemalloc does so when memory is
/// taken or freed, over ten seconds.
pub(super) async fn make(client: &Client, secrets: &[SecretRef]) -> Result<(), Failure> {
    let mut due = Instant::now();
    for secret in secrets {
        change(client, secret).await?;
        due += PACE;
        sleep_until(due).await;
    }
    Ok(())
}

async fn change(client: &Client, secret: &SecretRef) -> Result<(), Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), secret.namespace());
    // Differs from what was there: no two are made at the same nanosecond.
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let patch = Patch::Merge(json!({"stringData": {"changed": now}}));
    api.patch(secret.name(), &PatchParams::default(), &patch).await?;
    Ok(())
}

pub(super) fn watched_rows(runs: &Runs<Delays>) -> Vec<Row> {
    let name = |what: &str| format!("watch: change to event, {what} of {WATCHED_CHANGES}");
    vec![
        runs.row(name("the longest"), "ms", |delays| milliseconds(delays.longest))
            .at_most(WATCHED_BAR),
        runs.row(name("half"), "ms", |delays| milliseconds(delays.half)),
    ]
}

pub(super) fn polled_rows(runs: &Runs<Delays>, count: usize) -> Vec<Row> {
    let name = |what: &str| format!("get only, {TRACKED} tracked: change to event, {what} of {count}");
    let promised = runs
        .spread(|delays| delays.promised.as_secs_f64())
        .map_or(0.0, |promised| promised.least);
    vec![
        runs.row(name("the longest"), "s", |delays| delays.longest.as_secs_f64())
            .at_most(promised),
        runs.row(name("half"), "s", |delays| delays.half.as_secs_f64()),
    ]
}

pub(super) fn at_rest_rows(runs: &Runs<f64>) -> Vec<Row> {
    let tens = f64::from(u32::try_from(TRACKED / 10).unwrap_or(u32::MAX));
    let name = format!("get only, {TRACKED} tracked at rest: requests for each ten");
    vec![runs.row(name, "1/s", |requests| requests / tens).at_most(REST_BAR)]
}

fn milliseconds(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}
