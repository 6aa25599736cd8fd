//! Certificates that are replaced, authorities and all, while two replicas serve.

use std::collections::BTreeSet;

use leanserve_tests::{
    services,
    webhook::{Balancer, Burst, FailurePolicy, Site},
};
use testkit::eventually;

use crate::{DEADLINE, create, plane, port, secret, service};

fn authorities(bundle: &str) -> BTreeSet<&str> {
    bundle
        .split("-----END CERTIFICATE-----")
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_that_is_served_is_trusted_at_every_moment() {
    let plane = plane().await;
    let front = port();
    let balancer = Balancer::new(front).await.expect("a balancer");
    let site = Site::new(plane, front, FailurePolicy::Fail).await.expect("installed");
    let tenant = site.tenant.name.as_str();
    let tokens = services::list(&[secret("tokens", tenant, "hf", "value")]);
    plane.apply_yaml(&tokens).await.expect("applied");
    let flags = [
        "--enforcement-action",
        "deny",
        "--cert-settle-duration",
        "2s",
        "--cert-duration",
        "12s",
        "--cert-authority-duration",
        "24s",
    ];
    let one = site.replica(port(), &flags).await.expect("a replica");
    let other = site.replica(port(), &flags).await.expect("a replica");
    balancer.set(vec![(one.address, one.probes), (other.address, other.probes)]);
    let client = plane.client().await.expect("a client");
    eventually("the webhook is reached", DEADLINE, async || {
        let created = create(&client, tenant, &service("first", "tokens", "hf")).await;
        if created.code == 201 {
            Ok(())
        } else {
            Err(created.body.to_string())
        }
    })
    .await;

    let first = site.authorities().await.expect("a configuration");
    let (mut seen, mut looks, mut most) = (BTreeSet::new(), 0, 0);
    // Until two generations have come and gone.
    eventually("the authorities have been replaced twice", DEADLINE, async || {
        looks += 1;
        let trusted = site.authorities().await.map_err(|error| error.to_string())?;
        let now = authorities(&trusted);
        most = most.max(now.len());
        seen.extend(now.iter().map(|one| (*one).to_owned()));
        for replica in [&one, &other] {
            // A new connection, which the authorities of this moment have to do for.
            let burst = Burst::one(replica.address, trusted.clone(), tenant, ("tokens", "hf"));
            let answers = burst.send().await;
            let answers = answers.unwrap_or_else(|error| panic!("look {looks}: {error}\n{}", replica.process.log()));
            assert_eq!(answers.allowed, 1, "look {looks}: {answers:?}");
        }
        let created = create(&client, tenant, &service(&format!("m{looks}"), "tokens", "hf")).await;
        assert_eq!(created.code, 201, "look {looks}: {}", created.body);
        let gone = seen.iter().filter(|one| !now.contains(one.as_str())).count();
        if gone >= 2 {
            Ok(())
        } else {
            Err(format!("{gone} are gone, {} are there", now.len()))
        }
    })
    .await;
    assert!(
        !authorities(&first).is_empty() && most >= 2,
        "old and new ones were trusted beside each other"
    );
    assert!(looks > 20, "{looks} looks");
    let conflicts = [&one, &other].map(|replica| replica.process.log().matches("certificates made").count());
    assert!(conflicts.iter().sum::<usize>() >= 4, "{conflicts:?}");
}
