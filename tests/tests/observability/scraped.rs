//! A real Prometheus scrapes a real operator and answers every query that is shipped.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use leanserve_tests::{
    Installation, Prometheus, Running, Scope, policies,
    prometheus::hastened,
    services,
    webhook::{FailurePolicy, Site, free_port},
};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{alerts, dashboard_queries, metrics_in, read};

/// The most anything may take here on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// What kube-state-metrics says of a container that was killed for its memory.
const KUBE_STATE: &str = "\
# TYPE kube_pod_container_status_restarts_total counter
kube_pod_container_status_restarts_total{namespace=\"leanserve-system\",pod=\"a\",container=\"leanserve\"} 1
# TYPE kube_pod_container_status_last_terminated_reason gauge
kube_pod_container_status_last_terminated_reason{namespace=\"leanserve-system\",pod=\"a\",container=\"leanserve\",reason=\"OOMKilled\"} 1
";

/// Serves one page to whoever asks; it ends with the test.
async fn page(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            // What is asked for does not matter; a scraper that went away does not either.
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// Waits until an alert fires, or does not.
async fn fires(prometheus: &Prometheus, alert: &str, expected: bool) {
    let what = format!("{alert} {}", if expected { "fires" } else { "does not fire" });
    eventually(&what, DEADLINE, async || {
        let firing = prometheus.firing().await?;
        if firing.iter().any(|name| name == alert) == expected {
            Ok(())
        } else {
            Err(format!("firing: {firing:?}"))
        }
    })
    .await;
}

/// Waits until a query gives a number.
async fn answers(prometheus: &Prometheus, what: &str, query: &str) {
    eventually(&format!("{what}: {query} gives data"), DEADLINE, async || {
        let samples = prometheus.query(query).await?;
        if samples.iter().any(|sample| !sample.value.is_nan()) {
            Ok(())
        } else {
            Err(format!("{samples:?}"))
        }
    })
    .await;
}

fn config(namespace: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "leanserve-config", "namespace": namespace},
        "data": data,
    })
}

/// Services that are Ready with Secrets of their own, more of them than the mode `auto` keeps, and one whose Secret is not
/// there.
async fn scenario(installation: &Installation<'_>, scope: &Scope) {
    let namespace = scope.name();
    let data = json!({"secretAccessMode": "auto", "secretAccessMaxSecrets": "1", "secretAccessMaxAge": "1s", "memoryLimit": "2Gi"});
    let mut objects = vec![config(namespace, &data), services::custom("plain", namespace)];
    for name in ["one", "two", "three"] {
        objects.extend(services::s3_credentials(name, name, namespace, "a secret access key"));
        objects.push(services::sklearn(name, namespace, Some(name)));
    }
    let mut credentials = services::s3_credentials("missing", "missing", namespace, "never created");
    objects.push(credentials.pop().expect("an account"));
    objects.push(services::sklearn("waiting", namespace, Some("missing")));
    let applied = installation.plane.apply_yaml(&services::list(&objects)).await;
    applied.expect("applied");
}

/// Gives the operator of a scope the rights that policies need.
async fn allow_policies(installation: &Installation<'_>, scope: &Scope) {
    let mut objects = policies::rights::objects();
    for object in &mut objects {
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = json!(scope.name());
        }
        let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
        for subject in subjects.into_iter().flatten() {
            subject["namespace"] = json!(scope.name());
        }
    }
    let applied = installation.plane.apply_yaml(&services::list(&objects)).await;
    applied.expect("applied");
}

/// A service that is reviewed, and a policy that comes to be in force.
async fn reviewed_and_ruled(installation: &Installation<'_>, tenant: &str) {
    let objects = [
        services::sklearn("reviewed", tenant, None),
        policies::template("replicas"),
        policies::policy("few", "replicas", 3),
    ];
    let applied = installation.plane.apply_yaml(&services::list(&objects)).await;
    applied.expect("applied");
}

/// Name of the right to read `ServiceAccounts` and nothing else.
fn accounts_alone_name(scope: &Scope) -> String {
    format!("leanserve-accounts-{}", scope.name())
}

/// The right to read `ServiceAccounts` and nothing else.
fn accounts_alone(scope: &Scope) -> [Value; 2] {
    let name = accounts_alone_name(scope);
    let group = "rbac.authorization.k8s.io";
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "leanserve", "namespace": scope.name()}],
    });
    [role, binding]
}

/// The right to read credentials, as its binding and a copy that can be created again.
async fn binding(client: &Client, scope: &Scope) -> (Api<ClusterRoleBinding>, ClusterRoleBinding) {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let name = format!("leanserve-credentials-{}", scope.name());
    let mut binding = bindings.get(&name).await.expect("the right is given");
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    (bindings, binding)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_every_query_and_alerts_fire_and_clear() {
    let installation = Installation::shared().await;
    let scope = installation.scope("observed").await.expect("a namespace for the test");
    let client = installation.plane.client().await.expect("a client");
    let rules = hastened(&read("deploy/observability/alerts.yaml"));
    assert!(rules.contains("for: 5s") && rules.contains("[60s]"));
    let prometheus = Prometheus::start(&rules).await.expect("a Prometheus");
    let kube_state = page(KUBE_STATE).await;

    // Nothing is there yet.
    prometheus
        .scrape(&[("kube-state-metrics", kube_state)])
        .expect("written");
    fires(&prometheus, "LeanserveDown", true).await;

    allow_policies(installation, &scope).await;
    let running = Running::in_scope(&scope, &["--policies"]).await.expect("an operator");
    let admin = installation.plane.kubeconfig_path();
    let audit = Running::spawn_role("audit", admin, &["--interval", "1h"]).expect("an auditor");
    let address = free_port(Ipv4Addr::LOCALHOST.into()).expect("a free port");
    let site = Site::new(installation.plane, address, FailurePolicy::Ignore)
        .await
        .expect("the webhook's objects");
    let webhook = site.replica(address, &[]).await.expect("a webhook");
    prometheus
        .scrape(&[
            ("kube-state-metrics", kube_state),
            ("leanserve-metrics", running.metrics_address()),
            ("leanserve-metrics", audit.metrics_address()),
            ("leanserve-metrics", webhook.metrics_address()),
        ])
        .expect("written");
    fires(&prometheus, "LeanserveDown", false).await;
    // A counter has to be seen before it counts.
    answers(
        &prometheus,
        "a first scrape of each role",
        "count(leanserve_build_info) == 3",
    )
    .await;

    scenario(installation, &scope).await;
    let ready = "sum(leanserve_inferenceservices{ready=\"true\"}) == 4";
    answers(&prometheus, "four services are Ready", ready).await;
    let waiting = "sum(leanserve_inferenceservices{ready=\"false\", reason=\"reference\"}) == 1";
    answers(&prometheus, "one lacks its Secret", waiting).await;
    fires(&prometheus, "LeanserveSecretFallback", true).await;
    reviewed_and_ruled(installation, &site.tenant.name).await;

    for (panel, query) in dashboard_queries() {
        let query = query.replace("$__rate_interval", "10m").replace("$job", ".+");
        answers(&prometheus, &panel, &query).await;
    }
    for alert in alerts() {
        for name in metrics_in(&alert.query) {
            answers(&prometheus, &alert.name, &name).await;
        }
    }

    // A value that is not valid, until it is put right.
    let wrong = config(scope.name(), &json!({"secretAccessMode": "fastest"}));
    installation
        .plane
        .apply_yaml(&wrong.to_string())
        .await
        .expect("applied");
    fires(&prometheus, "LeanserveConfigRefused", true).await;
    let right = config(
        scope.name(),
        &json!({"secretAccessMode": "direct", "secretAccessMaxAge": "1s"}),
    );
    installation
        .plane
        .apply_yaml(&right.to_string())
        .await
        .expect("applied");
    fires(&prometheus, "LeanserveConfigRefused", false).await;

    // The right to read Secrets is gone, until it is given back. That to read ServiceAccounts stays: without it no pass
    // gets as far as a Secret.
    let applied = installation
        .plane
        .apply_yaml(&services::list(&accounts_alone(&scope)))
        .await;
    applied.expect("applied");
    let (bindings, binding) = binding(&client, &scope).await;
    let name = binding.metadata.name.clone().expect("it has a name");
    bindings.delete(&name, &DeleteParams::default()).await.expect("deleted");
    fires(&prometheus, "LeanserveSecretReadsFailing", true).await;
    // That to read ServiceAccounts is gone too.
    let name = accounts_alone_name(&scope);
    bindings.delete(&name, &DeleteParams::default()).await.expect("deleted");
    fires(&prometheus, "LeanserveServiceAccountReadsFailing", true).await;
    let given = bindings.create(&PostParams::default(), &binding).await;
    given.expect("given back");
    fires(&prometheus, "LeanserveSecretReadsFailing", false).await;
    fires(&prometheus, "LeanserveServiceAccountReadsFailing", false).await;

    // It is gone, and back.
    drop(running);
    fires(&prometheus, "LeanserveDown", true).await;
    let running = Running::in_scope(&scope, &[]).await.expect("an operator");
    prometheus
        .scrape(&[("leanserve-metrics", running.metrics_address())])
        .expect("written");
    fires(&prometheus, "LeanserveDown", false).await;
    // The other roles are not.
    fires(&prometheus, "LeanserveAuditDown", true).await;
    fires(&prometheus, "LeanserveWebhookDown", true).await;
}

/// `promtool check metrics` has nothing to say about the page.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_with_the_page() {
    let installation = Installation::shared().await;
    let scope = installation.scope("linted").await.expect("a namespace for the test");
    let running = Running::in_scope(&scope, &[]).await.expect("an operator");
    let page = running.metrics().await.expect("metrics");
    let checked = tokio::task::spawn_blocking(move || {
        let promtool = Prometheus::tools().expect("tools").join("promtool");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), page).expect("written");
        let input = std::fs::File::open(file.path()).expect("readable");
        std::process::Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(input)
            .output()
            .expect("it runs")
    });
    let output = checked.await.expect("no panic");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
