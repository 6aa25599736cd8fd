//! What a pass that changes nothing costs, and what is never asked.

use leanserve_tests::{Running, services};
use serde_json::json;
use testkit::eventually;

use crate::{DEADLINE, prepare, services_of};

/// Three services, Ready; then every one of them is looked at again several times.
async fn steady_state(mode: &str) {
    let (installation, scope, client) = prepare(&format!("steady-{mode}")).await;
    let namespace = scope.name().to_owned();
    // Before the operator starts: its default mode asks for a watch once, which is not what is looked at here.
    let configuration = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "leanserve-config", "namespace": namespace},
        "data": {"secretAccessMode": mode, "secretAccessMaxAge": "2s"},
    });
    let applied = installation.plane.apply_yaml(&configuration.to_string()).await;
    applied.expect("applied");
    let mut objects = services::s3_credentials("s3", "loader", &namespace, "a secret access key");
    objects.push(services::sklearn("first", &namespace, Some("loader")));
    objects.push(services::sklearn("second", &namespace, Some("loader")));
    objects.push(services::custom("third", &namespace));
    let audit = installation.plane.audit().expect("an audit log");
    let start = audit.mark().await.expect("a mark");
    let running = Running::in_scope(&scope, &["--resync-period", "2s"])
        .await
        .expect("an operator");
    installation
        .plane
        .apply_yaml(&services::list(&objects))
        .await
        .expect("applied");
    services::all_ready(&services_of(&client, &scope), 3, DEADLINE).await;

    // Quiet: nothing was written for a while although passes went on.
    let passes = async || {
        running
            .metric("controller_runtime_reconcile_total", &[])
            .await
            .expect("metrics")
    };
    let wait_for_passes = async |more: f64| {
        let before = passes().await;
        eventually("more passes", DEADLINE, async || {
            let now = passes().await;
            if now >= before + more {
                Ok(())
            } else {
                Err(format!("{} passes since", now - before))
            }
        })
        .await;
    };
    let settled = eventually("no write during three resyncs", DEADLINE, async || {
        let mark = audit.mark().await.map_err(|error| error.to_string())?;
        wait_for_passes(9.0).await;
        let writes = audit.since(&mark).await.map_err(|error| error.to_string())?;
        let writes = writes
            .by_user(&scope.user())
            .in_namespace(&namespace)
            .writes()
            .without_leases_and_events();
        if writes.is_empty() {
            Ok(mark)
        } else {
            Err(format!("{} writes: {writes:?}", writes.len()))
        }
    })
    .await;
    wait_for_passes(30.0).await;

    let steady = audit
        .since(&settled)
        .await
        .expect("the audit log")
        .by_user(&scope.user())
        .in_namespace(&namespace);
    let writes = steady.clone().writes().without_leases_and_events();
    assert!(writes.is_empty(), "a steady pass wrote: {writes:?}");
    let reads = steady.clone().reads().filtered(|entry| {
        !matches!(entry.verb.as_str(), "watch" | "list")
            && !matches!(entry.resource.as_str(), "secrets" | "serviceaccounts")
    });
    assert!(
        reads.is_empty(),
        "a steady pass read more than Secrets and ServiceAccounts by name: {reads:?}"
    );
    let secrets = steady.on_resource("secrets");
    assert!(!secrets.is_empty(), "Secrets are read by name, again after their age");

    let all = audit.since(&start).await.expect("the audit log").by_user(&scope.user());
    let whole_lists = all.clone().on_resource("secrets").filtered(|entry| entry.verb != "get");
    assert!(
        whole_lists.is_empty(),
        "Secrets were listed or watched: {whole_lists:?}"
    );
    let accounts = all
        .clone()
        .on_resource("serviceaccounts")
        .filtered(|entry| entry.verb != "get");
    assert!(
        accounts.is_empty(),
        "ServiceAccounts were listed or watched: {accounts:?}"
    );
    let refused = all.in_namespace(&namespace).filtered(|entry| entry.code == 403);
    assert!(refused.is_empty(), "the rights of deploy/ do not cover: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_pass_writes_nothing_in_mode_direct() {
    steady_state("direct").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_pass_writes_nothing_in_mode_lru() {
    steady_state("lru").await;
}
