//! What it takes to hold thousands of Secrets by a watch, beside a kube-rs reflector.

use std::{fs, io, time::Duration};

use kube::Config;
use tempfile::TempDir;
use testkit::ControlPlane;

use super::{
    process::{Process, Programs},
    runs::Runs,
    wire::Proxy,
};
use crate::{
    Failure,
    bench::memory::settle::{Reading, settled},
    report::Row,
    table::thousands,
};

const REFLECTOR: &str = "kube-rs reflector";
/// Memory over idle, as part of the reflector's.
const SHARE: f64 = 0.60;
/// The peak of the first list, as part of what is settled.
const PEAK: f64 = 1.25;

/// Secrets that change after the first measurement.
pub(super) const CHANGES: usize = 60;
/// On a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The Secrets to hold.
#[derive(Clone, Copy)]
pub(super) struct All<'a> {
    pub(super) namespace: &'a str,
    pub(super) prefix: &'a str,
    pub(super) count: usize,
}

/// One process, in MiB.
#[derive(Clone, Copy)]
struct Memory {
    idle: f64,
    settled: f64,
    peak: f64,
    /// Settled again after some changes.
    active: f64,
}

/// One figure of a process.
type Part = fn(&Memory) -> f64;

impl Memory {
    fn over_idle(&self) -> f64 {
        self.settled - self.idle
    }

    fn active_over_idle(&self) -> f64 {
        self.active - self.idle
    }

    fn peak_over_settled(&self) -> f64 {
        self.peak / self.settled
    }
}

/// The library and the reflector, at the same time.
pub(super) struct Held {
    library: Memory,
    reflector: Memory,
}

/// Lets fresh processes hold all Secrets of the cluster, first while nothing changes, then after `change`.
pub(super) async fn run(
    plane: &ControlPlane,
    programs: &Programs,
    all: All<'_>,
    change: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<Held, Failure> {
    let (library, reflector) = tokio::try_join!(library(plane, programs, all), reflector(plane, programs))?;
    change().await?;
    let (library, reflector) = tokio::try_join!(library.again(), reflector.again())?;
    Ok(Held { library, reflector })
}

/// A process that holds everything.
struct Holding {
    process: Process,
    idle: Reading,
    settled: Reading,
    /// What goes with it.
    _proxy: Option<(Proxy, TempDir)>,
}

impl Holding {
    async fn again(self) -> Result<Memory, Failure> {
        let active = rest(&self.process).await?;
        self.process.stop().await?;
        Ok(Memory {
            idle: self.idle.settled,
            settled: self.settled.settled,
            peak: self.settled.peak,
            active: active.settled,
        })
    }
}

async fn library(plane: &ControlPlane, programs: &Programs, all: All<'_>) -> Result<Holding, Failure> {
    let arguments = [
        "--mode=watch".to_owned(),
        format!("--namespace={}", all.namespace),
        format!("--prefix={}", all.prefix),
        format!("--count={}", all.count),
    ];
    let mut process = programs.reader(plane.kubeconfig_path(), &arguments, None).await?;
    let idle = rest(&process).await?;
    process.works().await?;
    Ok(Holding {
        settled: rest(&process).await?,
        process,
        idle,
        _proxy: None,
    })
}

/// It lists as soon as it runs, so what it connects to is closed until it has been measured idle.
async fn reflector(plane: &ControlPlane, programs: &Programs) -> Result<Holding, Failure> {
    let config = plane.config().await?;
    let proxy = Proxy::before(&config, false).await?;
    let (directory, kubeconfig) = kubeconfig(plane, &config, &proxy)?;
    let mut process = Process::spawn(&programs.reflector, vec!["--kubeconfig".into(), kubeconfig.into()])?;
    let idle = rest(&process).await?;
    proxy.open();
    process.says("Secrets held:", PATIENCE).await?;
    Ok(Holding {
        settled: rest(&process).await?,
        process,
        idle,
        _proxy: Some((proxy, directory)),
    })
}

async fn rest(process: &Process) -> Result<Reading, Failure> {
    Ok(settled(process.operator()).await.map_err(io::Error::other)?)
}

/// The control plane's kubeconfig with the proxy for its server, for as long as the directory exists.
fn kubeconfig(plane: &ControlPlane, config: &Config, proxy: &Proxy) -> Result<(TempDir, std::path::PathBuf), Failure> {
    let text = fs::read_to_string(plane.kubeconfig_path())?;
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/');
    if !text.contains(server) {
        return Err(io::Error::other(format!("the kubeconfig does not name {server}")).into());
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("kubeconfig");
    fs::write(&path, text.replace(server, &proxy.url()))?;
    Ok((directory, path))
}

pub(super) fn rows(runs: &Runs<Held>, count: usize) -> Vec<Row> {
    let what = format!("watch, {} Secrets of 4 kB", thousands(count));
    let figures: [(&str, Part); 5] = [
        ("rss when idle", |memory| memory.idle),
        ("rss settled", |memory| memory.settled),
        ("rss over idle", Memory::over_idle),
        ("rss over idle after some changes", Memory::active_over_idle),
        ("peak rss of the first list", |memory| memory.peak),
    ];
    let mut rows: Vec<Row> = figures
        .iter()
        .map(|(name, part)| {
            let row = runs.row(format!("{what}: {name}"), "MiB", |held| part(&held.library));
            row.beside(REFLECTOR, runs.spread(|held| part(&held.reflector)))
        })
        .collect();
    let share = |name: &str, part: Part| {
        let name = format!("{what}: {name}, times the reflector's");
        runs.row(name, "x", |held| part(&held.library) / part(&held.reflector))
    };
    rows.push(share("rss over idle", Memory::over_idle).at_most(SHARE));
    rows.push(share("rss over idle after some changes", Memory::active_over_idle));
    let peak = runs.row(format!("{what}: peak over settled"), "x", |held| {
        held.library.peak_over_settled()
    });
    let peak = peak.beside(REFLECTOR, runs.spread(|held| held.reflector.peak_over_settled()));
    rows.push(peak.at_most(PEAK));
    rows
}
