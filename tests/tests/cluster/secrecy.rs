//! A planted value is searched for in everything the operator says.

use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use leanserve_tests::{Running, services};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

/// TRACE of every crate: those that log bodies are quiet by default.
const LOG_EVERYTHING: &str = "trace,kube_client=trace,kube_client::client=trace,kube_client::client::auth=trace,\
                              kube_runtime=trace,hyper=trace,hyper_util=trace,rustls=trace,tower=trace,tower_http=trace";

/// Recognizable in any of the ways a value could be printed.
const PLANTED: &str = "planted-Zm9yYmlkZGVu-7731";

fn encodings() -> [String; 3] {
    // Base64 as the API server sends it, and the bytes as Rust's Debug prints a list.
    let base64 = "cGxhbnRlZC1abTl5WW1sa1pHVnUtNzczMQ==".to_owned();
    let bytes = format!("{:?}", PLANTED.as_bytes());
    [PLANTED.to_owned(), base64, bytes.trim_matches(['[', ']']).to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_value_reaches_logs_metrics_events_or_status() {
    let (installation, scope, client) = prepare("secrecy").await;
    let namespace = scope.name().to_owned();
    let running = Running::in_scope(
        &scope,
        &[
            "--log-level",
            LOG_EVERYTHING,
            "--log-format",
            "json",
            "--resync-period",
            "2s",
        ],
    )
    .await
    .expect("an operator");
    let mut objects = services::s3_credentials("s3", "loader", &namespace, PLANTED);
    // Headers of an HTTPS server, which KServe copies into Pods as text.
    objects.push(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "https", "namespace": namespace},
        "stringData": {"https-host": "models.example.com", "headers": format!("authorization: {PLANTED}")},
    }));
    objects.push(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "https", "namespace": namespace},
        "secrets": [{"name": "https"}],
    }));
    // One that cannot be used: errors must not quote what was found instead.
    objects.push(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half", "namespace": namespace},
        "stringData": {"AWS_SECRET_ACCESS_KEY": PLANTED},
    }));
    objects.push(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "half", "namespace": namespace},
        "secrets": [{"name": "half"}],
    }));
    objects.push(services::sklearn("good", &namespace, Some("loader")));
    let mut https = services::sklearn("https", &namespace, Some("https"));
    https["spec"]["predictor"]["model"]["storageUri"] = json!("https://models.example.com/m.tar.gz");
    objects.push(https);
    objects.push(services::sklearn("half", &namespace, Some("half")));
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    let services = services_of(&client, &scope);
    for (name, type_, wanted) in [
        ("good", "Ready", "True"),
        ("https", "Ready", "True"),
        ("half", "Ready", "False"),
    ] {
        eventually(&format!("{name}: {type_} {wanted}"), DEADLINE, async || {
            let service = services.get(name).await.map_err(|error| error.to_string())?;
            match services::condition(&service, type_) {
                Some((status, ..)) if status == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let reads = running
        .metric("leanserve_secret_reads_total", &[])
        .await
        .expect("metrics");
    assert!(reads >= 3.0, "{reads} Secrets were read");

    let log = running.process.log();
    assert!(log.contains(r#""level":"trace""#), "the log is complete");
    let mut places = vec![("the log", log), ("metrics", running.metrics().await.expect("metrics"))];
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let events = events.list(&ListParams::default()).await.expect("events");
    assert!(!events.items.is_empty(), "there are Events to look through");
    places.push(("Events", serde_json::to_string(&events.items).expect("JSON")));
    let found = services.list(&ListParams::default()).await.expect("services");
    places.push(("InferenceServices", serde_json::to_string(&found.items).expect("JSON")));
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), &namespace);
    let deployments = deployments.list(&ListParams::default()).await.expect("Deployments");
    let text = serde_json::to_string(&deployments.items).expect("JSON");
    assert!(
        text.contains("models.example.com-headers"),
        "the headers are referred to"
    );
    places.push(("Deployments", text));
    for (place, text) in places {
        for planted in encodings() {
            let position = text.find(&planted);
            let context = position.map(|at| text[at.saturating_sub(200)..at].to_owned());
            assert_eq!(context, None, "{place} hold a Secret's value");
        }
    }
}
