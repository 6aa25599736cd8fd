//! What it costs to be told that a big Secret has not changed.

use std::io;

use kube::Config;
use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Source, Switch, Want};

use super::{raw, runs::Runs, wire::Proxy};
use crate::{Failure, report::Row};

/// A refresh takes at most this part of a fetch.
const BAR: f64 = 1.0 / 20.0;
const RAW: &str = "raw hyper client, fetch";
const UNIT: &str = "kB";

/// Kilobytes on the wire, both ways.
pub(super) struct Refresh {
    fetch: f64,
    proof: f64,
    peer: f64,
}

/// Fetches and refreshes `big` on a connection that is open already, thanks to `small`.
pub(super) async fn run(config: Config, big: SecretRef, small: SecretRef) -> Result<Refresh, Failure> {
    let proxy = Proxy::before(&config, true).await?;
    let config = proxy.config(&config)?;
    let client = kube_secret_access::client(config.clone())?;
    let access = Switch::new(client, AccessOptions::for_mode(Mode::Lru)).map_err(io::Error::other)?;
    let read = async |secret: &SecretRef, want: Want, source: Source| {
        let before = proxy.bytes();
        let read = access.read(secret, want).await.map_err(io::Error::other)?;
        if read.source() != source {
            return Err(io::Error::other(format!("a read was {}", read.source().as_str())));
        }
        Ok(kilobytes(proxy.bytes() - before))
    };
    read(&small, Want::default(), Source::Api).await?;
    let fetch = read(&big, Want::default(), Source::Api).await?;
    let proof = read(&big, Want::quorum(), Source::Revalidated).await?;

    let raw = raw::client(&config).await?;
    raw.get(&small).await?;
    let before = proxy.bytes();
    raw.get(&big).await?;
    Ok(Refresh {
        fetch,
        proof,
        peer: kilobytes(proxy.bytes() - before),
    })
}

pub(super) fn rows(runs: &Runs<Refresh>) -> Vec<Row> {
    let peer = || runs.spread(|run| run.peer);
    let refresh = runs.row(
        "refresh of an unchanged Secret of 500 kB: bytes on the wire",
        UNIT,
        |run| run.proof,
    );
    // The least of a fetch: none of the runs has an easier bar.
    let bar = peer().map_or(0.0, |peer| (peer.least * BAR * 10.0).floor() / 10.0);
    vec![
        refresh.beside(RAW, peer()).at_most(bar),
        runs.row("fetch of a Secret of 500 kB: bytes on the wire", UNIT, |run| run.fetch)
            .beside(RAW, peer()),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "no run has 2^53 bytes")]
fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1000.0
}
