//! The background task: asks about tracked Secrets, one request after the other at a bounded rate.
//!
//! It holds nothing of the access but what is tracked, and ends when nothing is or when the access is gone; its requests
//! end with it.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::known::{Observation, Seen};
use super::named;
use super::state::Step;
use super::tracker::Tracker;
use crate::answer::Answers;
use crate::error::ReadErrorKind;
use crate::fetch::Metadata;
use crate::flight::Flights;
use crate::options::AccessOptions;
use crate::probe::{FinishedRequest, Probe};
use crate::secret_ref::SecretRef;

/// Polls in flight at once: few, because they share the slots of the reads.
const AT_ONCE: usize = 4;

/// What is in force at the moment.
pub(crate) struct Asking {
    pub(crate) reads: Arc<dyn Answers>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) options: AccessOptions,
    pub(crate) probe: Arc<dyn Probe>,
}

/// Asks for what is in force; `None` when the access is gone.
pub(crate) type Ask = Arc<dyn Fn() -> Option<Asking> + Send + Sync>;

impl Tracker {
    /// Starts the background task of this number.
    pub(crate) fn start(self: &Arc<Self>, number: u64, ask: Ask) {
        let running = Running {
            tracker: Arc::clone(self),
            number,
        };
        tokio::spawn(running.run(ask));
    }
}

/// Marks the task as ended when it is, be it with its runtime.
struct Running {
    tracker: Arc<Tracker>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tracker.stopped(self.number);
    }
}

impl Running {
    async fn run(self, ask: Ask) {
        let tracker = &self.tracker;
        // Dropping these ends what they hold.
        let mut polls = JoinSet::new();
        let mut watches = JoinSet::new();
        loop {
            while polls.try_join_next().is_some() {}
            while watches.try_join_next().is_some() {}
            let room = polls.len() < AT_ONCE;
            match tracker.next(self.number, room) {
                Step::End => return,
                Step::Poll { secret, in_doubt } => {
                    let Some(asking) = ask() else {
                        return;
                    };
                    match asking.reads.watched(&secret).filter(|_| !in_doubt) {
                        Some(held) => tracker.watched(&secret, &held),
                        None => drop(polls.spawn(poll(Arc::clone(tracker), asking, secret))),
                    }
                    // There may be thousands to leave out in a row.
                    tokio::task::consume_budget().await;
                }
                Step::Watch(secret, place) => {
                    watches.spawn(named::watch(Arc::clone(tracker), Arc::clone(&ask), secret, place));
                }
                Step::Wait(until) => {
                    tokio::select! {
                        () = tracker.woken() => {}
                        () = sleep(until) => {}
                        Some(_) = polls.join_next() => {}
                    }
                }
            }
        }
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn poll(tracker: Arc<Tracker>, asking: Asking, secret: SecretRef) {
    let polling = Polling {
        tracker: &tracker,
        secret: &secret,
    };
    let (sent, result) = asking.flights.metadata(&secret).await;
    drop(polling);
    let error = match result {
        Ok(found) => {
            let error = found.is_none().then_some(ReadErrorKind::NotFound);
            let seen = found.map_or(Seen::Gone, |Metadata { uid, version }| Seen::Present {
                uid: uid.into(),
                version,
            });
            let observation = Observation::asked(seen, sent);
            tracker.observe(&secret, &observation);
            // Whoever reads next need not ask whether the held copy is current.
            if let Seen::Present { uid, version } = &observation.seen {
                asking.reads.confirm(&secret, uid, *version, sent);
            }
            error
        }
        Err(failure) => {
            tracker.failed(&secret, sent.at, failure);
            Some(failure.kind())
        }
    };
    let elapsed = sent.at.elapsed();
    asking.probe.poll_finished(&FinishedRequest { error, elapsed });
}

/// Lets the Secret be polled again, however its poll ends.
struct Polling<'a> {
    tracker: &'a Tracker,
    secret: &'a SecretRef,
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.tracker.poll_ended(self.secret);
    }
}
