//! One watch: from the API server into whoever keeps what it shows.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use kube::Api;
use kube_runtime::watcher::{self, Event};
use tracing::{debug, info, warn};

use crate::{
    backoff::Doubling,
    cache::{Cache, Change, Relist},
    error::{Fault, FaultKind},
    health::{Health, Watch as Progress},
    stored::{Stored, Wire},
};

/// Objects in one page of a list: few enough to keep the answer small, even of large objects.
const PAGE_SIZE: u32 = 100;

/// Between tries after a failure.
const RETRY: Doubling = Doubling {
    first: Duration::from_millis(500),
    most: Duration::from_secs(30),
};

/// Between tries while the kind does not exist.
const ABSENT_RETRY: Doubling = Doubling {
    first: Duration::from_secs(10),
    most: Duration::from_secs(60),
};

/// Takes what a watch shows.
pub(crate) trait Feed<T>: Send {
    /// All objects are about to be listed.
    fn begin(&mut self);
    /// The list shows an object.
    fn listed(&mut self, object: Arc<T>);
    /// The list is complete.
    fn finish(&mut self);
    /// An object was created or changed.
    fn applied(&mut self, object: Arc<T>);
    /// An object is gone.
    fn deleted(&mut self, object: Arc<T>);
}

/// Keeps a cache and tells somebody about each change.
pub(crate) struct CacheFeed<T, F> {
    cache: Arc<Cache<T>>,
    namespace: Option<String>,
    relist: Option<Relist>,
    changed: F,
}

impl<T, F> CacheFeed<T, F> {
    pub(crate) fn new(cache: Arc<Cache<T>>, namespace: Option<String>, changed: F) -> Self {
        Self {
            cache,
            namespace,
            relist: None,
            changed,
        }
    }
}

impl<T: Stored, F: Fn(&Change<T>) + Send> Feed<T> for CacheFeed<T, F> {
    fn begin(&mut self) {
        self.relist = Some(self.cache.begin(self.namespace.as_deref()));
    }

    fn listed(&mut self, object: Arc<T>) {
        let change = match &self.relist {
            Some(relist) => self.cache.listed(relist, object),
            None => self.cache.put(object),
        };
        change.iter().for_each(&self.changed);
    }

    fn finish(&mut self) {
        if let Some(relist) = self.relist.take() {
            self.cache.finish(&relist).iter().for_each(&self.changed);
        }
    }

    fn applied(&mut self, object: Arc<T>) {
        self.cache.put(object).iter().for_each(&self.changed);
    }

    fn deleted(&mut self, object: Arc<T>) {
        self.cache.delete(&object).iter().for_each(&self.changed);
    }
}

/// A watch and what is done about its failures.
pub(crate) struct Watch {
    /// How it is called in logs and at `/readyz`.
    pub(crate) name: String,
    pub(crate) health: Arc<Health>,
    /// Whether the cluster may lack the kind, which then has no objects.
    pub(crate) optional: bool,
}

/// What is selected from a kind.
pub(crate) fn selection() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

impl Watch {
    /// Runs until it is dropped.
    pub(crate) async fn run<T: Stored>(self, api: Api<Wire<T>>, selection: watcher::Config, feed: impl Feed<T>) {
        self.follow(watcher::watcher(api, selection), feed).await;
    }

    async fn follow<T: Stored>(
        self,
        events: impl Stream<Item = watcher::Result<Event<Wire<T>>>>,
        mut feed: impl Feed<T>,
    ) {
        self.health.watch(&self.name, Progress::Listing(None));
        let mut events = pin!(events);
        let mut listing = Progress::Listing(None);
        let mut failures = 0;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // Every try to list begins with `Init`, those that fail as well.
                    if !matches!(event, Event::Init) {
                        failures = 0;
                    }
                    match event {
                        Event::Init => feed.begin(),
                        Event::InitApply(wire) => feed.listed(wire.object),
                        Event::InitDone => {
                            feed.finish();
                            if listing != Progress::Synced {
                                debug!(watch = self.name, "in sync");
                                listing = Progress::Synced;
                            }
                            self.health.watch(&self.name, Progress::Synced);
                        }
                        Event::Apply(wire) => feed.applied(wire.object),
                        Event::Delete(wire) => feed.deleted(wire.object),
                    }
                }
                Err(error) => {
                    let delay = self.failed(&error_fault(error), failures, &mut listing, &mut feed);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Says what failed and returns how long to wait.
    fn failed<T: Stored>(
        &self,
        fault: &Fault,
        failures: u32,
        listing: &mut Progress,
        feed: &mut impl Feed<T>,
    ) -> Duration {
        // What was there a moment ago is believed to be gone when two answers say so.
        let doubtful = *listing == Progress::Synced && failures == 0;
        if T::CUSTOM && fault.kind == FaultKind::NotFound && !doubtful {
            if *listing != Progress::Absent {
                info!(
                    watch = self.name,
                    "{} does not exist in this cluster; looking for it now and then",
                    T::KIND
                );
                // Whatever was known of it went with it.
                feed.begin();
                feed.finish();
                *listing = Progress::Absent;
            }
            let problem = format!("{} does not exist in this cluster; its CRD is not installed", T::KIND);
            let progress = if self.optional {
                Progress::Absent
            } else {
                Progress::Listing(Some(problem))
            };
            self.health.watch(&self.name, progress);
            return ABSENT_RETRY.delay(failures, fastrand::f64());
        }
        // Routine: the version to continue from is too old, and everything is listed anew.
        if fault.kind == FaultKind::Expired {
            debug!(watch = self.name, "watch expired; listing again");
            return RETRY.delay(failures, fastrand::f64());
        }
        warn!(
            watch = self.name,
            error = fault.message,
            kind = fault.kind.as_str(),
            "watch failed; trying again"
        );
        if *listing != Progress::Synced {
            *listing = Progress::Listing(Some(fault.to_string()));
            self.health.watch(&self.name, listing.clone());
        }
        RETRY
            .delay(failures, fastrand::f64())
            .max(fault.retry_after.unwrap_or_default().min(Duration::from_secs(60)))
    }
}

fn error_fault(error: watcher::Error) -> Fault {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error.into(),
        watcher::Error::WatchError(status) => kube::Error::Api(status).into(),
        watcher::Error::NoResourceVersion => Fault {
            kind: FaultKind::Malformed,
            message: "an object without resourceVersion".into(),
            retry_after: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::core::Status;

    use super::*;
    use crate::{key::ObjectKey, stored::runtime::StoredRuntime};

    fn wire(name: &str, version: &str) -> Wire<StoredRuntime> {
        let runtime = serde_json::json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": version},
            "spec": {},
        });
        serde_json::from_str(&runtime.to_string()).expect("a runtime")
    }

    fn answer(code: u16) -> watcher::Error {
        watcher::Error::InitialListFailed(kube::Error::Api(Status::failure("no", "No").with_code(code).boxed()))
    }

    async fn follow(
        optional: bool,
        events: Vec<watcher::Result<Event<Wire<StoredRuntime>>>>,
    ) -> (Arc<Cache<StoredRuntime>>, Arc<Health>) {
        let (cache, health) = (Arc::new(Cache::default()), Arc::new(Health::new()));
        health.settings(None);
        let watch = Watch {
            name: "services".into(),
            health: Arc::clone(&health),
            optional,
        };
        watch
            .follow(
                stream::iter(events),
                CacheFeed::new(Arc::clone(&cache), None, |_: &Change<StoredRuntime>| {}),
            )
            .await;
        (cache, health)
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_follows_and_the_watch_is_known_after_its_list() {
        let (cache, health) = follow(
            false,
            vec![
                Ok(Event::Init),
                Ok(Event::InitApply(wire("a", "1"))),
                Ok(Event::InitApply(wire("b", "2"))),
                Ok(Event::InitDone),
                Ok(Event::Delete(wire("a", "3"))),
                Ok(Event::Apply(wire("c", "4"))),
                Err(answer(500)),
                Ok(Event::Init),
                Ok(Event::InitApply(wire("c", "4"))),
                Ok(Event::InitDone),
            ],
        )
        .await;
        let keys = cache.keys(None);
        assert_eq!(keys, [ObjectKey::new("ns", "c")]);
        assert!(health.is_known());
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_does_not_exist_has_no_objects_if_it_may_be_missing() {
        let gone = || {
            vec![
                Ok(Event::Init),
                Ok(Event::InitApply(wire("a", "1"))),
                Ok(Event::InitDone),
                Err(answer(404)),
                Ok(Event::Init),
                Err(answer(404)),
            ]
        };
        let one_answer = gone().into_iter().take(4).collect();
        let (cache, health) = follow(true, one_answer).await;
        assert_eq!(cache.keys(None).len(), 1, "one answer is not believed");
        assert!(health.is_known());
        let (cache, health) = follow(true, gone()).await;
        assert!(cache.keys(None).is_empty());
        assert!(health.is_known());
        let (_, health) = follow(false, gone()).await;
        let missing = health.ready().expect_err("it is needed").join("\n");
        assert!(missing.contains("CRD is not installed"), "{missing}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_missing_is_named() {
        let (_, health) = follow(true, vec![Ok(Event::Init), Err(answer(403))]).await;
        let missing = health.ready().expect_err("not known").join("\n");
        assert!(missing.contains("services: forbidden"), "{missing}");
    }
}
