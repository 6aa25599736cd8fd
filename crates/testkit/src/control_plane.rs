//! A real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok's simulated nodes.
//!
//! [`ControlPlane::start`] runs the program `control-plane` of this crate, which owns the components, and holds a pipe to
//! its stdin: when the test's process ends, however it ends, the pipe closes and everything is stopped and removed.
//!
//! With `KUBECONFIG` set nothing is started: the same tests then run against that cluster, and
//! [`ControlPlane::is_ours`] is false. Tests that need the audit log or want to break things ask it first.

mod access;
mod components;
mod kubectl;
mod namespace;
mod supervisor;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tokio::sync::OnceCell;

pub use self::namespace::TestNamespace;
use self::supervisor::Supervisor;
use crate::{Error, assets, assets::Component, audit::AuditLog};

/// What a control plane consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many simulated nodes; with 0 kwok is not started and Pods stay Pending.
    pub kwok_nodes: u16,
    /// Whether there is a scheduler.
    pub scheduler: bool,
    /// Whether the `HorizontalPodAutoscaler` controller runs.
    pub horizontal_pod_autoscaler: bool,
    /// Further flags for kube-apiserver.
    pub apiserver_flags: Vec<String>,
    /// Keep state, logs and credentials in this directory, which stays; a temporary one when `None`.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    /// One simulated node, and every controller.
    fn default() -> Self {
        Self {
            kwok_nodes: 1,
            scheduler: true,
            horizontal_pod_autoscaler: true,
            apiserver_flags: Vec::new(),
            directory: None,
        }
    }
}

impl Options {
    /// No scheduler, no nodes, no autoscaler: objects are made and defaulted, nothing runs.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            kwok_nodes: 0,
            scheduler: false,
            horizontal_pod_autoscaler: false,
            ..Self::default()
        }
    }
}

/// What the supervisor says when everything is ready.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    dir: PathBuf,
    url: String,
    server_version: String,
    kubectl: PathBuf,
    processes: BTreeMap<String, u32>,
}

/// A running control plane. It holds nothing that belongs to a tokio runtime. Dropped, it stops in the background;
/// [`stop`](Self::stop) waits for that.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    ours: Option<Ours>,
}

#[derive(Debug)]
struct Ours {
    description: Description,
    running: Arc<Mutex<Running>>,
}

/// What changes during the life of a control plane.
#[derive(Debug)]
struct Running {
    /// `None` once it is being stopped.
    supervisor: Option<Supervisor>,
    processes: BTreeMap<String, u32>,
}

impl ControlPlane {
    /// Starts a control plane, or takes the cluster that `KUBECONFIG` names, and waits until it works. Builds the
    /// components first where they are missing, which takes minutes once per machine.
    ///
    /// # Errors
    ///
    /// When it does not start; the reason is on the terminal and in the error.
    pub async fn start(options: Options) -> Result<Self, Error> {
        if let Some(kubeconfig) = env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
            let kubeconfig = PathBuf::from(kubeconfig);
            let _ = writeln!(
                io::stderr(),
                "tests use the cluster of KUBECONFIG={}",
                kubeconfig.display()
            );
            return Ok(Self::of_kubeconfig(kubeconfig));
        }
        let started = tokio::task::spawn_blocking(move || Supervisor::start(&options)).await;
        let (supervisor, description) = started.map_err(|error| Error::Start(error.to_string()))??;
        let running = Running {
            supervisor: Some(supervisor),
            processes: description.processes.clone(),
        };
        Ok(Self {
            kubeconfig: description.kubeconfig.clone(),
            ours: Some(Ours {
                description,
                running: Arc::new(Mutex::new(running)),
            }),
        })
    }

    /// The cluster of a kubeconfig, which is not ours.
    #[must_use]
    pub fn of_kubeconfig(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig, ours: None }
    }

    /// The one control plane of this process, with default options, started at the first call. It stops when the process
    /// ends.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        match SHARED.get_or_try_init(|| Self::start(Options::default())).await {
            Ok(plane) => plane,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether the test kit started it, and may do with it as it likes.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The server's URL; `None` when it is not ours.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.ours.as_ref().map(|ours| ours.description.url.as_str())
    }

    /// The server's version, such as `v1.36.3`; `None` when it is not ours.
    #[must_use]
    pub fn server_version(&self) -> Option<&str> {
        self.ours.as_ref().map(|ours| ours.description.server_version.as_str())
    }

    /// Its directory, with the components' logs in `logs/`; `None` when it is not ours.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.ours.as_ref().map(|ours| ours.description.dir.as_path())
    }

    /// The process ids of its running components by name, such as `kube-apiserver`; empty when it is not ours.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<String, u32> {
        self.ours
            .as_ref()
            .map(|ours| lock(&ours.running).processes.clone())
            .unwrap_or_default()
    }

    /// The process id of the program that owns the components; `None` when it is not ours.
    #[must_use]
    pub fn supervisor_pid(&self) -> Option<u32> {
        let ours = self.ours.as_ref()?;
        lock(&ours.running).supervisor.as_ref().map(Supervisor::pid)
    }

    /// The record of every request; `None` when the control plane is not ours.
    #[must_use]
    pub fn audit(&self) -> Option<AuditLog<'_>> {
        Some(AuditLog::new(self, self.ours.as_ref()?.description.audit_log.clone()))
    }

    /// The `kubectl` that fits it.
    #[must_use]
    pub fn kubectl_program(&self) -> PathBuf {
        match &self.ours {
            Some(ours) => ours.description.kubectl.clone(),
            // Of the same version as the tests' own server if it is there, else the user's.
            None => assets::find().map_or_else(
                || PathBuf::from("kubectl"),
                |assets| assets.path(Component::Kubectl).clone(),
            ),
        }
    }

    /// Runs `kubectl` as the admin and gives its output, whatever its outcome; it is killed after ten minutes.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output, Error> {
        let program = self.kubectl_program();
        // By default the cache goes by host and port, and an earlier control plane may have had the same.
        let cache = self
            .ours
            .as_ref()
            .map(|ours| ours.description.dir.join("kubectl-cache"));
        kubectl::run(program, self.kubeconfig.clone(), cache, arguments).await
    }

    /// Runs `kubectl` as the admin and gives what it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be run, and when it fails.
    pub async fn kubectl_stdout(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = self.kubectl(arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Kubectl {
            arguments: arguments.join(" "),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Applies YAML by server-side apply, as field manager `testkit`, taking over fields that others own.
    ///
    /// # Errors
    ///
    /// When a document is refused.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<(), Error> {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").map_err(Error::io("making a file"))?;
        std::fs::write(file.path(), yaml).map_err(Error::io("writing YAML"))?;
        self.apply_file(file.path()).await
    }

    /// Applies a file, or every file of a directory, as [`apply_yaml`](Self::apply_yaml).
    ///
    /// # Errors
    ///
    /// When a document is refused.
    pub async fn apply_file(&self, path: &Path) -> Result<(), Error> {
        let path = path.to_string_lossy();
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=testkit",
            "-f",
            &path,
        ];
        self.kubectl_stdout(&arguments).await.map(|_| ())
    }

    /// Creates a namespace with a name of its own. Dropped, it is deleted in the background.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn namespace(&self, prefix: &str) -> Result<TestNamespace, Error> {
        TestNamespace::create(self.config().await?, prefix).await
    }

    /// Stops it and waits until every process has ended and the temporary directory is gone. Does nothing to a cluster
    /// that is not ours.
    ///
    /// # Errors
    ///
    /// When it does not end in order.
    pub async fn stop(mut self) -> Result<(), Error> {
        let Some(ours) = self.ours.take() else { return Ok(()) };
        let Some(supervisor) = lock(&ours.running).supervisor.take() else {
            return Ok(());
        };
        let stopped = tokio::task::spawn_blocking(move || supervisor.stop()).await;
        stopped.map_err(|error| Error::Stop(error.to_string()))?
    }
}

/// What is running, also after a panic elsewhere: that is its test's own report.
fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}
