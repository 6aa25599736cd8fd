//! A watch on a single Secret: needs the rights to `list` and `watch` that Secret alone (`resourceNames`).
//!
//! ```text
//!          ┌──────────────── 410 ────────────────┐
//!          v                                     │
//!   ──> list by name ──> watch from its version ─┴─> again from the last version, every 30 s
//!          │                   │
//!          └───── 403 ─────────┴──> the place goes to another Secret; tried again later
//! ```
//!
//! As long as it is in step with the cluster, its Secret is not polled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::known::{Observation, Seen};
use super::places::{Ended, Place};
use super::poll::{Ask, Asking};
use super::tracker::Tracker;
use crate::answer::Sent;
use crate::failure::Failure;
use crate::fetch::{NamedEvent, NamedWatch};
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;

/// The first wait after a failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A watch that ends sooner than this has failed, whatever it says: others would be opened without end.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// How often in a row it may fail before its place goes to the next Secret.
const MOST_FAILURES: u32 = 5;

/// Watches one Secret until its place is taken away, or it may not.
pub(super) async fn watch(tracker: Arc<Tracker>, ask: Ask, secret: SecretRef, place: Place) {
    let Place { number, stop } = place;
    let mut leaving = Leaving {
        tracker: &tracker,
        secret: &secret,
        number,
        ended: Ended::Lost,
    };
    tokio::select! {
        biased;
        _ = stop => {}
        ended = follow(&tracker, &ask, &secret, number) => leaving.ended = ended,
    }
}

/// Gives the place back, however the task ends.
struct Leaving<'a> {
    tracker: &'a Tracker,
    secret: &'a SecretRef,
    number: u64,
    ended: Ended,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.tracker.place_left(self.secret, self.number, self.ended);
    }
}

async fn follow(tracker: &Tracker, ask: &Ask, secret: &SecretRef, place: u64) -> Ended {
    let mut failures = 0;
    let mut position = None;
    loop {
        let Some(asking) = ask() else {
            return Ended::Lost;
        };
        let again = Instant::now() + asking.options.watch.retry_denied_after;
        // The mode's watch holds it already.
        if asking.reads.watched(secret).is_some() {
            return Ended::Until(again);
        }
        let (began, watching) = (Instant::now(), position.is_some());
        let result = go_on(tracker, asking, secret, place, &mut position).await;
        let early = watching && began.elapsed() < LEAST_LIFE;
        match result {
            Ok(()) if !early => failures = if watching { 0 } else { failures },
            Err(Failure::Forbidden) => {
                tracing::debug!(%secret, "not allowed to watch this Secret: it is polled");
                return Ended::Until(again);
            }
            result => {
                tracker.in_step(secret, place, false);
                failures += 1;
                if failures >= MOST_FAILURES {
                    return Ended::Until(again);
                }
                let backoff = FIRST_WAIT.saturating_mul(1 << failures.min(6)).min(LONGEST_WAIT);
                let asked = result.err().and_then(super::pace::asked_for).unwrap_or_default();
                sleep(asked + backoff.mul_f64(fastrand::f64())).await;
            }
        }
    }
}

/// Lists if there is no position to watch from, or watches once. The request's error, if it ended with one.
async fn go_on(
    tracker: &Tracker,
    asking: Asking,
    secret: &SecretRef,
    place: u64,
    position: &mut Option<ResourceVersion>,
) -> Result<(), Failure> {
    let Some(from) = *position else {
        let slot = asking.flights.slot().await;
        let sent = Sent::now();
        let deadline = sent.at + asking.options.fetch.deadline;
        let listed = asking.flights.fetcher().list_named(secret, deadline).await?;
        drop(slot);
        let seen = match listed.found {
            Some(metadata) => Seen::Present {
                uid: metadata.uid.into(),
                version: metadata.version,
            },
            None => Seen::Gone,
        };
        let observation = Observation {
            seen,
            sent,
            as_of: Some(listed.version),
        };
        tracker.observe(secret, &observation);
        *position = Some(listed.version);
        return Ok(());
    };
    // Only what a watch needs is kept while it lasts: the mode may be changed meanwhile.
    let Asking {
        flights,
        options,
        reads,
        probe,
    } = asking;
    drop((reads, probe));
    let mut watch: NamedWatch = flights
        .fetcher()
        .watch_named(secret, from, options.watch.heartbeat)
        .await?;
    drop(flights);
    tracker.in_step(secret, place, true);
    loop {
        let event = watch.next().await?;
        let (seen, version) = match event {
            None => return Ok(()),
            Some(NamedEvent::Bookmark(version)) => {
                *position = Some(version);
                continue;
            }
            // The history from there on is not kept any more.
            Some(NamedEvent::Expired) => {
                *position = None;
                tracker.in_step(secret, place, false);
                return Ok(());
            }
            Some(NamedEvent::Present(metadata)) => {
                let version = metadata.version;
                let uid = metadata.uid.into();
                (Seen::Present { uid, version }, version)
            }
            Some(NamedEvent::Deleted(version)) => (Seen::Gone, version),
        };
        tracker.observe(secret, &Observation::told(seen, Some(version)));
        *position = Some(version);
    }
}
