//! The recorded behaviour of `KServe`, held against the operator's binary on a real control plane: `make golden`.
//!
//! Each case is played in the namespace it was recorded in, with the recorded platform settings, on a control plane as the
//! recording had it: no scheduler, no nodes, no `HorizontalPodAutoscaler` controller, and here no webhook. One operator
//! runs at a time, with the settings of all cases that are being played. `docs/golden.md` says how to read what comes out.

mod cluster;
mod definitions;
mod kinds;
mod player;
mod pods;
mod refusal;
mod settle;
mod snapshot;
mod view;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use golden::{
    Case, Difference, Harness, Recording, Report,
    compare::{Comparison, Containers},
};
use testkit::Options;
use tokio::time::Instant;

use self::{cluster::Cluster, definitions::Definitions, player::Player};
use crate::{Failure, program::Interrupt, start};

/// How long an operator may take to finish its passes when it is told to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// What is to be played, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The folder of the recording.
    pub recording: PathBuf,
    /// Only cases whose folder has this in its name.
    pub filter: String,
    /// The folder with other projects' CRDs; none uses leanserve's own.
    pub definitions: Option<PathBuf>,
    /// Where the operator injects storage.
    pub injection: Injection,
    /// How many cases are played at a time.
    pub at_a_time: usize,
}

/// Where the operator injects storage: its setting `storageInjection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Injection {
    /// Into the Pod templates of Deployments, which are compared with the recorded Pods.
    Deployment,
    /// Nowhere: annotations tell `KServe`'s webhook. Deployments are compared with the recorded Deployments.
    Annotations,
}

impl Injection {
    /// The setting's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Annotations => "annotations",
        }
    }

    fn comparison(self) -> Comparison {
        Comparison {
            ignore_defaults: false,
            containers: match self {
                Self::Deployment => Containers::Pods,
                Self::Annotations => Containers::Deployments,
            },
        }
    }

    fn harness(self) -> Harness {
        match self {
            Self::Deployment => Harness::Cluster,
            Self::Annotations => Harness::ClusterAnnotations,
        }
    }
}

/// Plays the cases and gives the report, with the accepted differences that no case needed.
///
/// # Errors
///
/// When the recording cannot be read, or the control plane or an operator does not work.
pub async fn run(out: &mut impl Write, order: &Order) -> Result<(Report, Vec<golden::Unused>), Failure> {
    let mut interrupt = Interrupt::listen()?;
    let recording = Recording::at(&order.recording);
    let mut accepted = recording.accepted().map_err(io::Error::other)?;
    let mut cases = recording.cases().map_err(io::Error::other)?;
    cases.retain(|case| case.folder.contains(&order.filter));
    if cases.is_empty() {
        return Err(io::Error::other(format!("no case has {:?} in its name", order.filter)).into());
    }
    let definitions = Definitions::find(order.definitions.as_deref())?;
    writeln!(out, "{} cases; CRDs: {}", cases.len(), definitions.source)?;
    out.flush()?;

    let began = Instant::now();
    let plane = start::control_plane(&mut interrupt, Options::bare()).await?;
    let played = interrupt.unless(play_all(out, order, &recording, definitions, &plane, cases));
    let result = match played.await {
        Ok(Ok(played)) => {
            let mut report = Report::default();
            for (case, differences) in played {
                report.add(order.injection.harness(), &case, differences, &mut accepted);
            }
            let unused = if order.filter.is_empty() {
                accepted.unused(order.injection.harness())
            } else {
                Vec::new()
            };
            Ok((report, unused))
        }
        Ok(Err(failure)) => Err(failure),
        Err(interrupted) => Err(interrupted.into()),
    };
    plane.stop().await?;
    writeln!(out, "{:.0} s", began.elapsed().as_secs_f64())?;
    result
}

/// Each configuration in turn: its cases a few at a time, then those that need the cluster for themselves.
async fn play_all(
    out: &mut impl Write,
    order: &Order,
    recording: &Recording,
    definitions: Definitions,
    plane: &testkit::ControlPlane,
    mut cases: Vec<Case>,
) -> Result<Vec<(Case, Vec<Difference>)>, Failure> {
    let cluster = Arc::new(Cluster::prepare(plane, definitions, recording.clone(), order.injection).await?);
    let comparison = order.injection.comparison();
    cases.sort_by(|a, b| (&a.config, a.exclusive, &a.folder).cmp(&(&b.config, b.exclusive, &b.folder)));
    let mut played = Vec::with_capacity(cases.len());
    while let Some(first) = cases.first() {
        let config = first.config.clone();
        let count = cases.iter().take_while(|case| case.config == config).count();
        let began = Instant::now();
        let operator = cluster.operator(&config).await?;
        let (alone, together): (Vec<Case>, Vec<Case>) = cases.drain(..count).partition(|case| case.exclusive);
        let play = async |case: Case| {
            let differences = Player::new(&cluster, &operator, &case, comparison).play().await;
            (case, differences)
        };
        let mut running = stream::iter(together).map(play).buffer_unordered(order.at_a_time);
        while let Some(one) = running.next().await {
            tell(out, &one)?;
            played.push(one);
        }
        drop(running);
        for case in alone {
            let one = play(case).await;
            cluster.restore(&config).await?;
            tell(out, &one)?;
            played.push(one);
        }
        operator.stop().await?;
        writeln!(out, "{config}: {count} cases in {:.1} s", began.elapsed().as_secs_f64())?;
    }
    played.sort_by(|(a, _), (b, _)| a.folder.cmp(&b.folder));
    Ok(played)
}

/// One line for each case, so that whoever waits sees it go on.
fn tell(out: &mut impl Write, (case, differences): &(Case, Vec<Difference>)) -> io::Result<()> {
    match differences.len() {
        0 => writeln!(out, "  {}", case.folder)?,
        count => writeln!(out, "  {}: {count} differences", case.folder)?,
    }
    out.flush()
}
