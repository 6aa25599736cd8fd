//! Starting the components in order, watching them, and stopping them in the right order.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, Config, config::Kubeconfig};
use serde_json::json;
use std::os::unix::process::CommandExt;
use testkit::{
    assets::{Assets, AssetsError, Component},
    process,
};
use tokio::time::Instant;

use crate::{
    RunArguments,
    commands::{Commands, Ports},
    directory::Directory,
    identity::Identities,
    nodes,
};

/// Attempts to start, each with other ports.
const ATTEMPTS: usize = 5;
/// How long a step of the start may take; seconds are normal, but a machine may be busy.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// How long one request of the start may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// How long components get to end before they are killed.
const STOP_CLIENTS: Duration = Duration::from_secs(5);
/// The API server ends its requests and watches first.
pub(crate) const STOP_APISERVER: Duration = Duration::from_secs(20);
const STOP_ETCD: Duration = Duration::from_secs(10);

/// Why there is no control plane, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Assets(#[from] AssetsError),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{component} ended ({status}); the end of its log:\n{log}")]
    Ended {
        component: &'static str,
        status: String,
        log: String,
    },
    #[error("{what} is not there after {} s; last seen: {seen}", START_DEADLINE.as_secs())]
    NotReady { what: &'static str, seen: String },
    #[error("{what}: {source}")]
    Kube {
        what: &'static str,
        source: Box<kube::Error>,
    },
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    fn port_taken(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.contains("address already in use"))
    }
}

/// The running components; dropping it stops them.
pub(crate) struct Plane {
    directory: Directory,
    pub(crate) children: Vec<(Component, Child)>,
    assets: Assets,
    arguments: RunArguments,
    identities: Identities,
    ports: Ports,
    server_version: String,
}

impl Plane {
    /// Starts everything and waits until it works.
    pub(crate) async fn start(assets: &Assets, arguments: &RunArguments) -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            match Self::attempt(assets, arguments).await {
                Err(failure) if failure.port_taken() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn attempt(assets: &Assets, arguments: &RunArguments) -> Result<Self, Failure> {
        let directory = match &arguments.dir {
            Some(path) => Directory::named(path),
            None => Directory::temporary(),
        };
        let directory = directory.map_err(|error| Failure::io("making the directory", error))?;
        let path = directory.path().to_owned();
        let identities = Identities::create(&path.join("identities"), arguments.node_address)
            .map_err(|error| Failure::io("making certificates and tokens", error))?;
        let ports = Ports::choose(arguments.node_address.unwrap_or(Ipv4Addr::LOCALHOST))
            .map_err(|error| Failure::io("finding free ports", error))?;
        identities
            .write_kubeconfigs(&ports.url())
            .and_then(|()| fs::create_dir_all(path.join("logs")))
            .map_err(|error| Failure::io(format!("writing to {}", path.display()), error))?;
        let mut plane = Self {
            directory,
            children: Vec::new(),
            assets: assets.clone(),
            arguments: arguments.clone(),
            identities,
            ports,
            server_version: String::new(),
        };

        plane.start_component(Component::Etcd).await?;
        plane.start_component(Component::KubeApiserver).await?;
        let client = plane.client().await?;
        plane.server_version = client
            .apiserver_version()
            .await
            .map_err(|error| Failure::Kube {
                what: "asking for the version",
                source: Box::new(error),
            })?
            .git_version;

        plane.start_component(Component::KubeControllerManager).await?;
        if !arguments.no_scheduler {
            plane.start_component(Component::KubeScheduler).await?;
        }
        if arguments.kwok_nodes > 0 {
            nodes::create(&client, arguments.kwok_nodes)
                .await
                .map_err(|error| Failure::Kube {
                    what: "creating nodes",
                    source: Box::new(error),
                })?;
            plane.start_component(Component::Kwok).await?;
        }
        // Made by the controller manager, and needed by every Pod.
        plane
            .until("the default ServiceAccount", async || service_account(&client).await)
            .await?;
        let wanted = usize::from(arguments.kwok_nodes);
        plane
            .until("every node Ready", async || match nodes::ready(&client).await {
                Ok(ready) if ready >= wanted => Ok(()),
                Ok(ready) => Err(format!("{ready} of {wanted} nodes Ready")),
                Err(error) => Err(error.to_string()),
            })
            .await?;
        Ok(plane)
    }

    /// Starts a component that does not run, and waits until it answers where others depend on that.
    pub(crate) async fn start_component(&mut self, component: Component) -> Result<(), Failure> {
        self.spawn(component)?;
        match component {
            Component::Etcd => {
                let address = ("127.0.0.1", self.ports.etcd());
                let connect = async || match TcpStream::connect(address) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                };
                self.until("etcd", connect).await
            }
            Component::KubeApiserver => {
                let client = self.client().await?;
                self.until("the API server", async || readyz(&client).await).await
            }
            Component::KubeControllerManager | Component::KubeScheduler | Component::Kubectl | Component::Kwok => {
                Ok(())
            }
        }
    }

    fn spawn(&mut self, component: Component) -> Result<(), Failure> {
        let starting = |error| Failure::io(format!("starting {}", component.name()), error);
        // What it said before a restart stays.
        let log = File::options().create(true).append(true).open(self.log(component));
        let log = log.map_err(starting)?;
        let commands = Commands {
            assets: &self.assets,
            arguments: &self.arguments,
            directory: self.directory.path(),
            identities: &self.identities,
            ports: &self.ports,
        };
        let mut command = commands.command(component).map_err(starting)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(starting)?)
            .stderr(log)
            // A Ctrl-C at the terminal is for this process, which stops the others in order.
            .process_group(0);
        let child = process::spawn(command).map_err(starting)?;
        let noted = self.directory.note_child(child.id());
        self.children.push((component, child));
        noted.map_err(starting)
    }

    fn log(&self, component: Component) -> PathBuf {
        self.directory
            .path()
            .join("logs")
            .join(format!("{}.log", component.name()))
    }

    async fn client(&self) -> Result<Client, Failure> {
        let failure = |error: String| Failure::io("reading the admin's kubeconfig", io::Error::other(error));
        let kubeconfig =
            Kubeconfig::read_from(self.identities.kubeconfig("admin")).map_err(|error| failure(error.to_string()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .map_err(|error| failure(error.to_string()))?;
        // `until` asks again, with a deadline; kube's retries have none.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| Failure::Kube {
            what: "making a client",
            source: Box::new(error),
        })
    }

    /// Repeats `probe` until it succeeds; fails when a component ends or the deadline passes.
    async fn until<F>(&mut self, what: &'static str, mut probe: F) -> Result<(), Failure>
    where
        F: AsyncFnMut() -> Result<(), String>,
    {
        let deadline = Instant::now() + START_DEADLINE;
        let mut seen = "nothing".to_owned();
        loop {
            match tokio::time::timeout(REQUEST_DEADLINE, probe()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(state)) => seen = state,
                Err(_) => "no answer".clone_into(&mut seen),
            }
            if let Some(failure) = self.ended() {
                return Err(failure);
            }
            if Instant::now() >= deadline {
                return Err(Failure::NotReady { what, seen });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The first component found to have ended.
    fn ended(&mut self) -> Option<Failure> {
        for index in 0..self.children.len() {
            let (component, child) = &mut self.children[index];
            let component = *component;
            if let Ok(Some(status)) = child.try_wait() {
                return Some(Failure::Ended {
                    component: component.name(),
                    status: status.to_string(),
                    log: process::tail(&self.log(component), 15),
                });
            }
        }
        None
    }

    /// Waits for a component to end on its own.
    pub(crate) async fn watch(&mut self) -> Failure {
        loop {
            if let Some(failure) = self.ended() {
                return failure;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One line of JSON that says what is where.
    pub(crate) fn description(&self) -> String {
        json!({
            "kubeconfig": self.identities.kubeconfig("admin"),
            "auditLog": Commands::audit_log(self.directory.path()),
            "dir": self.directory.path(),
            "url": self.ports.url(),
            "serverVersion": self.server_version,
            "kubectl": self.assets.path(Component::Kubectl),
            "processes": self.processes(),
        })
        .to_string()
    }

    pub(crate) fn processes(&self) -> BTreeMap<&'static str, u32> {
        self.children
            .iter()
            .map(|(component, child)| (component.name(), child.id()))
            .collect()
    }

    /// Stops everything and removes the temporary directory.
    ///
    /// The API server before etcd, and gone before etcd is asked: one that loses its etcd hangs in its shutdown and keeps
    /// its port for minutes.
    pub(crate) fn stop(&mut self) {
        let stages: [(&[Component], Duration); 3] = [
            (
                &[
                    Component::Kwok,
                    Component::KubeScheduler,
                    Component::KubeControllerManager,
                ],
                STOP_CLIENTS,
            ),
            (&[Component::KubeApiserver], STOP_APISERVER),
            (&[Component::Etcd], STOP_ETCD),
        ];
        for (components, deadline) in stages {
            let mut stopping: Vec<(Component, Child)> = self
                .children
                .extract_if(.., |(component, _)| components.contains(component))
                .collect();
            for (_, child) in &stopping {
                process::terminate(child);
                // One that was paused could not end.
                process::resume(child);
            }
            for (component, child) in &mut stopping {
                if let Ok((_, true)) = process::reap(child, deadline) {
                    let line = format!("{} did not end in {} s: killed", component.name(), deadline.as_secs());
                    let _ = writeln!(io::stderr(), "control plane: {line}");
                }
            }
        }
        if let Err(error) = self.directory.close() {
            let _ = writeln!(io::stderr(), "control plane: removing the temporary directory: {error}");
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn readyz(client: &Client) -> Result<(), String> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    client
        .request_text(request)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

async fn service_account(client: &Client) -> Result<(), String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts
        .get("default")
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}
