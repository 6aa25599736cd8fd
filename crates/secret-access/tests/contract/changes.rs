//! Changes of tracked Secrets, with the right to `get` alone and with named watches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube_secret_access::{
    AccessOptions, Change, Changed, Changes, FinishedRequest, Mode, ObjectRef, Probe, SecretAccess, Source, Switch,
    TrackGuard, Want,
};
use proptest::prelude::*;
use serde_json::json;
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};
use tokio::time::Instant;

use crate::access::{Kind, seconds, secret, settle};

fn owner(name: &str) -> ObjectRef {
    ObjectRef::new("InferenceService", "ns", name)
}

fn track(switch: &Switch, name: &str, by: &str) -> TrackGuard {
    switch.track(secret(name), owner(by))
}

/// The next change, which has to come within what the access promises.
async fn next(switch: &Switch, changes: &mut Changes) -> Changed {
    let delay = switch.change_delay();
    let changed = tokio::time::timeout(delay, changes.next()).await;
    changed
        .unwrap_or_else(|_| panic!("nothing within {delay:?}"))
        .expect("the access is there")
}

async fn silent_for(changes: &mut Changes, time: Duration) {
    if let Ok(changed) = tokio::time::timeout(time, changes.next()).await {
        panic!("{changed:?}");
    }
}

/// Lets polls and reads that are due now happen.
async fn first_look() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[derive(Default)]
struct Told {
    changes: Mutex<Vec<Change>>,
    polls: Mutex<Vec<&'static str>>,
    tracked: AtomicUsize,
    untracked: AtomicUsize,
}

impl Probe for Told {
    fn changed(&self, change: Change) {
        self.changes.lock().expect("no panic while locked").push(change);
    }

    fn poll_finished(&self, poll: &FinishedRequest) {
        self.polls.lock().expect("no panic while locked").push(poll.result());
    }

    fn tracked(&self, secrets: usize) {
        self.tracked.store(secrets, Ordering::SeqCst);
    }

    fn untracked(&self, references: usize) {
        self.untracked.store(references, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_change_is_told_once_in_every_mode() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let told = Arc::new(Told::default());
        let switch = kind.probed(&api, AccessOptions::default(), told.clone());
        let mut changes = switch.changes();
        let _guard = track(&switch, "s", "a");
        first_look().await;
        api.put_secret("ns", "s", &[("k", b"1")]);
        let created = next(&switch, &mut changes).await;
        assert_eq!(
            (created.secret, created.change),
            (secret("s"), Change::Created),
            "{kind:?}"
        );
        assert_eq!(created.owners, [owner("a")]);
        api.put_secret("ns", "s", &[("k", b"2")]);
        assert_eq!(next(&switch, &mut changes).await.change, Change::Updated, "{kind:?}");
        api.delete_secret("ns", "s");
        assert_eq!(next(&switch, &mut changes).await.change, Change::Deleted, "{kind:?}");
        api.put_secret("ns", "s", &[("k", b"3")]);
        assert_eq!(next(&switch, &mut changes).await.change, Change::Created, "{kind:?}");
        api.delete_secret("ns", "s");
        api.put_secret("ns", "s", &[("k", b"3")]);
        assert_eq!(next(&switch, &mut changes).await.change, Change::Recreated, "{kind:?}");
        silent_for(&mut changes, seconds(200)).await;
        let seen = told.changes.lock().expect("no panic").clone();
        assert_eq!(seen.len(), 5, "{kind:?}");
        let polls = told.polls.lock().expect("no panic").clone();
        assert!(polls.contains(&"found") && polls.contains(&"not_found"), "{kind:?}");
    }
}

/// Whatever is written or deleted at whatever pace, what was told ends with what is there; each change is one that follows
/// from the one before, and reads are never behind.
#[test]
fn what_is_told_ends_with_the_truth() {
    let steps = prop::collection::vec((0..3_u8, 0_u64..90, any::<bool>()), 1..20);
    proptest!(ProptestConfig::with_cases(48), |(steps in steps, lru in any::<bool>())| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let api = FakeApi::new();
            let kind = if lru { Kind::Lru } else { Kind::Direct };
            let switch = kind.access(&api, AccessOptions::default());
            let mut changes = switch.changes();
            let _guard = track(&switch, "s", "a");
            first_look().await;
            let mut there = false;
            let mut check = |change: Change| {
                let possible = match change {
                    Change::Created => !there,
                    Change::Updated => there,
                    // What was there before may have come and gone unseen.
                    Change::Deleted | Change::Recreated => true,
                    _ => false,
                };
                there = change != Change::Deleted;
                assert!(possible, "{change:?}");
            };
            for (step, pause, read) in steps {
                match step {
                    0 => drop(api.delete_secret("ns", "s")),
                    1 => drop(api.put_secret("ns", "s", &[("k", b"1")])),
                    _ => {
                        api.delete_secret("ns", "s");
                        api.put_secret("ns", "s", &[("k", b"2")]);
                    }
                }
                if read {
                    let _ = switch.read(&secret("s"), Want::default()).await;
                }
                let until = Instant::now() + seconds(pause);
                while let Ok(changed) = tokio::time::timeout_at(until, changes.next()).await {
                    check(changed.expect("the access is there").change);
                }
            }
            let last = Instant::now() + switch.change_delay();
            while let Ok(changed) = tokio::time::timeout_at(last, changes.next()).await {
                check(changed.expect("the access is there").change);
            }
            let stored = api.stored("secrets", "ns", "s").is_some();
            assert_eq!(there, stored, "what was told last");
        });
    });
}

#[tokio::test(start_paused = true)]
async fn what_changes_between_a_read_and_the_tracking_is_told() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let switch = kind.access(&api, AccessOptions::default());
        let mut changes = switch.changes();
        // There, and missing.
        api.put_secret("ns", "s", &[("k", b"1")]);
        switch.read(&secret("s"), Want::default()).await.expect("readable");
        switch.read(&secret("m"), Want::default()).await.expect_err("missing");
        api.put_secret("ns", "s", &[("k", b"2")]);
        api.put_secret("ns", "m", &[("k", b"2")]);
        let _guards = (track(&switch, "s", "a"), track(&switch, "m", "a"));
        let mut told = [next(&switch, &mut changes).await, next(&switch, &mut changes).await];
        told.sort_by(|one, other| one.secret.cmp(&other.secret));
        let told: Vec<_> = told.into_iter().map(|one| (one.secret, one.change)).collect();
        assert_eq!(
            told,
            [(secret("m"), Change::Created), (secret("s"), Change::Updated)],
            "{kind:?}"
        );
    }
}

/// One owner's poll must not take a change away from another one that read before and tracks after it.
#[tokio::test(start_paused = true)]
async fn what_others_noticed_between_a_read_and_the_tracking_is_told_too() {
    let api = FakeApi::new();
    let switch = Kind::Lru.access(&api, AccessOptions::default());
    api.put_secret("ns", "s", &[("k", b"1")]);
    let mut changes = switch.changes();
    let _first = track(&switch, "s", "a");
    first_look().await;
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    api.put_secret("ns", "s", &[("k", b"2")]);
    assert_eq!(next(&switch, &mut changes).await.owners, [owner("a")]);
    let _second = track(&switch, "s", "b");
    let mut changed = next(&switch, &mut changes).await;
    assert_eq!(changed.change, Change::Updated);
    changed.owners.sort();
    assert_eq!(changed.owners, [owner("a"), owner("b")]);
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    let _third = track(&switch, "s", "c");
    silent_for(&mut changes, seconds(200)).await;
}

/// Without a read, the first look is what changes are told from.
#[tokio::test(start_paused = true)]
async fn the_first_look_is_silent_and_taken_at_once() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let switch = Kind::Direct.access(&api, AccessOptions::default());
    let mut changes = switch.changes();
    let _guards = (track(&switch, "s", "a"), track(&switch, "missing", "a"));
    first_look().await;
    assert_eq!(api.requests().len(), 2);
    assert!(
        api.requests()
            .iter()
            .all(testkit::fake_api::RecordedRequest::metadata_only)
    );
    silent_for(&mut changes, seconds(200)).await;
}

#[tokio::test(start_paused = true)]
async fn an_immutable_secret_that_was_created_anew_is_told_of() {
    let api = FakeApi::new();
    let put = |value: &str| {
        api.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "ns", "name": "s"},
            "immutable": true, "stringData": {"k": value},
        }))
    };
    put("1");
    let switch = Kind::Lru.access(&api, AccessOptions::default());
    let mut changes = switch.changes();
    let before = switch.read(&secret("s"), Want::default()).await.expect("readable");
    let _guard = track(&switch, "s", "a");
    api.delete_secret("ns", "s");
    put("2");
    assert_eq!(next(&switch, &mut changes).await.change, Change::Recreated);
    let after = switch.read(&secret("s"), Want::default()).await.expect("readable");
    assert_ne!(before.uid(), after.uid());
}

/// A held copy that the mode would still serve must not be served to who reads because of a change.
#[tokio::test(start_paused = true)]
async fn a_read_after_a_change_was_told_sees_it() {
    for kind in Kind::all() {
        for delete in [false, true] {
            let api = FakeApi::new();
            api.put_secret("ns", "s", &[("k", b"1")]);
            let mut options = AccessOptions::default();
            // Copies are good for an hour.
            options = options.with_bounds(100, 1 << 20, seconds(3600));
            let switch = kind.access(&api, options);
            let mut changes = switch.changes();
            switch.read(&secret("s"), Want::default()).await.expect("readable");
            let _guard = track(&switch, "s", "a");
            if delete {
                api.delete_secret("ns", "s");
            } else {
                api.put_secret("ns", "s", &[("k", b"2")]);
            }
            next(&switch, &mut changes).await;
            let read = switch.read(&secret("s"), Want::default()).await;
            if delete {
                read.expect_err("deleted");
                continue;
            }
            let read = read.expect("readable");
            assert_eq!(read.bytes("k").and_then(|bytes| bytes.as_str()), Some("2"), "{kind:?}");
            let cached = switch.read(&secret("s"), Want::default()).await.expect("readable");
            assert_eq!(
                cached.source() == Source::Cache,
                kind.caches(),
                "{kind:?}: and is kept again"
            );
        }
    }
}

/// Somebody else reads with a quorum and so sees the change before any poll does.
#[tokio::test(start_paused = true)]
async fn a_read_that_sees_a_change_first_tells_all_owners() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let switch = kind.access(&api, AccessOptions::default());
        let mut changes = switch.changes();
        switch.read(&secret("s"), Want::default()).await.expect("readable");
        let _guards = (track(&switch, "s", "a"), track(&switch, "s", "b"));
        api.put_secret("ns", "s", &[("k", b"2")]);
        switch.read(&secret("s"), Want::quorum()).await.expect("readable");
        let changed = tokio::time::timeout(Duration::from_millis(1), changes.next()).await;
        let changed = changed.expect("told at once").expect("the access is there");
        assert_eq!(changed.change, Change::Updated, "{kind:?}");
        assert_eq!(changed.owners.len(), 2);
        silent_for(&mut changes, seconds(200)).await;
    }
}

/// Two requests overlap, and the earlier is answered last: by a version or an absence that is over.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_tells_nothing_false() {
    for missing in [false, true] {
        let api = FakeApi::new();
        if !missing {
            api.put_secret("ns", "s", &[("k", b"1")]);
        }
        let switch = Kind::Direct.access(&api, AccessOptions::default());
        let mut changes = switch.changes();
        let _guard = track(&switch, "s", "a");
        first_look().await;
        let gate = api.hold_answers(RequestMatch::any().metadata_only(false));
        let slow = tokio::spawn({
            let switch = Arc::clone(&switch);
            async move { switch.read(&secret("s"), Want::default()).await }
        });
        gate.wait_for(1).await;
        api.clear_faults();
        api.put_secret("ns", "s", &[("k", b"2")]);
        let expected = if missing { Change::Created } else { Change::Updated };
        switch.read(&secret("s"), Want::quorum()).await.expect("readable");
        assert_eq!(next(&switch, &mut changes).await.change, expected);
        gate.open();
        assert_eq!(slow.await.expect("no panic").is_err(), missing);
        silent_for(&mut changes, seconds(200)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_gets_the_difference_and_others_all() {
    let api = FakeApi::new();
    let switch = Kind::Direct.access(&api, AccessOptions::default());
    let mut slow = switch.changes();
    let mut quick = switch.changes();
    let _guards = (track(&switch, "s", "a"), track(&switch, "t", "a"));
    first_look().await;
    for value in 0..5_u8 {
        api.put_secret("ns", "s", &[("k", &[value])]);
        let changed = next(&switch, &mut quick).await;
        let expected = if value == 0 { Change::Created } else { Change::Updated };
        assert_eq!(changed.change, expected);
    }
    api.delete_secret("ns", "s");
    next(&switch, &mut quick).await;
    api.put_secret("ns", "s", &[("k", b"x")]);
    next(&switch, &mut quick).await;
    let merged = next(&switch, &mut slow).await;
    assert_eq!((merged.secret, merged.change), (secret("s"), Change::Recreated));
    silent_for(&mut slow, seconds(200)).await;
    // Who subscribes now is told what happens from now on.
    let mut late = switch.changes();
    silent_for(&mut late, seconds(200)).await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_no_changes_and_waited_out() {
    for fault in [
        Fault::status(403),
        Fault::status(429).header("Retry-After", "30"),
        Fault::status(503),
        Fault::Hang,
        Fault::Garbage,
        Fault::Close,
    ] {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let told = Arc::new(Told::default());
        let switch = Kind::Direct.probed(&api, AccessOptions::default(), told.clone());
        let mut changes = switch.changes();
        let _guard = track(&switch, "s", "a");
        first_look().await;
        api.inject(RequestMatch::any(), Times::Always, fault.clone());
        api.delete_secret("ns", "s");
        api.forget_requests();
        silent_for(&mut changes, seconds(600)).await;
        let requests = api.requests().len();
        assert!((9..=24).contains(&requests), "{fault:?}: {requests} requests in 10 min");
        let polls = told.polls.lock().expect("no panic").clone();
        assert!(
            polls.iter().filter(|result| **result != "found").count() >= 9,
            "{polls:?}"
        );
        api.clear_faults();
        assert_eq!(next(&switch, &mut changes).await.change, Change::Deleted, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_asks_for_a_pause_nothing_is_polled() {
    let api = FakeApi::new();
    let switch = Kind::Direct.access(&api, AccessOptions::default());
    let guards: Vec<_> = (0..50)
        .map(|number| track(&switch, &format!("s{number}"), "a"))
        .collect();
    let throttled = Fault::status(429).header("Retry-After", "40");
    api.inject(RequestMatch::any(), Times::N(1), throttled);
    tokio::time::sleep(seconds(39)).await;
    assert_eq!(api.requests().len(), 1);
    tokio::time::sleep(seconds(10)).await;
    assert!(api.requests().len() > 50);
    drop(guards);
}

/// When each request came. Time is paused, so this is exact.
#[derive(Default)]
struct Arrivals(Mutex<Vec<Instant>>);

impl Probe for Arrivals {
    fn poll_finished(&self, _: &FinishedRequest) {
        self.0.lock().expect("no panic while locked").push(Instant::now());
    }
}

impl Arrivals {
    /// The most polls within any second.
    fn most_in_a_second(&self) -> usize {
        let arrivals = self.0.lock().expect("no panic while locked");
        let within = |first: &Instant| {
            let end = *first + seconds(1);
            arrivals.iter().filter(|at| *at >= first && **at < end).count()
        };
        arrivals.iter().map(within).max().unwrap_or(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tracked_secrets_stay_below_the_rate_and_each_is_looked_at_in_time() {
    let api = FakeApi::new();
    for number in 0..1000 {
        api.put_secret("ns", &format!("s{number}"), &[("k", b"1")]);
    }
    let arrivals = Arc::new(Arrivals::default());
    let switch = Kind::Direct.probed(&api, AccessOptions::default(), arrivals.clone());
    let mut changes = switch.changes();
    let guards: Vec<_> = (0..1000)
        .map(|number| track(&switch, &format!("s{number}"), "a"))
        .collect();
    let promised = switch.change_delay();
    assert!(promised >= seconds(100) && promised <= seconds(111), "{promised:?}");
    tokio::time::sleep(promised).await;
    // All were looked at by now. From here on, each change is told within the promise.
    for round in 0..2_u8 {
        for number in (0..1000).step_by(37) {
            api.put_secret("ns", &format!("s{number}"), &[("k", &[round])]);
        }
        let written = Instant::now();
        for _ in (0..1000).step_by(37) {
            let changed = tokio::time::timeout_at(written + promised, changes.next()).await;
            assert_eq!(
                changed.expect("in time").expect("the access is there").change,
                Change::Updated
            );
        }
    }
    assert!(arrivals.most_in_a_second() <= 10, "{}", arrivals.most_in_a_second());
    // Nor is there a burst after a pause.
    drop(guards);
    tokio::time::sleep(seconds(300)).await;
    let _guards: Vec<_> = (0..100)
        .map(|number| track(&switch, &format!("s{number}"), "a"))
        .collect();
    tokio::time::sleep(seconds(20)).await;
    assert!(arrivals.most_in_a_second() <= 10);
}

/// The promise under load that shifts: some Secrets are missing and polled fast, others come and go.
#[tokio::test(start_paused = true)]
async fn secrets_polled_fast_do_not_make_others_late() {
    let api = FakeApi::new();
    for number in 0..400 {
        api.put_secret("ns", &format!("s{number}"), &[("k", b"1")]);
    }
    let switch = Kind::Direct.access(&api, AccessOptions::default());
    let mut changes = switch.changes();
    let _calm: Vec<_> = (0..400)
        .map(|number| track(&switch, &format!("s{number}"), "a"))
        .collect();
    tokio::time::sleep(switch.change_delay()).await;
    let _missing: Vec<_> = (0..190)
        .map(|number| track(&switch, &format!("m{number}"), "a"))
        .collect();
    let promised = switch.change_delay();
    assert_eq!(promised, seconds(70));
    for number in 0..400 {
        api.put_secret("ns", &format!("s{number}"), &[("k", b"2")]);
    }
    let written = Instant::now();
    for _ in 0..400 {
        let changed = tokio::time::timeout_at(written + promised, changes.next()).await;
        assert_eq!(
            changed.expect("in time").expect("the access is there").change,
            Change::Updated
        );
    }
}

#[tokio::test(start_paused = true)]
async fn at_rest_a_hundred_secrets_cost_less_than_two_requests_a_second() {
    for kind in Kind::all() {
        let api = FakeApi::new();
        let switch = kind.access(&api, AccessOptions::default());
        let mut guards = Vec::new();
        for number in 0..100 {
            let name = format!("s{number}");
            api.put_secret("ns", &name, &[("k", b"1")]);
            switch.read(&secret(&name), Want::default()).await.expect("readable");
            guards.push(track(&switch, &name, "a"));
        }
        api.forget_requests();
        tokio::time::sleep(seconds(50)).await;
        assert_eq!(api.count("get", "secrets"), 0, "{kind:?}: they were just read");
        tokio::time::sleep(seconds(60)).await;
        api.forget_requests();
        tokio::time::sleep(seconds(600)).await;
        let requests = api.count("get", "secrets");
        assert!((1000..=1120).contains(&requests), "{kind:?}: {requests} in 10 min");
    }
}

/// A poll proves that a held copy is current, and a read that asks the API server makes a poll superfluous.
#[tokio::test(start_paused = true)]
async fn reads_and_polls_together_cost_one_request_an_interval() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let switch = kind.access(&api, AccessOptions::default());
        switch.read(&secret("s"), Want::default()).await.expect("readable");
        let _guard = track(&switch, "s", "a");
        api.forget_requests();
        for _ in 0..600 {
            tokio::time::sleep(seconds(1)).await;
            let read = switch.read(&secret("s"), Want::default()).await.expect("readable");
            assert_eq!(read.source(), Source::Cache, "{kind:?}");
        }
        assert!(
            api.requests().len() <= 12,
            "{kind:?}: {} in 10 min",
            api.requests().len()
        );
    }
    // Reads that ask anyway: no poll at all.
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let switch = Kind::Direct.access(&api, AccessOptions::default());
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    let _guard = track(&switch, "s", "a");
    for _ in 0..20 {
        tokio::time::sleep(seconds(50)).await;
        switch.read(&secret("s"), Want::default()).await.expect("readable");
    }
    assert_eq!(
        api.requests().iter().filter(|request| request.metadata_only()).count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_looked_for_often_and_then_less() {
    let api = FakeApi::new();
    let switch = Kind::Lru.access(&api, AccessOptions::default());
    let mut changes = switch.changes();
    let _guard = track(&switch, "s", "a");
    tokio::time::sleep(seconds(61)).await;
    let first_minute = api.requests().len();
    assert!((12..=15).contains(&first_minute), "{first_minute}");
    tokio::time::sleep(seconds(300)).await;
    api.forget_requests();
    tokio::time::sleep(seconds(600)).await;
    let later = api.requests().len();
    assert!((10..=12).contains(&later), "{later} in 10 min");
    api.put_secret("ns", "s", &[("k", b"1")]);
    assert_eq!(next(&switch, &mut changes).await.change, Change::Created);
    // It changes again soon after, as what was just created often does.
    api.put_secret("ns", "s", &[("k", b"2")]);
    let soon = tokio::time::timeout(seconds(6), changes.next()).await;
    assert_eq!(
        soon.expect("within the fast interval").map(|one| one.change),
        Some(Change::Updated)
    );
}

#[tokio::test(start_paused = true)]
async fn references_are_counted_and_the_last_one_ends_the_polls() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let told = Arc::new(Told::default());
    let switch = Kind::Direct.probed(&api, AccessOptions::default(), told.clone());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut changes = switch.changes();
    let (first, second, other) = (
        track(&switch, "s", "a"),
        track(&switch, "s", "a"),
        track(&switch, "s", "b"),
    );
    assert_eq!((first.secret(), first.owner()), (&secret("s"), &owner("a")));
    first_look().await;
    api.put_secret("ns", "s", &[("k", b"2")]);
    let mut owners = next(&switch, &mut changes).await.owners;
    owners.sort();
    assert_eq!(owners, [owner("a"), owner("b")]);
    drop(first);
    drop(other);
    api.put_secret("ns", "s", &[("k", b"3")]);
    assert_eq!(next(&switch, &mut changes).await.owners, [owner("a")]);
    // A change that waits goes with the last reference.
    api.put_secret("ns", "s", &[("k", b"4")]);
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    assert_eq!(told.tracked.load(Ordering::SeqCst), 1);
    drop(second);
    assert_eq!(told.tracked.load(Ordering::SeqCst), 0);
    api.forget_requests();
    silent_for(&mut changes, seconds(600)).await;
    assert_eq!(api.requests().len(), 0);
    assert_eq!(tasks(), before);
    // And it begins again.
    let _again = track(&switch, "s", "a");
    api.put_secret("ns", "s", &[("k", b"5")]);
    assert_eq!(next(&switch, &mut changes).await.change, Change::Updated);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_when_the_access_is_dropped() {
    let api = FakeApi::new();
    let mut options = AccessOptions::default();
    options.changes.named_watches = 2;
    let switch = Kind::Direct.access(&api, options);
    let mut changes = switch.changes();
    let guards: Vec<_> = (0..20)
        .map(|number| track(&switch, &format!("s{number}"), "a"))
        .collect();
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(api.open_watches(), 2);
    let gate = api.hold(RequestMatch::any());
    tokio::time::timeout(seconds(60), gate.wait_for(2))
        .await
        .expect("polls go on");
    let waiting = tokio::spawn(async move { changes.next().await });
    settle().await;
    drop(switch);
    assert_eq!(waiting.await.expect("no panic"), None, "the stream ends");
    settle().await;
    assert_eq!(api.open_watches(), 0);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    drop(guards);
}

#[tokio::test(start_paused = true)]
async fn references_outlive_the_mode_and_a_change_of_it_polls_nothing() {
    let api = FakeApi::new();
    let mut guards = Vec::new();
    let switch = Kind::Direct.access(&api, AccessOptions::for_mode(Mode::Direct));
    let mut changes = switch.changes();
    for number in 0..100 {
        let name = format!("s{number}");
        api.put_secret("ns", &name, &[("k", b"1")]);
        switch.read(&secret(&name), Want::default()).await.expect("readable");
        guards.push(track(&switch, &name, "a"));
    }
    api.forget_requests();
    for mode in [Mode::Lru, Mode::Auto, Mode::Direct, Mode::Lru] {
        let mut options = AccessOptions::for_mode(mode);
        options.auto.watch = false;
        switch.set(options).expect("valid options");
        tokio::time::sleep(seconds(1)).await;
    }
    assert_eq!(api.requests().len(), 0);
    api.put_secret("ns", "s7", &[("k", b"2")]);
    assert_eq!(next(&switch, &mut changes).await.secret, secret("s7"));
    // A shorter interval holds at once.
    let mut options = AccessOptions::for_mode(Mode::Lru);
    options.changes.poll_interval = seconds(10);
    switch.set(options).expect("valid options");
    api.put_secret("ns", "s8", &[("k", b"2")]);
    let changed = tokio::time::timeout(seconds(11), changes.next()).await;
    assert_eq!(
        changed.expect("in time").expect("the access is there").secret,
        secret("s8")
    );
}

#[tokio::test(start_paused = true)]
async fn references_beyond_the_bound_are_counted_and_not_watched_over() {
    let api = FakeApi::new();
    let told = Arc::new(Told::default());
    let mut options = AccessOptions::default();
    options.changes.max_tracked = 2;
    let switch = Kind::Direct.probed(&api, options, told.clone());
    let mut changes = switch.changes();
    let guards = ["a", "b", "c", "c"].map(|name| track(&switch, name, "x"));
    let _same = track(&switch, "a", "y");
    assert_eq!(
        guards.each_ref().map(TrackGuard::is_watched_over),
        [true, true, false, false]
    );
    assert_eq!(told.untracked.load(Ordering::SeqCst), 2);
    first_look().await;
    api.put_secret("ns", "c", &[("k", b"1")]);
    silent_for(&mut changes, seconds(200)).await;
    assert!(
        api.requests()
            .iter()
            .all(|request| request.name.as_deref() != Some("c"))
    );
    drop(guards);
    assert_eq!(told.untracked.load(Ordering::SeqCst), 0);
    assert!(track(&switch, "c", "x").is_watched_over());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_restored_from_a_backup_is_noticed() {
    let api = FakeApi::new();
    api.advance(1000);
    api.put_secret("ns", "s", &[("k", b"lost")]);
    let switch = Kind::Lru.access(&api, AccessOptions::default());
    let mut changes = switch.changes();
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    let _guard = track(&switch, "s", "a");
    let old = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"namespace": "ns", "name": "s", "uid": "restored", "resourceVersion": "7"},
    });
    let restored = Fault::status(200).body(&old.to_string());
    api.inject(RequestMatch::any().metadata_only(true), Times::Always, restored);
    assert_eq!(next(&switch, &mut changes).await.change, Change::Recreated);
    silent_for(&mut changes, seconds(200)).await;
}

fn named(watches: usize) -> AccessOptions {
    let mut options = AccessOptions::for_mode(Mode::Lru);
    options.changes.named_watches = watches;
    options
}

/// What the API server was asked about Secrets by `get`.
fn polls(api: &FakeApi) -> usize {
    api.count("get", "secrets")
}

async fn told_at_once(changes: &mut Changes) -> Change {
    // A tenth of a second, should a poll have to tell which of two things came first.
    let changed = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
    changed.expect("told at once").expect("the access is there").change
}

#[tokio::test(start_paused = true)]
async fn a_named_watch_tells_at_once_and_needs_no_polls() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let switch = Kind::Lru.access(&api, named(1));
    let mut changes = switch.changes();
    let _guards = (track(&switch, "s", "a"), track(&switch, "t", "a"));
    first_look().await;
    assert_eq!(api.open_watches(), 1);
    let first = api
        .requests()
        .into_iter()
        .find(|request| request.verb == "list")
        .expect("a list");
    assert_eq!(first.query("fieldSelector").as_deref(), Some("metadata.name=s"));
    assert!(first.metadata_only() && first.query("limit").as_deref() == Some("1"));
    api.put_secret("ns", "s", &[("k", b"2")]);
    assert_eq!(told_at_once(&mut changes).await, Change::Updated);
    api.delete_secret("ns", "s");
    assert_eq!(told_at_once(&mut changes).await, Change::Deleted);
    switch.read(&secret("s"), Want::default()).await.expect_err("deleted");
    api.put_secret("ns", "s", &[("k", b"3")]);
    assert_eq!(told_at_once(&mut changes).await, Change::Created);
    api.delete_secret("ns", "s");
    api.put_secret("ns", "s", &[("k", b"4")]);
    settle().await;
    assert_eq!(told_at_once(&mut changes).await, Change::Recreated);
    // Another Secret of the namespace is none of its business.
    api.put_secret("ns", "u", &[("k", b"4")]);
    api.forget_requests();
    silent_for(&mut changes, seconds(300)).await;
    let of_s = |request: &&testkit::fake_api::RecordedRequest| request.name.as_deref() == Some("s");
    assert_eq!(api.requests().iter().filter(of_s).count(), 0);
    assert!(polls(&api) > 0, "t is polled: there is one place");
    assert_eq!(api.count("list", "secrets"), 0, "renewed from where it was");
    assert!((9..=11).contains(&api.count("watch", "secrets")));
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_watch_it_is_polled_and_asked_again_later() {
    for verb in ["list", "watch"] {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        api.forbid(verb, "secrets");
        let switch = Kind::Lru.access(&api, named(5));
        let mut changes = switch.changes();
        let _guard = track(&switch, "s", "a");
        tokio::time::sleep(seconds(250)).await;
        assert_eq!(api.count(verb, "secrets"), 1);
        assert!(polls(&api) >= 4);
        api.put_secret("ns", "s", &[("k", b"2")]);
        assert_eq!(next(&switch, &mut changes).await.change, Change::Updated);
        // Granted later, and taken away again while it is in use.
        api.permit(verb, "secrets");
        tokio::time::sleep(seconds(400)).await;
        assert_eq!(api.open_watches(), 1);
        api.put_secret("ns", "s", &[("k", b"3")]);
        assert_eq!(told_at_once(&mut changes).await, Change::Updated);
        api.forbid("watch", "secrets");
        tokio::time::sleep(seconds(40)).await;
        assert_eq!(api.open_watches(), 0);
        api.put_secret("ns", "s", &[("k", b"4")]);
        assert_eq!(next(&switch, &mut changes).await.change, Change::Updated);
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_watch_that_loses_its_place_lists_again() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let switch = Kind::Lru.access(&api, named(1));
    let mut changes = switch.changes();
    let _guard = track(&switch, "s", "a");
    first_look().await;
    // As HTTP status and as an event, with a change that nobody told of.
    for as_event in [false, true] {
        let gone = if as_event {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410});
            Fault::status(200).body(&format!("{}\n", json!({"type": "ERROR", "object": status})))
        } else {
            Fault::status(410)
        };
        api.inject(RequestMatch::verb("watch"), Times::N(1), gone);
        let lists = api.count("list", "secrets");
        api.close_watches();
        api.put_secret("ns", "s", &[("k", b"2")]);
        let changed = tokio::time::timeout(seconds(40), changes.next())
            .await
            .expect("it lists again");
        assert_eq!(changed.map(|one| one.change), Some(Change::Updated));
        // Should a poll have told of it: the list comes after two short waits at the most.
        tokio::time::sleep(seconds(10)).await;
        assert_eq!(api.count("list", "secrets"), lists + 1);
        assert_eq!(api.open_watches(), 1);
    }
}

/// A connection that is dead without anybody noticing, or lines that make no sense: found out, and polled meanwhile.
#[tokio::test(start_paused = true)]
async fn a_named_watch_that_breaks_is_replaced_by_polls_until_it_is_back() {
    for fault in [
        Fault::Hang,
        Fault::StalledBody,
        Fault::Garbage,
        Fault::Truncated,
        Fault::status(500),
    ] {
        let api = FakeApi::new();
        api.put_secret("ns", "s", &[("k", b"1")]);
        let switch = Kind::Lru.access(&api, named(1));
        let mut changes = switch.changes();
        let _guard = track(&switch, "s", "a");
        first_look().await;
        api.inject(RequestMatch::verb("watch"), Times::Always, fault.clone());
        api.close_watches();
        tokio::time::sleep(seconds(1)).await;
        api.put_secret("ns", "s", &[("k", b"2")]);
        let changed = tokio::time::timeout(seconds(30 + 5) + switch.change_delay(), changes.next()).await;
        assert_eq!(
            changed.expect("polled").map(|one| one.change),
            Some(Change::Updated),
            "{fault:?}"
        );
        api.clear_faults();
        tokio::time::sleep(seconds(700)).await;
        assert_eq!(api.open_watches(), 1, "{fault:?}");
        api.put_secret("ns", "s", &[("k", b"3")]);
        assert_eq!(told_at_once(&mut changes).await, Change::Updated, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_goes_to_the_next_when_nobody_refers_to_its_secret() {
    let api = FakeApi::new();
    for name in ["s", "t", "u"] {
        api.put_secret("ns", name, &[("k", b"1")]);
    }
    let switch = Kind::Lru.access(&api, named(1));
    let mut changes = switch.changes();
    let first = track(&switch, "s", "a");
    first_look().await;
    let _second = track(&switch, "t", "a");
    let _third = track(&switch, "u", "a");
    first_look().await;
    drop(first);
    first_look().await;
    assert_eq!(api.open_watches(), 1);
    api.put_secret("ns", "t", &[("k", b"2")]);
    assert_eq!(told_at_once(&mut changes).await, Change::Updated);
    // Fewer places, and then none.
    switch.set(named(2)).expect("valid options");
    first_look().await;
    assert_eq!(api.open_watches(), 2);
    switch.set(named(0)).expect("valid options");
    first_look().await;
    assert_eq!(api.open_watches(), 0);
    api.put_secret("ns", "t", &[("k", b"3")]);
    assert_eq!(next(&switch, &mut changes).await.change, Change::Updated);
}

/// With the rights to list and watch.
fn watching(api: &FakeApi, mode: Mode) -> Arc<Switch> {
    Arc::new(Switch::new(api.client(), AccessOptions::for_mode(mode)).expect("valid options"))
}

#[tokio::test(start_paused = true)]
async fn where_the_mode_watches_changes_are_told_at_once_and_what_is_held_is_not_polled() {
    for mode in [Mode::Watch, Mode::Auto] {
        let api = FakeApi::new();
        for name in ["s", "t"] {
            api.put_secret("ns", name, &[("k", b"1")]);
        }
        let switch = watching(&api, mode);
        first_look().await;
        let mut changes = switch.changes();
        // One was read and one never.
        switch.read(&secret("s"), Want::default()).await.expect("readable");
        let _guards = (track(&switch, "s", "a"), track(&switch, "t", "a"));
        first_look().await;
        for name in ["s", "t"] {
            api.put_secret("ns", name, &[("k", b"2")]);
            assert_eq!(told_at_once(&mut changes).await, Change::Updated, "{mode}");
            let read = switch.read(&secret(name), Want::default()).await.expect("readable");
            assert_eq!(read.bytes("k").and_then(|bytes| bytes.as_str()), Some("2"));
        }
        silent_for(&mut changes, seconds(600)).await;
        assert_eq!(polls(&api), 0, "{mode}");
        api.delete_secret("ns", "s");
        assert_eq!(told_at_once(&mut changes).await, Change::Deleted, "{mode}");
        api.put_secret("ns", "s", &[("k", b"3")]);
        assert_eq!(told_at_once(&mut changes).await, Change::Created, "{mode}");
        api.delete_secret("ns", "s");
        api.put_secret("ns", "s", &[("k", b"4")]);
        settle().await;
        assert_eq!(told_at_once(&mut changes).await, Change::Recreated, "{mode}");
    }
}

/// What the watch told before anybody tracked is no secret between the two.
#[tokio::test(start_paused = true)]
async fn a_change_that_the_watch_told_before_it_was_tracked_is_told() {
    let api = FakeApi::new();
    api.put_secret("ns", "s", &[("k", b"1")]);
    let switch = watching(&api, Mode::Direct);
    let mut changes = switch.changes();
    switch.read(&secret("s"), Want::default()).await.expect("readable");
    api.put_secret("ns", "s", &[("k", b"2")]);
    switch.set(AccessOptions::for_mode(Mode::Watch)).expect("valid options");
    first_look().await;
    let _guard = track(&switch, "s", "a");
    assert_eq!(next(&switch, &mut changes).await.change, Change::Updated);
}

/// The watch breaks or its right is taken away: polls take over, and nothing is lost meanwhile.
#[tokio::test(start_paused = true)]
async fn when_the_watch_ends_polls_take_over() {
    let api = FakeApi::new();
    for name in ["s", "t"] {
        api.put_secret("ns", name, &[("k", b"1")]);
    }
    let switch = watching(&api, Mode::Watch);
    first_look().await;
    let mut changes = switch.changes();
    let _guards = (track(&switch, "s", "a"), track(&switch, "t", "a"));
    first_look().await;
    api.forbid("watch", "secrets");
    api.forbid("list", "secrets");
    api.close_watches();
    tokio::time::sleep(seconds(1)).await;
    api.put_secret("ns", "s", &[("k", b"2")]);
    api.delete_secret("ns", "t");
    let mut told = [next(&switch, &mut changes).await, next(&switch, &mut changes).await];
    told.sort_by(|one, other| one.secret.cmp(&other.secret));
    assert_eq!((told[0].change, told[1].change), (Change::Updated, Change::Deleted));
    // Back again: nothing is told twice, and what happened in between is.
    api.permit("watch", "secrets");
    api.permit("list", "secrets");
    tokio::time::sleep(seconds(700)).await;
    api.put_secret("ns", "t", &[("k", b"3")]);
    assert_eq!(told_at_once(&mut changes).await, Change::Created);
    silent_for(&mut changes, seconds(300)).await;
}
