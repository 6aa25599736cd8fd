//! Which service refers to which Secrets and `ServiceAccount`, so that a change of one asks for passes of exactly those.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube_secret_access::{Changes, ObjectRef, SecretRef, Switch, TrackGuard};

use crate::{key::ObjectKey, service_accounts::ServiceAccounts, triggers::Triggers};

/// The kind of all owners of references.
const KIND: &str = "InferenceService";

/// What each service referred to in its last pass.
pub(crate) struct References {
    /// None where changes are not noticed: every reference then has to be looked at again by its service.
    secrets: Option<Arc<Switch>>,
    accounts: Arc<ServiceAccounts>,
    by_service: Mutex<HashMap<ObjectKey, Vec<TrackGuard>>>,
}

/// What one pass refers to. It counts from the moment it is named, and for good when the pass has observed everything.
pub(crate) struct Referring<'a> {
    references: &'a References,
    service: &'a ObjectKey,
    guards: Mutex<Vec<TrackGuard>>,
}

impl References {
    pub(crate) fn new(secrets: Option<Arc<Switch>>, accounts: Arc<ServiceAccounts>) -> Self {
        Self {
            secrets,
            accounts,
            by_service: Mutex::default(),
        }
    }

    /// A pass begins to observe.
    pub(crate) fn begin<'a>(&'a self, service: &'a ObjectKey) -> Referring<'a> {
        Referring {
            references: self,
            service,
            guards: Mutex::default(),
        }
    }

    /// The service refers to nothing any more.
    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.accounts.refer(service, &[]);
        let gone = self.by_service().remove(service);
        drop(gone);
    }

    /// Whether a change of anything that the service referred to in its last pass asks for a pass.
    pub(crate) fn are_watched_over(&self, service: &ObjectKey) -> bool {
        let by_service = self.by_service();
        let guards = by_service.get(service).map_or(&[][..], Vec::as_slice);
        self.secrets.is_some() && guards.iter().all(TrackGuard::is_watched_over)
    }

    fn by_service(&self) -> MutexGuard<'_, HashMap<ObjectKey, Vec<TrackGuard>>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Referring<'_> {
    /// The service refers to this Secret. To be called before it is read, so that no change falls between the two.
    pub(crate) fn secret(&self, secret: &SecretRef) {
        if let Some(switch) = &self.references.secrets {
            let owner = ObjectRef::new(KIND, self.service.namespace(), self.service.name());
            let guard = switch.track(secret.clone(), owner);
            self.guards.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
        }
    }

    /// The service refers to these accounts. To be called before they are read.
    pub(crate) fn accounts(&self, accounts: &[ObjectKey]) {
        self.references.accounts.refer(self.service, accounts);
    }

    /// That was everything: what the pass before referred to counts no longer.
    pub(crate) fn end(self) {
        let guards = self.guards.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut by_service = self.references.by_service();
        let before = if guards.is_empty() {
            by_service.remove(self.service)
        } else {
            by_service.insert(self.service.clone(), guards)
        };
        drop(by_service);
        // After the new ones are counted: a Secret in both is never without a reference.
        drop(before);
    }
}

/// Asks for passes of those who refer to what has changed. Ends with the access.
pub(crate) async fn follow(mut changes: Changes, triggers: Triggers) {
    while let Some(changed) = changes.next().await {
        for owner in &changed.owners {
            triggers.referrer(ObjectKey::new(owner.namespace(), owner.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube_secret_access::{AccessOptions, Probe};

    use super::*;
    use crate::observability::metrics::{AccountMetrics, Metrics};

    fn metrics() -> Arc<AccountMetrics> {
        Metrics::new().accounts
    }

    #[derive(Default)]
    struct Tracked(std::sync::atomic::AtomicUsize);

    impl Probe for Tracked {
        fn tracked(&self, secrets: usize) {
            self.0.store(secrets, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn secret(name: &str) -> SecretRef {
        SecretRef::new("ns", name).expect("valid")
    }

    fn pass(references: &References, service: &ObjectKey, secrets: &[&str]) {
        let referring = references.begin(service);
        for name in secrets {
            referring.secret(&secret(name));
        }
        referring.end();
    }

    #[tokio::test]
    async fn the_last_pass_counts_and_a_failed_one_does_not() {
        let tracked = Arc::new(Tracked::default());
        let count = || tracked.0.load(std::sync::atomic::Ordering::SeqCst);
        let client = crate::tests::unreachable_client();
        let mut options = AccessOptions::default();
        options.changes.max_tracked = 3;
        let switch = Switch::with_probe(client.clone(), options, tracked.clone()).expect("valid");
        let accounts = Arc::new(ServiceAccounts::new(client, Duration::ZERO, metrics()));
        let references = References::new(Some(Arc::new(switch)), accounts);
        let (one, two) = (ObjectKey::new("ns", "one"), ObjectKey::new("ns", "two"));
        pass(&references, &one, &["a", "b", "a"]);
        pass(&references, &two, &["b"]);
        assert_eq!(count(), 2);
        pass(&references, &one, &["a"]);
        assert_eq!(count(), 2, "the other one still refers to it");
        let failed = references.begin(&two);
        failed.secret(&secret("c"));
        assert_eq!(count(), 3);
        drop(failed);
        assert_eq!(count(), 2);
        references.forget(&two);
        assert_eq!(count(), 1);
        assert!(references.are_watched_over(&one));
        pass(&references, &one, &["a", "b", "c", "d"]);
        assert!(!references.are_watched_over(&one), "one too many");
        pass(&references, &one, &[]);
        assert_eq!(count(), 0);
        assert!(references.by_service().is_empty());
        assert!(references.are_watched_over(&one), "there is nothing to watch over");
    }

    #[test]
    fn without_a_tracker_nothing_is_watched_over() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let accounts = Arc::new(ServiceAccounts::new(
            crate::tests::unreachable_client(),
            Duration::ZERO,
            metrics(),
        ));
        let references = References::new(None, accounts);
        let one = ObjectKey::new("ns", "one");
        pass(&references, &one, &["a"]);
        assert!(!references.are_watched_over(&one));
    }
}
