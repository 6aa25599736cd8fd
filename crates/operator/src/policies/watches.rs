//! Watches that keep nothing: each change is looked at and forgotten.
//!
//! So a watch needs no list to begin with. It begins at the present version, and what was before that is found by the search
//! and the passes over every policy that are asked for whenever one begins anew.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::TryStreamExt;
use isvc_core::policy::names;
use kube::api::WatchEvent;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{
    kinds::{Child, Kind, Parent},
    requests::{Form, Requests, WATCH_SECONDS},
    triggers::Triggers,
};
use crate::{
    backoff::{Doubling, WatchTries},
    error::{Fault, FaultKind},
    observability::metrics::PolicyMetrics,
};

/// The API server ends every watch after a while; one that ends at once must not be begun at once.
const AGAIN: Doubling = Doubling {
    first: Duration::from_millis(200),
    most: Duration::from_millis(200),
};

/// Between tries while the kind does not exist.
const ABSENT_RETRY: Doubling = Doubling {
    first: Duration::from_secs(5),
    most: Duration::from_secs(60),
};

/// A watch that says nothing for longer than the API server keeps one has lost its connection.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);

/// One watch of each kind.
pub(super) struct Watches {
    pub(super) requests: Requests,
    pub(super) triggers: Arc<Triggers>,
    pub(super) metrics: PolicyMetrics,
}

/// What is watched, as the watch shows it.
trait Watched: Clone + DeserializeOwned {
    fn version(&self) -> &str;
}

impl Watched for Child {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Watched for Parent {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// What happened to an object.
enum Change<'a, T> {
    Applied(&'a T),
    Deleted(&'a T),
}

impl Watches {
    /// Watches a kind. Never ends.
    pub(super) async fn follow(self: Arc<Self>, kind: Kind) {
        let mut tries = WatchTries::default();
        loop {
            let Err(fault) = self.session(kind, &mut tries).await;
            let delay = match fault.kind {
                FaultKind::NotFound => {
                    debug!(
                        kind = kind.as_str(),
                        "does not exist in this cluster; looking for it now and then"
                    );
                    tries.absent(ABSENT_RETRY, fastrand::f64())
                }
                fault_kind => {
                    // Routine: the version to continue from is too old.
                    if fault_kind != FaultKind::Expired {
                        warn!(kind = kind.as_str(), error = %fault, "watch failed; trying again");
                    }
                    tries.failed(&fault, fastrand::f64())
                }
            };
            if fault.kind != FaultKind::NotLeading {
                self.metrics.restarted(kind.as_str(), fault.kind);
            }
            sleep(delay).await;
        }
    }

    async fn session(&self, kind: Kind, tries: &mut WatchTries) -> Result<std::convert::Infallible, Fault> {
        match kind {
            Kind::InferencePolicy | Kind::InferencePolicyTemplate => {
                let changed = |change: Change<'_, Parent>| match change {
                    Change::Applied(parent) => self.triggers.parent_changed(kind, parent),
                    Change::Deleted(parent) => self.triggers.parent_deleted(kind, parent),
                };
                self.watch(kind, "", Form::Whole, tries, changed).await
            }
            Kind::ValidatingAdmissionPolicy | Kind::ValidatingAdmissionPolicyBinding => {
                let changed = |change: Change<'_, Child>| match change {
                    Change::Applied(child) => self.triggers.child_changed(kind, child, false),
                    Change::Deleted(child) => self.triggers.child_changed(kind, child, true),
                };
                self.watch(kind, &managed(), Form::Metadata, tries, changed).await
            }
        }
    }

    async fn watch<T: Watched>(
        &self,
        kind: Kind,
        labels: &str,
        form: Form,
        tries: &mut WatchTries,
        changed: impl Fn(Change<'_, T>),
    ) -> Result<std::convert::Infallible, Fault> {
        let page = self
            .requests
            .page_of::<IgnoredAny>(kind, labels, "", 1, Form::Metadata)
            .await?;
        let mut version = page.metadata.resource_version;
        let mut begun = false;
        loop {
            let events = self.requests.watch::<T>(kind, labels, &version, form).await?;
            if !begun {
                begun = true;
                self.triggers.missed_changes();
            }
            let mut events = pin!(events);
            loop {
                let event = match timeout(SILENCE, events.try_next()).await {
                    Ok(Ok(Some(event))) => event,
                    Ok(Ok(None)) => {
                        sleep(AGAIN.delay(0, fastrand::f64())).await;
                        break;
                    }
                    Ok(Err(kube::Error::SerdeError(error))) => {
                        // One odd object must not blind the watch. Where to go on from is known by the next one.
                        let column = error.column();
                        warn!(kind = kind.as_str(), "a change cannot be read at column {column}");
                        self.metrics.restarted(kind.as_str(), FaultKind::Malformed);
                        self.triggers.missed_changes();
                        continue;
                    }
                    Ok(Err(error)) => return Err(error.into()),
                    Err(_) => return Err(Fault::timeout()),
                };
                if !matches!(event, WatchEvent::Error(_)) {
                    tries.reset();
                }
                match &event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => changed(Change::Applied(object)),
                    WatchEvent::Deleted(object) => changed(Change::Deleted(object)),
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status.clone()).into()),
                }
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                        object.version().clone_into(&mut version);
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(_) => {}
                }
            }
        }
    }
}

/// Selects what we have made.
pub(super) fn managed() -> String {
    format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY)
}
