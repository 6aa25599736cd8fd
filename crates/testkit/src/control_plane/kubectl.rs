//! Running `kubectl`.

use std::{
    fs,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use tempfile::NamedTempFile;

use crate::{Error, process};

const DEADLINE: Duration = Duration::from_secs(600);

/// Runs it. `cache` is where it keeps what it learns of the API, the user's own place when `None`.
pub(super) async fn run(
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: Option<PathBuf>,
    arguments: &[&str],
) -> Result<Output, Error> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let task = tokio::task::spawn_blocking(move || {
        // Files, because a full pipe would stop it, and reading two pipes takes threads.
        let (stdout, stderr) = (NamedTempFile::new()?, NamedTempFile::new()?);
        let mut command = process::tied(program);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments)
            .envs(cache.map(|cache| ("KUBECACHEDIR", cache)))
            .stdin(Stdio::null())
            .stdout(stdout.reopen()?)
            .stderr(stderr.reopen()?);
        let mut child = process::spawn(command)?;
        let (status, _) = process::reap(&mut child, DEADLINE)?;
        Ok(Output {
            status,
            stdout: fs::read(stdout.path())?,
            stderr: fs::read(stderr.path())?,
        })
    });
    let output = task.await.map_err(std::io::Error::other).and_then(|output| output);
    output.map_err(Error::io("running kubectl"))
}
