//! The fake API server against the behaviour it promises.

#![allow(clippy::unwrap_used, reason = "a test's own functions fail as the test does")]

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};
use tokio::time::Instant;

const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

struct Reply {
    code: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

/// One request; the error is the transport's.
async fn send(api: &FakeApi, uri: &str, accept: &str) -> Result<Reply, String> {
    let request = Request::get(uri).header("accept", accept).body(Body::empty()).unwrap();
    let response = api.client().send(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Reply {
        code: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).map_err(|error| format!("{error}"))?,
    })
}

async fn get(api: &FakeApi, uri: &str) -> Reply {
    send(api, uri, "application/json").await.unwrap()
}

#[tokio::test]
async fn versions_are_global_and_a_uid_is_one_incarnation() {
    let api = FakeApi::new();
    let first = api.put_secret("a", "x", &[("k", b"1")]);
    let other = api.put_secret("b", "y", &[]);
    let second = api.put_secret("a", "x", &[("k", b"2")]);
    assert!(first.resource_version < other.resource_version && other.resource_version < second.resource_version);
    assert_eq!(first.uid, second.uid);
    assert_ne!(first.uid, other.uid);

    let deleted = api.delete_secret("a", "x").unwrap();
    assert!(deleted.resource_version > second.resource_version);
    assert_eq!(api.delete_secret("a", "x"), None);
    let again = api.put_secret("a", "x", &[("k", b"1")]);
    assert_ne!(again.uid, first.uid);
    api.advance(10);
    assert_eq!(api.revision(), again.resource_version + 10);
}

#[tokio::test]
async fn a_get_answers_with_the_object_its_metadata_or_not_found() {
    let api = FakeApi::new();
    let stored = api.put_secret("a", "x", &[("k", b"hello")]);

    let reply = get(&api, "/api/v1/namespaces/a/secrets/x").await;
    assert_eq!(reply.code, StatusCode::OK);
    assert_eq!(reply.body["kind"], "Secret");
    assert_eq!(reply.body["data"]["k"], "aGVsbG8=");
    assert_eq!(
        reply.body["metadata"]["resourceVersion"],
        stored.resource_version.to_string()
    );

    let reply = send(&api, "/api/v1/namespaces/a/secrets/x", METADATA).await.unwrap();
    assert_eq!(reply.body["kind"], "PartialObjectMetadata");
    assert_eq!(reply.body["metadata"]["uid"], stored.uid);
    assert_eq!(reply.body["data"], Value::Null);

    let reply = get(&api, "/api/v1/namespaces/a/secrets/missing").await;
    assert_eq!(reply.code, StatusCode::NOT_FOUND);
    assert_eq!(reply.body["reason"], "NotFound");
    assert_eq!(reply.body["message"], "secrets \"missing\" not found");
    assert_eq!(
        get(&api, "/api/v1/namespaces/b/secrets/x").await.code,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&api, "/api/v1/namespaces/a/pods/x").await.code,
        StatusCode::NOT_FOUND
    );

    api.put(
        json!({"kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "sa"}, "secrets": [{"name": "x"}]}),
    );
    let reply = get(&api, "/api/v1/namespaces/a/serviceaccounts/sa").await;
    assert_eq!(reply.body["secrets"][0]["name"], "x");
    assert_eq!(api.count("get", "secrets"), 4);
    assert_eq!(api.count("get", "serviceaccounts"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_get_at_a_version_is_answered_by_the_watch_cache() {
    let api = FakeApi::new();
    let old = api.put_secret("a", "x", &[("k", b"old")]);
    api.freeze_watch_cache();
    let new = api.put_secret("a", "x", &[("k", b"new")]);
    let uri = |version: u64| format!("/api/v1/namespaces/a/secrets/x?resourceVersion={version}");
    let version = |reply: &Reply| reply.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    let quorum = get(&api, "/api/v1/namespaces/a/secrets/x").await;
    assert_eq!(version(&quorum), new.resource_version.to_string());
    for at in [0, old.resource_version] {
        assert_eq!(
            version(&get(&api, &uri(at)).await),
            old.resource_version.to_string(),
            "at {at}"
        );
    }

    let started = Instant::now();
    let behind = get(&api, &uri(new.resource_version)).await;
    assert_eq!(behind.code, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(behind.body["details"]["retryAfterSeconds"], 1);
    assert_eq!(behind.headers["retry-after"], "1");
    assert_eq!(started.elapsed(), Duration::from_secs(3));

    let newest = uri(new.resource_version);
    let (reply, ()) = tokio::join!(get(&api, &newest), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.thaw_watch_cache();
    });
    assert_eq!(version(&reply), new.resource_version.to_string());
    assert_eq!(started.elapsed(), Duration::from_secs(4));
}

#[tokio::test]
async fn a_list_counts_what_it_leaves_out() {
    let api = FakeApi::new();
    for number in 0..5 {
        api.put(json!({
            "kind": "Secret",
            "metadata": {"namespace": if number < 3 { "a" } else { "b" }, "name": format!("s{number}"),
                         "labels": {"odd": (number % 2 == 1).to_string()}},
            "type": "Opaque",
        }));
    }
    let counted = send(&api, "/api/v1/secrets?limit=1", METADATA_LIST).await.unwrap().body;
    assert_eq!(counted["kind"], "PartialObjectMetadataList");
    assert_eq!(counted["metadata"]["remainingItemCount"], 4);
    assert_eq!(counted["items"].as_array().unwrap().len(), 1);
    assert_eq!(counted["items"][0]["kind"], "PartialObjectMetadata");

    let narrowed = get(&api, "/api/v1/secrets?limit=1&fieldSelector=type!%3Dx").await.body;
    assert_eq!(narrowed["metadata"]["remainingItemCount"], Value::Null);
    let ignored = get(&api, "/api/v1/secrets?limit=1&resourceVersion=0").await.body;
    assert_eq!(ignored["items"].as_array().unwrap().len(), 5);
    let odd = get(&api, "/api/v1/secrets?labelSelector=odd%3Dtrue").await.body;
    assert_eq!(odd["items"].as_array().unwrap().len(), 2);
    assert_eq!(odd["items"][0]["kind"], Value::Null);
    assert_eq!(
        get(&api, "/api/v1/secrets?fieldSelector=data.x%3D1").await.code,
        StatusCode::BAD_REQUEST
    );

    // Pages are of one moment: a write between them changes nothing.
    let mut names = Vec::new();
    let mut token = String::new();
    let mut versions = Vec::new();
    loop {
        let page = get(&api, &format!("/api/v1/namespaces/a/secrets?limit=2&continue={token}"))
            .await
            .body;
        api.put_secret("a", "s0a", &[]);
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["metadata"]["name"].clone()),
        );
        versions.push(page["metadata"]["resourceVersion"].clone());
        match page["metadata"]["continue"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(names, ["s0", "s1", "s2"]);
    assert_eq!(versions[0], versions[1]);
    api.compact();
    let late = get(&api, &format!("/api/v1/namespaces/a/secrets?limit=2&continue={token}")).await;
    assert_eq!(late.code, StatusCode::GONE);
}

/// Opens a watch and returns its events as they come.
async fn watch(api: &FakeApi, uri: &str) -> impl futures::Stream<Item = Value> + Unpin + use<> {
    let request = Request::get(uri)
        .header("accept", "application/json")
        .body(Body::empty())
        .unwrap();
    let response = api.client().send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // The fake sends one event a frame.
    Box::pin(
        response
            .into_body()
            .into_data_stream()
            .map(|frame| serde_json::from_slice::<Value>(&frame.unwrap()).unwrap()),
    )
}

fn seen(event: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_passes_its_selector() {
    let api = FakeApi::new();
    let typed = |name: &str, label: &str| json!({"kind": "Secret", "metadata": {"namespace": "a", "name": name, "labels": {"l": label}}, "type": "Opaque"});
    api.put(typed("before", "in"));
    let start = api.revision();
    let mut events =
        watch(&api, &format!("/api/v1/secrets?watch=1&resourceVersion={start}&labelSelector=l%3Din&allowWatchBookmarks=true&timeoutSeconds=100")).await;
    assert_eq!(api.open_watches(), 1);

    api.put(typed("x", "in"));
    api.put(typed("x", "in"));
    let left = api.put(typed("x", "out"));
    api.put(typed("x", "out"));
    api.put(typed("x", "in"));
    api.delete_secret("a", "x");
    for expected in ["ADDED", "MODIFIED"] {
        assert_eq!(
            seen(&events.next().await.unwrap()),
            (expected.to_owned(), "x".to_owned())
        );
    }
    let gone = events.next().await.unwrap();
    assert_eq!(seen(&gone), ("DELETED".to_owned(), "x".to_owned()));
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"],
        left.resource_version.to_string()
    );
    assert_eq!(gone["object"]["metadata"]["labels"]["l"], "in");
    for expected in ["ADDED", "DELETED"] {
        assert_eq!(
            seen(&events.next().await.unwrap()),
            (expected.to_owned(), "x".to_owned())
        );
    }

    // Bookmarks tell the store's revision even when nothing selected changed; compaction spares an open watch.
    api.put(typed("y", "out"));
    api.compact();
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        api.revision().to_string()
    );
    assert_eq!(events.next().await, None, "the watch ends at its timeout");
    assert_eq!(api.open_watches(), 0);

    let mut late = watch(&api, &format!("/api/v1/secrets?watch=1&resourceVersion={start}")).await;
    let error = late.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn watches_can_begin_with_the_state_and_be_cut() {
    let api = FakeApi::new();
    api.put_secret("a", "x", &[]);
    api.put_secret("b", "y", &[]);
    let mut events = watch(
        &api,
        "/api/v1/namespaces/a/secrets?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan",
    )
    .await;
    assert_eq!(
        seen(&events.next().await.unwrap()),
        ("ADDED".to_owned(), "x".to_owned())
    );
    let end = events.next().await.unwrap();
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    api.close_watches();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn kube_reads_lists_and_watches_it() {
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::{ListParams, WatchEvent, WatchParams};

    let api = FakeApi::new();
    api.put_secret("a", "x", &[("k", b"v")]);
    let secrets: kube::Api<Secret> = kube::Api::namespaced(api.client(), "a");
    assert_eq!(secrets.get("x").await.unwrap().data.unwrap()["k"].0, b"v");
    assert!(secrets.get_opt("missing").await.unwrap().is_none());
    let list = secrets.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let metadata = secrets.list_metadata(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(metadata.items[0].metadata.name.as_deref(), Some("x"));

    let version = list.metadata.resource_version.unwrap();
    let mut events = secrets.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    api.put_secret("a", "z", &[]);
    let event = events.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Added(secret) if secret.metadata.name.as_deref() == Some("z")));
}

#[tokio::test]
async fn a_missing_right_is_a_403_and_a_review_says_so() {
    use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

    let api = FakeApi::new();
    api.put_secret("a", "x", &[]);
    api.forbid("list", "secrets");
    assert_eq!(get(&api, "/api/v1/namespaces/a/secrets/x").await.code, StatusCode::OK);
    let refused = get(&api, "/api/v1/namespaces/a/secrets").await;
    assert_eq!(
        (refused.code, &refused.body["reason"]),
        (StatusCode::FORBIDDEN, &json!("Forbidden"))
    );

    let reviews: kube::Api<SelfSubjectAccessReview> = kube::Api::all(api.client());
    for (verb, allowed) in [("get", true), ("list", false)] {
        let review = serde_json::from_value(
            json!({"metadata": {}, "spec": {"resourceAttributes": {"verb": verb, "resource": "secrets"}}}),
        )
        .unwrap();
        let answer = reviews
            .create(&kube::api::PostParams::default(), &review)
            .await
            .unwrap();
        assert_eq!(answer.status.unwrap().allowed, allowed, "{verb}");
    }
    api.permit("list", "secrets");
    assert_eq!(get(&api, "/api/v1/namespaces/a/secrets").await.code, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn faults_strike_the_requests_they_are_for() {
    const X: &str = "/api/v1/namespaces/a/secrets/x";
    let api = FakeApi::new();
    api.put_secret("a", "x", &[("k", b"a value long enough to be cut in half")]);
    api.put_secret("a", "y", &[]);
    let on_x = || RequestMatch::verb("get").resource("secrets").named("a", "x");

    api.inject(on_x(), Times::N(2), Fault::status(429).header("retry-after", "7"));
    for _ in 0..2 {
        let reply = get(&api, X).await;
        assert_eq!(
            (reply.code.as_u16(), &reply.body["reason"]),
            (429, &json!("TooManyRequests"))
        );
        assert_eq!(reply.headers["retry-after"], "7");
    }
    assert_eq!(get(&api, X).await.code, StatusCode::OK);

    api.inject(on_x(), Times::N(1), Fault::status(500).body("{\"own\":1}"));
    assert_eq!(get(&api, X).await.body["own"], 1);

    api.inject(on_x(), Times::N(1), Fault::Close);
    assert!(send(&api, X, "*/*").await.err().unwrap().contains("reset"));
    api.inject(on_x(), Times::N(1), Fault::Truncated);
    assert!(send(&api, X, "*/*").await.err().unwrap().contains("closed before"));
    api.inject(on_x(), Times::N(1), Fault::CutShort);
    assert!(send(&api, X, "*/*").await.err().unwrap().contains("EOF"));
    api.inject(on_x(), Times::N(1), Fault::Garbage);
    assert!(send(&api, X, "*/*").await.is_err());
    api.inject(on_x(), Times::N(1), Fault::WrongKind);
    assert_eq!(get(&api, X).await.body["kind"], "Ingress");

    for fault in [Fault::Hang, Fault::StalledBody] {
        api.inject(on_x(), Times::N(1), fault);
        assert!(
            tokio::time::timeout(Duration::from_secs(3600), send(&api, X, "*/*"))
                .await
                .is_err()
        );
    }

    api.inject(on_x(), Times::Always, Fault::Delay(Duration::from_secs(5)));
    let started = Instant::now();
    get(&api, "/api/v1/namespaces/a/secrets/y").await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    get(&api, X).await;
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    api.clear_faults();

    api.inject(
        RequestMatch::any().metadata_only(true),
        Times::Always,
        Fault::status(503),
    );
    assert_eq!(get(&api, X).await.code, StatusCode::OK);
    assert_eq!(send(&api, X, METADATA).await.unwrap().code.as_u16(), 503);
    api.clear_faults();
    api.inject(
        RequestMatch::any().with_resource_version(true),
        Times::Always,
        Fault::status(504),
    );
    assert_eq!(get(&api, X).await.code, StatusCode::OK);
    assert_eq!(get(&api, &format!("{X}?resourceVersion=1")).await.code.as_u16(), 504);
}

#[tokio::test]
async fn an_oversized_body_is_made_only_as_it_is_pulled() {
    let api = FakeApi::new();
    for declared in [true, false] {
        api.forget_requests();
        api.inject(
            RequestMatch::any(),
            Times::N(1),
            Fault::Oversized {
                bytes: 1 << 40,
                declared,
            },
        );
        let request = Request::get("/api/v1/namespaces/a/secrets/x")
            .body(Body::empty())
            .unwrap();
        let response = api.client().send(request).await.unwrap();
        assert_eq!(response.headers().contains_key("content-length"), declared);
        let mut body = response.into_body();
        for _ in 0..10 {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert!((500_000..2_000_000).contains(&api.bytes_sent()), "{}", api.bytes_sent());
    }
    api.inject(
        RequestMatch::any(),
        Times::N(1),
        Fault::Oversized {
            bytes: 100_000,
            declared: true,
        },
    );
    let reply = get(&api, "/api/v1/namespaces/a/secrets/x").await;
    assert_eq!(
        (&reply.body["kind"], &reply.body["metadata"]["name"]),
        (&json!("Secret"), &json!("x"))
    );
    assert!(reply.body["data"]["filler"].as_str().unwrap().len() >= 100_000);
}

#[tokio::test]
async fn gates_hold_requests_or_answers() {
    const X: &str = "/api/v1/namespaces/a/secrets/x";
    for (held_answers, expected) in [(false, "Mg=="), (true, "MQ==")] {
        let api = FakeApi::new();
        api.put_secret("a", "x", &[("k", b"1")]);
        let gate = if held_answers {
            api.hold_answers(RequestMatch::any())
        } else {
            api.hold(RequestMatch::any())
        };
        let task = tokio::spawn({
            let api = api.clone();
            async move { get(&api, X).await.body }
        });
        gate.wait_for(1).await;
        assert_eq!((gate.arrived(), api.in_flight()), (1, 1));
        api.put_secret("a", "x", &[("k", b"2")]);
        gate.open();
        assert_eq!(
            task.await.unwrap()["data"]["k"],
            expected,
            "held answers: {held_answers}"
        );
        assert_eq!((api.in_flight(), api.peak_in_flight(), api.cancelled()), (0, 1, 0));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    let api = FakeApi::new();
    let gate = api.hold(RequestMatch::any());
    let task = tokio::spawn({
        let api = api.clone();
        async move { get(&api, "/api/v1/namespaces/a/secrets/x").await.code }
    });
    gate.wait_for(1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!((api.in_flight(), api.cancelled(), api.requests().len()), (0, 1, 1));
    assert_eq!(api.requests()[0].name.as_deref(), Some("x"));
}

/// What the bodies of watches bring until they end, in bytes; the last element is the error if there is one.
async fn heard(api: &FakeApi) -> impl futures::Stream<Item = Result<Vec<u8>, String>> + Unpin + use<> {
    let uri = format!(
        "/api/v1/secrets?watch=1&resourceVersion={}&timeoutSeconds=100",
        api.revision()
    );
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let response = api.client().send(request).await.unwrap();
    Box::pin(
        response
            .into_body()
            .into_data_stream()
            .map(|frame| frame.map(|frame| frame.to_vec()).map_err(|error| error.to_string())),
    )
}

#[tokio::test(start_paused = true)]
async fn open_watches_are_spoken_on_cut_and_silenced() {
    use testkit::fake_api::Ending;

    let api = FakeApi::new();
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(heard(&api).await);
    }
    api.put_secret("a", "x", &[]);
    api.say_on_watches(&json!({"type": "ADDED", "object": 7}));
    api.say_bytes_on_watches(b"nonsense\n");
    for body in &mut bodies {
        let event: Value = serde_json::from_slice(&body.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(
            seen(&event),
            ("ADDED".into(), "x".into()),
            "the events so far come first"
        );
        let said: Value = serde_json::from_slice(&body.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(said, json!({"type": "ADDED", "object": 7}));
        assert_eq!(body.next().await.unwrap().unwrap(), b"nonsense\n");
    }

    api.cut_watches(Ending::Broken);
    for body in &mut bodies[..2] {
        let half = body.next().await.unwrap().unwrap();
        assert!(serde_json::from_slice::<Value>(&half).is_err());
        assert!(body.next().await.unwrap().is_err());
        assert_eq!(body.next().await, None);
    }

    // One opened later hears nothing of what came before.
    let mut early = heard(&api).await;
    api.cut_watches(Ending::Early);
    assert!(serde_json::from_slice::<Value>(&early.next().await.unwrap().unwrap()).is_err());
    assert_eq!(early.next().await, None);

    let mut silent = heard(&api).await;
    api.silence_watches();
    api.put_secret("a", "y", &[]);
    let event: Value = serde_json::from_slice(&silent.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        seen(&event),
        ("ADDED".into(), "y".into()),
        "written before anybody looked"
    );
    api.put_secret("a", "z", &[]);
    let nothing = tokio::time::timeout(Duration::from_secs(1000), silent.next()).await;
    assert!(nothing.is_err(), "not even the end on time");
    // A silent one stays open until its client goes, like two that nobody read to their end.
    drop(bodies);
    assert_eq!(api.open_watches(), 1);
    drop(silent);
    assert_eq!(api.open_watches(), 0);
}
