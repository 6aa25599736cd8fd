//! What is watched. There is no watch and no list of Secrets or `ServiceAccounts` here, and there must never be one.

use std::{collections::BTreeMap, sync::Arc};

use isvc_core::names;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client};
use kube_runtime::watcher;
use tokio::task::JoinSet;

use crate::{
    ca_bundle::CaBundleSource,
    cache::{Cache, Change},
    config::{Config, Namespaces},
    health::{Health, Watch as Progress},
    mode::{self, ModeSwitch},
    observability::metrics::WatchMetrics,
    observe::Caches,
    platform::{self, Platform},
    stored::{
        Stored,
        named::StoredConfigMap,
        runtime::{StoredClusterRuntime, StoredRuntime, StoredStorageContainer},
    },
    triggers::Triggers,
    watch::{CacheFeed, Feed, Watch, selection},
};

/// Starts watches.
pub(crate) struct Watches<'a> {
    pub(crate) client: Client,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: WatchMetrics,
    pub(crate) config: &'a Config,
    pub(crate) tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    /// Starts all of them.
    pub(crate) fn start(
        mut self,
        caches: &Caches,
        triggers: &Triggers,
        mut mode_switch: ModeSwitch,
        platform: &Arc<Platform>,
        ca_bundle: &Arc<CaBundleSource>,
    ) {
        let labelled = selection().labels(names::LABEL_INFERENCE_SERVICE);
        let on = triggers;
        let selected = selection().labels(&self.config.inference_service_selector);
        self.namespaced(&caches.inference_services, &selected, on, Triggers::service);
        self.namespaced(&caches.services, &labelled, on, Triggers::owned);
        self.namespaced(&caches.deployments, &labelled, on, Triggers::owned);
        self.namespaced(&caches.autoscalers, &labelled, on, Triggers::owned);
        self.namespaced(&caches.scaled_objects, &labelled, on, Triggers::owned);
        self.namespaced(&caches.pods, &labelled, on, Triggers::owned);
        // These carry no labels that could select ours; the others are dropped before they are kept.
        self.namespaced(&caches.ingresses, &selection(), on, Triggers::owned);
        self.namespaced(&caches.http_routes, &selection(), on, Triggers::owned);
        let copies = selection().fields(&format!("metadata.name={}", names::CA_BUNDLE_CONFIG_MAP));
        self.namespaced(&caches.ca_bundles, &copies, on, Triggers::shared);
        self.namespaced(&caches.runtimes, &selection(), on, |on, change| {
            on.catalog(change, StoredRuntime::parsed);
        });
        self.cluster(&caches.cluster_runtimes, on, |on, change| {
            on.catalog(change, StoredClusterRuntime::parsed);
        });
        self.cluster(&caches.storage_containers, on, |on, change| {
            on.catalog(change, StoredStorageContainer::parsed);
        });

        let on = triggers.clone();
        self.config_map(&self.config.common.namespace, mode::CONFIG_MAP, move |data| {
            if mode_switch.apply(data) {
                on.all(None);
            }
        });
        let (platform, source, on) = (Arc::clone(platform), Arc::clone(ca_bundle), triggers.clone());
        self.config_map(&self.config.platform_namespace, platform::CONFIG_MAP, move |data| {
            if platform.apply(data) {
                platform
                    .settings()
                    .iter()
                    .for_each(|settings| source.settings(settings));
                on.all(None);
            }
        });
        let source = Arc::clone(ca_bundle);
        let following = source.follow(self.client.clone(), triggers.clone(), self.metrics.clone());
        self.tasks.spawn(following);
    }

    /// One watch, or one for each namespace that is served.
    fn namespaced<T: Stored<Scope = NamespaceResourceScope>>(
        &mut self,
        cache: &Arc<Cache<T>>,
        selection: &watcher::Config,
        triggers: &Triggers,
        changed: fn(&Triggers, &Change<T>),
    ) {
        let scopes: Vec<Option<String>> = match &self.config.watch {
            Namespaces::All => vec![None],
            Namespaces::These(names) => names.iter().cloned().map(Some).collect(),
        };
        for namespace in scopes {
            let (name, api) = match &namespace {
                None => (T::PLURAL.to_owned(), Api::all(self.client.clone())),
                Some(namespace) => (
                    format!("{} in {namespace}", T::PLURAL),
                    Api::namespaced(self.client.clone(), namespace),
                ),
            };
            let feed = feed(cache, namespace, triggers, changed);
            self.spawn(name, api, selection.clone(), T::OPTIONAL, feed);
        }
    }

    /// One watch of a cluster-scoped kind that the cluster may lack.
    fn cluster<T: Stored<Scope = ClusterResourceScope>>(
        &mut self,
        cache: &Arc<Cache<T>>,
        triggers: &Triggers,
        changed: fn(&Triggers, &Change<T>),
    ) {
        let api = Api::all(self.client.clone());
        let feed = feed(cache, None, triggers, changed);
        self.spawn(T::PLURAL.to_owned(), api, selection(), T::OPTIONAL, feed);
    }

    /// One watch on one `ConfigMap`. `changed` gets its data, or none when it is not there.
    fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
        changed: impl FnMut(Option<&BTreeMap<String, String>>) + Send + 'static,
    ) {
        let api = Api::namespaced(self.client.clone(), namespace);
        let named = selection().fields(&format!("metadata.name={name}"));
        let feed = ConfigMapFeed { seen: false, changed };
        self.spawn(format!("configmap {namespace}/{name}"), api, named, false, feed);
    }

    fn spawn<T: Stored>(
        &mut self,
        name: String,
        api: Api<crate::stored::Wire<T>>,
        selection: watcher::Config,
        optional: bool,
        feed: impl Feed<T> + 'static,
    ) {
        // Known as missing from the start, or passes could begin before the watch is first polled.
        self.health.watch(&name, Progress::Listing(None));
        let watch = Watch {
            name,
            health: Some(Arc::clone(&self.health)),
            optional,
            metrics: self.metrics.clone(),
        };
        self.tasks.spawn(watch.run(api, selection, feed));
    }
}

fn feed<T: Stored>(
    cache: &Arc<Cache<T>>,
    namespace: Option<String>,
    triggers: &Triggers,
    changed: fn(&Triggers, &Change<T>),
) -> impl Feed<T> + 'static {
    let (on, all) = (triggers.clone(), triggers.clone());
    CacheFeed::new(
        Arc::clone(cache),
        namespace,
        move |change: &Change<T>| changed(&on, change),
        // Whoever wanted an object of it had to do without, in other namespaces too: the first watch to see it tells.
        move || all.all(None),
    )
}

/// Hands on the one object a watch selects.
struct ConfigMapFeed<F> {
    seen: bool,
    changed: F,
}

impl<F: FnMut(Option<&BTreeMap<String, String>>) + Send> Feed<StoredConfigMap> for ConfigMapFeed<F> {
    fn begin(&mut self) {
        self.seen = false;
    }

    fn listed(&mut self, object: Arc<StoredConfigMap>) {
        self.seen = true;
        (self.changed)(Some(&object.data));
    }

    fn finish(&mut self) {
        if !self.seen {
            (self.changed)(None);
        }
    }

    fn applied(&mut self, object: Arc<StoredConfigMap>) {
        (self.changed)(Some(&object.data));
    }

    fn deleted(&mut self, _object: Arc<StoredConfigMap>) {
        (self.changed)(None);
    }
}
