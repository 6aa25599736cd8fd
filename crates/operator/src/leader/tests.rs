//! Electors beside each other, with a Lease in memory and a clock that is moved by hand.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use clap::Parser;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::*;
use crate::{
    apply::ONLY_CREATE,
    args::{Cli, Command},
    observability::metrics::tests::page,
};

const SECOND: Duration = Duration::from_secs(1);

/// An API server that holds one Lease.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    lease: Mutex<Option<Value>>,
    /// Of the last write.
    version: Mutex<u64>,
    down: AtomicBool,
    /// Writes are done, and their answers lost.
    deaf: AtomicBool,
    /// Writes are done at once, and answered after 11 seconds.
    slow: AtomicBool,
    /// Writes are refused as forbidden.
    closed: AtomicBool,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: http::Request<Body>) -> Result<Response<Body>, BoxError> {
        let (head, body) = request.into_parts();
        let exempt = head.extensions.get::<Unfenced>().is_some();
        assert!(exempt, "the fence would stop {} {}", head.method, head.uri);
        if self.0.down.load(Ordering::Relaxed) {
            return Err("connection refused".into());
        }
        let body = body.collect().await?.to_bytes();
        let (status, answer) = self.take(&head.method, &body);
        if head.method != Method::GET && self.0.deaf.load(Ordering::Relaxed) {
            return Err("connection reset".into());
        }
        if head.method != Method::GET && self.0.slow.load(Ordering::Relaxed) {
            sleep(11 * SECOND).await;
        }
        let answer = Body::from(serde_json::to_vec(&answer)?);
        Ok(Response::builder().status(status).body(answer)?)
    }

    fn take(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let mut lease = self.0.lease.lock().expect("no panic");
        let held = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if *method == Method::GET {
            return lease
                .clone()
                .map_or_else(|| failure(StatusCode::NOT_FOUND), |lease| (StatusCode::OK, lease));
        }
        if self.0.closed.load(Ordering::Relaxed) {
            return failure(StatusCode::FORBIDDEN);
        }
        let mut sent: Value = serde_json::from_slice(body).expect("JSON");
        let version = sent["metadata"]["resourceVersion"].clone();
        let expected = match (method, held) {
            (&Method::PATCH, None) => json!(ONLY_CREATE),
            (&Method::PUT, Some(held)) => held,
            (&Method::PATCH, Some(_)) => return failure(StatusCode::CONFLICT),
            _ => return failure(StatusCode::NOT_FOUND),
        };
        if version != expected {
            return failure(StatusCode::CONFLICT);
        }
        let mut count = self.0.version.lock().expect("no panic");
        *count += 1;
        sent["metadata"]["resourceVersion"] = json!((*count + 100).to_string());
        *lease = Some(sent.clone());
        (StatusCode::OK, sent)
    }

    fn lease(&self) -> Value {
        self.0.lease.lock().expect("no panic").clone().expect("a Lease")
    }

    fn holder(&self) -> String {
        self.lease()["spec"]["holderIdentity"]
            .as_str()
            .expect("a holder")
            .to_owned()
    }

    fn delete(&self) {
        *self.0.lease.lock().expect("no panic") = None;
    }

    /// Somebody changes the Lease by hand.
    fn touch(&self, change: impl FnOnce(&mut Value)) {
        let mut lease = self.0.lease.lock().expect("no panic");
        let lease = lease.as_mut().expect("a Lease");
        lease["metadata"]["resourceVersion"] = json!("touched");
        change(lease);
    }
}

fn failure(code: StatusCode) -> (StatusCode, Value) {
    let reason = code.canonical_reason().unwrap_or_default();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, status)
}

struct Replica {
    leadership: Leadership,
    fence: Arc<Fence>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn new(server: &Server, name: &str) -> Self {
        let args = Cli::parse_from(["leanserve", "run", "--leader-elect"]);
        let Command::Run(args) = args.command else {
            panic!("run was asked for");
        };
        let pod_name = |variable: &str| (variable == "POD_NAME").then(|| name.to_owned());
        let config = Config::new(*args, pod_name).expect("valid");
        let timing = config.election.expect("asked for");
        let fence = Arc::new(Fence::closed(Clock::of_the_runtime()));
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
        health.contact();
        let elector = Elector::new(
            server.client(),
            &config,
            timing,
            Arc::clone(&fence),
            Arc::clone(&health),
            Arc::clone(&metrics),
        );
        Self {
            leadership: Leadership::elected(elector),
            fence,
            health,
            metrics,
        }
    }

    fn writes(&self) -> bool {
        self.fence.check().is_ok()
    }

    fn gauge(&self) -> bool {
        let page = page(&self.metrics);
        page.contains("leader_election_master_status{name=\"leanserve-controller\"} 1")
    }

    /// Whether it gets to lead within this time.
    async fn leads_within(&mut self, time: Duration) -> bool {
        timeout(time, self.leadership.acquire()).await.is_ok()
    }

    /// Keeps the Lease for this time; who has taken it, if another has.
    async fn keep_for(&mut self, time: Duration) -> Option<Lost> {
        timeout(time, self.leadership.keep()).await.ok()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_and_the_second_stands_by_as_long_as_it_does() {
    let server = Server::default();
    let (mut first, mut second) = (Replica::new(&server, "one"), Replica::new(&server, "two"));
    assert!(first.health.ready().is_err() && !first.gauge());
    assert!(first.leads_within(SECOND).await);
    assert!(first.writes() && first.gauge());
    assert!(server.holder().starts_with("one_"));
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 0);
    let (lost, second_leads) = tokio::join!(first.keep_for(300 * SECOND), second.leads_within(300 * SECOND));
    assert!(lost.is_none() && !second_leads);
    assert!(first.writes() && !second.writes() && !second.gauge());
    assert_eq!(second.health.ready(), Ok(()), "who stands by is ready");
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_at_once() {
    let server = Server::default();
    let (mut first, mut second) = (Replica::new(&server, "one"), Replica::new(&server, "two"));
    assert!(first.leads_within(SECOND).await);
    let acquired = server.lease()["spec"]["acquireTime"].clone();
    assert!(first.keep_for(7 * SECOND).await.is_none());
    assert_eq!(
        server.lease()["spec"]["acquireTime"],
        acquired,
        "a renewal takes nothing"
    );
    let fence = Arc::clone(&first.fence);
    first.leadership.release().await;
    assert_eq!(server.holder(), "");
    assert!(fence.check().is_err(), "nothing is written any more");
    assert!(second.leads_within(SECOND).await);
    assert!(server.holder().starts_with("two_"));
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_stopped_while_it_takes_the_lease_gives_it_back() {
    let server = Server::default();
    server.0.slow.store(true, Ordering::Relaxed);
    let mut replica = Replica::new(&server, "one");
    assert!(!replica.leads_within(SECOND).await, "its request is on its way");
    assert!(server.holder().starts_with("one_"), "and done");
    server.0.slow.store(false, Ordering::Relaxed);
    replica.leadership.release().await;
    assert_eq!(server.holder(), "");

    let mut leader = Replica::new(&server, "two");
    assert!(leader.leads_within(SECOND).await);
    let mut standing_by = Replica::new(&server, "three");
    assert!(!standing_by.leads_within(5 * SECOND).await);
    standing_by.leadership.release().await;
    assert!(server.holder().starts_with("two_"), "another's Lease is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_has_stopped_before_another_begins_and_ends_when_it_sees_it() {
    let server = Server::default();
    let (mut first, mut second) = (Replica::new(&server, "one"), Replica::new(&server, "two"));
    assert!(first.leads_within(SECOND).await);
    // Not polled any more, as if it were stopped.
    assert!(!second.leads_within(14 * SECOND).await);
    assert!(!first.writes());
    assert!(second.leads_within(6 * SECOND).await);
    assert!(!first.writes() && second.writes());
    let lost = first.keep_for(60 * SECOND).await.expect("another leads");
    assert!(lost.to_string().contains("two_"), "{lost}");
    assert!(!first.writes() && !first.gauge());
}

#[tokio::test(start_paused = true)]
async fn without_the_api_server_writes_stop_and_go_on_if_nobody_else_led() {
    let server = Server::default();
    let mut first = Replica::new(&server, "one");
    assert!(first.leads_within(SECOND).await);
    first.health.settings(None);
    assert!(first.keep_for(5 * SECOND).await.is_none());
    server.0.down.store(true, Ordering::Relaxed);
    assert!(first.keep_for(6 * SECOND).await.is_none());
    assert!(first.writes() && first.gauge(), "a renewal or two may fail");
    assert!(first.keep_for(6 * SECOND).await.is_none());
    assert!(!first.writes() && !first.gauge());
    assert!(first.health.ready().expect_err("suspended").join("").contains("Lease"));
    assert_eq!(first.health.live(), Ok(()));
    assert!(first.keep_for(3600 * SECOND).await.is_none());
    server.0.down.store(false, Ordering::Relaxed);
    assert!(first.keep_for(5 * SECOND).await.is_none());
    assert!(first.writes() && first.gauge());
    assert_eq!(first.health.ready(), Ok(()));
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 0, "it was never given up");
}

#[tokio::test(start_paused = true)]
async fn renewals_whose_answers_are_lost_are_found_out_about() {
    let server = Server::default();
    let mut first = Replica::new(&server, "one");
    server.0.deaf.store(true, Ordering::Relaxed);
    assert!(!first.leads_within(60 * SECOND).await, "an answer is needed to begin");
    assert!(!first.writes());
    server.0.deaf.store(false, Ordering::Relaxed);
    assert!(first.leads_within(3 * SECOND).await);
    server.0.deaf.store(true, Ordering::Relaxed);
    assert!(first.keep_for(5 * SECOND).await.is_none());
    server.0.deaf.store(false, Ordering::Relaxed);
    assert!(first.keep_for(4 * SECOND).await.is_none());
    assert!(first.writes());
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_before_it_began_stands_by_again() {
    let server = Server::default();
    let (mut first, mut second) = (Replica::new(&server, "one"), Replica::new(&server, "two"));
    // It gets the Lease, and hears of it too late.
    server.0.slow.store(true, Ordering::Relaxed);
    assert!(!first.leads_within(12 * SECOND).await);
    server.0.slow.store(false, Ordering::Relaxed);
    assert!(server.holder().starts_with("one_"));
    assert!(second.leads_within(20 * SECOND).await);
    assert!(second.keep_for(SECOND).await.is_none());
    assert!(!first.leads_within(4 * SECOND).await);
    second.leadership.release().await;
    assert!(first.leads_within(6 * SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn what_people_do_to_the_lease() {
    let server = Server::default();
    let mut first = Replica::new(&server, "one");
    assert!(first.leads_within(SECOND).await);
    server.touch(|lease| lease["metadata"]["annotations"] = json!({"why": "somebody looked"}));
    assert!(first.keep_for(4 * SECOND).await.is_none());
    assert!(first.writes());
    assert_eq!(server.lease()["metadata"]["annotations"]["why"], "somebody looked");
    server.delete();
    assert!(first.keep_for(4 * SECOND).await.is_none());
    assert!(first.writes() && server.holder().starts_with("one_"));
    server.touch(|lease| lease["spec"]["holderIdentity"] = json!("somebody"));
    assert!(first.keep_for(4 * SECOND).await.is_some());
    assert!(!first.writes(), "at once, not at the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_said_by_readiness() {
    let server = Server::default();
    server.0.closed.store(true, Ordering::Relaxed);
    let mut first = Replica::new(&server, "one");
    assert!(!first.leads_within(30 * SECOND).await);
    let missing = first.health.ready().expect_err("it could not take over").join("\n");
    assert!(missing.contains(LEASE) && missing.contains("forbidden"), "{missing}");
    server.0.closed.store(false, Ordering::Relaxed);
    assert!(first.leads_within(3 * SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_begin_together_one_leads() {
    let server = Server::default();
    let mut replicas: Vec<_> = (0..5)
        .map(|index| Replica::new(&server, &format!("r{index}")))
        .collect();
    let led = futures::future::join_all(replicas.iter_mut().map(|replica| replica.leads_within(10 * SECOND))).await;
    assert_eq!(led.iter().filter(|leads| **leads).count(), 1);
}

#[test]
fn a_restarted_container_is_another_replica() {
    assert_ne!(identity(Some("leanserve-0")), identity(Some("leanserve-0")));
    assert!(identity(Some("leanserve-0")).starts_with("leanserve-0_"));
}
