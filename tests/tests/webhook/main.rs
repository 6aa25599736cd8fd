//! `leanserve webhook` on a real API server.

mod burst;
mod checks;
mod clients;
mod drain;
mod rotation;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use leanserve_tests::{
    Installation,
    webhook::{Replica, free_port},
};
use serde_json::{Value, json};
use testkit::ControlPlane;

/// The most anything may take here on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The control plane, with the definitions of `deploy/`.
async fn plane() -> &'static ControlPlane {
    Installation::shared().await.plane
}

fn port() -> SocketAddr {
    free_port(LOOPBACK).expect("a free port")
}

/// What came of a write: the status, the warnings in its head, and the body.
struct Written {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

/// Typed requests drop the head, where the warnings are.
async fn write(client: &Client, request: Request<Vec<u8>>) -> Written {
    let answer: Response<Body> = client.send(request.map(Body::from)).await.expect("an answer");
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let warnings = answer.headers().get_all("warning").iter().map(text).collect();
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    Written {
        code,
        warnings,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

fn path(namespace: &str) -> String {
    format!("/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices")
}

async fn create(client: &Client, namespace: &str, service: &Value) -> Written {
    let request = Request::post(path(namespace))
        .header("content-type", "application/json")
        .body(service.to_string().into_bytes());
    write(client, request.expect("valid")).await
}

/// A merge patch of a service, or of a subresource of it, as in `m/status`.
async fn patch(client: &Client, namespace: &str, name: &str, patch: &Value) -> Written {
    let request = Request::patch(format!("{}/{name}", path(namespace)))
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes());
    write(client, request.expect("valid")).await
}

/// How many reviews a replica has answered.
async fn reviews(replica: &Replica) -> f64 {
    let reviews = replica.metric("leanserve_webhook_reviews_total", &[]).await;
    reviews.expect("metrics")
}

/// A service whose container needs a key of a Secret.
fn service(name: &str, secret: &str, key: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": name},
        "spec": {"predictor": {"model": {
            "modelFormat": {"name": "sklearn"},
            "storageUri": "pvc://claim/model",
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}],
        }}},
    })
}

/// A Secret with one key.
fn secret(name: &str, namespace: &str, key: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": {key: value},
    })
}
