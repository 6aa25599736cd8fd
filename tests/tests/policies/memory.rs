//! Policies are not kept in memory.

use std::time::Duration;

use leanserve_tests::{Running, policies};
use testkit::eventually;

use crate::{DEADLINE, World, control_plane};

const POLICIES: usize = 1000;

/// What a thousand policies may cost at the very most; a benchmark measures it closely, with ten thousand. Kept, as an
/// object in a cache or a compiled program, they would cost tens of megabytes.
const MOST_KIB: u64 = 6 * 1024;

async fn settled(running: &Running) -> u64 {
    let mut before = u64::MAX;
    eventually("resident memory does not change", DEADLINE, async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = running
            .process
            .memory()
            .map_err(|error| error.to_string())?
            .resident_kib;
        let same = now.abs_diff(before) < 64;
        before = now;
        if same { Ok(now) } else { Err(format!("{now} KiB")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_policies_cost_next_to_nothing() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    world.apply(&policies::template("replicas")).await;
    world.apply(&policies::policy("first", "replicas", 1)).await;
    let running = world.operator().await;
    world.policies.all_in_force(1, DEADLINE).await.expect("in force");
    let without = settled(&running).await;
    world
        .policies
        .create_many("replicas", POLICIES, POLICIES)
        .await
        .expect("created");
    world
        .policies
        .all_in_force(POLICIES + 1, 4 * DEADLINE)
        .await
        .expect("in force");
    let with = settled(&running).await;
    println!("resident with 1 policy {without} KiB, with {} {with} KiB", POLICIES + 1);
    assert!(with < without + MOST_KIB, "{without} KiB, and then {with} KiB");
}
