//! What is tried again within a read, and how often.

use std::time::Duration;

use kube_secret_access::{AccessOptions, ReadError, SecretAccess, Want};
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};

use crate::access::{Kind, seconds, secret};

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_is_not_noticed_by_the_reader() {
    for kind in Kind::all() {
        for fault in [Fault::status(500), Fault::status(503), Fault::status(429), Fault::Close] {
            let api = FakeApi::new();
            api.put_secret("ns", "s", &[("k", b"1")]);
            api.inject(RequestMatch::verb("get"), Times::N(2), fault.clone());
            let access = kind.access(&api, AccessOptions::default());
            let began = tokio::time::Instant::now();
            let read = access.read(&secret("s"), Want::default()).await;
            assert!(read.is_ok(), "{kind:?} {fault:?}: {read:?}");
            assert_eq!(api.count("get", "secrets"), 3, "{kind:?} {fault:?}");
            assert!(
                began.elapsed() <= Duration::from_millis(300),
                "100 ms and 200 ms at most"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_wait_is_kept_or_passed_on() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let access = kind.access(&api, AccessOptions::default());
        let throttled = |wait: &str| Fault::status(429).header("retry-after", wait);
        api.inject(RequestMatch::verb("get"), Times::N(1), throttled("3"));
        let began = tokio::time::Instant::now();
        access.read(&secret("s"), Want::quorum()).await.expect("worth the wait");
        assert!(began.elapsed() >= seconds(3), "{kind:?}");

        api.forget_requests();
        api.inject(RequestMatch::verb("get"), Times::N(1), throttled("30"));
        let began = tokio::time::Instant::now();
        let error = access.read(&secret("s"), Want::quorum()).await.expect_err("too long");
        assert!(matches!(error, ReadError::Throttled { retry_after: Some(wait), .. } if wait == seconds(30)));
        assert_eq!(began.elapsed(), seconds(0), "{kind:?}: said at once");
        assert_eq!(api.count("get", "secrets"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_few_requests_more_than_there_are_reads() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.inject(RequestMatch::verb("get"), Times::Always, Fault::status(503));
        let access = kind.access(&api, AccessOptions::default());
        for _ in 0..500 {
            access.read(&secret("s"), Want::quorum()).await.expect_err("an outage");
        }
        let requests = api.count("get", "secrets");
        // Ten saved up, and one for ten requests.
        assert!((500..=500 + 10 + 50).contains(&requests), "{kind:?}: {requests}");
    }
}
