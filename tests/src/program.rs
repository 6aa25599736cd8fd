//! What the demo and the benchmarks have in common as programs.

use std::{
    env, fmt,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failure;

/// Does the work of a program, on two threads and away from other clusters.
///
/// # Errors
///
/// When the work fails.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    leave_other_clusters_alone()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // A build or a start that was interrupted goes on in a thread; nothing waits for it, and what it started ends with this
    // process.
    runtime.shutdown_background();
    result
}

/// The exit code of a program, `what` in words such as "The benchmark"; a failure is told on standard error.
pub fn ended(what: &str, result: Result<ExitCode, impl fmt::Display>) -> ExitCode {
    result.unwrap_or_else(|failure| {
        // Nothing can be done where standard error is closed; the exit code still tells.
        let _ = writeln!(io::stderr(), "\n{what} failed: {failure}");
        ExitCode::FAILURE
    })
}

/// The exit code of a program that measures: bad when anything is not as it should be, which is told on standard error.
#[must_use]
pub fn judged(failures: &[impl AsRef<str>]) -> ExitCode {
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    let failures: Vec<&str> = failures.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(io::stderr(), "\nNot as it should be: {}", failures.join("; "));
    ExitCode::FAILURE
}

/// Makes sure that `KUBECONFIG` names no cluster: what runs here creates thousands of objects, on a control plane of its
/// own. Where it does, the program starts itself anew without it and this does not return.
///
/// # Errors
///
/// When the program cannot be started anew.
fn leave_other_clusters_alone() -> io::Result<()> {
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
