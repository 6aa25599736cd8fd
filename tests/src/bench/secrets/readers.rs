//! A thousand readers who want the same Secret at the same time.

use std::{io, sync::Arc};

use futures::future::{join_all, try_join_all};
use kube::Config;
use kube_secret_access::{AccessOptions, Mode, ReadResult, SecretAccess, SecretRef, Switch, Want};
use testkit::ControlPlane;
use tokio::sync::Barrier;

use super::{runs::Runs, sample::alone};
use crate::{Failure, report::Row};

const READERS: usize = 1_000;

/// How many Secrets one run reads.
pub(super) const NEEDED: usize = 5;

/// Requests in the API server's audit log.
#[derive(Clone, Copy)]
struct Requests {
    with_age: f64,
    quorum: f64,
}

/// One run.
pub(super) struct Shared {
    /// All reads begin before the first answer can come: they are in one task, in a runtime of one thread.
    together: Requests,
    /// Each read is a task of its own, in a runtime of two threads: they begin over a time in which answers come.
    in_tasks: Requests,
}

/// Secrets that are not held, each read by a thousand at once; the first of them opens the connection.
pub(super) async fn run(plane: &ControlPlane, secrets: Vec<SecretRef>) -> Result<Shared, Failure> {
    let [first, secrets @ ..] = &secrets[..] else {
        return Err(io::Error::other("no Secrets to read").into());
    };
    let mut requests = Vec::with_capacity(secrets.len());
    for (secret, (want, in_tasks)) in secrets.iter().zip([
        (Want::default(), false),
        (Want::quorum(), false),
        (Want::default(), true),
        (Want::quorum(), true),
    ]) {
        let audit = plane.audit().ok_or_else(|| io::Error::other("there is no audit log"))?;
        let (config, first, again) = (plane.config().await?, first.clone(), secret.clone());
        let mark = audit.mark().await?;
        if in_tasks {
            read_in_tasks(&open(config, &first).await?, &again, &want).await?;
        } else {
            alone(|| async move {
                let access = open(config, &first).await?;
                read_together(&access, &again, &want).await
            })
            .await?;
        }
        let sent = audit.since(&mark).await?.on_resource("secrets");
        let sent = sent.in_namespace(secret.namespace()).named(secret.name());
        requests.push(u32::try_from(sent.len()).map_or(f64::MAX, f64::from));
    }
    let of = |start: usize| {
        let with_age = requests.get(start).copied();
        let quorum = requests.get(start + 1).copied();
        let both = with_age
            .zip(quorum)
            .map(|(with_age, quorum)| Requests { with_age, quorum });
        both.ok_or_else(|| io::Error::other("too few Secrets to read"))
    };
    Ok(Shared {
        together: of(0)?,
        in_tasks: of(2)?,
    })
}

/// A new access with an open connection.
async fn open(config: Config, first: &SecretRef) -> Result<Arc<Switch>, Failure> {
    let client = kube_secret_access::client(config)?;
    let access = Switch::new(client, AccessOptions::for_mode(Mode::Lru)).map_err(io::Error::other)?;
    access.read(first, Want::default()).await.map_err(io::Error::other)?;
    Ok(Arc::new(access))
}

async fn read_together(access: &Switch, secret: &SecretRef, want: &Want) -> Result<(), Failure> {
    let reads: Vec<_> = (0..READERS).map(|_| access.read(secret, want.clone())).collect();
    all_well(join_all(reads).await)
}

async fn read_in_tasks(access: &Arc<Switch>, secret: &SecretRef, want: &Want) -> Result<(), Failure> {
    let start = Arc::new(Barrier::new(READERS));
    let readers = (0..READERS).map(|_| {
        let (access, secret, want, start) = (Arc::clone(access), secret.clone(), want.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            access.read(&secret, want).await
        })
    });
    let readers: Vec<_> = readers.collect();
    all_well(try_join_all(readers).await.map_err(io::Error::other)?)
}

fn all_well(reads: Vec<ReadResult>) -> Result<(), Failure> {
    let failed = reads.into_iter().find_map(Result::err);
    failed.map_or(Ok(()), |error| Err(io::Error::other(error).into()))
}

pub(super) fn rows(runs: &Runs<Shared>) -> Vec<Row> {
    let what = "1,000 readers of a Secret not held";
    let together = |want: &str, part: fn(&Requests) -> f64| {
        runs.row(format!("{what}, at once, {want}: requests"), "", move |run| {
            part(&run.together)
        })
    };
    let in_tasks = |want: &str, part: fn(&Requests) -> f64| {
        runs.row(
            format!("{what}, in tasks on two threads, {want}: requests"),
            "",
            move |run| part(&run.in_tasks),
        )
    };
    let (aged, quorum) = ("content with an age", "demanding a quorum");
    vec![
        together(aged, |requests| requests.with_age).at_most(1.0),
        together(quorum, |requests| requests.quorum).at_most(2.0),
        in_tasks(aged, |requests| requests.with_age).at_most(1.0),
        in_tasks(quorum, |requests| requests.quorum),
    ]
}
