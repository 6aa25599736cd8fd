//! What should exist: one field per kind, so that a kind which is built but never pruned does not compile.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    api::{Meta, OwnerReference},
    names,
};

/// All children a service should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredState {
    /// The namespace's copy of the platform's certificate authorities; applied first, never deleted.
    pub ca_bundle: Option<CaBundle>,
    /// core/v1 Services.
    pub services: Wanted,
    /// apps/v1 Deployments.
    pub deployments: Wanted,
    /// autoscaling/v2 `HorizontalPodAutoscalers`.
    pub horizontal_pod_autoscalers: Wanted,
    /// keda.sh/v1alpha1 `ScaledObjects`.
    pub scaled_objects: Wanted,
    /// networking.k8s.io/v1 Ingresses.
    pub ingresses: Wanted,
    /// gateway.networking.k8s.io/v1 `HTTPRoutes`; applied last.
    pub http_routes: Wanted,
}

/// The copy of the platform's certificate authorities in a service's namespace. All services of the namespace share it, so
/// it has no owner.
#[derive(Clone, PartialEq)]
pub struct CaBundle {
    /// The namespace.
    pub namespace: String,
    /// Content of the key `cabundle.crt`.
    pub certificates: Arc<str>,
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.certificates.len();
        write!(formatter, "CaBundle({}, {bytes} bytes)", self.namespace)
    }
}

impl CaBundle {
    /// What a live copy's content is compared by, so that it need not be kept.
    #[must_use]
    pub fn digest(certificates: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        certificates.hash(&mut hasher);
        hasher.finish()
    }

    /// The `ConfigMap` as it is sent to the API server by server-side apply.
    #[must_use]
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names::CA_BUNDLE_CONFIG_MAP, "namespace": self.namespace},
            "data": {names::CA_BUNDLE_KEY: &*self.certificates},
        })
    }
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
    /// core/v1 `ConfigMap`: the copy of the certificate authorities.
    ConfigMap,
    /// core/v1 Service.
    Service,
    /// apps/v1 Deployment.
    Deployment,
    /// autoscaling/v2 `HorizontalPodAutoscaler`.
    HorizontalPodAutoscaler,
    /// keda.sh/v1alpha1 `ScaledObject`.
    ScaledObject,
    /// networking.k8s.io/v1 Ingress.
    Ingress,
    /// gateway.networking.k8s.io/v1 `HTTPRoute`.
    HttpRoute,
}

impl ChildKind {
    /// Whether objects of the kind run a component, and are no way to it and nothing it shares.
    #[must_use]
    pub fn runs_workload(self) -> bool {
        match self {
            Self::Service | Self::Deployment | Self::HorizontalPodAutoscaler | Self::ScaledObject => true,
            Self::ConfigMap | Self::Ingress | Self::HttpRoute => false,
        }
    }

    /// API version.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
            Self::ScaledObject => "keda.sh/v1alpha1",
            Self::Ingress => "networking.k8s.io/v1",
            Self::HttpRoute => "gateway.networking.k8s.io/v1",
        }
    }

    /// Kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::ScaledObject => "ScaledObject",
            Self::Ingress => "Ingress",
            Self::HttpRoute => "HTTPRoute",
        }
    }
}

impl Desired {
    /// Stands for the object where it need not be kept. `keys` belong to the process, so that nobody can look for two
    /// objects with the same digest; by chance one pair in 2^64 has it.
    #[must_use]
    pub fn digest(&self, keys: &impl BuildHasher) -> u64 {
        let Self {
            name,
            namespace,
            labels,
            annotations,
            owner,
            spec,
        } = self;
        keys.hash_one((name, namespace, labels, annotations, owner, spec))
    }

    /// The object as it is sent to the API server by server-side apply.
    #[must_use]
    pub fn manifest(&self, kind: ChildKind) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
        });
        // Without the service's identity, as when files are rendered, nothing can refer to it.
        if !self.owner.uid.is_empty() {
            metadata["ownerReferences"] = json!([self.owner]);
        }
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
