//! The programs under measurement.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Operator, cargo_bin, try_eventually};

use crate::{Failure, cgroup::Cgroup};

const START: Duration = Duration::from_secs(30);
const WORK: Duration = Duration::from_secs(900);
const STOP: Duration = Duration::from_secs(30);

/// The programs, built.
#[derive(Clone)]
pub(super) struct Programs {
    reader: PathBuf,
    pub(super) reflector: PathBuf,
}

impl Programs {
    /// Builds them where needed, which blocks.
    pub(super) fn built() -> Result<Self, Failure> {
        Ok(Self {
            reader: cargo_bin("leanserve-tests", "secret-reader")?,
            reflector: cargo_bin("leanserve-tests", "reflector-peer")?,
        })
    }

    /// Starts a secret-reader with these arguments, within a group if there is one, and waits until it is idle.
    pub(super) async fn reader(
        &self,
        kubeconfig: &Path,
        arguments: &[String],
        group: Option<&Cgroup>,
    ) -> Result<Process, Failure> {
        let mut all: Vec<OsString> = vec!["--kubeconfig".into(), kubeconfig.into()];
        all.extend(arguments.iter().map(OsString::from));
        let mut process = match group {
            None => Process::spawn(&self.reader, all)?,
            Some(group) => Process(group.spawn(&self.reader, all)?),
        };
        process.says("Idle", START).await?;
        Ok(process)
    }
}

/// One of them, running.
pub(super) struct Process(Operator);

impl Process {
    pub(super) fn spawn(program: &Path, arguments: Vec<OsString>) -> Result<Self, Failure> {
        Ok(Self(Operator::spawn(program, arguments, [("KUBECONFIG", "")])?))
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.0
    }

    /// Has a secret-reader do its work, and waits until it is done.
    pub(super) async fn works(&mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.0.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it has no process id"))?;
        kill_process(pid, Signal::USR1).map_err(io::Error::from)?;
        self.says("Done", WORK).await
    }

    /// Waits until its output has a line that begins with this.
    pub(super) async fn says(&mut self, text: &str, patience: Duration) -> Result<(), Failure> {
        let what = format!("{text:?} from the program");
        let said = try_eventually(&what, patience, async || {
            let log = self.0.log();
            if log.lines().any(|line| line.starts_with(text)) {
                return Ok(None);
            }
            match self.0.exited() {
                Some(status) => Ok(Some(format!(
                    "the program has ended ({status}): {}",
                    log.trim().replace('\n', "; ")
                ))),
                None => Err(format!("its output is {:?}", log.trim())),
            }
        });
        match said.await? {
            None => Ok(()),
            Some(ended) => Err(io::Error::other(ended).into()),
        }
    }

    /// The most memory that was ever resident, in MiB.
    pub(super) fn peak(&self) -> Result<f64, Failure> {
        let kib = u32::try_from(self.0.memory()?.peak_kib).map_err(io::Error::other)?;
        Ok(f64::from(kib) / 1024.0)
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.0.terminate(STOP).await?;
        Ok(())
    }
}
