//! Changes of tracked Secrets against a real API server: with the right to `get` alone, and with rights limited to one name.

#![expect(
    clippy::similar_names,
    reason = "a change that was told, and the stream of changes it came from"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};

use kube_secret_access::{AccessOptions, Change, Changes, Mode, ObjectRef, SecretAccess, SecretRef, Switch, Want};
use leanserve_tests::readers;
use serde_json::json;
use testkit::audit::AuditEntries;
use testkit::{ControlPlane, TestNamespace, eventually};

/// Against a test that hangs; generous, because nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace with two `ServiceAccounts`: `getter` may get Secrets in it, `namer` also list and watch the Secret `named`.
async fn namespace(plane: &ControlPlane) -> TestNamespace {
    let namespace = plane.namespace("secret-changes").await.expect("a namespace");
    let get = r#"{apiGroups: [""], resources: [secrets], verbs: [get]}"#;
    let named = r#"{apiGroups: [""], resources: [secrets], resourceNames: [named], verbs: [list, watch]}"#;
    let getter = readers::account(&namespace.name, "getter", get);
    let namer = readers::account(&namespace.name, "namer", &format!("{get}, {named}"));
    let rights = format!("{getter}---{namer}");
    plane.apply_yaml(&rights).await.expect("rights are granted");
    namespace
}

fn options(mode: Mode) -> AccessOptions {
    let mut options = AccessOptions::for_mode(mode);
    options.changes.poll_interval = Duration::from_secs(2);
    options.changes.fast_poll_interval = Duration::from_secs(1);
    // A held copy would do for as long as the test takes, unless a change is noticed.
    options.with_bounds(100, 1 << 20, Duration::from_secs(60))
}

async fn access(plane: &ControlPlane, namespace: &str, account: &str, options: AccessOptions) -> Switch {
    let client = readers::client_of(plane, namespace, account).await;
    Switch::new(client, options).expect("valid options")
}

/// Rights take a moment to reach the authorizer.
async fn allowed(access: &Switch, secret: &SecretRef) {
    eventually("the Secret may be read", PATIENCE, async || {
        match access.read(secret, Want::quorum()).await {
            Ok(_) | Err(kube_secret_access::ReadError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    })
    .await;
}

async fn next(changes: &mut Changes, secret: &SecretRef) -> Change {
    let changed = tokio::time::timeout(PATIENCE, changes.next()).await.expect("told");
    let changed = changed.expect("the access is there");
    assert_eq!(&changed.secret, secret);
    assert_eq!(changed.owners, [owner()]);
    changed.change
}

fn owner() -> ObjectRef {
    ObjectRef::new("InferenceService", "models", "iris")
}

fn object(name: &str, value: &str) -> Secret {
    let object = json!({"metadata": {"name": name}, "immutable": true, "stringData": {"k": value}});
    serde_json::from_value(object).expect("a Secret")
}

/// What happens to a Secret, and that a read after each event sees it.
async fn tells_of_everything(access: &Switch, secrets: &Api<Secret>, secret: &SecretRef) {
    let value = async || {
        let read = access.read(secret, Want::default()).await.ok()?;
        Some(read.bytes("k")?.as_str()?.to_owned())
    };
    let mut changes = access.changes();
    let guard = access.track(secret.clone(), owner());
    let name = secret.name();
    secrets
        .create(&PostParams::default(), &object(name, "1"))
        .await
        .expect("created");
    assert_eq!(next(&mut changes, secret).await, Change::Created);
    assert_eq!(value().await.as_deref(), Some("1"));
    let label = json!({"metadata": {"labels": {"touched": "yes"}}});
    let before = access
        .read(secret, Want::default())
        .await
        .expect("readable")
        .resource_version();
    secrets
        .patch(name, &PatchParams::default(), &Patch::Merge(&label))
        .await
        .expect("patched");
    assert_eq!(next(&mut changes, secret).await, Change::Updated);
    assert!(
        access
            .read(secret, Want::default())
            .await
            .expect("readable")
            .resource_version()
            > before
    );
    secrets.delete(name, &DeleteParams::default()).await.expect("deleted");
    assert_eq!(next(&mut changes, secret).await, Change::Deleted);
    assert_eq!(value().await, None);
    secrets
        .create(&PostParams::default(), &object(name, "2"))
        .await
        .expect("created");
    assert_eq!(next(&mut changes, secret).await, Change::Created);
    assert_eq!(value().await.as_deref(), Some("2"));
    // Immutable, and yet another one: by the time anybody looks, or as two events.
    secrets.delete(name, &DeleteParams::default()).await.expect("deleted");
    secrets
        .create(&PostParams::default(), &object(name, "3"))
        .await
        .expect("created");
    match next(&mut changes, secret).await {
        Change::Recreated => {}
        Change::Deleted => assert_eq!(next(&mut changes, secret).await, Change::Created),
        other => panic!("{other:?}"),
    }
    assert_eq!(value().await.as_deref(), Some("3"));
    secrets.delete(name, &DeleteParams::default()).await.expect("deleted");
    assert_eq!(next(&mut changes, secret).await, Change::Deleted);
    drop(guard);
}

async fn requests_about(plane: &ControlPlane, mark: &testkit::audit::Mark, namespace: &TestNamespace) -> AuditEntries {
    let audit = plane.audit().expect("an audit log");
    let since = audit.since(mark).await.expect("the audit log");
    since.in_namespace(&namespace.name).on_resource("secrets")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_to_get_is_enough() {
    let plane = ControlPlane::shared().await;
    let namespace = namespace(plane).await;
    let secrets: Api<Secret> = Api::namespaced(plane.client().await.expect("a client"), &namespace.name);
    let mark = plane.audit().expect("an audit log").mark().await.expect("a mark");
    for mode in [Mode::Direct, Mode::Lru] {
        let access = access(plane, &namespace.name, "getter", options(mode)).await;
        let secret = SecretRef::new(&namespace.name, "s").expect("valid");
        allowed(&access, &secret).await;
        tells_of_everything(&access, &secrets, &secret).await;
    }
    let requests = requests_about(plane, &mark, &namespace).await;
    let requests = requests.by_service_account(&namespace.name, "getter");
    let others = requests.clone().filtered(|entry| entry.verb != "get");
    assert!(!requests.is_empty() && others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_on_one_name_are_enough_for_a_watch_and_others_are_polled() {
    let plane = ControlPlane::shared().await;
    let namespace = namespace(plane).await;
    let secrets: Api<Secret> = Api::namespaced(plane.client().await.expect("a client"), &namespace.name);
    let mut options = options(Mode::Lru);
    options.changes.named_watches = 10;
    // Polls alone would take longer than anybody waits here.
    let mut watching = options.clone();
    watching.changes.poll_interval = Duration::from_secs(3600);
    watching.changes.fast_poll_interval = Duration::from_secs(3600);
    let named = SecretRef::new(&namespace.name, "named").expect("valid");
    let other = SecretRef::new(&namespace.name, "other").expect("valid");
    let watcher = access(plane, &namespace.name, "namer", watching).await;
    allowed(&watcher, &named).await;
    let mark = plane.audit().expect("an audit log").mark().await.expect("a mark");
    tells_of_everything(&watcher, &secrets, &named).await;
    let requests = requests_about(plane, &mark, &namespace).await;
    let requests = requests.by_service_account(&namespace.name, "namer");
    assert!(!requests.clone().with_verb("watch").is_empty());
    let refused = requests.filtered(|entry| entry.code == 403);
    assert!(refused.is_empty(), "{refused:?}");

    let mark = plane.audit().expect("an audit log").mark().await.expect("a mark");
    let poller = access(plane, &namespace.name, "namer", options).await;
    allowed(&poller, &other).await;
    tells_of_everything(&poller, &secrets, &other).await;
    let requests = requests_about(plane, &mark, &namespace).await;
    let refused = requests
        .by_service_account(&namespace.name, "namer")
        .filtered(|entry| entry.code == 403);
    assert_eq!(refused.len(), 1, "asked once: {refused:?}");
}
