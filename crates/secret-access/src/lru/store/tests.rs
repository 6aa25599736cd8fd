use std::sync::Arc;
use std::time::Duration;

use super::*;

mod fairness;
mod model;
mod policy;

fn secret(namespace: usize, number: usize) -> SecretRef {
    SecretRef::new(&format!("ns{namespace}"), &format!("s{number}")).expect("valid")
}

fn sent(at: Instant) -> Sent {
    Sent {
        at,
        moment: Moment::next(),
    }
}

fn found(secret: SecretRef, version: u64, bytes: usize, sent: Sent) -> Answer {
    let snapshot = SecretSnapshot::builder(secret)
        .uid("u")
        .resource_version(version)
        .data("k", vec![7; bytes]);
    Answer {
        found: Some(Arc::new(snapshot.build_validated_at(Some(sent.at)))),
        sent,
    }
}

fn absent(sent: Sent) -> Answer {
    Answer { found: None, sent }
}

fn one(number: usize) -> SecretRef {
    secret(0, number)
}

fn put(store: &mut Store, number: usize, version: u64, bytes: usize, now: Instant) -> Removed {
    store.insert(&one(number), &found(one(number), version, bytes, sent(now)), now)
}

fn weight(number: usize, bytes: usize) -> usize {
    let answer = found(one(number), 1, bytes, sent(Instant::now()));
    answer.found.map_or(0, |found| found.cost()) + Contents::ENTRY_BYTES
}

fn version(answer: Option<Answer>) -> Option<u64> {
    answer?.found.map(|found| found.resource_version().number())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn answers_of_overlapping_requests_may_arrive_in_any_order() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions::default());
    let (first, second) = (sent(now), sent(now));
    store.insert(&one(1), &found(one(1), 8, 10, second), now);
    store.insert(&one(1), &found(one(1), 7, 10, first), now);
    assert_eq!(version(store.held(&one(1), now)), Some(8));
    // Sent first, but answered with something newer.
    let (third, fourth) = (sent(now), sent(now));
    store.insert(&one(2), &found(one(2), 7, 10, fourth), now);
    store.insert(&one(2), &found(one(2), 8, 10, third), now);
    assert_eq!(version(store.held(&one(2), now)), Some(8));
    // Sent after the other was received: the truth, even if lower.
    put(&mut store, 2, 3, 10, now);
    assert_eq!(version(store.held(&one(2), now)), Some(3));
    // The same version: the later age.
    let (fifth, sixth) = (sent(now), sent(now + seconds(1)));
    store.insert(&one(2), &found(one(2), 3, 10, fifth), now);
    store.insert(&one(2), &found(one(2), 3, 10, sixth), now);
    assert_eq!(store.held(&one(2), now).map(|answer| answer.sent), Some(sixth));
    let again = store.insert(&one(2), &found(one(2), 3, 10, fifth), now);
    assert_eq!(store.held(&one(2), now).map(|answer| answer.sent), Some(sixth));
    assert!(again.contents.is_empty());
    let again = store.insert(&one(2), &found(one(2), 3, 10, sixth), now);
    assert!(again.contents.is_empty(), "by another reader that shared the request");
}

#[test]
fn absences_and_contents_take_each_others_place_in_the_order_of_requests() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions::default());
    let (first, second) = (sent(now), sent(now));
    store.insert(&one(1), &absent(second), now);
    store.insert(&one(1), &found(one(1), 7, 10, first), now);
    assert!(store.held(&one(1), now).is_some_and(|held| held.found.is_none()));
    put(&mut store, 1, 7, 10, now);
    assert_eq!((version(store.held(&one(1), now)), store.size().entries), (Some(7), 1));
    let removed = store.insert(&one(1), &absent(sent(now)), now);
    assert_eq!((removed.contents.len(), removed.reasons()), (1, [].as_slice()));
    assert_eq!(store.size().entries, 1);
    assert_eq!(store.size().bytes, absence_cost(&one(1)));
    // Asked before the absence was.
    store.insert(&one(1), &found(one(1), 9, 10, first), now);
    assert!(store.held(&one(1), now).is_some_and(|held| held.found.is_none()));
}

#[test]
fn content_is_held_at_any_age_and_an_absence_for_a_moment() {
    let start = Instant::now();
    let at = |after| start + seconds(after);
    let mut store = Store::new(LruOptions::default());
    put(&mut store, 1, 1, 10, start);
    store.insert(&one(2), &absent(sent(at(9))), at(10));
    assert!(store.held(&one(2), at(11)).is_some());
    assert!(store.held(&one(2), at(12)).is_none());
    let too_late = store.insert(&one(3), &absent(sent(at(9))), at(12));
    assert_eq!(too_late.reasons(), [Eviction::Age]);
    assert!(store.held(&one(1), at(1000)).is_some());
    assert_eq!(store.expire(at(12)).reasons(), [Eviction::Age]);
    assert_eq!(store.size().entries, 1);
}

#[test]
fn what_is_not_read_goes_and_what_is_read_stays() {
    let start = Instant::now();
    let at = |after| start + seconds(after);
    let mut store = Store::new(LruOptions::default());
    put(&mut store, 1, 1, 10, start);
    put(&mut store, 2, 1, 10, at(1));
    store.held(&one(1), at(100));
    assert!(store.expire(at(301)).reasons().is_empty());
    assert_eq!(store.expire(at(302)).reasons(), [Eviction::Idle]);
    assert!(store.held(&one(1), at(302)).is_some());
    // Asked about an earlier time, as two threads may be: that does not make it idle.
    store.held(&one(1), at(200));
    assert!(store.expire(at(360)).reasons().is_empty());
    // Read all the time, but the API server does not answer: nobody could be served this any more.
    assert_eq!(store.expire(at(361)).reasons(), [Eviction::Age]);
    assert!(store.is_empty());
}

#[test]
fn what_is_confirmed_stays_beyond_its_age() {
    let start = Instant::now();
    let at = |after| start + seconds(after);
    let mut store = Store::new(LruOptions::default());
    let early = sent(start);
    put(&mut store, 1, 7, 10, start);
    put(&mut store, 2, 7, 10, start);
    let bytes = store.size().bytes;
    let version = ResourceVersion::new(7);
    let later = sent(at(300));
    assert!(store.confirm(&one(1), "u", version, later));
    let held = store.held(&one(1), at(300)).expect("it is held");
    assert_eq!(held.sent, later);
    let snapshot = held.found.expect("content");
    assert_eq!(
        (snapshot.validated_at(), snapshot.source()),
        (Some(at(300)), Source::Cache)
    );
    // An answer to an earlier request says nothing new.
    assert!(store.confirm(&one(1), "u", version, early));
    assert_eq!(store.held(&one(1), at(300)).map(|held| held.sent), Some(later));
    for (uid, version) in [("v", 7), ("u", 8), ("u", 6)] {
        assert!(!store.confirm(&one(2), uid, ResourceVersion::new(version), sent(at(300))));
    }
    assert!(!store.confirm(&one(3), "u", version, sent(at(300))));
    assert_eq!(store.size().bytes, bytes);
    store.held(&one(2), at(361));
    assert_eq!(store.expire(at(361)).reasons(), [Eviction::Age]);
    assert!(store.held(&one(1), at(361)).is_some());
    store.held(&one(1), at(661));
    assert!(store.expire(at(660)).reasons().is_empty());
    assert_eq!(store.expire(at(661)).reasons(), [Eviction::Age]);
}

#[test]
fn a_request_sent_before_a_confirmation_arrived_does_not_undo_it() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions::default());
    put(&mut store, 1, 7, 10, now);
    let (content, metadata) = (sent(now), sent(now));
    assert!(store.confirm(&one(1), "u", ResourceVersion::new(7), metadata));
    store.insert(&one(1), &found(one(1), 6, 10, content), now);
    assert_eq!(version(store.held(&one(1), now)), Some(7));
}

#[test]
fn one_big_entry_is_served_but_not_kept() {
    let now = Instant::now();
    let limit = weight(2, 10_000);
    let mut store = Store::new(LruOptions {
        max_bytes: 4 * limit,
        ..LruOptions::default()
    });
    put(&mut store, 1, 1, 10, now);
    assert!(put(&mut store, 2, 1, 10_000, now).reasons().is_empty());
    assert_eq!(store.size().entries, 2);
    let grown = put(&mut store, 2, 2, 10_241, now);
    assert_eq!(
        (grown.reasons(), grown.contents.len()),
        ([Eviction::Oversized].as_slice(), 1)
    );
    assert!(store.held(&one(1), now).is_some(), "the others stay");
    assert!(store.held(&one(2), now).is_none(), "its old version does not");
    let absence = absent(sent(now));
    for (spare, reasons) in [(0, [].as_slice()), (1, &[Eviction::Oversized])] {
        let mut tiny = Store::new(LruOptions {
            max_bytes: 4 * absence_cost(&one(1)) - spare,
            ..LruOptions::default()
        });
        assert_eq!(tiny.insert(&one(1), &absence, now).reasons(), reasons);
        assert_eq!(tiny.size().entries, 1 - spare);
    }
}

#[test]
fn absences_make_room_for_each_other_and_for_contents_and_never_the_other_way_round() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions {
        max_secrets: 4,
        max_absent: 2,
        ..LruOptions::default()
    });
    let absence = |store: &mut Store, number| store.insert(&one(number), &absent(sent(now)), now);
    assert!(absence(&mut store, 1).reasons().is_empty());
    assert!(absence(&mut store, 2).reasons().is_empty());
    assert_eq!(absence(&mut store, 3).reasons(), [Eviction::Entries]);
    assert!(store.held(&one(1), now).is_none());
    for number in 4..6 {
        assert!(put(&mut store, number, 1, 10, now).reasons().is_empty());
    }
    assert_eq!(put(&mut store, 6, 1, 10, now).reasons(), [Eviction::Entries]);
    assert!(store.held(&one(2), now).is_none() && store.held(&one(3), now).is_some());
    assert_eq!(put(&mut store, 7, 1, 10, now).reasons(), [Eviction::Entries]);
    assert_eq!(absence(&mut store, 8).reasons(), [Eviction::Entries]);
    for number in 4..8 {
        assert!(store.held(&one(number), now).is_some(), "{number}");
    }
    assert_eq!(store.size().entries, 4);
    assert_eq!(store.size().bytes, store.contents.load().weight);
}

#[test]
fn an_absence_costs_its_place_and_its_name() {
    let (short, long) = (one(1), SecretRef::new("ns0", &"s".repeat(200)).expect("valid"));
    assert_eq!(absence_cost(&long) - absence_cost(&short), 224 - 32);
    // 32 bytes for each part of the name.
    assert!((100..200).contains(&(absence_cost(&short) - 64)));
}

#[test]
fn closed_it_stays_empty() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions::default());
    put(&mut store, 1, 1, 10, now);
    store.insert(&one(2), &absent(sent(now)), now);
    let cleared = store.close();
    assert_eq!(
        (cleared.contents.len(), cleared.reasons()),
        (1, [Eviction::Cleared; 2].as_slice())
    );
    put(&mut store, 1, 1, 10, now);
    store.insert(&one(2), &absent(sent(now)), now);
    assert_eq!(store.size(), CacheSize::default());
    assert!(store.is_empty());
    store.open();
    put(&mut store, 1, 1, 10, now);
    assert_eq!(store.size().entries, 1);
    assert!(!store.is_empty());
}

#[test]
fn a_purge_takes_what_was_not_read_lately_or_half_or_all_and_the_cache_goes_on() {
    let start = Instant::now();
    let at = |after| start + seconds(after);
    let mut store = Store::new(LruOptions {
        max_bytes: 100 * weight(1, 10),
        ..LruOptions::default()
    });
    for number in 0..20 {
        put(&mut store, number, 1, 10, at(number as u64));
    }
    store.insert(&one(30), &absent(sent(at(19))), at(19));
    let idle = store.purge(Purge::Idle, at(25));
    assert_eq!(idle.reasons().len(), 1 + 10);
    assert!(idle.reasons().iter().all(|reason| *reason == Eviction::Purged));
    assert!(store.held(&one(9), at(25)).is_none() && store.held(&one(10), at(25)).is_some());
    assert_eq!(store.size().entries, 10);
    let before = store.size().bytes;
    // Number 10 was read just now.
    assert_eq!(store.purge(Purge::Half, at(25)).reasons().len(), 6);
    assert!(2 * store.size().bytes <= before);
    assert!(store.held(&one(10), at(25)).is_some() && store.held(&one(16), at(25)).is_none());
    assert!(store.held(&one(17), at(25)).is_some());
    assert_eq!(store.purge(Purge::All, at(25)).reasons(), [Eviction::Purged; 4]);
    assert!(store.is_empty());
    put(&mut store, 1, 1, 10, at(26));
    assert_eq!(store.size().entries, 1);
}

#[test]
fn half_is_of_the_bound_or_of_what_is_held_whichever_is_less() {
    let now = Instant::now();
    let each = weight(1, 10);
    let group = Contents::GROUP_BYTES;
    for (room, held, left) in [(100, 20, 9), (20, 20, 9), (22, 20, 9), (40, 32, 15)] {
        let mut store = Store::new(LruOptions {
            max_bytes: room * each + group,
            ..LruOptions::default()
        });
        for number in 10..10 + held {
            put(&mut store, number, 1, 10, now);
        }
        store.purge(Purge::Half, now);
        assert_eq!(store.size().entries, left, "{room} {held}");
    }
}
