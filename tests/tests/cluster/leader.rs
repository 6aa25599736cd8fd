//! Of several replicas one writes, whatever happens to it.

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, Client, ResourceExt, api::ListParams};
use leanserve_tests::{Installation, Running, Scope, services};
use testkit::{
    ControlPlane, Options,
    assets::Component,
    audit::{AuditEntries, Mark},
    eventually,
};

use crate::{DEADLINE, prepare, services_of};

const LEASE: &str = "leanserve-controller";
const STATUS: &str = "leader_election_master_status";

/// Long enough that a busy machine does not lose the Lease by itself, and short enough to wait for.
const QUICK: &[&str] = &[
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=4s",
    "--leader-elect-retry-period=500ms",
];

async fn lease(client: &Client, namespace: &str) -> Lease {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    api.get(LEASE).await.expect("the Lease")
}

async fn holder(client: &Client, namespace: &str) -> String {
    let spec = lease(client, namespace).await.spec.expect("a record");
    spec.holder_identity.unwrap_or_default()
}

/// Starts a replica and waits until it leads.
async fn leader(scope: &Scope, name: &str, more: &[&str]) -> Running {
    let mut running = Running::spawn_replica(scope, name, more).expect("an operator");
    leads(&running).await;
    running.ready().await;
    running
}

async fn leads(running: &Running) {
    eventually("it leads", DEADLINE, async || {
        match running.metric(STATUS, &[LEASE]).await {
            Ok(1.0) => Ok(()),
            Ok(other) => Err(format!("{STATUS} is {other}\n{}", running.process.log())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// Starts a replica and waits until it is ready to take over.
async fn standby(scope: &Scope, name: &str, more: &[&str]) -> Running {
    let mut running = Running::spawn_replica(scope, name, more).expect("an operator");
    running.ready().await;
    assert!(
        running.metric(STATUS, &[LEASE]).await.expect("metrics") < 1.0,
        "it leads"
    );
    running
}

async fn create(installation: &Installation<'_>, scope: &Scope, names: &[String]) {
    let objects: Vec<_> = names.iter().map(|name| services::custom(name, scope.name())).collect();
    let applied = installation.plane.apply_yaml(&services::list(&objects)).await;
    applied.expect("applied");
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}{index:02}")).collect()
}

/// What was asked by the account of a scope since a mark.
async fn asked(installation: &Installation<'_>, scope: &Scope, mark: &Mark) -> AuditEntries {
    let audit = installation.plane.audit().expect("an audit log");
    audit.since(mark).await.expect("the log").by_user(&scope.user())
}

fn of(entries: &AuditEntries, replica: &str) -> AuditEntries {
    let agent = format!("({replica})");
    entries.clone().filtered(|entry| entry.user_agent.ends_with(&agent))
}

/// No write of `old`, of whatever kind, was received after `new` had the Lease; and both have written.
fn one_after_the_other(entries: &AuditEntries, old: &str, new: &str) {
    let taken = of(entries, new).writes().on_resource("leases");
    let taken = taken.filtered(|entry| entry.code < 300);
    let taken_at = &taken.first().expect("the second one has taken the Lease").received;
    let foreign_to_leases = |entries: AuditEntries| entries.filtered(|entry| entry.resource != "leases");
    let by_old = foreign_to_leases(of(entries, old).writes());
    let by_new = foreign_to_leases(of(entries, new).writes());
    assert!(!by_old.is_empty() && !by_new.is_empty(), "{by_old}{by_new}");
    let late = by_old.filtered(|entry| entry.received > *taken_at);
    assert!(
        late.is_empty(),
        "{old} wrote after {new} had taken the Lease at {taken_at}: {late}"
    );
    let early = by_new.filtered(|entry| entry.received < *taken_at);
    assert!(
        early.is_empty(),
        "{new} wrote before it had the Lease at {taken_at}: {early}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_followed_by_one_that_had_watched_nothing() {
    let (installation, scope, client) = prepare("leader-killed").await;
    let audit = installation.plane.audit().expect("an audit log");
    let mark = audit.mark().await.expect("a mark");
    let mut first = leader(&scope, "one", &[]).await;
    let second = standby(&scope, "two", &[]).await;
    assert!(holder(&client, scope.name()).await.starts_with("one_"));
    create(installation, &scope, &names("a", 3)).await;
    services::all_ready(&services_of(&client, &scope), 3, DEADLINE).await;
    let idle = of(&asked(installation, &scope, &mark).await, "two");
    let watched = idle.clone().filtered(|entry| entry.resource != "leases");
    assert!(watched.is_empty() && !idle.is_empty(), "{watched}");
    let (leading, idling) = (
        first.process.memory().expect("it runs"),
        second.process.memory().expect("it runs"),
    );
    println!(
        "resident: leader {} KiB, standing by {} KiB",
        leading.resident_kib, idling.resident_kib
    );
    assert!(idling.resident_kib < leading.resident_kib);

    first.process.kill().expect("killed");
    create(installation, &scope, &names("b", 3)).await;
    services::all_ready(&services_of(&client, &scope), 6, DEADLINE).await;
    leads(&second).await;
    assert!(holder(&client, scope.name()).await.starts_with("two_"));
    one_after_the_other(&asked(installation, &scope, &mark).await, "one", "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_in_the_middle_of_work_a_leader_hands_over_and_nothing_is_lost() {
    // Nobody takes this Lease within the test unless it is given back.
    const LONG: &[&str] = &["--leader-elect-lease-duration=1h", "--max-concurrent-reconciles=2"];
    let (installation, scope, client) = prepare("leader-told").await;
    let mark = installation
        .plane
        .audit()
        .expect("an audit log")
        .mark()
        .await
        .expect("a mark");
    let first = leader(&scope, "one", LONG).await;
    let second = standby(&scope, "two", LONG).await;
    create(installation, &scope, &names("m", 40)).await;
    let built = some_are_built(&client, &scope).await;
    let (status, killed) = first.process.terminate(DEADLINE).await.expect("it ends");
    assert!(status.success() && !killed, "{status}");
    assert!(built < 40, "all was done before the signal, which proves nothing");
    leads(&second).await;
    services::all_ready(&services_of(&client, &scope), 40, DEADLINE).await;
    one_after_the_other(&asked(installation, &scope, &mark).await, "one", "two");
    // The one that stood by all the time, and that now leads alone, ends as well as the first.
    let third = standby(&scope, "three", LONG).await;
    let (status, killed) = third.process.terminate(DEADLINE).await.expect("it ends");
    assert!(status.success() && !killed, "{status}");
    let (status, killed) = second.process.terminate(DEADLINE).await.expect("it ends");
    assert!(status.success() && !killed, "{status}");
    assert_eq!(holder(&client, scope.name()).await, "");
}

/// Waits until there is a Deployment, and says how many there are.
async fn some_are_built(client: &Client, scope: &Scope) -> usize {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), scope.name());
    eventually("a Deployment", DEADLINE, async || {
        let found = deployments.list(&ListParams::default()).await;
        match found.map_err(|error| error.to_string())?.items.len() {
            0 => Err("none".to_owned()),
            count => Ok(count),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_longer_than_the_lease_and_continued_a_leader_writes_nothing_more() {
    let (installation, scope, client) = prepare("leader-frozen").await;
    let mark = installation
        .plane
        .audit()
        .expect("an audit log")
        .mark()
        .await
        .expect("a mark");
    let slow: Vec<&str> = QUICK
        .iter()
        .chain(&["--max-concurrent-reconciles=2"])
        .copied()
        .collect();
    let mut first = leader(&scope, "one", &slow).await;
    let second = standby(&scope, "two", &slow).await;
    create(installation, &scope, &names("m", 40)).await;
    let built = some_are_built(&client, &scope).await;
    first.process.pause();
    assert!(built < 40, "all was done before it was stopped, which proves nothing");
    leads(&second).await;
    services::all_ready(&services_of(&client, &scope), 40, DEADLINE).await;
    first.process.resume();
    let ended = eventually("the old leader ends", DEADLINE, async || {
        first.process.exited().ok_or_else(|| first.process.log())
    })
    .await;
    assert_eq!(ended.code(), Some(1), "{}", first.process.log());
    let log = first.process.log();
    assert!(log.contains("lost the Lease") && log.contains("two_"), "{log}");
    // Whatever the old one still had to send would be there by now: its process is gone.
    one_after_the_other(&asked(installation, &scope, &mark).await, "one", "two");
    assert!(holder(&client, scope.name()).await.starts_with("two_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_a_leader_suspends_and_goes_on_without_a_restart() {
    // A control plane of its own, to be stopped.
    let plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    if !plane.is_ours() {
        println!("NOT RUN: the API server of KUBECONFIG is not ours to stop");
        return;
    }
    let installation = Installation::on(&plane).await.expect("installed");
    let client = plane.client().await.expect("a client");
    let scope = installation.scope("leader-alone").await.expect("a namespace");
    let mut running = leader(&scope, "one", QUICK).await;
    create(&installation, &scope, &names("a", 2)).await;
    services::all_ready(&services_of(&client, &scope), 2, DEADLINE).await;
    let led = lease(&client, scope.name()).await;

    plane.stop_component(Component::KubeApiserver).await.expect("stopped");
    eventually("it stops to write", DEADLINE, async || {
        let (status, body) = running.probe("/livez").await.map_err(|error| error.to_string())?;
        assert_eq!(status, 200, "alive is who runs, whatever the API server does: {body}");
        match running.metric(STATUS, &[LEASE]).await {
            Ok(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let (status, missing) = running.probe("/readyz").await.expect("it answers");
    assert!(status == 500 && missing.contains("Lease"), "{status} {missing}");
    plane.start_component(Component::KubeApiserver).await.expect("started");

    leads(&running).await;
    running.ready().await;
    create(&installation, &scope, &names("b", 2)).await;
    services::all_ready(&services_of(&client, &scope), 4, DEADLINE).await;
    assert_eq!(running.process.exited(), None, "no restart");
    let leads = lease(&client, scope.name()).await;
    assert_ne!(leads.resource_version(), led.resource_version());
    let (before, after) = (led.spec.expect("a record"), leads.spec.expect("a record"));
    assert_eq!(after.holder_identity, before.holder_identity);
    assert_eq!(after.lease_transitions, before.lease_transitions);
    assert_eq!(after.acquire_time, before.acquire_time);
    drop(running);

    a_second_signal_ends_it_at_once(&installation, &client).await;
    plane.stop().await.expect("stopped");
}

async fn a_second_signal_ends_it_at_once(installation: &Installation<'_>, client: &Client) {
    let scope = installation.scope("leader-twice").await.expect("a namespace");
    let mut running = leader(&scope, "one", &[]).await;
    create(installation, &scope, &names("m", 40)).await;
    some_are_built(client, &scope).await;
    // Passes wait for answers that do not come.
    let plane = installation.plane;
    plane.pause_component(Component::KubeApiserver).await.expect("paused");
    running.process.ask_to_end();
    running.process.wait_for_log("stopping", DEADLINE).await;
    let (status, missing) = running.probe("/readyz").await.expect("it answers");
    assert!(status == 500 && missing.contains("stopping"), "{status} {missing}");
    running.process.ask_to_end();
    let ended = eventually("it ends", DEADLINE, async || running.process.exited().ok_or("it runs")).await;
    let log = running.process.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("second time"), "{log}");
    plane.resume_component(Component::KubeApiserver).await.expect("resumed");
    assert!(holder(client, scope.name()).await.starts_with("one_"), "not given back");
}
