//! Which change asks for a pass over which service.
//!
//! Too many passes cost a little time, because a steady pass makes no request; a missing one leaves a service wrong until
//! the next resync. So when in doubt, more are asked for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use isvc_core::api::InvalidField;
use tracing::warn;

use crate::{
    cache::{Cache, Change},
    key::ObjectKey,
    queue::Queue,
    stored::{Stored, service::StoredService},
};

/// Asks for passes.
#[derive(Clone)]
pub(crate) struct Triggers {
    pub(crate) queue: Arc<Queue>,
    pub(crate) services: Arc<Cache<StoredService>>,
    /// Set when passes begin. Until then every service waits for its first pass anyway.
    pub(crate) begun: Arc<AtomicBool>,
}

impl Triggers {
    /// A service itself has changed.
    pub(crate) fn service(&self, change: &Change<StoredService>) {
        if let Some(service) = change.new.as_ref().or(change.old.as_ref()) {
            self.add(service.head().key.clone());
        }
    }

    /// Something that belongs to a service has changed: a child or a Pod.
    pub(crate) fn owned<T: Stored>(&self, change: &Change<T>) {
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        let (old, new) = (
            old.and_then(|object| object.owner()),
            new.and_then(|object| object.owner()),
        );
        if let Some(owner) = new {
            self.add(owner.clone());
        }
        if let Some(owner) = old
            && Some(owner) != new
        {
            self.add(owner.clone());
        }
    }

    /// A runtime has changed: those that use it, could choose it now, or wait for it. That may be any service of its
    /// namespace, and for a cluster-scoped runtime any service at all.
    pub(crate) fn catalog<T: Stored, P>(&self, change: &Change<T>, parsed: impl Fn(&T) -> &Result<P, InvalidField>) {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else {
            return;
        };
        let key = &object.head().key;
        if let Some(Err(error)) = change.new.as_deref().map(parsed) {
            let (namespace, name) = (key.namespace(), key.name());
            warn!(kind = T::KIND, namespace, name, %error, "object cannot be read and is not used");
        }
        self.all(Some(key.namespace()).filter(|namespace| !namespace.is_empty()));
    }

    /// Something that all services of its namespace share has changed.
    pub(crate) fn shared<T: Stored>(&self, change: &Change<T>) {
        if let Some(object) = change.new.as_ref().or(change.old.as_ref()) {
            self.all(Some(object.head().key.namespace()));
        }
    }

    /// Something has changed that this service refers to by name.
    pub(crate) fn referrer(&self, service: ObjectKey) {
        self.add(service);
    }

    /// All services, or all of one namespace.
    pub(crate) fn all(&self, namespace: Option<&str>) {
        if self.begun.load(Ordering::Acquire) {
            for key in self.services.keys(namespace) {
                self.add(key);
            }
        }
    }

    fn add(&self, key: ObjectKey) {
        self.queue.add(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::stored::{
        child::{
            Services, StoredChild,
            tests::{owned_by, stored},
        },
        runtime::{StoredClusterRuntime, StoredRuntime},
        service,
    };

    fn triggers() -> Triggers {
        let services = Arc::new(Cache::default());
        for (namespace, name) in [("a", "one"), ("a", "two"), ("b", "three")] {
            services.put(service::tests::stored(&json!({
                "metadata": {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"},
            })));
        }
        Triggers {
            queue: Arc::default(),
            services,
            begun: Arc::new(AtomicBool::new(true)),
        }
    }

    async fn asked_for(triggers: &Triggers) -> Vec<String> {
        let mut keys = Vec::new();
        while let Ok(key) = tokio::time::timeout(Duration::from_secs(1), triggers.queue.next()).await {
            keys.push(key.to_string());
        }
        keys.sort();
        keys
    }

    fn runtime<T: Stored>(namespace: &str) -> Change<T> {
        let value = json!({
            "metadata": {"name": "r", "namespace": namespace, "uid": "r", "resourceVersion": "1"}, "spec": {},
        });
        let wire: crate::stored::Wire<T> = serde_json::from_str(&value.to_string()).expect("a runtime");
        Change {
            old: None,
            new: Some(wire.object),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_changes_hands_asks_for_both_owners() {
        let triggers = triggers();
        let child = |owner| Some(stored::<Services>(&owned_by(owner, "c", "1")));
        triggers.owned::<StoredChild<Services>>(&Change {
            old: child("x"),
            new: child("y"),
        });
        triggers.owned::<StoredChild<Services>>(&Change {
            old: child("y"),
            new: None,
        });
        assert_eq!(asked_for(&triggers).await, ["ns/x", "ns/y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn runtimes_ask_for_their_namespace_or_for_all() {
        let triggers = triggers();
        triggers.catalog(&runtime::<StoredRuntime>("a"), StoredRuntime::parsed);
        assert_eq!(asked_for(&triggers).await, ["a/one", "a/two"]);
        for key in triggers.services.keys(None) {
            triggers.queue.done(&key);
        }
        triggers.catalog(&runtime::<StoredClusterRuntime>(""), StoredClusterRuntime::parsed);
        assert_eq!(asked_for(&triggers).await, ["a/one", "a/two", "b/three"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_twice_before_passes_begin() {
        let triggers = triggers();
        triggers.begun.store(false, Ordering::Release);
        triggers.all(None);
        assert!(asked_for(&triggers).await.is_empty());
    }
}
