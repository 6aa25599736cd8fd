//! Nothing that a watch brings reaches a log, whatever is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Source, Switch, Want};
use serde_json::{Value, json};
use testkit::captured_logs::CapturedLogs;
use testkit::fake_api::{Ending, FakeApi, Fault, RequestMatch, Times};

const PLANTED: &str = "planted-9d41c7";
/// The same as base64, without the padding.
const PLANTED_BASE64: &str = "cGxhbnRlZC05ZDQxYzc";

async fn held(access: &Switch, secret: &SecretRef) {
    let held = async {
        loop {
            let read = access.read(secret, Want::default()).await;
            if read.is_ok_and(|read| read.source() == Source::Watch) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), held)
        .await
        .expect("the watch comes back");
}

fn put(api: &FakeApi, name: &str, value: &Value) {
    api.put(json!({
        "apiVersion": "v1", "kind": "Secret", "type": PLANTED,
        "metadata": {"namespace": "ns", "name": name, "labels": {"l": PLANTED}, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": PLANTED, "note": PLANTED,
        }},
        "data": {"k": value},
    }));
}

#[tokio::test(start_paused = true)]
async fn a_planted_value_is_nowhere() {
    let log = CapturedLogs::of_process();
    for streaming in [true, false] {
        let api = FakeApi::new();
        put(&api, "good", &json!(format!("{PLANTED_BASE64}=")));
        put(&api, "not-base64", &json!(PLANTED));
        put(&api, "not-text", &json!([PLANTED]));
        let mut options = AccessOptions::for_mode(Mode::Watch);
        options.watch.streaming = streaming;
        options.watch.page_size = 1;
        options.fetch.max_body_bytes = 10_000;
        put(&api, "too-big", &json!(PLANTED.repeat(1000)));
        let access = Arc::new(Switch::new(api.client(), options).expect("valid options"));
        let good = SecretRef::new("ns", "good").expect("valid");
        held(&access, &good).await;

        let good_object = api.stored("secrets", "ns", "good").expect("stored");
        let event = |type_: &str, object: &Value| json!({"type": type_, "object": object});
        let mut nameless = good_object.clone();
        nameless["metadata"]["name"] = json!(PLANTED.to_uppercase());
        let mut versionless = good_object.clone();
        versionless["metadata"]["resourceVersion"] = json!(PLANTED);
        for said in [
            event(PLANTED, &good_object).to_string(),
            event("ADDED", &nameless).to_string(),
            event("MODIFIED", &versionless).to_string(),
            event(
                "ERROR",
                &json!({"kind": "Status", "message": PLANTED, "reason": PLANTED, "code": 500}),
            )
            .to_string(),
            event("MODIFIED", &json!(PLANTED)).to_string(),
            format!("{PLANTED} {PLANTED_BASE64}"),
            format!("\"{PLANTED}"),
            PLANTED.repeat(100_000),
        ] {
            api.say_bytes_on_watches(format!("{said}\n").as_bytes());
            // What cannot be held is told again in a later version.
            put(&api, "good", &json!(format!("{PLANTED_BASE64}=")));
            tokio::time::sleep(Duration::from_secs(1)).await;
            held(&access, &good).await;
        }
        for ending in [Ending::Broken, Ending::Early] {
            api.say_bytes_on_watches(PLANTED.as_bytes());
            api.cut_watches(ending);
            tokio::time::sleep(Duration::from_secs(1)).await;
            held(&access, &good).await;
        }
        for fault in [
            Fault::Garbage,
            Fault::status(403).body(PLANTED),
            Fault::status(500).body(PLANTED),
            Fault::status(429).body(PLANTED),
        ] {
            api.inject(RequestMatch::verb("watch"), Times::N(1), fault);
            api.close_watches();
            tokio::time::sleep(Duration::from_secs(1)).await;
            held(&access, &good).await;
        }
        for name in ["not-base64", "not-text", "too-big"] {
            let secret = SecretRef::new("ns", name).expect("valid");
            let error = access
                .read(&secret, Want::default())
                .await
                .expect_err("it cannot be decoded");
            assert!(!error.to_string().contains(PLANTED), "{error}");
        }
        let read = access.read(&good, Want::default()).await.expect("held");
        assert_eq!(
            read.bytes("k").and_then(|bytes| bytes.as_str()),
            Some(PLANTED),
            "it was there"
        );
        assert!(!format!("{read:?} {access:?}").contains(&format!("{PLANTED} ")));
    }
    assert!(log.contains("ns/not-base64"), "what cannot be held is reported by name");
    let text = log.text();
    let leak = text
        .lines()
        .find(|line| line.contains(PLANTED) || line.contains(PLANTED_BASE64));
    assert_eq!(leak, None);
}
