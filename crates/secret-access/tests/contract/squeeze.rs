//! Making do with less.

use std::sync::Arc;

use kube_secret_access::{
    AccessOptions, Bodies, Eviction, Mode, ReadError, Retry, SecretAccess, Source, Squeeze, UnavailableCause, Want,
};
use testkit::{eventually, fake_api::FakeApi};

use crate::access::{Kind, Recorder, seconds, secret};

const SECRETS: usize = 20;
/// Bytes of all of them, about; the cache has room for them and no more.
const BYTES: usize = 200_000;

/// An API server with Secrets that fill the cache, and a big one.
fn filled() -> (FakeApi, AccessOptions) {
    let api = FakeApi::new();
    for number in 0..SECRETS {
        api.put_secret("ns", &format!("s{number}"), &[("k", &[b'x'; BYTES / SECRETS])]);
    }
    api.put_secret("ns", "big", &[("k", &vec![b'x'; 100_000])]);
    let mut options = AccessOptions::default();
    options.lru.max_bytes = 2 * BYTES;
    (api, options)
}

async fn read_all(access: &impl SecretAccess) {
    for number in 0..SECRETS {
        let secret = secret(&format!("s{number}"));
        access.read(&secret, Want::default()).await.expect("readable");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_makes_do_with_its_part_until_it_has_all_again() {
    for kind in Kind::all().filter(|kind| kind.caches()) {
        let (api, options) = filled();
        let recorder = Arc::new(Recorder::default());
        let access = kind.probed(&api, options, recorder.clone());
        let held = || recorder.told().sizes.last().copied().unwrap_or_default();
        read_all(&*access).await;
        assert_eq!(held().entries, SECRETS);
        let before = held();

        let dropped = access.squeeze(Squeeze::new(BYTES / 2, Bodies::All));
        assert!(held().bytes <= BYTES / 2, "{kind:?}: {:?}", held());
        assert!(held().entries > 0, "{kind:?}: not more than needed");
        assert_eq!(dropped.bytes, before.bytes - held().bytes);
        assert_eq!(dropped.entries, before.entries - held().entries);
        assert_eq!(recorder.told().evicted, vec![Eviction::Purged; dropped.entries]);
        read_all(&*access).await;
        assert!(held().bytes <= BYTES / 2, "{kind:?}: reads stay within it");

        access.squeeze(Squeeze::new(0, Bodies::All));
        assert_eq!(held().entries, 0, "{kind:?}");
        read_all(&*access).await;
        assert_eq!(held().entries, 0, "{kind:?}: nothing is kept");

        access.squeeze(Squeeze::NONE);
        read_all(&*access).await;
        assert_eq!(held().entries, SECRETS, "{kind:?}: all is as before");
    }
}

#[tokio::test(start_paused = true)]
async fn big_answers_are_refused_in_every_mode_and_small_ones_are_not() {
    for kind in Kind::all() {
        let (api, options) = filled();
        let access = kind.access(&api, options.clone());
        access.squeeze(Squeeze::new(0, Bodies::NoneBig));
        let error = access
            .read(&secret("big"), Want::default())
            .await
            .expect_err("it is big");
        let ReadError::Unavailable { cause, .. } = &error else {
            panic!("{kind:?}: {error}");
        };
        assert_eq!(*cause, UnavailableCause::MemoryShort);
        assert_eq!(error.retry(), Retry::Backoff { at_least: None }, "it passes");
        access.read(&secret("s0"), Want::default()).await.expect("it is small");

        // Other options, and other ways to fetch: still in force.
        let mut other = options;
        other.mode = if kind.mode() == Mode::Direct {
            Mode::Lru
        } else {
            Mode::Direct
        };
        other.fetch.deadline = seconds(3);
        access.set(other).expect("valid");
        access
            .read(&secret("big"), Want::default())
            .await
            .expect_err("it is big");

        access.squeeze(Squeeze::new(0, Bodies::OneBig));
        let big = secret("big");
        let (one, other) = futures::join!(access.read(&big, Want::quorum()), access.read(&big, Want::quorum()));
        assert_eq!(one.expect("in turn").keys().len(), other.expect("in turn").keys().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_holds_more_than_its_part_is_ended_and_begins_again() {
    let (api, mut options) = filled();
    options.mode = Mode::Watch;
    options.watch.max_bytes = 10 * BYTES;
    let patience = options.watch.retry_denied_after * 2;
    let access = kube_secret_access::Switch::new(api.client(), options).expect("valid");
    let source = async || {
        let read = access.read(&secret("s0"), Want::default()).await;
        read.map(|read| read.source()).map_err(|error| error.to_string())
    };
    let watched = async || match source().await? {
        Source::Watch => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("the watch is healthy", patience, watched).await;
    access.squeeze(Squeeze::new(5 * BYTES, Bodies::All));
    assert_eq!(source().await, Ok(Source::Watch), "it fits");
    let dropped = access.squeeze(Squeeze::new(BYTES, Bodies::All));
    assert_eq!(dropped.entries, SECRETS + 1);
    assert_ne!(source().await, Ok(Source::Watch));
    tokio::time::sleep(patience).await;
    assert_ne!(source().await, Ok(Source::Watch), "there is too much for it still");
    access.squeeze(Squeeze::NONE);
    eventually("the watch is back", 10 * patience, watched).await;
}
