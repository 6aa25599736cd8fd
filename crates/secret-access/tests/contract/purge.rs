//! Giving memory back.

use std::sync::Arc;

use kube_secret_access::{AccessOptions, Eviction, Purge, SecretAccess, Source, Want};
use testkit::fake_api::FakeApi;

use crate::access::{Kind, Recorder, secret};

#[tokio::test(start_paused = true)]
async fn a_purge_drops_what_it_says_and_reads_go_on() {
    for kind in Kind::all() {
        for level in [Purge::Half, Purge::All] {
            let api = FakeApi::new();
            for number in 0..20 {
                api.put_secret("ns", &format!("s{number}"), &[("k", &[b'x'; 1000])]);
            }
            let recorder = Arc::new(Recorder::default());
            let access = kind.probed(&api, AccessOptions::default(), recorder.clone());
            for number in 0..20 {
                access
                    .read(&secret(&format!("s{number}")), Want::default())
                    .await
                    .expect("readable");
            }
            let purged = access.purge(level);
            let told = recorder.told();
            let expected = match (kind.caches(), level) {
                (false, _) => 0,
                (true, Purge::All) => 20,
                // By bytes and by entries, and not all names are equally long.
                (true, _) => 11,
            };
            assert_eq!(purged.entries, expected, "{kind:?} {level:?}");
            assert_eq!(told.evicted, vec![Eviction::Purged; expected]);
            if kind.caches() {
                assert!(purged.bytes >= 1000 * expected);
                assert_eq!(told.sizes.last().map(|size| size.entries), Some(20 - expected));
                // The most recently read is the last to go.
                let last = access.read(&secret("s19"), Want::default()).await.expect("readable");
                let source = if level == Purge::All {
                    Source::Api
                } else {
                    Source::Cache
                };
                assert_eq!(last.source(), source, "{kind:?} {level:?}");
                let again = access.read(&secret("s19"), Want::default()).await.expect("readable");
                assert_eq!(again.source(), Source::Cache, "it goes on caching");
            }
        }
    }
}
