//! Many policies deleted at once while two of three writes and more than a third of reads fail, and the operator is killed
//! again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{ResourceExt, api::ListParams};
use tempfile::TempDir;
use testkit::{ControlPlane, Error, assets::Component, eventually::try_eventually};
use tokio::time::Instant;

use super::{
    MADE, Policies,
    faults::{Faults, Rates},
};
use crate::{Failure, Running};

/// Of requests about policies and what they compile to.
const RATES: Rates = Rates {
    conflict: 30,
    throttled: 30,
    error: 5,
    reset: 3,
};

/// When so many of a hundred bindings are gone, the operator is killed.
const KILLED_AT: [usize; 3] = [10, 50, 90];

/// Every so many policies one is made again.
const AGAIN: usize = 10;

/// Policies made again at a time.
const AT_A_TIME: usize = 4;

/// An operator behind a proxy that makes faults.
pub struct Struck<'a, S> {
    policies: &'a Policies,
    spawn: S,
    /// Makes the faults.
    pub faults: Faults,
    directory: TempDir,
    /// The operator that runs now.
    pub running: Running,
}

/// What became of policies that were deleted.
#[derive(Debug)]
pub struct CleanedUp {
    /// When the operator was killed, from when all were deleted.
    pub killed: Vec<Duration>,
    /// When nothing was left, from when all were deleted.
    pub took: Duration,
    /// How many faults there were by then.
    pub faults: u64,
    /// The policies that were made again meanwhile, with their uids.
    pub made_again: BTreeMap<String, String>,
}

impl<'a, S> Struck<'a, S>
where
    S: Fn(&Path) -> Result<Running, Error>,
{
    /// Starts an operator that asks the API server as the account of a kubeconfig does. There are no faults yet.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    pub async fn new(kubeconfig: &Path, policies: &'a Policies, spawn: S) -> Result<Self, Failure> {
        let faults = Faults::before(kubeconfig, RATES).await?;
        let directory = tempfile::tempdir()?;
        let path = in_directory(&directory);
        faults.write_kubeconfig(&path)?;
        let mut running = spawn(&path)?;
        running.ready().await;
        Ok(Self {
            policies,
            spawn,
            faults,
            directory,
            running,
        })
    }

    /// Deletes all policies, of which there are `count` of a template, in force and named as
    /// [`create_many`](Policies::create_many) does. From then on there are faults and kills, and every tenth policy is made
    /// again. Returns when nothing is left of those that were deleted. Garbage collection is stopped for good: it would do
    /// some of the work.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn clean_up(
        &mut self,
        plane: &ControlPlane,
        template: &str,
        count: usize,
        deadline: Duration,
    ) -> Result<CleanedUp, Failure> {
        plane.stop_component(Component::KubeControllerManager).await?;
        let bindings = self.policies.owners_of_bindings().await?.len();

        // All at once, as the operator sees it.
        self.running.process.pause();
        self.policies.delete_all().await?;
        self.faults.strike(true);
        let began = Instant::now();
        self.running.process.resume();
        let policies = self.policies;
        let kill = async {
            let mut killed = Vec::new();
            for percent in KILLED_AT {
                self.killed_at(percent, bindings, deadline).await?;
                killed.push(began.elapsed());
            }
            Ok(killed)
        };
        let (made_again, killed) = tokio::try_join!(make_again(policies, template, count), kill)?;
        self.policies.nothing_left_behind(deadline).await?;
        Ok(CleanedUp {
            killed,
            took: began.elapsed(),
            faults: self.faults.struck(),
            made_again,
        })
    }

    /// Kills the operator when so many of a hundred bindings are gone, and starts another one.
    async fn killed_at(&mut self, percent: usize, bindings: usize, deadline: Duration) -> Result<(), Failure> {
        let most = bindings * (100 - percent) / 100;
        try_eventually(&format!("{percent} % are gone"), deadline, async || {
            let left = orphaned_bindings(self.policies).await;
            match left.map_err(|error| error.to_string())? {
                few if few <= most => Ok(()),
                left => Err(format!("{left} left")),
            }
        })
        .await?;
        self.running.process.kill()?;
        self.running = (self.spawn)(&in_directory(&self.directory))?;
        Ok(())
    }
}

fn in_directory(directory: &TempDir) -> PathBuf {
    directory.path().join("kubeconfig")
}

/// Makes every tenth policy again under its name.
async fn make_again(policies: &Policies, template: &str, count: usize) -> Result<BTreeMap<String, String>, Failure> {
    let create = async |number: usize| {
        let made = policies.create_one(template, number, 7).await?;
        Ok::<_, Failure>((made.name_any(), made.uid().unwrap_or_default()))
    };
    stream::iter((0..count).step_by(AGAIN).map(create))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
}

async fn orphaned_bindings(policies: &Policies) -> Result<usize, kube::Error> {
    let bindings = policies.owners_of_bindings().await?;
    let alive = policies.policies.list_metadata(&ListParams::default()).await?;
    let alive: BTreeSet<String> = alive.iter().filter_map(ResourceExt::uid).collect();
    Ok(bindings.values().filter(|owner| !alive.contains(*owner)).count())
}

impl Policies {
    /// All bindings of the operator's making, with the uid of their owner.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn owners_of_bindings(&self) -> Result<BTreeMap<String, String>, kube::Error> {
        let made = self.bindings.list_metadata(&ListParams::default().labels(MADE)).await?;
        let owners = made.iter().map(|binding| {
            let owner = binding.owner_references().first().map(|owner| owner.uid.clone());
            (binding.name_any(), owner.unwrap_or_default())
        });
        Ok(owners.collect())
    }
}
