//! When policies may have changed.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use isvc_core::policy::names;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use kube_runtime::{WatchStreamExt, watcher};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Changes come in bursts: a policy, then its status. This long after the last one it is time to look.
const QUIET: Duration = Duration::from_secs(3);
/// Whoever changes policies all the time cannot put it off longer.
const LONGEST: Duration = Duration::from_secs(60);

/// A watch on policies that keeps none of them.
pub(super) struct Changes {
    seen: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Changes {
    pub(super) fn watch(client: Client) -> Self {
        let seen = Arc::new(Notify::new());
        let task = tokio::spawn(follow(client, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// Waits for a change, and until nothing has changed for a moment.
    pub(super) async fn settled(&mut self) {
        self.seen.notified().await;
        let quiet = async { while timeout(QUIET, self.seen.notified()).await.is_ok() {} };
        // At the bound it is looked at as it is.
        let _ = timeout(LONGEST, quiet).await;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, seen: Arc<Notify>) {
    let kind = GroupVersionKind::gvk(names::GROUP, names::VERSION, names::POLICY_KIND);
    let resource = ApiResource::from_gvk_with_plural(&kind, names::POLICY_RESOURCE);
    let policies: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let events = watcher::watcher(policies, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => seen.notify_one(),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Err(error) => tracing::debug!(%error, "policies cannot be watched"),
        }
    }
    // It never ends by itself.
    sleep(LONGEST).await;
}
