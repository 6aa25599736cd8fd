//! A real Prometheus that scrapes the operator's Pod by way of the API server, with the project's alerts.

use std::{
    process::{Child, Stdio},
    time::Instant,
};

use testkit::{process, try_eventually};

use super::{Cluster, PATIENCE};
use crate::{
    Failure,
    installation::NAMESPACE,
    prometheus::{Prometheus, hastened},
    report::workspace,
    running::free_address,
};

/// Prometheus, and the proxy by which it reaches the cluster.
pub(super) struct Scrape {
    prometheus: Prometheus,
    proxy: Child,
}

impl Scrape {
    /// Starts both.
    pub(super) async fn start(cluster: &Cluster, pod: &str) -> Result<Self, Failure> {
        let address = free_address()?;
        let mut command = process::tied(cluster.plane.kubectl_program());
        command
            .arg("--kubeconfig")
            .arg(cluster.plane.kubeconfig_path())
            .args(["proxy", "--address=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let proxy = process::spawn(command)?;
        let rules = std::fs::read_to_string(workspace().join("deploy/observability/alerts.yaml"))?;
        let prometheus = Prometheus::start(&hastened(&rules)).await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        prometheus.scrape_path("leanserve", address, &path)?;
        Ok(Self { prometheus, proxy })
    }

    /// Waits until an alert fires, or no longer does while the operator is scraped; gives the seconds that took.
    pub(super) async fn until(&self, alert: &str, fires: bool) -> Result<f64, Failure> {
        let started = Instant::now();
        let what = if fires { "fires" } else { "clears" };
        try_eventually(&format!("{alert} {what}"), PATIENCE, async || {
            let firing = self.prometheus.firing().await?;
            if firing.iter().any(|name| name == alert) != fires {
                return Err(format!("firing: {firing:?}"));
            }
            // An alert of series that have ended clears as well.
            match self.prometheus.query("up == 1").await?.len() {
                1 => Ok(()),
                scraped => Err(format!("{scraped} targets answer")),
            }
        })
        .await?;
        Ok(started.elapsed().as_secs_f64())
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}
