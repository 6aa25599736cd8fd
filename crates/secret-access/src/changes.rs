//! Who refers to which Secret, and what happened to those: change events with the right to `get` alone.
//!
//! ```text
//!  reads that asked the API server ─┐
//!  polls of metadata ───────────────┤             ┌─> floors: later reads return at least this version
//!  watches on single Secrets ───────┼─> observe ──┤
//!  the watch of the mode ───────────┘   (known)   └─> pending changes of each subscriber, one for each Secret
//! ```
//!
//! | file | what |
//! |---|---|
//! | known.rs | pure: what an observation means, given what is known |
//! | pending.rs | pure: how changes that wait become one |
//! | pace.rs, schedule.rs, runs.rs | pure: when to poll which Secret |
//! | places.rs | pure: which Secrets have a watch of their own |
//! | state.rs, tracker.rs | all of that together, and behind one lock |
//! | poll.rs, named.rs | the background task and its requests |

mod known;
mod named;
mod pace;
mod pending;
mod places;
mod poll;
mod runs;
mod schedule;
mod state;
mod tracker;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

pub(crate) use self::known::{Observation, Seen};
pub(crate) use self::poll::{Ask, Asking};
pub(crate) use self::tracker::Tracker;
use crate::change::Change;
use crate::secret_ref::SecretRef;

/// Who refers to a Secret: the kind, namespace and name of an object. Nothing is checked, and nothing is looked up.
///
/// Cloning is cheap (three reference counts).
///
/// ```
/// use kube_secret_access::ObjectRef;
///
/// let owner = ObjectRef::new("InferenceService", "models", "iris");
/// assert_eq!(owner.to_string(), "InferenceService models/iris");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    kind: Arc<str>,
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ObjectRef {
    /// The object of this kind, namespace (empty for none) and name.
    #[must_use]
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The namespace; empty for an object without one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A change of a tracked Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Which Secret.
    pub secret: SecretRef,
    /// What happened, all in all, since the subscriber was told of this Secret last.
    pub change: Change,
    /// Who refers to it now, in no order. Never empty.
    pub owners: Vec<ObjectRef>,
}

/// The changes of all tracked Secrets from the moment of [`Switch::changes`](crate::Switch::changes) on. Ends when the
/// [`Switch`](crate::Switch) is dropped.
///
/// # Guarantees
///
/// - **Lossless for whoever is slow.** What is not taken yet becomes one change for each Secret: its [`Change`] is the
///   difference between what the subscriber was told last and now. So no more waits than there are tracked Secrets, and
///   nothing has to be read up after a pause.
/// - **Never behind its own news.** A read that begins after a change was taken returns at least the version that it told
///   of, in every mode.
/// - **Nothing false.** Answers may arrive in another order than they were given in; what is older than something known is
///   no change.
/// - **Everything counts.** A change is told whoever saw it first: a read by anybody through the same access, a poll, or a
///   watch. It is told to all owners, whoever read it.
/// - **Timely.** As [`Switch::change_delay`](crate::Switch::change_delay) says.
///
/// # Assumptions
///
/// Those of [`SecretAccess`](crate::SecretAccess).
///
/// # Caveats
///
/// - A Secret that changed twice between two looks is told of once; one that was created and deleted in between not at all.
/// - Several writes of the same content are changes too: what differs is the version, because nobody compares contents.
/// - Failed polls (no right to `get`, no API server) are no changes. [`Probe::poll_finished`](crate::Probe::poll_finished)
///   tells of them.
///
/// ```no_run
/// use kube_secret_access::{ObjectRef, SecretRef, Switch};
///
/// # async fn example(secrets: &Switch) -> Result<(), Box<dyn std::error::Error>> {
/// let mut changes = secrets.changes();
/// let owner = ObjectRef::new("InferenceService", "models", "iris");
/// let _reference = secrets.track(SecretRef::new("models", "s3")?, owner);
/// while let Some(changed) = changes.next().await {
///     for owner in &changed.owners {
///         println!("{} was {}: look at {owner}", changed.secret, changed.change.as_str());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "changes are told from now on, and nobody listens"]
pub struct Changes {
    tracker: Arc<Tracker>,
    number: u64,
}

impl Changes {
    pub(crate) fn new(tracker: &Arc<Tracker>) -> Self {
        Self {
            tracker: Arc::clone(tracker),
            number: tracker.subscribe(),
        }
    }

    /// The next change, or `None` when the access is gone. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Changed> {
        std::future::poll_fn(|context| self.tracker.poll_changed(self.number, context.waker())).await
    }
}

impl Stream for Changes {
    type Item = Changed;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Changed>> {
        self.tracker.poll_changed(self.number, context.waker())
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.tracker.unsubscribe(self.number);
    }
}

/// One reference to a Secret; it ends when this is dropped. See [`Switch::track`](crate::Switch::track).
#[must_use = "the reference ends when the guard is dropped"]
pub struct TrackGuard {
    tracker: Arc<Tracker>,
    secret: SecretRef,
    owner: ObjectRef,
    watched_over: bool,
}

impl TrackGuard {
    /// Counts the reference; also the number of the background task that has to be started.
    pub(crate) fn new(tracker: &Arc<Tracker>, secret: SecretRef, owner: ObjectRef) -> (Self, Option<u64>) {
        let (watched_over, start) = tracker.track(&secret, &owner);
        let guard = Self {
            tracker: Arc::clone(tracker),
            secret,
            owner,
            watched_over,
        };
        (guard, start)
    }

    /// The Secret that is referred to.
    #[must_use]
    pub fn secret(&self) -> &SecretRef {
        &self.secret
    }

    /// Who refers to it.
    #[must_use]
    pub fn owner(&self) -> &ObjectRef {
        &self.owner
    }

    /// Whether changes of the Secret are noticed: `false` for references beyond
    /// [`ChangeOptions::max_tracked`](crate::ChangeOptions::max_tracked), for as long as they last.
    #[must_use]
    pub fn is_watched_over(&self) -> bool {
        self.watched_over
    }
}

impl fmt::Debug for TrackGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrackGuard({} by {})", self.secret, self.owner)
    }
}

impl Drop for TrackGuard {
    fn drop(&mut self) {
        self.tracker.release(&self.secret, &self.owner, self.watched_over);
    }
}
