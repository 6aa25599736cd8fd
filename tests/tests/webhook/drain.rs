//! Replicas that end one after the other, and a writer that does not notice.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use leanserve_tests::{
    services,
    webhook::{Balancer, FailurePolicy, Replica, Site, free_port, own_address},
};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, LOOPBACK, create, patch, plane, port, secret, service};

const WRITERS: usize = 4;

/// Writes that go on until they are told to stop; each has to be let through.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Writers {
    async fn start(site: &Site<'static>) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..WRITERS {
            let client = site.plane.client().await.expect("a client");
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let (tenant, name) = (site.tenant.name.clone(), format!("m{number}"));
            let created = create(&client, &tenant, &service(&name, "tokens", "hf")).await;
            assert_eq!(created.code, 201, "{}", created.body);
            tasks.push(tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let change = json!({"metadata": {"annotations": {"round": round.to_string()}}});
                    let patched = patch(&client, &tenant, &name, &change).await;
                    if patched.code != 200 || !patched.warnings.is_empty() {
                        failures.push(format!("{} {:?} {}", patched.code, patched.warnings, patched.body));
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                }
                failures
            }));
        }
        Self { stop, written, tasks }
    }

    /// Waits until so many more have been written.
    async fn more(&self, writes: usize) {
        let wanted = self.written.load(Ordering::Relaxed) + writes;
        eventually(&format!("{wanted} writes"), DEADLINE, async || {
            let written = self.written.load(Ordering::Relaxed);
            if written >= wanted {
                Ok(())
            } else {
                Err(written.to_string())
            }
        })
        .await;
    }

    async fn failures(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.expect("no panic"));
        }
        (self.written.load(Ordering::Relaxed), failures)
    }
}

async fn ended(replica: Replica) {
    let (status, was_killed) = replica.process.terminate(DEADLINE).await.expect("it ends");
    assert!(status.success() && !was_killed, "{status}");
}

async fn no_write_fails_while_replicas_are_replaced(ip: IpAddr) {
    let plane = plane().await;
    let front = free_port(ip).expect("a free port");
    let balancer = Balancer::new(front).await.expect("a balancer");
    let site = Site::new(plane, front, FailurePolicy::Fail).await.expect("installed");
    let tokens = services::list(&[secret("tokens", &site.tenant.name, "hf", "value")]);
    plane.apply_yaml(&tokens).await.expect("applied");
    let replica = async || {
        let flags = ["--enforcement-action", "deny", "--shutdown-delay-duration", "2s"];
        site.replica(port(), &flags).await.expect("a replica")
    };
    let backend = |replica: &Replica| (replica.address, replica.probes);
    let (mut one, mut other) = (replica().await, replica().await);
    balancer.set(vec![backend(&one), backend(&other)]);
    // The balancer looks at replicas every now and then.
    let client = plane.client().await.expect("a client");
    eventually("the webhook is reached", DEADLINE, async || {
        let created = create(&client, &site.tenant.name, &service("first", "tokens", "hf")).await;
        if created.code == 201 {
            Ok(())
        } else {
            Err(created.body.to_string())
        }
    })
    .await;

    let writers = Writers::start(&site).await;
    writers.more(100).await;
    for _ in 0..2 {
        // As a rollout does it: one more, then one less.
        let third = replica().await;
        balancer.set(vec![backend(&one), backend(&other), backend(&third)]);
        writers.more(50).await;
        ended(one).await;
        (one, other) = (other, third);
        balancer.set(vec![backend(&one), backend(&other)]);
        writers.more(50).await;
    }
    let (written, failures) = writers.failures().await;
    assert_eq!(failures, Vec::<String>::new(), "of {written} writes");
    // Over HTTP/2 one of them may serve all.
    let mut served = 0.0;
    for replica in [&one, &other] {
        let reviews = replica.metric("leanserve_webhook_reviews_total", &["allowed"]).await;
        served += reviews.expect("metrics");
    }
    assert!(served > 0.0, "reviews were served by the last replicas");
}

/// API servers speak HTTP/2 with what is on loopback.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_over_http2() {
    no_write_fails_while_replicas_are_replaced(LOOPBACK).await;
}

/// And HTTP/1.1 with everything else, Services among it.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_over_http1() {
    let own = own_address().expect("this machine has an address besides loopback");
    no_write_fails_while_replicas_are_replaced(own).await;
}

/// A replica that is killed is no drain: what it held fails, and the policy decides.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_webhook_the_failure_policy_decides() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Ignore)
        .await
        .expect("installed");
    let client = plane.client().await.expect("a client");
    let created = create(&client, &site.tenant.name, &service("m", "tokens", "hf")).await;
    assert_eq!(created.code, 201, "{}", created.body);
    tokio::time::timeout(
        Duration::from_secs(60),
        ended(site.replica(site.address, &[]).await.expect("a replica")),
    )
    .await
    .expect("it ends when nobody uses it");
}
