//! Deletes what nobody owns any more, however the API server bears it.
//!
//! A deletion names the uid and the version of what was seen. Under the same name there may be a new object by now; and the
//! same object may have a new owner, because a policy that was deleted and made again gets its old binding, which only its
//! version tells. Tries have no end: an orphan that stays enforces what nobody wants any more. Only what is refused, and so by
//! somebody's will, is left to the next search after a few.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use isvc_core::policy::names;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{
    kinds::{Child, Kind, Meta},
    recent::Recent,
    requests::{Form, Requests},
};
use crate::{
    backoff::MOST_RETRY_AFTER,
    error::{Fault, FaultKind},
    observability::metrics::PolicyMetrics,
};

/// Deletions on their way at a time.
pub(super) const MOST_AT_A_TIME: usize = 16;

/// Deletions that have begun. Most of them wait after a failure, and must not hold up the others.
const MOST_BEGUN: usize = 256;

/// Requests a second.
pub(super) const PER_SECOND: u32 = 600;

/// The wait after a failure is between nothing and this, doubled from try to try, up to the most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MOST_WAIT: Duration = Duration::from_secs(30);

/// So often a request that is refused is tried.
const MOST_REFUSALS: u32 = 5;

/// As many orphans of one template are deleted as a collection.
const COLLECTION: usize = 20;

/// Deletes orphans.
pub(super) struct Cleaner {
    deletions: Requests,
    looks: Requests,
    recent: Arc<Recent>,
    metrics: PolicyMetrics,
}

/// Why nobody owns an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its owner is gone.
    OwnerGone,
    /// It has its owner, and nothing refers to it.
    Unused,
    /// It has its owner, which does not want it any more.
    Unwanted,
}

impl Cleaner {
    /// Deletions may have a lane of their own; looks before another try need none.
    pub(super) fn new(deletions: Requests, looks: Requests, recent: Arc<Recent>, metrics: PolicyMetrics) -> Self {
        Self {
            deletions,
            looks,
            recent,
            metrics,
        }
    }

    /// Deletes objects for the same cause as they come. Returns once no more come and each is gone, has an owner again or is
    /// refused, and how many are.
    ///
    /// Where many tries fail some objects take far longer than most, so that nobody may wait for a whole batch.
    pub(super) async fn delete_all(&self, kind: Kind, children: impl Stream<Item = Meta>, cause: Cause) -> usize {
        let outcomes = children.map(|child| self.delete(kind, child, cause));
        let refused = outcomes
            .buffer_unordered(MOST_BEGUN)
            .filter(|outcome| ready(outcome.is_err()));
        refused.count().await
    }

    /// Deletes the admission policies of templates that are gone, those of one template at once where they are many.
    ///
    /// By collection only these: their names have the template's uid in them and so are never used for anything else, and
    /// a collection cannot be told which versions it is about. Returns how many are refused.
    pub(super) async fn delete_of_templates(&self, mut orphans: Vec<Meta>) -> usize {
        orphans.sort_unstable_by(|one, other| one.labels.template_uid.cmp(&other.labels.template_uid));
        let mut single = Vec::new();
        let mut refused = 0;
        for group in orphans.chunk_by(|one, other| one.labels.template_uid == other.labels.template_uid) {
            match group.first() {
                Some(first) if group.len() >= COLLECTION && !first.labels.template_uid.is_empty() => {
                    for orphan in group {
                        self.recent.wrote(&orphan.uid, "");
                    }
                    if self.delete_collection(&first.labels.template_uid).await.is_err() {
                        refused += group.len();
                    }
                }
                _ => single.extend_from_slice(group),
            }
        }
        let single = stream::iter(single);
        refused
            + self
                .delete_all(Kind::ValidatingAdmissionPolicy, single, Cause::OwnerGone)
                .await
    }

    async fn delete_collection(&self, template_uid: &str) -> Result<(), Fault> {
        let labels = format!(
            "{}={},{}={template_uid}",
            names::LABEL_MANAGED_BY,
            names::MANAGED_BY,
            names::LABEL_TEMPLATE_UID
        );
        let kind = Kind::ValidatingAdmissionPolicy;
        persistently("delete the admission policies of a template", || {
            self.deletions.delete_collection(kind, &labels)
        })
        .await?;
        self.metrics.deleted(kind.as_str());
        Ok(())
    }

    /// Deletes one object as long as the cause is true of it. Returns whether it is gone; it has an owner again if not.
    ///
    /// Fails when that is refused.
    pub(super) async fn delete(&self, kind: Kind, mut seen: Meta, cause: Cause) -> Result<bool, Fault> {
        let mut wait = Waits::default();
        loop {
            self.recent.wrote(&seen.uid, "");
            let fault = match self.deletions.delete(kind, &seen).await {
                Ok(()) => {
                    self.metrics.deleted(kind.as_str());
                    debug!(kind = kind.as_str(), name = &*seen.name, why = ?cause, "deleted");
                    return Ok(true);
                }
                Err(fault) => fault,
            };
            // Should somebody else delete it now, that must be seen. If it was carried out all the same, it is looked at once
            // more than needed.
            self.recent.forget(&seen.uid, "");
            match fault.kind {
                FaultKind::NotFound => return Ok(true),
                // The API server bears the requests.
                FaultKind::Conflict => wait = Waits::default(),
                // Sent once more it does no harm: should it have been carried out, or the object have changed, that is what
                // the next answer says.
                _ => {
                    wait.unless_refused("delete an orphan", fault).await?;
                    continue;
                }
            }
            let child = persistently("look at an orphan", || {
                self.looks.read::<Child>(kind, &seen.name, Form::Metadata)
            });
            match child.await? {
                Some(child) if child.metadata.uid == seen.uid => {
                    if !still(kind, &seen, &child.metadata, cause) {
                        debug!(
                            kind = kind.as_str(),
                            name = &*seen.name,
                            "has an owner again, so it stays"
                        );
                        return Ok(false);
                    }
                    let same = child.metadata.resource_version == seen.resource_version;
                    seen = child.metadata;
                    if same && fault.kind == FaultKind::Conflict {
                        wait.after("delete an orphan", &fault).await;
                    }
                }
                Some(_) | None => return Ok(true),
            }
        }
    }
}

/// The uid of whom an object of ours belongs to: by the owner reference, or by the label where somebody took that away.
pub(super) fn owner_uid(kind: Kind, child: &Meta) -> &str {
    let (owner, label) = match kind {
        Kind::ValidatingAdmissionPolicyBinding => (Kind::InferencePolicy, &child.labels.policy_uid),
        Kind::ValidatingAdmissionPolicy | Kind::InferencePolicy | Kind::InferencePolicyTemplate => {
            (Kind::InferencePolicyTemplate, &child.labels.template_uid)
        }
    };
    child.owner(owner).map_or(label, |owner| &owner.uid)
}

/// Whether what was decided of `seen` is true of the object as it is now.
fn still(kind: Kind, seen: &Meta, now: &Meta, cause: Cause) -> bool {
    match cause {
        Cause::OwnerGone => owner_uid(kind, now) == owner_uid(kind, seen),
        // What it is used by is not to be seen on it, so any change puts the decision off.
        Cause::Unused => now.resource_version == seen.resource_version,
        Cause::Unwanted => now.labels.policy_uid == seen.labels.policy_uid && now.labels.hash == seen.labels.hash,
    }
}

/// Tries until it succeeds, or is refused again and again.
pub(super) async fn persistently<T, F>(what: &'static str, attempt: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut wait = Waits::default();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(fault) => wait.unless_refused(what, fault).await?,
        }
    }
}

/// Waits between tries: full jitter, so that those that failed together do not come back together.
#[derive(Default)]
pub(super) struct Waits {
    tries: u32,
    refusals: u32,
}

impl Waits {
    /// Waits after a failure, unless it is one refusal too many in a row: gives that back.
    async fn unless_refused(&mut self, what: &str, fault: Fault) -> Result<(), Fault> {
        self.refusals = if fault.kind.is_refusal() { self.refusals + 1 } else { 0 };
        if self.refusals >= MOST_REFUSALS {
            warn!(error = %fault, "cannot {what}: refused; the next search tries again");
            return Err(fault);
        }
        self.after(what, &fault).await;
        Ok(())
    }

    /// Waits after a failure, at least as long as the API server has asked for.
    pub(super) async fn after(&mut self, what: &str, fault: &Fault) {
        let wait = self.next(fault.retry_after, fastrand::f64());
        let log_every = self.tries.is_multiple_of(10);
        if log_every && fault.kind != FaultKind::NotLeading {
            warn!(error = %fault, tries = self.tries, "cannot {what}; trying again");
        }
        sleep(wait).await;
    }

    fn next(&mut self, retry_after: Option<Duration>, chance: f64) -> Duration {
        let most = 2_u32
            .checked_pow(self.tries)
            .and_then(|factor| FIRST_WAIT.checked_mul(factor))
            .map_or(MOST_WAIT, |most| most.min(MOST_WAIT));
        self.tries = self.tries.saturating_add(1);
        most.mul_f64(chance.clamp(0.0, 1.0))
            .max(retry_after.unwrap_or_default().min(MOST_RETRY_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::core::Status;

    use super::*;

    #[test]
    fn waits_are_anything_up_to_twice_as_long_each_time() {
        let mut waits = Waits::default();
        for (number, most) in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]
            .into_iter()
            .enumerate()
        {
            let mut least = Waits {
                tries: waits.tries,
                ..Waits::default()
            };
            assert_eq!(least.next(None, 0.0), Duration::ZERO, "{number}");
            assert_eq!(waits.next(None, 1.0), Duration::from_millis(most), "{number}");
        }
        let mut waits = Waits {
            tries: u32::MAX,
            ..Waits::default()
        };
        assert_eq!(waits.next(None, 1.0), MOST_WAIT, "there is no last try");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_given_back_and_other_failures_have_no_end() {
        let asked = AtomicU32::new(0);
        let fault = |code: u16| {
            let status = Status::failure("no", "No").with_code(code);
            Fault::from(kube::Error::Api(status.boxed()))
        };
        let refused = persistently("ask", || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                // Refusals that do not follow each other say nothing.
                number if number < 100 => Err(fault(if number % 4 == 0 { 429 } else { 403 })),
                _ => Err::<(), _>(fault(403)),
            }
        });
        assert_eq!(refused.await.expect_err("refused").kind, FaultKind::Forbidden);
        assert_eq!(asked.into_inner(), 102, "the fifth of those that follow each other");
    }

    #[test]
    fn what_the_api_server_asks_for_is_the_least() {
        let mut waits = Waits::default();
        assert_eq!(waits.next(Some(Duration::from_secs(2)), 1.0), Duration::from_secs(2));
        assert_eq!(waits.next(Some(Duration::from_secs(86_400)), 1.0), MOST_RETRY_AFTER);
    }

    #[test]
    fn the_owner_is_told_by_the_label_where_the_reference_was_taken_away() {
        let meta = |text: &str| serde_json::from_str::<Child>(text).expect("metadata").metadata;
        let whole = meta(
            r#"{"metadata":{"labels":{"leanserve.dev/policy-uid":"label"},
                "ownerReferences":[{"kind":"InferencePolicy","name":"a","uid":"reference"}]}}"#,
        );
        assert_eq!(owner_uid(Kind::ValidatingAdmissionPolicyBinding, &whole), "reference");
        let bare = meta(r#"{"metadata":{"labels":{"leanserve.dev/policy-uid":"label"}}}"#);
        assert_eq!(owner_uid(Kind::ValidatingAdmissionPolicyBinding, &bare), "label");
        assert_eq!(owner_uid(Kind::ValidatingAdmissionPolicy, &bare), "");
    }
}
