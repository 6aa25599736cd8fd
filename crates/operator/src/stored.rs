//! What the watches keep: our own small types, decoded leniently.
//!
//! Specifications, statuses, labels and annotations stay JSON text until a pass needs them. That is about a third of the
//! memory of parsed objects, and an object with an unexpected field cannot blind a watch: it is reported by its own pass.

pub(crate) mod child;
pub(crate) mod named;
pub(crate) mod pod;
pub(crate) mod runtime;
pub(crate) mod service;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use isvc_core::api::{Meta, OwnerReference};
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::key::ObjectKey;

/// Repeats a whole object in an annotation; nothing here needs it, and it may hold what its author meant to be private.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind of object the operator reads, and what it keeps of one.
pub(crate) trait Stored: Sized + Send + Sync + 'static {
    /// The object as the API server sends it.
    type Raw: DeserializeOwned;
    /// Whether its objects live in namespaces.
    type Scope: 'static;

    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    const PLURAL: &'static str;
    /// Whether the kind comes from a CRD, so that a cluster may lack it.
    const CUSTOM: bool = false;
    /// Whether a cluster may lack it, which then has no objects of it.
    const OPTIONAL: bool = Self::CUSTOM;

    /// Keeps what is needed.
    fn from_raw(raw: Self::Raw) -> Self;

    fn head(&self) -> &Head;

    /// The `InferenceService` under which it is found again.
    fn owner(&self) -> Option<&ObjectKey> {
        None
    }

    /// Whether it concerns us; an object that stops to do so counts as deleted.
    fn concerns_us(&self) -> bool {
        true
    }

    /// What a version takes over from the one it replaces, so that nothing is kept twice or longer than needed.
    fn follow(&mut self, _old: &Self) {}

    /// Whether `other`, another version of the same object, would lead to the same decisions.
    fn same_facts(&self, other: &Self) -> bool;
}

/// Who an object is.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Box<str>,
    pub(crate) version: Version,
}

/// A resourceVersion. Within one cluster and kind they are numbers that grow.
///
/// Source: Kubernetes API concepts, "Resource versions"; the API server takes them from etcd's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(u64);

impl Version {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.parse().unwrap_or_default())
    }

    /// Whether an object of this version must not replace one of version `held`. What is no number is always taken.
    pub(crate) fn is_older_than(self, held: Self) -> bool {
        self.0 != 0 && self.0 < held.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Metadata as the API server sends it, as far as any kind needs it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawMeta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: Box<str>,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) creation_timestamp: Option<Box<str>>,
    pub(crate) deletion_timestamp: Option<Box<str>>,
    pub(crate) labels: Option<Box<RawValue>>,
    pub(crate) annotations: Option<Box<RawValue>>,
    pub(crate) finalizers: Option<Vec<String>>,
    pub(crate) owner_references: Option<Vec<OwnerReference>>,
    pub(crate) managed_fields: Option<Vec<RawManagedFields>>,
}

/// One entry of `managedFields`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawManagedFields {
    pub(crate) manager: String,
    pub(crate) operation: String,
    pub(crate) subresource: String,
    pub(crate) fields_v1: Option<Box<RawValue>>,
}

impl RawMeta {
    pub(crate) fn head(&mut self) -> Head {
        Head {
            key: ObjectKey::new(&self.namespace, &self.name),
            uid: std::mem::take(&mut self.uid),
            version: Version::parse(&self.resource_version),
        }
    }

    /// Annotations without the copy of the object that kubectl leaves there.
    pub(crate) fn take_annotations(&mut self) -> Option<Box<RawValue>> {
        let annotations = self.annotations.take()?;
        if !annotations.get().contains(LAST_APPLIED) {
            return Some(annotations);
        }
        let mut map = text_map(Some(&annotations));
        map.remove(LAST_APPLIED);
        to_raw_value(&map).ok()
    }

    /// As a decision reads it.
    pub(crate) fn into_meta(mut self) -> Meta {
        let annotations = text_map(self.take_annotations().as_deref());
        Meta {
            name: self.name,
            namespace: self.namespace,
            uid: self.uid.into(),
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.unwrap_or_default().into(),
            deletion_timestamp: self.deletion_timestamp.map(Into::into),
            labels: text_map(self.labels.as_deref()),
            annotations,
            finalizers: self.finalizers.unwrap_or_default(),
            owner_references: self.owner_references.unwrap_or_default(),
        }
    }
}

/// Labels or annotations; what cannot be read as such is left out.
pub(crate) fn text_map(raw: Option<&RawValue>) -> BTreeMap<String, String> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default()
}

/// Whether two pieces of JSON text are the same text.
pub(crate) fn same_text(one: Option<&RawValue>, other: Option<&RawValue>) -> bool {
    one.map(RawValue::get) == other.map(RawValue::get)
}

/// An object on its way from the API server: what kube's requests and watches are typed with.
pub(crate) struct Wire<T> {
    meta: ObjectMeta,
    pub(crate) object: Arc<T>,
}

impl<T> Clone for Wire<T> {
    fn clone(&self) -> Self {
        Self {
            meta: self.meta.clone(),
            object: Arc::clone(&self.object),
        }
    }
}

impl<T: Stored> fmt::Debug for Wire<T> {
    /// Says which object it is and nothing of its content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", T::KIND, self.object.head().key)
    }
}

impl<'de, T: Stored> Deserialize<'de> for Wire<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = T::from_raw(T::Raw::deserialize(deserializer)?);
        // kube's watcher continues from the resourceVersion it finds here, and needs nothing else.
        let meta = ObjectMeta {
            resource_version: Some(object.head().version.to_string()),
            ..ObjectMeta::default()
        };
        Ok(Self {
            meta,
            object: Arc::new(object),
        })
    }
}

impl<T: Stored> kube::Resource for Wire<T> {
    type DynamicType = ();
    type Scope = T::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        T::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw_meta(value: &serde_json::Value) -> RawMeta {
        serde_json::from_str(&value.to_string()).expect("metadata")
    }

    #[test]
    fn versions_compare_as_numbers() {
        let parse = Version::parse;
        assert!(parse("99").is_older_than(parse("100")));
        assert!(!parse("100").is_older_than(parse("100")));
        assert!(!parse("101").is_older_than(parse("100")));
        assert!(!parse("abc").is_older_than(parse("100")), "what is no number is taken");
        assert_eq!(parse("1234").to_string(), "1234");
    }

    #[test]
    fn the_copy_of_the_object_is_dropped_from_annotations() {
        let mut meta = raw_meta(&json!({
            "name": "a", "annotations": {LAST_APPLIED: "{\"secret\": 1}", "keep": "me"}
        }));
        let annotations = meta.take_annotations().expect("one is left");
        assert_eq!(annotations.get(), r#"{"keep":"me"}"#);
    }

    #[test]
    fn missing_and_null_fields_are_empty() {
        let meta = raw_meta(&json!({"name": "a", "labels": null, "finalizers": null, "ownerReferences": null}));
        let meta = meta.into_meta();
        assert_eq!(meta.name, "a");
        assert!(meta.labels.is_empty() && meta.finalizers.is_empty() && meta.owner_references.is_empty());
    }
}
