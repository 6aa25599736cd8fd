//! Bounds of what is kept, as the probe reports them.

use std::sync::Arc;

use kube_secret_access::{AccessOptions, Eviction, SecretAccess, Source, Want};
use proptest::prelude::*;
use testkit::fake_api::FakeApi;

use crate::access::{Kind, Recorder, seconds, secret};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is read in whatever order, what is held stays within entries and bytes, and every value is right.
    #[test]
    fn stays_within_its_bounds_under_any_load(
        reads in prop::collection::vec((0_usize..40, 0_u64..20), 1..120),
        sizes in prop::collection::vec(prop_oneof![3 => 0_usize..500, 1 => 0_usize..9000], 40),
        max_secrets in 1_usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let told = runtime.block_on(async {
            let api = FakeApi::new();
            for (number, size) in sizes.iter().enumerate() {
                api.put_secret("ns", &format!("s{number}"), &[("k", &vec![b'x'; *size])]);
            }
            let recorder = Arc::new(Recorder::default());
            let mut options = AccessOptions::default();
            options.lru.max_secrets = max_secrets;
            options.lru.max_bytes = 20_000;
            let access = Kind::Lru.probed(&api, options, recorder.clone());
            for (number, pause) in reads {
                let snapshot = access.read(&secret(&format!("s{number}")), Want::default()).await.expect("readable");
                assert_eq!(snapshot.bytes("k").map(|bytes| bytes.as_slice().len()), Some(sizes[number]));
                tokio::time::sleep(seconds(pause)).await;
            }
            recorder.told()
        });
        for size in told.sizes {
            prop_assert!(size.entries <= max_secrets && size.bytes <= 20_000, "{size:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clear_text_does_not_stay_because_nobody_asks_for_it() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let api = FakeApi::new();
        for name in ["a", "b"] {
            api.put_secret("ns", name, &[("k", b"1")]);
        }
        let recorder = Arc::new(Recorder::default());
        let access = kind.probed(&api, AccessOptions::default(), recorder.clone());
        // Twice: the task that removes old entries ends when none is left, and has to begin again.
        for _ in 0..2 {
            for name in ["a", "b"] {
                access.read(&secret(name), Want::default()).await.expect("readable");
            }
            assert_eq!(recorder.told().sizes.last().map(|size| size.entries), Some(2));
            tokio::time::sleep(seconds(300 + 15 + 1)).await;
            let last = recorder.told().sizes.last().copied().expect("sizes were reported");
            assert_eq!((last.entries, last.bytes), (0, 0), "{kind:?}");
        }
        assert_eq!(recorder.told().evicted, [Eviction::Idle; 4], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_more_often_stays() {
    let api = FakeApi::new();
    for name in ["a", "b", "c"] {
        api.put_secret("ns", name, &[("k", b"1")]);
    }
    let recorder = Arc::new(Recorder::default());
    let mut options = AccessOptions::default();
    options.lru.max_secrets = 2;
    let access = Kind::Lru.probed(&api, options, recorder.clone());
    for name in ["a", "b", "a", "c", "a", "b"] {
        access.read(&secret(name), Want::default()).await.expect("readable");
    }
    let told = recorder.told();
    let sources: Vec<_> = told.reads.iter().map(|read| read.source).collect();
    let (api_read, cached) = (Source::Api, Source::Cache);
    assert_eq!(sources, [api_read, api_read, cached, api_read, cached, cached]);
    assert_eq!(told.evicted, [Eviction::NotAdmitted]);
}

#[tokio::test(start_paused = true)]
async fn a_big_secret_is_served_each_time_and_kept_never() {
    let api = FakeApi::new();
    api.put_secret("ns", "big", &[("k", &vec![b'x'; 300_000])]);
    api.put_secret("ns", "small", &[("k", b"1")]);
    let recorder = Arc::new(Recorder::default());
    let mut options = AccessOptions::default();
    options.lru.max_bytes = 1_000_000;
    let access = Kind::Lru.probed(&api, options, recorder.clone());
    for name in ["small", "big", "big", "small"] {
        access.read(&secret(name), Want::default()).await.expect("readable");
    }
    assert_eq!(api.requests().len(), 3);
    assert!(
        recorder
            .told()
            .evicted
            .iter()
            .all(|reason| *reason == Eviction::Oversized)
    );
    assert!(!recorder.told().evicted.is_empty());
}
