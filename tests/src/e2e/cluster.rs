//! The cluster that the scenarios run on.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use kube::Client;
use serde::Deserialize;
use testkit::{ControlPlane, audit::AuditLog, cargo_bin};

use crate::{Failure, installation::NAMESPACE, load, report::workspace};

/// The images, as archives in `target/image`.
const ARCHIVES: [&str; 3] = ["leanserve", "model-server", "storage-initializer"];
const NAIVE_ARCHIVE: &str = "reflector-peer";
/// The image of the naive controller.
pub const NAIVE_IMAGE: &str = "leanserve/reflector-peer:e2e";

/// A cluster, by its kubeconfig.
#[allow(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct Cluster {
    /// Its API.
    pub plane: ControlPlane,
    /// A client of the admin.
    pub client: Client,
    /// Where helm is.
    pub helm: PathBuf,
    own: Option<Own>,
}

/// What only the one-node cluster of this project has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    /// The cluster of `KUBECONFIG`, else the one that `make cluster` started. Only if `foreign` any other than that.
    ///
    /// # Errors
    ///
    /// When there is none, it may not be used, or helm cannot be built.
    pub async fn connect(foreign: bool) -> Result<Self, Failure> {
        let own = fs::read_to_string(workspace().join("target/cluster/cluster.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<Own>(&text).ok());
        let named = env::var_os("KUBECONFIG")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        let own = own.filter(|own| named.as_ref().is_none_or(|named| *named == own.kubeconfig));
        if own.is_none()
            && !foreign
            && let Some(named) = &named
        {
            return Err(Failure::Unmet(format!(
                "KUBECONFIG={} is not the cluster of `make cluster`: the scenarios replace and remove the release `leanserve` in \
                 {NAMESPACE} there. Set E2E_FOREIGN_CLUSTER=1 if they may, or unset KUBECONFIG",
                named.display()
            )));
        }
        let kubeconfig = named
            .or_else(|| own.as_ref().map(|own| own.kubeconfig.clone()))
            .ok_or_else(|| {
                Failure::Unmet("there is no cluster: run `make cluster` first, or set KUBECONFIG".to_owned())
            })?;
        let plane = ControlPlane::of_kubeconfig(kubeconfig);
        let client = load::client(&plane).await?;
        let tools = command(&mut Command::new(workspace().join("scripts/packaging-tools"))).await?;
        Ok(Self {
            plane,
            client,
            helm: Path::new(tools.trim()).join("helm"),
            own,
        })
    }

    /// Whether it is the project's own, with which anything may be done.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The record of every request, where there is one.
    #[must_use]
    pub fn audit(&self) -> Option<AuditLog<'_>> {
        let own = self.own.as_ref()?;
        Some(AuditLog::new(&self.plane, own.audit_log.clone()))
    }

    /// Loads the images that the scenarios need into the project's own cluster, that of the naive controller if asked for.
    /// Others must have them already: they are in `target/image`, for `kind load image-archive` and the like.
    ///
    /// # Errors
    ///
    /// When one is missing or cannot be loaded.
    pub async fn load_images(&self, naive: bool) -> Result<(), Failure> {
        let Some(own) = &self.own else { return Ok(()) };
        let images = workspace().join("target/image");
        let names = ARCHIVES.into_iter().chain(naive.then_some(NAIVE_ARCHIVE));
        let archives: Vec<_> = names.map(|name| images.join(format!("{name}.oci.tar"))).collect();
        if let Some(missing) = archives.iter().find(|archive| !archive.is_file()) {
            let missing = missing.display();
            return Err(Failure::Unmet(format!(
                "{missing} is missing: `make image` and scripts/e2e-images make what is needed"
            )));
        }
        let program = cargo_bin("testkit", "cluster")?;
        command(
            Command::new(program)
                .arg("load")
                .arg("--dir")
                .arg(&own.dir)
                .args(archives),
        )
        .await?;
        Ok(())
    }

    /// Does something to a component of the project's own control plane: `stop`, `kill`, `start`, `pause` or `resume`.
    ///
    /// # Errors
    ///
    /// When the cluster is not the project's own, or refuses.
    pub async fn order(&self, verb: &str, component: &str) -> Result<(), Failure> {
        let own = self.own.as_ref().ok_or_else(|| {
            Failure::Unmet(format!(
                "{verb} {component}: only possible on the cluster of `make cluster`"
            ))
        })?;
        let program = cargo_bin("testkit", "cluster")?;
        command(
            Command::new(program)
                .arg("order")
                .arg("--dir")
                .arg(&own.dir)
                .args([verb, component]),
        )
        .await?;
        Ok(())
    }

    /// A path of a service or Pod by way of the API server, which works on every cluster.
    ///
    /// # Errors
    ///
    /// When it does not answer with success.
    pub async fn get(&self, path: &str) -> Result<String, Failure> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| Failure::Unmet(format!("{path}: {error}")))?;
        Ok(self.client.request_text(request).await?)
    }
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
///
/// When it fails, with what it said.
pub async fn command(command: &mut Command) -> Result<String, Failure> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("true")));
    let output = command.kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Unmet(format!("{shown}: {}: {}", output.status, said.trim())))
}
