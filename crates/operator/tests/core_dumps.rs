//! The binary, as the kernel sees it: no core dump of it can be made.

use std::{fs, process::Stdio, time::Duration};

use testkit::{eventually, process};

const DEADLINE: Duration = Duration::from_secs(60);

/// An API server that is not there: port 9 is discard, which nothing serves.
const KUBECONFIG: &str = r#"{
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {}}]
}"#;

#[tokio::test]
async fn a_running_operator_leaves_no_core_dump() {
    let directory = tempfile::TempDir::new().expect("a writable directory for temporary files");
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, KUBECONFIG).expect("writable");
    let mut command = process::tied(env!("CARGO_BIN_EXE_leanserve"));
    command
        .args(["run", "--metrics-bind-address=0", "--health-probe-bind-address=0"])
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = process::spawn(command).expect("the binary can be run");
    let limits = format!("/proc/{}/limits", child.id());
    eventually("soft and hard limit of core files are 0", DEADLINE, async || {
        let text = fs::read_to_string(&limits).map_err(|error| error.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max core file size"));
        let line = line.ok_or_else(|| text.clone())?;
        let limits: Vec<_> = line.split_ascii_whitespace().take(2).collect();
        if limits == ["0", "0"] {
            Ok(())
        } else {
            Err(format!("{limits:?}"))
        }
    })
    .await;
    process::terminate(&child);
    let (status, killed) = process::reap(&mut child, DEADLINE).expect("it is our child");
    assert!(status.success() && !killed, "it ends when it is told: {status}");
}
