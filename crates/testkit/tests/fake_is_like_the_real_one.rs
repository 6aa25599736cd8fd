//! The fake API server and a real one, asked the same, give the same answers.

#![allow(clippy::unwrap_used, reason = "a test's own functions fail as the test does")]

use std::{
    io::{self, Write},
    time::Duration,
};

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::PostParams, client::Body};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options, fake_api::FakeApi};

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// What both are asked about the Secrets of a namespace, and in which form.
const REQUESTS: [(&str, &str); 23] = [
    ("/a", JSON),
    ("/a", METADATA),
    ("/a?resourceVersion=0", JSON),
    ("/a?resourceVersion=abc", JSON),
    ("/a?resourceVersion=9000000000", JSON),
    ("/missing", JSON),
    ("/missing", METADATA),
    ("/missing?resourceVersion=0", JSON),
    ("", JSON),
    ("", METADATA_LIST),
    ("?limit=1", JSON),
    ("?limit=1", METADATA_LIST),
    ("?limit=1&fieldSelector=type!%3Dx", METADATA_LIST),
    ("?limit=1&labelSelector=l%3Dx", JSON),
    ("?limit=1&resourceVersion=0", METADATA_LIST),
    ("?labelSelector=l%20in%20(x,z)", METADATA_LIST),
    ("?labelSelector=!l", METADATA_LIST),
    ("?fieldSelector=metadata.name%3Db", METADATA_LIST),
    ("?labelSelector=!l", JSON),
    ("?limit=1&labelSelector=!l", METADATA_LIST),
    ("?fieldSelector=data.x%3D1", JSON),
    ("?resourceVersion=abc", JSON),
    ("?resourceVersion=9000000000", METADATA_LIST),
];

fn secret(name: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "default", "name": name, "labels": {"l": label}},
        "type": "Opaque",
        "data": {"k": "dg=="},
    })
}

/// Replaces what differs between any two servers: versions, identities, times, tokens and who owns which field.
fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "uid" | "resourceVersion" | "creationTimestamp" | "continue" if field.is_string() => {
                        *field = json!("masked");
                    }
                    "message" => {
                        let text = field.as_str().unwrap_or_default();
                        let text = text.replace(":test:test", ":default:default");
                        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
                        *field = json!(text);
                    }
                    _ => mask(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Code, `Retry-After` and masked body.
async fn ask(client: &Client, uri: &str, accept: &str) -> Value {
    let request = Request::get(uri).header("accept", accept).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let mut body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    mask(&mut body);
    let retry_after = parts
        .headers
        .get("retry-after")
        .map(|value| value.to_str().unwrap().to_owned());
    json!({"code": parts.status.as_u16(), "retryAfter": retry_after, "body": body})
}

/// The first `count` events of a watch, masked.
async fn events(client: &Client, uri: &str, count: usize) -> Vec<Value> {
    let request = Request::get(uri).header("accept", JSON).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200, "{uri}");
    let mut frames = response.into_body().into_data_stream();
    let mut text = Vec::new();
    loop {
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let whole = lines.iter().filter(|line| line.ends_with(b"\n")).count();
        if whole >= count {
            return lines[..count]
                .iter()
                .map(|line| {
                    let mut event = serde_json::from_slice(line).unwrap();
                    mask(&mut event);
                    event
                })
                .collect();
        }
        let frame = tokio::time::timeout(Duration::from_secs(60), frames.next()).await;
        text.extend_from_slice(&frame.expect("an event in time").expect("the watch goes on").unwrap());
    }
}

#[tokio::test]
async fn the_same_requests_have_the_same_answers() {
    let plane = ControlPlane::start(Options::bare()).await.unwrap();
    if !plane.is_ours() {
        // A terminal that is gone is no reason to fail.
        let _ = writeln!(
            io::stderr(),
            "skipped: KUBECONFIG names a cluster that is not the test's own"
        );
        return;
    }
    let real = plane.client().await.unwrap();
    let api = FakeApi::new();
    let fake = api.client();

    let secrets: Api<Secret> = Api::namespaced(real.clone(), "default");
    let mut created = Vec::new();
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let object: Secret = serde_json::from_value(secret(name, label)).unwrap();
        let object = secrets.create(&PostParams::default(), &object).await.unwrap();
        created.push(object.metadata.resource_version.unwrap());
        api.put(secret(name, label));
    }
    let in_fake = |name: &str| {
        let object = api.stored("secrets", "default", name).unwrap();
        object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };

    let mut different = Vec::new();
    for (path, accept) in REQUESTS {
        let uri = format!("/api/v1/namespaces/default/secrets{path}");
        let (expected, found) = tokio::join!(ask(&real, &uri, accept), ask(&fake, &uri, accept));
        if expected != found {
            different.push(format!("GET {path} as {accept}\n  real {expected}\n  fake {found}"));
        }
    }

    // Without any right.
    let real_nobody = plane.service_account_client("default", "default").await.unwrap();
    for verb in ["get", "list", "watch"] {
        api.forbid(verb, "secrets");
    }
    for path in [
        "/api/v1/namespaces/default/secrets/a",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/secrets",
        "/api/v1/secrets?watch=1",
    ] {
        let (expected, found) = tokio::join!(ask(&real_nobody, path, JSON), ask(&fake, path, JSON));
        if expected != found {
            different.push(format!("GET {path} without rights\n  real {expected}\n  fake {found}"));
        }
    }
    for verb in ["get", "list", "watch"] {
        api.permit(verb, "secrets");
    }

    // Watches: from the first object on, and by selector.
    let last = (created[2].clone(), in_fake("c"));
    let object: Secret = serde_json::from_value(secret("b", "y")).unwrap();
    secrets.replace("b", &PostParams::default(), &object).await.unwrap();
    secrets.delete("c", &kube::api::DeleteParams::default()).await.unwrap();
    api.put(secret("b", "y"));
    api.delete_secret("default", "c");
    let watch = "/api/v1/namespaces/default/secrets?watch=1";
    for (query, count) in [
        ("", 2),
        ("&labelSelector=l%3Dx", 1),
        ("&labelSelector=l%3Dy", 2),
        ("&fieldSelector=metadata.name%3Dc", 1),
    ] {
        let (of_real, of_fake) = &last;
        let real_uri = format!("{watch}{query}&resourceVersion={of_real}");
        let fake_uri = format!("{watch}{query}&resourceVersion={of_fake}");
        let (expected, found) = tokio::join!(events(&real, &real_uri, count), events(&fake, &fake_uri, count));
        if expected != found {
            let (expected, found) = (json!(expected), json!(found));
            different.push(format!(
                "watch {query} from {of_real}\n  real {expected}\n  fake {found}"
            ));
        }
    }
    assert!(
        different.is_empty(),
        "{} differences:\n{}",
        different.len(),
        different.join("\n")
    );
    plane.stop().await.unwrap();
}
