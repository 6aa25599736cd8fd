//! The mode of Secret reads, switched through the `ConfigMap` while the operator works.

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use leanserve_tests::{Running, services};
use serde_json::{Value, json};
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

async fn set(client: &Client, namespace: &str, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "leanserve-config"}, "data": data});
    maps.patch(
        "leanserve-config",
        &PatchParams::apply("test").force(),
        &Patch::Apply(&map),
    )
    .await
    .expect("applied");
}

async fn in_mode(running: &Running, mode: &str) {
    let label = format!("mode=\"{mode}\"");
    eventually(&format!("mode {mode}"), DEADLINE, async || {
        let value = running
            .metric("leanserve_secret_access_mode", &[&label])
            .await
            .map_err(|error| error.to_string())?;
        if (value - 1.0).abs() < f64::EPSILON {
            Ok(())
        } else {
            Err(format!("{label} is {value}"))
        }
    })
    .await;
}

async fn event(client: &Client, namespace: &str, reason: &str, texts: &[&str]) {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("an Event {reason} with {texts:?}"), DEADLINE, async || {
        let list = events
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let of_config = list
            .items
            .iter()
            .filter(|event| event.involved_object.name.as_deref() == Some("leanserve-config"));
        let messages: Vec<String> = of_config
            .filter(|event| event.reason.as_deref() == Some(reason))
            .map(|event| event.message.clone().unwrap_or_default())
            .collect();
        if messages
            .iter()
            .any(|message| texts.iter().all(|text| message.contains(text)))
        {
            Ok(())
        } else {
            Err(format!("{messages:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_takes_effect_without_a_restart_or_a_failed_read() {
    let (installation, scope, client) = prepare("modes").await;
    let namespace = scope.name().to_owned();
    set(
        &client,
        &namespace,
        json!({"secretAccessMode": "lru", "secretAccessMaxAge": "1s"}),
    )
    .await;
    let mut running = Running::in_scope(&scope, &["--resync-period", "1s"])
        .await
        .expect("an operator");
    let mut objects = services::s3_credentials("s3", "loader", &namespace, "a secret access key");
    objects.push(services::sklearn("m", &namespace, Some("loader")));
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    services::all_ready(&services_of(&client, &scope), 1, DEADLINE).await;
    in_mode(&running, "lru").await;

    let modes = ["direct", "auto", "lru"];
    for (round, mode) in modes.iter().cycle().take(30).enumerate() {
        set(
            &client,
            &namespace,
            json!({"secretAccessMode": mode, "secretAccessMaxAge": "1s"}),
        )
        .await;
        if round % 5 == 0 {
            in_mode(&running, mode).await;
        }
    }
    in_mode(&running, "lru").await;
    event(&client, &namespace, "SecretAccessModeChanged", &["direct"]).await;
    assert!(running.process.log().contains("direct"), "the log tells of the switch");
    let switches = running
        .metric("leanserve_secret_access_mode_switches_total", &[])
        .await
        .expect("metrics");
    assert!(switches >= 6.0, "{switches} switches counted");

    // A value nobody knows: the last good one stays and everybody is told.
    set(
        &client,
        &namespace,
        json!({"secretAccessMode": "fastest", "secretAccessMaxAge": "1s"}),
    )
    .await;
    event(
        &client,
        &namespace,
        "ConfigInvalid",
        &["secretAccessMode", "fastest", "direct", "lru", "auto"],
    )
    .await;
    in_mode(&running, "lru").await;
    assert!(
        running.process.log().contains("secretAccessMode"),
        "the log tells of the bad value"
    );
    let errors = running
        .metric("leanserve_config_errors_total", &[])
        .await
        .expect("metrics");
    assert!(errors >= 1.0, "{errors} errors counted");

    set(&client, &namespace, json!({"secretAccessMode": "direct"})).await;
    in_mode(&running, "direct").await;
    let failed: f64 = {
        let all = running
            .metric("leanserve_secret_reads_total", &[])
            .await
            .expect("metrics");
        let found = running
            .metric("leanserve_secret_reads_total", &["result=\"found\""])
            .await
            .expect("metrics");
        assert!(found > 0.0, "reads are counted");
        all - found
    };
    assert!(failed.abs() < f64::EPSILON, "{failed} reads failed");
    assert_eq!(running.process.exited(), None, "it never ended");
}
