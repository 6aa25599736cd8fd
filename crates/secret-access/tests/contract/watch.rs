//! What only the mode `watch` does: it holds a selection, keeps it current, and knows when it cannot.

mod faults;

use std::sync::Arc;
use std::time::Duration;

use kube_secret_access::{
    AccessOptions, Mode, Purge, ReadError, Reason, ResourceVersion, SecretAccess, SecretRef, SecretSnapshot, Source,
    Switch, TypeSelector, Want,
};
use serde_json::json;
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};
use tokio::time::{Instant, sleep};

use crate::access::{Recorder, seconds, secret, settle};

fn options() -> AccessOptions {
    let mut options = AccessOptions::for_mode(Mode::Watch);
    options.fetch.retry.max_retries = 0;
    options
}

fn watching(api: &FakeApi, options: AccessOptions) -> (Arc<Switch>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let access = Switch::with_probe(api.client(), options, recorder.clone()).expect("valid options");
    (Arc::new(access), recorder)
}

async fn read(access: &Switch, name: &str) -> Arc<SecretSnapshot> {
    access.read(&secret(name), Want::default()).await.expect("readable")
}

/// Reads until the answer comes from the watch. Says how much time that took.
async fn held(access: &Switch, secret: &SecretRef, patience: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let read = access.read(secret, Want::default()).await;
        if read.is_ok_and(|read| read.source() == Source::Watch) {
            return began.elapsed();
        }
        assert!(began.elapsed() < patience, "{secret} is not held after {patience:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Holds all Secrets `s0`, `s1`, ... of a fake API server, with a watch opened 5 s ago.
async fn watched(secrets: usize, options: AccessOptions) -> (FakeApi, Arc<Switch>, Arc<Recorder>) {
    let api = api_with(secrets, 10);
    let (access, recorder) = watching(&api, options);
    held(&access, &secret("s0"), seconds(1)).await;
    // What was read before the watch answered is not held beside it any more.
    sleep(seconds(605)).await;
    api.forget_requests();
    (api, access, recorder)
}

fn api_with(secrets: usize, bytes: usize) -> FakeApi {
    let api = FakeApi::new();
    for number in 0..secrets {
        put(&api, number, bytes);
    }
    api
}

fn put(api: &FakeApi, number: usize, bytes: usize) -> ResourceVersion {
    let written = api.put_secret("ns", &format!("s{number}"), &[("k", &vec![b'x'; bytes])]);
    ResourceVersion::new(written.resource_version)
}

/// Requests that list everything: streamed ones and pages. A page of one object only asks how far the cluster has come.
fn lists(api: &FakeApi) -> usize {
    let requests = api.requests();
    let lists = requests.iter().filter(|request| match request.verb.as_str() {
        "list" => request.query("limit").as_deref() != Some("1"),
        "watch" => request.query("sendInitialEvents").is_some(),
        _ => false,
    });
    lists.count()
}

fn streamed_lists() -> RequestMatch {
    RequestMatch::verb("watch").with_resource_version(false)
}

fn watches() -> RequestMatch {
    RequestMatch::verb("watch").with_resource_version(true)
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_read_without_requests_and_kept_current() {
    let (api, access, _) = watched(3, options()).await;
    for name in ["s0", "s1", "s2"] {
        assert_eq!(read(&access, name).await.source(), Source::Watch);
    }
    let written = put(&api, 1, 20);
    let created = put(&api, 3, 20);
    settle().await;
    for (name, version) in [("s1", written), ("s3", created)] {
        let read = read(&access, name).await;
        assert_eq!((read.resource_version(), read.source()), (version, Source::Watch));
        assert_eq!(read.bytes("k").map(|bytes| bytes.as_slice().len()), Some(20));
    }
    // For hours: watches are renewed, and nothing else is asked for.
    for _ in 0..100 {
        sleep(seconds(60)).await;
        assert_eq!(read(&access, "s0").await.source(), Source::Watch);
    }
    assert_eq!(
        (api.count("get", "secrets"), lists(&api), api.open_watches()),
        (0, 0, 1)
    );
    let renewals = api.count("watch", "secrets");
    assert!((190..=210).contains(&renewals), "one in 30 s: {renewals}");
    drop(access);
    settle().await;
    assert_eq!(api.open_watches(), 0, "it ends with the access");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    for code in [422, 400] {
        let api = api_with(5, 10);
        api.inject(streamed_lists(), Times::Always, Fault::status(code));
        let mut options = options();
        options.watch.page_size = 2;
        let (access, _) = watching(&api, options);
        for number in 0..5 {
            held(&access, &secret(&format!("s{number}")), seconds(1)).await;
        }
        assert_eq!(api.count("list", "secrets"), 3);
        for request in api.requests().iter().filter(|request| request.verb == "list") {
            assert_eq!(request.query("limit").as_deref(), Some("2"));
            assert_eq!(request.query("resourceVersion"), None, "a quorum list");
        }
        let written = put(&api, 4, 20);
        settle().await;
        assert_eq!(read(&access, "s4").await.resource_version(), written);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_selected_is_requested_and_never_missing() {
    let typed = |namespace: &str, name: &str, type_: &str, label: &str| {
        json!({"kind": "Secret", "type": type_,
               "metadata": {"namespace": namespace, "name": name, "labels": {"app": label}}})
    };
    let api = FakeApi::new();
    api.put(typed("ns", "in", "Opaque", "a"));
    api.put(typed("ns", "release", "helm.sh/release.v1", "a"));
    api.put(typed("ns", "label", "Opaque", "b"));
    api.put(typed("other", "in", "Opaque", "a"));
    api.put(typed("third", "in", "Opaque", "a"));
    let mut options = options();
    options.watch.namespaces = vec!["ns".into(), "other".into()];
    options.watch.labels = Some("app=a".into());
    let (access, _) = watching(&api, options.clone());
    let named = |namespace, name| SecretRef::new(namespace, name).expect("valid");
    held(&access, &named("ns", "in"), seconds(1)).await;
    held(&access, &named("other", "in"), seconds(1)).await;
    assert_eq!(api.open_watches(), 2);
    api.forget_requests();
    for (namespace, name) in [("ns", "release"), ("ns", "label"), ("third", "in")] {
        let read = access.read(&named(namespace, name), Want::default()).await;
        assert_eq!(read.expect("readable").source(), Source::Api, "{namespace}/{name}");
    }
    let missing = access.read(&named("ns", "missing"), Want::default()).await;
    assert!(matches!(missing, Err(ReadError::NotFound { .. })));
    assert_eq!(api.count("get", "secrets"), 4);

    // Out of the selection by a label, and back.
    let left = api.put(typed("ns", "in", "Opaque", "b"));
    settle().await;
    let read = access
        .read(&named("ns", "in"), Want::default())
        .await
        .expect("still there");
    assert_eq!(
        (read.source(), read.resource_version().number()),
        (Source::Api, left.resource_version)
    );
    api.put(typed("ns", "in", "Opaque", "a"));
    held(&access, &named("ns", "in"), seconds(1)).await;

    options.watch.types = TypeSelector::Only("helm.sh/release.v1".into());
    access.set(options).expect("valid options");
    held(&access, &named("ns", "release"), seconds(1)).await;
    let read = access.read(&named("other", "in"), Want::default()).await;
    assert_eq!(read.expect("readable").source(), Source::Api);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_secret_is_asked_for_and_a_recreated_one_is_another() {
    let (api, access, _) = watched(2, options()).await;
    let before = read(&access, "s0").await;
    api.delete_secret("ns", "s0");
    settle().await;
    let gone = access.read(&secret("s0"), Want::default()).await;
    assert!(matches!(gone, Err(ReadError::NotFound { .. })), "{gone:?}");
    assert_eq!(api.count("get", "secrets"), 1, "the API server said so");
    put(&api, 0, 10);
    held(&access, &secret("s0"), seconds(10)).await;
    assert_ne!(read(&access, "s0").await.uid(), before.uid());
}

#[tokio::test(start_paused = true)]
async fn a_copy_from_before_the_watch_does_not_outlive_a_deletion() {
    let api = api_with(1, 10);
    let gate = api.hold(streamed_lists());
    let (access, _) = watching(&api, options());
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    assert_eq!(read(&access, "s0").await.source(), Source::Cache, "as in the mode lru");
    gate.open();
    held(&access, &secret("s0"), seconds(1)).await;
    api.delete_secret("ns", "s0");
    settle().await;
    let gone = access.read(&secret("s0"), Want::default()).await;
    assert!(matches!(gone, Err(ReadError::NotFound { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_may_ask_for_more_than_a_watch_promises() {
    let (api, access, _) = watched(1, options()).await;
    let s = secret("s0");
    let version = read(&access, "s0").await.resource_version();
    let source = async |want: Want| access.read(&s, want).await.expect("readable").source();
    assert_eq!(source(Want::cached()).await, Source::Watch);
    assert_eq!(source(Want::at_least(version)).await, Source::Watch);
    assert_eq!(api.count("get", "secrets"), 0);
    assert_ne!(source(Want::quorum()).await, Source::Watch);
    assert_ne!(source(Want::at_most(seconds(3600))).await, Source::Watch);
    assert!(api.count("get", "secrets") > 0);

    // Written, and not told yet.
    api.freeze_watch_cache();
    let written = put(&api, 0, 20);
    assert_eq!(source(Want::default()).await, Source::Watch);
    let newer = access.read(&s, Want::at_least(written)).await.expect("readable");
    assert_eq!(newer.resource_version(), written);
    // Whoever saw that does not go back to what the watch told.
    let read = access.read(&s, Want::default()).await.expect("readable");
    assert_eq!(read.resource_version(), written);
    api.thaw_watch_cache();
    settle().await;
    let read = access.read(&s, Want::default()).await.expect("readable");
    assert_eq!((read.resource_version(), read.source()), (written, Source::Watch));
}

#[tokio::test(start_paused = true)]
async fn without_the_right_reads_are_as_in_lru_until_it_is_granted() {
    let api = api_with(1, 10);
    api.forbid("watch", "secrets");
    let (access, recorder) = watching(&api, options());
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    sleep(seconds(1000)).await;
    read(&access, "s0").await;
    assert_eq!(read(&access, "s0").await.source(), Source::Cache);
    assert_eq!(api.count("watch", "secrets"), 4, "one in 300 s");
    let told = recorder.told().transitions;
    assert_eq!(
        told.iter().map(|told| told.reason).collect::<Vec<_>>(),
        [Reason::WatchDenied]
    );
    assert_eq!((told[0].from, told[0].to), (Mode::Watch, Mode::Lru));

    api.permit("watch", "secrets");
    held(&access, &secret("s0"), seconds(300)).await;
    let told = recorder.told().transitions;
    assert!(matches!(told[1].reason, Reason::Watched { secrets: 1, .. }), "{told:?}");
    assert_eq!((told.len(), told[1].from, told[1].to), (2, Mode::Lru, Mode::Watch));
}

#[tokio::test(start_paused = true)]
async fn a_right_revoked_later_is_noticed_within_a_heartbeat() {
    let (api, access, recorder) = watched(1, options()).await;
    api.forbid("watch", "secrets");
    sleep(seconds(26)).await;
    assert_ne!(read(&access, "s0").await.source(), Source::Watch);
    let cached = access.read(&secret("s0"), Want::cached()).await;
    assert_ne!(
        cached.expect("read a moment ago").source(),
        Source::Watch,
        "nothing is kept"
    );
    assert_eq!(recorder.told().transitions.len(), 1);
    assert_eq!(recorder.told().transitions[0].reason, Reason::WatchDenied);
    api.permit("watch", "secrets");
    held(&access, &secret("s0"), seconds(301)).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_secrets_end_the_watch_in_the_middle_of_the_first_list() {
    for streaming in [true, false] {
        let api = api_with(400, 10_000);
        let mut options = options();
        options.watch.max_secrets = 100;
        options.watch.streaming = streaming;
        let (access, recorder) = watching(&api, options);
        settle().await;
        let told = recorder.told().transitions;
        let reason = Reason::WatchedTooManySecrets { secrets: 101, max: 100 };
        assert_eq!(
            told.iter().map(|told| told.reason).collect::<Vec<_>>(),
            [reason],
            "{streaming}"
        );
        assert_eq!((told[0].from, told[0].to), (Mode::Watch, Mode::Lru));
        if streaming {
            assert!(api.bytes_sent() < 200 * 14_000, "{} bytes", api.bytes_sent());
        }
        assert_eq!(api.open_watches(), 0);
        assert_eq!(read(&access, "s0").await.source(), Source::Api);
        assert_eq!(read(&access, "s0").await.source(), Source::Cache, "as in the mode lru");

        // Looked at again after 5 min, then 10: too close to the bound, then low enough.
        assert_eq!(lists(&api), 1);
        for number in 80..400 {
            api.delete_secret("ns", &format!("s{number}"));
        }
        sleep(seconds(301)).await;
        assert_eq!(lists(&api), 2);
        assert_eq!(recorder.told().transitions.len(), 1, "nothing new");
        for number in 69..80 {
            api.delete_secret("ns", &format!("s{number}"));
        }
        sleep(seconds(580)).await;
        assert_eq!(lists(&api), 2);
        held(&access, &secret("s0"), seconds(30)).await;
        let told = recorder.told().transitions;
        assert!(
            matches!(told[1].reason, Reason::Watched { secrets: 69, .. }),
            "{told:?}"
        );
        assert_eq!((told[1].from, told[1].to), (Mode::Lru, Mode::Watch));

        // It may fill up to the bound and no further.
        for number in 69..100 {
            put(&api, number, 10_000);
        }
        settle().await;
        assert_eq!(read(&access, "s99").await.source(), Source::Watch);
        put(&api, 100, 10_000);
        settle().await;
        assert_eq!(recorder.told().transitions[2].reason, reason);
        assert_ne!(read(&access, "s99").await.source(), Source::Watch);
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_bytes_end_the_watch_too() {
    let api = api_with(50, 10_000);
    let mut options = options();
    options.watch.max_bytes = 100_000;
    let (_access, recorder) = watching(&api, options);
    settle().await;
    let told = recorder.told().transitions;
    let [told] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(
        matches!(
            told.reason,
            Reason::WatchedTooManyBytes {
                bytes: 100_001..115_000,
                max: 100_000
            }
        ),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn memory_asked_back_ends_the_watch_for_a_while() {
    let (api, access, _) = watched(3, options()).await;
    assert_eq!(access.purge(Purge::Idle).entries + access.purge(Purge::Half).entries, 0);
    assert_eq!(read(&access, "s0").await.source(), Source::Watch);
    let purged = access.purge(Purge::All);
    assert!(purged.entries == 3 && purged.bytes > 1000, "{purged:?}");
    settle().await;
    assert_eq!(api.open_watches(), 0);
    assert_eq!(read(&access, "s0").await.source(), Source::Api);
    sleep(seconds(299)).await;
    assert_eq!(lists(&api), 0);
    held(&access, &secret("s0"), seconds(2)).await;
}

#[tokio::test(start_paused = true)]
async fn whenever_it_ends_nothing_stays_behind() {
    for purged in [true, false] {
        for steps in 0..60 {
            let api = api_with(3, 10);
            let (access, _) = watching(&api, options());
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            if purged {
                access.purge(Purge::All);
            } else {
                drop(access);
            }
            settle().await;
            assert_eq!((api.open_watches(), api.in_flight()), (0, 0), "{purged} {steps}");
        }
    }
}
