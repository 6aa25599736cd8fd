//! One observed version of a Secret: owned, redacted when printed, wiped when dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::heap::{allocated, shared};
use crate::secret_ref::SecretRef;
use crate::want::Fields;

/// The annotation `kubectl apply` keeps a copy of the whole manifest in. On a Secret it repeats the values, so it is never
/// copied out of an answer.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The value of one key of a Secret.
///
/// The bytes are overwritten with zeros when the value is dropped. `Debug` shows nothing of them, not even how many there
/// are. There is no `Clone`, so that copies are made on purpose: share the [`SecretSnapshot`] instead.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`, which are wiped when the value is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, or `None` when they are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(redacted)")
    }
}

/// The `metadata.resourceVersion` of a Secret, as a number.
///
/// It is the revision of the etcd the API server stores Secrets in: one counter for all Secrets of a cluster, which only
/// grows, so a Secret that was deleted and created again carries a greater version than before. Comparing versions of one
/// resource as decimal numbers is part of the API's contract since Kubernetes 1.35 (KEP-5504) and has held for etcd-backed
/// resources all along. The exception is a cluster restored from a backup; see [`Switch`](crate::Switch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(u64);

impl ResourceVersion {
    /// The version with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The version as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ResourceVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where a read was answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A request to the API server, sent for this read or shared with others that asked at the same time.
    Api,
    /// A copy in memory whose content was found, by a request for its metadata sent for this read, not to have changed.
    Revalidated,
    /// A copy in memory.
    Cache,
    /// What a watch delivered.
    Watch,
    /// A copy in memory older than the mode promises, because the API server could not be reached: see
    /// [`LruOptions::stale_if_unavailable`](crate::LruOptions::stale_if_unavailable).
    Stale,
}

impl Source {
    /// All sources, in the order of their names.
    pub const ALL: [Self; 5] = [Self::Api, Self::Cache, Self::Revalidated, Self::Stale, Self::Watch];

    /// The source in `snake_case`, for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Revalidated => "revalidated",
            Self::Cache => "cache",
            Self::Watch => "watch",
            Self::Stale => "stale",
        }
    }
}

/// One observed version of a Secret.
///
/// It never changes; a later read yields another snapshot. Values are wiped when the last reference to the content is
/// dropped; annotations, which Kubernetes does not treat as secret, are not. `Debug` shows neither.
///
/// Labels, managed fields and the annotation `kubectl.kubernetes.io/last-applied-configuration` (a second copy of the
/// values in clear text) are left out while the answer is decoded.
///
/// Fakes for tests are built with [`SecretSnapshot::builder`].
pub struct SecretSnapshot {
    content: Arc<Content>,
    source: Source,
    validated_at: Option<Instant>,
}

struct Content {
    secret: SecretRef,
    uid: Arc<str>,
    resource_version: ResourceVersion,
    type_: Box<str>,
    // Sorted by key. A map would set aside room for eleven entries, where most Secrets have one to three.
    annotations: Box<[(Box<str>, Box<str>)]>,
    data: Box<[(Box<str>, SecretBytes)]>,
    /// Which fields were copied out of the answer.
    fields: Fields,
    cost: usize,
}

impl SecretSnapshot {
    /// Starts a snapshot of `secret` as it would have been read from the API server just now, for fakes and tests.
    ///
    /// ```
    /// use kube_secret_access::{SecretRef, SecretSnapshot};
    ///
    /// let snapshot = SecretSnapshot::builder(SecretRef::new("models", "s3")?)
    ///     .uid("6a1f...")
    ///     .resource_version(42)
    ///     .type_("Opaque")
    ///     .data("password", b"planted".to_vec())
    ///     .build();
    /// assert_eq!(snapshot.bytes("password").and_then(|bytes| bytes.as_str()), Some("planted"));
    /// assert!(!format!("{snapshot:?}").contains("planted"));
    /// # Ok::<(), kube_secret_access::InvalidSecretRef>(())
    /// ```
    #[must_use]
    pub fn builder(secret: SecretRef) -> SnapshotBuilder {
        SnapshotBuilder {
            secret,
            uid: Arc::default(),
            resource_version: ResourceVersion::new(1),
            type_: "Opaque".into(),
            annotations: BTreeMap::new(),
            data: BTreeMap::new(),
            fields: Fields::default(),
        }
    }

    /// Which Secret this is.
    #[must_use]
    pub fn secret(&self) -> &SecretRef {
        &self.content.secret
    }

    /// `metadata.uid`: another one means that the Secret was deleted and created again, even if it is immutable.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.content.uid
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> ResourceVersion {
        self.content.resource_version
    }

    /// `type`, such as `Opaque` or `kubernetes.io/dockerconfigjson`. The API server never lets it change.
    #[must_use]
    pub fn type_(&self) -> &str {
        &self.content.type_
    }

    /// `metadata.annotations`, without `kubectl.kubernetes.io/last-applied-configuration`, in the order of their keys.
    #[must_use]
    pub fn annotations(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.content
            .annotations
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// The value of one annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        find(&self.content.annotations, key).map(AsRef::as_ref)
    }

    /// The keys of `data`, sorted.
    #[must_use]
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.content.data.iter().map(|(key, _)| key.as_ref())
    }

    /// The value of one key of `data`, already decoded from base64; `None` when there is no such key.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&SecretBytes> {
        find(&self.content.data, key)
    }

    /// Whether this came from memory or from a request.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The last moment at which the content is known to have been current: when the request that brought or last confirmed
    /// it was sent. `None` for what was read by its version alone ([`Freshness::AtLeast`](crate::Freshness::AtLeast)).
    ///
    /// The API server answered some time later, so the content may be a little newer than this says, never older. What a
    /// watch delivered counts from the list that the watch began with, because events do not say how late they are.
    #[must_use]
    pub fn validated_at(&self) -> Option<Instant> {
        self.validated_at
    }

    /// About how much memory the content takes, in bytes: capacities of all buffers and an estimate of what the map and
    /// the allocator add. The process's resident memory is what an operating system's limit applies to; this is the part
    /// of it that caches account for.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.content.cost
    }

    /// The same content from another source. Nothing of the content is copied.
    pub(crate) fn with_source(&self, source: Source) -> Self {
        Self {
            content: Arc::clone(&self.content),
            source,
            validated_at: self.validated_at,
        }
    }

    /// The same content, as it was found to be current by a request sent at `at`.
    pub(crate) fn validated(&self, at: Instant) -> Self {
        Self {
            content: Arc::clone(&self.content),
            source: Source::Revalidated,
            validated_at: Some(at),
        }
    }

    /// The uid, to be kept beyond the snapshot.
    pub(crate) fn shared_uid(&self) -> &Arc<str> {
        &self.content.uid
    }

    /// Which fields were copied out of the answer.
    pub(crate) fn fields(&self) -> &Fields {
        &self.content.fields
    }
}

/// The value of a key in entries sorted by key.
fn find<'e, V>(entries: &'e [(Box<str>, V)], key: &str) -> Option<&'e V> {
    let index = entries.binary_search_by(|(held, _)| held.as_ref().cmp(key)).ok()?;
    entries.get(index).map(|(_, value)| value)
}

impl fmt::Debug for SecretSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSnapshot")
            .field("secret", &self.content.secret)
            .field("uid", &self.content.uid)
            .field("resource_version", &self.content.resource_version)
            .field("type", &self.content.type_)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Builds a [`SecretSnapshot`]; see [`SecretSnapshot::builder`].
pub struct SnapshotBuilder {
    secret: SecretRef,
    uid: Arc<str>,
    resource_version: ResourceVersion,
    type_: Box<str>,
    annotations: BTreeMap<Box<str>, Box<str>>,
    data: BTreeMap<Box<str>, SecretBytes>,
    fields: Fields,
}

impl SnapshotBuilder {
    /// Sets `metadata.uid`.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = uid.into();
        self
    }

    /// Sets `metadata.resourceVersion` (1 otherwise).
    #[must_use]
    pub fn resource_version(mut self, number: u64) -> Self {
        self.resource_version = ResourceVersion::new(number);
        self
    }

    /// Sets `type` (`Opaque` otherwise).
    #[must_use]
    pub fn type_(mut self, type_: &str) -> Self {
        self.type_ = type_.into();
        self
    }

    /// Adds an annotation. `kubectl.kubernetes.io/last-applied-configuration` is left out here as everywhere.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        if key != LAST_APPLIED {
            self.annotations.insert(key.into(), value.into());
        }
        self
    }

    /// Adds a key and its value.
    #[must_use]
    pub fn data(mut self, key: &str, value: Vec<u8>) -> Self {
        self.data.insert(key.into(), SecretBytes::new(value));
        self
    }

    pub(crate) fn annotations(mut self, annotations: BTreeMap<Box<str>, Box<str>>) -> Self {
        self.annotations = annotations;
        self
    }

    pub(crate) fn all_data(mut self, data: BTreeMap<Box<str>, SecretBytes>) -> Self {
        self.data = data;
        self
    }

    /// Says which fields were copied; what is set here was.
    pub(crate) fn fields(mut self, fields: Fields) -> Self {
        self.fields = fields;
        self
    }

    /// The snapshot, validated now and from [`Source::Api`].
    #[must_use]
    pub fn build(self) -> SecretSnapshot {
        self.build_validated_at(Some(Instant::now()))
    }

    pub(crate) fn build_validated_at(self, validated_at: Option<Instant>) -> SecretSnapshot {
        let cost = self.cost();
        SecretSnapshot {
            content: Arc::new(Content {
                secret: self.secret,
                uid: self.uid,
                resource_version: self.resource_version,
                type_: self.type_,
                annotations: self.annotations.into_iter().collect(),
                data: self.data.into_iter().collect(),
                fields: self.fields,
                cost,
            }),
            source: Source::Api,
            validated_at,
        }
    }

    fn cost(&self) -> usize {
        let text = |text: &str| allocated(text.len());
        let annotations = self.annotations.iter();
        let annotations: usize = annotations.map(|(key, value)| text(key) + text(value)).sum();
        let data = self.data.iter();
        let data: usize = data.map(|(key, value)| text(key) + allocated(value.capacity())).sum();
        shared(size_of::<Content>())
            + shared(size_of::<SecretSnapshot>())
            + self.secret.heap_bytes()
            + shared(self.uid.len())
            + text(&self.type_)
            + allocated(self.annotations.len() * size_of::<(Box<str>, Box<str>)>())
            + annotations
            + allocated(self.data.len() * size_of::<(Box<str>, SecretBytes)>())
            + data
            + self.fields.heap_bytes()
    }
}

impl fmt::Debug for SnapshotBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBuilder")
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretRef {
        SecretRef::new("ns", "name").expect("valid")
    }

    #[test]
    fn shows_names_and_no_contents() {
        let builder = SecretSnapshot::builder(secret())
            .uid("u-1")
            .annotation("note", "planted-annotation")
            .data("key", b"planted-value".to_vec());
        let printed = format!("{builder:?}");
        let snapshot = builder.build();
        let printed = format!("{printed} {snapshot:?} {:?}", snapshot.bytes("key"));
        assert!(printed.contains("ns/name") && printed.contains("u-1"), "{printed}");
        assert!(!printed.contains("planted"), "{printed}");
    }

    #[test]
    fn leaves_out_the_annotation_that_repeats_the_values() {
        let snapshot = SecretSnapshot::builder(secret())
            .annotation(LAST_APPLIED, "everything")
            .annotation("kept", "yes")
            .build();
        assert_eq!(snapshot.annotations().collect::<Vec<_>>(), [("kept", "yes")]);
        assert_eq!(snapshot.annotation(LAST_APPLIED), None);
    }

    #[test]
    fn cost_counts_capacity_not_length() {
        let mut roomy = Vec::with_capacity(100_000);
        roomy.push(1);
        let capacity = roomy.capacity();
        let small = SecretSnapshot::builder(secret()).data("k", vec![1]).build().cost();
        let large = SecretSnapshot::builder(secret()).data("k", roomy).build().cost();
        assert_eq!(large - small, allocated(capacity) - allocated(1));
    }

    #[test]
    fn a_cached_copy_shares_the_content_and_keeps_its_age() {
        let read = SecretSnapshot::builder(secret()).data("k", vec![7]).build();
        let cached = read.with_source(Source::Cache);
        assert!(Arc::ptr_eq(&read.content, &cached.content));
        assert_eq!((read.source(), cached.source()), (Source::Api, Source::Cache));
        assert_eq!(read.validated_at(), cached.validated_at());
    }

    #[test]
    fn text_is_offered_only_for_utf8() {
        assert_eq!(SecretBytes::new(b"abc".to_vec()).as_str(), Some("abc"));
        assert_eq!(SecretBytes::new(vec![0xff]).as_str(), None);
    }
}
