//! `InferenceServices`, by whether they are Ready and what kind of thing keeps them from it.

use super::{
    catalog::{Catalog, FloatGaugeBy, GaugeBy, Label},
    saturating,
};

const READY: Label = Label::closed("ready", || READY_VALUES.to_vec());
const READY_VALUES: [&str; 3] = ["false", "true", "unknown"];
const REASON: Label = Label::closed("reason", || NotReady::ALL.map(NotReady::as_str).to_vec());
const ANY_REASON: Label = Label::closed("reason", || {
    let mut reasons = vec![""];
    reasons.extend(NotReady::ALL.map(NotReady::as_str));
    reasons
});

/// What the condition Ready of a service says, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// The condition is False.
    NotReady(NotReady),
    /// It is Unknown, or there is none yet.
    Unknown(NotReady),
}

/// What kind of thing keeps a service from being Ready: classes of the condition's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// It has been asked for, and nothing is known to be wrong.
    Pending,
    /// Its Pods do not run or do not become available.
    Workload,
    /// The specification cannot be built: a field, a runtime or a storage that does not fit.
    Specification,
    /// A Secret, a key, a `ServiceAccount` or a `ConfigMap` it refers to is missing or must not be read.
    Reference,
    /// The API server refuses an object.
    Refused,
    /// The model was not loaded.
    Model,
    /// The way from outside is not ready.
    Route,
    /// It is stopped on purpose.
    Stopped,
    Other,
}

impl NotReady {
    pub(crate) const ALL: [Self; 9] = [
        Self::Model,
        Self::Other,
        Self::Pending,
        Self::Reference,
        Self::Refused,
        Self::Route,
        Self::Specification,
        Self::Stopped,
        Self::Workload,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Workload => "workload",
            Self::Specification => "specification",
            Self::Reference => "reference",
            Self::Refused => "refused",
            Self::Model => "model",
            Self::Route => "route",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }

    /// The class of a condition's reason.
    ///
    /// Source of the reasons that are not ours: those of Deployment conditions, in the deployment controller of Kubernetes.
    pub(crate) fn of(reason: &str) -> Self {
        match reason {
            "" | "NewReplicaSetCreated" | "FoundNewReplicaSet" | "ReplicaSetUpdated" => Self::Pending,
            "MinimumReplicasUnavailable"
            | "ProgressDeadlineExceeded"
            | "DeploymentPaused"
            | "ReplicaSetCreateError"
            | "FailedCreate"
            | "FailedDelete"
            | "CanariesNotReady" => Self::Workload,
            "CaBundleKeyNotFound"
            | "CaBundleNotFound"
            | "CaBundleNotReadable"
            | "SecretKeyNotFound"
            | "SecretNotFound"
            | "SecretNotReadable"
            | "ServiceAccountNotFound"
            | "ServiceAccountNotReadable" => Self::Reference,
            "ReconcileFailed" => Self::Refused,
            "ModelLoadFailed" | "FailedToLoad" => Self::Model,
            "ParentStatusNotAvailable" | "NoMatchingParent" | "NoMatchingListenerHostname" => Self::Route,
            "Stopped" => Self::Stopped,
            _ if reason.starts_with("Invalid")
                || reason.starts_with("Unsupported")
                || reason.ends_with("NotUsable")
                || reason.ends_with("NotSupported")
                || reason == "MountPathTaken" =>
            {
                Self::Specification
            }
            _ => Self::Other,
        }
    }
}

/// How many services there are of each readiness, and since when.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ready: usize,
    not_ready: [usize; NotReady::ALL.len()],
    unknown: [usize; NotReady::ALL.len()],
    /// Of each reason the earliest time at which a service was not Ready, in seconds since 1970.
    since: [Option<u32>; NotReady::ALL.len()],
}

impl Tally {
    /// Counts a service that is as it is since `since`, in seconds since 1970.
    pub(crate) fn count(&mut self, readiness: Readiness, since: u32) {
        let (counts, reason) = match readiness {
            Readiness::Ready => {
                self.ready += 1;
                return;
            }
            Readiness::NotReady(reason) => (&mut self.not_ready, reason),
            Readiness::Unknown(reason) => (&mut self.unknown, reason),
        };
        let at = position(reason);
        counts[at] += 1;
        let earliest = self.since[at].map_or(since, |earliest| earliest.min(since));
        self.since[at] = Some(earliest);
    }
}

fn position(reason: NotReady) -> usize {
    let at = NotReady::ALL.iter().position(|other| *other == reason);
    at.expect("ALL has every reason")
}

/// The services of the namespaces that are served.
pub(crate) struct ServiceMetrics {
    services: GaugeBy<2>,
    longest: FloatGaugeBy<1>,
}

impl ServiceMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            services: catalog.gauge_by(
                "leanserve_inferenceservices",
                "InferenceServices that the operator serves, by their condition Ready and the kind of reason they are not",
                [READY, ANY_REASON],
            ),
            longest: catalog.float_gauge_by(
                "leanserve_inferenceservices_longest_not_ready_seconds",
                "How long the one that has not been Ready for longest has been so, by the kind of reason; 0 where there is none",
                [REASON],
            ),
        }
    }

    /// `now` is in seconds since 1970.
    pub(super) fn read(&self, tally: &Tally, now: f64) {
        self.services.with(["true", ""]).set(saturating(tally.ready));
        for (at, reason) in NotReady::ALL.into_iter().enumerate() {
            let name = reason.as_str();
            self.services.with(["false", name]).set(saturating(tally.not_ready[at]));
            self.services.with(["unknown", name]).set(saturating(tally.unknown[at]));
            let longest = tally.since[at].map_or(0.0, |since| (now - f64::from(since)).max(0.0));
            self.longest.with([name]).set(longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_a_class() {
        for (reason, class) in [
            ("", NotReady::Pending),
            ("SecretNotFound", NotReady::Reference),
            ("InvalidSpec", NotReady::Specification),
            ("RuntimeNotUsable", NotReady::Specification),
            ("StorageUriNotSupported", NotReady::Specification),
            ("MinimumReplicasUnavailable", NotReady::Workload),
            ("ReconcileFailed", NotReady::Refused),
            ("Stopped", NotReady::Stopped),
            ("SomethingNew", NotReady::Other),
        ] {
            assert_eq!(NotReady::of(reason), class, "{reason}");
        }
    }

    #[test]
    fn every_reason_is_listed_once_and_in_order() {
        let names = NotReady::ALL.map(NotReady::as_str);
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    }

    #[test]
    fn the_tally_tells_numbers_and_the_longest() {
        let (mut catalog, mut tally) = (Catalog::default(), Tally::default());
        let metrics = ServiceMetrics::new(&mut catalog);
        tally.count(Readiness::Ready, 10);
        tally.count(Readiness::NotReady(NotReady::Reference), 400);
        tally.count(Readiness::NotReady(NotReady::Reference), 100);
        tally.count(Readiness::Unknown(NotReady::Pending), 450);
        metrics.read(&tally, 500.0);
        assert_eq!(metrics.services.with(["true", ""]).get(), 1);
        assert_eq!(metrics.services.with(["false", "reference"]).get(), 2);
        assert_eq!(metrics.services.with(["unknown", "pending"]).get(), 1);
        assert!((metrics.longest.with(["reference"]).get() - 400.0).abs() < 1e-9);
        metrics.read(&Tally::default(), 500.0);
        assert_eq!(metrics.services.with(["false", "reference"]).get(), 0);
        assert!(metrics.longest.with(["reference"]).get().abs() < 1e-9);
    }
}
