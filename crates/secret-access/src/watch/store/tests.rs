use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ROOMY: Bounds = Bounds {
    secrets: 1000,
    bytes: 1 << 30,
};

fn secret(number: u8) -> SecretRef {
    SecretRef::new("ns", &format!("s{number}")).expect("valid")
}

fn snapshot(number: u8, uid: &str, version: u64, bytes: usize) -> SecretSnapshot {
    SecretSnapshot::builder(secret(number))
        .uid(uid)
        .resource_version(version)
        .data("key", vec![1; bytes])
        .build()
}

fn version(number: u64) -> ResourceVersion {
    ResourceVersion::new(number)
}

fn held(store: &Store, number: u8) -> Option<(String, u64)> {
    let (_, answer) = store.held(&secret(number))?;
    let found = answer.found.expect("the store holds no absences");
    Some((found.uid().to_owned(), found.resource_version().number()))
}

fn uid_of(number: u8, incarnation: u32) -> String {
    format!("u-{number}-{incarnation}")
}

/// What a store counts, counted anew.
fn counted(store: &Store) -> (usize, usize) {
    (store.entries.len(), store.entries.values().map(Entry::cost).sum())
}

#[test]
fn replays_change_nothing_and_news_do() {
    let mut store = Store::default();
    let listing = store.begin(0, Sent::now());
    let present = |store: &mut Store, uid: &str, version| store.present(&snapshot(1, uid, version, 1), listing, ROOMY);
    assert_eq!(present(&mut store, "a", 10), Ok(Applied::Newer));
    assert_eq!(present(&mut store, "a", 10), Ok(Applied::Same));
    assert_eq!(present(&mut store, "a", 9), Ok(Applied::Older));
    assert_eq!(present(&mut store, "earlier", 5), Ok(Applied::Older));
    assert!(!store.gone(&secret(1), version(9)), "an old deletion");
    assert_eq!(held(&store, 1), Some(("a".into(), 10)));
    assert_eq!(present(&mut store, "recreated", 12), Ok(Applied::Newer));
    assert_eq!(held(&store, 1), Some(("recreated".into(), 12)));
    assert!(store.gone(&secret(1), version(13)));
    assert!(!store.gone(&secret(1), version(13)), "once is enough");
    assert_eq!(present(&mut store, "recreated", 12), Ok(Applied::Older));
    assert_eq!(held(&store, 1), None);
    assert_eq!(store.known(&secret(1)), Some(version(13)));
    assert_eq!(present(&mut store, "again", 14), Ok(Applied::Newer));
}

#[test]
fn what_cannot_be_held_is_not_until_something_later_can() {
    let mut store = Store::default();
    let listing = store.begin(0, Sent::now());
    let present = |store: &mut Store, version| store.present(&snapshot(1, "a", version, 1), listing, ROOMY);
    assert_eq!(present(&mut store, 10), Ok(Applied::Newer));
    store.unusable(&secret(1), Some(version(9)));
    assert_eq!(held(&store, 1), Some(("a".into(), 10)), "it is older");
    store.unusable(&secret(1), Some(version(11)));
    assert_eq!(held(&store, 1), None);
    assert_eq!(present(&mut store, 10), Ok(Applied::Older));
    assert_eq!(store.known(&secret(1)), Some(version(11)));
    assert_eq!(present(&mut store, 12), Ok(Applied::Newer));
    store.unusable(&secret(1), None);
    assert_eq!(held(&store, 1), None);
    assert_eq!(store.known(&secret(1)), Some(version(13)), "something came after it");
    store.unusable(&secret(2), None);
    assert_eq!(held(&store, 2), None);
}

#[test]
fn bounds_are_kept_to_the_entry_and_the_byte() {
    let present = |store: &mut Store, number, version, bytes, bounds| {
        let listing = store.begin(0, Sent::now());
        store.present(&snapshot(number, "a", version, bytes), listing, bounds)
    };
    let mut store = Store::default();
    for number in 1..=2 {
        assert_eq!(present(&mut store, number, 1, 100, ROOMY), Ok(Applied::Newer));
    }
    let two = store.size().bytes;
    // A new version takes the place of the old one.
    assert_eq!(present(&mut store, 2, 2, 1000, ROOMY), Ok(Applied::Newer));
    let bigger = store.size().bytes;
    assert!(bigger > two);

    let bounds = |secrets, bytes| Bounds { secrets, bytes };
    let mut store = Store::default();
    for number in 1..=2 {
        assert_eq!(present(&mut store, number, 1, 100, bounds(2, two)), Ok(Applied::Newer));
    }
    let crossed = present(&mut store, 3, 1, 100, bounds(2, bigger));
    assert_eq!(crossed, Err(Crossed::Secrets { secrets: 3, max: 2 }));
    assert_eq!(counted(&store), (2, two), "the newcomer is not held");
    let (bytes, max) = (bigger, bigger - 1);
    assert_eq!(
        present(&mut store, 2, 2, 1000, bounds(2, max)),
        Err(Crossed::Bytes { bytes, max })
    );
    assert_eq!(held(&store, 2), Some(("a".into(), 1)));
    assert_eq!(present(&mut store, 2, 2, 1000, bounds(2, bigger)), Ok(Applied::Newer));
    assert_eq!(held(&store, 2), Some(("a".into(), 2)));
}

#[test]
fn percents_of_bounds_stay_below_them() {
    let of = |bound, percent| {
        Bounds {
            secrets: bound,
            bytes: bound,
        }
        .percent(percent)
        .secrets
    };
    assert_eq!(of(1000, 100), 1000);
    assert_eq!(of(1000, 70), 699);
    assert_eq!(of(10, 75), 7);
    assert_eq!(of(1, 50), 0);
    assert_eq!(of(101, 50), 50);
    assert_eq!(of(usize::MAX, 99), usize::MAX / 100 * 99 + usize::MAX % 100 * 99 / 100);
}

#[test]
fn a_list_removes_what_it_does_not_tell_of_in_its_own_scope() {
    let mut store = Store::default();
    let other = store.begin(1, Sent::now());
    store.present(&snapshot(9, "z", 1, 1), other, ROOMY).expect("room");
    let first = store.begin(0, Sent::now());
    for number in 1..=3 {
        store.present(&snapshot(number, "a", 1, 1), first, ROOMY).expect("room");
    }
    assert_eq!(store.end(first, version(5)), []);
    let sent = Sent::now();
    let second = store.begin(0, sent);
    store.present(&snapshot(1, "a", 1, 1), second, ROOMY).expect("room");
    store.present(&snapshot(2, "a", 7, 1), second, ROOMY).expect("room");
    assert_eq!(counted(&store).0, 4, "there is one copy of each meanwhile");
    assert_eq!(store.end(second, version(8)), [secret(3)]);
    assert_eq!(store.known(&secret(3)), Some(version(8)));
    assert_eq!(store.known(&secret(2)), Some(version(7)));
    assert_eq!(store.known(&secret(4)), None);
    for (number, version) in [(1, 1), (2, 7)] {
        let (_, answer) = store.held(&secret(number)).expect("listed");
        let found = answer.found.expect("held");
        assert_eq!(
            (answer.sent, found.validated_at()),
            (sent, Some(sent.at)),
            "as fresh as the list"
        );
        assert_eq!(
            (found.resource_version().number(), found.source()),
            (version, Source::Watch)
        );
    }
    assert_eq!(held(&store, 9), Some(("z".into(), 1)));
    assert_eq!(store.take_scope(1).len(), 1);
    assert_eq!(held(&store, 9), None);
    assert_eq!((store.size().entries, store.size().bytes), counted(&store));
}

#[test]
fn what_a_request_confirms_is_as_fresh_as_the_request() {
    let mut store = Store::default();
    let listing = store.begin(0, Sent::now());
    store.present(&snapshot(1, "a", 5, 1), listing, ROOMY).expect("room");
    let sent = Sent::now();
    store.confirm(&secret(1), "a", version(4), sent);
    store.confirm(&secret(1), "b", version(5), sent);
    assert_eq!(store.held(&secret(1)).expect("held").1.sent, listing.sent);
    store.confirm(&secret(1), "a", version(5), sent);
    assert_eq!(store.held(&secret(1)).expect("held").1.sent, sent);
    store.confirm(&secret(1), "a", version(5), listing.sent);
    assert_eq!(store.held(&secret(1)).expect("held").1.sent, sent, "never back");
}

#[test]
fn deletions_that_were_forgotten_still_hold_off_replays() {
    let mut deletions = Deletions::default();
    let name = |number: usize| SecretRef::new("ns", &format!("s{number}")).expect("valid");
    for number in 0..=MOST_DELETIONS {
        deletions.remember(&name(number), version(number as u64 + 1));
    }
    assert_eq!(
        (deletions.order.len(), deletions.versions.len()),
        (MOST_DELETIONS, MOST_DELETIONS)
    );
    assert_eq!(deletions.forgotten, Some(version(1)));
    assert!(deletions.may_cover(&name(0), version(1)) && !deletions.may_cover(&name(0), version(2)));
    assert!(deletions.may_cover(&name(1), version(2)) && !deletions.may_cover(&name(1), version(3)));
    deletions.remember(&name(1), version(1));
    assert!(deletions.may_cover(&name(1), version(2)), "never back");
}

/// A write to one of a few Secrets, as the API server knows it.
#[derive(Debug, Clone, Copy)]
enum Write {
    Put,
    Delete,
}

/// What a watch may tell of the history: its events in order, or any that were told before.
#[derive(Debug, Clone, Copy)]
enum Telling {
    Next,
    /// Again what was told this far back.
    Again(usize),
    /// The next two the wrong way around.
    Swapped,
    /// Everything that is there, as a list.
    List,
}

fn tellings() -> impl Strategy<Value = Telling> {
    prop_oneof![
        6 => Just(Telling::Next),
        2 => (0_usize..30).prop_map(Telling::Again),
        1 => Just(Telling::Swapped),
        1 => Just(Telling::List),
    ]
}

#[derive(Debug, Clone)]
struct Told {
    number: u8,
    version: u64,
    /// `None` for a deletion.
    uid: Option<String>,
}

proptest! {
    /// Whatever the order: of each Secret only versions are held that were the last of those told, none comes back that was
    /// left behind, and after a list it is exactly what there is.
    #[test]
    fn never_goes_back(
        writes in prop::collection::vec((0_u8..4, prop_oneof![3 => Just(Write::Put), 1 => Just(Write::Delete)]), 1..60),
        tellings in prop::collection::vec(tellings(), 0..90),
    ) {
        // The history.
        let mut live: BTreeMap<u8, (String, u32)> = BTreeMap::new();
        let mut incarnations: BTreeMap<u8, u32> = BTreeMap::new();
        let mut history: Vec<Told> = Vec::new();
        let mut states: Vec<BTreeMap<u8, (String, u64)>> = vec![BTreeMap::new()];
        for (at, (number, write)) in writes.into_iter().enumerate() {
            let version = at as u64 + 10;
            let mut state = states.last().cloned().unwrap_or_default();
            let uid = match (write, live.get(&number)) {
                (Write::Put, Some((uid, _))) => Some(uid.clone()),
                (Write::Put, None) => {
                    let incarnation = incarnations.entry(number).or_default();
                    *incarnation += 1;
                    Some(uid_of(number, *incarnation))
                }
                (Write::Delete, Some(_)) => None,
                (Write::Delete, None) => continue,
            };
            if let Some(uid) = &uid {
                live.insert(number, (uid.clone(), 0));
                state.insert(number, (uid.clone(), version));
            } else {
                live.remove(&number);
                state.remove(&number);
            }
            history.push(Told { number, version, uid });
            states.push(state);
        }

        let mut store = Store::default();
        let mut listing = store.begin(0, Sent::now());
        let mut next = 0;
        // The model: the greatest version told of each Secret, and what it said.
        let mut latest: BTreeMap<u8, Told> = BTreeMap::new();
        let tell = |store: &mut Store, latest: &mut BTreeMap<u8, Told>, listing, told: &Told| {
            match &told.uid {
                Some(uid) => {
                    store.present(&snapshot(told.number, uid, told.version, 3), listing, ROOMY).expect("there is room");
                }
                None => {
                    store.gone(&secret(told.number), version(told.version));
                }
            }
            if latest.get(&told.number).is_none_or(|known| known.version <= told.version) {
                latest.insert(told.number, told.clone());
            }
        };
        for telling in tellings {
            match telling {
                Telling::Next => if let Some(told) = history.get(next) {
                    tell(&mut store, &mut latest, listing, told);
                    next += 1;
                },
                Telling::Again(back) => if let Some(told) = next.checked_sub(back + 1).and_then(|at| history.get(at)) {
                    tell(&mut store, &mut latest, listing, told);
                },
                Telling::Swapped => if let [one, other] = history.get(next..next + 2).unwrap_or_default() {
                    tell(&mut store, &mut latest, listing, other);
                    tell(&mut store, &mut latest, listing, one);
                    next += 2;
                },
                Telling::List => {
                    listing = store.begin(0, Sent::now());
                    for (number, (uid, version)) in &states[next] {
                        let told = Told { number: *number, version: *version, uid: Some(uid.clone()) };
                        tell(&mut store, &mut latest, listing, &told);
                    }
                    let shown = history.get(..next).and_then(|told| told.last()).map_or(0, |told| told.version);
                    for secret in store.end(listing, version(shown)) {
                        let number = (0..4).find(|number| self::secret(*number) == secret).expect("one of four");
                        latest.insert(number, Told { number, version: shown, uid: None });
                    }
                    for (number, state) in &states[next] {
                        prop_assert_eq!(held(&store, *number), Some(state.clone()));
                    }
                }
            }
            for number in 0..4 {
                let expected = latest.get(&number).and_then(|told| Some((told.uid.clone()?, told.version)));
                prop_assert_eq!(held(&store, number), expected);
            }
            prop_assert_eq!((store.size().entries, store.size().bytes), counted(&store));
        }
    }
}
