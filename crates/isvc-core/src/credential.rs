//! What decisions may know of a Secret: which keys it has, and a few literals that are no secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Facts about one Secret that holds storage credentials. Never holds its secret values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFacts {
    /// Keys of its data.
    pub keys: BTreeSet<String>,
    /// The annotations that describe the storage, see [`is_storage_annotation`].
    pub annotations: BTreeMap<String, String>,
    /// Values of the keys in [`LITERAL_KEYS`], as text.
    pub literals: BTreeMap<String, String>,
    /// What its values say of storage, by key; only of a Secret that is read as the storage Secret, see
    /// [`Wanted::storage_secrets`](crate::observed::Wanted::storage_secrets).
    pub storage_entries: BTreeMap<String, StorageEntry>,
}

/// What may be known of one entry of the storage Secret: where the storage is. Everything else in it may be a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageEntry {
    /// `type`: s3, hdfs or webhdfs.
    pub type_: Option<String>,
    /// `bucket`.
    pub bucket: Option<String>,
    /// `cabundle_configmap`: the `ConfigMap` with the storage's certificate authorities.
    pub ca_bundle_config_map: Option<String>,
    /// Why it cannot be read. A constant, so that nothing of the entry can be in it.
    pub problem: Option<&'static str>,
}

/// Reads what may be known of an entry of the storage Secret; all other text is passed over and not copied.
#[must_use]
pub fn storage_entry(entry: &[u8]) -> StorageEntry {
    // The parser's own message may quote the entry, so it is dropped.
    serde_json::from_slice(entry).unwrap_or(StorageEntry {
        problem: Some("it is not a JSON object whose values are all text"),
        ..StorageEntry::default()
    })
}

impl<'de> Deserialize<'de> for StorageEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;

        impl<'de> Visitor<'de> for Entry {
            type Value = StorageEntry;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entry = StorageEntry::default();
                while let Some(key) = map.next_key::<String>()? {
                    let field = match key.as_str() {
                        "type" => &mut entry.type_,
                        "bucket" => &mut entry.bucket,
                        "cabundle_configmap" => &mut entry.ca_bundle_config_map,
                        _ => {
                            map.next_value::<PassedOver>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value::<Option<String>>()?.unwrap_or_default());
                }
                Ok(entry)
            }
        }

        deserializer.deserialize_map(Entry)
    }
}

/// A text, or null, that is checked to be one and not kept.
struct PassedOver;

impl<'de> Deserialize<'de> for PassedOver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = PassedOver;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_str<E>(self, _: &str) -> Result<PassedOver, E> {
                Ok(PassedOver)
            }

            fn visit_unit<E>(self) -> Result<PassedOver, E> {
                Ok(PassedOver)
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// Keys whose values are settings and not secrets; their values go into the Pod as literals, as in `KServe`.
pub const LITERAL_KEYS: [&str; 10] = [
    "S3_ENDPOINT",
    "S3_USE_HTTPS",
    "S3_VERIFY_SSL",
    "awsAnonymousCredential",
    "AWS_DEFAULT_REGION",
    "S3_USER_VIRTUAL_BUCKET",
    "S3_USE_ACCELERATE",
    "AWS_CA_BUNDLE",
    "AWS_CA_BUNDLE_CONFIGMAP",
    "https-host",
];

/// Whether an annotation of a Secret or `ServiceAccount` describes storage; all others are dropped unseen.
#[must_use]
pub fn is_storage_annotation(key: &str) -> bool {
    key.starts_with("serving.kserve.io/s3-") || key == crate::names::ANNOTATION_ROLE_ARN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_fields_leave_an_entry_of_the_storage_secret() {
        let entry = storage_entry(
            br#"{"type":"s3","access_key_id":"planted","secret_access_key":"pl\u0061nted","bucket":"models",
                "cabundle_configmap":"corp-ca","region":null}"#,
        );
        let expected = StorageEntry {
            type_: Some("s3".to_owned()),
            bucket: Some("models".to_owned()),
            ca_bundle_config_map: Some("corp-ca".to_owned()),
            problem: None,
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn an_entry_that_is_no_object_of_texts_is_invalid_without_its_text() {
        for text in [
            "planted",
            "\"planted\"",
            r#"{"type":"s3","planted":1}"#,
            r#"{"type":"#,
            "[]",
            "null",
        ] {
            let entry = storage_entry(text.as_bytes());
            assert!(entry.problem.is_some(), "{text}");
            assert!(!format!("{entry:?}").contains("planted"), "{text}");
        }
    }
}
