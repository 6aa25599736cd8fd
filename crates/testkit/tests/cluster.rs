//! The one-node cluster: it comes up, and leaves nothing behind, also when it is killed.

use std::{
    fs, io,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");

/// Whether this machine lets us make a node; says so where it does not.
fn can_run() -> bool {
    let allowed = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: a node needs root and namespaces, which are not to be had here"
        );
    }
    allowed
}

fn cluster(verb: &str, directory: &Path) -> String {
    let output = Command::new(CLUSTER)
        .arg(verb)
        .arg("--dir")
        .arg(directory)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cluster {verb}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything on the machine that a cluster in this directory could leave.
fn traces(directory: &Path) -> Vec<String> {
    let name = directory.to_string_lossy();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("there is /proc").flatten() {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if command.contains(&*name) {
            found.push(command.replace('\0', " "));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("there are mounts");
    found.extend(mounts.lines().filter(|line| line.contains(&*name)).map(str::to_owned));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let cgroups = fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        let ours = cgroups.filter(|cgroup| cgroup.file_name().to_string_lossy().starts_with("leanserve-cluster-"));
        found.extend(ours.map(|cgroup| cgroup.path().display().to_string()));
    }
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let ours = links.filter(|link| ["node0", "node1"].iter().any(|name| link.file_name() == *name));
    found.extend(ours.map(|link| link.path().display().to_string()));
    found
}

#[test]
fn a_cluster_leaves_nothing_behind() {
    if !can_run() {
        return;
    }
    // Another cluster on this machine has cgroups of the same kind.
    let before: Vec<String> = traces(Path::new("/nowhere/at/all"));
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("cluster");
    let left = || {
        let mut left = traces(&directory);
        left.retain(|trace| !before.contains(trace));
        left
    };

    let description: Value = serde_json::from_str(&cluster("up", &directory)).expect("one line of JSON");
    let kubectl = |arguments: &[&str]| {
        let output = Command::new(description["kubectl"].as_str().expect("a path"))
            .arg("--kubeconfig")
            .arg(description["kubeconfig"].as_str().expect("a path"))
            .args(arguments)
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let ready = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(kubectl(&["get", "nodes", "-o", ready]), "True");
    assert!(!left().is_empty(), "the test cannot see what it looks for");
    assert_eq!(
        cluster("up", &directory).trim(),
        description.to_string(),
        "a second `up` finds it"
    );

    // Killed, not asked: the kernel has to clean up.
    let holder: Value =
        serde_json::from_str(&fs::read_to_string(directory.join("holder.json")).expect("noted")).expect("JSON");
    let killed = Command::new("kill")
        .arg("-KILL")
        .arg(holder["pid"].to_string())
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    cluster("down", &directory);
    assert_eq!(left(), Vec::<String>::new());
    assert!(!directory.exists());
    cluster("down", &directory);
}
