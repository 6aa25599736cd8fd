//! Object metadata, as far as decisions need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Metadata of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name, unique in its namespace.
    pub name: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Identity of this incarnation of the name.
    pub uid: String,
    /// Version of the object as the API server counts it.
    pub resource_version: String,
    /// Counts changes of the specification.
    pub generation: i64,
    /// RFC 3339 time of creation; as text it sorts by time.
    pub creation_timestamp: String,
    /// RFC 3339 time at which deletion was asked for, if it was.
    pub deletion_timestamp: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Owners.
    pub owner_references: Vec<OwnerReference>,
}

impl Meta {
    /// The owner that controls this object, if any.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// An annotation's value.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

/// A reference from a child to its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// API version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Identity of the owner.
    pub uid: String,
    /// Whether this owner is the one controller.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this child.
    pub block_owner_deletion: bool,
}
