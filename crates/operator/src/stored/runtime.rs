//! `ServingRuntimes`, `ClusterServingRuntimes` and `ClusterStorageContainers`: few, so they are kept parsed.

use std::sync::Arc;

use isvc_core::api::{InvalidField, Scope, ServingRuntime, StorageContainer};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Head, RawMeta, Stored, same_text};

#[derive(Deserialize)]
pub(crate) struct RawCatalogObject {
    metadata: RawMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    /// Top-level field of `ClusterStorageContainers`.
    #[serde(default)]
    disabled: Option<bool>,
}

/// An object services choose from.
pub(crate) struct Catalog<T> {
    head: Head,
    /// What of it was looked at when it last changed.
    text: Text,
    pub(crate) parsed: Result<Arc<T>, InvalidField>,
}

/// The parts of an object that decisions depend on, as text.
struct Text {
    labels: Option<Box<RawValue>>,
    annotations: Option<Box<RawValue>>,
    spec: Option<Box<RawValue>>,
    disabled: Option<bool>,
    deleting: bool,
}

impl<T> Catalog<T> {
    fn new(
        mut raw: RawCatalogObject,
        parse: impl FnOnce(RawMeta, Value, Option<bool>) -> Result<T, InvalidField>,
    ) -> Self {
        let head = raw.metadata.head();
        let annotations = raw.metadata.take_annotations();
        let text = Text {
            labels: raw.metadata.labels.clone(),
            annotations: annotations.clone(),
            spec: raw.spec.clone(),
            disabled: raw.disabled,
            deleting: raw.metadata.deletion_timestamp.is_some(),
        };
        raw.metadata.annotations = annotations;
        raw.metadata.uid = head.uid.clone();
        let spec = raw
            .spec
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or(Value::Null);
        Self {
            head,
            text,
            parsed: parse(raw.metadata, spec, raw.disabled).map(Arc::new),
        }
    }

    fn same(&self, other: &Self) -> bool {
        let (one, other_text) = (&self.text, &other.text);
        self.head.uid == other.head.uid
            && one.disabled == other_text.disabled
            && one.deleting == other_text.deleting
            && same_text(one.labels.as_deref(), other_text.labels.as_deref())
            && same_text(one.annotations.as_deref(), other_text.annotations.as_deref())
            && same_text(one.spec.as_deref(), other_text.spec.as_deref())
    }
}

macro_rules! catalog {
    ($(#[$doc:meta])* $name:ident, $parsed:ty, $scope:ty, $kind:literal, $plural:literal, $parse:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(Catalog<$parsed>);

        impl Stored for $name {
            type Raw = RawCatalogObject;
            type Scope = $scope;

            const GROUP: &'static str = "serving.kserve.io";
            const VERSION: &'static str = "v1alpha1";
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const CUSTOM: bool = true;

            fn from_raw(raw: RawCatalogObject) -> Self {
                Self(Catalog::new(raw, $parse))
            }

            fn head(&self) -> &Head {
                &self.0.head
            }

            fn same_facts(&self, other: &Self) -> bool {
                self.0.same(&other.0)
            }
        }

        impl $name {
            /// The object, or why it cannot be used.
            pub(crate) fn parsed(&self) -> &Result<Arc<$parsed>, InvalidField> {
                &self.0.parsed
            }
        }
    };
}

catalog!(
    /// A `ServingRuntime`.
    StoredRuntime, ServingRuntime, NamespaceResourceScope, "ServingRuntime", "servingruntimes",
    |meta, spec, _| ServingRuntime::parse(Scope::Namespace, meta.into_meta(), spec)
);
catalog!(
    /// A `ClusterServingRuntime`.
    StoredClusterRuntime, ServingRuntime, ClusterResourceScope, "ClusterServingRuntime", "clusterservingruntimes",
    |meta, spec, _| ServingRuntime::parse(Scope::Cluster, meta.into_meta(), spec)
);
catalog!(
    /// A `ClusterStorageContainer`.
    StoredStorageContainer, StorageContainer, ClusterResourceScope, "ClusterStorageContainer",
    "clusterstoragecontainers",
    |meta, spec, disabled| StorageContainer::parse(meta.into_meta(), spec, disabled)
);
