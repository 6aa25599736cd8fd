//! The command line of each component.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{
    assets::{Assets, Component},
    process,
};

use crate::{RunArguments, identity::Identities, nodes};

/// What every request leaves in the audit log: who, what, when and the outcome, but no body.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Ports of one attempt to start.
pub(crate) struct Ports {
    address: Ipv4Addr,
    etcd: u16,
    etcd_peer: u16,
    apiserver: u16,
}

impl Ports {
    /// Free ports, as of now: nothing keeps them free until a component listens, so a start must be ready to retry.
    /// The API server's is one of `address`.
    pub(crate) fn choose(address: Ipv4Addr) -> io::Result<Self> {
        let loopback = Ipv4Addr::LOCALHOST;
        // Held together, so that they differ.
        let listeners = [listen(loopback)?, listen(loopback)?, listen(address)?];
        let [etcd, etcd_peer, apiserver] = listeners;
        Ok(Self {
            address,
            etcd: etcd.local_addr()?.port(),
            etcd_peer: etcd_peer.local_addr()?.port(),
            apiserver: apiserver.local_addr()?.port(),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.apiserver)
    }

    pub(crate) fn etcd(&self) -> u16 {
        self.etcd
    }
}

fn listen(address: Ipv4Addr) -> io::Result<TcpListener> {
    TcpListener::bind((address, 0))
}

/// Makes the commands of one control plane.
pub(crate) struct Commands<'a> {
    pub(crate) assets: &'a Assets,
    pub(crate) arguments: &'a RunArguments,
    pub(crate) directory: &'a Path,
    pub(crate) identities: &'a Identities,
    pub(crate) ports: &'a Ports,
}

impl Commands<'_> {
    /// The component's command, with the files it needs written.
    pub(crate) fn command(&self, component: Component) -> io::Result<Command> {
        let mut command = process::tied(self.assets.path(component));
        match component {
            Component::Etcd => self.etcd(&mut command),
            Component::KubeApiserver => self.apiserver(&mut command)?,
            Component::KubeControllerManager => self.controller_manager(&mut command),
            Component::KubeScheduler => self.scheduler(&mut command),
            Component::Kwok => self.kwok(&mut command)?,
            Component::Kubectl => {}
        }
        command
            // Nothing of the user's own configuration may leak in.
            .env("HOME", self.directory)
            .env("KWOK_WORKDIR", self.directory.join("kwok"))
            .env_remove("KUBECONFIG")
            .current_dir(self.directory);
        Ok(command)
    }

    pub(crate) fn audit_log(directory: &Path) -> PathBuf {
        directory.join("audit.log")
    }

    fn etcd(&self, command: &mut Command) {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        command
            .arg("--name=default")
            .arg(flag("--data-dir", self.directory.join("etcd")))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            // Its data need not survive a power cut; syncing costs milliseconds a write.
            .arg("--unsafe-no-fsync")
            // The default of 2 GiB is less than a memory test stores.
            .arg("--quota-backend-bytes=8589934592")
            .arg("--log-level=warn");
    }

    fn apiserver(&self, command: &mut Command) -> io::Result<()> {
        let policy = self.directory.join("audit-policy.yaml");
        fs::write(&policy, AUDIT_POLICY)?;
        let key = |name: &str| self.identities.file(name);
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd))
            .arg(format!("--bind-address={}", self.ports.address))
            .arg(format!("--secure-port={}", self.ports.apiserver))
            .arg(flag("--cert-dir", self.directory.join("certificates")))
            .arg(flag("--tls-cert-file", key("server.pem")))
            .arg(flag("--tls-private-key-file", key("server-key.pem")))
            .arg(flag("--token-auth-file", key("tokens.csv")))
            .arg(flag("--service-account-key-file", key("service-accounts.pem")))
            .arg(flag(
                "--service-account-signing-key-file",
                key("service-accounts-key.pem"),
            ))
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            // A /24 has no address left after 254 Services.
            .arg("--service-cluster-ip-range=10.0.0.0/16")
            .arg("--max-requests-inflight=3000")
            .arg("--max-mutating-requests-inflight=1500")
            .arg(flag("--audit-policy-file", policy))
            .arg(flag("--audit-log-path", Self::audit_log(self.directory)))
            .arg("--audit-log-format=json")
            // Each line is written before the request is over, so that the log can be waited for.
            .arg("--audit-log-mode=blocking")
            // Megabytes; a log that is rotated away would look like requests that never were.
            .arg("--audit-log-maxsize=100000")
            .args(&self.arguments.apiserver_flag);
        match self.arguments.node_address {
            Some(address) => command
                .arg("--authorization-mode=Node,RBAC")
                .arg(format!("--advertise-address={address}"))
                .arg("--kubelet-preferred-address-types=InternalIP"),
            None => command
                .arg("--authorization-mode=RBAC")
                // Loopback is no valid endpoint, and nothing here reaches the server through its Service.
                .arg("--endpoint-reconciler-type=none"),
        };
        Ok(())
    }

    fn controller_manager(&self, command: &mut Command) {
        let autoscaler = if self.arguments.no_hpa {
            ",-horizontal-pod-autoscaler-controller"
        } else {
            ""
        };
        command
            .arg(flag(
                "--kubeconfig",
                self.identities.kubeconfig("kube-controller-manager"),
            ))
            .arg(flag(
                "--service-account-private-key-file",
                self.identities.file("service-accounts-key.pem"),
            ))
            .arg(flag("--root-ca-file", self.identities.file("ca.pem")))
            .arg("--use-service-account-credentials")
            .arg(format!("--controllers=*{autoscaler}"))
            .arg("--leader-elect=false")
            .arg("--secure-port=0")
            // The defaults of 20 and 30 would make a thousand Deployments a test of the client's own throttle.
            .args(["--kube-api-qps=2000", "--kube-api-burst=4000"])
            .args(["--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10"])
            .args(["--concurrent-gc-syncs=20", "--concurrent-namespace-syncs=20"])
            // A machine busy with other tests must not look like dead nodes.
            .args(["--node-monitor-grace-period=10m"]);
    }

    fn scheduler(&self, command: &mut Command) {
        command
            .arg(flag("--kubeconfig", self.identities.kubeconfig("kube-scheduler")))
            .arg("--leader-elect=false")
            .arg("--secure-port=0")
            .args(["--kube-api-qps=2000", "--kube-api-burst=4000"]);
    }

    fn kwok(&self, command: &mut Command) -> io::Result<()> {
        let config = self.directory.join("kwok.yaml");
        fs::write(&config, nodes::STAGES)?;
        command
            .arg(flag("--kubeconfig", self.identities.kubeconfig("kwok")))
            .arg(flag("--config", config))
            .arg("--manage-all-nodes=true")
            // Pods' addresses, apart from those of Services.
            .arg("--cidr=10.1.0.1/16")
            .arg("--node-lease-duration-seconds=40");
        Ok(())
    }
}

fn flag(name: &str, path: PathBuf) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push("=");
    flag.push(path);
    flag
}
