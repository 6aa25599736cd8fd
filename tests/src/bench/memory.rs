//! Resident memory of leanserve in each mode, with and without thousands of unrelated Secrets in the cluster, and of a
//! kube-rs reflector of all Secrets, in the same run on the same control plane.
//!
//! The `InferenceServices` and the Secrets they refer to exist in every measurement; what differs is how many Secrets
//! exist that none of them refers to. Each run takes a fresh process of everything that is measured, one after the other.
//! All figures are the kernel's, from `/proc/PID/status`.

mod cluster;
mod rows;
pub(super) mod settle;
mod subject;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use testkit::{ControlPlane, Options, cargo_bin};

use self::{
    cluster::Cluster,
    rows::Results,
    subject::{Reading, Subject},
};
use crate::{
    Failure, Running,
    program::Interrupt,
    report::{Report, measured_versions},
    start,
    table::thousands,
};

/// Bytes in each Secret: a TLS certificate with its key has about as many.
const SECRET_BYTES: usize = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Secrets that no service refers to.
    pub secrets: usize,
    /// `InferenceServices`, each with a Secret of its own.
    pub services: usize,
    /// Fresh processes for each figure.
    pub runs: usize,
}

/// Measures, and stops everything before it returns. Says on `out` what it does.
///
/// # Errors
///
/// What kept it from measuring at all. What keeps it from measuring one thing is in the report.
pub async fn run(out: &mut dyn Write, size: Size) -> Result<Report, Failure> {
    let mut interrupt = Interrupt::listen()?;
    writeln!(
        out,
        "Building the operator and the reflector, unless they are built ..."
    )?;
    let built = tokio::task::spawn_blocking(|| {
        let peer = cargo_bin("leanserve-tests", "reflector-peer")?;
        Running::binary().map(|_| peer)
    });
    let peer = interrupt.unless(built).await?.map_err(io::Error::other)??;
    writeln!(out, "Starting a control plane ...")?;
    // Without metrics to scale by, its controller would write statuses all the time.
    let options = Options {
        horizontal_pod_autoscaler: false,
        ..Options::default()
    };
    let plane = start::control_plane(&mut interrupt, options).await?;
    let mut bench = Bench {
        out,
        interrupt,
        size,
        results: Results::new(size),
    };
    let measured = bench.measure(&plane, peer).await;
    let results = bench.results;
    let mut versions = versions();
    versions.insert(
        "kubernetes".to_owned(),
        plane
            .server_version()
            .unwrap_or_default()
            .trim_start_matches('v')
            .to_owned(),
    );
    let stopped = plane.stop().await;
    measured?;
    stopped?;
    Ok(Report::new("memory", versions, results.rows()))
}

fn versions() -> BTreeMap<String, String> {
    measured_versions(&["k8s-openapi", "kube", "kube-runtime", "leanserve", "tikv-jemallocator"])
}

struct Bench<'a> {
    out: &'a mut dyn Write,
    interrupt: Interrupt,
    size: Size,
    results: Results,
}

impl Bench<'_> {
    async fn measure(&mut self, plane: &ControlPlane, peer: std::path::PathBuf) -> Result<(), Failure> {
        let Size { secrets, services, .. } = self.size;
        writeln!(
            self.out,
            "Installing leanserve; creating {services} InferenceServices with a Secret each, and waiting until all are Ready ..."
        )?;
        let setup = Cluster::new(plane, peer, services);
        let cluster = self.interrupt.unless(setup).await??;
        self.round(&cluster, 0).await?;
        writeln!(self.out, "Creating {} Secrets of 4 kB ...", thousands(secrets))?;
        self.interrupt.unless(cluster.create_unrelated(secrets)).await??;
        self.round(&cluster, secrets).await
    }

    /// All runs of all subjects with this many unrelated Secrets. Runs of one subject are apart, so that a machine that
    /// is slow or busy for a while is so for all.
    async fn round(&mut self, cluster: &Cluster<'_>, unrelated: usize) -> Result<(), Failure> {
        for run in 1..=self.size.runs {
            for subject in Subject::ALL {
                let reading = self.interrupt.unless(cluster.measure(subject, unrelated)).await?;
                let text = match &reading {
                    Ok(Reading { settled, peak, .. }) => format!("{settled:.2} MiB settled, {peak:.2} MiB at most"),
                    Err(reason) => format!("not measured: {reason}"),
                };
                writeln!(
                    self.out,
                    "  {} Secrets, run {run} of {}, {}: {text}",
                    thousands(unrelated),
                    self.size.runs,
                    subject.name()
                )?;
                self.results.add(subject, unrelated, reading);
            }
        }
        Ok(())
    }
}
