//! A running operator and what it says of itself.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use testkit::{Error, Operator, cargo_bin, eventually};

use crate::{Installation, Scope, cgroup::Cgroup};

/// How long an operator may take to become ready on a busy machine.
const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

/// An operator as a child process.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub process: Operator,
    metrics: SocketAddr,
    probes: SocketAddr,
}

impl Running {
    /// The operator's binary, built if needed.
    ///
    /// # Errors
    ///
    /// When it does not build.
    pub fn binary() -> Result<PathBuf, Error> {
        cargo_bin("leanserve", "leanserve")
    }

    /// Starts an operator that serves one namespace and takes its settings from there, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    pub async fn in_scope(scope: &Scope, more: &[&str]) -> Result<Self, Error> {
        let mut running = Self::spawn_in_scope(scope, more)?;
        running.ready().await;
        Ok(running)
    }

    /// As [`in_scope`](Self::in_scope), without waiting.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_in_scope(scope: &Scope, more: &[&str]) -> Result<Self, Error> {
        let mut arguments = vec!["--namespace", scope.name(), "--watch-namespaces", scope.name()];
        arguments.extend(more);
        Self::spawn_as(scope.kubeconfig(), &arguments)
    }

    /// As [`spawn_in_scope`](Self::spawn_in_scope), within a limit on memory. It joins the group before it begins.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_limited(scope: &Scope, group: &Cgroup, more: &[&str]) -> Result<Self, Error> {
        let mut arguments = vec!["--namespace", scope.name(), "--watch-namespaces", scope.name()];
        arguments.extend(more);
        let (command, metrics, probes) = Self::command("run", scope.kubeconfig(), &arguments)?;
        let process = group.spawn(&Self::binary()?, command)?;
        Ok(Self {
            process,
            metrics,
            probes,
        })
    }

    /// Starts one of several replicas that elect a leader among them, without waiting. `name` is in the user agent of all it
    /// asks of the API server.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_replica(scope: &Scope, name: &str, more: &[&str]) -> Result<Self, Error> {
        let mut arguments = vec!["--namespace", scope.name(), "--watch-namespaces", scope.name()];
        arguments.push("--leader-elect");
        arguments.extend(more);
        let environment = [("KUBECONFIG", ""), ("POD_NAME", name)];
        Self::spawn_with(&Self::binary()?, scope.kubeconfig(), &arguments, &environment)
    }

    /// Starts an operator with these arguments after `run` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    pub async fn start(installation: &Installation<'_>, arguments: &[&str]) -> Result<Self, Error> {
        let mut running = Self::spawn(installation, arguments)?;
        running.ready().await;
        Ok(running)
    }

    /// Starts an operator without waiting.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(installation: &Installation<'_>, arguments: &[&str]) -> Result<Self, Error> {
        Self::spawn_as(&installation.kubeconfig(), arguments)
    }

    /// As [`spawn`](Self::spawn), of this binary: of a copy that no build replaces while it is in use.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_copy(binary: &Path, installation: &Installation<'_>, arguments: &[&str]) -> Result<Self, Error> {
        Self::spawn_binary(binary, &installation.kubeconfig(), arguments)
    }

    /// Starts one of the roles (`run`, `audit`, `webhook`) with a kubeconfig, without waiting.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_role(role: &str, kubeconfig: &Path, arguments: &[&str]) -> Result<Self, Error> {
        let (all, metrics, probes) = Self::command(role, kubeconfig, arguments)?;
        let process = Operator::spawn(&Self::binary()?, all, [("KUBECONFIG", "")])?;
        Ok(Self {
            process,
            metrics,
            probes,
        })
    }

    fn spawn_as(kubeconfig: &Path, arguments: &[&str]) -> Result<Self, Error> {
        Self::spawn_binary(&Self::binary()?, kubeconfig, arguments)
    }

    fn spawn_binary(binary: &Path, kubeconfig: &Path, arguments: &[&str]) -> Result<Self, Error> {
        Self::spawn_with(binary, kubeconfig, arguments, &[("KUBECONFIG", "")])
    }

    /// `environment` overrides what the container would not have of the developer's.
    fn spawn_with(
        binary: &Path,
        kubeconfig: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let (all, metrics, probes) = Self::command("run", kubeconfig, arguments)?;
        let process = Operator::spawn(binary, all, environment.iter().copied())?;
        Ok(Self {
            process,
            metrics,
            probes,
        })
    }

    /// The arguments, and where metrics and probes are.
    fn command(
        role: &str,
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> Result<(Vec<String>, SocketAddr, SocketAddr), Error> {
        let (metrics, probes) = (free_address()?, free_address()?);
        let mut all = vec![role.to_owned()];
        all.extend(["--kubeconfig".to_owned(), kubeconfig.to_string_lossy().into_owned()]);
        all.extend(["--metrics-bind-address".to_owned(), metrics.to_string()]);
        all.extend(["--health-probe-bind-address".to_owned(), probes.to_string()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok((all, metrics, probes))
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Panics
    ///
    /// At the deadline or when the process ends, with the end of its log.
    pub async fn ready(&mut self) {
        let probes = self.probes;
        eventually("the operator is ready", READY, async || {
            if let Some(status) = self.process.exited() {
                panic!("the operator ended ({status}):\n{}", tail(&self.process.log()));
            }
            match get(probes, "/readyz").await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status}: {}\n{}", body.trim(), tail(&self.process.log()))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// The address its metrics are served at.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Where its metrics are.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.metrics)
    }

    /// Everything under `/metrics`.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metrics(&self) -> io::Result<String> {
        let (status, body) = get(self.metrics, "/metrics").await?;
        if status == 200 {
            Ok(body)
        } else {
            Err(io::Error::other(format!("/metrics answered {status}")))
        }
    }

    /// The sum of all samples whose line starts with `name` and contains every part of `labels`; 0 when there are none.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> io::Result<f64> {
        Ok(metric(&self.metrics().await?, name, labels))
    }

    /// Status and body of a path on the probes' port.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn probe(&self, path: &str) -> io::Result<(u16, String)> {
        get(self.probes, path).await
    }
}

/// The sum of all samples in an answer of `/metrics` whose line starts with `name` and contains every part of `labels`; 0
/// when there are none.
#[must_use]
pub fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let wanted = series_name == name && labels.iter().all(|label| series_labels.contains(label));
            wanted.then(|| value.parse::<f64>().ok()).flatten()
        })
        .sum()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A loopback address nobody listens on at the moment.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map_err(|source| Error::Io {
        what: "finding a free port".into(),
        source,
    })
}

/// One plain HTTP/1.0 request; the answer ends with the connection.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        io::Result::Ok(answer)
    });
    let answer = answer.await.map_err(io::Error::other)??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("no HTTP answer"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((
        status.ok_or_else(|| io::Error::other("no HTTP status"))?,
        body.to_owned(),
    ))
}
