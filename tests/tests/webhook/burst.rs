//! More reviews at once than there is memory for.

use leanserve_tests::{
    cgroup::Cgroup,
    services,
    webhook::{Burst, FailurePolicy, Site},
};

use crate::{plane, port, secret};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_answered_within_a_small_limit() {
    let plane = plane().await;
    let site = Site::new(plane, port(), FailurePolicy::Ignore)
        .await
        .expect("installed");
    let tenant = site.tenant.name.clone();
    let tokens = services::list(&[secret("tokens", &tenant, "hf", "value")]);
    plane.apply_yaml(&tokens).await.expect("applied");
    let group = Cgroup::limited(64 * MIB).expect("control groups");
    let mut replica = site.limited(site.address, &group, &[]).await.expect("a replica");
    let burst = Burst {
        address: site.address,
        authorities: site.authorities().await.expect("a configuration"),
        reviews: 2_000,
        connections: 20,
        body: 20_000,
        namespace: tenant,
        secret: ("tokens".to_owned(), "hf".to_owned()),
    };
    let answers = burst.send().await.expect("the webhook is reached");
    assert_eq!(answers.lost, 0, "{:?}\n{}", answers.first_loss, replica.process.log());
    assert_eq!(answers.allowed + answers.unchecked, burst.reviews, "{answers:?}");
    assert!(answers.allowed > 0, "some were checked");
    assert_eq!(group.kills().expect("the kernel counts"), 0);
    assert!(replica.process.exited().is_none());
    let shed = replica
        .metric("leanserve_webhook_sheds_total", &[])
        .await
        .expect("metrics");
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let unchecked = answers.unchecked as f64;
    assert!(
        (shed - unchecked).abs() < 0.5,
        "what was shed is counted: {shed} of {unchecked}"
    );
    let waiting = replica.metric("leanserve_webhook_waiting", &[]).await.expect("metrics");
    let serving = replica.metric("leanserve_webhook_serving", &[]).await.expect("metrics");
    assert!(waiting + serving < 0.5, "nothing is left over: {waiting} and {serving}");
}
