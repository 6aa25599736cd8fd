//! A real control plane: that it works, and that nothing of it stays.

#![allow(clippy::unwrap_used, reason = "a test's own functions fail as the test does")]

use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::{Api, api::ListParams};
use testkit::{ControlPlane, Options, TestNamespace, assets::Component, eventually, process, try_eventually};

const DEADLINE: Duration = Duration::from_secs(120);
/// Set in the process that plays the test that is killed.
const HOLDER: &str = "TESTKIT_TEST_HOLDER";

/// Says so and gives `None` where a cluster of the user's is to be used: these tests kill what they start.
async fn started(options: Options) -> Option<ControlPlane> {
    let plane = ControlPlane::start(options).await.unwrap();
    if plane.is_ours() {
        return Some(plane);
    }
    skipped();
    None
}

fn skipped() {
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(
        io::stderr(),
        "skipped: KUBECONFIG names a cluster that is not the test's own"
    );
}

/// Waits until no process is left and the directory is gone.
async fn nothing_is_left(processes: &BTreeMap<String, u32>, directory: &Path) {
    eventually("nothing is left", DEADLINE, async || {
        let alive: Vec<_> = processes.iter().filter(|(_, pid)| process::is_alive(**pid)).collect();
        if alive.is_empty() && !directory.exists() {
            return Ok(());
        }
        Err(format!("alive: {alive:?}, directory there: {}", directory.exists()))
    })
    .await;
}

/// A Deployment with init containers, a GPU request and a volume, and a `ServiceAccount` that may read Secrets.
fn workload(namespace: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      initContainers: [{{name: fetch, image: fetch}}, {{name: side, image: side, restartPolicy: Always}}]
      containers:
      - name: main
        image: main
        resources: {{requests: {{cpu: '64', memory: 512Gi, nvidia.com/gpu: 8}}, limits: {{nvidia.com/gpu: 8}}}}
        volumeMounts: [{{name: token, mountPath: /token}}]
      volumes: [{{name: token, secret: {{secretName: missing}}}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: reader, namespace: {namespace}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s, namespace: {namespace}}}
stringData: {{k: v}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}}
subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]
"
    )
}

async fn pods_run(plane: &ControlPlane, namespace: &str) {
    let wait = ["wait", "--for=condition=Available", "--timeout=120s", "deployment/web"];
    plane
        .kubectl_stdout(&[&["-n", namespace], &wait[..]].concat())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(plane.client().await.unwrap(), namespace);
    let list = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 3);
    for pod in &list.items {
        let status = pod.status.as_ref().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(status.pod_ip.is_some() && status.host_ip.is_some());
        let init = status.init_container_statuses.as_ref().unwrap();
        let fetched = init[0].state.as_ref().unwrap().terminated.as_ref();
        assert_eq!(fetched.unwrap().exit_code, 0);
        assert!(init[1].state.as_ref().unwrap().running.is_some());
        assert!(status.container_statuses.as_ref().unwrap()[0].ready);
    }
}

/// A `ServiceAccount` has its own rights, one Secret read and one refused.
async fn reader_reads(plane: &ControlPlane, namespace: &str, other: &str) {
    let reader = plane.service_account_client(namespace, "reader").await.unwrap();
    let own: Api<Secret> = Api::namespaced(reader.clone(), namespace);
    assert_eq!(own.get("s").await.unwrap().data.unwrap()["k"].0, b"v");
    let foreign: Api<Secret> = Api::namespaced(reader, other);
    assert!(matches!(foreign.get("s").await, Err(kube::Error::Api(status)) if status.code == 403));

    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    plane
        .write_service_account_kubeconfig(namespace, "reader", kubeconfig.path())
        .await
        .unwrap();
    // Given twice, the last --kubeconfig counts.
    let who = ["--kubeconfig", &kubeconfig.path().to_string_lossy(), "auth", "whoami"];
    let who = plane.kubectl_stdout(&who).await.unwrap();
    assert!(
        who.contains(&format!("system:serviceaccount:{namespace}:reader")),
        "{who}"
    );
}

/// Pods go when their Deployment does, and a namespace with everything in it.
async fn what_is_deleted_goes(plane: &ControlPlane, namespace: TestNamespace) {
    let client = plane.client().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.name);
    let delete = ["-n", &namespace.name, "delete", "deployment", "web", "--wait=false"];
    plane.kubectl_stdout(&delete).await.unwrap();
    eventually("the Pods are gone", DEADLINE, async || {
        let list = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        if list.items.is_empty() {
            Ok(())
        } else {
            Err(format!("{} Pods", list.items.len()))
        }
    })
    .await;

    let name = namespace.name.clone();
    drop(namespace);
    let namespaces: Api<Namespace> = Api::all(client);
    eventually("the namespace is gone", DEADLINE, async || {
        match namespaces.get_opt(&name).await {
            Ok(None) => Ok(()),
            Ok(Some(found)) => Err(format!("{:?}", found.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn deployments_run_requests_are_audited_and_nothing_stays() {
    let options = Options {
        kwok_nodes: 2,
        ..Options::default()
    };
    let Some(plane) = started(options).await else { return };
    assert_eq!(plane.server_version(), Some("v1.36.3"));
    let namespace = plane.namespace("audited").await.unwrap();
    let other = plane.namespace("audited").await.unwrap();
    assert_ne!(namespace.name, other.name);
    let audit = plane.audit().unwrap();
    let mark = audit.mark().await.unwrap();

    plane.apply_yaml(&workload(&namespace.name)).await.unwrap();
    pods_run(&plane, &namespace.name).await;
    reader_reads(&plane, &namespace.name, &other.name).await;

    let entries = audit.since(&mark).await.unwrap();
    let by_reader = entries
        .clone()
        .by_service_account(&namespace.name, "reader")
        .on_resource("secrets");
    assert_eq!(by_reader.len(), 2, "{by_reader}");
    assert_eq!((by_reader[0].code, by_reader[1].code), (200, 403), "{by_reader}");
    assert!(by_reader.clone().writes().is_empty());
    let in_namespace = entries.by_user("admin").in_namespace(&namespace.name);
    let applied = in_namespace.with_verb("patch").on_resource("deployments");
    assert_eq!(applied.len(), 1, "{applied}");
    let later = audit.mark().await.unwrap();
    let quiet = audit
        .since(&later)
        .await
        .unwrap()
        .by_user("admin")
        .without_leases_and_events();
    assert!(quiet.is_empty(), "{quiet}");

    what_is_deleted_goes(&plane, namespace).await;
    other.keep();

    let (processes, directory) = (plane.processes(), plane.directory().unwrap().to_owned());
    assert_eq!(processes.len(), 5, "{processes:?}");
    assert!(processes.values().all(|pid| process::is_alive(*pid)) && directory.exists());
    plane.stop().await.unwrap();
    let alive: Vec<_> = processes.iter().filter(|(_, pid)| process::is_alive(**pid)).collect();
    assert!(alive.is_empty(), "{alive:?}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_bare_control_plane_makes_objects_and_runs_nothing() {
    let Some(plane) = started(Options::bare()).await else {
        return;
    };
    let names: Vec<String> = plane.processes().into_keys().collect();
    assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager"]);
    plane
        .apply_yaml(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: main}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 2, maxReplicas: 3}
",
        )
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(plane.client().await.unwrap(), "default");
    eventually("the ReplicaSet makes a Pod", DEADLINE, async || {
        let found = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?
            .items;
        match found.as_slice() {
            [pod] if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending") => Ok(()),
            other => Err(format!("{} Pods", other.len())),
        }
    })
    .await;
    let refused = plane.kubectl_stdout(&["get", "nonsense"]).await.unwrap_err();
    assert!(refused.to_string().contains("nonsense"), "{refused}");
    let (processes, directory) = (plane.processes(), plane.directory().unwrap().to_owned());
    // Dropped instead of stopped: it cleans up behind our back.
    drop(plane);
    nothing_is_left(&processes, &directory).await;
}

/// What the holder tells the test that kills it.
fn told(line: &str) -> (BTreeMap<String, u32>, PathBuf) {
    let mut told: serde_json::Value = serde_json::from_str(line).unwrap();
    let processes = serde_json::from_value(told["processes"].take()).unwrap();
    (processes, serde_json::from_value(told["directory"].take()).unwrap())
}

/// Plays both parts: the test, and in a process of its own the holder of a control plane that the test kills.
#[tokio::test]
async fn a_killed_holder_leaves_nothing() {
    if env::var_os(HOLDER).is_some() {
        let plane = ControlPlane::start(Options::bare()).await.unwrap();
        let mut processes = plane.processes();
        processes.insert("supervisor".to_owned(), plane.supervisor_pid().unwrap());
        let line = serde_json::json!({"processes": processes, "directory": plane.directory()});
        writeln!(io::stdout(), "\n{line}").unwrap();
        return std::future::pending().await;
    }
    if env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        skipped();
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "a_killed_holder_leaves_nothing", "--nocapture"])
        .env(HOLDER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut holder = process::spawn(command).unwrap();
    let stdout = BufReader::new(holder.stdout.take().unwrap());
    let line =
        tokio::task::spawn_blocking(move || stdout.lines().map_while(Result::ok).find(|line| line.starts_with('{')));
    let line = line.await.unwrap().expect("the holder says what it holds");
    let (processes, directory) = told(&line);
    assert!(
        processes.len() == 4 && processes.values().all(|pid| process::is_alive(*pid)),
        "{processes:?}"
    );
    assert!(directory.exists());

    holder.kill().unwrap();
    holder.wait().unwrap();
    nothing_is_left(&processes, &directory).await;
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_process_and_its_directory_is_swept() {
    let Some(plane) = started(Options::bare()).await else {
        return;
    };
    let (processes, directory) = (plane.processes(), plane.directory().unwrap().to_owned());
    let supervisor = plane.supervisor_pid().unwrap();
    process::kill_if_same(supervisor, process::start_time(supervisor).unwrap());
    // At once where `setpriv` ties the components to it, and at the next start everywhere.
    let ended = try_eventually("every component has ended", Duration::from_secs(10), async || {
        let alive: Vec<_> = processes.iter().filter(|(_, pid)| process::is_alive(**pid)).collect();
        if alive.is_empty() {
            Ok(())
        } else {
            Err(format!("{alive:?}"))
        }
    })
    .await;
    let tied = process::tied("true").get_program() == "setpriv";
    assert!(ended.is_ok() || !tied, "{ended:?}");
    assert!(directory.exists());
    assert!(plane.stop().await.is_err(), "an end that was not in order is told");

    let next = ControlPlane::start(Options::bare()).await.unwrap();
    nothing_is_left(&processes, &directory).await;
    next.stop().await.unwrap();
}

#[tokio::test]
async fn components_can_be_stopped_killed_paused_and_started_again() {
    let Some(plane) = started(Options::default()).await else {
        return;
    };
    let before = plane.processes();
    plane.apply_yaml(&workload("default")).await.unwrap();
    pods_run(&plane, "default").await;

    plane.stop_component(Component::KubeApiserver).await.unwrap();
    assert!(!process::is_alive(before["kube-apiserver"]));
    assert!(
        plane.stop_component(Component::KubeApiserver).await.is_err(),
        "it does not run"
    );
    plane.kill_component(Component::Etcd).await.unwrap();
    plane.start_component(Component::Etcd).await.unwrap();
    plane.start_component(Component::KubeApiserver).await.unwrap();
    assert!(
        plane.start_component(Component::KubeApiserver).await.is_err(),
        "it runs already"
    );
    let after = plane.processes();
    assert_eq!(after.len(), before.len());
    assert_ne!(after["kube-apiserver"], before["kube-apiserver"]);
    // Everything is as it was, and the others have come through it.
    let pods: Api<Pod> = Api::namespaced(plane.client().await.unwrap(), "default");
    let old = pods.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(old.len(), 3);
    plane
        .kubectl_stdout(&["delete", "pod", "-l", "app=web", "--wait=false"])
        .await
        .unwrap();
    eventually("three new Pods run", DEADLINE, async || {
        let list = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let is_old = |pod: &Pod| old.iter().any(|old| old.metadata.uid == pod.metadata.uid);
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let phases: Vec<_> = list.items.iter().filter(|pod| !is_old(pod)).map(phase).collect();
        if phases == vec![Some("Running".to_owned()); 3] {
            return Ok(());
        }
        Err(format!("{} Pods, new ones: {phases:?}", list.items.len()))
    })
    .await;

    plane.pause_component(Component::KubeApiserver).await.unwrap();
    let client = plane.client().await.unwrap();
    let asked = client.apiserver_version();
    tokio::pin!(asked);
    let answer = tokio::time::timeout(Duration::from_millis(500), &mut asked).await;
    assert!(answer.is_err(), "a paused server answers nobody");
    plane.resume_component(Component::KubeApiserver).await.unwrap();
    assert!(asked.await.is_ok());

    // Stopping copes with what is paused.
    plane.pause_component(Component::KubeControllerManager).await.unwrap();
    plane.stop().await.unwrap();
    assert!(after.values().all(|pid| !process::is_alive(*pid)));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let Some(plane) = started(Options::bare()).await else {
        return;
    };
    plane.stop().await.unwrap();
    let options = Options {
        apiserver_flags: vec!["--no-such-flag".to_owned()],
        ..Options::bare()
    };
    let error = ControlPlane::start(options).await.unwrap_err();
    assert!(error.to_string().contains("did not start"), "{error}");
}

#[test]
fn the_shared_one_outlives_the_runtime_that_started_it() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let plane = ControlPlane::shared().await;
            let version = plane.client().await.unwrap().apiserver_version().await.unwrap();
            (plane.kubeconfig_path().to_owned(), version.git_version)
        })
    };
    assert_eq!(run(), run());
}
