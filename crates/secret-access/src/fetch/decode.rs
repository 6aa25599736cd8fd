//! From the bytes of an answer to a snapshot, without intermediate copies of values.
//!
//! An API server answers in the first format of [`OBJECT`] that it knows: protobuf, as kube-apiserver does, or JSON, as
//! whatever poses as one does. Both decoders fill the same [`Object`], and what is made of it is checked here, so
//! that a Secret is the same whichever way it came.
//!
//! Errors are fixed texts. Those of `serde_json` quote what they stumbled over, which may be a value.

pub(super) mod event;
pub(super) mod json;
pub(super) mod protobuf;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::secret_ref::SecretRef;
use crate::snapshot::{LAST_APPLIED, ResourceVersion, SecretBytes, SecretSnapshot, SnapshotBuilder};
use crate::want::{Fields, Names};

/// What to accept for a Secret, a list of them, or a watch.
pub(super) const OBJECT: &str = "application/vnd.kubernetes.protobuf, application/json;q=0.9";

/// What to accept for the metadata of a Secret.
pub(super) const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, \
                                   application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1;q=0.9";

/// What to accept for the metadata of a list of Secrets.
pub(super) const METADATA_LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, \
     application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1;q=0.9";

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Where an answer ends although more of it was announced or begun.
pub(super) const TOO_SHORT: &str = "it ends too early";
/// The error of both decoders for a field that cannot be used.
pub(super) const BAD_FIELD: &str = "a field is missing, of the wrong type, or not base64";

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// The format of a whole body: Kubernetes' protobuf begins with a mark of its own, which no JSON can begin with. Anything
    /// unknown is tried as JSON, and fails as that.
    pub(super) fn of(body: &[u8]) -> Self {
        if body.starts_with(&protobuf::MAGIC) {
            Self::Protobuf
        } else {
            Self::Json
        }
    }

    /// The format of a stream, by the header `Content-Type`.
    pub(super) fn named(content_type: Option<&str>) -> Self {
        let essence = content_type
            .and_then(|value| value.split(';').next())
            .unwrap_or_default();
        if essence
            .trim()
            .eq_ignore_ascii_case("application/vnd.kubernetes.protobuf")
        {
            Self::Protobuf
        } else {
            Self::Json
        }
    }

    /// Decodes an object into `object`, which keeps what was understood before an error.
    fn object<'a>(self, body: &'a [u8], fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
        match self {
            Self::Json => json::object(body, fields, object),
            Self::Protobuf => protobuf::object(body, fields, object),
        }
    }
}

/// What an object says about itself, unchecked. Absent texts are empty.
#[derive(Default)]
pub(super) struct Object<'a> {
    pub(super) api_version: Cow<'a, str>,
    pub(super) kind: Cow<'a, str>,
    pub(super) namespace: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) uid: Cow<'a, str>,
    pub(super) resource_version: Cow<'a, str>,
    pub(super) type_: Cow<'a, str>,
    pub(super) annotations: BTreeMap<Box<str>, Box<str>>,
    pub(super) data: BTreeMap<Box<str>, SecretBytes>,
    /// Whether the annotation is there that ends the initial events of a watch.
    pub(super) initial_events_end: bool,
    pub(super) status: Status<'a>,
}

/// What an object says if it is a `Status`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Status<'a> {
    pub(super) reason: Cow<'a, str>,
    pub(super) code: u16,
    pub(super) retry_after: Option<Duration>,
}

impl Object<'_> {
    fn is(&self, api_version: &str, kind: &str) -> bool {
        self.api_version == api_version && self.kind == kind
    }

    /// Keeps an annotation that is [`wanted`].
    pub(super) fn annotate(&mut self, name: &str, value: &str) {
        if name == INITIAL_EVENTS_END {
            self.initial_events_end = value == "true";
        } else {
            self.annotations.insert(name.into(), value.into());
        }
    }

    fn version(&self) -> Result<ResourceVersion, &'static str> {
        self.resource_version
            .parse()
            .map_err(|_| "its resourceVersion is not a decimal number")
    }

    fn secret_ref(&self) -> Option<SecretRef> {
        SecretRef::new(&self.namespace, &self.name).ok()
    }

    fn metadata(&self) -> Result<Metadata, &'static str> {
        if self.uid.is_empty() {
            return Err("it has no uid");
        }
        Ok(Metadata {
            uid: self.uid.as_ref().into(),
            version: self.version()?,
        })
    }

    fn asked(&self, asked: &SecretRef) -> Result<(), &'static str> {
        if self.namespace == asked.namespace() && self.name == asked.name() {
            Ok(())
        } else {
            Err("it is another Secret than the one asked for")
        }
    }

    fn into_snapshot(self, secret: SecretRef) -> Result<SnapshotBuilder, &'static str> {
        let Metadata { uid, version } = self.metadata()?;
        let type_ = Some(self.type_.as_ref()).filter(|type_| !type_.is_empty());
        Ok(SecretSnapshot::builder(secret)
            .uid(&uid)
            .resource_version(version.number())
            .type_(type_.unwrap_or("Opaque"))
            .annotations(self.annotations)
            .all_data(self.data))
    }
}

/// Whether to decode this annotation. The one that repeats the values is never wanted.
pub(super) fn wanted(annotation: &str, fields: &Fields) -> bool {
    annotation == INITIAL_EVENTS_END || (annotation != LAST_APPLIED && fields.annotations.contains(annotation))
}

/// For those who only want to know which object it is.
pub(crate) fn no_fields() -> Fields {
    let none = Names::Only(Arc::default());
    Fields {
        data: none.clone(),
        annotations: none,
    }
}

/// Which version of a Secret it is, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) uid: Box<str>,
    pub(crate) version: ResourceVersion,
}

/// Decodes a `v1.Secret` and checks that it is the one that was asked for. Only `fields` are copied out of the body.
pub(super) fn secret(body: &[u8], asked: &SecretRef, fields: &Fields) -> Result<SnapshotBuilder, &'static str> {
    let mut object = Object::default();
    Format::of(body).object(body, fields, &mut object)?;
    if !object.is("v1", "Secret") {
        return Err("it is not a v1 Secret");
    }
    object.asked(asked)?;
    object.into_snapshot(asked.clone())
}

/// Decodes the metadata of a Secret and checks that it is the one that was asked for.
pub(super) fn metadata(body: &[u8], asked: &SecretRef) -> Result<Metadata, &'static str> {
    let mut object = Object::default();
    Format::of(body).object(body, &no_fields(), &mut object)?;
    if !object.is("meta.k8s.io/v1", "PartialObjectMetadata") {
        return Err("it is not a meta.k8s.io/v1 PartialObjectMetadata");
    }
    object.asked(asked)?;
    object.metadata()
}

/// Whether this is the API server's way to say that an object does not exist.
pub(super) fn is_not_found_status(body: &[u8]) -> bool {
    let mut object = Object::default();
    Format::of(body).object(body, &no_fields(), &mut object).is_ok()
        && object.kind == "Status"
        && object.status.reason == "NotFound"
}

/// The number of objects that a list with `limit` stands for: those in it and those it says remain.
pub(super) fn count(body: &[u8]) -> Result<u64, &'static str> {
    let list = match Format::of(body) {
        Format::Json => json::list(body)?,
        Format::Protobuf => protobuf::list(body)?,
    };
    if !list.kind.ends_with("List") {
        return Err("it is not a list");
    }
    match list.remaining {
        Some(remaining) => Ok(list.items.saturating_add(remaining)),
        None if !list.continue_.is_empty() => Err("it does not say how many items remain"),
        None => Ok(list.items),
    }
}

/// What a list says about itself.
#[derive(Debug, Default)]
pub(super) struct List<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) resource_version: Cow<'a, str>,
    pub(super) continue_: Cow<'a, str>,
    pub(super) remaining: Option<u64>,
    /// How many items are in it.
    pub(super) items: u64,
}

#[cfg(test)]
mod tests;
