//! The services, and one measurement.

use std::{cell::Cell, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client, api::DynamicObject};
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, try_eventually};

use super::{
    SECRET_BYTES,
    settle::settled,
    subject::{Reading, Subject},
};
use crate::{Failure, Installation, Running, installation, load, services, start};

const NAMESPACE: &str = "models";
const UNRELATED_NAMESPACE: &str = "unrelated";
const CREDENTIALS: &str = "leanserve-credentials";
/// For a hundred services on a busy machine.
const READY: Duration = Duration::from_secs(900);
const PATIENCE: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(30);

/// leanserve installed, and services that are Ready.
pub(super) struct Cluster<'a> {
    plane: &'a ControlPlane,
    installation: Installation<'a>,
    client: Client,
    peer: PathBuf,
    services: usize,
    /// The kustomization whose rights are in force.
    rights: Cell<&'static str>,
}

impl<'a> Cluster<'a> {
    /// Installs leanserve, creates the services with their Secrets and has an operator make them Ready.
    pub(super) async fn new(plane: &'a ControlPlane, peer: PathBuf, services: usize) -> Result<Self, Failure> {
        let client = load::client(plane).await?;
        let cluster = Self {
            plane,
            installation: Installation::on(plane).await?,
            client: client.clone(),
            peer,
            services,
            rights: Cell::new("base"),
        };
        load::namespace(&client, NAMESPACE).await?;
        let objects = (0..services).map(Model::number).collect::<Result<Vec<_>, _>>();
        let objects = objects.map_err(std::io::Error::other)?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        load::create(&secrets, objects.iter().map(|object| object.secret.clone())).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        load::create(&accounts, objects.iter().map(|object| object.account.clone())).await?;
        let api = services::api(client, NAMESPACE);
        load::create(&api, objects.into_iter().map(|object| object.service)).await?;

        let mut operator = Running::spawn(&cluster.installation, &[])?;
        let ready = cluster.all_ready(&mut operator, &api).await;
        let log = operator.process.log();
        let stopped = operator.process.terminate(STOP).await;
        ready.map_err(|failure| failure.with_log(&log))?;
        stopped?;
        Ok(cluster)
    }

    async fn all_ready(&self, operator: &mut Running, api: &Api<DynamicObject>) -> Result<(), Failure> {
        start::ready(operator).await?;
        let ready = try_eventually("all services are Ready", READY, async || {
            services::ready(api, self.services).await
        });
        ready.await?;
        Ok(())
    }

    /// Creates Secrets that no service refers to.
    pub(super) async fn create_unrelated(&self, count: usize) -> Result<(), Failure> {
        Ok(load::unrelated_secrets(&self.client, UNRELATED_NAMESPACE, count, SECRET_BYTES).await?)
    }

    /// Measures a fresh process.
    pub(super) async fn measure(&self, subject: Subject, unrelated: usize) -> Result<Reading, String> {
        match subject.mode() {
            Some(mode) => self.operator(subject, mode).await,
            None => self.reflector(unrelated).await,
        }
        .map_err(|failure| failure.to_string())
    }

    async fn operator(&self, subject: Subject, mode: &str) -> Result<Reading, Failure> {
        self.grant(subject.kustomization()).await?;
        crate::settings::set_mode(&self.client, mode).await?;
        let mut operator = Running::spawn(&self.installation, &[])?;
        let reading = self.at_work(&mut operator, mode).await;
        let log = operator.process.log();
        let stopped = operator.process.terminate(STOP).await;
        let reading = reading.map_err(|failure| failure.with_log(&log))?;
        stopped?;
        Ok(reading)
    }

    /// Waits until the operator has been through all services and has read all their Secrets, and measures it.
    async fn at_work(&self, operator: &mut Running, mode: &str) -> Result<Reading, Failure> {
        start::ready(operator).await?;
        let services = u32::try_from(self.services).map_or(f64::MAX, f64::from);
        let mode = format!("mode=\"{mode}\"");
        let worked = try_eventually("a pass over every service", PATIENCE, async || {
            let metric = async |name: &str, labels: &[&str]| {
                let value = operator.metric(name, labels).await;
                value.map_err(|error| error.to_string())
            };
            let passes = metric("controller_runtime_reconcile_total", &[]).await?;
            let errors = metric("controller_runtime_reconcile_total", &["result=\"error\""]).await?;
            let waiting =
                metric("workqueue_depth", &[]).await? + metric("controller_runtime_active_workers", &[]).await?;
            let reads = metric("leanserve_secret_reads_total", &[&mode]).await?;
            let done = passes >= services && reads >= services && waiting < 0.5;
            if done && errors < 0.5 {
                return Ok(());
            }
            Err(format!(
                "{passes} passes, {errors} of them failed, {waiting} to do, {reads} Secret reads with {mode}"
            ))
        });
        worked.await?;
        Ok(settled(&operator.process).await.map_err(std::io::Error::other)?)
    }

    /// A reflector of all Secrets, once it has all of them.
    async fn reflector(&self, unrelated: usize) -> Result<Reading, Failure> {
        let kubeconfig = self.plane.kubeconfig_path();
        let arguments = ["--kubeconfig".as_ref(), kubeconfig.as_os_str()];
        let mut peer = Operator::spawn(&self.peer, arguments, [("KUBECONFIG", "")])?;
        let expected = unrelated + self.services;
        let holds = try_eventually("the reflector has all Secrets", PATIENCE, async || {
            let log = peer.log();
            if let Some(status) = peer.exited() {
                return Ok(Err(format!("the reflector has ended ({status}): {}", log.trim())));
            }
            match held(&log) {
                Some(count) if count >= expected => Ok(Ok(())),
                count => Err(format!("it has {count:?} of {expected}")),
            }
        });
        holds.await?.map_err(std::io::Error::other)?;
        let reading = settled(&peer).await;
        peer.terminate(STOP).await?;
        Ok(reading.map_err(std::io::Error::other)?)
    }

    /// Puts the rights on Secrets of a kustomization into force.
    async fn grant(&self, kustomization: &'static str) -> Result<(), Failure> {
        if self.rights.get() == kustomization {
            return Ok(());
        }
        let folder = installation::kustomization(kustomization);
        let text = self
            .plane
            .kubectl_stdout(&["kustomize", &folder.to_string_lossy()])
            .await?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(std::io::Error::other)?;
        let role = objects
            .iter()
            .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == CREDENTIALS)
            .ok_or_else(|| std::io::Error::other(format!("{kustomization} has no ClusterRole {CREDENTIALS}")))?;
        let may_list = lists_secrets(role);
        self.plane.apply_yaml(&role.to_string()).await?;
        let account = format!("--as=system:serviceaccount:{}:leanserve", installation::NAMESPACE);
        let asked = try_eventually("the rights are in force", PATIENCE, async || {
            let asking = ["auth", "can-i", "list", "secrets", "--all-namespaces", &account];
            let answer = self.plane.kubectl(&asking).await.map_err(|error| error.to_string())?;
            // It also answers by its status, which is 1 for no.
            let may = String::from_utf8_lossy(&answer.stdout).trim() == "yes";
            if may == may_list {
                Ok(())
            } else {
                Err(format!("may list Secrets: {may}"))
            }
        });
        asked.await?;
        self.rights.set(kustomization);
        Ok(())
    }
}

/// Whether a role allows `list` on Secrets.
fn lists_secrets(role: &Value) -> bool {
    let has = |rule: &Value, field: &str, value: &str| {
        let values = rule[field].as_array();
        values.is_some_and(|values| values.iter().any(|found| found == value))
    };
    let rules = role["rules"].as_array();
    rules.is_some_and(|rules| {
        rules
            .iter()
            .any(|rule| has(rule, "resources", "secrets") && has(rule, "verbs", "list"))
    })
}

/// How many Secrets the reflector says it has.
fn held(log: &str) -> Option<usize> {
    log.lines()
        .find_map(|line| line.strip_prefix("Secrets held: ")?.parse().ok())
}

/// A service with its credentials.
struct Model {
    secret: Secret,
    account: ServiceAccount,
    service: DynamicObject,
}

impl Model {
    fn number(number: usize) -> serde_json::Result<Self> {
        let (secret, account) = (format!("s3-{number}"), format!("reader-{number}"));
        let mut credentials = services::s3_credentials(&secret, &account, NAMESPACE, "not-a-real-key").into_iter();
        let mut next = || credentials.next().unwrap_or_default();
        let mut secret = next();
        secret["stringData"]["certificate"] = json!("x".repeat(SECRET_BYTES));
        Ok(Self {
            secret: serde_json::from_value(secret)?,
            account: serde_json::from_value(next())?,
            service: serde_json::from_value(services::sklearn(&format!("model-{number}"), NAMESPACE, Some(&account)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Model, SECRET_BYTES, held, lists_secrets};

    #[test]
    fn a_service_comes_with_its_credentials() {
        let made = Model::number(7).expect("it is made");
        let secret = made.secret;
        assert_eq!(secret.metadata.name.as_deref(), Some("s3-7"));
        let size: usize = secret.string_data.iter().flatten().map(|(_, value)| value.len()).sum();
        assert!(size >= SECRET_BYTES, "{size}");
        assert_eq!(made.account.secrets.iter().flatten().count(), 1);
        assert_eq!(made.service.data["spec"]["predictor"]["serviceAccountName"], "reader-7");
    }

    #[test]
    fn rights_are_read_from_the_role() {
        let role = |verbs: &[&str]| {
            json!({"rules": [
                {"resources": ["pods"], "verbs": ["list"]},
                {"resources": ["secrets"], "verbs": ["get"]},
                {"resources": ["secrets"], "verbs": verbs},
            ]})
        };
        assert!(lists_secrets(&role(&["list"])));
        assert!(!lists_secrets(&role(&["get"])));
        assert!(!lists_secrets(&json!({})));
    }

    #[test]
    fn the_reflectors_count_is_found() {
        assert_eq!(held("starting\nSecrets held: 8100\n"), Some(8100));
        assert_eq!(held("starting\n"), None);
    }
}
