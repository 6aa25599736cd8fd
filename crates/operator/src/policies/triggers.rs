//! What a change seen by a watch leads to: a pass over something, or a search through everything.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{sync::Notify, time::Instant};

use super::{
    kinds::{Child, Kind, Parent},
    recent::Recent,
};
use crate::{observability::metrics::PolicyMetrics, queue::Queue};

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    /// A pass over the `InferencePolicy` of this name.
    Policy(Arc<str>),
    /// A pass over the `InferencePolicyTemplate` of this name.
    Template(Arc<str>),
    /// Passes over whatever uses the `ValidatingAdmissionPolicy` with this hash.
    Users(Arc<str>),
}

impl Work {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Policy(_) => Kind::InferencePolicy,
            Self::Template(_) => Kind::InferencePolicyTemplate,
            Self::Users(_) => Kind::ValidatingAdmissionPolicy,
        }
    }

    /// The name, or of an admission policy its hash.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Policy(name) | Self::Template(name) | Self::Users(name) => name,
        }
    }
}

/// How long changes are collected before something is done about them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long a pass over every policy waits for others to ask for one as well.
const GATHER: Duration = Duration::from_millis(500);

/// So many things wait or are worked on at most; what does not fit leads to a search.
const MOST: usize = 2000;

/// After so many deletions within [`BURST`] a search finds what they leave behind sooner than a look at each.
const MANY: u32 = 16;
const BURST: Duration = Duration::from_secs(1);

/// A whole that is asked for: however often before it begins, it is done once.
struct Asked {
    permit: Notify,
    gather: Duration,
}

impl Asked {
    /// Asked for already, as who begins knows nothing. Whoever asks within `gather` of the first gets the same one.
    fn at_the_start(gather: Duration) -> Self {
        let permit = Notify::new();
        permit.notify_one();
        Self { permit, gather }
    }

    fn ask(&self) {
        self.permit.notify_one();
    }

    /// Whether it was asked for; it is not any more then.
    fn take(&self) -> bool {
        self.permit.notified().now_or_never().is_some()
    }

    /// Waits until it is asked for, a little for more to ask, and for no longer than the interval.
    async fn due(&self, interval: Duration) {
        let _ = tokio::time::timeout(interval, self.permit.notified()).await;
        tokio::time::sleep(self.gather).await;
        self.take();
    }
}

/// Takes changes.
///
/// Templates have a queue of their own: a pass over one waits until there is room for its policies, and must not take the place
/// of those that make room.
pub(super) struct Triggers {
    pub(super) policies: Queue<Work>,
    pub(super) templates: Queue<Work>,
    recent: Arc<Recent>,
    metrics: PolicyMetrics,
    sweep: Asked,
    round: Asked,
    deletions: Mutex<Option<(Instant, u32)>>,
}

impl Triggers {
    pub(super) fn new(recent: Arc<Recent>, metrics: PolicyMetrics) -> Self {
        Self {
            policies: Queue::bounded(MOST),
            templates: Queue::bounded(MOST),
            recent,
            metrics,
            sweep: Asked::at_the_start(DEBOUNCE),
            round: Asked::at_the_start(GATHER),
            deletions: Mutex::default(),
        }
    }

    /// Where such work waits.
    pub(super) fn queue(&self, work: &Work) -> &Queue<Work> {
        match work {
            Work::Template(_) => &self.templates,
            Work::Policy(_) | Work::Users(_) => &self.policies,
        }
    }

    /// How much waits or is worked on.
    pub(super) fn waiting(&self) -> usize {
        self.policies.len() + self.templates.len()
    }

    /// Asks for a search through everything.
    pub(super) fn sweep(&self) {
        self.sweep.ask();
    }

    /// Waits until a search is due: one was asked for, or the interval is over.
    pub(super) async fn sweep_is_due(&self, interval: Duration) {
        self.sweep.due(interval).await;
    }

    /// Changes may have gone by unseen: asks for a search, and for a pass over every policy.
    pub(super) fn missed_changes(&self) {
        self.sweep();
        self.round.ask();
    }

    /// Waits until a pass over every policy is due: one was asked for, or the interval is over.
    ///
    /// The watches begin one after the other, at the start and after an outage. What each of them may have missed is found by
    /// one round that begins after the last.
    pub(super) async fn round_is_due(&self, interval: Duration) {
        self.round.due(interval).await;
    }

    /// Asks for something soon.
    pub(super) fn soon(&self, work: Work) {
        self.later(work, DEBOUNCE);
    }

    /// Asks for something later, unless it comes sooner anyway.
    pub(super) fn later(&self, work: Work, after: Duration) {
        let _ = self.has_room_for(work, after);
    }

    fn has_room_for(&self, work: Work, after: Duration) -> bool {
        let queue = self.queue(&work);
        let added = queue.try_add_at(work, Instant::now() + after);
        if !added {
            self.metrics.overflowed();
            self.sweep();
        }
        added
    }

    /// Something was worked on that is to be looked at again. It keeps its place, but where it has failed, nothing else has room and
    /// somebody waits for some: where everything fails, searches must still find what has to go.
    pub(super) fn again(&self, work: &Work, after: Duration, has_failed: bool) {
        let queue = self.queue(work);
        if has_failed && queue.len() >= MOST && queue.is_waited_for() {
            queue.done(work);
            self.metrics.overflowed();
            self.missed_changes();
        } else {
            queue.done_until(work, Instant::now() + after);
        }
    }

    /// Asks for something once there is room for it.
    pub(super) async fn with_room(&self, work: Work) {
        self.queue(&work).add_with_room(work, Instant::now()).await;
    }

    /// A policy or template was made or changed.
    pub(super) fn parent_changed(&self, kind: Kind, parent: &Parent) {
        let metadata = &parent.metadata;
        // Its status says what it has to say: it was written here, or by the auditor.
        if parent.is_observed() || self.recent.is_ours(&metadata.uid, &metadata.resource_version) {
            return;
        }
        self.soon(work(kind, &metadata.name));
    }

    /// A policy or template is gone.
    pub(super) fn parent_deleted(&self, kind: Kind, parent: &Parent) {
        if kind == Kind::InferencePolicy {
            if self.is_one_of_many(Instant::now()) {
                self.sweep();
                return;
            }
            self.later(
                Work::Template(Arc::from(&*parent.spec.template_ref.name)),
                super::TEMPLATE_PAUSE,
            );
        }
        self.soon(work(kind, &parent.metadata.name));
    }

    /// A binding or admission policy was made or changed, or is gone.
    pub(super) fn child_changed(&self, kind: Kind, child: &Child, gone: bool) {
        let metadata = &child.metadata;
        let version: &str = if gone { "" } else { &metadata.resource_version };
        if self.recent.is_ours(&metadata.uid, version) {
            return;
        }
        if kind == Kind::ValidatingAdmissionPolicyBinding {
            let owner = metadata.owner(Kind::InferencePolicy).map(|owner| &*owner.name);
            if let Some(policy) = owner.or_else(|| policy_of(&metadata.name)) {
                self.put_back(Work::Policy(Arc::from(policy)), DEBOUNCE);
            }
            return;
        }
        let owner = metadata.owner(Kind::InferencePolicyTemplate);
        if let Some(owner) = owner.filter(|_| !gone) {
            // Its status may have what was found out about types.
            self.later(Work::Template(Arc::from(&*owner.name)), super::TEMPLATE_PAUSE);
        }
        let Some(hash) = hash_of(&metadata.name) else { return };
        // Nobody changes the specification of an admission policy but us, once and under another name.
        let as_made = !gone
            && metadata.generation == 1
            && *metadata.labels.hash == *hash
            && owner.is_some_and(|owner| owner.uid == metadata.labels.template_uid);
        if !as_made {
            self.put_back(Work::Users(Arc::from(hash)), DEBOUNCE);
        }
    }

    /// Somebody else changed or deleted what was made here, which no search sees: asks for what puts it back.
    pub(super) fn put_back(&self, work: Work, after: Duration) {
        if !self.has_room_for(work, after) {
            self.round.ask();
        }
    }

    fn is_one_of_many(&self, now: Instant) -> bool {
        let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = deletions
            .filter(|(since, _)| now.saturating_duration_since(*since) < BURST)
            .unwrap_or((now, 0));
        *deletions = Some((since, count.saturating_add(1)));
        count >= MANY
    }
}

/// What names of admission policies begin with.
const ADMISSION_PREFIX: &str = "leanserve-";

/// Hash of an admission policy, by its name: labels may be changed by anybody.
pub(super) fn hash_of(admission: &str) -> Option<&str> {
    admission.strip_prefix(ADMISSION_PREFIX).filter(|hash| !hash.is_empty())
}

/// Name of the policy of a binding, as far as its name tells.
pub(super) fn policy_of(binding: &str) -> Option<&str> {
    ["leanserve-policy-", "leanserve-audit-"]
        .iter()
        .find_map(|prefix| binding.strip_prefix(prefix))
}

fn work(kind: Kind, name: &str) -> Work {
    match kind {
        Kind::InferencePolicyTemplate => Work::Template(Arc::from(name)),
        Kind::InferencePolicy | Kind::ValidatingAdmissionPolicy | Kind::ValidatingAdmissionPolicyBinding => {
            Work::Policy(Arc::from(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use isvc_core::policy::names;

    use super::*;
    use crate::observability::metrics::Metrics;

    fn triggers() -> (Triggers, Arc<Recent>) {
        let recent = Arc::new(Recent::default());
        let triggers = Triggers::new(Arc::clone(&recent), Metrics::new().policies);
        // The one at the start is over.
        triggers.sweep.take();
        (triggers, recent)
    }

    fn parent(text: &str) -> Parent {
        serde_json::from_str(text).expect("a policy")
    }

    fn child(text: &str) -> Child {
        serde_json::from_str(text).expect("a child")
    }

    #[test]
    fn prefixes_are_those_of_the_names() {
        assert_eq!(hash_of(&names::admission_policy("x")), Some("x"));
        assert_eq!(hash_of(&names::admission_policy("")), None);
        assert_eq!(policy_of(&names::binding("x")), Some("x"));
        assert_eq!(policy_of(&names::audit_binding("x")), Some("x"));
        assert_eq!(policy_of("foreign"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_writes_lead_to_nothing() {
        let (triggers, recent) = triggers();
        let observed = parent(r#"{"metadata":{"name":"a","generation":2},"status":{"observedGeneration":2}}"#);
        triggers.parent_changed(Kind::InferencePolicy, &observed);
        recent.wrote("u", "7");
        let binding = child(r#"{"metadata":{"name":"leanserve-policy-a","uid":"u","resourceVersion":"7"}}"#);
        triggers.child_changed(Kind::ValidatingAdmissionPolicyBinding, &binding, false);
        tokio::time::advance(DEBOUNCE).await;
        let next = tokio::time::timeout(DEBOUNCE, triggers.policies.next()).await;
        assert!(next.is_err(), "{next:?}");
        triggers.child_changed(Kind::ValidatingAdmissionPolicyBinding, &binding, true);
        assert_eq!(
            triggers.policies.next().await,
            Work::Policy("a".into()),
            "that was somebody else"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_deletions_lead_to_one_search() {
        let (triggers, _) = triggers();
        for number in 0..1000 {
            let deleted = parent(&format!(r#"{{"metadata":{{"name":"p{number}"}}}}"#));
            triggers.parent_deleted(Kind::InferencePolicy, &deleted);
        }
        let mut looked_at = 0;
        while let Ok(work) = tokio::time::timeout(DEBOUNCE * 2, triggers.policies.next()).await {
            triggers.policies.done(&work);
            looked_at += 1;
        }
        assert_eq!(looked_at, MANY);
        assert!(triggers.sweep.take());
        assert!(!triggers.sweep.take(), "they were one");
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_begin_together_lead_to_one_round() {
        let (triggers, _) = triggers();
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        let watches = async {
            for _ in 0..3 {
                tokio::time::sleep(GATHER / 4).await;
                triggers.missed_changes();
            }
        };
        tokio::join!(triggers.round_is_due(hour), watches);
        assert_eq!(began.elapsed(), GATHER, "who begins knows nothing");
        // Later ones were not seen by that round.
        triggers.missed_changes();
        triggers.round_is_due(hour).await;
        assert_eq!(began.elapsed(), 2 * GATHER);
        triggers.round_is_due(hour).await;
        assert_eq!(began.elapsed(), 3 * GATHER + hour, "and nobody asked for another");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_leads_to_a_search() {
        let (triggers, _) = triggers();
        for number in 0..=MOST {
            triggers.soon(Work::Policy(number.to_string().into()));
        }
        assert!(triggers.sweep.take());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_did_and_does_not_fit_leads_to_a_pass_over_everything() {
        let (triggers, _) = triggers();
        let long = Duration::from_secs(3600);
        let began = Instant::now();
        triggers.round_is_due(long).await;
        assert_eq!(began.elapsed(), GATHER, "the one at the start");
        for number in 0..MOST {
            triggers.soon(Work::Policy(number.to_string().into()));
        }
        triggers.soon(Work::Policy("one more".into()));
        triggers.round_is_due(long).await;
        assert_eq!(
            began.elapsed(),
            long + 2 * GATHER,
            "a search finds what was written anew"
        );
        let touched = child(r#"{"metadata":{"name":"leanserve-policy-a"}}"#);
        triggers.child_changed(Kind::ValidatingAdmissionPolicyBinding, &touched, true);
        triggers.round_is_due(long).await;
        assert_eq!(began.elapsed(), long + 3 * GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_admission_policy_that_was_edited_is_looked_at() {
        let (triggers, _) = triggers();
        let made = child(
            r#"{"metadata":{"name":"leanserve-abc","generation":1,
                "labels":{"leanserve.dev/template-uid":"t","leanserve.dev/policy-hash":"abc"},
                "ownerReferences":[{"kind":"InferencePolicyTemplate","name":"t","uid":"t"}]}}"#,
        );
        triggers.child_changed(Kind::ValidatingAdmissionPolicy, &made, false);
        assert_eq!(triggers.templates.next().await, Work::Template("t".into()));
        let mut edited = made.clone();
        edited.metadata.generation = 2;
        let mut unlabelled = made.clone();
        unlabelled.metadata.labels.hash = "".into();
        let mut disowned = made.clone();
        disowned.metadata.owner_references[0].uid = "another".into();
        for (child, gone) in [(edited, false), (unlabelled, false), (disowned, false), (made, true)] {
            triggers.child_changed(Kind::ValidatingAdmissionPolicy, &child, gone);
            let work = triggers.policies.next().await;
            assert_eq!(work, Work::Users("abc".into()));
            triggers.policies.done(&work);
        }
    }
}
