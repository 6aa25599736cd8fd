//! The library kube-secret-access beside named peers on a real control plane: what a read costs, what it sends, and what
//! memory it takes.
//!
//! Times are taken in this process, by clients in a runtime of one thread each, as the operator has it. Memory is that of
//! processes of their own, as the kernel has it in `/proc/PID/status`. Every peer does its work in the same run.

mod changes;
mod held;
mod hit;
mod miss;
mod process;
mod raw;
mod readers;
mod refresh;
mod runs;
mod sample;
mod scan;
mod wire;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use kube::Client;
use kube_secret_access::SecretRef;
use testkit::{ControlPlane, Options};

use self::{
    process::Programs,
    runs::Runs,
    sample::alone,
    scan::{Peaks, Scan},
};
use crate::{
    Failure, load,
    program::Interrupt,
    report::{Report, Row, measured_versions},
    start,
    table::thousands,
};

/// Bytes in a Secret: a TLS certificate with its key has about as many.
const SMALL_BYTES: usize = 4096;
const BIG_BYTES: usize = 500_000;
/// Namespaces, and what names of Secrets in them begin with.
const SMALL: (&str, &str) = ("small", "s-");
const BIG: (&str, &str) = ("big", "b-");
const WATCHED: (&str, &str) = ("watched", "w-");
const POLLED: (&str, &str) = ("polled", "p-");
const RESTING: (&str, &str) = ("resting", "r-");
/// Bytes in Secrets whose size does not matter.
const TINY_BYTES: usize = 100;
/// Big Secrets that are always scanned, and how often in a run.
const SOME_BIG: usize = 400;
const ROUNDS: usize = 3;
/// Big Secrets of the full scan.
const MANY_BIG: usize = 4_000;
/// Why the full scan is not in a report.
const NOT_ASKED: &str = "not asked for: BIG=1 does it";

/// What can be measured apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Reads answered from memory.
    Hit,
    /// Reads that need a request.
    Miss,
    /// Readers of one Secret at once.
    Readers,
    /// Memory of thousands of Secrets held.
    Held,
    /// Change events.
    Changes,
    /// Bytes of a refresh.
    Refresh,
    /// Memory of a scan over big Secrets.
    Scan,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Size {
    /// Secrets of 4 kB.
    pub secrets: usize,
    /// Runs of each figure.
    pub runs: usize,
    /// Whether 2 GB of Secrets are scanned too.
    pub big: bool,
    /// Nothing but these, if there are any.
    pub only: Vec<Part>,
}

impl Size {
    fn asks_for(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures, and stops everything before it returns. Says on `out` what it does.
///
/// # Errors
///
/// What kept it from measuring at all. What keeps it from measuring one thing is in the report.
pub async fn run(out: &mut dyn Write, size: Size) -> Result<Report, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let needed = hit::HELD.max(size.runs * miss::NEEDED);
    if size.secrets < needed {
        return Err(io::Error::other(format!("{} runs need at least {needed} Secrets", size.runs)).into());
    }
    writeln!(
        out,
        "Building the programs under measurement, unless they are built ..."
    )?;
    let built = tokio::task::spawn_blocking(Programs::built);
    let programs = interrupt.unless(built).await?.map_err(io::Error::other)??;
    writeln!(out, "Starting a control plane ...")?;
    let plane = start::control_plane(&mut interrupt, Options::bare()).await?;
    let mut bench = Bench {
        out,
        interrupt,
        size,
        plane: &plane,
        programs,
        rows: Vec::new(),
    };
    let measured = bench.measure().await;
    let rows = bench.rows;
    let mut versions = versions();
    let kubernetes = plane
        .server_version()
        .unwrap_or_default()
        .trim_start_matches('v')
        .to_owned();
    versions.insert("kubernetes".to_owned(), kubernetes);
    let stopped = plane.stop().await;
    measured?;
    stopped?;
    Ok(Report::new("secrets", versions, rows))
}

/// Rows that are not as they should be, without those that nobody asked for.
#[must_use]
pub fn failures(report: &Report) -> Vec<&str> {
    let asked = |name: &&str| {
        let row = report.rows.iter().find(|row| row.name == *name);
        row.is_none_or(|row| row.reason.as_deref() != Some(NOT_ASKED))
    };
    report.failures().into_iter().filter(asked).collect()
}

fn versions() -> BTreeMap<String, String> {
    measured_versions(&[
        "hyper",
        "hyper-util",
        "k8s-openapi",
        "kube",
        "kube-runtime",
        "kube-secret-access",
        "rustls",
        "tikv-jemallocator",
        "tokio",
    ])
}

struct Bench<'a> {
    out: &'a mut dyn Write,
    interrupt: Interrupt,
    size: Size,
    plane: &'a ControlPlane,
    programs: Programs,
    rows: Vec<Row>,
}

impl Bench<'_> {
    async fn measure(&mut self) -> Result<(), Failure> {
        let client = load::client(self.plane).await?;
        let count = self.size.secrets;
        writeln!(self.out, "Creating {} Secrets of 4 kB ...", thousands(count))?;
        let created = create(&client, SMALL, 0..count, SMALL_BYTES);
        self.interrupt.unless(created).await??;
        for kind in [WATCHED, POLLED, RESTING] {
            let created = create(&client, kind, 0..changes::TRACKED, TINY_BYTES);
            self.interrupt.unless(created).await??;
        }
        if self.size.asks_for(Part::Hit) {
            self.hits().await?;
        }
        if self.size.asks_for(Part::Miss) {
            self.misses().await?;
        }
        if self.size.asks_for(Part::Readers) {
            self.readers().await?;
        }
        if self.size.asks_for(Part::Changes) {
            self.watched(&client).await?;
        }
        // Two things that are mostly waiting go on at the same time, twice. Secrets change only in the second.
        let (plane, runs, polls) = (self.plane, self.size.runs, self.size.asks_for(Part::Changes));
        let resting = secrets(RESTING, 0..changes::TRACKED)?;
        let at_rest = async {
            let runs = changes::at_rest(plane, &resting, if polls { runs } else { 0 }).await;
            Ok(changes::at_rest_rows(&runs))
        };
        let ((), at_rest) = tokio::try_join!(self.held(&client), at_rest)?;
        let polled = secrets(POLLED, 0..changes::TRACKED)?;
        let polled = async {
            let runs = changes::polled(plane, &client, &polled, if polls { runs } else { 0 }).await;
            Ok(changes::polled_rows(
                &runs,
                changes::TRACKED.div_ceil(runs.wanted().max(1)),
            ))
        };
        let ((), polled) = tokio::try_join!(self.big(&client), polled)?;
        if polls {
            self.rows.extend(polled);
            self.rows.extend(at_rest);
        }
        Ok(())
    }

    /// What needs big Secrets.
    async fn big(&mut self, client: &Client) -> Result<(), Failure> {
        if self.size.asks_for(Part::Refresh) || self.size.asks_for(Part::Scan) {
            writeln!(self.out, "Creating {SOME_BIG} Secrets of 500 kB ...")?;
            let created = create(client, BIG, 0..SOME_BIG, BIG_BYTES);
            self.interrupt.unless(created).await??;
        }
        if self.size.asks_for(Part::Refresh) {
            self.refreshes().await?;
        }
        if self.size.asks_for(Part::Scan) {
            self.scans(client).await?;
        }
        Ok(())
    }

    async fn hits(&mut self) -> Result<(), Failure> {
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let (config, secrets) = (self.plane.config().await?, secrets(SMALL, 0..hit::HELD)?);
            let measured = self.interrupt.unless(alone(|| hit::run(config, secrets))).await?;
            runs.add(measured);
            self.done("hits", run, runs.failed())?;
        }
        self.rows.extend(hit::rows(&runs));
        Ok(())
    }

    async fn misses(&mut self) -> Result<(), Failure> {
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let own = (run - 1) * miss::NEEDED..run * miss::NEEDED;
            let (config, secrets) = (self.plane.config().await?, secrets(SMALL, own)?);
            let measured = self
                .interrupt
                .unless(alone(move || miss::run(config, secrets, run)))
                .await?;
            runs.add(measured);
            self.done("misses", run, runs.failed())?;
        }
        self.rows.extend(miss::rows(&runs));
        Ok(())
    }

    async fn readers(&mut self) -> Result<(), Failure> {
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let own = (run - 1) * readers::NEEDED..run * readers::NEEDED;
            let measured = readers::run(self.plane, secrets(SMALL, own)?);
            runs.add(self.interrupt.unless(measured).await?);
            self.done("readers at once", run, runs.failed())?;
        }
        self.rows.extend(readers::rows(&runs));
        Ok(())
    }

    async fn watched(&mut self, client: &Client) -> Result<(), Failure> {
        let secrets = secrets(WATCHED, 0..changes::TRACKED)?;
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let measured = changes::watched(self.plane, client, &secrets);
            runs.add(self.interrupt.unless(measured).await?);
            self.done("changes told by a watch", run, runs.failed())?;
        }
        self.rows.extend(changes::watched_rows(&runs));
        Ok(())
    }

    async fn held(&mut self, client: &Client) -> Result<(), Failure> {
        if !self.size.asks_for(Part::Held) {
            return Ok(());
        }
        let changing = secrets(WATCHED, 0..held::CHANGES)?;
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let all = held::All {
                namespace: SMALL.0,
                prefix: SMALL.1,
                count: self.size.secrets,
            };
            let measured = held::run(self.plane, &self.programs, all, async || {
                changes::make(client, &changing).await
            });
            runs.add(self.interrupt.unless(measured).await?);
            self.done("all Secrets held", run, runs.failed())?;
        }
        self.rows.extend(held::rows(&runs, self.size.secrets));
        Ok(())
    }

    async fn refreshes(&mut self) -> Result<(), Failure> {
        let mut runs = Runs::new(self.size.runs);
        for run in 1..=self.size.runs {
            let (config, big, small) = (self.plane.config().await?, secret(BIG, run - 1)?, secret(SMALL, 0)?);
            let measured = self
                .interrupt
                .unless(alone(|| refresh::run(config, big, small)))
                .await?;
            runs.add(measured);
            self.done("refreshes", run, runs.failed())?;
        }
        self.rows.extend(refresh::rows(&runs));
        Ok(())
    }

    async fn scans(&mut self, client: &Client) -> Result<(), Failure> {
        self.scan(SOME_BIG, ROUNDS).await?;
        if !self.size.big {
            self.rows.extend(scan::not_asked(MANY_BIG, NOT_ASKED));
            return Ok(());
        }
        writeln!(
            self.out,
            "Creating {} Secrets of 500 kB in all ...",
            thousands(MANY_BIG)
        )?;
        let created = create(client, BIG, SOME_BIG..MANY_BIG, BIG_BYTES);
        self.interrupt.unless(created).await??;
        self.scan(MANY_BIG, 1).await
    }

    async fn scan(&mut self, secrets: usize, rounds: usize) -> Result<(), Failure> {
        let (namespace, prefix) = BIG;
        let scan = Scan {
            namespace,
            prefix,
            secrets,
            rounds,
        };
        let mut peaks = Peaks::new(self.size.runs);
        for run in 1..=self.size.runs {
            let measured = peaks.run(self.plane, &self.programs, scan);
            self.interrupt.unless(measured).await?;
            self.done(
                &format!("scans of {} big Secrets", thousands(secrets)),
                run,
                peaks.failed(),
            )?;
        }
        self.rows.extend(peaks.rows(secrets));
        Ok(())
    }

    fn done(&mut self, what: &str, run: usize, failed: Option<&str>) -> io::Result<()> {
        let failed = failed.map_or_else(String::new, |reason| format!(": not measured: {reason}"));
        writeln!(self.out, "  {what}, run {run} of {}{failed}", self.size.runs)
    }
}

fn secret((namespace, prefix): (&str, &str), number: usize) -> Result<SecretRef, Failure> {
    Ok(SecretRef::new(namespace, &format!("{prefix}{number}")).map_err(io::Error::other)?)
}

fn secrets(kind: (&str, &str), numbers: std::ops::Range<usize>) -> Result<Vec<SecretRef>, Failure> {
    numbers.map(|number| secret(kind, number)).collect()
}

/// Creates Secrets, and their namespace with the first of them.
async fn create(
    client: &Client,
    (namespace, prefix): (&str, &str),
    numbers: std::ops::Range<usize>,
    bytes: usize,
) -> Result<(), Failure> {
    if numbers.start == 0 {
        load::namespace(client, namespace).await?;
    }
    let api = kube::Api::namespaced(client.clone(), namespace);
    let secrets = numbers.map(|number| load::secret(&format!("{prefix}{number}"), bytes));
    Ok(load::create(&api, secrets).await?)
}
