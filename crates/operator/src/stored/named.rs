//! Objects that are read by name: `ConfigMaps` and `ServiceAccounts`.

use std::collections::BTreeMap;

use isvc_core::{credential::is_storage_annotation, desired::CaBundle, names, observed::ServiceAccountFacts};
use k8s_openapi::NamespaceResourceScope;
use serde::Deserialize;

use super::{Head, RawMeta, Stored, text_map};

/// A `ConfigMap`: its text values.
pub(crate) struct StoredConfigMap {
    head: Head,
    pub(crate) data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(crate) struct RawConfigMap {
    metadata: RawMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

impl Stored for StoredConfigMap {
    type Raw = RawConfigMap;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ConfigMap";
    const PLURAL: &'static str = "configmaps";

    fn from_raw(mut raw: RawConfigMap) -> Self {
        Self {
            head: raw.metadata.head(),
            data: raw.data.unwrap_or_default(),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn same_facts(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

/// A namespace's copy of the certificate authorities, of which nothing but a digest is kept.
pub(crate) struct StoredCaBundle {
    head: Head,
    /// None when it lacks the key.
    pub(crate) digest: Option<u64>,
}

impl Stored for StoredCaBundle {
    type Raw = RawConfigMap;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = StoredConfigMap::GROUP;
    const VERSION: &'static str = StoredConfigMap::VERSION;
    const KIND: &'static str = StoredConfigMap::KIND;
    const PLURAL: &'static str = StoredConfigMap::PLURAL;

    fn from_raw(mut raw: RawConfigMap) -> Self {
        let data = raw.data.unwrap_or_default();
        Self {
            head: raw.metadata.head(),
            digest: data
                .get(names::CA_BUNDLE_KEY)
                .map(|certificates| CaBundle::digest(certificates)),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn same_facts(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// A `ServiceAccount`: which Secrets it lists and what its annotations say about storage.
pub(crate) struct StoredServiceAccount {
    head: Head,
    pub(crate) facts: ServiceAccountFacts,
}

#[derive(Deserialize)]
pub(crate) struct RawServiceAccount {
    metadata: RawMeta,
    #[serde(default)]
    secrets: Option<Vec<RawReference>>,
}

#[derive(Deserialize)]
struct RawReference {
    #[serde(default)]
    name: String,
}

impl Stored for StoredServiceAccount {
    type Raw = RawServiceAccount;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ServiceAccount";
    const PLURAL: &'static str = "serviceaccounts";

    fn from_raw(mut raw: RawServiceAccount) -> Self {
        let mut annotations = text_map(raw.metadata.annotations.take().as_deref());
        annotations.retain(|key, _| is_storage_annotation(key));
        let secrets = raw
            .secrets
            .unwrap_or_default()
            .into_iter()
            .map(|reference| reference.name);
        let secrets = secrets.filter(|name| !name.is_empty()).collect();
        Self {
            head: raw.metadata.head(),
            facts: ServiceAccountFacts { secrets, annotations },
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn same_facts(&self, other: &Self) -> bool {
        self.facts == other.facts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stored::Wire;

    #[test]
    fn a_service_account_keeps_secrets_in_order_and_storage_annotations_only() {
        let account = json!({
            "metadata": {
                "name": "default", "namespace": "ns", "uid": "1", "resourceVersion": "3",
                "annotations": {"eks.amazonaws.com/role-arn": "arn", "other": "x"},
            },
            "secrets": [{"name": "z"}, {"name": "a"}, {}],
        });
        let wire: Wire<StoredServiceAccount> = serde_json::from_str(&account.to_string()).expect("an account");
        assert_eq!(wire.object.facts.secrets, ["z", "a"]);
        assert_eq!(wire.object.facts.annotations.len(), 1);
    }
}
