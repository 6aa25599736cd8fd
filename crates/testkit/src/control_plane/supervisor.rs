//! The process that owns a control plane's components.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use super::{Description, Options};
use crate::{Error, cargo_bin, process};

/// The start may include building the components on a slow machine.
const START_DEADLINE: Duration = Duration::from_secs(3600);
/// More than the supervisor gives all its components together.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    /// While this is open, the control plane runs.
    stdin: Option<ChildStdin>,
}

impl Supervisor {
    /// Starts it and waits for the line that says that everything is ready.
    pub(super) fn start(options: &Options) -> Result<(Self, Description), Error> {
        let program = cargo_bin("testkit", "control-plane")?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg(format!("--kwok-nodes={}", options.kwok_nodes))
            .args((!options.scheduler).then_some("--no-scheduler"))
            .args((!options.horizontal_pod_autoscaler).then_some("--no-hpa"))
            .args(
                options
                    .apiserver_flags
                    .iter()
                    .map(|flag| format!("--apiserver-flag={flag}")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Progress of a build and the reason of a failure belong on the terminal.
            .stderr(Stdio::inherit());
        if let Some(directory) = &options.directory {
            command.arg("--dir").arg(directory);
        }
        // Not tied to this process: it has to outlive it for as long as it takes to clean up.
        let mut child = process::spawn(command).map_err(Error::io("starting the control plane"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout was piped");
        let supervisor = Self { child, stdin };

        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody listens after the deadline.
            let _ = sender.send(read.map(|_| line));
        });
        let line = match receiver.recv_timeout(START_DEADLINE) {
            Ok(line) => line.map_err(Error::io("reading what the control plane says"))?,
            Err(_) => return Err(Error::Start(format!("nothing said in {} s", START_DEADLINE.as_secs()))),
        };
        if line.is_empty() {
            let reason = match supervisor.stop() {
                Ok(()) => "it ended at once".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(Error::Start(format!("{reason}; see its message above")));
        }
        let description = serde_json::from_str(&line).map_err(|error| Error::Start(format!("{error}: {line}")))?;
        Ok((supervisor, description))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it stop everything, and waits.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        drop(self.stdin.take());
        let ended = process::reap(&mut self.child, STOP_DEADLINE);
        match ended.map_err(Error::io("waiting for the control plane"))? {
            (_, true) => Err(Error::Stop(format!("killed after {} s", STOP_DEADLINE.as_secs()))),
            (status, false) if status.success() => Ok(()),
            (status, false) => Err(Error::Stop(status.to_string())),
        }
    }
}
