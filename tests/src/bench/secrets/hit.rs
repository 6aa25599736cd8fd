//! Reads that are answered from memory.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Config;
use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Source, Switch, Want};

use super::{
    runs::Runs,
    sample::{Times, clock, nanoseconds},
};
use crate::{Failure, report::Row};

/// Secrets held and read, in an order that no cache of the processor knows.
pub(super) const HELD: usize = 1_000;
/// Reads timed one by one: two thousand of them are beyond the 99th percentile.
const SINGLE: usize = 200_000;
/// Reads timed together, and how often.
const BATCH: usize = 100;
const BATCHES: usize = 2_000;
/// Longer than a run, so that everything stays a hit.
const AGE: Duration = Duration::from_secs(3600);

/// Of one run, in nanoseconds.
pub(super) struct Hit {
    p50: f64,
    p99: f64,
    batched: f64,
    same: f64,
    clock: f64,
}

/// Fills a cache from the control plane and reads from it.
pub(super) async fn run(config: Config, secrets: Vec<SecretRef>) -> Result<Hit, Failure> {
    let options = AccessOptions::for_mode(Mode::Lru).with_bounds(2 * HELD, 64 << 20, AGE);
    let access = Switch::new(kube_secret_access::client(config)?, options).map_err(io::Error::other)?;
    stream::iter(&secrets)
        .map(|secret| access.read(secret, Want::default()))
        .buffer_unordered(16)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(io::Error::other)?;

    let clock = clock()?;
    let mut order = Order::of(&secrets);
    let mut single = Times::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let secret = order.next();
        let began = Instant::now();
        black_box(access.read(secret, Want::default()).await.is_ok());
        single.add(began.elapsed());
    }
    let mut batched = Times::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..BATCH {
            black_box(access.read(order.next(), Want::default()).await.is_ok());
        }
        batched.add(began.elapsed());
    }
    let mut same = Times::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..BATCH {
            black_box(access.read(&secrets[0], Want::default()).await.is_ok());
        }
        same.add(began.elapsed());
    }
    for secret in &secrets {
        let read = access.read(secret, Want::default()).await.map_err(io::Error::other)?;
        if read.source() != Source::Cache {
            return Err(io::Error::other(format!("a read was no hit: {}", read.source().as_str())).into());
        }
    }
    let batch = nanoseconds(Duration::from_nanos(BATCH as u64));
    Ok(Hit {
        p50: single.measured(50)? - clock,
        p99: single.measured(99)? - clock,
        batched: batched.measured(50)? / batch,
        same: same.measured(50)? / batch,
        clock,
    })
}

pub(super) fn rows(runs: &Runs<Hit>) -> Vec<Row> {
    vec![
        runs.row("hit: p50", "ns", |hit| hit.p50).at_most(200.0),
        runs.row("hit: p99", "ns", |hit| hit.p99).at_most(1_000.0),
        runs.row("hit: a read, timed a hundred at a time", "ns", |hit| hit.batched),
        runs.row(
            "hit: the same Secret again and again, timed a hundred at a time",
            "ns",
            |hit| hit.same,
        ),
        runs.row("clock, subtracted from p50 and p99 above", "ns", |hit| hit.clock),
    ]
}

/// All Secrets again and again, in an order that looks random.
struct Order<'a> {
    secrets: &'a [SecretRef],
    state: u64,
}

impl<'a> Order<'a> {
    fn of(secrets: &'a [SecretRef]) -> Self {
        Self { secrets, state: 1 }
    }

    fn next(&mut self) -> &'a SecretRef {
        // The multiplier and increment of Knuth's MMIX.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The upper bits are the random ones; what is left of them fits any usize.
        let random = usize::try_from(self.state >> 33).unwrap_or_default();
        &self.secrets[random % self.secrets.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube_secret_access::SecretRef;

    use super::Order;

    #[test]
    fn every_secret_has_its_turn() {
        let secrets: Vec<SecretRef> = (0..50)
            .map(|number| SecretRef::new("a", &format!("s-{number}")).expect("valid"))
            .collect();
        let mut order = Order::of(&secrets);
        let seen: BTreeSet<String> = (0..2_000).map(|_| order.next().name().to_owned()).collect();
        assert_eq!(seen.len(), secrets.len());
    }
}
