//! Faults, and what they are reported as.

use std::io;

use kube_secret_access::{ReadError, Retry, SecretAccess, UnavailableCause, Want};
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};
use tokio::time::Instant;

use crate::access::{Kind, seconds, secret, without_retries};

const MALFORMED_BASE64: &str = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"namespace":"ns","name":"s","uid":"u","resourceVersion":"9"},"data":{"k":"not base64!"}}"#;

fn unavailable(cause: UnavailableCause, retry_after: Option<u64>) -> ReadError {
    ReadError::Unavailable {
        secret: secret("s"),
        cause,
        retry_after: retry_after.map(seconds),
    }
}

fn throttled(retry_after: Option<u64>) -> ReadError {
    ReadError::Throttled {
        secret: secret("s"),
        retry_after: retry_after.map(seconds),
    }
}

fn malformed(problem: &'static str) -> ReadError {
    ReadError::Malformed {
        secret: secret("s"),
        problem,
    }
}

/// Each fault, what it is reported as, and how many seconds that takes.
fn faults() -> Vec<(Fault, ReadError, u64)> {
    let s = || secret("s");
    let status = UnavailableCause::Status;
    let timeout = || ReadError::Timeout {
        secret: s(),
        deadline: seconds(10),
    };
    let too_large = || ReadError::TooLarge {
        secret: s(),
        limit: 4 * 1024 * 1024,
    };
    let oversized = |declared| Fault::Oversized {
        bytes: 10_000_000,
        declared,
    };
    let asking = |seconds: &str| Fault::status(429).header("retry-after", seconds);
    let broken = UnavailableCause::Connection(Some(io::ErrorKind::ConnectionReset));
    vec![
        (Fault::status(401), ReadError::Unauthorized { secret: s() }, 0),
        (Fault::status(403), ReadError::Forbidden { secret: s() }, 0),
        (Fault::status(429), throttled(None), 0),
        (asking("7"), throttled(Some(7)), 0),
        (asking("0"), throttled(Some(0)), 0),
        (asking("soon"), throttled(None), 0),
        (asking("-1"), throttled(None), 0),
        (asking("1.5"), throttled(None), 0),
        (asking(""), throttled(None), 0),
        (asking("Wed, 21 Oct 2026 07:28:00 GMT"), throttled(None), 0),
        (asking("86400"), throttled(Some(60)), 0),
        (asking("99999999999999999999999"), throttled(Some(60)), 0),
        (Fault::status(500), unavailable(status(500), None), 0),
        (Fault::status(502).body("<html>"), unavailable(status(502), None), 0),
        (
            Fault::status(503).header("retry-after", "2"),
            unavailable(status(503), Some(2)),
            0,
        ),
        (Fault::status(504), unavailable(status(504), None), 0),
        (Fault::status(301), unavailable(status(301), None), 0),
        (Fault::status(400), unavailable(status(400), None), 0),
        // Not the API server's word, so no absence.
        (
            Fault::status(404).body("404 page not found"),
            unavailable(status(404), None),
            0,
        ),
        (Fault::status(404).body(""), unavailable(status(404), None), 0),
        (Fault::Hang, timeout(), 10),
        (Fault::StalledBody, timeout(), 10),
        (Fault::Delay(seconds(11)), timeout(), 10),
        (Fault::DelayAnswer(seconds(11)), timeout(), 10),
        (Fault::Close, unavailable(broken, None), 0),
        (
            Fault::Truncated,
            unavailable(UnavailableCause::Connection(Some(io::ErrorKind::UnexpectedEof)), None),
            0,
        ),
        (Fault::CutShort, malformed("it ends too early"), 0),
        (Fault::Garbage, malformed("it is not JSON"), 0),
        (Fault::WrongKind, malformed("it is not a v1 Secret"), 0),
        (Fault::status(200).body(""), malformed("it ends too early"), 0),
        (Fault::status(200).body("{}"), malformed("it is not a v1 Secret"), 0),
        (
            Fault::status(200).body(MALFORMED_BASE64),
            malformed("a field is missing, of the wrong type, or not base64"),
            0,
        ),
        (oversized(true), too_large(), 0),
        (oversized(false), too_large(), 0),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_one_error_after_one_request_and_is_not_remembered() {
    for kind in Kind::all() {
        for (fault, expected, after) in faults() {
            let api = FakeApi::new();
            api.put_secret("ns", "s", &[("k", b"value")]);
            api.inject(RequestMatch::verb("get"), Times::N(1), fault.clone());
            let access = kind.access(&api, without_retries());
            let s = secret("s");
            let began = Instant::now();
            let error = access.read(&s, Want::default()).await.expect_err("the fault strikes");
            assert_eq!(error, expected, "{kind:?} {fault:?}");
            assert_eq!(began.elapsed().as_secs(), after, "{kind:?} {fault:?}");
            assert_eq!(api.count("get", "secrets"), 1, "{kind:?} {fault:?}: nothing is retried");

            assert!(
                access.read(&s, Want::default()).await.is_ok(),
                "{kind:?} {fault:?}: the next read asks again"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_absence_reported_by_the_server_is_not_found() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.inject(RequestMatch::verb("get"), Times::Always, Fault::status(404));
        let error = kind
            .access(&api, without_retries())
            .read(&secret("s"), Want::default())
            .await
            .expect_err("not there");
        assert_eq!(error, ReadError::NotFound { secret: secret("s") });
        assert_eq!(error.retry(), Retry::WhenChanged);
    }
}

#[tokio::test(start_paused = true)]
async fn a_huge_body_is_left_unread() {
    for kind in Kind::all() {
        for (declared, most) in [(true, 0), (false, 5 * 1024 * 1024)] {
            let api = FakeApi::new();
            let fault = Fault::Oversized {
                bytes: 1 << 40,
                declared,
            };
            api.inject(RequestMatch::verb("get"), Times::Always, fault);
            let access = kind.access(&api, without_retries());
            access.read(&secret("s"), Want::default()).await.expect_err("too large");
            // What a denied watch is told is some hundred bytes.
            let sent = api.bytes_sent();
            assert!(sent <= most + 10_000, "{kind:?}: {sent} bytes pulled");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_server_does_not_take_what_is_cached_away() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"value")]);
        let access = kind.access(&api, without_retries());
        access.read(&secret("s"), Want::default()).await.expect("readable");
        api.inject(RequestMatch::verb("get"), Times::Always, Fault::Hang);
        tokio::time::advance(seconds(59)).await;
        assert!(access.read(&secret("s"), Want::default()).await.is_ok());
        tokio::time::advance(seconds(2)).await;
        let error = access
            .read(&secret("s"), Want::default())
            .await
            .expect_err("older than the mode's age");
        assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    }
}

/// A hanging request for one Secret, with readers piling up behind it, takes nothing from others.
#[tokio::test(start_paused = true)]
async fn readers_of_one_hanging_secret_do_not_starve_others() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "fine", &[("k", b"value")]);
        api.inject(
            RequestMatch::verb("get").named("ns", "hangs"),
            Times::Always,
            Fault::Hang,
        );
        let mut options = without_retries();
        options.fetch.max_in_flight = 3;
        let access = kind.access(&api, options);
        let stuck: Vec<_> = (0..50)
            .map(|_| {
                let access = access.clone();
                tokio::spawn(async move { access.read(&secret("hangs"), Want::default()).await })
            })
            .collect();
        crate::access::settle().await;
        let began = Instant::now();
        assert!(access.read(&secret("fine"), Want::default()).await.is_ok(), "{kind:?}");
        assert_eq!(began.elapsed().as_secs(), 0, "{kind:?}");
        for read in stuck {
            let error = read.await.expect("no panic").expect_err("hangs");
            assert!(matches!(error, ReadError::Timeout { .. }), "{kind:?}: {error}");
        }
        assert_eq!(
            began.elapsed().as_secs(),
            10,
            "{kind:?}: waiting counts towards the deadline"
        );
    }
}
