//! The process that owns a control plane's components.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde::Deserialize;

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
    /// Where it answers; `None` until it has said that it is ready.
    stdout: Option<BufReader<ChildStdout>>,
}

/// What it answers to an order.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Done { processes: BTreeMap<String, u32> },
    Refused { error: String },
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
        let mut supervisor = Self {
            child,
            stdin,
            stdout: None,
        };

        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            // Nobody listens after the deadline.
            let _ = sender.send(read.map(|_| (line, stdout)));
        });
        let line = match receiver.recv_timeout(START_DEADLINE) {
            Ok(read) => {
                let (line, stdout) = read.map_err(Error::io("reading what the control plane says"))?;
                supervisor.stdout = Some(stdout);
                line
            }
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

    /// Gives an order and waits for it to be done; gives the components' process ids as they are then. The supervisor
    /// itself limits how long an order takes.
    pub(super) fn order(&mut self, verb: &str, component: &str) -> Result<BTreeMap<String, u32>, Error> {
        let reply = self.exchange(verb, component);
        match reply.map_err(Error::io(format!("asking the control plane to {verb} {component}")))? {
            Reply::Done { processes } => Ok(processes),
            Reply::Refused { error } => Err(Error::Order {
                order: format!("{verb} {component}"),
                reason: error,
            }),
        }
    }

    fn exchange(&mut self, verb: &str, component: &str) -> io::Result<Reply> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        writeln!(self.stdin.as_mut().ok_or_else(gone)?, "{verb} {component}")?;
        let mut line = String::new();
        self.stdout.as_mut().ok_or_else(gone)?.read_line(&mut line)?;
        if line.is_empty() {
            return Err(gone());
        }
        serde_json::from_str(&line).map_err(io::Error::from)
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
