//! Reads that need a request, beside the same GETs of hyper's client and of kube-rs.

use std::{
    io,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use hyper_util::client::legacy::connect::Connect;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Config};
use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Source, Switch, Want};

use super::{
    raw::{self, Raw},
    runs::Runs,
    sample::{Times, nanoseconds, thread_cpu},
};
use crate::{Failure, report::Row};

/// GETs of each client, one at a time.
const ONE_BY_ONE: usize = 300;
/// GETs of each client in a turn, and turns, with so many in flight.
const BLOCK: usize = 100;
const BLOCKS: usize = 12;
pub(super) const IN_FLIGHT: usize = 16;
/// Before anything is timed: every connection is open, and every client has been through its code.
const WARM_UP: usize = 5 * IN_FLIGHT;

/// How many Secrets one run reads.
pub(super) const NEEDED: usize = WARM_UP + ONE_BY_ONE + BLOCKS * BLOCK;

/// How much slower than hyper's client a miss may be.
const BAR: f64 = 1.10;
const RAW: &str = "raw hyper client";
const API: &str = "kube-rs Api::get";
/// Their indices.
const OURS: usize = 0;
const PEER: usize = 1;
const KUBE: usize = 2;

/// What one client did in one run.
#[derive(Clone, Copy, Default)]
struct Figures {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    cpu_us: f64,
}

/// One of them.
type Part = fn(&Figures) -> f64;

/// One run: the library, hyper's client, kube-rs.
pub(super) struct Miss([Figures; 3]);

/// A client under measurement.
enum Subject<C> {
    Library(Switch),
    Raw(Raw<C>),
    Api(Client),
}

impl<C: Connect + Clone + Send + Sync + 'static> Subject<C> {
    async fn get(&self, secret: &SecretRef) -> Result<(), Failure> {
        match self {
            Self::Library(access) => {
                let read = access.read(secret, Want::default()).await.map_err(io::Error::other)?;
                if read.source() != Source::Api {
                    return Err(io::Error::other(format!("a read was no miss: {}", read.source().as_str())).into());
                }
            }
            Self::Raw(raw) => {
                raw.get(secret).await?;
            }
            Self::Api(client) => {
                let api: Api<Secret> = Api::namespaced(client.clone(), secret.namespace());
                api.get(secret.name()).await?;
            }
        }
        Ok(())
    }
}

/// Reads these Secrets, which must be [`NEEDED`] and are read by nobody else, with new clients. `turn` says who begins.
pub(super) async fn run(config: Config, secrets: Vec<SecretRef>, turn: usize) -> Result<Miss, Failure> {
    let access = Switch::new(
        kube_secret_access::client(config.clone())?,
        AccessOptions::for_mode(Mode::Lru),
    );
    let subjects = [
        Subject::Library(access.map_err(io::Error::other)?),
        Subject::Raw(raw::client(&config).await?),
        Subject::Api(Client::try_from(config)?),
    ];
    let (warm_up, secrets) = secrets.split_at(WARM_UP);
    for subject in &subjects {
        at_once(subject, warm_up).await?;
    }
    let (one_by_one, blocks) = secrets.split_at(ONE_BY_ONE);
    let mut results = [Figures::default(); 3];

    let mut times = [(); 3].map(|()| Times::with_capacity(ONE_BY_ONE));
    for (step, secret) in one_by_one.iter().enumerate() {
        for client in order(turn + step) {
            let began = Instant::now();
            subjects[client].get(secret).await?;
            times[client].add(began.elapsed());
        }
    }
    for (result, times) in results.iter_mut().zip(&mut times) {
        result.p50_us = times.measured(50)? / 1000.0;
        result.p99_us = times.measured(99)? / 1000.0;
    }

    let mut spent = [(Duration::ZERO, Duration::ZERO); 3];
    for (step, block) in blocks.chunks(BLOCK).enumerate() {
        for client in order(turn + step) {
            let (began, cpu) = (Instant::now(), thread_cpu()?);
            at_once(&subjects[client], block).await?;
            spent[client].0 += began.elapsed();
            spent[client].1 += thread_cpu()?.saturating_sub(cpu);
        }
    }
    let gets = nanoseconds(Duration::from_nanos(blocks.len() as u64));
    for (result, (elapsed, cpu)) in results.iter_mut().zip(spent) {
        result.per_second = gets / elapsed.as_secs_f64();
        result.cpu_us = nanoseconds(cpu) / 1000.0 / gets;
    }
    Ok(Miss(results))
}

async fn at_once<C>(subject: &Subject<C>, secrets: &[SecretRef]) -> Result<(), Failure>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    stream::iter(secrets)
        .map(|secret| subject.get(secret))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}

/// Each of the six orders of three clients in turn, so that none has the better place.
fn order(step: usize) -> [usize; 3] {
    let first = step % 3;
    let (second, third) = if (step / 3).is_multiple_of(2) { (1, 2) } else { (2, 1) };
    [first, (first + second) % 3, (first + third) % 3]
}

pub(super) fn rows(runs: &Runs<Miss>) -> Vec<Row> {
    let figures: [(&str, &str, Part); 4] = [
        ("one at a time: p50", "µs", |figures| figures.p50_us),
        ("one at a time: p99", "µs", |figures| figures.p99_us),
        ("16 in flight: reads", "1/s", |figures| figures.per_second),
        ("16 in flight: CPU of a read", "µs", |figures| figures.cpu_us),
    ];
    let mut rows = Vec::new();
    for (name, unit, part) in figures {
        for (name_of_peer, peer) in [(RAW, PEER), (API, KUBE)] {
            let row = runs.row(format!("miss, {name}, beside {name_of_peer}"), unit, |miss| {
                part(&miss.0[OURS])
            });
            rows.push(row.beside(name_of_peer, runs.spread(|miss| part(&miss.0[peer]))));
        }
    }
    let slower = |name: &str, ratio: fn(&Figures, &Figures) -> f64| {
        let name = format!("miss, {name}, times the {RAW}'s");
        runs.row(name, "x", |miss| ratio(&miss.0[OURS], &miss.0[PEER]))
            .at_most(BAR)
    };
    rows.push(slower("one at a time: p50", |ours, peer| ours.p50_us / peer.p50_us));
    rows.push(slower("16 in flight: time", |ours, peer| {
        peer.per_second / ours.per_second
    }));
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::order;

    #[test]
    fn all_orders_come() {
        let orders: BTreeSet<[usize; 3]> = (0..6).map(order).collect();
        assert_eq!(orders.len(), 6);
        assert_eq!(order(0), order(6));
        for order in orders {
            assert_eq!(BTreeSet::from(order).len(), 3);
        }
    }
}
