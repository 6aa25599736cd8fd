//! What a watch or a list tells of one object.

use std::borrow::Cow;
use std::time::Duration;

use super::{Format, Metadata, Object, json, no_fields, protobuf};
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SnapshotBuilder};
use crate::want::Fields;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// The Secret is in the selection, in this version.
    Present(SnapshotBuilder, Metadata),
    /// It was deleted, or has left the selection.
    Gone(SecretRef, Metadata),
    /// Everything up to this version has been told.
    Bookmark {
        version: ResourceVersion,
        /// Whether what was told so far is the first list.
        initial_events_end: bool,
    },
    /// The watch ends.
    Ends(Ended),
    /// Something happened to this Secret that cannot be decoded.
    Unusable {
        secret: SecretRef,
        version: Option<ResourceVersion>,
        problem: &'static str,
    },
}

/// The `Status` that ends a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As an HTTP status code.
    pub(crate) code: u16,
    /// Whether the history is gone that was to be told.
    pub(crate) expired: bool,
    pub(crate) retry_after: Option<Duration>,
}

/// A line, a frame or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) enum Piece<'a> {
    Whole(&'a [u8]),
    /// The beginning of one that is bigger than allowed.
    Beginning(&'a [u8]),
}

const TOO_LARGE: &str = "it is bigger than allowed";

/// Decodes what one line or frame of a watch tells. The error is for one that cannot be attributed to any Secret.
pub(in crate::fetch) fn event(format: Format, piece: Piece<'_>, fields: &Fields) -> Result<Event, &'static str> {
    let mut object = Object::default();
    let mut type_ = Cow::default();
    let decoded = match (format, piece) {
        (Format::Json, Piece::Whole(line)) => json::event(line, fields, &mut object, &mut type_),
        (Format::Protobuf, Piece::Whole(frame)) => protobuf::event(frame, fields, &mut object, &mut type_),
        // The metadata come before the data in both formats. Whatever follows them is missing, and that is no news.
        (Format::Json, Piece::Beginning(line)) => {
            let _ = json::event(line, &no_fields(), &mut object, &mut type_);
            Err(TOO_LARGE)
        }
        (Format::Protobuf, Piece::Beginning(frame)) => {
            let _ = protobuf::beginning_of_event(frame, &no_fields(), &mut object, &mut type_);
            Err(TOO_LARGE)
        }
    };
    match type_.as_ref() {
        "ADDED" | "MODIFIED" => present(object, decoded, Some("Secret")),
        // Whatever the deleted object was, it is gone.
        "DELETED" => {
            let secret = object.secret_ref().ok_or("it deletes an object without a valid name")?;
            let metadata = object.metadata()?;
            Ok(Event::Gone(secret, metadata))
        }
        "BOOKMARK" => {
            decoded?;
            let version = object.version()?;
            let initial_events_end = object.initial_events_end;
            Ok(Event::Bookmark {
                version,
                initial_events_end,
            })
        }
        "ERROR" => {
            decoded?;
            let status = object.status;
            Ok(Event::Ends(Ended {
                code: status.code,
                expired: status.code == 410 || status.reason == "Expired" || status.reason == "Gone",
                retry_after: status.retry_after,
            }))
        }
        _ => Err(decoded.err().unwrap_or("it is no event of a watch")),
    }
}

/// Decodes an item of a list.
pub(in crate::fetch) fn item(format: Format, piece: Piece<'_>, fields: &Fields) -> Result<Event, &'static str> {
    let mut object = Object::default();
    let decoded = match (format, piece) {
        (Format::Json, Piece::Whole(item)) => json::object(item, fields, &mut object),
        (Format::Protobuf, Piece::Whole(item)) => protobuf::item(item, fields, &mut object),
        (Format::Json, Piece::Beginning(item)) => {
            let _ = json::object(item, &no_fields(), &mut object);
            Err(TOO_LARGE)
        }
        (Format::Protobuf, Piece::Beginning(item)) => {
            let _ = protobuf::beginning_of_item(item, &no_fields(), &mut object);
            Err(TOO_LARGE)
        }
    };
    // Items of a typed list carry no kind of their own.
    present(object, decoded, None)
}

fn present(
    object: Object<'_>,
    decoded: Result<(), &'static str>,
    kind: Option<&'static str>,
) -> Result<Event, &'static str> {
    let secret = object
        .secret_ref()
        .ok_or_else(|| decoded.err().unwrap_or("it is an object without a valid name"))?;
    let version = object.version().ok();
    let unusable = |problem| Event::Unusable {
        secret: secret.clone(),
        version,
        problem,
    };
    if let Err(problem) = decoded {
        return Ok(unusable(problem));
    }
    if kind.is_some_and(|kind| !object.is("v1", kind)) {
        return Ok(unusable("it is not a v1 Secret"));
    }
    let built = object
        .metadata()
        .and_then(|metadata| Ok((object.into_snapshot(secret.clone())?, metadata)));
    Ok(match built {
        Ok((snapshot, metadata)) => Event::Present(snapshot, metadata),
        Err(problem) => unusable(problem),
    })
}
