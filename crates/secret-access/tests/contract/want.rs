//! What a single read may ask for: freshness, fields, a deadline.

use std::time::Duration;

use kube_secret_access::{AccessOptions, ReadError, ResourceVersion, SecretAccess, Source, Want};
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};

use crate::access::{Kind, seconds, secret};

/// The requests for Secrets by name since the last call: `full` or `metadata`, and whether at a version.
fn gets(api: &FakeApi) -> Vec<String> {
    let requests = api.requests();
    api.forget_requests();
    let gets = requests.iter().filter(|request| request.verb == "get");
    gets.map(|request| {
        let what = if request.metadata_only() { "metadata" } else { "full" };
        let version = request.query("resourceVersion").map(|version| format!("@{version}"));
        format!("{what}{}", version.unwrap_or_default())
    })
    .collect()
}

fn put(api: &FakeApi, bytes: usize) -> ResourceVersion {
    let version = api.put_secret("ns", "s", &[("k", &vec![b'x'; bytes]), ("other", b"y")]);
    ResourceVersion::new(version.resource_version)
}

#[tokio::test(start_paused = true)]
async fn a_quorum_sees_the_last_write_in_every_mode() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        access.read(&secret("s"), Want::default()).await.expect("readable");
        let written = put(&api, 100);
        let read = access.read(&secret("s"), Want::quorum()).await.expect("readable");
        assert_eq!(read.resource_version(), written, "{kind:?}");
        api.delete_secret("ns", "s");
        let gone = access.read(&secret("s"), Want::quorum()).await.expect_err("gone");
        assert_eq!(gone, ReadError::NotFound { secret: secret("s") });
    }
}

#[tokio::test(start_paused = true)]
async fn a_big_copy_is_revalidated_by_its_metadata_and_fetched_only_if_it_moved() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        put(&api, 100_000);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        access.read(&s, Want::default()).await.expect("readable");
        assert_eq!(gets(&api), ["full"], "{kind:?}");
        let before = api.bytes_sent();

        // Too old for the mode, but not moved.
        tokio::time::advance(seconds(61)).await;
        let revalidated = access.read(&s, Want::default()).await.expect("readable");
        assert_eq!(revalidated.source(), Source::Revalidated, "{kind:?}");
        assert_eq!(gets(&api), ["metadata"]);
        assert!(api.bytes_sent() - before < 5_000, "{}", api.bytes_sent() - before);
        let validated = revalidated.validated_at().expect("a quorum says when");
        assert!(validated.elapsed() < seconds(1));
        // ... and as good as new from then on.
        tokio::time::advance(seconds(60)).await;
        assert_eq!(
            access.read(&s, Want::default()).await.expect("readable").source(),
            Source::Cache
        );
        assert_eq!(gets(&api), Vec::<String>::new());

        // Moved: the content is asked for at the version that the metadata showed.
        let moved = put(&api, 100_000);
        let read = access.read(&s, Want::quorum()).await.expect("readable");
        assert_eq!((read.resource_version(), read.source()), (moved, Source::Api));
        assert_eq!(gets(&api), ["metadata".to_owned(), format!("full@{moved}")], "{kind:?}");

        // A server that lags behind is asked for a quorum instead.
        api.freeze_watch_cache();
        let moved = put(&api, 100_000);
        let read = access.read(&s, Want::quorum()).await.expect("readable");
        assert_eq!(read.resource_version(), moved, "{kind:?}");
        assert_eq!(
            gets(&api),
            ["metadata".to_owned(), format!("full@{moved}"), "full".to_owned()]
        );
        api.thaw_watch_cache();

        // Gone.
        api.delete_secret("ns", "s");
        let gone = access.read(&s, Want::quorum()).await.expect_err("gone");
        assert_eq!(gone, ReadError::NotFound { secret: s.clone() });
        assert_eq!(gets(&api), ["metadata"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_copy_is_simply_fetched_again() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        access.read(&secret("s"), Want::default()).await.expect("readable");
        access.read(&secret("s"), Want::quorum()).await.expect("readable");
        assert_eq!(gets(&api), ["full", "full"], "{kind:?}");
    }
}

/// Immutable Secrets can be deleted and created again with other data: only the uid tells.
#[tokio::test(start_paused = true)]
async fn a_recreated_immutable_secret_is_noticed() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let object = |value: &str| {
            serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
                "metadata": {"namespace": "ns", "name": "s"}, "data": {"k": value},
            })
        };
        api.put(object(&"b2xk".repeat(2000)));
        let access = kind.access(&api, AccessOptions::default());
        let old = access.read(&secret("s"), Want::default()).await.expect("readable");
        api.delete_secret("ns", "s");
        api.put(object(&"bmV3".repeat(2000)));
        tokio::time::advance(seconds(61)).await;
        let new = access.read(&secret("s"), Want::default()).await.expect("readable");
        assert_ne!(old.uid(), new.uid(), "{kind:?}");
        assert!(new.bytes("k").is_some_and(|bytes| bytes.as_slice().starts_with(b"new")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_age_can_be_shorter_or_longer_than_the_modes() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        access.read(&s, Want::default()).await.expect("readable");
        tokio::time::advance(seconds(5)).await;
        gets(&api);
        access.read(&s, Want::at_most(seconds(5))).await.expect("readable");
        assert_eq!(gets(&api).len(), usize::from(!kind.caches()), "{kind:?}");
        access.read(&s, Want::at_most(seconds(4))).await.expect("readable");
        assert_eq!(gets(&api).len(), 1, "{kind:?}");
        tokio::time::advance(seconds(100)).await;
        access.read(&s, Want::at_most(seconds(200))).await.expect("readable");
        assert_eq!(gets(&api).len(), usize::from(!kind.caches()), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_least_a_version_is_answered_from_memory_or_from_the_watch_cache() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let first = put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        // Nothing held.
        let read = access.read(&s, Want::at_least(first)).await.expect("readable");
        assert_eq!(gets(&api), [format!("full@{first}")], "{kind:?}");
        assert!(read.resource_version() >= first);
        assert_eq!(read.validated_at(), None, "a version says nothing about time");
        // Held, and new enough.
        access.read(&s, Want::default()).await.expect("readable");
        gets(&api);
        tokio::time::advance(seconds(200)).await;
        let read = access.read(&s, Want::at_least(first)).await.expect("readable");
        let expected = if kind.caches() { Source::Cache } else { Source::Api };
        assert_eq!(read.source(), expected, "{kind:?}");
        gets(&api);
        // Held, and too old.
        let second = put(&api, 100);
        let read = access.read(&s, Want::at_least(second)).await.expect("readable");
        assert_eq!(read.resource_version(), second);
        assert_eq!(gets(&api), [format!("full@{second}")], "{kind:?}");
        // A server that has not got there answers 504 after a while; a quorum knows.
        api.freeze_watch_cache();
        let third = put(&api, 100);
        let read = access.read(&s, Want::at_least(third)).await.expect("readable");
        assert_eq!(read.resource_version(), third);
        assert_eq!(gets(&api), [format!("full@{third}"), "full".to_owned()], "{kind:?}");
    }
}

/// A 404 at an old version proves nothing: the Secret may have been created since.
#[tokio::test(start_paused = true)]
async fn an_absence_at_a_version_does_not_hide_what_was_seen() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "other", &[("k", b"1")]);
        let before = ResourceVersion::new(api.revision());
        api.freeze_watch_cache();
        let version = put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        access.read(&s, Want::quorum()).await.expect("readable");
        // The watch cache has `before` and no such Secret.
        let read = access.read(&s, Want::at_least(before)).await.expect("seen, so there");
        assert!(read.resource_version() >= version, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn cached_only_never_asks() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        put(&api, 100);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        let error = access.read(&s, Want::cached()).await.expect_err("nothing is held");
        assert_eq!(error, ReadError::NotCached { secret: s.clone() });
        assert_eq!(gets(&api).len(), 0);
        access.read(&s, Want::default()).await.expect("readable");
        tokio::time::advance(seconds(120)).await;
        gets(&api);
        let read = access.read(&s, Want::cached()).await;
        assert_eq!(read.is_ok(), kind.caches(), "{kind:?}: whatever its age");
        assert_eq!(gets(&api).len(), 0, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_wanted_fields_are_kept_and_more_are_fetched_when_asked_for() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put(serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"namespace": "ns", "name": "s", "annotations": {"a": "1", "b": "2"}},
            "data": {"k": "eA==", "other": "eQ=="},
        }));
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        let some = Want::default().keys(["k", "missing"]).annotations(["b"]);
        let read = access.read(&s, some.clone()).await.expect("readable");
        assert_eq!(read.keys().collect::<Vec<_>>(), ["k"], "{kind:?}");
        assert_eq!(read.annotations().collect::<Vec<_>>(), [("b", "2")]);
        gets(&api);
        access.read(&s, some).await.expect("readable");
        assert_eq!(gets(&api).len(), usize::from(!kind.caches()), "{kind:?}");
        // The copy lacks a key: fetched with what both readers want, and held for both.
        let read = access
            .read(&s, Want::default().keys(["other"]))
            .await
            .expect("readable");
        assert!(read.bytes("other").is_some());
        assert_eq!(gets(&api), ["full"], "{kind:?}");
        for key in ["k", "other"] {
            let read = access.read(&s, Want::default().keys([key])).await.expect("readable");
            assert!(read.bytes(key).is_some(), "{kind:?}");
        }
        assert_eq!(gets(&api).len(), if kind.caches() { 0 } else { 2 }, "{kind:?}");
        let read = access.read(&s, Want::default()).await.expect("readable");
        assert_eq!((read.keys().len(), read.annotations().len()), (2, 2), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_may_be_in_a_hurry() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        put(&api, 100);
        api.inject(RequestMatch::verb("get"), Times::Always, Fault::Hang);
        let access = kind.access(&api, AccessOptions::default());
        let began = tokio::time::Instant::now();
        let hurry = Duration::from_millis(1500);
        let error = access
            .read(&secret("s"), Want::default().within(hurry))
            .await
            .expect_err("nobody answers");
        assert!(matches!(error, ReadError::Timeout { deadline, .. } if deadline == hurry));
        assert_eq!(began.elapsed(), hurry, "{kind:?}");
        // The mode's own deadline is the most there is.
        let began = tokio::time::Instant::now();
        let patient = Want::quorum().within(seconds(1000));
        access.read(&secret("s"), patient).await.expect_err("nobody answers");
        assert_eq!(began.elapsed(), seconds(10), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_content_is_served_only_where_that_is_allowed_and_only_for_so_long() {
    for kind in Kind::all() {
        for tolerance in [0, 100] {
            let api = FakeApi::new();
            put(&api, 100);
            let mut options = AccessOptions::default();
            options.lru.stale_if_unavailable = seconds(tolerance);
            let access = kind.access(&api, options);
            let s = secret("s");
            let first = access.read(&s, Want::default()).await.expect("readable");
            api.inject(RequestMatch::verb("get"), Times::Always, Fault::status(503));
            tokio::time::advance(seconds(100)).await;
            let read = access.read(&s, Want::default()).await;
            let tolerated = kind.caches() && tolerance > 0;
            assert_eq!(read.is_ok(), tolerated, "{kind:?} {tolerance}");
            if let Ok(read) = read {
                assert_eq!(read.source(), Source::Stale);
                assert_eq!(read.validated_at(), first.validated_at());
            }
            // Whoever says how fresh it has to be does not get less.
            for want in [Want::quorum(), Want::at_most(seconds(60))] {
                access.read(&s, want).await.expect_err("unavailable");
            }
            tokio::time::advance(seconds(61)).await;
            access
                .read(&s, Want::default())
                .await
                .expect_err("too old even for that");
            // An answer about the Secret is no outage.
            api.clear_faults();
            api.inject(RequestMatch::verb("get"), Times::Always, Fault::status(403));
            access.read(&s, Want::default()).await.expect_err("forbidden");
        }
    }
}
