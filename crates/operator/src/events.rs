//! Kubernetes Events: sent one after the other by one task, from a bounded queue. What does not fit is dropped and counted.

use std::{collections::HashMap, sync::Arc};

use isvc_core::names;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_runtime::events::{Event, EventType, Recorder};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::{
    error::{Fault, excerpt},
    observability::metrics::Metrics,
};

/// Events waiting to be sent.
const MOST_WAITING: usize = 1000;

/// The recorder remembers each Event for six minutes, to count repetitions. After so many it starts over, so that ten
/// thousand services becoming ready at once take no memory worth speaking of.
const MOST_REMEMBERED: usize = 256;

/// The API server refuses longer notes. Source: validation of events.k8s.io/v1, noteLengthLimit.
const MOST_NOTE: usize = 1024;

/// What happened, and to which object.
pub(crate) struct Notice {
    pub(crate) regarding: ObjectReference,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    /// What the operator was doing, in one word.
    pub(crate) action: &'static str,
    pub(crate) message: String,
}

/// Where Events are handed in.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// The sending end, and the task that must be run for anything to be sent. The task ends when all senders are gone.
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        (
            Self {
                queue,
                metrics: Arc::clone(&metrics),
            },
            send(client, waiting, metrics),
        )
    }

    /// Hands in an Event; never waits.
    pub(crate) fn send(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.metrics.writes.event_dropped();
        }
    }
}

async fn send(client: Client, mut waiting: mpsc::Receiver<Notice>, metrics: Arc<Metrics>) {
    let recorder = || Recorder::new(client.clone(), names::FIELD_MANAGER.into());
    let (mut current, mut notes) = (recorder(), Notes::default());
    while let Some(notice) = waiting.recv().await {
        if notes.start_over(&notice) {
            current = recorder();
        }
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.to_owned(),
            note: Some(excerpt(&notice.message, MOST_NOTE)),
            action: notice.action.to_owned(),
            secondary: None,
        };
        match current.publish(&event, &notice.regarding).await {
            Ok(()) => debug!(reason = notice.reason, "event sent"),
            Err(error) => {
                metrics.writes.event_dropped();
                let fault = Fault::from(error);
                let (namespace, name) = (&notice.regarding.namespace, &notice.regarding.name);
                let (namespace, name) = (
                    namespace.as_deref().unwrap_or_default(),
                    name.as_deref().unwrap_or_default(),
                );
                warn!(namespace, name, reason = notice.reason, error = %fault, "event not sent");
            }
        }
    }
}

/// What was last said of each object for each reason.
///
/// The recorder takes two Events with one object and one reason for repetitions and keeps the text of the first; a new text
/// needs a recorder that does not know the old one.
#[derive(Default)]
struct Notes(HashMap<(String, &'static str), String>);

impl Notes {
    /// Whether a recorder that knows nothing is needed for this Event.
    fn start_over(&mut self, notice: &Notice) -> bool {
        let regarding = &notice.regarding;
        let object = [&regarding.kind, &regarding.namespace, &regarding.name, &regarding.uid];
        let object = object.map(|part| part.as_deref().unwrap_or_default()).join("/");
        let key = (object, notice.reason);
        let repeated = self.0.get(&key).is_none_or(|before| *before == notice.message);
        let start_over = !repeated || self.0.len() >= MOST_REMEMBERED;
        if start_over {
            self.0.clear();
        }
        self.0.insert(key, notice.message.clone());
        start_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(name: &str, message: &str) -> Notice {
        let regarding = ObjectReference {
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        Notice {
            regarding,
            warning: false,
            reason: "Reason",
            action: "Act",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_new_text_is_not_taken_for_a_repetition() {
        let mut notes = Notes::default();
        assert!(!notes.start_over(&notice("a", "one")));
        assert!(!notes.start_over(&notice("a", "one")));
        assert!(!notes.start_over(&notice("b", "other")));
        assert!(notes.start_over(&notice("a", "two")));
        assert!(!notes.start_over(&notice("a", "two")));
    }

    #[test]
    fn the_number_remembered_is_bounded() {
        let mut notes = Notes::default();
        for number in 0..10 * MOST_REMEMBERED {
            notes.start_over(&notice(&number.to_string(), "one"));
            assert!(notes.0.len() <= MOST_REMEMBERED);
        }
    }
}
