//! Which entries are held, on reads whose best answer is plain.

use super::super::active::Active;
use super::super::past::{Past, Use};
use super::*;

/// Reads one Secret as the mode does: whether it was held, and what its insertion did.
fn read(store: &mut Store, secret: &SecretRef, bytes: usize, now: Instant) -> (bool, Removed) {
    if store.held(secret, now).is_some() {
        return (true, Removed::default());
    }
    (
        false,
        store.insert(secret, &found(secret.clone(), 1, bytes, sent(now)), now),
    )
}

fn bounded(entries: usize) -> Store {
    Store::new(LruOptions {
        max_secrets: entries,
        ..LruOptions::default()
    })
}

fn hits(store: &mut Store, numbers: impl Iterator<Item = usize>) -> usize {
    let now = Instant::now();
    numbers.filter(|number| read(store, &one(*number), 10, now).0).count()
}

#[test]
fn a_loop_over_more_than_fits_hits_what_fits() {
    for keys in [11, 15, 20, 40] {
        let mut store = bounded(10);
        assert_eq!(hits(&mut store, 0..keys), 0);
        for _ in 0..20 {
            assert_eq!(hits(&mut store, 0..keys), 10, "{keys} keys");
        }
    }
}

#[test]
fn what_is_read_once_displaces_nothing() {
    let mut store = bounded(10);
    hits(&mut store, 0..10);
    assert_eq!(hits(&mut store, 100..1000), 0);
    assert_eq!(hits(&mut store, 0..10), 10);
}

#[test]
fn other_keys_take_over_at_their_second_reading() {
    let mut store = bounded(10);
    hits(&mut store, (0..10).chain(0..10));
    assert_eq!(hits(&mut store, 10..20), 0);
    assert_eq!(hits(&mut store, 10..20), 0);
    assert_eq!(hits(&mut store, 10..20), 10);
}

#[test]
fn one_that_needs_the_room_of_many_in_use_is_refused_until_they_are_not_in_use() {
    let now = Instant::now();
    let small = weight(1, 100);
    let big = weight(1, 9 * small);
    let mut store = Store::new(LruOptions {
        max_bytes: 40 * small + Contents::GROUP_BYTES,
        entry_share: 2,
        ..LruOptions::default()
    });
    assert!(big > 9 * small && big < 20 * small);
    hits_of(&mut store, 10..50, 100, now);
    for _ in 0..5 {
        // Each of the many is read as often.
        assert_eq!(hits_of(&mut store, 10..50, 100, now), 40);
        let refused = read(&mut store, &one(1), 9 * small, now).1;
        assert_eq!(refused.reasons(), [Eviction::NotAdmitted]);
    }
    assert_eq!(store.size().entries, 40, "what was looked at is put back");
    let mut evicted = 0;
    for _ in 0..40 {
        // None of the many is read any more.
        let removed = read(&mut store, &one(1), 9 * small, now).1;
        evicted += removed.contents.len();
        hits_of(&mut store, 49..50, 100, now);
    }
    assert!(store.held(&one(1), now).is_some());
    assert_eq!(evicted, big.div_ceil(small));
    // Those not used for longest: the first.
    assert!(store.held(&one(10), now).is_none() && store.held(&one(10 + evicted), now).is_some());
}

fn hits_of(store: &mut Store, numbers: std::ops::Range<usize>, bytes: usize, now: Instant) -> usize {
    numbers
        .filter(|number| read(store, &one(*number), bytes, now).0)
        .count()
}

#[test]
fn one_answer_inserted_twice_is_one_use() {
    let now = Instant::now();
    let mut store = bounded(2);
    hits(&mut store, [0, 1].into_iter());
    let answer = found(one(2), 1, 10, sent(now));
    assert_eq!(store.insert(&one(2), &answer, now).reasons(), [Eviction::NotAdmitted]);
    // By another reader that shared the request.
    assert!(store.insert(&one(2), &answer, now).reasons().is_empty());
    assert!(store.held(&one(2), now).is_none());
    let again = found(one(2), 1, 10, sent(now));
    assert_eq!(store.insert(&one(2), &again, now).reasons(), [Eviction::Entries]);
    assert!(store.held(&one(0), now).is_none());
    // Displaced since, and an old answer is no new use either.
    let old = found(one(0), 1, 10, answer.sent);
    assert!(store.insert(&one(0), &old, now).reasons().is_empty());
    assert!(store.held(&one(0), now).is_none());
}

#[test]
fn another_version_of_what_is_held_stays_and_may_displace_others() {
    let now = Instant::now();
    let small = weight(10, 100);
    let mut store = Store::new(LruOptions {
        max_bytes: 4 * small + Contents::GROUP_BYTES,
        entry_share: 1,
        ..LruOptions::default()
    });
    hits_of(&mut store, 10..14, 100, now);
    let grown_bytes = small - 300;
    assert!(weight(10, grown_bytes) > small && weight(10, grown_bytes) <= 2 * small);
    let grown = put(&mut store, 10, 2, grown_bytes, now);
    assert_eq!(
        (grown.reasons(), grown.contents.len()),
        ([Eviction::Bytes].as_slice(), 2)
    );
    assert_eq!(version(store.held(&one(10), now)), Some(2));
    assert!(store.held(&one(11), now).is_none() && store.held(&one(12), now).is_some());
}

#[test]
fn one_that_does_not_fit_by_itself_changes_nothing() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions {
        max_bytes: weight(1, 1000),
        entry_share: 1,
        ..LruOptions::default()
    });
    put(&mut store, 2, 1, 10, now);
    // With its namespace it takes more than there is.
    for _ in 0..3 {
        assert_eq!(put(&mut store, 1, 1, 1000, now).reasons(), [Eviction::NotAdmitted]);
    }
    assert!(store.held(&one(2), now).is_some());
}

#[test]
fn a_cleared_cache_gives_all_memory_back_and_remembers_nothing() {
    let now = Instant::now();
    let mut store = bounded(2);
    hits(&mut store, 0..10);
    store.purge(Purge::All, now);
    assert_eq!(hits(&mut store, 0..2), 0);
    // Known from before, it would displace one.
    assert_eq!(hits(&mut store, 9..10), 0);
    assert_eq!(hits(&mut store, 0..2), 2);
}

fn last(used: u32) -> Use<u64> {
    Use {
        used,
        stamp: u64::from(used),
    }
}

#[test]
fn the_past_has_a_fixed_size_and_forgets_the_oldest_of_a_bucket() {
    let mut past = Past::new(1);
    for key in 0..100_000_u32 {
        past.record(&key, last(key), key);
        assert!(
            past.recall(&key)
                .is_some_and(|found| found.used == key && found.stamp == u64::from(key))
        );
    }
    let known = (0..100_000_u32).filter(|key| past.recall(key).is_some()).count();
    assert_eq!(known, 1024);
    assert!((0..50_000_u32).all(|key| past.recall(&key).is_none()));
    past.forget(&99_999);
    assert!(past.recall(&99_999).is_none());
    let known = (0..100_000_u32).filter(|key| past.recall(key).is_some()).count();
    assert_eq!(known, 1023);
    // A later use takes the place of the earlier one of the same key, also where others are older or a slot is free.
    past.record(&99_998, last(7), 100_001);
    assert!(past.recall(&99_998).is_some_and(|found| found.used == 7));
    past.forget(&99_998);
    assert!(past.recall(&99_998).is_none());
}

#[test]
fn the_past_is_four_times_the_entries_within_limits() {
    for (entries, slots) in [(0, 1024), (257, 1028), (10_000, 40_000), (usize::MAX, 65_536)] {
        let mut past = Past::new(entries);
        for key in 0..1_000_000_u32 {
            past.record(&key, last(key), key);
        }
        let known = (0..1_000_000_u32).filter(|key| past.recall(key).is_some()).count();
        assert_eq!(known, slots, "{entries} entries");
    }
}

#[test]
fn groups_are_active_for_one_or_two_generations() {
    let mut active = Active::new(1);
    let names: Vec<usize> = (0..20).map(|number| Active::mark(&format!("ns{number}"))).collect();
    for mark in &names {
        active.record(*mark);
        active.record(*mark);
    }
    assert_eq!(active.count(), 20);
    for _ in 0..4096 - 40 {
        active.record(names[0]);
    }
    assert_eq!(active.count(), 20, "the first generation ends");
    for _ in 0..4096 {
        active.record(names[0]);
        active.record(names[1]);
    }
    assert_eq!(active.count(), 2, "the second too");
    active.record(names[2]);
    assert_eq!(active.count(), 3);
}
