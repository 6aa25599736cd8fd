//! Objects as JSON.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{BAD_FIELD, List, Object, TOO_SHORT, wanted};
use crate::snapshot::SecretBytes;
use crate::want::Fields;

/// Decodes an object into `object`, which keeps what was understood before an error.
pub(super) fn object<'a>(body: &'a [u8], fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let place = Place::Root;
    // Not as a seed: a bare null is no object.
    json.deserialize_map(Map { place, object, fields })
        .and_then(|()| json.end())
        .map_err(|error| problem(&error))
}

/// Decodes a line of a watch: the type of the event, and its object. Both keep what was understood before an error.
pub(super) fn event<'a>(
    line: &'a [u8],
    fields: &Fields,
    object: &mut Object<'a>,
    type_: &mut Cow<'a, str>,
) -> Result<(), &'static str> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let place = Place::Root;
    let root = Map { place, object, fields };
    json.deserialize_map(Event { root, type_ })
        .and_then(|()| json.end())
        .map_err(|error| problem(&error))
}

/// What a list says about itself. Its items are skipped.
pub(in crate::fetch) fn list(body: &[u8]) -> Result<List<'_>, &'static str> {
    let list: WireList<'_> = serde_json::from_slice(body).map_err(|error| problem(&error))?;
    Ok(List {
        kind: list.kind,
        resource_version: list.metadata.resource_version,
        continue_: list.metadata.continue_.unwrap_or_default(),
        remaining: list.metadata.remaining,
        items: list.items.unwrap_or_default().len() as u64,
    })
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
    #[serde(borrow, default, rename = "resourceVersion")]
    resource_version: Cow<'a, str>,
    #[serde(rename = "remainingItemCount")]
    remaining: Option<u64>,
    #[serde(borrow, rename = "continue")]
    continue_: Option<Cow<'a, str>>,
}

/// What kind of error it is, without the texts that may quote a value.
fn problem(error: &serde_json::Error) -> &'static str {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => TOO_SHORT,
        Category::Syntax => "it is not JSON",
        Category::Data => BAD_FIELD,
        Category::Io => "it could not be read",
    }
}

/// A text that is a slice of the body wherever it has no escapes. Null is the empty text.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

        let text = Option::<Borrowed<'de>>::deserialize(deserializer)?;
        Ok(Self(text.map(|Borrowed(text)| text).unwrap_or_default()))
    }
}

/// A map of the object that is filled. Null counts as an empty one.
struct Map<'o, 'de> {
    place: Place,
    object: &'o mut Object<'de>,
    fields: &'o Fields,
}

/// Which map it is.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Metadata,
    Annotations,
    Data,
    Details,
}

impl<'de> DeserializeSeed<'de> for Map<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Map<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            match self.place {
                Place::Root => self.of_object(&name, &mut map)?,
                Place::Metadata => self.of_metadata(&name, &mut map)?,
                Place::Annotations => self.annotation(&name, &mut map)?,
                Place::Data => self.value(&name, &mut map)?,
                Place::Details => self.detail(&name, &mut map)?,
            }
        }
        Ok(())
    }
}

impl<'de> Map<'_, 'de> {
    fn within<A: MapAccess<'de>>(&mut self, place: Place, map: &mut A) -> Result<(), A::Error> {
        map.next_value_seed(Map {
            place,
            object: self.object,
            fields: self.fields,
        })
    }

    fn of_object<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "apiVersion" => self.object.api_version = text(map)?,
            "kind" => self.object.kind = text(map)?,
            "type" => self.object.type_ = text(map)?,
            "metadata" => self.within(Place::Metadata, map)?,
            "data" => self.within(Place::Data, map)?,
            "reason" => self.object.status.reason = text(map)?,
            "code" => self.object.status.code = map.next_value()?,
            "details" => self.within(Place::Details, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn of_metadata<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "namespace" => self.object.namespace = text(map)?,
            "name" => self.object.name = text(map)?,
            "uid" => self.object.uid = text(map)?,
            "resourceVersion" => self.object.resource_version = text(map)?,
            "annotations" => self.within(Place::Annotations, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn annotation<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if !wanted(name, self.fields) {
            return skip(map);
        }
        self.object.annotate(name, &text(map)?);
        Ok(())
    }

    fn value<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if !self.fields.data.contains(name) {
            return skip(map);
        }
        let Value(value) = map.next_value()?;
        self.object.data.insert(name.into(), value);
        Ok(())
    }

    fn detail<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "retryAfterSeconds" {
            let seconds: Option<u64> = map.next_value()?;
            self.object.status.retry_after = seconds.map(Duration::from_secs);
            return Ok(());
        }
        skip(map)
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Cow<'de, str>, A::Error> {
    map.next_value().map(|Text(text)| text)
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value().map(|IgnoredAny| ())
}

/// A line of a watch.
struct Event<'o, 'de> {
    root: Map<'o, 'de>,
    type_: &'o mut Cow<'de, str>,
}

impl<'de> Visitor<'de> for Event<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            match name.as_ref() {
                "type" => *self.type_ = text(&mut map)?,
                "object" => self.root.within(Place::Root, &mut map)?,
                _ => skip(&mut map)?,
            }
        }
        Ok(())
    }
}

/// One value of `data`, decoded straight from the body.
struct Value(SecretBytes);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;

        impl Visitor<'_> for Base64 {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 value")
            }

            // base64 needs no escapes in JSON, and Go writes none, so this is a slice of the body and not a copy.
            fn visit_str<E: de::Error>(self, encoded: &str) -> Result<Self::Value, E> {
                decoded(encoded).map(Value).ok_or_else(|| E::custom("not base64"))
            }

            // The API server writes an empty value as "" or, from some clients' nil slices, as null.
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Value(SecretBytes::new(Vec::new())))
            }
        }

        deserializer.deserialize_any(Base64)
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

    use super::*;

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
    }
}
