//! Waiting until nothing happens any more.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::view::{Namespace, View};
use crate::Running;

/// How long nothing may have changed.
const QUIET: Duration = Duration::from_secs(1);
/// How long to wait for that. What has not settled then is told as a difference.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often the operator is asked whether it has work.
const PERIOD: Duration = Duration::from_millis(100);

/// When the operator last had nothing to do.
#[derive(Debug)]
pub(super) struct Idle {
    last: watch::Receiver<Option<Instant>>,
    /// The questions end with this.
    asking: JoinSet<()>,
}

impl Idle {
    /// Keeps asking the operator.
    pub(super) fn watch(running: Arc<Running>) -> Self {
        let (told, last) = watch::channel(None);
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // The moment before the question: what changes while it is answered is not covered by the answer.
                let asked = Instant::now();
                let waiting = running.metric("workqueue_depth", &[]).await;
                let active = running.metric("controller_runtime_active_workers", &[]).await;
                if let (Ok(waiting), Ok(active)) = (waiting, active)
                    && waiting + active < 0.5
                {
                    told.send_replace(Some(asked));
                }
            }
        });
        Self { last, asking }
    }

    /// Stops asking.
    pub(super) async fn stop(mut self) {
        self.asking.shutdown().await;
    }

    /// Waits until a namespace has been quiet and the operator has had nothing to do after that. `since` is when the last
    /// request was made for it.
    ///
    /// # Errors
    ///
    /// At the deadline, what is still going on.
    pub(super) async fn settled(&self, view: &View, namespace: &str, since: Instant) -> Result<Namespace, String> {
        let until = Instant::now() + DEADLINE;
        let mut last = self.last.clone();
        loop {
            // An answer comes every PERIOD.
            let told = tokio::time::timeout_at(until, last.changed()).await;
            let changed = view.changed(namespace).map_or(since, |changed| changed.max(since));
            let idle = *last.borrow_and_update();
            let quiet = idle.is_some_and(|idle| idle >= changed + QUIET);
            if quiet {
                let content = view.namespace(namespace);
                let Some(name) = behind(&content) else {
                    return Ok(content);
                };
                if Instant::now() >= until {
                    return Err(format!("the Deployment controller has not seen {name}"));
                }
            } else if told.is_err() || Instant::now() >= until {
                let what = if idle.is_some_and(|idle| idle >= changed) {
                    "objects keep changing"
                } else {
                    "the operator keeps working"
                };
                return Err(format!("after {} s {what}", DEADLINE.as_secs()));
            }
        }
    }
}

/// A Deployment whose controller has not seen its newest version.
fn behind(content: &Namespace) -> Option<&str> {
    let behind = |object: &&Value| {
        let seen = object["status"]["observedGeneration"].as_i64().unwrap_or_default();
        object["metadata"]["generation"]
            .as_i64()
            .is_some_and(|newest| newest > seen)
    };
    content.of("Deployment").find(behind)?["metadata"]["name"].as_str()
}
