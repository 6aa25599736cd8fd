//! What a read returns.

use std::sync::Arc;

use kube_secret_access::{AccessOptions, ReadError, SecretAccess, SecretBytes, SecretSnapshot, Source, Want};
use serde_json::json;
use testkit::fake_api::FakeApi;

use crate::access::{Kind, Recorder, seconds, secret};

fn value(snapshot: &SecretSnapshot, key: &str) -> Option<String> {
    snapshot.bytes(key).and_then(SecretBytes::as_str).map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn the_secret_as_stored_without_its_copies() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let stored = api.put(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
            "metadata": {
                "namespace": "ns", "name": "s",
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":\"copy\"}",
                    "serving.kserve.io/s3-region": "eu",
                },
                "managedFields": [{"manager": "kubectl"}],
            },
            "data": {"username": "bWU=", "password": "c2VjcmV0"},
        }));
        let access = kind.access(&api, AccessOptions::default());
        let snapshot = access.read(&secret("s"), Want::default()).await.expect("readable");
        assert_eq!(snapshot.secret(), &secret("s"));
        assert_eq!(snapshot.uid(), stored.uid);
        assert_eq!(snapshot.resource_version().number(), stored.resource_version);
        assert_eq!(snapshot.type_(), "kubernetes.io/basic-auth");
        assert_eq!(
            snapshot.annotations().collect::<Vec<_>>(),
            [("serving.kserve.io/s3-region", "eu")]
        );
        assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["password", "username"]);
        assert_eq!(value(&snapshot, "password").as_deref(), Some("secret"));
        assert_eq!(snapshot.source(), Source::Api);

        // One quorum read by name and nothing else.
        let requests = api.requests();
        let requests: Vec<_> = requests.iter().filter(|request| request.verb == "get").collect();
        let uris: Vec<_> = requests.iter().map(|request| request.uri.as_str()).collect();
        assert_eq!(uris, ["/api/v1/namespaces/ns/secrets/s"], "{kind:?}");
        let accepted = requests[0].headers["accept"].to_str().expect("text");
        assert!(accepted.starts_with("application/vnd.kubernetes.protobuf, application/json"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_read_sees_the_last_write_within_the_modes_age() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let recorder = Arc::new(Recorder::default());
        let access = kind.probed(&api, AccessOptions::default(), recorder.clone());
        let s = secret("s");
        let first = access.read(&s, Want::default()).await.expect("readable");
        api.put_secret("ns", "s", &[("k", b"2")]);

        tokio::time::advance(seconds(60)).await;
        let second = access.read(&s, Want::default()).await.expect("readable");
        let expected = if kind.caches() { "1" } else { "2" };
        assert_eq!(value(&second, "k").as_deref(), Some(expected), "{kind:?}");
        assert_eq!(second.source(), if kind.caches() { Source::Cache } else { Source::Api });
        if kind.caches() {
            assert_eq!(second.validated_at(), first.validated_at());
        }

        tokio::time::advance(seconds(1)).await;
        let third = access.read(&s, Want::default()).await.expect("readable");
        assert_eq!(value(&third, "k").as_deref(), Some("2"), "{kind:?}");
        assert!(third.resource_version() > first.resource_version());

        let told = recorder.told();
        let sources: Vec<_> = told.reads.iter().map(|read| read.source).collect();
        let from_cache = sources.iter().filter(|source| **source == Source::Cache).count();
        assert_eq!(from_cache, usize::from(kind.caches()), "{kind:?}");
        assert!(
            told.reads
                .iter()
                .all(|read| read.mode == kind.mode() && read.result() == "found")
        );
        assert_eq!(told.requests.len(), 3 - from_cache);
    }
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_believed_for_seconds_at_most() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        for _ in 0..5 {
            let error = access.read(&s, Want::default()).await.expect_err("not there");
            assert_eq!(error, ReadError::NotFound { secret: s.clone() });
        }
        assert_eq!(
            api.count("get", "secrets"),
            if kind.caches() { 1 } else { 5 },
            "{kind:?}"
        );
        api.put_secret("ns", "s", &[("k", b"1")]);
        tokio::time::advance(seconds(3)).await;
        assert!(access.read(&s, Want::default()).await.is_ok(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_and_created_anew_is_noticed() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let access = kind.access(&api, AccessOptions::default());
        let s = secret("s");
        let before = access.read(&s, Want::default()).await.expect("readable");
        api.delete_secret("ns", "s");
        api.put_secret("ns", "s", &[("k", b"1")]);
        tokio::time::advance(seconds(61)).await;
        let after = access.read(&s, Want::default()).await.expect("readable");
        assert_ne!(before.uid(), after.uid(), "{kind:?}");
        assert!(after.resource_version() > before.resource_version());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_elses_secret_is_ever_asked_for() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        for number in 0..50 {
            api.put_secret("ns", &format!("unrelated-{number}"), &[("k", b"x")]);
        }
        api.put_secret("ns", "s", &[("k", b"1")]);
        let access = kind.access(&api, AccessOptions::default());
        access.read(&secret("s"), Want::default()).await.expect("readable");
        tokio::time::advance(seconds(600)).await;
        access.read(&secret("s"), Want::default()).await.expect("readable");
        assert_eq!(api.count("get", "secrets"), 2, "{kind:?}");
        if ![Kind::WatchDenied, Kind::AutoDenied].contains(&kind) {
            assert_eq!(api.count("list", "secrets") + api.count("watch", "secrets"), 0);
        }
    }
}
