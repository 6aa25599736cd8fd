//! Kubernetes' protobuf: a decoder of the few messages that reading Secrets takes.
//!
//! Field numbers are those of the `generated.proto` files of Kubernetes (`k8s.io/api/core/v1`,
//! `k8s.io/apimachinery/pkg/apis/meta/v1` and `pkg/runtime`), which the API guarantees not to change. Whatever is unknown is
//! skipped. Messages are nested as deep as this file follows them and no deeper, whatever the input says.

use std::borrow::Cow;
use std::time::Duration;

use super::{BAD_FIELD, List, Object, TOO_SHORT, wanted};
use crate::snapshot::SecretBytes;
use crate::want::Fields;

/// What every object begins with that is not part of another one.
pub(in crate::fetch) const MAGIC: [u8; 4] = *b"k8s\0";

const NOT_PROTOBUF: &str = "it is not protobuf";

/// A message, field by field.
#[derive(Clone, Copy)]
struct Message<'a> {
    rest: &'a [u8],
    /// Whether `rest` may end too early. Then what is left counts as the last field's content.
    cut: bool,
}

/// One field's content.
#[derive(Clone, Copy)]
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number: none of the messages here has one that matters.
    Fixed,
}

impl<'a> Message<'a> {
    /// The next field's number and content.
    fn next(&mut self) -> Result<Option<(u64, Content<'a>)>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let content = match tag & 7 {
            0 => Content::Number(self.number()?),
            1 => self.fixed(8)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| TOO_SHORT)?;
                Content::Bytes(self.take(length)?)
            }
            5 => self.fixed(4)?,
            // Groups (3 and 4) are not used by Kubernetes, and 6 and 7 do not exist.
            _ => return Err(NOT_PROTOBUF),
        };
        match tag >> 3 {
            0 => Err(NOT_PROTOBUF),
            field => Ok(Some((field, content))),
        }
    }

    fn fixed(&mut self, length: usize) -> Result<Content<'a>, &'static str> {
        self.take(length).map(|_| Content::Fixed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let length = if self.cut { length.min(self.rest.len()) } else { length };
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A base-128 number, least significant part first.
    fn number(&mut self) -> Result<u64, &'static str> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(TOO_SHORT)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                return if shift == 63 && *byte > 1 {
                    Err(NOT_PROTOBUF)
                } else {
                    Ok(number)
                };
            }
        }
        Err(NOT_PROTOBUF)
    }

    /// The message in a field of this one.
    fn within(self, content: Content<'a>) -> Result<Self, &'static str> {
        let cut = self.cut;
        bytes(content).map(|rest| Self { rest, cut })
    }
}

fn bytes(content: Content<'_>) -> Result<&[u8], &'static str> {
    match content {
        Content::Bytes(bytes) => Ok(bytes),
        Content::Number(_) | Content::Fixed => Err(BAD_FIELD),
    }
}

fn number(content: Content<'_>) -> Result<u64, &'static str> {
    match content {
        Content::Number(number) => Ok(number),
        Content::Bytes(_) | Content::Fixed => Err(BAD_FIELD),
    }
}

/// A text. Broken UTF-8 is replaced, as Go does when it writes the same text as JSON.
fn text(content: Content<'_>) -> Result<Cow<'_, str>, &'static str> {
    bytes(content).map(String::from_utf8_lossy)
}

/// `Unknown`, the envelope of every object that stands alone.
fn envelope<'a>(
    body: &'a [u8],
    cut: bool,
    api_version: &mut Cow<'a, str>,
    kind: &mut Cow<'a, str>,
) -> Result<Message<'a>, &'static str> {
    let rest = body.strip_prefix(&MAGIC).ok_or(NOT_PROTOBUF)?;
    let mut unknown = Message { rest, cut };
    let mut raw = None;
    while let Some((field, content)) = unknown.next()? {
        match field {
            1 => type_meta(unknown.within(content)?, api_version, kind)?,
            2 => raw = Some(unknown.within(content)?),
            3 if !bytes(content)?.is_empty() => return Err("it is in an encoding that was not asked for"),
            _ => {}
        }
    }
    raw.ok_or(TOO_SHORT)
}

/// `TypeMeta`.
fn type_meta<'a>(
    mut type_meta: Message<'a>,
    api_version: &mut Cow<'a, str>,
    kind: &mut Cow<'a, str>,
) -> Result<(), &'static str> {
    while let Some((field, content)) = type_meta.next()? {
        match field {
            1 => *api_version = text(content)?,
            2 => *kind = text(content)?,
            _ => {}
        }
    }
    Ok(())
}

/// Decodes an object into `object`, which keeps what was understood before an error.
pub(super) fn object<'a>(body: &'a [u8], fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
    enveloped(body, false, fields, object)
}

fn enveloped<'a>(body: &'a [u8], cut: bool, fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
    let message = envelope(body, cut, &mut object.api_version, &mut object.kind)?;
    match object.kind.as_ref() {
        // `PartialObjectMetadata` has nothing but metadata, under the same number.
        "Secret" | "PartialObjectMetadata" => secret(message, fields, object),
        "Status" => status(message, object),
        // The caller refuses it by its kind.
        _ => Ok(()),
    }
}

/// Decodes an item of a list, which has no envelope. Unless it is `whole`, what is missing at the end is no error in itself.
pub(super) fn item<'a>(
    item: &'a [u8],
    whole: bool,
    fields: &Fields,
    object: &mut Object<'a>,
) -> Result<(), &'static str> {
    let message = Message {
        rest: item,
        cut: !whole,
    };
    secret(message, fields, object)
}

/// Decodes a frame of a watch: the type of the event, and its object. Both keep what was understood before an error, and for
/// one that is not `whole` the same holds as for [`item`].
pub(super) fn event<'a>(
    frame: &'a [u8],
    whole: bool,
    fields: &Fields,
    object: &mut Object<'a>,
    type_: &mut Cow<'a, str>,
) -> Result<(), &'static str> {
    let mut event = Message {
        rest: frame,
        cut: !whole,
    };
    let mut raw = None;
    while let Some((field, content)) = event.next()? {
        match field {
            1 => *type_ = text(content)?,
            2 => {
                let mut extension = event.within(content)?;
                while let Some((field, content)) = extension.next()? {
                    if field == 1 {
                        raw = Some(bytes(content)?);
                    }
                }
            }
            _ => {}
        }
    }
    enveloped(raw.ok_or(TOO_SHORT)?, event.cut, fields, object)
}

/// `Secret`.
fn secret<'a>(mut secret: Message<'a>, fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
    while let Some((field, content)) = secret.next()? {
        match field {
            1 => metadata(secret.within(content)?, fields, object)?,
            2 => {
                let (key, value) = entry(secret.within(content)?)?;
                if fields.data.contains(&key) {
                    object.data.insert(key.into(), SecretBytes::new(value.to_vec()));
                }
            }
            3 => object.type_ = text(content)?,
            _ => {}
        }
    }
    Ok(())
}

/// `ObjectMeta`.
fn metadata<'a>(mut metadata: Message<'a>, fields: &Fields, object: &mut Object<'a>) -> Result<(), &'static str> {
    while let Some((field, content)) = metadata.next()? {
        match field {
            1 => object.name = text(content)?,
            3 => object.namespace = text(content)?,
            5 => object.uid = text(content)?,
            6 => object.resource_version = text(content)?,
            12 => {
                let (name, value) = entry(metadata.within(content)?)?;
                if wanted(&name, fields) {
                    object.annotate(&name, &String::from_utf8_lossy(value));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An entry of a map from texts. A missing part is empty.
fn entry(mut entry: Message<'_>) -> Result<(Cow<'_, str>, &[u8]), &'static str> {
    let mut pair = (Cow::default(), Default::default());
    while let Some((field, content)) = entry.next()? {
        match field {
            1 => pair.0 = text(content)?,
            2 => pair.1 = bytes(content)?,
            _ => {}
        }
    }
    Ok(pair)
}

/// `Status`.
fn status<'a>(mut status: Message<'a>, object: &mut Object<'a>) -> Result<(), &'static str> {
    while let Some((field, content)) = status.next()? {
        match field {
            4 => object.status.reason = text(content)?,
            5 => {
                let mut details = status.within(content)?;
                while let Some((field, content)) = details.next()? {
                    if field == 8 {
                        object.status.retry_after = Some(Duration::from_secs(number(content)?));
                    }
                }
            }
            6 => object.status.code = u16::try_from(number(content)?).map_err(|_| BAD_FIELD)?,
            _ => {}
        }
    }
    Ok(())
}

/// What a list says about itself. Its items are counted.
pub(super) fn list(body: &[u8]) -> Result<List<'_>, &'static str> {
    let mut list = List::default();
    let mut message = envelope(body, false, &mut Cow::default(), &mut list.kind)?;
    if !list.kind.ends_with("List") {
        return Ok(list);
    }
    while let Some((field, content)) = message.next()? {
        match field {
            1 => list_metadata(message.within(content)?, &mut list)?,
            2 => list.items += 1,
            _ => {}
        }
    }
    Ok(list)
}

/// What a list says about itself, from its `TypeMeta` and `ListMeta`.
pub(in crate::fetch) fn list_parts<'a>((type_meta, list_meta): (&'a [u8], &'a [u8])) -> Result<List<'a>, &'static str> {
    let message = |rest| Message { rest, cut: false };
    let mut list = List::default();
    self::type_meta(message(type_meta), &mut Cow::default(), &mut list.kind)?;
    list_metadata(message(list_meta), &mut list)?;
    Ok(list)
}

/// `ListMeta`.
fn list_metadata<'a>(mut metadata: Message<'a>, list: &mut List<'a>) -> Result<(), &'static str> {
    while let Some((field, content)) = metadata.next()? {
        match field {
            2 => list.resource_version = text(content)?,
            3 => list.continue_ = text(content)?,
            4 => list.remaining = Some(number(content)?),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::fetch) mod tests;
