//! `leanserve webhook` with the rights it is to have and no more, its replicas, and something between them and the API server.

mod balancer;
mod burst;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Error, Operator, TestNamespace, eventually};

pub use self::{
    balancer::Balancer,
    burst::{Answers, Burst},
};
use crate::{
    cgroup::Cgroup,
    installation::kustomization,
    running::{Running, free_address, get, metric},
    services,
};

/// Names in `deploy/`.
const NAME: &str = "leanserve-webhook";
const HOME: &str = "leanserve-system";
const PLATFORM: &str = "kserve";

/// Where reviews are posted to.
pub const PATH: &str = "/validate-inferenceservice-references";

/// On a busy machine.
const READY: Duration = Duration::from_secs(120);

/// What becomes of writes when the webhook cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Writes go on where the webhook cannot be reached.
    Ignore,
    /// They do not.
    Fail,
}

/// A webhook's objects in a namespace of its own, and a namespace whose services it reviews.
#[derive(Debug)]
pub struct Site<'a> {
    /// The control plane.
    pub plane: &'a ControlPlane,
    /// The webhook's own namespace.
    pub home: TestNamespace,
    /// Where services are reviewed.
    pub tenant: TestNamespace,
    directory: TempDir,
    /// Where the API server calls.
    pub address: SocketAddr,
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub process: Operator,
    /// Where it serves reviews.
    pub address: SocketAddr,
    metrics: SocketAddr,
    /// Where `/readyz` is.
    pub probes: SocketAddr,
}

impl<'a> Site<'a> {
    /// What `deploy/` has for the webhook, with names of this test's own, called at `address`.
    ///
    /// # Errors
    ///
    /// When something is refused.
    ///
    /// # Panics
    ///
    /// When `deploy/` is not what it should be.
    pub async fn new(plane: &'a ControlPlane, address: SocketAddr, policy: FailurePolicy) -> Result<Self, Error> {
        let (home, tenant) = (plane.namespace("webhook").await?, plane.namespace("tenant").await?);
        let directory = tempfile::tempdir().map_err(|source| Error::Io {
            what: "making a directory".into(),
            source,
        })?;
        let site = Self {
            plane,
            home,
            tenant,
            directory,
            address,
        };
        plane.apply_yaml(&services::list(&site.objects(policy))).await?;
        plane
            .write_service_account_kubeconfig(&site.home.name, NAME, &site.kubeconfig())
            .await?;
        Ok(site)
    }

    fn objects(&self, policy: FailurePolicy) -> Vec<Value> {
        let mut objects = manifest();
        let home = &self.home.name;
        for object in &mut objects {
            let metadata = &mut object["metadata"];
            match metadata["namespace"].as_str() {
                Some(HOME) => metadata["namespace"] = json!(home),
                Some(_) | None => metadata["name"] = json!(self.configuration()),
            }
            for subject in list(object, "subjects") {
                subject["namespace"] = json!(home);
            }
            let is_cluster_role = object["kind"] == "ClusterRole";
            for rule in list(object, "rules") {
                let of_configuration = rule["resources"] == json!(["validatingwebhookconfigurations"]);
                if is_cluster_role && of_configuration {
                    rule["resourceNames"] = json!([self.configuration()]);
                }
            }
            if object["roleRef"].is_object() && object["metadata"]["namespace"] != json!(home) {
                object["roleRef"]["name"] = json!(self.configuration());
            }
            for webhook in list(object, "webhooks") {
                webhook["clientConfig"] = json!({"url": format!("https://{}{PATH}", self.address)});
                webhook["failurePolicy"] = json!(format!("{policy:?}"));
                // Other tests use the same API server.
                webhook["namespaceSelector"]["matchExpressions"]
                    .as_array_mut()
                    .expect("deploy/ leaves namespaces out")
                    .push(
                        json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.tenant.name]}),
                    );
            }
        }
        objects
    }

    /// Name of the configuration, and of all other objects that are not in the webhook's own namespace.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!("{NAME}-{}", self.home.name)
    }

    /// The webhook's user name in the audit log.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{NAME}", self.home.name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("webhook.kubeconfig")
    }

    /// Starts a replica and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    pub async fn replica(&self, address: SocketAddr, more: &[&str]) -> Result<Replica, Error> {
        let mut replica = self.spawn(address, None, more)?;
        replica.ready().await;
        Ok(replica)
    }

    /// Starts a replica within a limit on memory and waits until it is ready. It joins the group before it begins.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    pub async fn limited(&self, address: SocketAddr, group: &Cgroup, more: &[&str]) -> Result<Replica, Error> {
        let mut replica = self.spawn(address, Some(group), more)?;
        replica.ready().await;
        Ok(replica)
    }

    fn spawn(&self, address: SocketAddr, group: Option<&Cgroup>, more: &[&str]) -> Result<Replica, Error> {
        let (metrics, probes) = (free_address()?, free_address()?);
        let mut arguments: Vec<String> = ["webhook", "--kubeconfig"].map(str::to_owned).into();
        arguments.push(self.kubeconfig().to_string_lossy().into_owned());
        let own = [
            ("--metrics-bind-address", metrics.to_string()),
            ("--health-probe-bind-address", probes.to_string()),
            ("--webhook-bind-address", address.to_string()),
            ("--namespace", self.home.name.clone()),
            ("--platform-namespace", PLATFORM.to_owned()),
            ("--webhook-configuration", self.configuration()),
            ("--webhook-hosts", format!("127.0.0.1,{}", self.address.ip())),
        ];
        for (flag, value) in own {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let program = Running::binary()?;
        let process = match group {
            None => Operator::spawn(&program, arguments, [("KUBECONFIG", "")])?,
            Some(group) => group.spawn(&program, arguments)?,
        };
        Ok(Replica {
            process,
            address,
            metrics,
            probes,
        })
    }

    /// The authorities that API servers trust, as PEM.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read, or has none.
    pub async fn authorities(&self) -> Result<String, Error> {
        use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;

        let api: kube::Api<ValidatingWebhookConfiguration> = kube::Api::all(self.plane.client().await?);
        let configuration = api.get(&self.configuration()).await?;
        let bundle = configuration.webhooks.into_iter().flatten().next();
        let bundle = bundle.and_then(|webhook| webhook.client_config.ca_bundle);
        Ok(bundle
            .map(|bundle| String::from_utf8_lossy(&bundle.0).into_owned())
            .unwrap_or_default())
    }
}

impl Replica {
    /// Waits until `/readyz` says so.
    ///
    /// # Panics
    ///
    /// At the deadline or when the process ends, with its log.
    pub async fn ready(&mut self) {
        let probes = self.probes;
        eventually("the webhook is ready", READY, async || {
            if let Some(status) = self.process.exited() {
                panic!("the webhook ended ({status}):\n{}", self.process.log());
            }
            match get(probes, "/readyz").await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status}: {}\n{}", body.trim(), self.process.log())),
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

    /// The sum of the samples of a metric that have all these labels.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> io::Result<f64> {
        Ok(metric(&self.metrics().await?, name, labels))
    }

    /// Everything under `/metrics`.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metrics(&self) -> io::Result<String> {
        Ok(get(self.metrics, "/metrics").await?.1)
    }
}

/// What of `deploy/` the webhook needs beside its Pods.
fn manifest() -> Vec<Value> {
    let folder = kustomization("components/webhook");
    let files = ["access.yaml", "configuration.yaml", "service.yaml"];
    let documents = files.into_iter().flat_map(|file| {
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("deploy/ is YAML");
        documents
    });
    let needed = |object: &Value| !matches!(object["kind"].as_str(), Some("Service" | "PodDisruptionBudget"));
    documents.filter(needed).collect()
}

fn list<'v>(object: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = object.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// A free port of this address.
///
/// # Errors
///
/// When there is none.
pub fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((ip, 0))?.local_addr()
}

/// An address of this machine that is not loopback, where it has one. API servers use HTTP/2 with webhooks on loopback alone.
#[must_use]
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the kernel only chooses the address it would be sent from. TEST-NET-1, RFC 5737.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
