//! The chart, installed and changed by helm.

use std::process::Command;

use serde_json::Value;

use super::cluster::{Cluster, command};
use crate::{Failure, installation::NAMESPACE, report::workspace};

/// Name of the release, and by that of the objects.
pub const RELEASE: &str = "leanserve";

/// Installs the chart, or changes the release to these values, and waits until its Pods are ready.
///
/// # Errors
///
/// When helm fails, or the Pods are not ready in time.
pub async fn install(cluster: &Cluster, values: &Value) -> Result<(), Failure> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), values.to_string())?;
    command(
        helm(cluster)
            .args(["upgrade", "--install", RELEASE])
            .arg(workspace().join("deploy/helm/leanserve"))
            .args(["--create-namespace", "--reset-values", "--wait", "--timeout", "90s"])
            .arg("--values")
            .arg(file.path()),
    )
    .await
    .map(|_| ())
}

/// Goes back to an earlier revision of the release.
///
/// # Errors
///
/// When helm fails.
pub async fn roll_back(cluster: &Cluster) -> Result<(), Failure> {
    command(helm(cluster).args(["rollback", RELEASE, "--wait", "--timeout", "90s"]))
        .await
        .map(|_| ())
}

/// Removes the release if there is one; the CRDs stay.
///
/// # Errors
///
/// When helm fails.
pub async fn uninstall(cluster: &Cluster) -> Result<(), Failure> {
    command(helm(cluster).args(["uninstall", RELEASE, "--ignore-not-found", "--wait"]))
        .await
        .map(|_| ())
}

fn helm(cluster: &Cluster) -> Command {
    let mut helm = Command::new(&cluster.helm);
    helm.arg("--kubeconfig")
        .arg(cluster.plane.kubeconfig_path())
        .args(["--namespace", NAMESPACE]);
    helm
}
