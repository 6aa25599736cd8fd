//! A change of a policy leaves no moment unenforced, and a policy that says it is in force is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use leanserve_tests::{policies, services};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{World, answer, control_plane};

/// Changes of the parameters, one after the other.
const CHANGES: u32 = 24;

/// Violates every one of the parameters.
const FAR_TOO_MANY: u32 = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_violates_old_and_new_parameters_is_admitted_while_they_change() {
    let plane = control_plane().await;
    let world = World::on(&plane).await;
    let _running = world.operator().await;
    world.apply(&policies::template("replicas")).await;
    world.enforce("few", 3).await;

    let (stop, tried, admitted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let writer = tokio::spawn({
        let services = services::api(world.client.clone(), "default");
        let (stop, tried, admitted) = (Arc::clone(&stop), Arc::clone(&tried), Arc::clone(&admitted));
        async move {
            let mut writes = JoinSet::new();
            let mut pace = interval(Duration::from_millis(20));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                let (services, tried, admitted) = (services.clone(), Arc::clone(&tried), Arc::clone(&admitted));
                writes.spawn(async move {
                    match answer(&services, FAR_TOO_MANY).await {
                        Err(text) if text.contains("maxReplicas is more than") => {}
                        Err(text) => panic!("refused for another reason: {text}"),
                        Ok(()) => {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                });
                while let Some(ended) = writes.try_join_next() {
                    ended.expect("no panic");
                }
            }
            while let Some(ended) = writes.join_next().await {
                ended.expect("no panic");
            }
        }
    });

    for change in 1..=CHANGES {
        // Wider and narrower.
        let most = if change % 2 == 0 { change + 10 } else { 40 - change };
        world.enforce("few", most).await;
        // From the first request on.
        assert_eq!(
            world.answer(most).await,
            Ok(()),
            "change {change}: the new parameters allow it"
        );
        let refused = world
            .answer(most + 1)
            .await
            .expect_err("the new parameters do not allow it");
        assert!(
            refused.contains(&format!("maxReplicas is more than {most}")),
            "{refused}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("no panic");
    let (tried, admitted) = (tried.load(Ordering::Relaxed), admitted.load(Ordering::Relaxed));
    println!("{CHANGES} changes, {tried} writes that violate old and new parameters, {admitted} admitted");
    assert!(
        tried > 10 * usize::try_from(CHANGES).expect("small"),
        "{tried} are too few to tell"
    );
    assert_eq!(admitted, 0, "of {tried}");
    world
        .policies
        .nothing_left_behind(crate::DEADLINE)
        .await
        .expect("no admission policy of earlier parameters");
}
