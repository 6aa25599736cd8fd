//! Who shares a request with whom, and what becomes of it when readers leave.

use std::sync::Arc;
use std::time::Duration;

use kube_secret_access::{AccessOptions, ReadResult, SecretAccess, Switch, Want};
use testkit::fake_api::{FakeApi, RequestMatch};
use tokio::task::JoinHandle;

use crate::access::{Kind, Recorder, seconds, secret, settle};

fn spawn(access: &Arc<Switch>, name: &str) -> JoinHandle<ReadResult> {
    let (access, secret) = (Arc::clone(access), secret(name));
    tokio::spawn(async move { access.read(&secret, Want::default()).await })
}

async fn value(read: JoinHandle<ReadResult>) -> String {
    let snapshot = read.await.expect("no panic").expect("readable");
    let value = snapshot.bytes("k").and_then(|bytes| bytes.as_str()).expect("text");
    value.to_owned()
}

#[tokio::test(start_paused = true)]
async fn readers_at_once_share_one_request_or_at_most_two_at_a_time() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let gate = api.hold(RequestMatch::verb("get"));
        let recorder = Arc::new(Recorder::default());
        let access = kind.probed(&api, AccessOptions::default(), recorder.clone());
        let reads: Vec<_> = (0..200).map(|_| spawn(&access, "s")).collect();
        settle().await;
        assert_eq!(api.count("get", "secrets"), 1, "{kind:?}");
        gate.open();
        for read in reads {
            assert_eq!(value(read).await, "1");
        }
        // Direct: the first reader's, and one for the 199 that came while it was on its way.
        let expected = if kind.caches() { 1 } else { 2 };
        assert_eq!(api.count("get", "secrets"), expected, "{kind:?}");
        assert_eq!(recorder.told().joined, 200 - expected, "{kind:?}");
    }
}

/// A request that takes long does not hold up those who may not join it.
#[tokio::test(start_paused = true)]
async fn a_second_request_is_sent_beside_one_that_takes_long_and_a_third_is_not() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let first = api.hold(RequestMatch::verb("get"));
        let access = kind.access(&api, AccessOptions::default());
        let read = |want: Want| {
            let access = Arc::clone(&access);
            tokio::spawn(async move { access.read(&secret("s"), want).await })
        };
        let slow = read(Want::quorum());
        first.wait_for(1).await;
        let second: Vec<_> = (0..20).map(|_| read(Want::quorum())).collect();
        settle().await;
        assert_eq!(api.count("get", "secrets"), 1, "{kind:?}: readers gather at first");
        tokio::time::advance(Duration::from_millis(101)).await;
        settle().await;
        assert_eq!(api.count("get", "secrets"), 2, "{kind:?}");
        let third: Vec<_> = (0..20).map(|_| read(Want::quorum())).collect();
        tokio::time::advance(seconds(1)).await;
        settle().await;
        assert_eq!(api.count("get", "secrets"), 2, "{kind:?}: two are the most");
        first.open();
        for read in [slow].into_iter().chain(second).chain(third) {
            assert_eq!(value(read).await, "1");
        }
        assert_eq!(api.count("get", "secrets"), 3, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_direct_reader_never_joins_a_request_already_sent() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let gate = api.hold_answers(RequestMatch::verb("get"));
        let access = kind.access(&api, AccessOptions::default());
        let first = spawn(&access, "s");
        gate.wait_for(1).await;
        // The server has read the store for the first reader. This write is committed before the second one begins.
        api.put_secret("ns", "s", &[("k", b"2")]);
        let second = spawn(&access, "s");
        settle().await;
        gate.open();
        assert_eq!(value(first).await, "1", "{kind:?}");
        let expected = if kind.caches() { ("1", 1) } else { ("2", 2) };
        assert_eq!(
            (value(second).await.as_str(), api.count("get", "secrets")),
            expected,
            "{kind:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_survives_the_reader_that_began_it() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let gate = api.hold(RequestMatch::verb("get"));
        let access = kind.access(&api, AccessOptions::default());
        let first = spawn(&access, "s");
        gate.wait_for(1).await;
        let second = spawn(&access, "s");
        settle().await;
        first.abort();
        settle().await;
        assert_eq!(api.cancelled(), 0, "{kind:?}: still on its way");
        gate.open();
        assert_eq!(value(second).await, "1", "{kind:?}");
        assert_eq!(
            api.count("get", "secrets"),
            if kind.caches() { 1 } else { 2 },
            "{kind:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_waits_for_is_still_cached() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let gate = api.hold(RequestMatch::verb("get"));
        let access = kind.access(&api, AccessOptions::default());
        let only = spawn(&access, "s");
        gate.wait_for(1).await;
        only.abort();
        assert!(only.await.expect_err("aborted").is_cancelled());
        gate.open();
        settle().await;
        assert_eq!(value(spawn(&access, "s")).await, "1");
        assert_eq!(api.count("get", "secrets"), 1, "{kind:?}");
    }
}

/// Readers that wait to send leave nothing behind when they are cancelled, in whatever order.
#[tokio::test(start_paused = true)]
async fn readers_cancelled_while_they_wait_their_turn_block_nobody() {
    for kind in Kind::all() {
        for survivor in [0, 4, 9] {
            let api = FakeApi::new();
            for name in ["busy", "s"] {
                api.put_secret("ns", name, &[("k", b"1")]);
            }
            let gate = api.hold(RequestMatch::verb("get").named("ns", "busy"));
            let mut options = AccessOptions::default();
            options.fetch.max_in_flight = 1;
            let access = kind.access(&api, options);
            let busy = spawn(&access, "busy");
            gate.wait_for(1).await;
            let mut waiting: Vec<_> = (0..10).map(|_| spawn(&access, "s")).collect();
            settle().await;
            let survivor = waiting.remove(survivor);
            for read in &waiting {
                read.abort();
            }
            settle().await;
            gate.open();
            assert_eq!(value(survivor).await, "1", "{kind:?}");
            assert_eq!(value(busy).await, "1", "{kind:?}");
            assert_eq!(api.count("get", "secrets"), 2, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_over_all_secrets() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        for number in 0..100 {
            api.put_secret("ns", &format!("s{number}"), &[("k", b"1")]);
        }
        let gate = api.hold(RequestMatch::verb("get"));
        let mut options = AccessOptions::default();
        options.fetch.max_in_flight = 4;
        let access = kind.access(&api, options);
        let reads: Vec<_> = (0..100).map(|number| spawn(&access, &format!("s{number}"))).collect();
        settle().await;
        assert_eq!(api.in_flight(), 4, "{kind:?}");
        gate.open();
        for read in reads {
            assert_eq!(value(read).await, "1");
        }
        // A watch that is denied may be on its way beside them.
        let denied = usize::from([Kind::WatchDenied, Kind::AutoDenied].contains(&kind));
        assert!((4..=4 + denied).contains(&api.peak_in_flight()), "{kind:?}");
        assert_eq!(api.count("get", "secrets"), 100, "{kind:?}");
    }
}

/// The same on several threads and with the real clock: no lost wake-up, no request too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_on_many_threads() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        for number in 0..20 {
            api.put_secret("ns", &format!("s{number}"), &[("k", b"1")]);
        }
        let mut options = AccessOptions::default();
        options.fetch.max_in_flight = 3;
        let access = kind.access(&api, options);
        let reads: Vec<_> = (0..2000).map(|n| spawn(&access, &format!("s{}", n % 20))).collect();
        for read in reads {
            let read = tokio::time::timeout(seconds(30), value(read)).await;
            assert_eq!(read.expect("no reader is forgotten"), "1", "{kind:?}");
        }
        let denied = usize::from([Kind::WatchDenied, Kind::AutoDenied].contains(&kind));
        assert!(api.peak_in_flight() <= 3 + denied, "{kind:?}");
        if kind.caches() {
            assert_eq!(api.count("get", "secrets"), 20, "{kind:?}: one request each");
        }
    }
}

/// What one identity read is not there for another, even where both ask the same API server for the same Secret.
#[tokio::test(start_paused = true)]
async fn two_accesses_share_nothing() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let (one, other) = (
            kind.access(&api, AccessOptions::default()),
            kind.access(&api, AccessOptions::default()),
        );
        one.read(&secret("s"), Want::default()).await.expect("readable");
        let held = other.read(&secret("s"), Want::cached()).await;
        assert!(held.is_err(), "{kind:?}: {held:?}");
        let gate = api.hold(RequestMatch::verb("get"));
        let reads = [spawn(&one, "t"), spawn(&other, "t")];
        gate.wait_for(2).await;
        gate.open();
        for read in reads {
            read.await.expect("no panic").expect_err("there is none");
        }
        assert_eq!(
            api.count("get", "secrets"),
            3,
            "{kind:?}: one of the first, and one of each"
        );
    }
}
