//! The operator in a control group with less memory than it could use.

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::Path,
};

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use leanserve_tests::{Running, Scope, cgroup::Cgroup, services};
use serde_json::{Value, json};
use testkit::{ControlPlane, eventually};

use crate::{DEADLINE, prepare, services_of};

const MIB: f64 = 1024.0 * 1024.0;

/// Services, each with a `ServiceAccount` and Secrets of its own.
const SERVICES: usize = 16;
const SECRETS_OF_EACH: usize = 10;

/// Of one Secret. All of them together take more than the limit.
const BYTES: usize = 300_000;

/// Of the control group.
const LIMIT: u64 = 44 << 20;

async fn configure(client: &Client, scope: &Scope, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), scope.name());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "leanserve-config"}, "data": data});
    let params = PatchParams::apply("test").force();
    maps.patch("leanserve-config", &params, &Patch::Apply(&map))
        .await
        .expect("applied");
}

/// Every pass reads all Secrets of its service; what was read a second ago is read again.
fn greedy() -> Value {
    json!({"secretAccessMode": "lru", "secretAccessMaxAge": "1s", "secretAccessMaxBytes": "512Mi"})
}

async fn create(client: &Client, scope: &Scope) {
    let (installation, namespace) = (leanserve_tests::Installation::shared().await, scope.name());
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client.clone(), namespace);
    let padding = "x".repeat(BYTES);
    let mut objects = Vec::new();
    for service in 0..SERVICES {
        let names: Vec<String> = (0..SECRETS_OF_EACH)
            .map(|number| format!("s{service}-{number}"))
            .collect();
        for name in &names {
            let [mut secret, _] = services::s3_credentials(name, "", namespace, "a secret access key")
                .try_into()
                .expect("a Secret and an account");
            secret["stringData"]["padding"] = json!(padding);
            let secret = serde_json::from_value(secret).expect("a Secret");
            secrets
                .create(&kube::api::PostParams::default(), &secret)
                .await
                .expect("created");
        }
        let refer: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        objects.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": format!("loader-{service}"), "namespace": namespace},
            "secrets": refer,
        }));
        objects.push(services::sklearn(
            &format!("m{service}"),
            namespace,
            Some(&format!("loader-{service}")),
        ));
    }
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
}

async fn metric(running: &Running, name: &str, labels: &[&str]) -> f64 {
    running.metric(name, labels).await.expect("metrics")
}

/// Waits until a metric satisfies a condition, while the operator lives.
async fn until(running: &mut Running, what: &str, name: &str, labels: &[&str], holds: impl Fn(f64) -> bool) -> f64 {
    eventually(what, DEADLINE, async || {
        if let Some(status) = running.process.exited() {
            panic!(
                "the operator has ended ({status}) before {what}:\n{}",
                running.process.log()
            );
        }
        let value = running.metric(name, labels).await.map_err(|error| error.to_string())?;
        if holds(value) {
            Ok(value)
        } else {
            Err(format!("{name} is {value}"))
        }
    })
    .await
}

async fn told(client: &Client, scope: &Scope, reason: &str) {
    let events: Api<Event> = Api::namespaced(client.clone(), scope.name());
    eventually(&format!("an Event {reason}"), DEADLINE, async || {
        let list = events
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let mut reasons = list.items.iter().filter_map(|event| event.reason.as_deref());
        if reasons.any(|found| found == reason) {
            Ok(())
        } else {
            Err(format!("{} Events", list.items.len()))
        }
    })
    .await;
}

/// What holds all Secrets and has no guard is killed by the kernel: the contrast, which shows that the limit bites. Says how
/// often.
async fn an_informer_is_killed(plane: &ControlPlane, group: &Cgroup) -> u32 {
    let kubeconfig = plane.kubeconfig_path().as_os_str();
    let peer = Path::new(env!("CARGO_BIN_EXE_reflector-peer"));
    // Pages of files count for the group that reads them first. Those of the program would be taken from it again and again, with
    // which it lives on at the limit.
    drop(std::fs::read(peer).expect("a program"));
    let mut informer = group
        .spawn(peer, [OsStr::new("--kubeconfig"), kubeconfig])
        .expect("an informer");
    eventually("the kernel kills it", DEADLINE, async || {
        let ended = informer.exited();
        ended.map(|_| ()).ok_or("it lives".to_owned())
    })
    .await;
    drop(informer);
    let killed = group.kills().expect("counted");
    assert!(killed > 0, "it ended for its memory");
    killed
}

fn skipped(error: &io::Error) {
    // Past the capture of output, which hides that of tests that pass.
    let message = "SKIPPED: no control group with a memory limit can be made here";
    let _ = writeln!(io::stderr(), "{message}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lives_within_a_limit_that_what_it_reads_exceeds() {
    let Ok(group) = Cgroup::limited(LIMIT).inspect_err(skipped) else {
        return;
    };
    let (installation, scope, client) = prepare("memory").await;
    configure(&client, &scope, greedy()).await;
    create(&client, &scope).await;

    // Without a limit it keeps all of it: more than the limit will be, or this test would show nothing.
    let mut free = Running::in_scope(&scope, &["--resync-period", "1s"])
        .await
        .expect("an operator");
    services::all_ready(&services_of(&client, &scope), SERVICES, DEADLINE).await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let limit = LIMIT as f64;
    let kept = until(
        &mut free,
        "all Secrets are kept",
        "leanserve_secret_cache_bytes",
        &[],
        |kept| kept > limit,
    )
    .await;
    let without = free.process.memory().expect("it runs");
    drop(free);

    let killed = an_informer_is_killed(installation.plane, &group).await;

    let mut running = Running::spawn_limited(&scope, &group, &["--resync-period", "1s"]).expect("an operator");
    running.ready().await;
    assert_eq!(
        metric(&running, "leanserve_memory_limit_bytes", &[]).await.to_bits(),
        limit.to_bits()
    );
    let sheds = "leanserve_memory_sheds_total";
    until(
        &mut running,
        "the cache gives way",
        sheds,
        &["secrets", "shrink"],
        |sheds| sheds > 0.0,
    )
    .await;
    // It goes on doing its work: several more rounds over all services, all of them reading their Secrets.
    let passes = ("controller_runtime_reconcile_total", "result=\"success\"");
    let before = metric(&running, passes.0, &[passes.1]).await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rounds = (5 * SERVICES) as f64;
    let done = |passes: f64| passes >= before + rounds;
    until(&mut running, "passes go on", passes.0, &[passes.1], done).await;
    let used = metric(&running, "leanserve_memory_used_bytes", &[]).await;
    let sheds = metric(&running, sheds, &["secrets"]).await;
    let (kills, peak) = (group.kills().expect("counted"), group.peak().expect("counted"));

    // What was needed goes, and so does the pressure.
    let parameters = DeleteParams::default();
    services_of(&client, &scope)
        .delete_collection(&parameters, &ListParams::default())
        .await
        .expect("deleted");
    configure(&client, &scope, json!({"secretAccessMode": "direct"})).await;
    let level = ("leanserve_memory_pressure_level", "level=\"normal\"");
    until(&mut running, "there is enough memory", level.0, &[level.1], |normal| {
        normal > 0.0
    })
    .await;
    until(
        &mut running,
        "all passes may run",
        "leanserve_passes_allowed",
        &[],
        |passes| passes >= 5.0,
    )
    .await;
    let half = |used: f64| used < limit / 2.0;
    let after = until(
        &mut running,
        "memory went back",
        "leanserve_memory_used_bytes",
        &[],
        half,
    )
    .await;
    assert_eq!(running.process.exited(), None);
    assert_eq!(
        (kills, group.kills().expect("counted")),
        (killed, killed),
        "the kernel killed nothing more"
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (peak, without) = (peak as f64, without.resident_kib as f64 * 1024.0);
    println!(
        "limit {:.1} MiB; without it {:.1} MiB resident, {:.1} MiB of them Secrets; with it {:.1} MiB in use while reading, \
         {:.1} MiB charged at most (files included), {sheds} times shed, {} kills; {:.1} MiB afterwards",
        limit / MIB,
        without / MIB,
        kept / MIB,
        used / MIB,
        peak / MIB,
        kills - killed,
        after / MIB,
    );
}

/// A limit in the `ConfigMap` is in force at once. Where it leaves nothing, what is big is refused, by an error that says why;
/// and all goes on as soon as the limit is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_comes_and_goes_while_the_operator_runs() {
    let (installation, scope, client) = prepare("limit").await;
    let nothing_left = json!({"secretAccessMode": "direct", "memoryLimit": "8Mi", "maxConcurrentReconciles": "3"});
    configure(&client, &scope, nothing_left).await;
    let mut running = Running::in_scope(&scope, &[]).await.expect("an operator");
    let level = ("leanserve_memory_pressure_level", "level=\"refuse\"");
    until(
        &mut running,
        "memory is nearly used up",
        level.0,
        &[level.1],
        |refuses| refuses > 0.0,
    )
    .await;
    let most = "controller_runtime_max_concurrent_reconciles";
    until(&mut running, "three passes are configured", most, &[], |most| {
        most.to_bits() == 3_f64.to_bits()
    })
    .await;
    let allowed = "leanserve_passes_allowed";
    until(&mut running, "one pass is allowed", allowed, &[], |allowed| {
        allowed.to_bits() == 1_f64.to_bits()
    })
    .await;

    let namespace = scope.name();
    let [small, big] = ["small", "big"].map(|name| {
        let mut objects = services::s3_credentials(name, &format!("loads-{name}"), namespace, "a secret access key");
        objects.push(services::sklearn(name, namespace, Some(&format!("loads-{name}"))));
        objects
    });
    let mut objects = [small, big].concat();
    objects[3]["stringData"]["padding"] = json!("x".repeat(BYTES));
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    let refused = "big: not read: memory is short, and the answer is too big to be taken now";
    running.process.wait_for_log(refused, DEADLINE).await;
    // The small Secret is read all the same.
    let of_small = services_of(&client, &scope);
    eventually("the service with the small Secret is Ready", DEADLINE, async || {
        let service = of_small.get("small").await.map_err(|error| error.to_string())?;
        match services::condition(&service, "Ready") {
            Some((status, ..)) if status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!running.process.log().contains("small: not read"), "it is small");

    configure(&client, &scope, json!({"secretAccessMode": "direct"})).await;
    services::all_ready(&services_of(&client, &scope), 2, DEADLINE).await;
    until(&mut running, "passes are as by default", allowed, &[], |allowed| {
        allowed > 3.0
    })
    .await;
    told(&client, &scope, "MemoryShort").await;
    told(&client, &scope, "MemorySufficient").await;
}
