//! The `ConfigMap` with certificate authorities in the platform's namespace. The settings name it, and may come to name
//! another one while the operator runs.

use std::{sync::Arc, time::Duration};

use isvc_core::{
    names,
    observed::{self, Lookup},
    settings::Settings,
};
use kube::{Api, Client};
use tokio::{sync::watch, time::timeout};

use crate::{
    error::{Action, Fault, FaultKind, PassError},
    key::ObjectKey,
    observability::metrics::WatchMetrics,
    stored::{Stored, named::StoredConfigMap},
    triggers::Triggers,
    watch::{Feed, Watch, selection},
};

type Content = Lookup<observed::CaBundleSource>;

/// What is known of it.
pub(crate) struct CaBundleSource {
    namespace: String,
    state: watch::Sender<State>,
    /// How long a pass waits for what is not known yet.
    patience: Duration,
}

#[derive(Clone, Default)]
struct State {
    /// What the settings in force name.
    name: Option<String>,
    /// None until its watch has shown it or failed to.
    content: Option<Content>,
}

impl CaBundleSource {
    pub(crate) fn new(namespace: String, patience: Duration) -> Self {
        Self {
            namespace,
            state: watch::Sender::default(),
            patience,
        }
    }

    /// Other settings are in force.
    pub(crate) fn settings(&self, settings: &Settings) {
        let name = &settings.storage_initializer.ca_bundle_config_map_name;
        self.state.send_if_modified(|state| {
            let other = state.name != *name;
            if other {
                *state = State {
                    name: name.clone(),
                    content: None,
                };
            }
            other
        });
    }

    /// What the named `ConfigMap` holds; none when the settings name none. Waits for the watch to show it.
    pub(crate) async fn read(&self, settings: &Settings) -> Result<Option<Content>, PassError> {
        let Some(name) = &settings.storage_initializer.ca_bundle_config_map_name else {
            return Ok(None);
        };
        let mut states = self.state.subscribe();
        // A pass that began under settings that are not in force any more is followed by one under those that are.
        let known = states.wait_for(|state| state.content.is_some() || state.name.as_ref() != Some(name));
        if let Ok(Ok(state)) = timeout(self.patience, known).await
            && let State {
                content: Some(content), ..
            } = &*state
        {
            return Ok(Some(content.clone()));
        }
        Err(PassError::Api {
            action: Action::Read,
            kind: StoredConfigMap::KIND,
            key: ObjectKey::new(&self.namespace, name),
            fault: Fault {
                kind: FaultKind::Unavailable,
                message: "its watch has not shown it yet".to_owned(),
                retry_after: None,
            },
        })
    }

    /// Watches whatever the settings name. A change asks for passes over all services. Never ends.
    pub(crate) async fn follow(self: Arc<Self>, client: Client, triggers: Triggers, metrics: WatchMetrics) {
        let mut names = self.state.subscribe();
        loop {
            let name = names.borrow_and_update().name.clone();
            let renamed = async {
                // The sender lives as long as `self`.
                let _ = names.wait_for(|state| state.name != name).await;
            };
            let following = async {
                let Some(name) = &name else {
                    return std::future::pending().await;
                };
                let api = Api::namespaced(client.clone(), &self.namespace);
                let watch = Watch {
                    name: format!("configmap {}/{name}", self.namespace),
                    health: None,
                    optional: false,
                    metrics: metrics.clone(),
                };
                let feed = SourceFeed {
                    source: Arc::clone(&self),
                    triggers: triggers.clone(),
                    name: name.clone(),
                    seen: false,
                };
                let selected = selection().fields(&format!("metadata.name={name}"));
                watch.run(api, selected, feed).await;
            };
            tokio::select! {
                () = renamed => {}
                () = following => {}
            }
        }
    }

    /// The watch of `name` shows something. Returns whether that is news.
    fn shown(&self, name: &str, content: Content) -> bool {
        self.state.send_if_modified(|state| {
            // What was read stays true while it cannot be read.
            let only_blind = matches!(
                (&state.content, &content),
                (Some(Lookup::Found(_)), Lookup::Unreadable(_))
            );
            let news = state.name.as_deref() == Some(name) && state.content.as_ref() != Some(&content) && !only_blind;
            if news {
                state.content = Some(content);
            }
            news
        })
    }
}

struct SourceFeed {
    source: Arc<CaBundleSource>,
    triggers: Triggers,
    name: String,
    seen: bool,
}

impl SourceFeed {
    fn shown(&self, content: Content) {
        if self.source.shown(&self.name, content) {
            self.triggers.all(None);
        }
    }
}

impl Feed<StoredConfigMap> for SourceFeed {
    fn begin(&mut self) {
        self.seen = false;
    }

    fn listed(&mut self, object: Arc<StoredConfigMap>) {
        self.seen = true;
        self.applied(object);
    }

    fn finish(&mut self) {
        if !self.seen {
            self.shown(Lookup::Missing);
        }
    }

    fn applied(&mut self, object: Arc<StoredConfigMap>) {
        let certificates = object.data.get(names::CA_BUNDLE_KEY).map(|text| text.as_str().into());
        self.shown(Lookup::Found(observed::CaBundleSource { certificates }));
    }

    fn deleted(&mut self, _object: Arc<StoredConfigMap>) {
        self.shown(Lookup::Missing);
    }

    fn failed(&mut self, fault: &Fault) {
        if fault.kind == FaultKind::Forbidden {
            self.shown(Lookup::Unreadable(fault.to_string()));
        }
    }
}
