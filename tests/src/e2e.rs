//! leanserve as what it is: a Deployment in a cluster, installed by its chart, with the rights and the limits of the chart.
//!
//! Runs on the one-node cluster of `make cluster`, or on any cluster `KUBECONFIG` names, such as kind. Each scenario gives
//! the rows of the report that it proves.

pub mod cluster;
pub mod flood;
pub mod install;
pub mod leader;
pub mod modes;
pub mod operator;
pub mod outage;
pub mod policies;
pub mod pressure;
pub mod prometheus;
pub mod release;
pub mod soak;
pub mod workload;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

pub use self::{cluster::Cluster, soak::Soak};
use crate::{Failure, report::Row};

/// How long anything may take that takes seconds on a machine with nothing else to do.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Installed by chart, three services serve.
    Install,
    /// Thousands of Secrets nobody refers to.
    Flood,
    /// Big Secrets that are referred to, changing all the time.
    Pressure,
    /// The mode of reading Secrets changed a thousand times.
    Modes,
    /// The leader killed, frozen, drained.
    Leader,
    /// API server and rights taken away and given back.
    Outage,
    /// Policies, their audit and the webhook.
    Policies,
    /// Long churn.
    Soak,
}

impl Scenario {
    /// All of them, in the order they run.
    pub const ALL: [Self; 8] = [
        Self::Install,
        Self::Flood,
        Self::Pressure,
        Self::Modes,
        Self::Leader,
        Self::Outage,
        Self::Policies,
        Self::Soak,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Flood => "flood",
            Self::Pressure => "pressure",
            Self::Modes => "modes",
            Self::Leader => "leader",
            Self::Outage => "outage",
            Self::Policies => "policies",
            Self::Soak => "soak",
        }
    }
}

/// Runs scenarios one after the other and gives their rows; one that fails gives a row that says why. On another cluster than
/// the project's own only if it may be `foreign`.
///
/// # Errors
///
/// When there is no cluster, or the terminal is gone.
pub async fn run(scenarios: &[Scenario], soak: &Soak, foreign: bool) -> Result<Vec<Row>, Failure> {
    let cluster = Cluster::connect(foreign).await?;
    cluster.load_images(scenarios.contains(&Scenario::Flood)).await?;
    // Each scenario installs what it needs, but its services need the definitions even before.
    release::install(&cluster, &serde_json::json!({})).await?;
    workload::sweep(&cluster).await?;
    let mut rows = Vec::new();
    for scenario in scenarios {
        let name = scenario.name();
        writeln!(io::stdout(), "\n== {name}")?;
        let started = Instant::now();
        // Boxed: together the scenarios are a big state machine.
        let outcome = match scenario {
            Scenario::Install => Box::pin(install::run(&cluster)).await,
            Scenario::Flood => Box::pin(flood::run(&cluster)).await,
            Scenario::Pressure => Box::pin(pressure::run(&cluster)).await,
            Scenario::Modes => Box::pin(modes::run(&cluster)).await,
            Scenario::Leader => Box::pin(leader::run(&cluster)).await,
            Scenario::Outage => Box::pin(outage::run(&cluster)).await,
            Scenario::Policies => Box::pin(policies::run(&cluster)).await,
            Scenario::Soak => Box::pin(soak::run(&cluster, soak)).await,
        };
        let outcome = match outcome {
            Ok(rows) => rows,
            Err(failure) => {
                // What it leaves would be there in the next.
                workload::sweep(&cluster).await?;
                vec![Row::unmeasured(format!("{name}: to its end"), failure.to_string())]
            }
        };
        for row in &outcome {
            writeln!(io::stdout(), "{}", row.line())?;
        }
        writeln!(io::stdout(), "   ({name} took {} s)", started.elapsed().as_secs())?;
        rows.extend(outcome);
    }
    workload::sweep(&cluster).await?;
    Ok(rows)
}
