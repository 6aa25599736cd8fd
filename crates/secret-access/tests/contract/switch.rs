//! Changing the mode while reads go on.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::Request;
use kube::client::Body;
use kube_secret_access::{AccessOptions, Mode, SecretAccess, Source, Switch, Want};
use testkit::fake_api::{FakeApi, FakeService, RequestMatch};
use tower::Service;

use crate::access::{Recorder, seconds, secret, settle};

fn switch(api: &FakeApi, mode: Mode) -> (Arc<Switch>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let mut options = AccessOptions::for_mode(mode);
    options.auto.watch = false;
    let switch = Switch::with_probe(api.client(), options, recorder.clone());
    (Arc::new(switch.expect("valid options")), recorder)
}

#[tokio::test(start_paused = true)]
async fn takes_effect_for_the_next_read_and_is_told() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let (switch, recorder) = switch(&api, Mode::Lru);
    let s = secret("s");
    for (mode, second_read) in [
        (Mode::Lru, Source::Cache),
        (Mode::Direct, Source::Api),
        (Mode::Auto, Source::Cache),
        (Mode::Direct, Source::Api),
    ] {
        let mut options = AccessOptions::for_mode(mode);
        options.auto.watch = false;
        switch.set(options).expect("valid options");
        assert_eq!(switch.mode(), mode);
        switch.read(&s, Want::default()).await.expect("readable");
        assert_eq!(
            switch.read(&s, Want::default()).await.expect("readable").source(),
            second_read,
            "{mode}"
        );
    }
    assert_eq!(
        recorder.told().switched,
        [
            (Mode::Lru, Mode::Direct),
            (Mode::Direct, Mode::Auto),
            (Mode::Auto, Mode::Direct)
        ],
        "setting what is in force is no change"
    );
}

#[tokio::test(start_paused = true)]
async fn invalid_options_change_nothing() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let (switch, recorder) = switch(&api, Mode::Lru);
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    let mut bad = AccessOptions::for_mode(Mode::Direct);
    bad.lru.max_age = seconds(0);
    assert_eq!(switch.set(bad).expect_err("out of range").field(), "lru.max_age");
    assert_eq!(switch.mode(), Mode::Lru);
    assert_eq!(switch.options().mode, Mode::Lru);
    let again = switch.read(&secret("s"), Want::default()).await.expect("readable");
    assert_eq!(again.source(), Source::Cache, "the cache is kept");
    assert!(recorder.told().switched.is_empty());
}

#[tokio::test(start_paused = true)]
async fn reads_in_progress_end_where_they_began() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    for from in Mode::ALL {
        for to in Mode::ALL {
            let (switch, _) = switch(&api, from);
            let gate = api.hold(RequestMatch::any());
            let reads: Vec<_> = (0..10)
                .map(|_| {
                    let switch = Arc::clone(&switch);
                    tokio::spawn(async move { switch.read(&secret("s"), Want::default()).await })
                })
                .collect();
            settle().await;
            let mut options = AccessOptions::for_mode(to);
            // Another bound as well, so that nothing at all is shared with the new mode.
            options.fetch.max_in_flight = 5;
            switch.set(options).expect("valid options");
            gate.open();
            for read in reads {
                assert!(read.await.expect("no panic").is_ok(), "{from} to {to}");
            }
            api.clear_faults();
        }
    }
}

/// The new mode joins a request that was sent before a newer version was returned: refused, and asked again.
#[tokio::test(start_paused = true)]
async fn an_answer_older_than_what_was_returned_is_refused() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let (switch, recorder) = switch(&api, Mode::Lru);
    let s = secret("s");
    let read = |switch: &Arc<Switch>| {
        let switch = Arc::clone(switch);
        tokio::spawn(async move {
            let snapshot = switch.read(&secret("s"), Want::default()).await.expect("readable");
            snapshot.resource_version()
        })
    };
    // The first read's answer is computed and held back.
    let gate = api.hold_answers(RequestMatch::any());
    let slow = read(&switch);
    gate.wait_for(1).await;
    api.clear_faults();
    let newer = api.put_secret("ns", "s", &[("k", b"2")]).resource_version;
    // Another mode reads the newer version meanwhile.
    let mut other = AccessOptions::for_mode(Mode::Direct);
    switch.set(other.clone()).expect("valid options");
    assert_eq!(read(&switch).await.expect("no panic").number(), newer);
    // Back in a mode that joins requests already sent.
    other.mode = Mode::Lru;
    switch.set(other).expect("valid options");
    let joining = read(&switch);
    settle().await;
    gate.open();
    assert!(slow.await.expect("no panic").number() < newer, "it began before");
    assert_eq!(joining.await.expect("no panic").number(), newer);
    assert_eq!(
        switch
            .read(&s, Want::default())
            .await
            .expect("readable")
            .resource_version()
            .number(),
        newer
    );
    assert_eq!(recorder.told().rewound, 0);
}

/// A server that can be replaced by another one behind the same address.
#[derive(Clone)]
struct Replaceable(Arc<Mutex<FakeService>>);

impl Service<Request<Body>> for Replaceable {
    type Response = <FakeService as Service<Request<Body>>>::Response;
    type Error = <FakeService as Service<Request<Body>>>::Error;
    type Future = <FakeService as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.lock().expect("no panic while locked").call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_restored_from_a_backup_is_believed() {
    for mode in Mode::ALL {
        let lost = FakeApi::new();
        lost.advance(1000);
        for name in ["s", "other"] {
            lost.put_secret("ns", name, &[("k", b"lost")]);
        }
        let service = Replaceable(Arc::new(Mutex::new(lost.service())));
        let client = kube::Client::new(service.clone(), "default");
        let recorder = Arc::new(Recorder::default());
        let switch = Switch::with_probe(client, AccessOptions::for_mode(mode), recorder.clone()).expect("valid");
        let value = async |name| {
            let snapshot = switch.read(&secret(name), Want::default()).await.expect("readable");
            let value = snapshot.bytes("k").and_then(|bytes| bytes.as_str()).map(str::to_owned);
            value.expect("text")
        };
        assert_eq!(value("s").await, "lost");
        tokio::time::advance(seconds(50)).await;
        assert_eq!(value("other").await, "lost");

        let restored = FakeApi::new();
        for name in ["s", "other"] {
            restored.put_secret("ns", name, &[("k", b"restored")]);
        }
        *service.0.lock().expect("no panic while locked") = restored.service();
        tokio::time::advance(seconds(11)).await;
        assert_eq!(value("s").await, "restored", "{mode}: its age is over");
        assert_eq!(recorder.told().rewound, 1, "{mode}");
        assert_eq!(
            value("other").await,
            "restored",
            "{mode}: not from the cache of the lost history"
        );
        assert_eq!(value("s").await, "restored", "{mode}");
        restored.put_secret("ns", "s", &[("k", b"later")]);
        tokio::time::advance(seconds(61)).await;
        assert_eq!(value("s").await, "later", "{mode}");
        assert_eq!(recorder.told().rewound, 1, "{mode}: told once");
    }
}
