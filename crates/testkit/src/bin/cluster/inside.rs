//! What runs within the namespaces: sets up the network, starts every component and owns them until the end.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{assets, process};

use crate::{
    Failure, InsideArguments, cgroups, context, ended,
    files::{self, CONTAINERD_SOCKET, NODE, NODE_ADDRESS, PAUSE_IMAGE, POD_RANGE},
    forward,
    orders::{self, Loader, Plane},
    outside,
    packages::Runtime,
};

/// How long one step of the start may take; seconds are normal, but a machine may be busy.
const STEP_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// What runs, and where.
struct Node<'a> {
    directory: &'a Path,
    runtime: Runtime,
    children: Vec<(&'static str, Child)>,
}

/// Starts everything, says so in the cluster's directory, and serves until a component ends.
pub(crate) fn run(arguments: &InsideArguments) -> Result<(), Failure> {
    let directory = arguments.dir.as_path();
    // Made outside: it is in the machine's network namespace, and leads into this one.
    let listener = io::stdin().as_fd().try_clone_to_owned();
    let listener = std::net::TcpListener::from(listener.map_err(context("taking the listener"))?);

    isolate()?;
    cgroups::create(&arguments.cgroup).map_err(context(format!("creating the cgroup {}", arguments.cgroup)))?;
    let mut node = Node {
        directory,
        runtime: Runtime::find_or_fetch()?,
        children: Vec::new(),
    };
    fs::create_dir_all(directory.join("logs")).map_err(context("creating the directory of logs"))?;

    let plane_directory = directory.join("control-plane");
    let identity = |name: &str| plane_directory.join("identities").join(format!("{name}.kubeconfig"));
    let (plane, description) = node.start_control_plane(&arguments.control_plane, &plane_directory)?;
    let files = files::write(
        directory,
        &arguments.cgroup,
        node.runtime.plugins(),
        &identity("coredns"),
    )
    .map_err(context("writing the node's configuration"))?;

    let mut containerd = node.command("containerd");
    containerd.arg("--config").arg(&files.containerd);
    node.start("containerd", containerd)?;
    node.until("containerd", || Path::new(CONTAINERD_SOCKET).exists())?;
    let programs = assets::find_or_build_node(&mut io::stderr())?;
    let pause = directory.join("pause.tar");
    make_image(&programs.image_program("pause"), PAUSE_IMAGE, &pause)?;
    node.loader().load(&pause)?;

    let mut kubelet = node.command(programs.kubelet());
    kubelet
        .arg("--config")
        .arg(&files.kubelet)
        .arg("--kubeconfig")
        .arg(identity("kubelet"))
        .arg("--root-dir")
        .arg(directory.join("kubelet"))
        .arg(format!("--hostname-override={NODE}"))
        .arg(format!("--node-ip={NODE_ADDRESS}"));
    node.start("kubelet", kubelet)?;
    let mut proxy = node.command(programs.kube_proxy());
    proxy
        .arg("--kubeconfig")
        .arg(identity("kube-proxy"))
        .arg("--proxy-mode=nftables")
        .arg(format!("--hostname-override={NODE}"))
        .arg(format!("--cluster-cidr={POD_RANGE}"))
        // These limits are the machine's and not the namespace's.
        .args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
    node.start("kube-proxy", proxy)?;
    let mut dns = node.command(programs.coredns());
    dns.arg("-conf").arg(&files.corefile);
    node.start("coredns", dns)?;

    let kubectl = Kubectl {
        program: text(&description, "kubectl")?.into(),
        kubeconfig: text(&description, "kubeconfig")?.into(),
        cache: directory.join("kubectl-cache"),
    };
    kubectl.run(&["apply", "--server-side", "-f", &files.dns_service.to_string_lossy()])?;
    node.until("the node", || {
        kubectl
            .run(&["wait", "--for=condition=Ready", "--timeout=5s", &format!("node/{NODE}")])
            .is_ok()
    })?;
    serve(node, plane, &description, listener)
}

/// Takes this process's share of the machine out of the machine's: nothing it mounts or configures is seen outside.
fn isolate() -> Result<(), Failure> {
    let steps: [&[&str]; 9] = [
        &["mount", "--make-rprivate", "/"],
        // Sockets and network namespaces of containers.
        &["mount", "-t", "tmpfs", "tmpfs", "/run"],
        &["ip", "link", "set", "lo", "up"],
        // A pair of interfaces that leads nowhere carries the node's address.
        &["ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"],
        &["ip", "address", "add", "198.18.0.1/15", "dev", "node0"],
        &["ip", "link", "set", "node0", "up"],
        &["ip", "link", "set", "node1", "up"],
        // The API server calls webhooks by their Services' addresses. kube-proxy puts Pods in their place, but not before the
        // kernel has found a route.
        &["ip", "route", "add", "10.0.0.0/16", "dev", "node0"],
        &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"],
    ];
    for step in steps {
        let output = Command::new(step[0])
            .args(&step[1..])
            .output()
            .map_err(context(format!("running {} (util-linux, iproute2, procps)", step[0])))?;
        if !output.status.success() {
            return Err(Failure::Program {
                what: step.join(" "),
                reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
    }
    Ok(())
}

/// Makes an image of one static binary.
fn make_image(program: &Path, name: &str, archive: &Path) -> Result<(), Failure> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image");
    let output = Command::new(script)
        .arg(program)
        .arg(name)
        .arg(archive)
        .output()
        .map_err(context("running scripts/image"))?;
    ended(&format!("making the image {name}"), &output)
}

fn text(description: &Value, key: &str) -> Result<String, Failure> {
    let found = description.get(key).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| Failure::Program {
        what: "the control plane".to_owned(),
        reason: format!("its description has no {key}: {description}"),
    })
}

impl Node<'_> {
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::tied(program);
        command.envs(self.runtime.environment()).env_remove("KUBECONFIG");
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{name}.log"))
    }

    fn start(&mut self, name: &'static str, mut command: Command) -> Result<(), Failure> {
        let starting = || context(format!("starting {name}"));
        let log = File::create(self.log(name)).map_err(starting())?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(starting())?)
            .stderr(log);
        let child = process::spawn(command).map_err(starting())?;
        self.children.push((name, child));
        Ok(())
    }

    /// Starts the control plane and waits for its description.
    fn start_control_plane(&mut self, program: &Path, directory: &Path) -> Result<(Plane, Value), Failure> {
        let starting = || context("starting the control plane");
        let mut command = self.command(program);
        command
            .args(["run", "--kwok-nodes=0"])
            .arg(format!("--node-address={NODE_ADDRESS}"))
            .arg("--dir")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.log("control-plane")).map_err(starting())?);
        let mut child = process::spawn(command).map_err(starting())?;
        let stdin = child.stdin.take().expect("it was piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        self.children.push(("control-plane", child));
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(starting())?;
        let description = serde_json::from_str(&line).map_err(|_| Failure::Program {
            what: "the control plane did not start".to_owned(),
            reason: process::tail(&self.log("control-plane"), 15),
        })?;
        Ok((Plane { stdin, stdout }, description))
    }

    fn until(&mut self, what: &'static str, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP_DEADLINE;
        while !done() {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(Failure::Program {
                    what: what.to_owned(),
                    reason: format!("not ready after {} s", STEP_DEADLINE.as_secs()),
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Fails when a component has ended.
    fn check(&mut self) -> Result<(), Failure> {
        for index in 0..self.children.len() {
            let (name, child) = &mut self.children[index];
            let name = *name;
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::Program {
                    what: format!("{name} ended ({status})"),
                    reason: process::tail(&self.log(name), 15),
                });
            }
        }
        Ok(())
    }

    /// How images are loaded.
    fn loader(&self) -> Loader {
        Loader {
            environment: self.runtime.environment(),
        }
    }
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments)
            .output()
            .map_err(context("running kubectl"))?;
        ended(&format!("kubectl {}", arguments.join(" ")), &output)
    }
}

/// Says that the cluster is ready, then forwards connections and takes orders until a component ends.
fn serve(
    mut node: Node<'_>,
    plane: Plane,
    description: &Value,
    listener: std::net::TcpListener,
) -> Result<(), Failure> {
    let directory = node.directory.to_owned();
    let inner_url = text(description, "url")?;
    let target: SocketAddr = inner_url
        .trim_start_matches("https://")
        .parse()
        .map_err(|error| Failure::Machine(format!("{inner_url}: {error}")))?;
    let port = listener
        .local_addr()
        .map_err(context("reading the listener's port"))?
        .port();
    let kubeconfig = directory.join("kubeconfig");
    let admin =
        fs::read_to_string(text(description, "kubeconfig")?).map_err(context("reading the admin's kubeconfig"))?;
    let admin = admin.replace(&inner_url, &format!("https://127.0.0.1:{port}"));
    testkit::kubeconfig::write_private(&kubeconfig, admin).map_err(context("writing the kubeconfig"))?;

    orders::take(&outside::order_socket(&directory), plane, node.loader())?;
    let said = json!({
        "kubeconfig": kubeconfig,
        "auditLog": description.get("auditLog"),
        "dir": directory,
        "kubectl": description.get("kubectl"),
        "serverVersion": description.get("serverVersion"),
        "nodeAddress": NODE_ADDRESS.to_string(),
    });
    let scratch = directory.join(".cluster.json");
    fs::write(&scratch, said.to_string())
        .and_then(|()| fs::rename(&scratch, outside::ready_file(&directory)))
        .map_err(context("saying that the cluster is ready"))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(context("starting the runtime"))?;
    runtime.block_on(async {
        listener
            .set_nonblocking(true)
            .map_err(context("preparing the listener"))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(context("preparing the listener"))?;
        tokio::spawn(forward::forward(listener, target));
        loop {
            node.check()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}
