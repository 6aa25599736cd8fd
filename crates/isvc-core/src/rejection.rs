//! Why a service cannot be built: a value that reaches status like success does.

use crate::api::Scope;

/// A specification, together with the facts around it, that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For programs: the condition's reason.
    pub reason: &'static str,
    /// For people: names the field, the object and what to do.
    pub message: String,
    /// Text of the Warning Event, in `KServe`'s words where `KServe` has any.
    pub event: String,
    /// What the model's status says of it, for errors of runtime and specification.
    pub model_failure: Option<Box<ModelFailure>>,
    /// The runtime that was chosen before it failed.
    pub runtime: Option<(Scope, String)>,
    /// Where the missing fact will come from.
    pub waits_for: WaitsFor,
}

/// What must change before another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Something that is watched: the change itself triggers the next pass.
    Watched,
    /// Something read by name (a Secret, a `ServiceAccount`): it is asked for again after a while.
    ReadByName,
}

/// A failure in the vocabulary of `status.modelStatus.lastFailureInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFailure {
    /// One of the CRD's reasons.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The reason `KServe` gives when the objects of a component cannot be made.
pub const RECONCILE_FAILED: &str = "ReconcileFailed";

impl Rejection {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            reason,
            event: message.clone(),
            message,
            model_failure: None,
            runtime: None,
            waits_for: WaitsFor::Watched,
        }
    }

    pub(crate) fn event(mut self, event: impl Into<String>) -> Self {
        self.event = event.into();
        self
    }

    pub(crate) fn model_failure(mut self, reason: &'static str, message: impl Into<String>) -> Self {
        self.model_failure = Some(Box::new(ModelFailure {
            reason,
            message: message.into(),
        }));
        self
    }

    pub(crate) fn runtime(mut self, runtime: Option<(Scope, String)>) -> Self {
        self.runtime = self.runtime.or(runtime);
        self
    }

    pub(crate) fn read_by_name(mut self) -> Self {
        self.waits_for = WaitsFor::ReadByName;
        self
    }

    /// Whether it is of the kind `KServe` reports while it makes a component's objects, when the component already
    /// shows in status.
    #[must_use]
    pub fn is_of_objects(&self) -> bool {
        self.reason == RECONCILE_FAILED
    }
}
