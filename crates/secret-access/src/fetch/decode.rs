//! From the bytes of an answer to a snapshot, without intermediate copies of values.
//!
//! Errors are fixed texts. Those of `serde_json` quote what they stumbled over, which may be a value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::secret_ref::SecretRef;
use crate::snapshot::{LAST_APPLIED, ResourceVersion, SecretBytes, SecretSnapshot, SnapshotBuilder};

/// Decodes a `v1.Secret` and checks that it is the one that was asked for.
pub(super) fn secret(body: &[u8], asked: &SecretRef) -> Result<SnapshotBuilder, &'static str> {
    let wire: WireSecret<'_> = serde_json::from_slice(body).map_err(|error| problem(&error))?;
    if wire.kind != "Secret" || wire.api_version != "v1" {
        return Err("it is not a v1 Secret");
    }
    let metadata = wire.metadata;
    if metadata.namespace != asked.namespace() || metadata.name != asked.name() {
        return Err("it is another Secret than the one asked for");
    }
    if metadata.uid.is_empty() {
        return Err("it has no uid");
    }
    let version: ResourceVersion = metadata
        .resource_version
        .parse()
        .map_err(|_| "its resourceVersion is not a decimal number")?;
    Ok(SecretSnapshot::builder(asked.clone())
        .uid(&metadata.uid)
        .resource_version(version.number())
        .type_(wire.type_.as_deref().unwrap_or("Opaque"))
        .annotations(metadata.annotations.unwrap_or_default().0)
        .all_data(wire.data.unwrap_or_default().0))
}

/// Whether this is the API server's way to say that an object does not exist.
pub(super) fn is_not_found_status(body: &[u8]) -> bool {
    serde_json::from_slice::<WireStatus<'_>>(body)
        .is_ok_and(|status| status.kind == "Status" && status.reason == "NotFound")
}

/// The number of objects that a list with `limit` stands for: those in it and those it says remain.
pub(super) fn count(body: &[u8]) -> Result<u64, &'static str> {
    let list: WireList<'_> = serde_json::from_slice(body).map_err(|error| problem(&error))?;
    if !list.kind.ends_with("List") {
        return Err("it is not a list");
    }
    let here = list.items.unwrap_or_default().len() as u64;
    match (list.metadata.remaining, list.metadata.continue_) {
        (Some(remaining), _) => Ok(here.saturating_add(remaining)),
        (None, Some(more)) if !more.is_empty() => Err("it does not say how many items remain"),
        (None, _) => Ok(here),
    }
}

/// What kind of error it is, without the texts that may quote a value.
fn problem(error: &serde_json::Error) -> &'static str {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => "it ends too early",
        Category::Syntax => "it is not JSON",
        Category::Data => "a field is missing, of the wrong type, or not base64",
        Category::Io => "it could not be read",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSecret<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: WireMetadata<'a>,
    #[serde(borrow, rename = "type")]
    type_: Option<Cow<'a, str>>,
    data: Option<WireData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
    annotations: Option<WireAnnotations>,
}

#[derive(Deserialize)]
struct WireStatus<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WireList<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: WireListMetadata<'a>,
    items: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct WireListMetadata<'a> {
    #[serde(rename = "remainingItemCount")]
    remaining: Option<u64>,
    #[serde(borrow, rename = "continue")]
    continue_: Option<Cow<'a, str>>,
}

/// Annotations without the one that repeats the values.
#[derive(Default)]
struct WireAnnotations(BTreeMap<Box<str>, Box<str>>);

impl<'de> Deserialize<'de> for WireAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Annotations;

        impl<'de> Visitor<'de> for Annotations {
            type Value = WireAnnotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some(key) = map.next_key::<Box<str>>()? {
                    if key.as_ref() == LAST_APPLIED {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        annotations.insert(key, map.next_value()?);
                    }
                }
                Ok(WireAnnotations(annotations))
            }
        }

        deserializer.deserialize_map(Annotations)
    }
}

/// The values, decoded straight from the body.
#[derive(Default)]
struct WireData(BTreeMap<Box<str>, SecretBytes>);

impl<'de> Deserialize<'de> for WireData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Data;

        impl<'de> Visitor<'de> for Data {
            type Value = WireData;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of base64 values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut data = BTreeMap::new();
                while let Some((key, WireValue(value))) = map.next_entry::<Box<str>, WireValue>()? {
                    data.insert(key, value);
                }
                Ok(WireData(data))
            }
        }

        deserializer.deserialize_map(Data)
    }
}

struct WireValue(SecretBytes);

impl<'de> Deserialize<'de> for WireValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl Visitor<'_> for Value {
            type Value = WireValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 value")
            }

            // base64 needs no escapes in JSON, and Go writes none, so this is a slice of the body and not a copy.
            fn visit_str<E: de::Error>(self, encoded: &str) -> Result<Self::Value, E> {
                decoded(encoded).map(WireValue).ok_or_else(|| E::custom("not base64"))
            }

            // The API server writes an empty value as "" or, from some clients' nil slices, as null.
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(WireValue(SecretBytes::new(Vec::new())))
            }
        }

        deserializer.deserialize_any(Value)
    }
}

/// Decodes into a buffer of exactly the right size: one that has to shrink or grow would leave a copy behind.
fn decoded(encoded: &str) -> Option<SecretBytes> {
    let padding = encoded.bytes().rev().take_while(|byte| *byte == b'=').count();
    let length = (encoded.len() / 4 * 3).checked_sub(padding)?;
    let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
    let written = STANDARD.decode_slice(encoded, &mut bytes).ok()?;
    (written == length).then(|| SecretBytes::new(std::mem::take(&mut *bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn asked() -> SecretRef {
        SecretRef::new("ns", "name").expect("valid")
    }

    fn wire() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "namespace": "ns", "name": "name", "uid": "u-1", "resourceVersion": "42",
                "annotations": {LAST_APPLIED: "{\"data\":\"planted\"}", "b": "2", "a": "1 \"quoted\""},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}],
                "labels": {"l": "v"},
            },
            "immutable": true,
            "type": "kubernetes.io/tls",
            "data": {"tls.key": "c2VjcmV0", "empty": "", "null": null},
        })
    }

    fn decode(wire: &Value) -> Result<SecretSnapshot, &'static str> {
        secret(wire.to_string().as_bytes(), &asked()).map(SnapshotBuilder::build)
    }

    #[test]
    fn a_whole_secret() {
        let snapshot = decode(&wire()).expect("a valid Secret");
        assert_eq!(snapshot.uid(), "u-1");
        assert_eq!(snapshot.resource_version(), ResourceVersion::new(42));
        assert_eq!(snapshot.type_(), "kubernetes.io/tls");
        assert_eq!(
            snapshot.annotations().collect::<Vec<_>>(),
            [("a", "1 \"quoted\""), ("b", "2")]
        );
        assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["empty", "null", "tls.key"]);
        let text = |key| snapshot.bytes(key).and_then(SecretBytes::as_str);
        assert_eq!(
            (text("tls.key"), text("empty"), text("null")),
            (Some("secret"), Some(""), Some(""))
        );
    }

    #[test]
    fn data_and_annotations_may_be_missing_or_null() {
        for value in [None, Some(Value::Null), Some(json!({}))] {
            let mut wire = wire();
            if let Some(value) = value {
                wire["data"] = value.clone();
                wire["metadata"]["annotations"] = value;
            } else {
                let object = wire.as_object_mut().expect("an object");
                object.remove("data");
                let metadata = object["metadata"].as_object_mut().expect("an object");
                metadata.remove("annotations");
            }
            let snapshot = decode(&wire).expect("valid");
            assert_eq!((snapshot.keys().len(), snapshot.annotations().len()), (0, 0));
        }
    }

    #[test]
    fn what_is_not_the_secret_asked_for_is_refused_without_quoting_it() {
        let planted = "planted-7f3a";
        let spoilt: [(&str, Value); 13] = [
            ("/kind", json!("ConfigMap")),
            ("/kind", json!("Status")),
            ("/apiVersion", json!("v2")),
            ("/metadata/name", json!(planted)),
            ("/metadata/namespace", json!("other")),
            ("/metadata/uid", json!("")),
            ("/metadata/resourceVersion", json!("")),
            ("/metadata/resourceVersion", json!("4x")),
            ("/metadata/resourceVersion", json!(4)),
            ("/data/tls.key", json!(planted)),
            ("/data/tls.key", json!([planted])),
            ("/data", json!(planted)),
            ("/metadata/annotations/a", json!({"x": planted})),
        ];
        for (pointer, value) in spoilt {
            let mut wire = wire();
            *wire.pointer_mut(pointer).expect(pointer) = value;
            let problem = decode(&wire).expect_err(pointer);
            assert!(!problem.contains(planted), "{problem}");
        }
    }

    #[test]
    fn truncated_anywhere_is_refused() {
        let whole = wire().to_string();
        for end in 0..whole.len() {
            let problem = secret(&whole.as_bytes()[..end], &asked())
                .map(|_| ())
                .expect_err("not whole");
            assert_eq!(problem, "it ends too early", "at {end}");
        }
        assert!(secret(format!("{whole}{whole}").as_bytes(), &asked()).is_err());
        assert!(secret(b"\xff\xfe", &asked()).is_err());
        assert!(secret(b"<html>", &asked()).is_err());
    }

    #[test]
    fn only_the_api_servers_own_words_mean_absence() {
        assert!(is_not_found_status(
            br#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#
        ));
        for body in [
            "",
            "404 page not found",
            "{}",
            r#"{"kind":"Status","reason":"Forbidden"}"#,
            r#"{"kind":"Other","reason":"NotFound"}"#,
        ] {
            assert!(!is_not_found_status(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn counts_what_is_there_and_what_remains() {
        let list = |metadata: Value, items: Value| {
            count(
                json!({"kind": "PartialObjectMetadataList", "metadata": metadata, "items": items})
                    .to_string()
                    .as_bytes(),
            )
        };
        assert_eq!(list(json!({}), json!([])), Ok(0));
        assert_eq!(list(json!({}), Value::Null), Ok(0));
        assert_eq!(list(json!({"continue": ""}), json!([{"metadata": {}}])), Ok(1));
        assert_eq!(
            list(json!({"continue": "x", "remainingItemCount": 7999}), json!([{}])),
            Ok(8000)
        );
        assert!(list(json!({"continue": "x"}), json!([{}])).is_err());
        assert!(count(br#"{"kind":"Status","metadata":{}}"#).is_err());
    }

    proptest! {
        #[test]
        fn base64_round_trips_into_exactly_enough_memory(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let value = decoded(&STANDARD.encode(&bytes)).expect("valid base64");
            prop_assert_eq!(value.as_slice(), &bytes);
            prop_assert_eq!(value.capacity(), bytes.len());
        }

        #[test]
        fn garbage_never_panics(text in "[A-Za-z0-9+/=]{0,40}") {
            let strict = STANDARD.decode(&text).ok();
            prop_assert_eq!(decoded(&text).map(|value| value.as_slice().to_vec()), strict);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(secret(&bytes, &asked()).is_err());
            prop_assert!(!is_not_found_status(&bytes));
            prop_assert!(count(&bytes).is_err());
        }
    }
}
