//! When `auto` caches and when it does not, and what it tells.

use std::sync::Arc;

use kube_secret_access::{
    AccessOptions, ClusterCount, ClusterCountOptions, Eviction, Mode, Reason, SecretAccess, Source, Switch, Want,
};
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};

use crate::access::{Kind, Recorder, seconds, secret, settle};

const AUTO: Kind = Kind::Auto;

fn api_with(secrets: usize, bytes: usize) -> FakeApi {
    let api = FakeApi::new();
    for number in 0..secrets {
        api.put_secret("ns", &format!("s{number}"), &[("k", &vec![b'x'; bytes])]);
    }
    api
}

async fn read_all(access: &Arc<Switch>, secrets: usize) -> Vec<Source> {
    let mut sources = Vec::new();
    for number in 0..secrets {
        let snapshot = access
            .read(&secret(&format!("s{number}")), Want::default())
            .await
            .expect("readable");
        sources.push(snapshot.source());
    }
    sources
}

#[tokio::test(start_paused = true)]
async fn falls_back_above_the_number_of_secrets_and_returns_after_a_quiet_time() {
    let api = api_with(20, 10);
    let recorder = Arc::new(Recorder::default());
    let access = AUTO.probed(
        &api,
        AccessOptions::default().with_bounds(10, 1 << 20, seconds(60)),
        recorder.clone(),
    );
    read_all(&access, 10).await;
    assert_eq!(read_all(&access, 10).await, [Source::Cache; 10]);
    assert!(recorder.told().transitions.is_empty());

    read_all(&access, 11).await;
    let told = recorder.told();
    assert_eq!(told.transitions.len(), 1);
    assert_eq!(
        (told.transitions[0].from, told.transitions[0].to),
        (Mode::Lru, Mode::Direct)
    );
    assert_eq!(
        told.transitions[0].reason,
        Reason::TooManySecrets { secrets: 11, max: 10 }
    );
    assert_eq!(
        told.sizes.last().map(|size| size.entries),
        Some(0),
        "nothing stays in memory"
    );
    assert!(told.evicted.contains(&Eviction::Cleared));

    // A loop far over the threshold stays direct.
    for _ in 0..5 {
        assert_eq!(read_all(&access, 20).await, [Source::Api; 20]);
        tokio::time::advance(seconds(40)).await;
    }
    assert_eq!(recorder.told().transitions.len(), 1);

    // 6 of 10 are below 70 %: once the others have left the window, and after a minute of that, it caches again.
    tokio::time::advance(seconds(81)).await;
    read_all(&access, 6).await;
    tokio::time::advance(seconds(59)).await;
    assert_eq!(read_all(&access, 6).await, [Source::Api; 6]);
    tokio::time::advance(seconds(1)).await;
    read_all(&access, 6).await;
    let told = recorder.told();
    assert_eq!(told.transitions.len(), 2);
    assert_eq!(told.transitions[1].to, Mode::Lru);
    assert!(matches!(told.transitions[1].reason, Reason::Quiet { secrets: 6, .. }));
    read_all(&access, 6).await;
    assert_eq!(read_all(&access, 6).await, [Source::Cache; 6]);
}

#[tokio::test(start_paused = true)]
async fn falls_back_above_the_bytes() {
    let api = api_with(5, 3000);
    let recorder = Arc::new(Recorder::default());
    let mut options = AccessOptions::default();
    options.auto.max_bytes = 10_000;
    let access = AUTO.probed(&api, options, recorder.clone());
    read_all(&access, 5).await;
    let reason = recorder.told().transitions[0].reason;
    assert!(
        matches!(reason, Reason::TooManyBytes { bytes, max: 10_000 } if bytes > 10_000 && bytes < 20_000),
        "{reason}"
    );
    assert_eq!(read_all(&access, 5).await, [Source::Api; 5]);
}

fn counting(max_secrets: u64) -> AccessOptions {
    let mut cluster = ClusterCountOptions::default();
    cluster.max_secrets = max_secrets;
    let mut options = AccessOptions::default();
    options.auto.cluster = Some(cluster);
    options
}

#[tokio::test(start_paused = true)]
async fn where_listing_is_allowed_the_clusters_size_counts_too() {
    let api = api_with(30, 10);
    let recorder = Arc::new(Recorder::default());
    let access = AUTO.probed(&api, counting(29), recorder.clone());
    read_all(&access, 1).await;
    settle().await;
    assert_eq!(recorder.told().counts, [ClusterCount::Counted(30)]);
    let list = api
        .requests()
        .into_iter()
        .find(|request| request.verb == "list")
        .expect("it counted");
    assert_eq!(list.uri, "/api/v1/secrets?limit=1");
    assert!(list.metadata_only());

    read_all(&access, 1).await;
    assert_eq!(
        recorder.told().transitions.last().map(|transition| transition.reason),
        Some(Reason::TooManyInCluster { secrets: 30, max: 29 })
    );
    // Not again before the interval has passed.
    for _ in 0..299 {
        tokio::time::advance(seconds(1)).await;
        read_all(&access, 1).await;
    }
    settle().await;
    assert_eq!(api.count("list", "secrets"), 1);
    tokio::time::advance(seconds(1)).await;
    read_all(&access, 1).await;
    settle().await;
    assert_eq!(api.count("list", "secrets"), 2);
}

#[tokio::test(start_paused = true)]
async fn where_listing_is_denied_that_is_reported_and_rarely_asked_again() {
    let api = api_with(30, 10);
    api.forbid("list", "secrets");
    let recorder = Arc::new(Recorder::default());
    let access = AUTO.probed(&api, counting(29), recorder.clone());
    for _ in 0..11 {
        read_all(&access, 1).await;
        settle().await;
        tokio::time::advance(seconds(300)).await;
    }
    assert_eq!(recorder.told().counts, [ClusterCount::Denied]);
    assert!(
        recorder.told().transitions.is_empty(),
        "and it goes on by the working set"
    );
    api.permit("list", "secrets");
    tokio::time::advance(seconds(300)).await;
    read_all(&access, 1).await;
    settle().await;
    assert_eq!(recorder.told().counts.last(), Some(&ClusterCount::Counted(30)));
    assert_eq!(api.count("list", "secrets"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_fails_or_hangs_harms_no_read() {
    for fault in [Fault::Hang, Fault::status(500), Fault::Garbage] {
        let api = api_with(30, 10);
        api.inject(RequestMatch::verb("list"), Times::N(1), fault.clone());
        let recorder = Arc::new(Recorder::default());
        let access = AUTO.probed(&api, counting(29), recorder.clone());
        let began = tokio::time::Instant::now();
        read_all(&access, 3).await;
        assert_eq!(began.elapsed().as_secs(), 0, "{fault:?}");
        tokio::time::sleep(seconds(11)).await;
        assert!(
            matches!(recorder.told().counts[..], [ClusterCount::Failed(_)]),
            "{fault:?}"
        );
        tokio::time::advance(seconds(300)).await;
        read_all(&access, 1).await;
        settle().await;
        assert_eq!(
            recorder.told().counts.last(),
            Some(&ClusterCount::Counted(30)),
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn counting_is_off_unless_asked_for() {
    let api = api_with(3, 10);
    let access = AUTO.access(&api, AccessOptions::default());
    read_all(&access, 3).await;
    tokio::time::advance(seconds(100_000)).await;
    read_all(&access, 3).await;
    settle().await;
    assert_eq!(api.count("list", "secrets"), 0);
}

/// A request that is on its way when caching ends must not fill the cache again.
#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_stay_in_an_emptied_cache() {
    let api = api_with(5, 10);
    let recorder = Arc::new(Recorder::default());
    let access = AUTO.probed(
        &api,
        AccessOptions::default().with_bounds(2, 1 << 20, seconds(60)),
        recorder.clone(),
    );
    let gate = api.hold(RequestMatch::verb("get").named("ns", "s4"));
    let late = tokio::spawn({
        let access = Arc::clone(&access);
        async move { access.read(&secret("s4"), Want::default()).await }
    });
    gate.wait_for(1).await;
    read_all(&access, 3).await;
    assert_eq!(recorder.told().transitions.len(), 1);
    gate.open();
    late.await.expect("no panic").expect("readable");
    assert_eq!(recorder.told().sizes.last().map(|size| size.entries), Some(0));
}
