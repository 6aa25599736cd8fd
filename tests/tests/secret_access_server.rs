//! What a real API server answers: the forms of errors, the count of the cluster's Secrets, and no value in any log of the
//! TLS and HTTP stack below.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use kube_secret_access::{
    AccessOptions, ClusterCount, ClusterCountOptions, Mode, Probe, ReadError, SecretAccess, SecretRef, Switch, Want,
};
use leanserve_tests::readers;
use serde_json::json;
use testkit::captured_logs::CapturedLogs;
use testkit::{ControlPlane, TestNamespace, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const PLANTED: &str = "planted-3b9c2e";
const PLANTED_BASE64: &str = "cGxhbnRlZC0zYjljMmU=";

/// A namespace with two `ServiceAccounts`: `getter` may get Secrets in it, `lister` may get and list them everywhere.
async fn namespace(plane: &ControlPlane) -> TestNamespace {
    let namespace = plane.namespace("secret-server").await.expect("a namespace");
    let getter = r#"{apiGroups: [""], resources: [secrets], verbs: [get]}"#;
    let getter = readers::account(&namespace.name, "getter", getter);
    let rights = format!(
        r#"{getter}---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: lister, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {namespace}-lister}}
rules: [{{apiGroups: [""], resources: [secrets], verbs: [get, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {namespace}-lister}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {namespace}-lister}}
subjects: [{{kind: ServiceAccount, name: lister, namespace: {namespace}}}]
"#
    );
    plane.apply_yaml(&rights).await.expect("rights are granted");
    namespace
}

fn object(name: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": PLANTED,
            "serving.kserve.io/s3-region": "eu",
        }},
        "stringData": {"password": PLANTED},
    }))
    .expect("a Secret")
}

async fn access(
    plane: &ControlPlane,
    namespace: &str,
    account: &str,
    options: AccessOptions,
    probe: Arc<dyn Probe>,
) -> Switch {
    let token = plane.service_account_token(namespace, account).await.expect("a token");
    Switch::with_probe(readers::client(plane, &token).await, options, probe).expect("valid options")
}

/// Rights take a moment to reach the authorizer.
async fn readable(access: &Switch, secret: &SecretRef) {
    eventually("the Secret is readable", PATIENCE, async || {
        access.read(secret, Want::default()).await.map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_forms_of_a_real_server_and_nothing_leaks() {
    let logs = CapturedLogs::of_process();
    let plane = ControlPlane::shared().await;
    let namespace = namespace(plane).await;
    let admin = plane.client().await.expect("a client");
    let secrets: Api<Secret> = Api::namespaced(admin, &namespace.name);
    let created = secrets
        .create(&PostParams::default(), &object("s"))
        .await
        .expect("it is created");
    let there = SecretRef::new(&namespace.name, "s").expect("valid");
    let missing = SecretRef::new(&namespace.name, "missing").expect("valid");
    let forbidden = SecretRef::new("kube-system", "anything").expect("valid");

    for mode in Mode::ALL {
        let access = access(
            plane,
            &namespace.name,
            "getter",
            AccessOptions::for_mode(mode),
            Arc::new(()),
        )
        .await;
        readable(&access, &there).await;
        let snapshot = access.read(&there, Want::default()).await.expect("readable");
        assert_eq!(Some(snapshot.uid()), created.metadata.uid.as_deref());
        assert_eq!(
            Some(snapshot.resource_version().to_string()),
            created.metadata.resource_version
        );
        assert_eq!(snapshot.type_(), "Opaque");
        assert_eq!(
            snapshot.annotations().collect::<Vec<_>>(),
            [("serving.kserve.io/s3-region", "eu")]
        );
        assert_eq!(
            snapshot.bytes("password").and_then(|bytes| bytes.as_str()),
            Some(PLANTED)
        );

        let error = access.read(&missing, Want::default()).await.expect_err("not there");
        assert_eq!(
            error,
            ReadError::NotFound {
                secret: missing.clone()
            }
        );
        let error = access.read(&forbidden, Want::default()).await.expect_err("not allowed");
        assert_eq!(
            error,
            ReadError::Forbidden {
                secret: forbidden.clone()
            }
        );
    }

    let nobody = readers::client(plane, "no-such-token").await;
    let access = Switch::new(nobody, AccessOptions::default()).expect("valid options");
    let error = access.read(&there, Want::default()).await.expect_err("no such token");
    assert_eq!(error, ReadError::Unauthorized { secret: there.clone() });

    let text = logs.text();
    let seen = format!("/api/v1/namespaces/{}/secrets/s", namespace.name);
    assert!(text.contains(&seen), "requests were logged");
    let leak = text
        .lines()
        .find(|line| line.contains(PLANTED) || line.contains(PLANTED_BASE64));
    assert_eq!(leak, None);
}

#[derive(Default)]
struct Counted(Mutex<Vec<ClusterCount>>);

impl Counted {
    fn last(&self) -> Option<ClusterCount> {
        self.0.lock().expect("no panic while locked").last().copied()
    }
}

impl Probe for Counted {
    fn cluster_count(&self, count: ClusterCount) {
        self.0.lock().expect("no panic while locked").push(count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_secrets_are_counted_where_that_is_allowed() {
    let plane = ControlPlane::shared().await;
    let namespace = namespace(plane).await;
    let admin = plane.client().await.expect("a client");
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), &namespace.name);
    for number in 0..20 {
        secrets
            .create(&PostParams::default(), &object(&format!("s{number}")))
            .await
            .expect("it is created");
    }
    let secret = SecretRef::new(&namespace.name, "s0").expect("valid");
    let mut options = AccessOptions::for_mode(Mode::Auto);
    let mut cluster = ClusterCountOptions::default();
    cluster.interval = Duration::from_secs(1);
    options.auto.cluster = Some(cluster);

    let denied = Arc::new(Counted::default());
    let getter = access(plane, &namespace.name, "getter", options.clone(), denied.clone()).await;
    readable(&getter, &secret).await;
    eventually("counting is denied", PATIENCE, async || match denied.last() {
        Some(ClusterCount::Denied) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(getter.read(&secret, Want::default()).await.is_ok(), "reads go on");

    // Others may create and delete Secrets meanwhile, so the numbers are compared until they agree.
    let counted = Arc::new(Counted::default());
    let lister = access(plane, &namespace.name, "lister", options, counted.clone()).await;
    readable(&lister, &secret).await;
    let all: Api<Secret> = Api::all(admin);
    eventually("the count is that of a full list", PATIENCE, async || {
        lister
            .read(&secret, Want::default())
            .await
            .map_err(|error| error.to_string())?;
        let full = all
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?
            .items
            .len();
        match counted.last() {
            Some(ClusterCount::Counted(count)) if count == full as u64 && full >= 20 => Ok(()),
            other => Err(format!("{other:?}, a full list has {full}")),
        }
    })
    .await;
}
