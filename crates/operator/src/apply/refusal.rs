//! Why a child cannot be written: for now, or as it is.

use isvc_core::{desired::ChildKind, report::Refusal};

use crate::{
    error::{Action, Fault, FaultKind, PassError},
    key::ObjectKey,
    stored::child::ChildType,
};

/// Why a child is not as it should be.
pub(super) enum Stop {
    /// Another try would be refused as well.
    Refused(Refusal),
    Failed(PassError),
}

/// How a failure about a child is told.
pub(super) trait Classify {
    fn classified(action: Action, key: &ObjectKey, fault: Fault) -> Stop;
}

impl<K: ChildType> Classify for K {
    fn classified(action: Action, key: &ObjectKey, fault: Fault) -> Stop {
        // Its watch has not noticed yet that the definition is gone.
        if K::CUSTOM && fault.kind == FaultKind::NotFound {
            let message = format!("{}: {}", not_installed::<K>(key), fault.message);
            return refused(K::KIND, key, message);
        }
        classified(K::KIND, action, key, fault)
    }
}

pub(super) fn classified(kind: ChildKind, action: Action, key: &ObjectKey, fault: Fault) -> Stop {
    if fault.kind.is_refusal() {
        return refused(kind, key, fault.message);
    }
    Stop::Failed(PassError::Api {
        action,
        kind: kind.as_str(),
        key: key.clone(),
        fault,
    })
}

pub(super) fn refused(kind: ChildKind, key: &ObjectKey, message: String) -> Stop {
    Stop::Refused(Refusal {
        kind,
        name: key.name().to_owned(),
        message,
    })
}

pub(super) fn not_installed<K: ChildType>(key: &ObjectKey) -> String {
    format!(
        "{} {} is wanted, but the CustomResourceDefinition {}.{} is not installed in this cluster",
        K::NAME,
        key.name(),
        K::PLURAL,
        K::GROUP
    )
}
