//! Whether and how a service is reached from outside the cluster.

use crate::{api::Meta, names, settings::Ingress};

/// How a service is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// By an Ingress, once the predictor is ready.
    Ingress,
    /// Not at all: it is kept inside the cluster, or the platform creates routes by other means.
    Nothing,
    /// By something this version does not build (Gateway API routes).
    Unsupported,
}

pub(super) fn resolve(meta: &Meta, settings: &Ingress) -> Exposure {
    let label = meta.labels.get(names::LABEL_VISIBILITY).map(String::as_str);
    let internal = label == Some(names::VISIBILITY_CLUSTER_LOCAL) || settings.is_internal_domain();
    if internal || settings.disable_ingress_creation {
        Exposure::Nothing
    } else {
        Exposure::Ingress
    }
}
