//! The watch when the server, the connection or the events go wrong.

use std::time::Duration;

use kube_secret_access::{ReadError, ResourceVersion, SecretAccess, Source, Switch, Want};
use serde_json::{Value, json};
use testkit::fake_api::{Ending, FakeApi, Fault, RequestMatch, Times};
use tokio::time::{Instant, sleep};

use super::{api_with, held, lists, options, put, read, streamed_lists, watched, watches, watching};
use crate::access::{seconds, secret, settle};

/// What is lost while a watch is away must be found by the list that follows.
async fn relisted(access: &Switch, api: &FakeApi, version: ResourceVersion) {
    held(access, &secret("s1"), seconds(5)).await;
    assert_eq!(read(access, "s1").await.resource_version(), version);
    let gone = access.read(&secret("s0"), Want::default()).await;
    assert!(matches!(gone, Err(ReadError::NotFound { .. })), "{gone:?}");
    assert_eq!(lists(api), 1);
    assert_eq!(read(access, "s2").await.source(), Source::Watch);
}

#[tokio::test(start_paused = true)]
async fn history_that_is_gone_is_listed_anew() {
    // As an HTTP status.
    let (api, access, _) = watched(3, options()).await;
    api.inject(watches(), Times::N(1), Fault::status(410));
    let gate = api.hold(streamed_lists());
    api.close_watches();
    gate.wait_for(1).await;
    api.delete_secret("ns", "s0");
    let version = put(&api, 1, 20);
    gate.open();
    relisted(&access, &api, version).await;

    // As an event.
    let (api, access, _) = watched(3, options()).await;
    let gate = api.hold(watches());
    api.close_watches();
    gate.wait_for(1).await;
    api.delete_secret("ns", "s0");
    let version = put(&api, 1, 20);
    api.compact();
    gate.open();
    settle().await;
    relisted(&access, &api, version).await;
}

#[tokio::test(start_paused = true)]
async fn while_a_list_is_read_anew_reads_are_requests() {
    let (api, access, _) = watched(1, options()).await;
    let gate = api.hold(streamed_lists());
    api.inject(watches(), Times::N(1), Fault::status(410));
    api.close_watches();
    gate.wait_for(1).await;
    let written = put(&api, 0, 20);
    let read = read(&access, "s0").await;
    assert_eq!((read.source(), read.resource_version()), (Source::Api, written));
    gate.open();
    held(&access, &secret("s0"), seconds(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_made_again_from_where_it_was() {
    for ending in [Ending::Broken, Ending::Early] {
        let (api, access, _) = watched(2, options()).await;
        let gate = api.hold(watches());
        api.cut_watches(ending);
        gate.wait_for(1).await;
        let written = put(&api, 0, 20);
        let s0 = read(&access, "s0").await;
        assert_eq!(
            (s0.source(), s0.resource_version()),
            (Source::Api, written),
            "{ending:?}"
        );
        gate.open();
        held(&access, &secret("s1"), seconds(5)).await;
        assert_eq!(read(&access, "s0").await.resource_version(), written);
        assert_eq!(lists(&api), 0, "{ending:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_renewed_in_time_stays_healthy_and_an_unreachable_server_does_not() {
    let (api, access, _) = watched(1, options()).await;
    // Opened 5 s ago, to last for 30 s.
    sleep(seconds(21)).await;
    api.close_watches();
    settle().await;
    assert_eq!(read(&access, "s0").await.source(), Source::Watch);
    api.inject(RequestMatch::verb("watch"), Times::Always, Fault::Close);
    api.close_watches();
    settle().await;
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    // Bounded attempts, random but for their bound.
    sleep(seconds(600)).await;
    let attempts = api.count("watch", "secrets");
    assert!((20..200).contains(&attempts), "{attempts}");
    api.clear_faults();
    held(&access, &secret("s0"), seconds(32)).await;
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_dead_after_a_heartbeat() {
    let (api, access, _) = watched(1, options()).await;
    api.silence_watches();
    let began = Instant::now();
    settle().await;
    let written = put(&api, 0, 20);
    while read(&access, "s0").await.resource_version() < written {
        assert!(began.elapsed() <= seconds(35), "{:?}", began.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    held(&access, &secret("s0"), seconds(5)).await;
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn replays_and_duplicates_change_nothing() {
    let (api, access, _) = watched(2, options()).await;
    let old = api.stored("secrets", "ns", "s0").expect("stored");
    let written = put(&api, 0, 20);
    let new = api.stored("secrets", "ns", "s0").expect("stored");
    let deleted = api.stored("secrets", "ns", "s1").expect("stored");
    api.delete_secret("ns", "s1");
    settle().await;
    let event = |type_: &str, object: &Value| json!({"type": type_, "object": object});
    for event in [
        event("ADDED", &old),
        event("MODIFIED", &new),
        event("DELETED", &old),
        event("ADDED", &deleted),
        event("MODIFIED", &deleted),
    ] {
        api.say_on_watches(&event);
        settle().await;
        let read = read(&access, "s0").await;
        assert_eq!(
            (read.resource_version(), read.source()),
            (written, Source::Watch),
            "{event}"
        );
        let gone = access.read(&secret("s1"), Want::default()).await;
        assert!(matches!(gone, Err(ReadError::NotFound { .. })), "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_undecodable_object_is_requested_and_the_others_are_held() {
    let (api, access, _) = watched(2, options()).await;
    let mut bad = api.stored("secrets", "ns", "s0").expect("stored");
    bad["metadata"]["resourceVersion"] = json!((api.revision() + 1).to_string());
    bad["data"]["k"] = json!("not base64");
    let written = put(&api, 0, 20);
    assert_eq!(bad["metadata"]["resourceVersion"], json!(written.to_string()));
    api.say_on_watches(&json!({"type": "MODIFIED", "object": bad}));
    settle().await;
    let s0 = read(&access, "s0").await;
    assert_eq!((s0.source(), s0.resource_version()), (Source::Api, written));
    assert_eq!(read(&access, "s1").await.source(), Source::Watch);
    put(&api, 0, 30);
    held(&access, &secret("s0"), seconds(1)).await;

    // Nobody can tell what this was about, so the watch begins again from where it was.
    api.say_bytes_on_watches(b"{\"type\":\"MODIFIED\",\"object\":{}}\n");
    settle().await;
    assert_eq!(read(&access, "s1").await.source(), Source::Api);
    held(&access, &secret("s1"), seconds(5)).await;
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_holds_up_no_read() {
    let api = api_with(1, 10);
    api.inject(RequestMatch::verb("watch"), Times::Always, Fault::Hang);
    let (access, _) = watching(&api, options());
    let began = Instant::now();
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(seconds(100)).await;
    let attempts = api.count("watch", "secrets");
    assert!((5..=10).contains(&attempts), "each has a deadline of 10 s: {attempts}");
    api.clear_faults();
    held(&access, &secret("s0"), seconds(41)).await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_makes_reads_requests() {
    let (api, access, _) = watched(1, options()).await;
    let gate = api.hold(watches());
    gate.wait_for(1).await;
    let written = put(&api, 0, 20);
    sleep(seconds(4)).await;
    assert_eq!(
        read(&access, "s0").await.source(),
        Source::Watch,
        "a renewal takes a moment"
    );
    sleep(seconds(2)).await;
    assert_eq!(read(&access, "s0").await.resource_version(), written);
    gate.open();
    held(&access, &secret("s0"), seconds(20)).await;
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stalls_is_asked_for_in_pages_the_next_time() {
    let api = api_with(3, 10);
    // What a server does that knows nothing of streamed lists: a watch, whose list has no end.
    api.freeze_watch_cache();
    let gate = api.hold_answers(streamed_lists());
    let (access, _) = watching(&api, options());
    gate.wait_for(1).await;
    api.silence_watches();
    api.thaw_watch_cache();
    gate.open();
    held(&access, &secret("s0"), seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_may_ask_for_a_pause() {
    let (api, access, _) = watched(1, options()).await;
    api.inject(watches(), Times::N(1), Fault::status(429).header("retry-after", "7"));
    let began = Instant::now();
    api.close_watches();
    settle().await;
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    held(&access, &secret("s0"), seconds(12)).await;
    assert!(began.elapsed() >= seconds(7), "{:?}", began.elapsed());
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_the_watch_is_given_time_to_catch_up() {
    let (api, access, _) = watched(1, options()).await;
    let gate = api.hold(watches());
    api.cut_watches(Ending::Broken);
    gate.wait_for(1).await;
    // What happened meanwhile is on its way when the watch is open again.
    api.freeze_watch_cache();
    let written = put(&api, 0, 20);
    gate.open();
    settle().await;
    assert_eq!(api.open_watches(), 1);
    let s0 = read(&access, "s0").await;
    assert_eq!((s0.source(), s0.resource_version()), (Source::Api, written));
    api.thaw_watch_cache();
    held(&access, &secret("s0"), seconds(2)).await;
    assert_eq!(lists(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_run_down() {
    let (api, access, _) = watched(1, options()).await;
    for _ in 0..60_000 {
        api.close_watches();
        sleep(Duration::from_millis(10)).await;
    }
    let attempts = api.count("watch", "secrets");
    assert!((15..150).contains(&attempts), "in 10 min: {attempts}");
    held(&access, &secret("s0"), seconds(35)).await;
}

#[tokio::test(start_paused = true)]
async fn a_history_that_was_lost_is_listed_anew() {
    // A bookmark from before where the watch began.
    let (api, access, _) = watched(2, options()).await;
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Secret", "metadata": {"resourceVersion": "7"}}});
    api.say_on_watches(&bookmark);
    settle().await;
    held(&access, &secret("s0"), seconds(1)).await;
    assert_eq!(lists(&api), 1);

    // A version that no request finds.
    let (api, access, _) = watched(2, options()).await;
    let stored = api.stored("secrets", "ns", "s0").expect("stored");
    let mut lost = stored.clone();
    lost["metadata"]["resourceVersion"] = json!((api.revision() + 1000).to_string());
    api.say_on_watches(&json!({"type": "MODIFIED", "object": lost}));
    settle().await;
    let found = access.read(&secret("s0"), Want::quorum()).await.expect("readable");
    assert_eq!(
        json!(found.resource_version().to_string()),
        stored["metadata"]["resourceVersion"]
    );
    held(&access, &secret("s0"), seconds(1)).await;
    let s0 = read(&access, "s0").await;
    assert_eq!((s0.resource_version(), lists(&api)), (found.resource_version(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_tells_of_other_namespaces_is_not_believed() {
    let mut options = options();
    options.watch.namespaces = vec!["ns".into()];
    let (api, access, _) = watched(1, options).await;
    let mut other = api.stored("secrets", "ns", "s0").expect("stored");
    other["metadata"]["namespace"] = json!("other");
    api.say_on_watches(&json!({"type": "ADDED", "object": other}));
    settle().await;
    assert_eq!(
        read(&access, "s0").await.source(),
        Source::Api,
        "the connection is given up"
    );
    held(&access, &secret("s0"), seconds(5)).await;
    let elsewhere = kube_secret_access::SecretRef::new("other", "s0").expect("valid");
    let read = access.read(&elsewhere, Want::default()).await;
    assert!(matches!(read, Err(ReadError::NotFound { .. })), "{read:?}");
}
