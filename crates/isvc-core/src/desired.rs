//! What should exist: one field per kind, so that a kind which is built but never pruned does not compile.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{Meta, OwnerReference},
    names,
};

/// All children a service should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredState {
    /// core/v1 Services; applied first.
    pub services: Wanted,
    /// apps/v1 Deployments; applied second.
    pub deployments: Wanted,
    /// autoscaling/v2 `HorizontalPodAutoscalers`; applied third.
    pub horizontal_pod_autoscalers: Wanted,
    /// networking.k8s.io/v1 Ingresses; applied last.
    pub ingresses: Wanted,
}

/// What should exist of one kind. A live child of ours that is neither wanted nor kept is deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Objects to bring into this shape.
    pub objects: Vec<Desired>,
    /// Names of objects to leave as they are, should they exist.
    pub kept: Vec<String>,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The service that controls it.
    pub owner: OwnerReference,
    /// The specification: only the fields we mean.
    pub spec: Value,
}

/// A kind of child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// core/v1 Service.
    Service,
    /// apps/v1 Deployment.
    Deployment,
    /// autoscaling/v2 `HorizontalPodAutoscaler`.
    HorizontalPodAutoscaler,
    /// networking.k8s.io/v1 Ingress.
    Ingress,
}

impl ChildKind {
    /// API version.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
            Self::Ingress => "networking.k8s.io/v1",
        }
    }

    /// Kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::Ingress => "Ingress",
        }
    }
}

impl Desired {
    /// The object as it is sent to the API server by server-side apply.
    #[must_use]
    pub fn manifest(&self, kind: ChildKind) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
            "ownerReferences": [self.owner],
        });
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": metadata,
            "spec": self.spec,
        })
    }
}

/// The reference children carry to their service.
#[must_use]
pub fn owner_reference(service: &Meta) -> OwnerReference {
    OwnerReference {
        api_version: names::INFERENCE_SERVICE_API_VERSION.to_owned(),
        kind: names::INFERENCE_SERVICE_KIND.to_owned(),
        name: service.name.clone(),
        uid: service.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    }
}
