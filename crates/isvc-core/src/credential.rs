//! What decisions may know of a Secret: which keys it has, and a few literals that are no secrets.

use std::collections::{BTreeMap, BTreeSet};

/// Facts about one Secret that holds storage credentials. Never holds its secret values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFacts {
    /// Keys of its data.
    pub keys: BTreeSet<String>,
    /// The annotations that describe the storage, see [`is_storage_annotation`].
    pub annotations: BTreeMap<String, String>,
    /// Values of the keys in [`LITERAL_KEYS`], as text.
    pub literals: BTreeMap<String, String>,
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
