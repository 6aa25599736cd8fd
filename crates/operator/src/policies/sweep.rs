//! The search through everything: finds what nobody owns any more and what needs a pass, and keeps nothing of the rest.
//!
//! Children are listed before their parents, and each list is one snapshot however many pages it takes. A child whose parent
//! is not in the later list belongs to nobody, for good: a uid is never given again. Both lists come in the order of names,
//! and a binding is named after its policy, so they are walked side by side and no more than a page of each is held.
//!
//! Which admission policies are referred to cannot be told by walking side by side; of those eight bytes each are held.
//!
//! It ends when a search has found nothing: what was deleted is known to be gone only when it is not listed any more.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures::stream;
use isvc_core::policy::{names, status};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};

use super::{
    Enforcer, Work,
    cleaner::{Cause, Waits, owner_uid, persistently},
    in_use::Retiring,
    kinds::{Binding, Child, Kind, Meta, Parent},
    requests::{Form, Requests},
    triggers::{hash_of, policy_of},
    watches::managed,
};
use crate::error::{Fault, FaultKind};

const BINDING: Kind = Kind::ValidatingAdmissionPolicyBinding;
const ADMISSION: Kind = Kind::ValidatingAdmissionPolicy;

/// Between searches without cause.
const INTERVAL: Duration = Duration::from_secs(600);

/// How many bindings may have been found that nobody has begun to delete.
const AHEAD: usize = 250;

/// So many admission policies are deleted at a time.
const BATCH: usize = 500;

/// What one search has found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    policies: usize,
    orphans: usize,
    unused: usize,
    stale: usize,
    /// Of orphans and unused: those that the API server does not let go, or somebody's finalizer.
    refused: usize,
}

/// A list that is read as it is walked.
struct Cursor<'a, T> {
    requests: &'a Requests,
    kind: Kind,
    labels: String,
    form: Form,
    items: VecDeque<T>,
    /// None once the last page is here.
    token: Option<String>,
}

impl<'a, T: DeserializeOwned> Cursor<'a, T> {
    /// Asks for the first page: what the list shows is as of now.
    async fn open(requests: &'a Requests, kind: Kind, labels: String, form: Form) -> Result<Self, Fault> {
        let mut cursor = Self {
            requests,
            kind,
            labels,
            form,
            items: VecDeque::new(),
            token: Some(String::new()),
        };
        cursor.fill().await?;
        Ok(cursor)
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        let mut waits = Waits::default();
        while self.items.is_empty()
            && let Some(token) = &self.token
        {
            let page = self.requests.page::<T>(self.kind, &self.labels, token, self.form).await;
            match page {
                Ok(page) => {
                    self.items = page.items.into();
                    self.token = Some(page.metadata.token).filter(|token| !token.is_empty());
                }
                // The snapshot is gone, or the kind is not there: no page of it will come.
                Err(fault) if matches!(fault.kind, FaultKind::Expired | FaultKind::NotFound) => return Err(fault),
                Err(fault) => waits.after("list what policies are made of", &fault).await,
            }
        }
        Ok(())
    }

    async fn peek(&mut self) -> Result<Option<&T>, Fault> {
        self.fill().await?;
        Ok(self.items.front())
    }

    async fn next(&mut self) -> Result<Option<T>, Fault> {
        self.fill().await?;
        Ok(self.items.pop_front())
    }
}

/// Fingerprints of texts, eight bytes each.
struct Fingerprints {
    keys: RandomState,
    sorted: Vec<u64>,
}

impl Fingerprints {
    fn new() -> Self {
        Self {
            keys: RandomState::new(),
            sorted: Vec::new(),
        }
    }

    fn add(&mut self, text: &str) {
        self.sorted.push(self.keys.hash_one(text));
    }

    /// Must be called before the first question.
    fn sort(&mut self) {
        self.sorted.sort_unstable();
        self.sorted.dedup();
    }

    /// Whether the text was added. May say so of another text once in a great while, which leaves it for the next search.
    fn may_have(&self, text: &str) -> bool {
        self.sorted.binary_search(&self.keys.hash_one(text)).is_ok()
    }
}

impl Enforcer {
    /// Searches at the start, whenever it is asked for, and every ten minutes. Never ends.
    pub(super) async fn sweep_for_ever(self: Arc<Self>) {
        loop {
            self.triggers.sweep_is_due(INTERVAL).await;
            let mut waits = Waits::default();
            loop {
                let began = Instant::now();
                match self.sweep().await {
                    Ok(found) => {
                        self.metrics.sweep_ended(true);
                        let left = found.orphans + found.unused;
                        self.metrics.orphans(left);
                        // What is refused again and again is tried again by the next search.
                        if left <= found.refused {
                            break;
                        }
                        let Found {
                            policies,
                            orphans,
                            unused,
                            stale,
                            refused,
                        } = found;
                        let elapsed_ms = began.elapsed().as_millis();
                        info!(
                            policies,
                            orphans, unused, stale, refused, elapsed_ms, "cleaned up; looking again"
                        );
                    }
                    // Without the kinds there is nothing to look for, and nothing must be taken for an orphan.
                    Err(fault) if fault.kind == FaultKind::NotFound => break,
                    Err(fault) => {
                        self.metrics.sweep_ended(false);
                        if fault.kind != FaultKind::Expired {
                            warn!(error = %fault, "the search for what nobody owns has to begin anew");
                        }
                        waits.after("search for what nobody owns", &fault).await;
                    }
                }
            }
        }
    }

    async fn sweep(&self) -> Result<Found, Fault> {
        let requests = &self.requests;
        let mut found = Found::default();
        // Children before parents.
        let mut admissions = Cursor::<Child>::open(requests, ADMISSION, managed(), Form::Metadata).await?;
        let purpose = |purpose| format!("{},{}={purpose}", managed(), names::LABEL_BINDING);
        let enforcing =
            Cursor::<Child>::open(requests, BINDING, purpose(names::BINDING_ENFORCE), Form::Metadata).await?;
        let auditing = Cursor::<Child>::open(requests, BINDING, purpose(names::BINDING_AUDIT), Form::Metadata).await?;
        let templates = self.templates().await?;
        let (orphans, mut left) = mpsc::channel(AHEAD);
        let left = stream::poll_fn(|context| left.poll_recv(context));
        let (used, refused) = tokio::join!(
            self.walk([enforcing, auditing], &templates, orphans, &mut found),
            self.cleaner.delete_all(BINDING, left, Cause::OwnerGone),
        );
        let used = used?;
        found.refused += refused;
        self.walk_admissions(&mut admissions, &templates, &used, &mut found)
            .await?;
        Ok(found)
    }

    /// The uids of all templates. Those whose status is out of date get a pass.
    async fn templates(&self) -> Result<Fingerprints, Fault> {
        let kind = Kind::InferencePolicyTemplate;
        let mut templates = Cursor::<Parent>::open(&self.requests, kind, String::new(), Form::Whole).await?;
        let mut uids = Fingerprints::new();
        while let Some(template) = templates.next().await? {
            uids.add(&template.metadata.uid);
            if !template.is_observed() {
                self.triggers
                    .with_room(Work::Template(Arc::from(template.metadata.name)))
                    .await;
            }
        }
        uids.sort();
        Ok(uids)
    }

    /// Walks policies and bindings side by side, and sends the bindings that nobody owns. Returns the hashes of the admission policies that are referred to.
    async fn walk(
        &self,
        mut bindings: [Cursor<'_, Child>; 2],
        templates: &Fingerprints,
        orphans: mpsc::Sender<Meta>,
        found: &mut Found,
    ) -> Result<Fingerprints, Fault> {
        let mut used = Fingerprints::new();
        let kind = Kind::InferencePolicy;
        let mut policies = Cursor::<Parent>::open(&self.requests, kind, String::new(), Form::Whole).await?;
        loop {
            let policy = policies.next().await?;
            let own = policy.as_ref().map(|policy| {
                [
                    names::binding(&policy.metadata.name),
                    names::audit_binding(&policy.metadata.name),
                ]
            });
            // A binding with a cut name comes in another order than its policy.
            let in_order = policy
                .as_ref()
                .is_none_or(|policy| names::is_whole(&policy.metadata.name));
            let mut is_bound = false;
            for (at, cursor) in bindings.iter_mut().enumerate() {
                while let Some(next) = cursor.peek().await? {
                    let of_policy = own.as_ref().map(|own| own[at].as_str());
                    if of_policy.is_some_and(|name| *name < *next.metadata.name) {
                        break;
                    }
                    let Some(Child { metadata: binding }) = cursor.next().await? else {
                        break;
                    };
                    used.add(&binding.labels.hash);
                    match &policy {
                        Some(policy) if of_policy == Some(&*binding.name) => {
                            // One of another policy of the same name is taken over by a pass.
                            let is_own = owner_uid(BINDING, &binding) == &*policy.metadata.uid;
                            let up_to_date = templates.may_have(&binding.labels.template_uid);
                            is_bound |= at == 0 && is_own && up_to_date;
                        }
                        _ if self.is_orphan(&binding, in_order).await? => {
                            found.orphans += 1;
                            self.metrics.orphans(found.orphans);
                            if binding.is_being_deleted() {
                                found.refused += 1;
                            } else {
                                // The other end is there as long as this one.
                                let _ = orphans.send(binding).await;
                            }
                        }
                        _ => {}
                    }
                }
            }
            let Some(policy) = policy else { break };
            found.policies += 1;
            if !is_bound || !policy.is_observed() || !policy.holds(status::READY) {
                found.stale += 1;
                self.triggers
                    .with_room(Work::Policy(Arc::from(policy.metadata.name)))
                    .await;
            }
        }
        used.sort();
        Ok(used)
    }

    /// Whether a binding that has no policy beside it belongs to nobody. The names of long policies are cut in those of their
    /// bindings, which may then come in another order: where this one or that of the policy it is beside is cut, its policy is
    /// looked for by name.
    async fn is_orphan(&self, binding: &Meta, in_order: bool) -> Result<bool, Fault> {
        let owner = binding.owner(Kind::InferencePolicy);
        let Some(policy) = owner.map(|owner| &*owner.name).or_else(|| policy_of(&binding.name)) else {
            return Ok(false);
        };
        let is_named_so = || [names::binding(policy), names::audit_binding(policy)].contains(&binding.name.to_string());
        if in_order && names::is_whole(policy) && is_named_so() {
            return Ok(true);
        }
        let parent = persistently("look for the owner of a binding", || {
            self.requests
                .read::<Child>(Kind::InferencePolicy, policy, Form::Metadata)
        });
        let parent = parent.await?;
        Ok(parent.is_none_or(|parent| *parent.metadata.uid != *owner_uid(BINDING, binding)))
    }

    /// Deletes the admission policies of templates that are gone, and those that nothing refers to.
    async fn walk_admissions(
        &self,
        admissions: &mut Cursor<'_, Child>,
        templates: &Fingerprints,
        used: &Fingerprints,
        found: &mut Found,
    ) -> Result<(), Fault> {
        let (mut orphans, mut unused) = (Vec::new(), Vec::new());
        while let Some(Child { metadata: admission }) = admissions.next().await? {
            let template = owner_uid(ADMISSION, &admission);
            if template.is_empty() {
                continue;
            }
            // By either, because somebody may have changed the other, which is to be put back.
            let is_orphan = !templates.may_have(template) && !templates.may_have(&admission.labels.template_uid);
            let is_unused = !is_orphan && hash_of(&admission.name).is_some_and(|hash| !used.may_have(hash));
            if admission.is_being_deleted() {
                found.orphans += usize::from(is_orphan);
                found.unused += usize::from(is_unused);
                found.refused += usize::from(is_orphan || is_unused);
            } else if is_orphan {
                orphans.push(admission);
            } else if is_unused && let Some(retiring) = self.in_use.retire(&admission.name) {
                unused.push((admission, retiring));
            }
            if orphans.len() >= BATCH {
                found.orphans += orphans.len();
                found.refused += self.cleaner.delete_of_templates(std::mem::take(&mut orphans)).await;
            }
            if unused.len() >= BATCH {
                self.delete_unused(std::mem::take(&mut unused), found).await?;
            }
        }
        found.orphans += orphans.len();
        found.refused += self.cleaner.delete_of_templates(orphans).await;
        self.delete_unused(unused, found).await
    }

    /// Deletes those of them that no binding refers to now. No pass begins to use them meanwhile.
    async fn delete_unused(&self, candidates: Vec<(Meta, Retiring)>, found: &mut Found) -> Result<(), Fault> {
        if candidates.is_empty() {
            return Ok(());
        }
        // By what they say and not by their labels, which anybody may take away.
        let mut bindings = Cursor::<Binding>::open(&self.requests, BINDING, String::new(), Form::Whole).await?;
        let mut used = Fingerprints::new();
        while let Some(binding) = bindings.next().await? {
            used.add(&binding.spec.policy_name);
        }
        used.sort();
        let (admissions, _retiring): (Vec<Meta>, Vec<Retiring>) = candidates
            .into_iter()
            .filter(|(admission, _)| !used.may_have(&admission.name))
            .unzip();
        found.unused += admissions.len();
        found.refused += self
            .cleaner
            .delete_all(ADMISSION, stream::iter(admissions), Cause::Unused)
            .await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_know_what_was_added() {
        let mut fingerprints = Fingerprints::new();
        for number in [3, 1, 2, 3] {
            fingerprints.add(&number.to_string());
        }
        fingerprints.sort();
        assert_eq!(fingerprints.sorted.len(), 3);
        assert!(fingerprints.may_have("1") && fingerprints.may_have("3"));
        assert!(!fingerprints.may_have("4"));
    }
}
