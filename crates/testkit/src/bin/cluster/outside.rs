//! What is done from outside the namespaces: starting a cluster, talking to it, ending it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use testkit::{assets, process};

use crate::{Failure, cgroups, context, packages::Runtime};

/// How long a start may take once everything is built.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// The kernel ends the processes; a machine may be busy.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request to the cluster's program may take; starting an API server takes seconds.
const ORDER_DEADLINE: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(50);

/// The process that holds the namespaces, as noted in the cluster's directory.
#[derive(Deserialize, Serialize)]
struct Holder {
    pid: u32,
    /// Clock ticks since boot: with the pid, the identity of a process.
    start_time: u64,
}

/// File of the [`Holder`].
fn holder_file(directory: &Path) -> PathBuf {
    directory.join("holder.json")
}

/// File whose presence says that the cluster works; its content is the description.
pub(crate) fn ready_file(directory: &Path) -> PathBuf {
    directory.join("cluster.json")
}

/// The socket on which orders are taken.
pub(crate) fn order_socket(directory: &Path) -> PathBuf {
    directory.join("orders")
}

/// Starts the cluster, or finds it running; gives its description, one line of JSON.
pub(crate) fn up(directory: &Path) -> Result<String, Failure> {
    if !rustix::process::getuid().is_root() {
        return Err(Failure::Machine(
            "a node needs root: run as root, or point KUBECONFIG at a cluster such as kind".to_owned(),
        ));
    }
    fs::create_dir_all(directory).map_err(context(format!("creating {}", directory.display())))?;
    let directory = fs::canonicalize(directory).map_err(context(format!("finding {}", directory.display())))?;
    if running(&directory).is_some()
        && let Ok(description) = fs::read_to_string(ready_file(&directory))
    {
        return Ok(description);
    }
    down(&directory)?;

    assets::find_or_build(&mut io::stderr())?;
    assets::find_or_build_node(&mut io::stderr())?;
    Runtime::find_or_fetch()?;

    fs::create_dir_all(&directory).map_err(context(format!("creating {}", directory.display())))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(context("listening on loopback"))?;
    let log = File::create(directory.join("cluster.log")).map_err(context("creating the log"))?;
    let program = std::env::current_exe().map_err(context("finding this program"))?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        // The first process of a process namespace inherits orphans and has to wait for them, which a shell does. It gives background
        // processes no stdin, unless by another descriptor.
        .args(["sh", "-c", "exec 3<&0; \"$@\" <&3 & wait $!", "leanserve-cluster"])
        .arg(&program)
        .arg("inside")
        .arg("--dir")
        .arg(&directory)
        .arg("--control-plane")
        .arg(control_plane(&program)?)
        .arg("--cgroup")
        .arg(cgroups::name(&directory))
        .stdin(OwnedFd::from(listener))
        .stdout(log.try_clone().map_err(context("opening the log"))?)
        .stderr(log)
        // It outlives the terminal it was started from.
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| Failure::Machine(format!("unshare (util-linux): {error}")))?;
    let holder = Holder {
        pid: child.id(),
        start_time: process::start_time(child.id()).unwrap_or_default(),
    };
    let noted = serde_json::to_string(&holder).unwrap_or_default();
    fs::write(holder_file(&directory), noted).map_err(context("noting the cluster's process"))?;

    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Ok(description) = fs::read_to_string(ready_file(&directory)) {
            return Ok(description);
        }
        let ended = child.try_wait().map_err(context("waiting for the cluster"))?;
        if ended.is_some() || Instant::now() >= deadline {
            let reason = process::tail(&directory.join("cluster.log"), 15);
            process::kill_if_same(holder.pid, holder.start_time);
            // Its processes and cgroups go; its directory stays, for its logs.
            wait_until_gone(&directory)?;
            return Err(Failure::Program {
                what: format!("the cluster did not start; its logs are in {}", directory.display()),
                reason,
            });
        }
        std::thread::sleep(POLL);
    }
}

/// The program that runs a control plane: built beside this one, else built now.
fn control_plane(program: &Path) -> Result<PathBuf, Failure> {
    let beside = program.with_file_name("control-plane");
    if beside.is_file() {
        return Ok(beside);
    }
    testkit::cargo_bin("testkit", "control-plane").map_err(|error| Failure::Machine(error.to_string()))
}

/// Ends the cluster if it runs, and removes everything it, or one that was killed, left.
pub(crate) fn down(directory: &Path) -> Result<(), Failure> {
    let directory = &match fs::canonicalize(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(context(format!("finding {}", directory.display())))?,
    };
    if let Some(holder) = running(directory) {
        process::kill_if_same(holder.pid, holder.start_time);
    }
    wait_until_gone(directory)?;
    fs::remove_dir_all(directory).map_err(context(format!("removing {}", directory.display())))
}

fn wait_until_gone(directory: &Path) -> Result<(), Failure> {
    let cgroup = cgroups::name(directory);
    let deadline = Instant::now() + STOP_DEADLINE;
    // The holder goes first; a cgroup can be removed when the last process in it has ended.
    while running(directory).is_some() || !cgroups::remove(&cgroup) {
        if Instant::now() >= deadline {
            return Err(Failure::Program {
                what: "the cluster's processes do not end".to_owned(),
                reason: format!("see {cgroup} in the cgroup hierarchies"),
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn running(directory: &Path) -> Option<Holder> {
    let noted = fs::read_to_string(holder_file(directory)).ok()?;
    let holder: Holder = serde_json::from_str(&noted).ok()?;
    (process::start_time(holder.pid) == Some(holder.start_time)).then_some(holder)
}

/// Loads an image into the node.
pub(crate) fn load(directory: &Path, archive: &Path) -> Result<(), Failure> {
    let archive = fs::canonicalize(archive).map_err(context(format!("finding {}", archive.display())))?;
    order(directory, &format!("load {}", archive.display())).map(|_| ())
}

/// Gives an order to the cluster's program and waits for its answer.
pub(crate) fn order(directory: &Path, order: &str) -> Result<String, Failure> {
    let asking = || context(format!("asking the cluster in {} to {order}", directory.display()));
    // Names of sockets are short, so go by way of the directory.
    let socket = order_socket(&fs::canonicalize(directory).map_err(asking())?);
    let mut stream = UnixStream::connect(socket).map_err(asking())?;
    stream.set_read_timeout(Some(ORDER_DEADLINE)).map_err(asking())?;
    writeln!(stream, "{order}").map_err(asking())?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(asking())?;
    let refused = serde_json::from_str::<serde_json::Value>(&reply)
        .map_err(|error| Failure::Program {
            what: order.to_owned(),
            reason: format!("{error}: {reply}"),
        })?
        .get("error")
        .and_then(|error| error.as_str().map(str::to_owned));
    match refused {
        Some(reason) => Err(Failure::Program {
            what: order.to_owned(),
            reason,
        }),
        None => Ok(reply.trim().to_owned()),
    }
}
