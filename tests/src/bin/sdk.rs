//! `KServe`'s Python SDK and kubectl against the operator: `make sdk`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use leanserve_tests::{Failure, Installation, Running, load, program, report, start};
use testkit::{ControlPlane, Options};
use tokio::process::Command;

const NAMESPACE: &str = "sdk";
/// In `examples/`; the name of the service in it.
const APPLIED: (&str, &str) = ("custom-container.yaml", "custom");
const PATIENCE: Duration = Duration::from_secs(540);
const STOP: Duration = Duration::from_secs(30);

/// Runs `tests/sdk/check.py` on a control plane of its own.
#[derive(Parser)]
struct Arguments {
    /// A Python that has the packages of `tests/sdk/requirements.txt`.
    #[arg(long)]
    python: PathBuf,
}

fn main() -> ExitCode {
    let checked = program::block_on(check(&Arguments::parse()));
    program::ended("The SDK check", checked.map(|()| ExitCode::SUCCESS))
}

async fn check(arguments: &Arguments) -> Result<(), Failure> {
    let mut interrupt = program::Interrupt::listen()?;
    let plane = start::control_plane(&mut interrupt, Options::default()).await?;
    let result = interrupt.unless(on(&plane, arguments)).await;
    let stopped = plane.stop().await;
    result??;
    Ok(stopped?)
}

async fn on(plane: &ControlPlane, arguments: &Arguments) -> Result<(), Failure> {
    let installation = Installation::on(plane).await?;
    let mut operator = Running::spawn(&installation, &[])?;
    let result = with(plane, arguments, &mut operator).await;
    let log = operator.process.log();
    let stopped = operator.process.terminate(STOP).await;
    result.map_err(|failure| failure.with_log(&log))?;
    stopped?;
    Ok(())
}

async fn with(plane: &ControlPlane, arguments: &Arguments, operator: &mut Running) -> Result<(), Failure> {
    start::ready(operator).await?;
    load::namespace(&load::client(plane).await?, NAMESPACE).await?;
    let (file, name) = APPLIED;
    let file = report::workspace().join("examples").join(file);
    let apply = ["apply", "--namespace", NAMESPACE, "--filename", &file.to_string_lossy()];
    io::stdout().write_all(plane.kubectl_stdout(&apply).await?.as_bytes())?;
    let mut python = Command::new(&arguments.python);
    python
        .arg(report::workspace().join("tests/sdk/check.py"))
        .arg("--kubeconfig")
        .arg(plane.kubeconfig_path())
        .args(["--namespace", NAMESPACE, "--applied", name])
        .kill_on_drop(true);
    let status = tokio::time::timeout(PATIENCE, python.status())
        .await
        .map_err(io::Error::from)??;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("check.py: {status}")).into())
}
