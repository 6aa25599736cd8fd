//! What the demo and the benchmarks have in common as programs.

use std::{env, io, os::unix::process::CommandExt, process::Command};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Makes sure that `KUBECONFIG` names no cluster: what runs here creates thousands of objects, on a control plane of its
/// own. Where it does, the program starts itself anew without it and this does not return.
///
/// # Errors
///
/// When the program cannot be started anew.
pub fn leave_other_clusters_alone() -> io::Result<()> {
    if env::var_os("KUBECONFIG").is_none_or(|value| value.is_empty()) {
        return Ok(());
    }
    let mut again = Command::new(env::current_exe()?);
    Err(again.args(env::args_os().skip(1)).env_remove("KUBECONFIG").exec())
}

/// Somebody asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// SIGINT (Ctrl-C) and SIGTERM, for as long as this exists.
#[derive(Debug)]
pub struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// From now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Does the work, or drops it at the first signal.
    ///
    /// # Errors
    ///
    /// [`Interrupted`], when there was a signal first.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Err(Interrupted),
            _ = self.terminate.recv() => Err(Interrupted),
            result = work => Ok(result),
        }
    }
}
