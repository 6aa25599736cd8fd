//! The configuration of the node's components.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde_json::json;

/// The node's address within its network namespace, of the range that no network routes (RFC 2544).
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The node's name, which its credentials hold too.
pub(crate) const NODE: &str = "node";
/// Pods' addresses.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
/// The Service of the DNS server, of the control plane's range of Services.
const DNS_ADDRESS: &str = "10.0.0.10";
/// Sockets live here: the directory is a file system of the mount namespace, and names of sockets must be short.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The image that holds a Pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "leanserve/pause:1";

/// Paths of what is written.
pub(crate) struct Files {
    pub(crate) containerd: PathBuf,
    pub(crate) kubelet: PathBuf,
    pub(crate) corefile: PathBuf,
    pub(crate) dns_service: PathBuf,
}

/// Writes everything below `directory`.
pub(crate) fn write(directory: &Path, cgroup: &str, plugins: &Path, kubeconfig: &Path) -> io::Result<Files> {
    let networks = directory.join("cni");
    fs::create_dir_all(&networks)?;
    fs::create_dir_all(directory.join("pod-logs"))?;
    let files = Files {
        containerd: directory.join("containerd.toml"),
        kubelet: directory.join("kubelet.yaml"),
        corefile: directory.join("Corefile"),
        dns_service: directory.join("dns.yaml"),
    };
    fs::write(networks.join("10-pods.conflist"), network().to_string())?;
    fs::write(&files.containerd, containerd(directory, plugins, &networks))?;
    fs::write(&files.kubelet, kubelet(directory, cgroup).to_string())?;
    fs::write(&files.corefile, corefile(kubeconfig))?;
    fs::write(&files.dns_service, dns_service().to_string())?;
    Ok(files)
}

/// Each Pod gets a pair of interfaces and a route; nothing is translated, since nothing leaves the machine.
fn network() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni",
                },
            },
        ],
    })
}

fn containerd(directory: &Path, plugins: &Path, networks: &Path) -> String {
    let quoted = |path: &Path| json!(path.display().to_string());
    format!(
        r#"version = 2
root = {root}
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE runc cannot lower a score, and dies.
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "docker.io/{PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    # Works on every file system, also on one that is an overlay itself.
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
"#,
        root = quoted(&directory.join("containerd")),
        plugins = quoted(plugins),
        networks = quoted(networks),
    )
}

fn kubelet(directory: &Path, cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        // Its port is on an address of the network namespace only.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        // The disk is the developer's: a nearly full one must not end the tests.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        // Images come from archives and could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "maxPods": 500,
        "readOnlyPort": 0,
        "serializeImagePulls": true,
        "volumePluginDir": directory.join("volume-plugins"),
        "podLogsDir": directory.join("pod-logs"),
    })
}

fn corefile(kubeconfig: &Path) -> String {
    format!(
        ".:53 {{
    bind {NODE_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
",
        kubeconfig = kubeconfig.display()
    )
}

/// The server runs on the node and not in a Pod, so its Service has no selector.
fn dns_service() -> serde_json::Value {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system"},
                "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "kube-dns",
                    "namespace": "kube-system",
                    "labels": {"kubernetes.io/service-name": "kube-dns"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [NODE_ADDRESS.to_string()]}],
                "ports": ports,
            },
        ],
    })
}
