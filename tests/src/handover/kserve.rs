//! `KServe`'s own controller as a child process, with its CRDs, its configuration and its webhooks.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Operator, assets::KServe};

use crate::Failure;

/// Where it runs, and where its settings are.
pub(super) const NAMESPACE: &str = "kserve";
const WEBHOOKS: &str = "inferenceservice.serving.kserve.io";

/// What its controller needs besides a cluster.
pub(super) struct Controller<'a> {
    plane: &'a ControlPlane,
    program: &'a KServe,
    directory: TempDir,
    certificate: String,
    webhook_port: u16,
}

/// The objects of a file with several YAML documents.
fn documents(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = fs::read_to_string(path)?;
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(io::Error::other)?;
    Ok(all.into_iter().filter(Value::is_object).collect())
}

/// The CRDs of the release.
///
/// # Errors
///
/// When the sources are not what they should be.
pub(super) fn definitions(program: &KServe) -> Result<Vec<Value>, Failure> {
    let root = program.sources().join("config/crd/full");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in [root.clone(), root.join("clusterstoragecontainer")] {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    let mut definitions = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("serving.kserve.io_") {
            definitions.extend(documents(&file)?);
        }
    }
    Ok(definitions)
}

impl<'a> Controller<'a> {
    /// Makes its namespace and its settings: those of the release, in Standard mode and with Ingresses.
    ///
    /// # Errors
    ///
    /// When something is refused.
    pub(super) async fn install(plane: &'a ControlPlane, program: &'a KServe) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let served = directory.path().join("k8s-webhook-server/serving-certs");
        fs::create_dir_all(&served)?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
        let certificate = parameters.self_signed(&key).map_err(io::Error::other)?.pem();
        fs::write(served.join("tls.crt"), &certificate)?;
        fs::write(served.join("tls.key"), key.serialize_pem())?;
        let controller = Self {
            plane,
            program,
            directory,
            certificate,
            webhook_port: free_port()?,
        };
        controller.configure().await?;
        Ok(controller)
    }

    async fn configure(&self) -> Result<(), Failure> {
        let path = self.program.sources().join("config/configmap/inferenceservice.yaml");
        let mut settings = documents(&path)?.into_iter().next().unwrap_or_default();
        settings["metadata"]["namespace"] = json!(NAMESPACE);
        settings["data"]["deploy"] = json!(r#"{"defaultDeploymentMode": "Standard"}"#);
        let ingress = settings["data"]["ingress"].as_str().unwrap_or_default();
        let mut ingress: Value = serde_json::from_str(ingress).map_err(io::Error::from)?;
        ingress["disableIstioVirtualHost"] = json!(true);
        ingress["enableGatewayApi"] = json!(false);
        ingress["ingressClassName"] = json!("nginx");
        settings["data"]["ingress"] = json!(ingress.to_string());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        self.plane.apply_yaml(&namespace.to_string()).await?;
        Ok(self.plane.apply_yaml(&settings.to_string()).await?)
    }

    /// Starts it as its Pod would be restarted: on the same port, with the same certificate.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(super) fn start(&self) -> Result<Operator, Failure> {
        // It looks for its namespace in a file of its Pod and takes it from nowhere else, so it gets a /run of its own.
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
             printf {NAMESPACE} > /run/secrets/kubernetes.io/serviceaccount/namespace && exec \"$@\""
        );
        let port = format!("--webhook-port={}", self.webhook_port);
        let manager = self.program.manager();
        let arguments = ["--map-root-user", "--mount", "sh", "-c", &script, "sh"];
        let arguments = arguments.into_iter().map(str::to_owned).chain([
            manager.to_string_lossy().into_owned(),
            "--leader-elect".to_owned(),
            "--metrics-addr=0".to_owned(),
            "--health-probe-addr=0".to_owned(),
            port,
        ]);
        let kubeconfig = self.plane.kubeconfig_path().to_string_lossy().into_owned();
        let temporary = self.directory.path().to_string_lossy().into_owned();
        let environment = [
            ("KUBECONFIG", kubeconfig),
            ("TMPDIR", temporary),
            ("POD_NAMESPACE", NAMESPACE.to_owned()),
        ];
        Ok(Operator::spawn(Path::new("unshare"), arguments, environment)?)
    }

    /// Has the API server ask its webhooks about services and their Pods, as the release's manifests do.
    ///
    /// # Errors
    ///
    /// When something is refused.
    pub(super) async fn register_webhooks(&self) -> Result<(), Failure> {
        let path = self.program.sources().join("config/webhook/manifests.yaml");
        for mut configuration in documents(&path)? {
            if configuration["metadata"]["name"] != WEBHOOKS {
                continue;
            }
            for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
                let path = webhook["clientConfig"]["service"]["path"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                webhook["clientConfig"] = json!({
                    "url": format!("https://127.0.0.1:{}{path}", self.webhook_port),
                    "caBundle": BASE64.encode(&self.certificate),
                });
            }
            self.plane.apply_yaml(&configuration.to_string()).await?;
        }
        Ok(())
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
