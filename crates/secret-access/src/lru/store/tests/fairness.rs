//! Namespaces and their shares.

use proptest::prelude::*;

use super::*;

const NAMESPACES: usize = 4;
const ENTRIES: usize = 16;
const BYTES: usize = 64_000;

fn options() -> LruOptions {
    LruOptions {
        max_secrets: ENTRIES,
        max_bytes: BYTES,
        entry_share: 1,
        ..LruOptions::default()
    }
}

proptest! {
    /// Namespace 0 does as it likes. Each of the others has so much that it is within its part whatever versions it holds.
    #[test]
    fn a_namespace_within_its_share_loses_nothing_and_is_refused_nothing(
        sizes in prop::collection::vec(0_usize..2000, NAMESPACES * ENTRIES / NAMESPACES),
        reads in prop::collection::vec((0..NAMESPACES, 0_usize..200, prop_oneof![0_usize..500, 0_usize..30_000], any::<bool>()), 1..400),
    ) {
        let now = Instant::now();
        let mut store = Store::new(options());
        let mut held = std::collections::BTreeSet::new();
        for (version, (namespace, number, bytes, anew)) in (1..).zip(reads) {
            let modest = namespace > 0;
            let number = if modest { number % (ENTRIES / NAMESPACES) } else { number };
            let bytes = if modest { sizes[namespace * ENTRIES / NAMESPACES + number] } else { bytes };
            let secret = secret(namespace, number);
            let answer = found(secret.clone(), version, bytes, sent(now));
            if anew || store.held(&secret, now).is_none() {
                let removed = store.insert(&secret, &answer, now);
                if modest {
                    prop_assert!(!removed.reasons().contains(&Eviction::NotAdmitted));
                    held.insert(secret);
                }
            }
            for secret in &held {
                prop_assert!(store.contents.peek(secret).is_some(), "{secret}");
            }
            let size = store.size();
            prop_assert!(size.entries <= ENTRIES && size.bytes <= BYTES);
        }
    }
}

#[test]
fn the_premise_of_the_property_holds() {
    // All that a modest namespace may hold is within a fourth of the bytes.
    let most = (ENTRIES / NAMESPACES) * weight(100, 2000) + Contents::GROUP_BYTES;
    assert!(most <= BYTES / NAMESPACES, "{most}");
}

#[test]
fn a_newcomer_within_its_share_displaces_the_oldest_of_those_beyond_theirs() {
    let now = Instant::now();
    let mut store = Store::new(options());
    let read = |store: &mut Store, namespace, number| {
        let secret = secret(namespace, number);
        let held = store.held(&secret, now).is_some();
        if !held {
            store.insert(&secret, &found(secret.clone(), 1, 10, sent(now)), now);
        }
        held
    };
    for number in 0..7 {
        read(&mut store, 1, number);
    }
    for number in 0..2 {
        read(&mut store, 2, number);
    }
    for number in 0..7 {
        read(&mut store, 3, number);
    }
    // Full. Four namespaces have four entries each as their share; 1 and 3 are beyond it.
    for number in 0..4 {
        assert!(!read(&mut store, 4, number) && read(&mut store, 4, number));
    }
    // The oldest of namespace 1 went, until it was down to its share; then one of namespace 3.
    let left = |store: &Store, namespace: usize| -> Vec<usize> {
        (0..7)
            .filter(|number| store.contents.peek(&secret(namespace, *number)).is_some())
            .collect()
    };
    assert_eq!(left(&store, 1), [3, 4, 5, 6]);
    assert_eq!(left(&store, 2), [0, 1]);
    assert_eq!(left(&store, 3), [1, 2, 3, 4, 5, 6]);
    // Beyond its share, a newcomer of namespace 4 has to be used more often than what it displaces.
    assert!(!read(&mut store, 4, 4) && !read(&mut store, 4, 4));
    assert_eq!(left(&store, 3), [2, 3, 4, 5, 6]);
    assert!(read(&mut store, 4, 4));
}

#[test]
fn one_namespace_alone_has_all_of_it() {
    let now = Instant::now();
    let mut store = Store::new(options());
    for number in 0..ENTRIES {
        put(&mut store, number, 1, 10, now);
    }
    assert_eq!(store.size().entries, ENTRIES);
    assert!((0..ENTRIES).all(|number| store.held(&one(number), now).is_some()));
}

/// Or one of many namespaces with a Secret each would go at every turn, whoever reads it how often.
#[test]
fn namespaces_count_that_hold_nothing_but_are_read() {
    let now = Instant::now();
    let small = weight(100, 1000);
    let mut store = Store::new(LruOptions {
        max_bytes: 10 * (small + Contents::GROUP_BYTES),
        entry_share: 1,
        ..LruOptions::default()
    });
    let mut hits = 0;
    for _ in 0..10 {
        for namespace in 100..200 {
            let secret = secret(namespace, 100);
            if store.held(&secret, now).is_some() {
                hits += 1;
            } else {
                // Some are a little smaller than others.
                let bytes = 1000 - namespace % 2;
                store.insert(&secret, &found(secret.clone(), 1, bytes, sent(now)), now);
            }
        }
    }
    assert_eq!(hits, 9 * 10);
}

#[test]
fn a_namespace_that_is_gone_takes_no_bytes() {
    let start = Instant::now();
    let mut store = Store::new(LruOptions::default());
    for namespace in 0..500 {
        let secret = secret(namespace, 1);
        store.insert(&secret, &found(secret.clone(), 1, 10, sent(start)), start);
    }
    assert!(store.size().bytes >= 500 * Contents::GROUP_BYTES);
    for namespace in 0..250 {
        let secret = secret(namespace, 1);
        store.insert(&secret, &absent(sent(start)), start);
    }
    assert!(store.contents.load().weight >= 250 * Contents::GROUP_BYTES);
    store.expire(start + seconds(301));
    assert_eq!(store.size(), CacheSize::default());
}

#[test]
fn the_table_of_namespaces_shrinks_with_them() {
    let now = Instant::now();
    let mut store = Store::new(LruOptions::default());
    let fill = |store: &mut Store, count| {
        for namespace in 0..count {
            let secret = secret(namespace, 1);
            store.insert(&secret, &found(secret.clone(), 1, 10, sent(now)), now);
        }
    };
    let empty = |store: &mut Store, namespaces: std::ops::Range<usize>| {
        for namespace in namespaces {
            store.insert(&secret(namespace, 1), &absent(sent(now)), now);
        }
        store.contents.room_for_groups()
    };
    // Places of what was removed count only in part, so the figures are not exact.
    fill(&mut store, 500);
    assert!(empty(&mut store, 300..500) >= 500, "not at every turn");
    let fewer = empty(&mut store, 100..300);
    assert!((100..450).contains(&fewer), "{fewer}");
    assert!(empty(&mut store, 10..100) < 64);
    let mut small = Store::new(LruOptions::default());
    fill(&mut small, 40);
    assert!(empty(&mut small, 1..40) > 14, "a small one is not worth the while");
}
