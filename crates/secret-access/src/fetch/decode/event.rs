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
    let decoded = decoded(piece, fields, |body, whole, fields| match format {
        Format::Json => json::event(body, fields, &mut object, &mut type_),
        Format::Protobuf => protobuf::event(body, whole, fields, &mut object, &mut type_),
    });
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
    let decoded = decoded(piece, fields, |body, whole, fields| match format {
        Format::Json => json::object(body, fields, &mut object),
        Format::Protobuf => protobuf::item(body, whole, fields, &mut object),
    });
    // Items of a typed list carry no kind of their own.
    present(object, decoded, None)
}

/// Decodes with `fields`, or else as much as it takes to know which object it is.
fn decoded<'a>(
    piece: Piece<'a>,
    fields: &Fields,
    mut decode: impl FnMut(&'a [u8], bool, &Fields) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let (body, whole) = match piece {
        Piece::Whole(body) => (body, true),
        Piece::Beginning(body) => (body, false),
    };
    let problem = if whole {
        match decode(body, true, fields) {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        }
    } else {
        TOO_LARGE
    };
    // API servers write the metadata before the data. That something follows which is wrong or missing is no news.
    let _ = decode(body, whole, &no_fields());
    Err(problem)
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
