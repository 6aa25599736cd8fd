//! One watch: from the API server into whoever keeps what it shows.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use kube::Api;
use kube_runtime::watcher::{self, Event};
use tracing::{debug, info, warn};

use crate::{
    backoff::{Doubling, WatchTries},
    cache::{Cache, Change, Relist},
    error::{Fault, FaultKind},
    health::{Health, Watch as Progress},
    observability::metrics::WatchMetrics,
    stored::{Stored, Wire},
};

/// Objects in one page of a list: few enough to keep the answer small, even of large objects.
const PAGE_SIZE: u32 = 100;

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
    /// The cluster does not have the kind (any more), and so none of its objects.
    fn absent(&mut self) {
        self.begin();
        self.finish();
    }
    /// The watch has failed and is tried again.
    fn failed(&mut self, _fault: &Fault) {}
}

/// Keeps a cache and tells somebody about each change, and about a kind that the cluster has from now on.
pub(crate) struct CacheFeed<T, F, A> {
    cache: Arc<Cache<T>>,
    namespace: Option<String>,
    relist: Option<Relist>,
    changed: F,
    appeared: A,
}

impl<T, F, A> CacheFeed<T, F, A> {
    pub(crate) fn new(cache: Arc<Cache<T>>, namespace: Option<String>, changed: F, appeared: A) -> Self {
        Self {
            cache,
            namespace,
            relist: None,
            changed,
            appeared,
        }
    }
}

impl<T, F, A> Feed<T> for CacheFeed<T, F, A>
where
    T: Stored,
    F: Fn(&Change<T>) + Send,
    A: Fn() + Send,
{
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
        if self.cache.set_served(true) {
            (self.appeared)();
        }
    }

    fn applied(&mut self, object: Arc<T>) {
        self.cache.put(object).iter().for_each(&self.changed);
    }

    fn deleted(&mut self, object: Arc<T>) {
        self.cache.delete(&object).iter().for_each(&self.changed);
    }

    fn absent(&mut self) {
        let relist = self.cache.begin(self.namespace.as_deref());
        self.cache.finish(&relist).iter().for_each(&self.changed);
        self.cache.set_served(false);
    }
}

/// A watch and what is done about its failures.
pub(crate) struct Watch {
    /// How it is called in logs and at `/readyz`.
    pub(crate) name: String,
    /// Whom to tell how far it has come: passes begin when all watches that tell are in sync. None where passes go on
    /// without it.
    pub(crate) health: Option<Arc<Health>>,
    /// Whether the cluster may lack the kind, which then has no objects.
    pub(crate) optional: bool,
    pub(crate) metrics: WatchMetrics,
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
        self.progress(Progress::Listing(None));
        let mut events = pin!(events);
        let mut listing = Progress::Listing(None);
        let mut tries = WatchTries::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // Every try to list begins with `Init`, those that fail as well.
                    if !matches!(event, Event::Init) {
                        tries.reset();
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
                            self.progress(Progress::Synced);
                        }
                        Event::Apply(wire) => feed.applied(wire.object),
                        Event::Delete(wire) => feed.deleted(wire.object),
                    }
                }
                Err(error) => {
                    let delay = self.failed(&error_fault(error), &mut tries, &mut listing, &mut feed);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    fn progress(&self, progress: Progress) {
        if let Some(health) = &self.health {
            health.watch(&self.name, progress);
        }
    }

    /// Says what failed and returns how long to wait.
    fn failed<T: Stored>(
        &self,
        fault: &Fault,
        tries: &mut WatchTries,
        listing: &mut Progress,
        feed: &mut impl Feed<T>,
    ) -> Duration {
        // What was there a moment ago is believed to be gone when two answers say so.
        feed.failed(fault);
        let doubtful = *listing == Progress::Synced && tries.is_first_refusal();
        if T::CUSTOM && fault.kind == FaultKind::NotFound && !doubtful {
            if *listing != Progress::Absent {
                info!(
                    watch = self.name,
                    "{} does not exist in this cluster; looking for it now and then",
                    T::KIND
                );
                // Whatever was known of it went with it.
                feed.absent();
                *listing = Progress::Absent;
            }
            let problem = format!("{} does not exist in this cluster; its CRD is not installed", T::KIND);
            let progress = if self.optional {
                Progress::Absent
            } else {
                Progress::Listing(Some(problem))
            };
            self.progress(progress);
            return tries.absent(ABSENT_RETRY, fastrand::f64());
        }
        self.metrics.restarted(T::KIND, fault.kind);
        // Routine: the version to continue from is too old, and everything is listed anew.
        if fault.kind == FaultKind::Expired {
            debug!(watch = self.name, "watch expired; listing again");
            return tries.failed(fault, fastrand::f64());
        }
        warn!(
            watch = self.name,
            error = fault.message,
            error_kind = fault.kind.as_str(),
            "watch failed; trying again"
        );
        if *listing != Progress::Synced {
            *listing = Progress::Listing(Some(fault.to_string()));
            self.progress(listing.clone());
        }
        tries.failed(fault, fastrand::f64())
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;
    use kube::core::Status;

    use super::*;
    use crate::{key::ObjectKey, observability::metrics::Metrics, stored::runtime::StoredRuntime};

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

    /// What a watch has left behind.
    struct World {
        cache: Arc<Cache<StoredRuntime>>,
        health: Arc<Health>,
        /// How often the kind was said to have appeared.
        appeared: usize,
    }

    async fn follow(optional: bool, events: Vec<watcher::Result<Event<Wire<StoredRuntime>>>>) -> World {
        let (cache, health) = (Arc::new(Cache::default()), Arc::new(Health::new()));
        health.settings(None);
        let watch = Watch {
            name: "services".into(),
            health: Some(Arc::clone(&health)),
            optional,
            metrics: Metrics::new().watches,
        };
        let appeared = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&appeared);
        let feed = CacheFeed::new(
            Arc::clone(&cache),
            None,
            |_: &Change<StoredRuntime>| {},
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            },
        );
        watch.follow(stream::iter(events), feed).await;
        World {
            cache,
            health,
            appeared: appeared.load(Ordering::Relaxed),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_follows_and_the_watch_is_known_after_its_list() {
        let World { cache, health, .. } = follow(
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
        let World { cache, health, .. } = follow(true, one_answer).await;
        assert_eq!(cache.keys(None).len(), 1, "one answer is not believed");
        assert!(health.is_known());
        let World { cache, health, .. } = follow(true, gone()).await;
        assert!(cache.keys(None).is_empty());
        assert!(health.is_known());
        let World { health, .. } = follow(false, gone()).await;
        let missing = health.ready().expect_err("it is needed").join("\n");
        assert!(missing.contains("CRD is not installed"), "{missing}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_appears_later_is_told_of_once() {
        let list = || [Ok(Event::Init), Ok(Event::InitDone)];
        let absent = || vec![Ok(Event::Init), Err(answer(404))];
        let missing = follow(true, absent()).await;
        assert!(!missing.cache.is_served());
        let events = absent().into_iter().chain(list()).chain(list()).collect();
        let later = follow(true, events).await;
        assert_eq!((later.cache.is_served(), later.appeared), (true, 1));
        let from_the_start = follow(true, list().into_iter().collect()).await;
        assert_eq!((from_the_start.cache.is_served(), from_the_start.appeared), (true, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_missing_is_named() {
        let World { health, .. } = follow(true, vec![Ok(Event::Init), Err(answer(403))]).await;
        let missing = health.ready().expect_err("not known").join("\n");
        assert!(missing.contains("services: forbidden"), "{missing}");
    }
}
