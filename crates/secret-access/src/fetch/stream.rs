//! Lists and watches: what the API server says of many Secrets, one at a time.
//!
//! A body is cut into pieces while it arrives (the lines or frames of a watch, the items of a list), and each piece is
//! decoded and forgotten before the next one is looked at. So it takes as much memory as the biggest Secret, however many
//! there are, and a reader may stop in the middle.

mod frames;
mod json_items;
mod lines;
mod partial;
mod protobuf_items;
mod scope;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;

use self::frames::Frames;
use self::json_items::JsonItems;
use self::lines::Lines;
use self::protobuf_items::ProtobufItems;
pub(crate) use self::scope::Scope;
use super::decode::event::{self, Event, Piece};
use super::decode::{Format, OBJECT, TOO_SHORT, json, protobuf};
use super::{Failure, Fetcher, body, connection};
use crate::snapshot::ResourceVersion;
use crate::want::Fields;

/// How long the API server may take for the first list as a stream. Its own default is 30 to 60 min.
const LIST_SECONDS: u64 = 300;

/// Cuts a body into pieces.
trait Cut {
    /// Takes from the front of `chunk` until a piece is complete, or all of it.
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str>;

    /// Whether the body may end here.
    fn is_between_pieces(&self) -> bool;
}

enum Cutter {
    Lines(Lines),
    Frames(Frames),
    JsonItems(JsonItems),
    ProtobufItems(ProtobufItems),
}

impl Cut for Cutter {
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        match self {
            Self::Lines(lines) => lines.cut(chunk),
            Self::Frames(frames) => frames.cut(chunk),
            Self::JsonItems(items) => items.cut(chunk),
            Self::ProtobufItems(items) => items.cut(chunk),
        }
    }

    fn is_between_pieces(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.is_between_pieces(),
            Self::Frames(frames) => frames.is_between_pieces(),
            Self::JsonItems(items) => items.is_between_pieces(),
            Self::ProtobufItems(items) => items.is_between_pieces(),
        }
    }
}

/// What a stream says next.
#[derive(Debug)]
pub(crate) enum Told {
    Event(Event),
    /// The list is over.
    Listed(Listed),
    /// The watch was ended by the server, in good order.
    Over,
}

/// How a list ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What it shows: everything up to this version.
    pub(crate) version: ResourceVersion,
    /// How to ask for what is missing from it.
    pub(crate) continue_: Option<Box<str>>,
}

/// An answer that is being read.
pub(crate) struct Stream {
    body: Body,
    chunk: Bytes,
    /// How much of the chunk was read.
    read: usize,
    cutter: Cutter,
    format: Format,
    /// Whether the pieces are items and not events.
    list: bool,
    fields: Fields,
}

impl Fetcher {
    /// Begins the first list as a stream of events, which a bookmark ends. API servers that do not know about it refuse it:
    /// see [`refuses_streaming`].
    pub(crate) async fn streamed_list(&self, scope: &Scope, fields: &Fields) -> Result<Stream, Failure> {
        self.stream(&scope.streamed_list(LIST_SECONDS), true, fields, self.options.deadline)
            .await
    }

    /// Begins a page of the first list.
    pub(crate) async fn page(
        &self,
        scope: &Scope,
        limit: u32,
        continue_: Option<&str>,
        fields: &Fields,
    ) -> Result<Stream, Failure> {
        self.stream(&scope.page(limit, continue_), false, fields, self.options.deadline)
            .await
    }

    /// Begins a watch of what happens after `from`.
    pub(crate) async fn watch(
        &self,
        scope: &Scope,
        from: ResourceVersion,
        lasting: Duration,
        fields: &Fields,
    ) -> Result<Stream, Failure> {
        let deadline = self.options.deadline.min(lasting);
        self.stream(&scope.watch(from, lasting.as_secs()), true, fields, deadline)
            .await
    }

    async fn stream(&self, path: &str, watch: bool, fields: &Fields, deadline: Duration) -> Result<Stream, Failure> {
        let opened = tokio::time::timeout(deadline, self.opened(path, watch, fields));
        opened.await.unwrap_or(Err(Failure::Timeout(deadline)))
    }

    async fn opened(&self, path: &str, watch: bool, fields: &Fields) -> Result<Stream, Failure> {
        let request = Request::get(path)
            .header(ACCEPT, OBJECT)
            .body(Body::empty())
            .expect("a scope's address is encoded");
        let response = self.client.send(request).await.map_err(|error| connection(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response.status(), response).await);
        }
        let content_type = response.headers().get(CONTENT_TYPE);
        let format = Format::named(content_type.and_then(|value| value.to_str().ok()));
        let limit = self.options.max_body_bytes;
        let cutter = match (format, watch) {
            (Format::Json, true) => Cutter::Lines(Lines::new(limit)),
            (Format::Protobuf, true) => Cutter::Frames(Frames::new(limit)),
            (Format::Json, false) => Cutter::JsonItems(JsonItems::new(limit)),
            (Format::Protobuf, false) => Cutter::ProtobufItems(ProtobufItems::new(limit)),
        };
        Ok(Stream {
            body: response.into_body(),
            chunk: Bytes::new(),
            read: 0,
            cutter,
            format,
            list: !watch,
            fields: fields.clone(),
        })
    }
}

/// Whether an API server says by this that it does not list as a stream.
pub(crate) fn refuses_streaming(failure: Failure) -> bool {
    use crate::error::UnavailableCause::Status;
    matches!(failure, Failure::Unavailable(Status(400 | 422), _))
}

/// Whether the version or page is too old that was asked for, so that everything has to be listed anew.
pub(crate) fn is_expired(failure: Failure) -> bool {
    use crate::error::UnavailableCause::Status;
    matches!(failure, Failure::Unavailable(Status(410), _))
}

impl Stream {
    /// Waits for what comes next. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            if let Some(event) = self.at_hand().map_err(Failure::Malformed)? {
                return Ok(Told::Event(event));
            }
            body::wipe(std::mem::take(&mut self.chunk));
            self.read = 0;
            // A peer that always has more must not keep the runtime from anything else, such as the end of a deadline.
            tokio::task::coop::consume_budget().await;
            match self.body.frame().await {
                // Trailers are no part of the content.
                Some(frame) => {
                    self.chunk = frame
                        .map_err(|error| connection(&error))?
                        .into_data()
                        .unwrap_or_default();
                }
                None => return self.end().map_err(Failure::Malformed),
            }
        }
    }

    /// The next event in the chunk.
    fn at_hand(&mut self) -> Result<Option<Event>, &'static str> {
        let mut rest = &self.chunk[self.read..];
        let Some(piece) = self.cutter.cut(&mut rest)? else {
            self.read = self.chunk.len();
            return Ok(None);
        };
        self.read = self.chunk.len() - rest.len();
        let decoded = if self.list {
            event::item(self.format, piece, &self.fields)
        } else {
            event::event(self.format, piece, &self.fields)
        };
        decoded.map(Some)
    }

    fn end(&self) -> Result<Told, &'static str> {
        if !self.cutter.is_between_pieces() {
            return Err(TOO_SHORT);
        }
        let list = match &self.cutter {
            Cutter::Lines(_) | Cutter::Frames(_) => return Ok(Told::Over),
            Cutter::JsonItems(items) => json::list(items.rest())?,
            Cutter::ProtobufItems(items) => protobuf::list_parts(items.parts())?,
        };
        if list.kind != "SecretList" {
            return Err("it is not a list of Secrets");
        }
        let version = list.resource_version.parse();
        Ok(Told::Listed(Listed {
            version: version.map_err(|_| "its resourceVersion is not a decimal number")?,
            continue_: (!list.continue_.is_empty()).then(|| list.continue_.as_ref().into()),
        }))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        body::wipe(std::mem::take(&mut self.chunk));
    }
}

#[cfg(test)]
mod tests;
