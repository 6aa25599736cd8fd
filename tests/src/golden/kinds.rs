//! The kinds that cases are made of.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) namespaced: bool,
    /// Whether what exists of it is followed all the time.
    pub(super) followed: bool,
    /// The name of its objects in recordings, before the object's own; none where they are not recorded as they are.
    pub(super) recorded: Option<&'static str>,
}

const fn namespaced(name: &'static str, group: &'static str, version: &'static str) -> Kind {
    Kind {
        name,
        group,
        version,
        namespaced: true,
        followed: false,
        recorded: None,
    }
}

const fn followed(name: &'static str, group: &'static str, version: &'static str) -> Kind {
    Kind {
        followed: true,
        ..namespaced(name, group, version)
    }
}

const fn recorded(name: &'static str, group: &'static str, version: &'static str, as_: &'static str) -> Kind {
    Kind {
        recorded: Some(as_),
        ..followed(name, group, version)
    }
}

const fn cluster_wide(name: &'static str, version: &'static str) -> Kind {
    Kind {
        namespaced: false,
        ..namespaced(name, "serving.kserve.io", version)
    }
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    recorded("InferenceService", "serving.kserve.io", "v1beta1", "inferenceservice"),
    recorded("Deployment", "apps", "v1", "deployment"),
    recorded("Service", "", "v1", "service"),
    recorded("HorizontalPodAutoscaler", "autoscaling", "v2", "hpa"),
    recorded("Ingress", "networking.k8s.io", "v1", "ingress"),
    recorded("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproute"),
    recorded("ScaledObject", "keda.sh", "v1alpha1", "scaledobject"),
    recorded("ConfigMap", "", "v1", "configmap"),
    followed("ReplicaSet", "apps", "v1"),
    followed("Pod", "", "v1"),
    followed("Event", "", "v1"),
    namespaced("Secret", "", "v1"),
    namespaced("ServiceAccount", "", "v1"),
    namespaced("PersistentVolumeClaim", "", "v1"),
    namespaced("ServingRuntime", "serving.kserve.io", "v1alpha1"),
    cluster_wide("ClusterServingRuntime", "v1alpha1"),
    cluster_wide("ClusterStorageContainer", "v1alpha1"),
];

/// The kind of this name.
pub(super) fn kind(name: &str) -> Result<&'static Kind, String> {
    let found = KINDS.iter().find(|kind| kind.name == name);
    found.ok_or_else(|| format!("kind {name} is not known here"))
}

impl Kind {
    pub(super) fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(self.group, self.version, self.name))
    }

    /// Its objects in a namespace, or the cluster's.
    pub(super) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.resource())
        } else {
            Api::all_with(client.clone(), &self.resource())
        }
    }
}
